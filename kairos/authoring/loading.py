"""Finds a user's app from `module:attribute` or `path/to/file.py:attribute`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from kairos.authoring.app import App
from kairos.domain.names import nearest
from kairos.errors import ConfigError


def load_app(spec: str) -> App:
    """Import the module and return the app. Without `:attribute` the module must hold exactly one.

    Raises:
        ConfigError: no such module, file or attribute, or it is not an App. An error raised by the module
            itself is passed on as it is: its traceback is what the user needs.
    """
    where, _, attribute = spec.rpartition(":") if ":" in spec else (spec, "", "")
    if not where:
        raise ConfigError(f"{spec!r} does not name an app", hint="Write module:attribute or file.py:attribute.")
    module = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    apps = {name: value for name, value in vars(module).items() if isinstance(value, App)}
    if attribute in apps:
        return apps[attribute]
    if attribute:
        raise ConfigError(f"{where} has no app named {attribute!r}", hint=nearest(attribute, apps))
    if len({id(app) for app in apps.values()}) != 1:
        found = ", ".join(apps) or "none"
        raise ConfigError(f"{where} should hold one app; it holds: {found}", hint=f"Write {where}:attribute.")
    return next(iter(apps.values()))


def spec_of(app: App) -> str | None:
    """How another process can load this app; None if it stands in no module's top level."""
    for name, module in list(sys.modules.items()):
        for attribute, value in list(vars(module).items()) if module is not None else ():
            if value is app:
                file = getattr(module, "__file__", None)
                if name == "__main__":
                    return f"{file}:{attribute}" if file and file.endswith(".py") else None
                if getattr(module, "__kairos_file__", None):
                    return f"{module.__kairos_file__}:{attribute}"
                return f"{name}:{attribute}"
    return None


def _load_module(name: str) -> ModuleType:
    # `python -m` and scripts put the working directory on the path; an installed command does not.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(exc.name + ".")):
            raise ConfigError(
                f"there is no module {exc.name!r}",
                hint=f"Looked in {Path.cwd()} and in what is installed. A file is named as path/to/file.py:attribute.",
            ) from None
        raise


def _load_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(path) and module.__name__ != "__main__":
            return module
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else f"kairos_app_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    module.__kairos_file__ = str(path)  # type: ignore[attr-defined]
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module
