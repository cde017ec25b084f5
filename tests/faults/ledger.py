"""The oracle: an append-only file, outside Postgres, in which every body says that it began and that it ended.

One `write` per line on an O_APPEND descriptor: lines of many processes never mix, and what a body has
written survives the SIGKILL of its process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import kairos

VARIABLE = "KAIROS_LEDGER"
_FD: dict[str, int] = {}


@dataclass(frozen=True)
class Entry:
    """One line."""

    what: str
    run: str
    step: str
    attempt: int
    token: int
    pid: int
    at: float

    @property
    def who(self) -> tuple[str, str]:
        """Run and step."""
        return self.run, self.step


def write(what: str, ctx: kairos.StepContext) -> None:
    """Append one line, to the file that the environment names."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    if path not in _FD:
        _FD[path] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    line = f"{what}|{ctx.run_id}|{ctx.step}|{ctx.attempt}|{ctx.token}|{os.getpid()}|{time.time():.6f}\n"
    os.write(_FD[path], line.encode())


class Ledger:
    """Reads what the bodies wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def entries(self) -> list[Entry]:
        """All whole lines so far."""
        text = self.path.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [
            Entry(what, run, step, int(attempt), int(token), int(pid), float(at))
            for what, run, step, attempt, token, pid, at in (line.split("|") for line in lines)
        ]

    def begins(self, run: str | None = None, step: str | None = None) -> list[Entry]:
        """The bodies that began."""
        return self._of("begin", run, step)

    def ends(self, run: str | None = None, step: str | None = None) -> list[Entry]:
        """The bodies that came to their end."""
        return self._of("end", run, step)

    def _of(self, what: str, run: str | None, step: str | None) -> list[Entry]:
        return [e for e in self.entries() if e.what == what and run in (None, e.run) and step in (None, e.step)]

    def open_bodies(self, *pids: int) -> list[Entry]:
        """Bodies of these processes that have begun and not ended."""
        return open_bodies(e for e in self.entries() if e.pid in pids)


def open_bodies(entries: Iterable[Entry]) -> list[Entry]:
    """Those that have begun and neither ended nor raised."""
    begun: dict[tuple[str, str, int, int], Entry] = {}
    for e in entries:
        key = (e.run, e.step, e.token, e.pid)
        if e.what == "begin":
            begun[key] = e
        else:
            begun.pop(key, None)
    return list(begun.values())
