"""A seccomp filter: the kernel refuses, with EACCES, the system calls by which code could still leave the process.

Owns: the filter, a program of the classic Berkeley packet filter that sees the number and the arguments of each call.
Landlock sees TCP and files only; this covers what it does not: unix sockets, UDP, netlink and every other family by
`socket()`, starting programs, io_uring (which makes sockets without that call), signals, reaching into other
processes, what processes share by a name, modes and times of files, and the machine itself. Every thread of the process
is covered, those too that run already.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterable
from typing import Final

from kairos.replay.guard import kernel
from kairos.replay.guard.metadata import PASS_ARGUMENT
from kairos.replay.guard.syscalls import (
    CLONE_THREAD,
    FCNTL,
    IOCTL,
    MACHINES,
    METADATA,
    NEVER,
    OF_A_KIND,
    OF_A_PROCESS,
    SIGNALS,
    Machine,
)

_SET_MODE_FILTER, _TSYNC = 1, 1
_ALLOW: Final = 0x7FFF_0000
_REFUSE: Final = 0x0005_0000 | errno.EACCES
_ABSENT: Final = 0x0005_0000 | errno.ENOSYS

# Of `struct seccomp_data`: int nr, u32 arch, u64 instruction_pointer, u64 args[6]. Both machines are little-endian,
# and most arguments looked at are an int to the kernel, so that their low half is all of them.
_NUMBER, _ARCH = 0, 4
_X32_BIT: Final = 0x4000_0000

_LD, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
Instruction = tuple[int, int, int, int]
"""Code, how far to jump when true, and when false, and a constant."""


_TYPE_BITS: Final = 0xF  # the rest of a socket's type are flags


def find_machine() -> Machine:
    """The processor that we run on. Raises: OSError with the reason why there is no filter for it."""
    if kernel.system() != "linux":
        raise OSError(errno.ENOSYS, f"{kernel.system()} has none")
    found = MACHINES.get(kernel.machine())
    if found is None or kernel.word_size() != 8:
        raise OSError(errno.ENOSYS, f"no filter for {kernel.machine()} ({kernel.word_size() * 8} bit)")
    return found


def program(machine: Machine, *, network: bool, pid: int, pass_: int) -> list[Instruction]:
    """The filter. With `network`, TCP and UDP sockets of the internet families are let through.

    Process `pid` may send signals to itself; whether another is alive (signal 0 of `kill`) may be asked. It may change
    its own limits and its own share of the processor. `pass_` lets a call change what belongs to a file.
    """
    number = machine.numbers
    lines = [*_load(_ARCH), (_JEQ, 1, 0, machine.arch), _refuse(), *_load(_NUMBER)]
    if machine is MACHINES["x86_64"]:
        lines += [(_JGE, 0, 1, _X32_BIT), _refuse()]
    for name in (name for name in NEVER if name in number):
        lines += [(_JEQ, 0, 1, number[name]), _refuse()]
    lines += _rule(number["socketpair"], _pairs())
    lines += _rule(number["socket"], _internet() if network else [_refuse()])
    lines += _rule(number["clone"], [*_load(_argument(0)), (_JSET, 1, 0, CLONE_THREAD), _refuse(), _allow()])
    lines += _rule(number["clone3"], [(_RET, 0, 0, _ABSENT)])
    lines += _rule(number["fcntl"], _none_of(1, FCNTL))
    lines += _rule(number["ioctl"], _none_of(1, IOCTL))
    for name in (name for name in METADATA if name in number):
        lines += _rule(number[name], _with_pass(pass_))
    for name in SIGNALS:
        asks = [*_load(_argument(1)), (_JEQ, 0, 1, 0), _allow()] if name == "kill" else []
        lines += _rule(number[name], [*asks, *_load(_argument(0)), *_one_of((pid,)), _allow()])
    for name in OF_A_PROCESS:
        lines += _rule(number[name], [*_load(_argument(0)), *_one_of((0, pid)), _allow()])
    for name, kind in OF_A_KIND.items():
        of_process = [*_load(_argument(0)), *_one_of((kind,))]
        lines += _rule(number[name], [*of_process, *_load(_argument(1)), *_one_of((0, pid)), _allow()])
    return [*lines, *_rule(number["prlimit64"], _limits(pid)), _allow()]


def restrict(*, network: bool, pass_: int) -> None:
    """Put every thread of this process, and all that it starts, under the filter. Raises: OSError."""
    machine = find_machine()
    lines = program(machine, network=network, pid=os.getpid(), pass_=pass_)
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


def _limits(pid: int) -> list[Instruction]:
    """Those of other processes may be asked for: then there are no new ones, which the third argument points to."""
    low, high = _halves(2)
    asks = [*_load(low), (_JEQ, 0, 3, 0), *_load(high), (_JEQ, 0, 1, 0), _allow()]
    return [*asks, *_load(_argument(0)), *_one_of((0, pid)), _allow()]


def _with_pass(pass_: int) -> list[Instruction]:
    low, high = _halves(PASS_ARGUMENT)
    return [*_load(low), *_one_of((pass_ & 0xFFFF_FFFF,)), *_load(high), *_one_of((pass_ >> 32,)), _allow()]


def _none_of(argument: int, refused: Iterable[int]) -> list[Instruction]:
    """Refuse if the argument is one of these."""
    values = list(refused)
    tests = [(_JEQ, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [*_load(_argument(argument)), *tests, _allow(), _refuse()]


def _rule(number: int, body: list[Instruction]) -> list[Instruction]:
    """`body` for system call `number`, which must end in a verdict; the number stays loaded for the others."""
    return [(_JEQ, 0, len(body), number), *body]


def _argument(index: int) -> int:
    return 16 + 8 * index


def _halves(index: int) -> tuple[int, int]:
    """Of an argument that is looked at whole."""
    return _argument(index), _argument(index) + 4


def _load(offset: int) -> list[Instruction]:
    return [(_LD, 0, 0, offset)]


def _allow() -> Instruction:
    return (_RET, 0, 0, _ALLOW)


def _refuse() -> Instruction:
    return (_RET, 0, 0, _REFUSE)
