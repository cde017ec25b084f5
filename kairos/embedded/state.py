"""What is known about an embedded server from outside.

Owns: the reading of locks, pid files and /proc/locks into one record.
Refuses: to start, create or wait for anything.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from kairos.embedded import files, locate, locks, postmaster
from kairos.embedded.paths import Layout
from kairos.errors import EmbeddedPostgresError


@dataclass(frozen=True)
class Status:
    """The facts of one data folder at one moment."""

    running: bool
    """Whether the server process is there (it may be starting or stopping)."""
    postmaster_pid: int | None
    supervisor_pid: int | None
    users: int | None
    """How many processes hold the server up; None when this system does not tell."""
    version: str | None
    """The release of the installed programs, else the major version of the data; None without data."""
    socket_dir: Path | None
    data_dir: Path
    log_path: Path


def read(layout: Layout) -> Status:
    """The status of `layout`, which need not exist."""
    try:
        return _read(layout)
    except PermissionError as error:
        raise EmbeddedPostgresError(
            f"the data folder {layout.data_dir} cannot be read: {error.strerror}",
            hint="Ask as the user who owns the folder.",
            data_dir=layout.data_dir,
        ) from error


def _read(layout: Layout) -> Status:
    made = layout.initialised
    server = postmaster.find(layout) if made else None
    return Status(
        running=server is not None,
        postmaster_pid=server.pid if server else None,
        supervisor_pid=supervisor_pid(layout),
        users=_users(layout),
        version=_version(layout) if made else None,
        socket_dir=layout.socket_dir if made else None,
        data_dir=layout.data_dir,
        log_path=layout.log,
    )


def supervisor_pid(layout: Layout) -> int | None:
    """The pid of the living supervisor."""
    if not locks.is_held(layout.supervisor_lock):
        return None
    text = files.read_text(layout.supervisor_lock) or ""
    return int(text) if text.isdigit() else None


def _version(layout: Layout) -> str | None:
    try:
        release = locate.binaries().version()
    except EmbeddedPostgresError:
        release = None
    return release or files.read_text(layout.pgdata / "PG_VERSION")


def _users(layout: Layout) -> int | None:
    count = _holders(layout.users_lock)
    if count:
        return count
    return None if locks.is_used(layout.users_lock) else 0


def _holders(path: Path) -> int:
    """How many shared holders of the lock the kernel lists; zero where it lists none."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        facts = path.stat()
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    place = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    # 7: FLOCK  ADVISORY  READ 4711 fe:00:1234 0 EOF
    wanted = ["FLOCK", "ADVISORY", "READ"]
    return sum(fields[1:4] == wanted and place in fields for fields in map(str.split, lines))
