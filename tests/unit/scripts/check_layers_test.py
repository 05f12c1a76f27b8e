"""check_layers.py on small trees: each rule has one that breaks it, and one that comes close and does not."""

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import check_layers  # noqa: E402

GOOD = {
    "CMakeLists.txt": "add_subdirectory(protocol)\n",
    ".gitignore": "/build/\n",
    "protocol/include/protocol/channel.h": "#pragma once\n#include <string>\n",
    "protocol/src/channel.cpp": '#include "protocol/channel.h"\n#include <zmq.hpp>\n#include <msgpack.hpp>\n',
    "coordinator/coordinator.h": '#include "protocol/channel.h"\n#include <yaml-cpp/yaml.h>\n#include <CLI/CLI.hpp>\n',
    "coordinator/child_process.cpp": '#include "child_process.h"\nvoid f() { posix_spawn(); ::kill(1, 9); }\n',
    "coordinator/child_process.h": "struct ChildProcess { void kill(int signal); };\n",
    "worker/batch.h": "#include <ATen/core/Tensor.h>\n",
    "worker/data/text.cpp": '#include "data/text.h"\n#include "batch.h"\n#include <torch/torch.h>\n',
    "worker/data/text.h": "#pragma once\n",
    "plugin-host/plugin_library.cpp": '#include "plugin_library.h"\nvoid f() { dlopen("x", 0); }\n',
    "plugin-host/plugin_library.h": '#include "bulkhead/plugin.h"\n#include "protocol/channel.h"\n',
    "plugin-host/sdk/include/bulkhead/plugin.h": "#include <cstdint>\n#include <stdint.h>\n#include <cxxabi.h>\n",
    "plugin-host/python/bulkhead/wire.py": "import zmq\nimport msgpack\n",
    "plugins/noise.cpp": '#include "bulkhead/plugin.h"\n#include <cmath>\n',
    "plugins/saboteur.py": "import os, signal\nfrom bulkhead import Plugin\nos.kill(os.getpid(), signal.SIGSEGV)\n",
    "tests/unit/worker/batch_test.cpp": '#include "batch.h"\n#include <torch/torch.h>\n#include "support/cluster.h"\n',
    "tests/fault/kill_test.cpp": '#include "coordinator.h"\n#include <zmq.hpp>\nvoid f() { kill(1, 9); }\n',
    "tests/support/cluster.h": '#include "protocol/channel.h"\n',
}

# (file, text, where, what the line says)
BAD = [
    ("coordinator/a.cpp", '\n#include "batch.h"\n', 2, "coordinator includes batch.h of worker"),
    ("coordinator/a.cpp", '#include "worker/batch.h"\n', 1, "of worker; it may include protocol"),
    ("coordinator/a.cpp", '#include "../worker/batch.h"\n', 1, "a path with .. hides"),
    ("coordinator/a.cpp", "#include <bulkhead/plugin.h>\n", 1, "of sdk"),
    ("worker/a.cpp", '#include "coordinator.h"\n', 1, "worker includes coordinator.h of coordinator"),
    ("worker/a.cpp", '  #  include "support/cluster.h"\n', 1, "of tests"),
    ("worker/a.cpp", "#include <zmq.hpp>\n", 1, "ZeroMQ and msgpack belong to protocol/src/"),
    ("worker/a.cpp", "#include <yaml-cpp/yaml.h>\n", 1, "yaml-cpp belong to coordinator/"),
    ("protocol/src/a.cpp", '#include "coordinator.h"\n', 1, "it may include nothing of ours"),
    ("protocol/include/protocol/a.h", "#include <msgpack.hpp>\n", 1, "belong to protocol/src/"),
    ("protocol/src/a.cpp", "#include <c10/util/Half.h>\n", 1, "torch and its libraries belong to worker/"),
    ("plugin-host/a.cpp", "#include <torch/torch.h>\n", 1, "belong to worker/"),
    ("plugin-host/sdk/include/bulkhead/a.h", "#include <spdlog/spdlog.h>\n", 1, "standard library only"),
    ("plugin-host/sdk/include/bulkhead/a.h", '#include "protocol/channel.h"\n', 1, "sdk includes"),
    ("plugins/a.cpp", '#include "protocol/channel.h"\n', 1, "plugins includes protocol/channel.h of protocol"),
    ("tests/unit/coordinator/a_test.cpp", "#include <torch/torch.h>\n", 1, "belong to worker/"),
    ("worker/a.cpp", "// why\nint f() {\n  return ::kill(1, 9);\n}\n", 3, "only coordinator/child_process* may"),
    ("coordinator/coordinator.cpp", "void f() { posix_spawnp(); }\n", 1, "calls posix_spawnp"),
    ("plugin-host/main.cpp", "void f() { fork(); }\n", 1, "calls fork"),
    ("plugins/a.cpp", 'int x = std::system("ls");\n', 1, "calls system"),
    ("plugin-host/main.cpp", "void f() { dlopen(0, 0); }\n", 1, "only plugin-host/plugin_library, protocol/src/device_calls, tests/gpu/count_waits* may"),
    ("tests/unit/a_test.cpp", "void f() { dlopen(0, 0); }\n", 1, "calls dlopen"),
    ("plugin-host/plugin_library.cpp", "void f() { dlclose(0); }\n", 1, "never safe"),
    ("plugins/a.py", "import zmq\n", 1, "imports zmq"),
    ("plugins/a.py", "import os\nos.kill(1, 9)\n", 2, "calls os.kill"),
    ("plugin-host/python/bulkhead/host.py", "try:\n    import torch\nexcept ImportError:\n    pass\n", 2, "on demand"),
    ("plugin-host/python/bulkhead/host.py", "from bulkhead import torch_batch\n", 1, "bulkhead.torch_batch for every"),
    ("plugin-host/python/bulkhead/host.py", "from .torch_batch import X\n", 1, "torch_batch.X for every"),
    ("plugin-host/python/bulkhead/host.py", "import os\nos.fork()\n", 2, "calls os.fork"),
    ("plugins/a.py", "def f(:\n", 1, "is not Python"),
    ("coordinator/CMakeLists.txt", "\ntarget_link_libraries(x bulkhead::worker)\n", 2, "links bulkhead::worker"),
    ("plugins/CMakeLists.txt", "target_link_libraries(x bulkhead::torch_cpu)\n", 1, "torch belongs to worker/"),
    ("utils/a.h", "#pragma once\n", 1, "not a top-level name"),
    ("NOTES.md", "x\n", 1, "not a top-level name"),
]

