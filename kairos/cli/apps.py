"""Which app a command means: `--app`, else KAIROS_APP, else `[tool.kairos] app` in the nearest pyproject.toml."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from kairos import settings
from kairos.cli.usage import UsageError
from kairos.errors import ConfigError

NO_APP = "Pass --app module:app (or file.py:app), set KAIROS_APP, or write it under [tool.kairos] in pyproject.toml."


@dataclass(frozen=True, slots=True)
class AppChoice:
    """An app as it is loaded by every process, and where that was said."""

    spec: str
    source: str


def choose_app(given: str | None) -> AppChoice | None:
    """The app to use, or None if nothing names one.

    Raises:
        ConfigError: a pyproject.toml cannot be read, or its entry is not text.
    """
    if given:
        return AppChoice(_absolute(given, Path.cwd()), "--app")
    from_env = settings.read("app")
    if from_env:
        return AppChoice(_absolute(from_env, Path.cwd()), "KAIROS_APP")
    return _from_pyproject(Path.cwd())


def require_app(given: str | None) -> AppChoice:
    """As `choose_app`; raises UsageError if nothing names an app, or the named file or module does not exist."""
    choice = choose_app(given)
    if choice is None:
        raise UsageError("no app is named", hint=NO_APP)
    find_source(choice)
    return choice


def find_source(choice: AppChoice) -> Path:
    """Where its code is, without running any of it: a file, or the folder of the package that it is in.

    Raises:
        UsageError: there is no such file or module.
    """
    where = _split(choice.spec)[0]
    if where.endswith(".py"):
        if not Path(where).is_file():
            raise UsageError(f"there is no file {where}", hint=f"It was named by {choice.source}. {NO_APP}")
        return Path(where)
    top, *below = where.split(".")
    found = _find_module(top)
    folders = found.submodule_search_locations if found else None
    for i in range(len(below)):
        inner = PathFinder.find_spec(".".join([top, *below[: i + 1]]), folders) if folders else None
        if inner is None:
            found = None
            break
        folders = inner.submodule_search_locations
    if found is None:
        hint = f"It was named by {choice.source}; looked in {Path.cwd()} and in what is installed. {NO_APP}"
        raise UsageError(f"there is no module {where!r}", hint=hint)
    package = found.submodule_search_locations
    return Path(next(iter(package))) if package else Path(found.origin or Path.cwd())


def _find_module(name: str) -> ModuleSpec | None:
    # As the worker will look for it: the working directory first.
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    finally:
        sys.path.remove(here)


def _from_pyproject(start: Path) -> AppChoice | None:
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        try:
            data = tomllib.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as exc:
            raise ConfigError(f"{file} cannot be read: {exc}", hint="Mend the file, or pass --app.") from exc
        entry = data.get("tool", {}).get("kairos", {}).get("app")
        if entry is None:
            return None  # the nearest one decides, as for other tools
        if not isinstance(entry, str) or not entry:
            raise ConfigError(f'{file}: [tool.kairos] app must be text such as "shop.flows:app", not {entry!r}')
        return AppChoice(_absolute(entry, folder), str(file))
    return None


def _absolute(spec: str, folder: Path) -> str:
    """A file is meant relative to where it was named; workers may start elsewhere."""
    where, sep, attribute = _split(spec)
    if where.endswith(".py") and not Path(where).is_absolute():
        return f"{folder / where}{sep}{attribute}"
    return spec


def _split(spec: str) -> tuple[str, str, str]:
    if ".py" not in spec:
        return spec.partition(":")
    where, sep, attribute = spec.rpartition(":")
    return (where, sep, attribute) if sep and not attribute.endswith(".py") else (spec, "", "")
