"""A seccomp filter: the kernel refuses, with EACCES, the system calls by which code could still leave the process.

Owns: the filter, a program of the classic Berkeley packet filter that sees the number and the arguments of each call.
Landlock sees TCP and files only; this covers what it does not: unix sockets, UDP, netlink and every other family by
`socket()`, starting programs, io_uring (which makes sockets without that call), signals, and reaching into other
processes. Every thread of the process is covered, those too that run already.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kairos.replay.guard import kernel

_SET_MODE_FILTER, _TSYNC = 1, 1
_ALLOW: Final = 0x7FFF_0000
_REFUSE: Final = 0x0005_0000 | errno.EACCES

# Of `struct seccomp_data`: int nr, u32 arch, u64 instruction_pointer, u64 args[6]. Both machines are little-endian,
# and every argument looked at is an int to the kernel, so its low half is all of it.
_NUMBER, _ARCH = 0, 4
_X32_BIT: Final = 0x4000_0000

_LD, _JEQ, _JGE, _AND, _RET = 0x20, 0x15, 0x35, 0x54, 0x06
Instruction = tuple[int, int, int, int]
"""Code, how far to jump when true, and when false, and a constant."""


@dataclass(frozen=True)
class Machine:
    """A processor: its name in the audit interface and its numbers of the system calls."""

    arch: int
    numbers: Mapping[str, int]


# Since number 424 both machines share their numbers.
_COMMON: Final = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "pidfd_getfd": 438,
}
MACHINES: Final = {
    "x86_64": Machine(
        0xC000_003E,
        {
            "seccomp": 317, "socket": 41, "socketpair": 53, "execve": 59, "execveat": 322, "ptrace": 101,
            "process_vm_writev": 311, "kill": 62, "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
            "mq_open": 240, "msgget": 68, "shmget": 29, "fcntl": 72, "ioctl": 16, **_COMMON,
        },
    ),
    "aarch64": Machine(
        0xC000_00B7,
        {
            "seccomp": 277, "socket": 198, "socketpair": 199, "execve": 221, "execveat": 281, "ptrace": 117,
            "process_vm_writev": 271, "kill": 129, "tgkill": 131, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240,
            "mq_open": 180, "msgget": 186, "shmget": 194, "fcntl": 25, "ioctl": 29, **_COMMON,
        },
    ),
}  # fmt: skip

_NEVER: Final = (
    "execve", "execveat", "ptrace", "process_vm_writev", "pidfd_getfd", "pidfd_send_signal",
    "io_uring_setup", "io_uring_enter", "io_uring_register", "mq_open", "msgget", "shmget",
)  # fmt: skip
_SIGNALS: Final = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
_OWNERS: Final = {"fcntl": (8, 15), "ioctl": (0x8901, 0x8902)}
"""Commands (F_SETOWN, F_SETOWN_EX, FIOSETOWN, SIOCSPGRP) that have the kernel send signals to any process."""
_TYPE_BITS: Final = 0xF  # the rest of a socket's type are flags


def find_machine() -> Machine:
    """The processor that we run on. Raises: OSError with the reason why there is no filter for it."""
    if kernel.system() != "linux":
        raise OSError(errno.ENOSYS, f"{kernel.system()} has none")
    found = MACHINES.get(kernel.machine())
    if found is None or kernel.word_size() != 8:
        raise OSError(errno.ENOSYS, f"no filter for {kernel.machine()} ({kernel.word_size() * 8} bit)")
    return found


def program(machine: Machine, *, network: bool, pid: int) -> list[Instruction]:
    """The filter. With `network`, TCP and UDP sockets of the internet families are let through.

    Process `pid` may send signals to itself; whether another is alive (signal 0 of `kill`) may be asked.
    """
    number = machine.numbers
    lines = [*_load(_ARCH), (_JEQ, 1, 0, machine.arch), _refuse(), *_load(_NUMBER)]
    if machine is MACHINES["x86_64"]:
        lines += [(_JGE, 0, 1, _X32_BIT), _refuse()]
    for name in _NEVER:
        lines += [(_JEQ, 0, 1, number[name]), _refuse()]
    lines += _rule(number["socketpair"], _pairs())
    lines += _rule(number["socket"], _internet() if network else [_refuse()])
    for name, commands in _OWNERS.items():
        lines += _rule(number[name], _none_of(1, commands))
    for name in _SIGNALS:
        asks = [*_load(_argument(1)), (_JEQ, 0, 1, 0), _allow()] if name == "kill" else []
        lines += _rule(number[name], [*asks, *_load(_argument(0)), (_JEQ, 0, 1, pid), _allow(), _refuse()])
    return [*lines, _allow()]


def restrict(*, network: bool) -> None:
    """Put every thread of this process, and all that it starts, under the filter. Raises: OSError."""
    machine = find_machine()
    lines = program(machine, network=network, pid=os.getpid())
    text = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    filter_ = _Program(len(lines), ctypes.addressof(text))
    kernel.forbid_new_privileges()
    try:
        stuck = kernel.call(machine.numbers["seccomp"], _SET_MODE_FILTER, _TSYNC, filter_)
    except OSError as exc:
        raise OSError(exc.errno, kernel.reason(exc)) from exc
    if stuck > 0:
        raise OSError(errno.ESRCH, f"thread {stuck} has a filter of its own")


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_void_p)]


def _pairs() -> list[Instruction]:
    """Stream pairs, as every event loop makes one. A datagram socket of a pair could be sent elsewhere."""
    return [*_load(_argument(1)), (_AND, 0, 0, _TYPE_BITS), (_JEQ, 0, 1, socket.SOCK_STREAM), _allow(), _refuse()]


def _internet() -> list[Instruction]:
    """IPv4 or IPv6, stream or datagram, TCP or UDP: Landlock does not see the other protocols over IP."""
    families, kinds = (2, 10), (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    protocols = (0, socket.IPPROTO_TCP, socket.IPPROTO_UDP)
    return [
        *_load(_argument(0)), *_one_of(families),
        *_load(_argument(1)), (_AND, 0, 0, _TYPE_BITS), *_one_of(kinds),
        *_load(_argument(2)), *_one_of(protocols),
        _allow(),
    ]  # fmt: skip


def _one_of(values: tuple[int, ...]) -> list[Instruction]:
    """Refuse unless the loaded value is one of these."""
    tests = [(_JEQ, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [*tests, _refuse()]


def _none_of(argument: int, values: tuple[int, ...]) -> list[Instruction]:
    """Refuse if the argument is one of these."""
    tests = [(_JEQ, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [*_load(_argument(argument)), *tests, _allow(), _refuse()]


def _rule(number: int, body: list[Instruction]) -> list[Instruction]:
    """`body` for system call `number`, which must end in a verdict; the number stays loaded for the others."""
    return [(_JEQ, 0, len(body), number), *body]


def _argument(index: int) -> int:
    return 16 + 8 * index


def _load(offset: int) -> list[Instruction]:
    return [(_LD, 0, 0, offset)]


def _allow() -> Instruction:
    return (_RET, 0, 0, _ALLOW)


def _refuse() -> Instruction:
    return (_RET, 0, 0, _REFUSE)
