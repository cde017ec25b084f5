"""File locks, which the kernel gives back when their holder dies, however it dies.

Owns: `flock` with deadlines, and the check that a lock file still is the one at its path.
Refuses: to decide anything by a list of pids: those outlive the processes that they name.

Every lock file is opened close-on-exec, so a program that a holder starts does not keep the lock. A
child made by a bare `os.fork` does share it: the lock is then held until both have gone or closed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

from kairos.errors import EmbeddedPostgresError

SHARED = fcntl.LOCK_SH
EXCLUSIVE = fcntl.LOCK_EX

_PAUSE = 0.02


def open_lock(path: Path) -> int:
    """A file descriptor for the lock file at `path`, which is created when absent."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def try_lock(fd: int, kind: int) -> bool:
    """Take the lock now or not at all; True when it is ours."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise EmbeddedPostgresError(
            f"the file system refuses file locks: {error.strerror}",
            hint="Choose a data folder on a local disk; some network file systems have no locks.",
        ) from error
    return True


def unlock(fd: int) -> None:
    """Give the lock back and keep the descriptor."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def is_current(fd: int, path: Path) -> bool:
    """Whether the file at `path` is still the one behind `fd` (and not deleted or made anew)."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def try_acquire(path: Path, kind: int) -> int | None:
    """Open and lock the file at `path`; None when somebody else has it."""
    fd = open_lock(path)
    # A lock on a file that was deleted between open and flock would guard nothing.
    if try_lock(fd, kind) and is_current(fd, path):
        return fd
    os.close(fd)
    return None


def acquire(path: Path, kind: int, deadline: float) -> int | None:
    """As `try_acquire`, again and again until `deadline` on the monotonic clock."""
    while (fd := try_acquire(path, kind)) is None:
        if time.monotonic() >= deadline:
            return None
        time.sleep(_PAUSE)
    return fd


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock exclusively. Creates nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(fd, SHARED)
    finally:
        os.close(fd)


def is_used(path: Path) -> bool:
    """Whether somebody holds the lock in any way. Creates nothing."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(fd, EXCLUSIVE)
    finally:
        os.close(fd)
