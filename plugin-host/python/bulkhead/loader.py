"""From a run file's entry to a plugin object: find the class, import it, check it, construct it.

Everything that is wrong is a Refusal, one sentence for a person.  What a constructor or module does to end the
process (SystemExit) is not caught.  Used once, on the host's one thread.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import platform
import re
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Dict, List, Optional

from bulkhead import arguments, checks, registry, state
from bulkhead.failure import PLUGIN_MODULES, failure_of, sentence, type_name
from bulkhead.hooks import did_you_mean
from bulkhead.plugin import Plugin


class Refusal(Exception):
    """Why the plugin cannot be loaded: the fields of `load_failed`."""

    def __init__(self, stage: str, key: str, message: str, error: Optional[BaseException] = None) -> None:
        super().__init__(message)
        self.stage = stage  # find | import | check | arguments | constructor
        self.key = key  # use | device | with.NAME | ""
        self.failure = sentence(message)
        if error is not None:
            self.failure.update(type=type_name(error), traceback=failure_of(error)["traceback"])


@dataclass(frozen=True)
class LoadedPlugin:
    plugin: Plugin
    hooks: List[str]  # overridden ones
    traits: dict  # as in PluginTraits of protocol/messages.h


def find_class(config: dict, again: bool = False) -> type:
    """The class that `config` (file or module, class_name) names, checked but not constructed.

    `again`: for a later incarnation, which is waited for: what an earlier one has checked is believed.
    """
    module, where = _import_module(config) if config["module"] else _import_file(config["file"])
    cls = _class_in(module, where, config["class_name"], again)
    if again:
        return cls
    try:
        checks.check_class(cls)
    except checks.BadPlugin as error:
        raise Refusal("check", "use", str(error)) from None
    return cls


def construct(cls: type, config: dict, scope: str) -> LoadedPlugin:
    """Checks scope and arguments and calls the constructor; the caller has seeded."""
    hooks = checks.overridden_hooks(cls)
    try:
        checks.check_scope(cls, hooks, scope)
        keywords = arguments.fit(cls, config["with"])
    except checks.BadPlugin as error:
        raise Refusal("check", "use", str(error)) from None
    except arguments.BadArgument as error:
        raise Refusal("arguments", f"with.{error.name}", str(error)) from None
    try:
        plugin = cls(**keywords)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        failure = failure_of(error)
        message = f"the constructor of {cls.__name__} raised {failure['type']}: {failure['message']}"
        raise Refusal("constructor", "", message, error) from None
    _warn_of_left_out(plugin)
    return LoadedPlugin(plugin, hooks, _traits(cls, hooks))


def adopt(plugin: Plugin, scope: str = "rank") -> LoadedPlugin:
    """A plugin that somebody else has constructed, checked like any; Refusal."""
    cls = type(plugin)
    try:
        checks.check_class(cls)
        hooks = checks.overridden_hooks(cls)
        checks.check_scope(cls, hooks, scope)
    except checks.BadPlugin as error:
        raise Refusal("check", "use", str(error)) from None
    return LoadedPlugin(plugin, hooks, _traits(cls, hooks))


def _traits(cls: type, hooks: List[str]) -> dict:
    return {
        "hooks": hooks,
        "claims": sorted(cls.claims),
        "steers": cls.steers,
        "stateless": cls.stateless,
        "seeded": cls.seeded,
        "stateful": not cls.stateless,
        "class_name": cls.__name__,
        "checksum": _checksum(sys.modules.get(cls.__module__)),
        "language": f"python {platform.python_version()}",
        "pid": os.getpid(),
    }


def _warn_of_left_out(plugin: Plugin) -> None:
    cls = type(plugin)
    if cls.stateless or cls.state_dict is not Plugin.state_dict:
        return
    for name, what in state.left_out(plugin):
        print(
            f"warning: {cls.__name__}.{name} holds {what}, which its state cannot carry: it will not survive a "
            f'restart; list "{name}" in `transient` if that is meant, else define state_dict and load_state_dict',
            file=sys.stderr,
        )


# ----- Import -----


def _import_file(path: str) -> Any:
    """A file or package folder, under a module name of its own, so that any basename will do."""
    name = os.path.basename(path.rstrip("/"))
    is_package = os.path.isdir(path)
    source = os.path.join(path, "__init__.py") if is_package else path
    if not os.path.exists(path):
        raise Refusal("find", "use", f"{path} does not exist")
    if not os.path.isfile(source):
        raise Refusal("find", "use", f"{path} is a folder without __init__.py, so it is not a Python package")
    # Two files of one basename are two modules.
    place = hashlib.sha256(os.path.abspath(source).encode()).hexdigest()[:8]
    stem = re.sub(r"\W", "_", os.path.splitext(name)[0])
    unique = f"{PLUGIN_MODULES}{stem}_{place}"
    spec = importlib.util.spec_from_file_location(
        unique, source, submodule_search_locations=[path.rstrip("/")] if is_package else None
    )
    if spec is None or spec.loader is None:
        raise Refusal("find", "use", f"{path} is not a Python file: its name does not end with .py")
    # Modules beside the file can be imported, but never hide the standard library or the environment.
    folder = os.path.dirname(os.path.abspath(path.rstrip("/")))
    if folder not in sys.path:
        sys.path.append(folder)
    module = importlib.util.module_from_spec(spec)
    registry.forget(unique)
    sys.modules[unique] = module
    _run_import(lambda: spec.loader.exec_module(module), name)
    return module, name


def _import_module(config: dict) -> Any:
    name = config["module"]
    try:
        module = _run_import(lambda: importlib.import_module(name), name)
    except Refusal as refusal:
        missing = refusal.__cause__
        if isinstance(missing, ModuleNotFoundError) and missing.name and f"{name}.".startswith(f"{missing.name}."):
            message = f'there is no module "{missing.name}" in {sys.executable}\'s environment'
            raise Refusal("find", "use", message) from None
        raise
    return module, name


def _run_import(run: Any, name: str) -> Any:
    try:
        return run()
    except (SystemExit, KeyboardInterrupt):
        raise
    except SyntaxError as error:
        where = f"{os.path.basename(error.filename or name)}:{error.lineno}"
        raise Refusal("import", "use", f"{where}: {error.msg}", error) from error
    except BaseException as error:
        failure = failure_of(error)
        message = f"importing {name} raised {failure['type']}: {failure['message']}"
        raise Refusal("import", "use", message, error) from error


# ----- Class -----


def _class_in(module: ModuleType, where: str, name: str, again: bool) -> type:
    classes = _plugin_classes(module)
    if not again:
        _check_names(module, where, classes)
    if name:
        return _class_named(module, where, name, classes)
    if not classes:
        raise Refusal("find", "use", f"{where} has no class derived from bulkhead.Plugin")
    if len(classes) > 1:
        names = _names_in(module, classes)
        raise Refusal("find", "use", f"{where} has several plugins ({', '.join(names)}); name one: {where}:{names[0]}")
    return classes[0]


def _names_in(module: ModuleType, classes: List[type]) -> List[str]:
    """What the module calls them, which `import … as` may have changed."""
    return [next(name for name, value in vars(module).items() if value is cls) for cls in classes]


def _class_named(module: ModuleType, where: str, name: str, classes: List[type]) -> type:
    """By its short name or its own."""
    registered = {registry.name_of(cls): cls for cls in _visible(module) if registry.name_of(cls)}
    found = registered.get(name, getattr(module, name, None))
    if found is None:
        hint = did_you_mean(name, [*_names_in(module, classes), *registered])
        raise Refusal("find", "use", f'{where} has no class "{name}"{hint}')
    if not inspect.isclass(found) or not issubclass(found, Plugin) or found is Plugin:
        raise Refusal("check", "use", f'"{name}" in {where} is not a class derived from bulkhead.Plugin')
    return found


def _check_names(module: ModuleType, where: str, classes: List[type]) -> None:
    """Each name must mean one class: a short name, a class's own, and those that a second definition has hidden."""
    means: Dict[str, type] = {cls.__name__: cls for cls in classes}
    for cls in dict.fromkeys([*registry.registered_in(module.__name__), *_visible(module)]):
        for name in {registry.name_of(cls), cls.__name__} if registry.name_of(cls) else ():
            other = means.setdefault(name, cls)
            if other is not cls:
                places = f"{registry.place_of(cls)} and {registry.place_of(other)}"
                raise Refusal("check", "use", f'{where} has two plugins named "{name}": {places}; rename one')
    for name, lines in _defined_twice(module).items():
        if means.get(name) is getattr(module, name, None) is not None:
            message = f'{where} has two plugins named "{name}", on lines {lines[0]} and {lines[1]}; rename one'
            raise Refusal("check", "use", message)


