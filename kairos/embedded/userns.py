"""Run a program as an ordinary user inside of a user namespace: `userns.py UID GID PROGRAM ARGS...`.

Owns: one `unshare`, the two id maps, and the exec. PostgreSQL refuses to run as uid 0; in here it sees
UID while its files keep belonging to whoever started this, so no other account and no mode changes.
Refuses: to import anything of Kairos. The kernel wants a single-threaded process for this, so the file
runs as a program of its own, by path, in an isolated interpreter.
"""

from __future__ import annotations

import ctypes
import os
import sys

REFUSED = 97
"""The exit code which says: the system allows no user namespace here."""

_CLONE_NEWUSER = 0x10000000


def enter(uid: int, gid: int) -> None:
    """Move this process to a new user namespace, where it has the given ids and no capabilities outside."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    # The kernel takes a map of groups only from a process that has given up setgroups.
    _write("setgroups", "deny")
    _write("uid_map", f"{uid} {outer_uid} 1")
    _write("gid_map", f"{gid} {outer_gid} 1")


def _write(name: str, text: str) -> None:
    with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
        file.write(text)


def main(argv: list[str]) -> None:
    """Enter the namespace and become the program."""
    try:
        enter(int(argv[1]), int(argv[2]))
    except OSError as error:
        sys.stderr.write(f"user namespace refused: {error}\n")
        sys.exit(REFUSED)
    os.execv(argv[3], argv[3:])


if __name__ == "__main__":
    main(sys.argv)
