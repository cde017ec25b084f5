"""Which call in C raised an error, and whether it is one that the kernel's layers refuse.

Owns: the evidence that an error is a guard's answer: the very instruction that raised it, and what that called. An
error that Python code raised by `raise` is that code's own, whatever its number.
"""

from __future__ import annotations

import ast
import dis
import linecache
import sys
import textwrap
from collections.abc import Iterator
from itertools import islice
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any, Final

from kairos.replay.guard.leaks import NETWORK, PROCESS, SIGNAL, WRITE, is_own_code
from kairos.usercode import is_user_file

CALLS: Final = {
    "_socket.socket": (NETWORK, "opens a socket"),
    "_socket.socketpair": (NETWORK, "opens a pair of sockets that can be sent elsewhere"),
    "_socket.connect": (NETWORK, "connects by"),
    "_socket.connect_ex": (NETWORK, "connects by"),
    "_socket.bind": (NETWORK, "listens by"),
    "posix.mkfifo": (WRITE, "makes a special file by"),
    "posix.mknod": (WRITE, "makes a special file by"),
    **{
        f"posix.{name}": (WRITE, "changes what belongs to a file by")
        for name in ("chmod", "fchmod", "chown", "fchown", "lchown", "utime", "setxattr", "removexattr")
    },
    **{
        f"posix.{name}": (PROCESS, "changes another process by")
        for name in ("setpriority", "sched_setaffinity", "sched_setscheduler", "sched_setparam")
    },
    "resource.prlimit": (PROCESS, "changes another process by"),
    "time.clock_settime": (PROCESS, "sets the clock by"),
    "time.clock_settime_ns": (PROCESS, "sets the clock by"),
    "fcntl.ioctl": (PROCESS, "changes by a descriptor what is outside, by"),
    "fcntl.fcntl": (PROCESS, "changes by a descriptor what is outside, by"),
    "readline.write_history_file": (WRITE, "writes a file by"),
    "readline.append_history_file": (WRITE, "writes a file by"),
    "posix.openpty": (WRITE, "opens a terminal by"),
    "posix.setns": (PROCESS, "moves to another namespace by"),
    "_signal.pidfd_send_signal": (SIGNAL, "sends a signal by"),
    "_multiprocessing.SemLock": (PROCESS, "makes a semaphore for other processes by"),
    "_posixshmem.shm_open": (PROCESS, "makes memory for other processes by"),
    "_posixshmem.shm_unlink": (PROCESS, "removes the memory of other processes by"),
}
"""Where the function in C is defined -> what it does, of those that the kernel refuses and Python tells nobody of."""


def is_raised_by_python(error: BaseException) -> bool:
    """Whether a `raise` made it what it is, or nobody raised it at all: no kernel had a part in that."""
    innermost = _innermost(error.__traceback__)
    if innermost is None:
        return True
    code = innermost.tb_frame.f_code.co_code  # as it was compiled, whatever the interpreter has made of it since
    return dis.opname[code[innermost.tb_lasti]] == "RAISE_VARARGS"


def is_raised_by_user(error: BaseException) -> bool:
    """Whether the user's own code made it what it is, by `raise`."""
    innermost = _innermost(error.__traceback__)
    if innermost is None:
        return True
    return is_raised_by_python(error) and is_own_code(innermost.tb_frame.f_code.co_filename)


def refused_call(error: BaseException) -> tuple[str, str, str] | None:
    """Kind, deed and target if the function in C that raised `error` is one that the kernel refuses."""
    innermost = _innermost(error.__traceback__)
    if innermost is None or is_raised_by_python(error):
        return None
    for function in _called(innermost.tb_frame, innermost.tb_lasti, innermost.tb_lineno or 0):
        where, name = _defined(function)
        if (known := CALLS.get(f"{where}.{name}")) is not None:
            return *known, "" if known[1].endswith("a socket") else f"{name}()"
        if _is_foreign(where):
            return NETWORK, "was refused something by the kernel in", f"{where}.{name}()"
    return None


def _innermost(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback


def _called(frame: FrameType, instruction: int, line: int) -> Iterator[Any]:
    """What the instruction calls, by its source; if the interpreter kept no columns, all that the line calls."""
    source = _source(frame.f_code, instruction, frame)
    whole = source is not None
    text = source if source is not None else linecache.getline(frame.f_code.co_filename, line, frame.f_globals).strip()
    try:
        tree = ast.parse(textwrap.dedent(text).strip())
    except (SyntaxError, ValueError):
        return
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in calls[:1] if whole else calls:  # walked from the outside in
        found = _value(call.func, frame)
        if found is not None:
            yield found


def _source(code: CodeType, instruction: int, frame: FrameType) -> str | None:
    first, last, begin, end = next(islice(code.co_positions(), instruction // 2, None))
    if first is None or last is None or begin is None or end is None:
        return None
    lines = linecache.getlines(code.co_filename, frame.f_globals)[first - 1 : last]
    if len(lines) != last - first + 1:
        return None
    encoded = [line.encode() for line in lines]  # columns are counted in bytes
    encoded[-1] = encoded[-1][:end]
    encoded[0] = encoded[0][begin:]
    return f"({b''.join(encoded).decode(errors='replace')}\n)"


def _value(node: ast.expr, frame: FrameType) -> Any:
    """What a dotted name stands for; no code of anybody's is run to find out."""
    if isinstance(node, ast.Name):
        for names in (frame.f_locals, frame.f_globals, frame.f_builtins):
            if node.id in names:
                return names[node.id]
    if isinstance(node, ast.Attribute) and (owner := _value(node.value, frame)) is not None:
        return _attribute(owner, node.attr)
    return None


def _attribute(owner: Any, name: str) -> Any:
    if isinstance(owner, ModuleType):
        return vars(owner).get(name)
    for kind in owner.__mro__ if isinstance(owner, type) else type(owner).__mro__:
        if name in vars(kind):
            return vars(kind)[name]
    return None


def _defined(function: Any) -> tuple[str, str]:
    """The module in C that a function, a method or a type comes from, and its name; empty if it is Python's."""
    name = getattr(function, "__name__", "")
    if hasattr(function, "__code__"):
        return "", name
    owner = getattr(function, "__objclass__", None)  # of a method
    if owner is not None:
        return owner.__module__, owner.__name__ if name == "__init__" else name
    return str(getattr(function, "__module__", "") or ""), name


def _is_foreign(where: str) -> bool:
    """Whether a module in C is an installed one: the standard library's are in `CALLS`, or are not refused."""
    if not where or where.partition(".")[0] in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(where), "__file__", None)
    return isinstance(file, str) and not file.endswith(".py") and not is_user_file(file)
