"""Landlock: the kernel refuses TCP connections and changes to files outside the allowed folders, of this process and
of every process that it starts, whatever language their code is written in.

Owns: which rights each version of the interface (ABI) knows, and which of them are given back to allowed places.
Refuses: nothing about reading. Needs no privileges. Threads that run already are not covered.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from kairos.replay.guard import kernel
from kairos.replay.guard.policy import Policy

# The numbers are the same on every architecture since Linux 5.13.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_RULE_PATH, _RULE_PORT = 1, 2

_WRITE_FILE, _REMOVE_DIR, _REMOVE_FILE = 1 << 1, 1 << 4, 1 << 5
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK = 1 << 6, 1 << 7, 1 << 8, 1 << 9
_MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = 1 << 10, 1 << 11, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2

_SINCE_ABI_1: Final = (
    _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_CHAR | _MAKE_DIR | _MAKE_REG | _MAKE_SOCK
    | _MAKE_FIFO | _MAKE_BLOCK | _MAKE_SYM
)  # fmt: skip
_OF_A_FILE: Final = _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
"""The rights that a rule on a single file may hold; the kernel refuses others there."""

_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty")


def abi() -> int:
    """The version of the kernel's interface. Raises: OSError with the reason why there is none."""
    if kernel.system() != "linux":
        raise OSError(errno.ENOSYS, f"{kernel.system()} has none")
    try:
        return kernel.call(_CREATE_RULESET, None, 0, _ASK_VERSION)
    except OSError as exc:
        raise OSError(exc.errno, kernel.reason(exc)) from exc


def file_rights(version: int) -> int:
    """The rights to change files that ABI `version` can withhold."""
    rights = _SINCE_ABI_1
    rights |= _REFER if version >= 2 else 0
    rights |= _TRUNCATE if version >= 3 else 0
    return rights | (_IOCTL_DEV if version >= 5 else 0)


def ruleset(version: int, policy: Policy, *, signals: bool = True) -> bytes:
    """What is withheld, as the kernel's structure, which grew with its versions; `signals` to other processes too."""
    ports = _BIND_TCP | (0 if policy.any_port else _CONNECT_TCP)
    words = [file_rights(version)]
    words += [ports] if version >= 4 else []
    words += [_SCOPE_ABSTRACT_UNIX | (_SCOPE_SIGNAL if signals else 0)] if version >= 6 else []
    return struct.pack(f"={len(words)}Q", *words)


def gap(version: int, policy: Policy) -> str | None:
    """What this version cannot hold back though the policy asks for it; None when it covers everything."""
    if version < 3:
        return "which does not see truncate()"
    if version < 4 and policy.allow_network:
        return "which does not see TCP"
    return None


def restrict(version: int, policy: Policy, *, signals: bool = True) -> None:
    """Put this thread, and all that it starts, under the rules. Raises: OSError.

    With `signals` it refuses the question too whether another process is alive (signal 0); the seccomp filter does not.
    """
    attributes = ruleset(version, policy, signals=signals)
    handle = kernel.call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        _allow_ports(handle, version, policy)
        _allow_writes(handle, version, policy)
        kernel.forbid_new_privileges()
        kernel.call(_RESTRICT_SELF, handle, 0)
    finally:
        os.close(handle)


def devices() -> list[str]:
    """The devices that may be written to: those that keep nothing, and the terminal that we were started on."""
    terminals = [os.ttyname(fd) for fd in (0, 1, 2) if os.isatty(fd)]
    return [name for name in dict.fromkeys((*_DEVICES, *terminals)) if os.path.exists(name)]


def _allow_ports(handle: int, version: int, policy: Policy) -> None:
    if version < 4 or policy.any_port:
        return
    for port in sorted({port for _, port in policy.allow_network if port is not None}):
        kernel.call(_ADD_RULE, handle, _RULE_PORT, struct.pack("=QQ", _CONNECT_TCP, port), 0)


def _allow_writes(handle: int, version: int, policy: Policy) -> None:
    rights = file_rights(version)
    # A device node made in the scratch folder would be a way around all of this.
    _allow(handle, [policy.scratch], rights & ~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV))
    _allow(handle, policy.allow_writes, rights & ~(_MAKE_CHAR | _MAKE_BLOCK))
    _allow(handle, map(Path, devices()), rights & _OF_A_FILE)


def _allow(handle: int, paths: Iterable[Path], rights: int) -> None:
    for path in paths:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            given = rights if path.is_dir() else rights & _OF_A_FILE
            kernel.call(_ADD_RULE, handle, _RULE_PATH, struct.pack("=Qi", given, beneath), 0)
        finally:
            os.close(beneath)
