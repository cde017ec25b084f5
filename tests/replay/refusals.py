"""Errors of a step that look like a guard's refusal and are its own, and refusals of which only the kernel knows.

A function whose name is in OWN raises what it would raise in production; one in KERNEL is refused, and `KERNEL` says
how that is told.
"""

from __future__ import annotations

import errno
import json
import mmap
import multiprocessing
import os
import signal
import socket
import tempfile
from collections.abc import Callable

try:
    from escapes import World
except ImportError:  # in the tests themselves
    from tests.replay.escapes import World

Deed = Callable[[World], object]
OWN: dict[str, Deed] = {}
KERNEL: dict[str, tuple[Deed, str]] = {}


def own(deed: Deed) -> Deed:
    OWN[deed.__name__] = deed
    return deed


def kernel(told: str) -> Callable[[Deed], Deed]:
    def mark(deed: Deed) -> Deed:
        KERNEL[deed.__name__] = deed, told
        return deed

    return mark


@own
def raise_permission_denied_for_a_file(world: World) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", world.path("old.txt"))


@own
def raise_permission_denied_without_a_file(_: World) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@own
def raise_an_os_error_by_its_number(_: World) -> None:
    error = OSError(errno.EACCES, "no")
    try:
        raise error
    except OSError:
        raise


@own
def raise_what_a_driver_would(_: World) -> None:
    import psycopg

    raise psycopg.OperationalError('connection to server at "db", port 5432 failed: Permission denied')


@own
def raise_from_below(world: World) -> None:
    try:
        json.loads("{")
    except ValueError as exc:
        raise PermissionError(errno.EACCES, "Permission denied", world.folder) from exc


@own
def map_a_file_for_writing_that_is_open_for_reading(world: World) -> None:
    with open(world.path("old.txt"), "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_WRITE):
        pass


@kernel("makes a special file by mkfifo()")
def make_a_pipe_by_another_name(world: World) -> None:
    make = os.mkfifo
    (
        make(
            world.path("né"),
        )
    )


@kernel("sends a signal by pidfd_send_signal()")
def signal_by_a_descriptor(_: World) -> None:
    handle = os.pidfd_open(os.getppid())
    try:
        signal.pidfd_send_signal(handle, signal.SIGURG)  # which a process ignores
    finally:
        os.close(handle)


@kernel("makes a semaphore for other processes by SemLock()")
def make_a_semaphore(_: World) -> None:
    multiprocessing.get_context("fork").Lock()


@kernel("opens a pair of sockets that can be sent elsewhere socketpair()")
def make_a_pair_of_datagram_sockets(_: World) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.close()
    right.close()


@kernel("makes a special file by mkfifo()")
def refused_and_wrapped(world: World) -> None:
    try:
        os.mkfifo(world.path(os.path.basename(tempfile.mktemp())))
    except OSError as exc:
        raise RuntimeError("no pipe") from exc
