"""The folder of one replay, with what was read from production: gone with its replay, however that ends.

Whoever has a folder holds a lock in it as long as the process lives. A folder whose lock is free belongs to nobody any
more (its replay was killed), and the next replay of the same user removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

PREFIX: Final = "kairos-replay-"
_LOCK: Final = "lock"
_ORPHAN: Final = 86_400.0
"""Seconds after which a folder without a lock is nobody's: its process was killed while it made one."""


class ReplayFolder:
    """A fresh folder, readable by this user alone. Removes those that killed replays have left."""

    def __init__(self) -> None:
        sweep()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Taken under another name: one who sweeps must not find it free for a moment.
        draft = self.path / f"{_LOCK}.new"
        self._lock = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        draft.rename(self.path / _LOCK)

    def remove(self) -> None:
        """With all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def sweep() -> None:
    """Remove the folders of this user whose processes have gone."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    _sweep(Path(entry.path), entry.stat(follow_symlinks=False))


def _sweep(folder: Path, seen: os.stat_result) -> None:
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid():
        return
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        if time.time() - seen.st_mtime > _ORPHAN:
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises BlockingIOError: it is in use
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
