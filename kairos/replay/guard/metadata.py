"""Modes, owners, times and attributes of files: Python may change them in the allowed folders, code in C nowhere.

The kernel sees the number of a call and its arguments, not the path that an argument points to, and Landlock does not
look at these. So the filter refuses such calls to all but one caller: the functions that stand here in place of
`os.chmod` and the like. They pass a number that is drawn anew for each process as a sixth argument, which none of the
calls has; the audit hook has judged the path before.

Owns: these functions. They do what Python's own do, and raise what those raise.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

Path = int | str | bytes | os.PathLike[str] | os.PathLike[bytes]

PASS_ARGUMENT: Final = 5
_FOLDER, _NOFOLLOW = -100, 0x100
_BILLION: Final = 1_000_000_000


def draw_pass() -> int:
    """A number that no call has in that register by chance."""
    return secrets.randbits(62) | 1 << 62


def take_over(numbers: Mapping[str, int], pass_: int) -> None:
    """Put the functions in place. To be called once the filter asks for `pass_`, and before the audit hook is on."""
    calls = _Calls(numbers, pass_)
    for name in ("chmod", "fchmod", "chown", "fchown", "lchown", "utime", "setxattr", "removexattr"):
        _replace(name, getattr(os, name), getattr(calls, name))


class _Time(ctypes.Structure):
    """`struct timespec`."""

    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Calls:
    """The functions, with the signatures of those in `os`."""

    def __init__(self, numbers: Mapping[str, int], pass_: int) -> None:
        self._numbers, self._pass = numbers, pass_
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall

    def chmod(self, path: Path, mode: int, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> None:
        sys.audit("os.chmod", path, mode, -1 if dir_fd is None else dir_fd)
        if isinstance(path, int):
            self._call("fchmod", path, path, mode)
        elif follow_symlinks:
            self._call("fchmodat", path, _within(dir_fd), path, mode)
        else:
            try:
                self._call("fchmodat2", path, _within(dir_fd), path, mode, _NOFOLLOW)
            except OSError as exc:
                if exc.errno not in (errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                raise NotImplementedError("chmod: follow_symlinks unavailable on this platform") from None

    def fchmod(self, fd: int, mode: int) -> None:
        sys.audit("os.chmod", fd, mode, -1)
        self._call("fchmod", None, fd, mode)

    def chown(self, path: Path, uid: int, gid: int, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> None:
        sys.audit("os.chown", path, uid, gid, -1 if dir_fd is None else dir_fd)
        if isinstance(path, int):
            self._call("fchown", path, path, uid, gid)
        else:
            flags = 0 if follow_symlinks else _NOFOLLOW
            self._call("fchownat", path, _within(dir_fd), path, uid, gid, flags)

    def fchown(self, fd: int, uid: int, gid: int) -> None:
        sys.audit("os.chown", fd, uid, gid, -1)
        self._call("fchown", None, fd, uid, gid)

    def lchown(self, path: Path, uid: int, gid: int) -> None:
        self.chown(path, uid, gid, follow_symlinks=False)

    def utime(
        self, path: Path, times: Any = None, *, ns: Any = None, dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> None:
        if times is not None and ns is not None:
            raise ValueError("utime: you may specify either 'times' or 'ns' but not both")
        sys.audit("os.utime", path, times, ns, -1 if dir_fd is None else dir_fd)
        moments = _moments(times, ns)
        flags = 0 if follow_symlinks else _NOFOLLOW
        if isinstance(path, int):
            self._call("utimensat", None, path, None, moments, 0)
        else:
            self._call("utimensat", None, _within(dir_fd), path, moments, flags)

    def setxattr(
        self, path: Path, attribute: str | bytes, value: Any, flags: int = 0, *, follow_symlinks: bool = True
    ) -> None:
        sys.audit("os.setxattr", path, attribute, value, flags)
        data = ctypes.create_string_buffer(bytes(value))
        call = _attribute_call("setxattr", path, follow_symlinks)
        self._call(call, path, path, os.fsencode(attribute), data, len(data) - 1, flags)

    def removexattr(self, path: Path, attribute: str | bytes, *, follow_symlinks: bool = True) -> None:
        sys.audit("os.removexattr", path, attribute)
        self._call(_attribute_call("removexattr", path, follow_symlinks), path, path, os.fsencode(attribute))

    def _call(self, name: str, told: Path | None, *arguments: Any) -> None:
        words = [_word(argument) for argument in arguments]
        words += [ctypes.c_long(0)] * (PASS_ARGUMENT - len(words))
        if self._syscall(ctypes.c_long(self._numbers[name]), *words, ctypes.c_long(self._pass)) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), *([] if told is None else [_shown(told)]))


def _replace(name: str, old: Any, new: Callable[..., None]) -> None:
    function = _plain(name, old, new)
    for module in (os, sys.modules[os.name]):
        setattr(module, name, function)
    for known in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if old in known:
            known.add(function)


def _plain(name: str, old: Any, new: Callable[..., None]) -> Callable[..., None]:
    """A function as Python's: one that does not become a method of a class that it is put into."""

    class Function:
        __slots__ = ()
        __name__ = name
        __module__, __doc__ = old.__module__, old.__doc__
        __text_signature__ = getattr(old, "__text_signature__", None)

        def __call__(self, *args: Any, **kwargs: Any) -> None:
            new(*args, **kwargs)

        def __repr__(self) -> str:
            return f"<function {name}>"

        def __reduce__(self) -> str:
            return name

    return Function()


def _shown(path: Path) -> int | str | bytes:
    return path if isinstance(path, int) else os.fspath(path)


def _within(folder: int | None) -> int:
    return _FOLDER if folder is None else folder


def _attribute_call(name: str, path: Path, follow: bool) -> str:
    return f"f{name}" if isinstance(path, int) else name if follow else f"l{name}"


def _moments(times: Any, ns: Any) -> ctypes.Array[_Time] | None:
    if times is None and ns is None:
        return None
    pair = times if ns is None else ns
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError("utime: 'times' must be either a tuple of two ints or None")
    return (_Time * 2)(*(_Time(*(divmod(item, _BILLION) if ns is not None else _seconds(item))) for item in pair))


def _seconds(value: Any) -> tuple[int, int]:
    """Rounded down, as Python does it."""
    if not isinstance(value, float):
        return int(value), 0
    rest, whole = math.modf(value)
    nanoseconds = math.floor(rest * _BILLION)
    return (int(whole), nanoseconds) if nanoseconds >= 0 else (int(whole) - 1, nanoseconds + _BILLION)


def _word(argument: Any) -> Any:
    if argument is None or isinstance(argument, ctypes.Array):
        return argument
    if isinstance(argument, int):
        return ctypes.c_long(argument)
    text = os.fsencode(argument)
    if b"\0" in text:
        raise ValueError("embedded null byte")
    return ctypes.c_char_p(text)
