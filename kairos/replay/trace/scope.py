"""Which code is recorded: the user's own files, and the packages named on top of them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

from kairos.errors import InvalidArgument
from kairos.usercode import is_user_file

_INSTALLED = ("/site-packages/", "/dist-packages/")


class Scope:
    """Says of code and of classes whether they are the user's.

    Args:
        into: packages that are recorded beside the user's files: `--trace-into PKG`.

    Raises:
        InvalidArgument: a package that cannot be found or has no Python source.
    """

    def __init__(self, into: Sequence[str] = ()) -> None:
        self._into = tuple(place for name in into for place in _places(name))
        self._files: dict[str, bool] = {}

    def has(self, code: CodeType) -> bool:
        """Whether this code is recorded."""
        return self.has_file(code.co_filename)

    def has_file(self, name: str) -> bool:
        """Whether the code in this file is recorded."""
        known = self._files.get(name)
        if known is None:
            known = self._files[name] = self._decide(name)
        return known

    def owns(self, module: object) -> bool:
        """Whether a class of this module (its `__module__`) is written in recorded code."""
        found = sys.modules.get(module) if type(module) is str else None
        file = ModuleType.__getattribute__(found, "__dict__").get("__file__") if type(found) is ModuleType else None
        return self.has_file(file) if type(file) is str else module == "__main__"

    def _decide(self, name: str) -> bool:
        if name.startswith("<"):
            # Made by exec: the methods of dataclasses and attrs, without a source that could be shown.
            return False
        if self._into and name.startswith(self._into):
            return True
        return is_user_file(name) and not any(part in name for part in _INSTALLED)


def _places(name: str) -> list[str]:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    folders = [str(Path(place)) + "/" for place in (spec.submodule_search_locations or ())] if spec else []
    if spec and not folders and spec.origin and spec.origin.endswith(".py"):
        folders = [spec.origin]
    if not folders:
        raise InvalidArgument(
            f"there is no package {name!r} with Python source to trace into",
            hint="Give the name that one would import, such as `httpx`.",
        )
    return folders
