"""System calls that Python has no name for, through ctypes. The only door of the guards to the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys

PR_SET_NO_NEW_PRIVS = 38


def system() -> str:
    """`linux`, `darwin`, ..."""
    return sys.platform


def machine() -> str:
    """`x86_64`, `aarch64`, ... as the kernel names the processor."""
    return platform.machine()


def word_size() -> int:
    """Bytes of a pointer of this process; a 32-bit Python on a 64-bit kernel makes other system calls."""
    return ctypes.sizeof(ctypes.c_void_p)


def call(number: int, *arguments: int | bytes | ctypes.Structure | None) -> int:
    """One system call; a structure or bytes are passed by address. Raises: OSError."""
    return _checked("syscall", number, *arguments)


def forbid_new_privileges() -> None:
    """No set-user-id program started from here gains rights; the kernel asks for this before it takes a filter."""
    _checked("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def reason(exc: OSError) -> str:
    """Why the kernel has no such thing, for people."""
    reasons = {
        errno.ENOSYS: "this kernel has none",
        errno.EOPNOTSUPP: "it was turned off when the kernel started",
        errno.EINVAL: "this kernel was built without it",
    }
    return reasons.get(exc.errno or 0, f"{exc.strerror}; a container may forbid it")


def _checked(function: str, *arguments: int | bytes | ctypes.Structure | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    done: int = getattr(libc, function)(*(_word(argument) for argument in arguments))
    if done < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return done


def _word(argument: int | bytes | ctypes.Structure | None) -> object:
    # Plain integers would be passed as 32 bits, and the kernel reads all 64 of a register.
    if isinstance(argument, int):
        return ctypes.c_long(argument)
    if isinstance(argument, ctypes.Structure):
        return ctypes.byref(argument)
    return ctypes.c_char_p(argument)
