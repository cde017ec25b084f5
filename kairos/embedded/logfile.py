"""The server's log: kept short, and read for the reason of a failure.

Owns: the size of `postgres.log`, at most twice `LIMIT` with the copy before it; and the advice on what
it says.
Refuses: to rename a file that the server has open: it is copied, then cut off in place. The server
appends, so its next line lands at the new end; lines written in between may be lost, at ten megabytes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

LIMIT: Final = 10 * 1024 * 1024

_MARKS: Final = ("PANIC:", "FATAL:", "ERROR:", "error:", "refused", "postgres:")
# Said to clients that came too early; never the reason of a failure.
_ONLY_WAITING: Final = ("the database system is", "Consistent recovery state")


def size(path: Path) -> int:
    """The length of the file; zero when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def shorten(path: Path) -> None:
    """Keep the log as PATH.1 and begin it anew, when it has grown past the limit."""
    if size(path) <= LIMIT:
        return
    # On a full disk the copy fails, and the cut is wanted all the more.
    with contextlib.suppress(OSError):
        older = path.with_name(f"{path.name}.1")
        shutil.copyfile(path, older)
        older.chmod(0o600)
    with contextlib.suppress(OSError):
        os.truncate(path, 0)


def last_complaint(text: str) -> str:
    """The line of the log that most likely says why."""
    lines = [line.strip() for line in text.splitlines() if not any(words in line for words in _ONLY_WAITING)]
    for mark in _MARKS:
        for line in reversed(lines):
            if mark in line:
                return line
    return lines[-1] if lines else "its log says nothing"


def advice(text: str, log: Path) -> str:
    """What to do about what the log says."""
    if "No space left on device" in text:
        return "The disk is full: free some space and start again. What was committed is safe."
    if "Permission denied" in text:
        return f"Fix the permissions of the file that {log} names, and start again."
    if "incompatible with server" in text:
        return "The data was made by another major version of PostgreSQL: install that one, and dump and load."
    return f"Read {log}, fix the cause and start again."
