"""Small files: reading the end of a log, writing a secret.

Owns: the modes and the durability of what it writes.
Refuses: to take a missing file for an error; whoever asks knows better.
"""

from __future__ import annotations

import os
from pathlib import Path


def read_text(path: Path) -> str | None:
    """What the file says, without the newline; None when there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def tail(path: Path, *, start: int = 0, limit: int = 4000) -> str:
    """The last `limit` bytes of a log, none of them before the offset `start`."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(min(start, size), size - limit))
            return file.read().decode("utf-8", errors="replace").strip()
    except OSError:
        return ""


def write_private(path: Path, text: str) -> None:
    """Write a new 0600 file and force it to disk: what it says is nowhere else."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Force the names in `folder` to disk, such as one that a rename has just made."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
