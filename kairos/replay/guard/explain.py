"""Tells from an exception that it is the answer to a leak, when only the kernel saw the attempt.

Owns: the few places where libraries in other languages put what the kernel said (libpq, SQLite, gdbm), and the line of
the user's code that a traceback still knows.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from typing import Final

from kairos.replay.guard.attempts import Surroundings
from kairos.replay.guard.audit import hint_for
from kairos.replay.guard.leaks import (
    NETWORK,
    WRITE,
    Leak,
    Ledger,
    Place,
    RefusedAtImport,
    ReplayBlocked,
    is_own_code,
)
from kairos.replay.guard.refused import is_raised_by_python, is_raised_by_user, refused_call

_Found = tuple[str, str, str]
"""Kind, deed and target."""

_REFUSED: Final = (errno.EACCES, errno.EPERM)
_SAYS_REFUSED: Final = re.compile(r"\b(Permission denied|Operation not permitted)\b")
_TCP: Final = re.compile(r'server at "([^"]+)"(?: \([^)]*\))?, port (\d+)')
_UNIX: Final = re.compile(r'server on socket "([^"]+)"')
_NO_DETAILS: Final = "no error details available"
_UNOPENED: Final = re.compile(r"unable to open database: (.+)", re.DOTALL)
_READ_ONLY: Final = ("attempt to write a readonly database", "unable to open database file")


def explain(exc: BaseException, ledger: Ledger, around: Surroundings) -> Leak | None:
    """The leak that `exc`, or an error within it, is the answer to; written to `ledger` if it is new."""
    errors = list(_chain(exc))
    stopped = [error for error in errors if isinstance(error, ReplayBlocked | RefusedAtImport)]
    for answer in stopped:
        # The traceback went through the user's frames; the stack of an async attempt may not have had them.
        if (place := _place([answer, *errors])) is not None:
            answer.leak = ledger.moved(answer.leak, place)
    if stopped:
        return stopped[0].leak
    for error in errors:
        place = _place([error, *errors])
        if (found := _from_kernel(error, around)) is not None:
            at = place or Place("", 0, "")
            hint = hint_for(found[0], at_import=not ledger.is_in_step)
            leak = Leak(
                *found, at.file, at.line, at.function, hint=hint, at_import=not ledger.is_in_step, layer="kernel"
            )  # fmt: skip
            return ledger.note(leak)
    return None


def _from_kernel(error: BaseException, around: Surroundings) -> _Found | None:
    if isinstance(error, OSError):
        return _from_os(error, around) if error.errno in _REFUSED and not is_raised_by_python(error) else None
    if is_raised_by_user(error):
        return None
    text = _text(error)
    if around.kernel_refuses_sockets and _is_silent_libpq(error, text):
        return NETWORK, "connects to", _libpq_server(error)
    if around.kernel_refuses_writes and type(error).__module__ == "sqlite3":
        return _from_sqlite(text, around)
    if not _SAYS_REFUSED.search(text) or _is_own_class(type(error)):
        return None
    if type(error).__module__ in ("_gdbm", "_dbm"):
        return WRITE, "opens the database", ""
    if not around.kernel_refuses_sockets:
        return None
    if found := _TCP.search(text):
        return NETWORK, "connects to", f"{found[1]}:{found[2]}"
    if found := _UNIX.search(text):
        return NETWORK, "connects to", f"unix:{found[1]}"
    return None if is_raised_by_python(error) else (NETWORK, "connects to", f"a server ({type(error).__module__})")


def _from_sqlite(text: str, around: Surroundings) -> _Found | None:
    """Of databases that it opened by itself, by ATTACH or VACUUM INTO, only the error has the name, if anything."""
    named = _UNOPENED.search(text)
    if named is not None and _is_refused(named[1], around):
        return WRITE, "opens the database", named[1]
    if not text.startswith(_READ_ONLY):
        return None
    return WRITE, "writes to the database", around.databases[-1] if around.databases else ""


def _is_silent_libpq(error: BaseException, text: str) -> bool:
    """libpq forgets why `socket()` failed, and hands on an empty message."""
    package = type(error).__module__.partition(".")[0]
    return (package == "psycopg" and text.endswith(_NO_DETAILS)) or (package == "psycopg2" and not text.strip())


def _libpq_server(error: BaseException) -> str:
    try:
        connection = error.pgconn  # type: ignore[attr-defined]
        host, port = connection.host.decode(), connection.port.decode()
    except Exception:
        return "a PostgreSQL server"
    return f"unix:{host}/.s.PGSQL.{port}" if host.startswith("/") else f"{host}:{port}"


def _from_os(error: OSError, around: Surroundings) -> _Found | None:
    """Of an error that a function in C raised. The number alone says nothing: files have modes of their own."""
    path = error.filename
    if around.kernel_refuses_sockets and (found := refused_call(error)) is not None:
        return found
    if isinstance(path, str | bytes) and _is_refused(os.fsdecode(path), around):
        return WRITE, "changes", os.fsdecode(path)
    return None


def _is_refused(path: str, around: Surroundings) -> bool:
    """Whether the guards refuse to write there; what the file's own mode forbids was forbidden in production too."""
    if not around.kernel_refuses_writes or around.reach.write(path):
        return False
    return os.access(path if os.path.lexists(path) else os.path.dirname(path) or ".", os.W_OK)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The exception, what is in it when it is a group, its causes and what it came upon; outermost first."""
    seen: set[int] = set()
    waiting: list[BaseException] = [exc]
    while waiting and len(seen) < 1_000:
        error = waiting.pop(0)
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions
        waiting += [other for other in (error.__cause__, error.__context__) if other is not None]


def _place(errors: list[BaseException]) -> Place | None:
    """The innermost line of the user's own code in the first traceback that has one."""
    for error in errors:
        place, traceback = None, error.__traceback__
        while traceback is not None:
            code = traceback.tb_frame.f_code
            if is_own_code(code.co_filename):
                place = Place(code.co_filename, traceback.tb_lineno or 0, code.co_qualname)
            traceback = traceback.tb_next
        if place is not None:
            return place
    return None


def _is_own_class(kind: type[BaseException]) -> bool:
    """Whether the user wrote this class, or Python did: their words are their own, not the kernel's."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return kind.__module__ == "builtins" or (isinstance(file, str) and is_own_code(file))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""
