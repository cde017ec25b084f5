"""`kairos dev` after a file was saved: whether it belongs to the app, and which runs the change leaves behind."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watchfiles import Change, DefaultFilter

from kairos.store.reader import Reader

_IGNORED: Final = (".kairos", "venv", "dist", "build")


class Sources(DefaultFilter):
    """Which files a reload is for: the modules that the worker has loaded, and whatever else is in their packages.

    Until a worker has said what it has loaded (or when it could not load the app), any Python file in the folder
    may be the one that matters.

    Args:
        source: the app's file, or the folder of its package; see `find_source`.
    """

    ignore_dirs = (*DefaultFilter.ignore_dirs, *_IGNORED)

    def __init__(self, source: Path) -> None:
        super().__init__()
        self.folder = (source if source.is_dir() else source.parent).resolve()
        self.is_package = source.is_dir()
        self._loaded: frozenset[Path] | None = None

    def learn(self, files: Iterable[str]) -> None:
        """The modules that the worker has loaded."""
        self._loaded = frozenset(Path(file).resolve() for file in files)

    def forget(self) -> None:
        """A worker is about to load the app anew."""
        self._loaded = None

    def __call__(self, change: Change, path: str) -> bool:
        """Whether a change of this file matters."""
        # Relative: only folders inside may be ignored by name, not what the project happens to lie in.
        if not path.endswith(".py") or not super().__call__(change, os.path.relpath(path, self.folder)):
            return False
        if self.is_package or self._loaded is None:
            return True
        file = Path(path).resolve()
        # A module of a loaded package may be imported later, inside a step.
        return file in self._loaded or file.parent / "__init__.py" in self._loaded


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """Runs that need a version which no live worker has."""

    workflow: str
    fingerprint: str
    runs: int


async def left_behind(reader: Reader, names: Iterable[str]) -> list[LeftBehind]:
    """Of these workflows, versions with open runs and without a worker."""
    wanted = set(names)
    return [
        LeftBehind(workflow, fingerprint, runs)
        for workflow, fingerprint, _, workers, runs, _ in await reader.session.execute("list_versions")
        if workflow in wanted and runs and not workers
    ]
