"""Facts about processes: whether one lives, since when, and whether it is the server of a folder.

Owns: the reading of /proc on Linux and of `ps` on macOS.
Refuses: to take a pid alone for a process. Pids are used again, after a reboot even at once; so a
process is known by its pid together with its birth.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_LINUX = sys.platform.startswith("linux")


def birth(pid: int) -> str | None:
    """When the process was born, in words that differ for each process of this pid; None when it is dead.

    A zombie is dead: nobody may be there to collect it, as under an init that does not.
    """
    if _LINUX:
        fields = _stat(pid)
        return None if not fields or fields[0] in "ZX" else fields[19]
    state, _, since = _ps(pid, "stat=,lstart=").partition(" ")
    return None if not state or state.startswith("Z") else since.strip()


def is_server_of(pid: int, pgdata: Path) -> bool:
    """Whether the process is a PostgreSQL that works in the folder `pgdata`."""
    if birth(pid) is None:
        return False
    if not _LINUX:
        command = _ps(pid, "command=")
        return "postgres" in command and str(pgdata) in command
    if _name(pid) != "postgres":
        return False
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/cwd"), os.stat(pgdata))
    except PermissionError:
        return str(pgdata) in command_line(pid)
    except OSError:
        return False


def servers_of(pgdata: Path) -> Iterator[int]:
    """Every PostgreSQL process which works in `pgdata`; nothing where /proc is missing."""
    if not _LINUX:
        return
    for entry in os.listdir("/proc"):
        if entry.isdigit() and is_server_of(int(entry), pgdata):
            yield int(entry)


def command_line(pid: int) -> str:
    """The arguments of the process, joined by blanks; empty when it is dead."""
    if not _LINUX:
        return _ps(pid, "command=")
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return os.fsdecode(raw.replace(b"\0", b" ")).strip()


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat that come after the name, which itself may hold blanks and brackets."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _ps(pid: int, columns: str) -> str:
    done = subprocess.run(["ps", "-ww", "-o", columns, "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()