def _defined_twice(module: ModuleType) -> Dict[str, List[int]]:
    """Classes that the file defines more than once at its top level, and where."""
    try:
        with open(module.__file__ or "", "rb") as source:
            body = ast.parse(source.read()).body
    except (OSError, SyntaxError, ValueError):
        return {}
    lines: Dict[str, List[int]] = {}
    for node in body:
        if isinstance(node, ast.ClassDef):
            lines.setdefault(node.name, []).append(node.lineno)
    return {name: where for name, where in lines.items() if len(where) > 1}


def _visible(module: ModuleType) -> List[type]:
    """Every plugin class that the module has a name for."""
    values = {id(value): value for value in vars(module).values() if inspect.isclass(value)}
    return [cls for cls in values.values() if issubclass(cls, Plugin) and cls is not Plugin]


def _plugin_classes(module: ModuleType) -> List[type]:
    """Those that a person can mean: defined here, or, where there is none, imported from elsewhere."""
    public = {id(value) for name, value in vars(module).items() if not name.startswith("_")}
    classes = [cls for cls in _visible(module) if id(cls) in public and not inspect.isabstract(cls)]
    own = [cls for cls in classes if f"{cls.__module__}.".startswith(f"{module.__name__}.")]
    return own or classes


def _checksum(module: Optional[ModuleType]) -> str:
    """sha256 of the file that holds the class; empty when there is none to read."""
    try:
        with open(getattr(module, "__file__", None) or "", "rb") as source:
            return hashlib.sha256(source.read()).hexdigest()
    except (OSError, AttributeError):
        return ""