NEAR_MISSES = [
    ("worker/a.cpp", '// dlopen("x") and fork() and\n/* kill(1) */ const char* s = "kill(1, 9)";\n'),
    ("worker/a.cpp", "void f() { host.kill(9); child->kill(9); faults::kill(2); overkill(); kill_host(); }\n"),
    ("worker/a.h", "struct A { Status kill(int signal); void fork(); };\nvoid A::fork() {}\n"),
    ("worker/a.cpp", "int big = 1'000'000; const char c = '\"'; // fork()\n"),
    ("plugins/a.cpp", "void f() { ::kill(::getpid(), 9); kill(getpid(), 11); }\n"),
    ("worker/a.cpp", "// #include <zmq.hpp>\n"),
    ("plugins/a.py", "import torch\nimport numpy\n"),
    ("plugin-host/python/bulkhead/wire.py", "def as_torch(x):\n    import torch\n    return torch.from_numpy(x)\n"),
    ("plugin-host/python/bulkhead/torch_batch.py", "import torch\n"),
    ("plugin-host/python/bulkhead/batch.py", "def torch(x):\n    from bulkhead.torch_batch import X\n"),
    ("plugin-host/python/bulkhead/zygote.py", "import os\nos.fork()\n"),
    ("plugin-host/python/bulkhead/check/process.py", "import os\nos.killpg(1, 9)\n"),
    ("coordinator/CMakeLists.txt", "# not bulkhead::worker\ntarget_link_libraries(x bulkhead::protocol)\n"),
    ("build/x/a.cpp", "#include <zmq.hpp>\n"),
    (".ci/run", "scripts/test\n"),
]


def violations(root, extra=()):
    for path, text in [*GOOD.items(), *extra]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return check_layers.check_tree(root)[0]


def test_accepts_a_tree_whose_arrows_point_the_right_way(tmp_path):
    assert violations(tmp_path) == []


@pytest.mark.parametrize("path, text, line, message", BAD, ids=[f"rule{i}" for i in range(len(BAD))])
def test_names_the_file_and_line_of_a_violation(tmp_path, path, text, line, message):
    found = violations(tmp_path, [(path, text)])
    assert len(found) == 1, found
    where = path.split("/")[0] if "top-level" in message else path
    assert found[0][:2] == (where, line)
    assert message in found[0][2]


@pytest.mark.parametrize("path, text", NEAR_MISSES, ids=[f"near{i}" for i in range(len(NEAR_MISSES))])
def test_leaves_near_misses_alone(tmp_path, path, text):
    assert violations(tmp_path, [(path, text)]) == []


def test_exits_with_1_on_violations_and_2_on_bad_usage(tmp_path, capsys):
    violations(tmp_path, [("plugins/a.py", "import zmq\n")])
    assert check_layers.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith("plugins/a.py:1: imports zmq")
    assert check_layers.main([str(tmp_path / "absent")]) == 2
