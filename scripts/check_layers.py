#!/usr/bin/env python3
"""Checks the one-way arrows of the tree and that each dependency has one owner.

    coordinator, worker, plugin-host -> protocol      plugins, plugin-host -> sdk      nobody -> tests

Reads text only: includes, imports, CMake links and the few system calls that have an owner.  Prints one line
`file:line: what is wrong` for each violation and exits 1; exits 0 on a clean tree, 2 on bad usage.  Tests may use
everything, except that torch stays with the tests of the worker, so that the rest builds without it.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

TOP_LEVEL = {"CMakeLists.txt", "CMakePresets.json", "CONTRIBUTING.md", "LICENSE", "README.md", "coordinator",
             "plugin-host", "plugins", "protocol", "scripts", "tests", "worker"}

# Whose headers each part may include, besides its own.
MAY_INCLUDE = {
    "protocol": set(),
    "coordinator": {"protocol"},
    "worker": {"protocol"},
    "plugin-host": {"protocol", "sdk"},
    "sdk": set(),
    "plugins": {"sdk"},
    "tests": {"protocol", "coordinator", "worker", "plugin-host", "sdk"},
}
INCLUDE_ROOTS = {  # where a part's headers are included from
    "protocol": ["protocol/include", "protocol/src"],
    "coordinator": ["coordinator"],
    "worker": ["worker"],
    "sdk": ["plugin-host/sdk/include"],
    "plugin-host": ["plugin-host"],
    "plugins": ["plugins"],
    "tests": ["tests"],
}

# Header -> (what it is, which files own it).
OWNED_HEADERS = [
    (r"zmq|msgpack", "ZeroMQ and msgpack", r"protocol/src/"),
    (r"torch/|ATen/|c10/|caffe2/|gloo/|nccl|cuda", "torch and its libraries",
     r"worker/|tests/[^/]+/worker/|tests/gpu/"),
    (r"yaml-cpp/", "yaml-cpp", r"coordinator/"),
    (r"CLI/", "CLI11", r"coordinator/"),
    (r"jpeglib\.h|png\.h", "libjpeg and libpng", r"worker/data/picture_"),
]
# Called function -> (what it does, which files own it, whether tests may).
OWNED_CALLS = [
    (r"dlopen|dlmopen|dlsym", "loads a library", r"plugin-host/plugin_library|protocol/src/device_calls|tests/gpu/count_waits", False),
    (r"dlclose", "unloads a plugin, which is never safe", r"(?!)", False),
    (r"posix_spawnp?|v?fork|clone3?|popen|system|kill|killpg|tgkill|pidfd_send_signal|exec[lv]p?e?|fexecve",
     "starts or signals processes", r"coordinator/child_process", True),
]
# C's headers, and the one with which the C++ library names types.
STANDARD_C = re.compile(r"(assert|ctype|cxxabi|errno|fenv|float|inttypes|limits|locale|math|setjmp|signal|stdarg|"
                        r"stddef|stdint|stdio|stdlib|string|time|uchar|wchar|wctype)\.h")

PROCESS_CALL = re.compile(r"os\.(v?fork|forkpty|kill|killpg|posix_spawnp?|system|popen)")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.M)
NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
# A number's digit separators look like quotes.
SEPARATOR = re.compile(r"(?<=[0-9a-fA-F])'(?=[0-9a-fA-F])")
CMAKE_LINK = re.compile(r"bulkhead(?:::|_)(coordinator|worker|plugin_host|plugin_library|sdk|torch)\w*")


class Violations:
    def __init__(self):
        self.lines = []

    def add(self, path, text, offset, message):
        line = text.count("\n", 0, offset) + 1
        self.lines.append((path, line, message))


def part_of(path):
    """The part a file belongs to, or None where no arrow applies (scripts, top level)."""
    if path.startswith("plugin-host/sdk/"):
        return "sdk"
    top = path.split("/")[0]
    return top if top in MAY_INCLUDE else None


def included_part(header, path, own, files):
    """Whose header that is; None for the system's and other people's."""
    if (Path(path).parent / header).as_posix() in files:
        return own
    order = [own] + [part for part in INCLUDE_ROOTS if part != own]
    for part in order:
        if any(f"{root}/{header}" in files for root in INCLUDE_ROOTS[part]):
            return part
    for prefix, part in (("protocol/", "protocol"), ("bulkhead/", "sdk"), ("coordinator/", "coordinator"),
                         ("worker/", "worker"), ("plugin-host/", "plugin-host"), ("tests/", "tests")):
        if header.startswith(prefix):
            return part
    return None


def check_includes(path, text, files, found):
    own = part_of(path)
    for match in INCLUDE.finditer(text):
        header = match.group(2)
        if ".." in header.split("/"):
            found.add(path, text, match.start(), f"includes {header}: a path with .. hides which part it is from")
            continue
        part = included_part(header, path, own, files) if own else None
        if part and part != own and part not in MAY_INCLUDE[own]:
            allowed = ", ".join(sorted(MAY_INCLUDE[own])) or "nothing of ours"
            found.add(path, text, match.start(), f"{own} includes {header} of {part}; it may include {allowed}")
        if own == "sdk" and part is None and ("/" in header or "." in header and not STANDARD_C.fullmatch(header)):
            found.add(path, text, match.start(), f"the sdk includes {header}; it may use the standard library only")
        for pattern, what, owner in OWNED_HEADERS:
            free = own == "tests" and "torch" not in what
            if part is None and re.match(pattern, header) and not free and not re.match(owner, path):
                found.add(path, text, match.start(), f"includes {header}: {what} belong to {readable(owner)}")


def readable(owner):
    return owner.replace("[^/]+", "*").replace("\\.", ".*").replace("|", ", ")


def is_call(code, start, end):
    """Whether the name at code[start:end] is called as a free function, rather than declared or a method."""
    if not re.match(r"\s*\(", code[end:]):
        return False
    before = code[:start].rstrip()
    if before.endswith("::"):
        scope = re.search(r"(\w*)::$", before).group(1)
        return scope in ("", "std", "return")
    if before.endswith((".", "->", "~")):
        return False
    word = re.search(r"(\w+)$", before)
    return not word or word.group(1) in ("return", "else", "do", "co_return", "case")


def without_comments_and_strings(text):
    """The code alone, every character at its place."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return NOT_CODE.sub(blank, SEPARATOR.sub("0", text))


