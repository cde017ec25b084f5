"""Which addresses and files the policy lets code reach.

Owns: names of hosts become addresses before the guards go up, and anew when an address is unknown: behind one name
there may be many. A path is judged where it really leads, links followed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Final

from kairos.replay.guard import landlock
from kairos.replay.guard.policy import Destination, Policy

_OWN_DESCRIPTORS: Final = (f"/proc/{os.getpid()}/fd/", "/dev/fd/")


class Reach:
    """What `policy` allows, ready to be asked for each attempt."""

    def __init__(self, policy: Policy) -> None:
        self.network = bool(policy.allow_network)
        self._destinations = policy.allow_network
        self._addresses: set[Destination] = set()
        self._resolve()
        self._roots = tuple(os.path.realpath(path) for path in (policy.scratch, *policy.allow_writes))
        self._devices = frozenset(os.path.realpath(name) for name in landlock.devices())

    def host(self, host: str) -> bool:
        """Whether this name, or address, may be looked up: some port of it is allowed."""
        return any(_plain(host) == known for known, _ in self._addresses)

    def address(self, host: str, port: int) -> bool:
        """Whether this address, or name, and port may be connected to."""
        if not self.network:
            return False
        if not self._knows(host, port):
            self._resolve()
        return self._knows(host, port)

    def write(self, path: str, *, follow: bool = True) -> bool:
        """Whether what `path` names may be changed; with `follow`, what a link at its end leads to."""
        if follow:
            real = os.path.realpath(path)
        else:
            folder, name = os.path.split(path.rstrip("/") or "/")
            real = os.path.join(os.path.realpath(folder or "."), name)
        if real in self._devices or real.startswith(_OWN_DESCRIPTORS):
            return True
        return any(real == root or real.startswith(root.rstrip("/") + "/") for root in self._roots)

    def write_open(self, fd: int) -> bool:
        """Whether what an open descriptor stands for may be changed: a pipe, or a file where it may be.

        One that is closed is left to the kernel, which says so.
        """
        try:
            os.fstat(fd)
        except OSError:
            return True
        path = _path_of(fd)
        return path is not None and (not path.startswith("/") or path.startswith("/memfd:") or self.write(path))

    def name_of(self, fd: int) -> str:
        """The path of an open descriptor, for people."""
        return _path_of(fd) or f"descriptor {fd}"

    def _knows(self, host: str, port: int) -> bool:
        host = _plain(host)
        return any((host, wanted) in self._addresses for wanted in (port, None))

    def _resolve(self) -> None:
        for host, port in self._destinations:
            self._addresses.add((_plain(host), port))
            self._addresses.update((address, port) for address in _look_up(host))


def _look_up(host: str) -> Iterable[str]:
    try:
        return {_plain(str(found[4][0])) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return ()


def _path_of(fd: int) -> str | None:
    """Where an open file is, or was before it was removed (` (deleted)`); None if this system does not tell."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        pass
    try:
        import fcntl

        return os.fsdecode(fcntl.fcntl(fd, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))  # type: ignore[attr-defined]
    except (ImportError, AttributeError, OSError):
        return None


def _plain(host: str) -> str:
    """Without the zone of an IPv6 address, and an IPv4 address that is written as IPv6 as itself."""
    host = host.lower().partition("%")[0]
    return host.removeprefix("::ffff:") if host.startswith("::ffff:") and "." in host else host
