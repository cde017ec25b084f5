"""Which audit events are attempts to leave the process, by the event's name.

Owns: a function per event that looks at its arguments and answers with an `Attempt`, or None to let it be.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final, Literal

from kairos.replay.guard.leaks import NETWORK, PROCESS, SIGNAL, WRITE
from kairos.replay.guard.policy import show_destination
from kairos.replay.guard.reach import Reach
from kairos.replay.guard.syscalls import FCNTL, IOCTL

Args = tuple[Any, ...]

_MAX_TARGET = 200
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NATIVE: Final = {
    **dict.fromkeys(("socket", "connect", "bind", "sendto", "sendmsg", "getaddrinfo", "gethostbyname"), NETWORK),
    **dict.fromkeys(("system", "popen", "fork", "vfork", "execve", "execv", "execvp", "execl", "posix_spawn"), PROCESS),
    **dict.fromkeys(("open", "open64", "openat", "creat", "fopen", "fopen64"), WRITE),
    **dict.fromkeys(("unlink", "rename", "truncate", "mkdir", "rmdir", "symlink", "link", "mkfifo", "mknod"), WRITE),
    **dict.fromkeys(("chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat"), WRITE),
    **dict.fromkeys(("utime", "utimes", "lutimes", "futimes", "futimens", "utimensat"), WRITE),
    **dict.fromkeys(("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"), WRITE),
    **dict.fromkeys(("kill", "killpg", "tgkill", "sigqueue", "pidfd_send_signal"), SIGNAL),
    **dict.fromkeys(("semget", "semop", "semctl", "shmget", "shmat", "msgget", "msgsnd", "mq_open"), PROCESS),
    **dict.fromkeys(("prlimit", "setpriority", "sched_setaffinity", "sched_setscheduler", "ptrace"), PROCESS),
    **dict.fromkeys(("syscall", "clock_settime", "settimeofday", "adjtimex", "mount", "umount2", "keyctl"), PROCESS),
}


@dataclass(frozen=True)
class Attempt:
    """Something that would leave the process.

    `at_import` says what becomes of it while a module is imported, when libraries look at what there is and nothing has
    left yet: `refused` as anywhere, left to the `kernel` if that would refuse what comes of it, or `allowed`.
    """

    kind: str
    what: str
    target: str = ""
    at_import: Literal["refused", "kernel", "allowed"] = "refused"


@dataclass
class Surroundings:
    """What an attempt is judged by. `databases` are the files that sqlite3 opened though they may only be read."""

    reach: Reach
    kernel_refuses_sockets: bool
    kernel_refuses_writes: bool
    databases: list[str] = field(default_factory=list)


Judge = Callable[[Surroundings, Args, FrameType], Attempt | None]


def _socket_made(around: Surroundings, args: Args, frame: FrameType) -> Attempt | None:
    # A socket with a file descriptor is an old one in a new object: an accepted one, or half of a pair.
    wrapped = frame.f_code.co_filename == socket.__file__ and frame.f_locals.get("fileno") is not None
    family = args[1] if args[1] != -1 else socket.AF_INET
    allowed = around.reach.network and family in (socket.AF_INET, socket.AF_INET6)
    if wrapped or allowed or not around.kernel_refuses_sockets:
        return None  # where the kernel lets sockets be made, `connect` tells more
    return Attempt(NETWORK, "opens a socket", _family(family), at_import="kernel")


def _connects(what: str) -> Judge:
    def judge(around: Surroundings, args: Args, _: FrameType) -> Attempt | None:
        address = args[1]
        if address is None or _address_allowed(around.reach, address):
            return None
        return Attempt(NETWORK, what, _address(address))

    return judge


def _binds(around: Surroundings, args: Args, _: FrameType) -> Attempt | None:
    address = args[1]
    free_port = isinstance(address, tuple) and len(address) >= 2 and address[1] == 0
    if free_port and around.reach.network:
        return None  # a client that names no port of its own, as for a DNS query
    return Attempt(NETWORK, "listens on", _address(address), at_import="kernel" if free_port else "refused")


def _looks_up(around: Surroundings, args: Args, _: FrameType) -> Attempt | None:
    host = _text(args[0])
    port = args[1] if len(args) > 1 else None
    if not host or around.reach.host(host):
        return None
    return Attempt(NETWORK, "reaches for", f"{host}:{_text(port)}" if port else host)


def _looks_up_address(around: Surroundings, args: Args, _: FrameType) -> Attempt | None:
    address = args[0] if isinstance(args[0], tuple) else (args[0], 0)
    return (
        None if _address_allowed(around.reach, address) else Attempt(NETWORK, "looks up the name of", str(address[0]))
    )


def _logs(_: Surroundings, args: Args, __: FrameType) -> Attempt:
    return Attempt(NETWORK, "writes to the system's log")


def _opens(around: Surroundings, args: Args, _: FrameType) -> Attempt | None:
    path, mode, flags = args
    writes = flags & _WRITES if isinstance(flags, int) and flags else isinstance(mode, str) and set(mode) & set("wax+")
    return _changes(around, "opens for writing", path) if writes else None


def _changes_file(what: str, at: int = 0, dir_fd: int | None = None, follow: bool = True) -> Judge:
    def judge(around: Surroundings, args: Args, _: FrameType) -> Attempt | None:
        folder = args[dir_fd] if dir_fd is not None and len(args) > dir_fd else -1
        return _changes(around, what, _within(folder, args[at]), follow=follow)

    return judge


def _changes_metadata(what: str, dir_fd: int | None = None) -> Judge:
    """Of a path or an open descriptor. The event does not say whether a link at its end is followed: both must do."""

    def judge(around: Surroundings, args: Args, _: FrameType) -> Attempt | None:
        path = _plain_path(args[0])
        if isinstance(path, int):
            allowed = around.reach.write_open(path)
            return None if allowed else Attempt(WRITE, what, around.reach.name_of(path))
        folder = args[dir_fd] if dir_fd is not None and len(args) > dir_fd else -1
        path = _within(folder, path)
        return _changes(around, what, path) or _changes(around, what, path, follow=False)

    return judge


def _makes_folder(around: Surroundings, args: Args, _: FrameType) -> Attempt | None:
    path = _within(args[2], args[0])
    if isinstance(path, str | bytes) and os.path.lexists(path):
        return None  # the kernel says that it is there, and nothing more; `makedirs(exist_ok=True)` asks so
    return _changes(around, "makes the folder", path)


def _moves(what: str) -> Judge:
    def judge(around: Surroundings, args: Args, _: FrameType) -> Attempt | None:
        old, new = _within(args[2], args[0]), _within(args[3], args[1])
        for path in (old, new):
            if _changes(around, what, path, follow=False) is not None:
                return Attempt(WRITE, what, f"{_text(old)} to {_text(new)}")
        return None

    return judge


def _changes(around: Surroundings, what: str, path: object, *, follow: bool = True) -> Attempt | None:
    if isinstance(path, int):
        return None  # a descriptor: it was judged when it was opened
    if isinstance(path, str | bytes) and around.reach.write(os.fsdecode(path), follow=follow):
        return None
    return Attempt(WRITE, what, _text(path))


def _opens_database(around: Surroundings, args: Args, _: FrameType) -> Attempt | None:
    name = _text(args[0])
    path = name.removeprefix("file:").partition("?")[0]
    harmless = name in ("", ":memory:") or ":memory:" in name or "mode=memory" in name or "mode=ro" in name
    if harmless or around.reach.write(path):
        return None
    if around.kernel_refuses_writes:
        # Reading it is allowed, and SQLite falls back to that when the kernel refuses more.
        around.databases.append(path)
        return None
    return Attempt(WRITE, "opens the database", path)


def _starts(what: str, at: int = 0) -> Judge:
    def judge(_: Surroundings, args: Args, __: FrameType) -> Attempt:
        return Attempt(PROCESS, what, _program(args[at]) if args else "")

    return judge


def _signals(around: Surroundings, args: Args, _: FrameType) -> Attempt | None:
    pid, signal = args[0], args[1]
    return None if signal == 0 or pid == os.getpid() else Attempt(SIGNAL, "sends a signal to process", str(pid))


def _limits(_: Surroundings, args: Args, __: FrameType) -> Attempt | None:
    pid, limits = args[0], args[2]
    return None if limits is None or pid in (0, os.getpid()) else Attempt(PROCESS, "limits process", str(pid))


def _controls(commands: Mapping[int, str]) -> Judge:
    def judge(around: Surroundings, args: Args, _: FrameType) -> Attempt | None:
        name = commands.get(args[1] & 0xFFFF_FFFF) if sys.platform == "linux" else None
        return None if name is None else Attempt(PROCESS, "changes by a descriptor", name)

    return judge


def _native_function(_: Surroundings, args: Args, __: FrameType) -> Attempt | None:
    name = _text(args[1])
    return Attempt(kind, "calls by ctypes", f"{name}()", at_import="kernel") if (kind := _NATIVE.get(name)) else None


def _native_library(around: Surroundings, args: Args, _: FrameType) -> Attempt | None:
    if around.kernel_refuses_sockets and around.kernel_refuses_writes:
        return None  # most libraries only compute; one that does more meets the kernel
    return Attempt(PROCESS, "loads the library", _text(args[0]) or "libc", at_import="allowed")


ATTEMPTS: Final[Mapping[str, Judge]] = {
    "socket.__new__": _socket_made,
    "socket.connect": _connects("connects to"),
    "socket.sendto": _connects("sends to"),
    "socket.sendmsg": _connects("sends to"),
    "socket.bind": _binds,
    "socket.getaddrinfo": _looks_up,
    "socket.gethostbyname": _looks_up,
    "socket.gethostbyaddr": _looks_up_address,
    "socket.getnameinfo": _looks_up_address,
    "socket.sethostname": _starts("sets the host's name to"),
    "syslog.openlog": _logs,
    "syslog.syslog": _logs,
    "subprocess.Popen": _starts("starts the program", at=1),
    "os.system": _starts("starts the program"),
    "os.exec": _starts("becomes the program"),
    "os.posix_spawn": _starts("starts the program"),
    "os.startfile": _starts("opens"),
    "os.fork": _starts("forks"),
    "os.forkpty": _starts("forks"),
    "os.kill": _signals,
    "os.killpg": _signals,
    "open": _opens,
    "os.truncate": _changes_file("truncates"),
    "os.remove": _changes_file("removes", dir_fd=1, follow=False),
    "os.rmdir": _changes_file("removes the folder", dir_fd=1, follow=False),
    "os.mkdir": _makes_folder,
    "os.rename": _moves("renames"),
    "os.link": _moves("links"),
    "os.symlink": _changes_file("makes a link at", at=1, dir_fd=2, follow=False),
    "os.chmod": _changes_metadata("changes the mode of", dir_fd=2),
    "os.chown": _changes_metadata("changes the owner of", dir_fd=3),
    "os.chflags": _changes_metadata("changes the flags of"),
    "os.utime": _changes_metadata("changes the times of", dir_fd=3),
    "os.setxattr": _changes_metadata("changes the attributes of"),
    "os.removexattr": _changes_metadata("changes the attributes of"),
    "resource.prlimit": _limits,
    "fcntl.fcntl": _controls(FCNTL),
    "fcntl.ioctl": _controls(IOCTL),
    "sqlite3.connect": _opens_database,
    "ctypes.dlopen": _native_library,
    "ctypes.dlsym": _native_function,
}
"""Event -> its judge. Events that follow from one of these (`shutil.*`, `tempfile.*`) are not here."""


def _address_allowed(reach: Reach, address: object) -> bool:
    if not isinstance(address, tuple) or len(address) < 2 or not isinstance(address[1], int):
        return False
    return reach.address(_text(address[0]), address[1])


def _address(address: object) -> str:
    if isinstance(address, tuple) and len(address) >= 2 and isinstance(address[1], int):
        return show_destination((_text(address[0]), address[1] or None))
    return f"unix:{_text(address)}" if isinstance(address, str | bytes) else _text(address)


def _family(family: int) -> str:
    try:
        return socket.AddressFamily(family).name
    except ValueError:
        return f"family {family}"


def _plain_path(path: object) -> object:
    try:
        return path if isinstance(path, int) else os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        return path


def _within(folder: int, path: object) -> object:
    """`path` as it is meant when it is relative to the open folder of a descriptor."""
    if folder in (-1, None) or not isinstance(path, str | bytes) or os.path.isabs(os.fsdecode(path)):
        return path
    return os.path.join(os.path.realpath(f"/dev/fd/{folder}"), os.fsdecode(path))


def _program(command: object) -> str:
    """Its name alone: arguments may hold secrets."""
    first = command[0] if isinstance(command, list | tuple) and command else command
    text = _text(first)
    if isinstance(command, str | bytes):
        try:
            text = shlex.split(text)[0]
        except (ValueError, IndexError):
            text = text.split(" ", 1)[0]
    return text


def _text(value: object) -> str:
    if value is None:
        return ""
    text = os.fsdecode(value) if isinstance(value, str | bytes) else type(value).__name__
    text = str(value) if isinstance(value, int) else text
    return text if len(text) <= _MAX_TARGET else f"{text[: _MAX_TARGET - 1]}…"