def check_calls(path, text, found):
    code = without_comments_and_strings(text)
    for pattern, what, owner, tests_may in OWNED_CALLS:
        if re.match(owner, path) or (tests_may and path.startswith("tests/")):
            continue
        for match in re.finditer(rf"\b(?:{pattern})\b", code):
            # A process may end itself, which is the saboteur's trade.
            itself = re.match(r"\s*\(\s*(::)?getpid\s*\(", code[match.end():])
            if not itself and is_call(code, match.start(), match.end()):
                place = f"; only {readable(owner)}* may" if owner != "(?!)" else ""
                found.add(path, text, match.start(), f"calls {match.group(0)}, which {what}{place}")


def imports(node, at_import_time=True):
    """(dotted name, line, whether it runs when the file is imported) of each import; relative ones begin with a dot."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield alias.name, child.lineno, at_import_time
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                yield "." * child.level + f"{child.module or ''}.{alias.name}", child.lineno, at_import_time
        else:
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from imports(child, at_import_time and not inside)


def imports_torch(name, path):
    """Whether that pulls torch in: itself, or through a file torch_*.py, which are for those who have it already."""
    parts = name.split(".")
    if Path(path).name.startswith("torch_"):
        return False
    return parts[0] == "torch" or any(part.startswith("torch_") for part in parts)


def check_python(path, text, found):
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        found.lines.append((path, error.lineno or 1, f"is not Python: {error.msg}"))
        return
    host = path.startswith("plugin-host/python/")
    for name, line, at_import_time in imports(tree):
        module = name.split(".")[0]
        if module in ("zmq", "msgpack") and not host and not path.startswith("tests/"):
            found.lines.append((path, line, f"imports {module}: ZeroMQ and msgpack belong to plugin-host/python/"))
        if host and at_import_time and imports_torch(name, path):
            found.lines.append((path, line, f"imports {name.strip('.')} for every plugin: only on demand"))
        if module in ("tests", "conftest") and not path.startswith("tests/"):
            found.lines.append((path, line, f"imports {module}: nobody depends on tests"))
    if path.startswith(("plugin-host/", "plugins/")):
        check_python_processes(path, tree, found)


def check_python_processes(path, tree, found):
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name = ast.unparse(node.func)
        itself = node.args and ast.unparse(node.args[0]) == "os.getpid()"
        # The zygote forks for the coordinator; the check is the coordinator of the one host that it starts.
        allowed = path.startswith(("plugin-host/python/bulkhead/zygote", "plugin-host/python/bulkhead/check/process."))
        if PROCESS_CALL.fullmatch(name) and not itself and not allowed:
            found.lines.append((path, node.lineno, f"calls {name}: only the coordinator starts and ends processes"))


def check_cmake(path, text, found):
    own = part_of(path)
    if own is None:
        return
    code = re.sub(r"#[^\n]*", lambda match: " " * len(match.group(0)), text)
    for match in CMAKE_LINK.finditer(code):
        part = {"plugin_host": "plugin-host", "plugin_library": "plugin-host"}.get(match.group(1), match.group(1))
        if part == "torch":
            if own not in ("worker", "tests"):
                found.add(path, text, match.start(), f"{own} links {match.group(0)}: torch belongs to worker/")
        elif part != own and part not in MAY_INCLUDE[own] and not (path.startswith("plugin-host/") and part == "sdk"):
            found.add(path, text, match.start(), f"{own} links {match.group(0)} of {part}")


def tree_files(root):
    """What git would commit; all files where there is no git."""
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "--", "."],
                            capture_output=True, text=True, check=False) if (root / ".git").exists() else None
    if listed and listed.returncode == 0:
        names = listed.stdout.splitlines()
    else:
        names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        names = [name for name in names if not re.match(r"(build|runs|\.[^/]+)/", name)]
    return sorted(name for name in names if "/__pycache__/" not in name and (root / name).is_file())


def check_tree(root):
    """Every violation as (file, line, message), and how many files were read."""
    names = tree_files(root)
    files, found = set(names), Violations()
    for top in sorted({name.split("/")[0] for name in names}):
        if top not in TOP_LEVEL and not top.startswith("."):
            found.lines.append((top, 1, "is not a top-level name of the design; it belongs in one of the parts"))
    for name in names:
        if not name.endswith((".h", ".cpp", ".cu", ".py", ".cmake", "CMakeLists.txt")):
            continue
        text = (root / name).read_text(encoding="utf-8", errors="replace")
        if name.endswith((".h", ".cpp", ".cu")):
            check_includes(name, text, files, found)
            check_calls(name, text, found)
        elif name.endswith(".py"):
            check_python(name, text, found)
        else:
            check_cmake(name, text, found)
    return sorted(found.lines), len(names)


def main(arguments):
    if len(arguments) > 1 or (arguments and not Path(arguments[0]).is_dir()):
        print("usage: scripts/check_layers.py [ROOT]", file=sys.stderr)
        return 2
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    violations, count = check_tree(root)
    for path, line, message in violations:
        print(f"{path}:{line}: {message}")
    if not violations:
        print(f"layers: {count} files, every arrow points the right way")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
