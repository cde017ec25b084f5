"""What tried to leave the process: the book of leaks, and what the code that tried is told.

ReplayBlocked (BaseException)      in a step; not an Exception, so that `except Exception` of a retry loop lets it pass
RefusedAtImport (PermissionError)  while a module is imported; libraries that only probe have an answer to this
RefusedAtPrompt (PermissionError)  what was typed into a debugger; debuggers show an Exception, and no leak of the step
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Final

from kairos.usercode import is_user_file

NETWORK: Final = "network"
WRITE: Final = "write"
PROCESS: Final = "process"
SIGNAL: Final = "signal"

_NOWHERE: Final = "\0"
_PROMPTS: Final = {
    "interaction": "/pdb.py",
    "_interaction": "/pdb.py",
    "effective": "/bdb.py",
    "break_here": "/stopping/console.py",
    "_holds": "/stopping/attaching.py",
    "process_internal_commands": "/pydevd.py",
    "_do_wait_suspend": "/pydevd.py",
    "handle_breakpoint_condition": "/pydevd.py",
    "handle_breakpoint_expression": "/pydevd.py",
}
"""Functions of debuggers below which only what somebody has typed runs (a condition too), and the files they are in."""


@dataclass(frozen=True)
class Leak:
    """One attempt to leave the process.

    `kind` is `network`, `write`, `process` or `signal`. `what` and `target` read as a sentence: `connects to`
    `db.prod:5432`. `file`, `line` and `function` name the user's own code, as near to the attempt as it gets (`file`
    is empty where nothing is known). `step` is None outside of steps. `at_import`: a module tried it while it was
    imported, and was answered with an ordinary PermissionError. `layer` is who stopped it: `audit` or `kernel`.
    """

    kind: str
    what: str
    target: str
    file: str = ""
    line: int = 0
    function: str = ""
    step: str | None = None
    hint: str = ""
    at_import: bool = False
    layer: str = "audit"

    def __str__(self) -> str:
        text = f"{self.what} {self.target}".strip()
        return f"{self.place}: {text}" if self.file else text

    @property
    def place(self) -> str:
        """`FILE:LINE in FUNCTION`."""
        return f"{self.file}:{self.line} in {self.function}" if self.function else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Place:
    """A line of code."""

    file: str
    line: int
    function: str


@dataclass(frozen=True)
class Finding:
    """What a stack says: the user's line, whether a module is being imported, whether a debugger was asked for it."""

    place: Place | None
    importing: bool
    at_prompt: bool


@dataclass(frozen=True)
class Charged:
    """A step that leaks are charged to, and where it is."""

    step: str
    place: Place | None


CHARGED: Final[ContextVar[Charged | None]] = ContextVar("kairos_charged", default=None)
MARK: Final = "_kairos_charged"
"""The attribute of a thread that says which step started it."""


class ReplayBlocked(BaseException):
    """A step tried to leave the process. `leak` says what and where, `hint` what to do."""

    def __init__(self, leak: Leak) -> None:
        super().__init__(f"the replay stopped this: {leak}\n  hint: {leak.hint}")
        self.leak = leak
        self.hint = leak.hint


class RefusedAtImport(PermissionError):
    """A module tried to leave the process while it was imported. `leak` says what and where, `hint` what to do."""

    def __init__(self, leak: Leak) -> None:
        super().__init__(errno.EACCES, f"the replay stopped this: {leak} (hint: {leak.hint})")
        self.leak = leak
        self.hint = leak.hint


class RefusedAtPrompt(PermissionError):
    """Somebody asked the debugger for something that leaves the process. It is no leak: the step did not ask for it."""

    def __init__(self, leak: Leak) -> None:
        text = f"{leak.what} {leak.target}".strip()
        super().__init__(f"the guards stopped what was typed here: {text}; it does not count for the step")


class Ledger:
    """The leaks of this process, each once per kind, deed and place. Any thread may write to it."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], Leak] = {}
        # Not a plain lock: the garbage collector may run a finaliser that leaks while the lock is held.
        self._lock = threading.RLock()
        self._now: Charged | None = None

    def begin_step(self, step: str, function: Callable[..., Any] | None = None) -> None:
        """Leaks from now on belong to `step`; one whose own line is unknown is placed at `function`."""
        self._now = Charged(step, _place_of(function))
        CHARGED.set(self._now)

    @property
    def is_in_step(self) -> bool:
        """Whether a step has begun; before that, the app is imported."""
        return self._now is not None

    def charged(self) -> Charged | None:
        """The step that what runs here belongs to: the one that started this thread or task, which may have ended."""
        by_context = CHARGED.get()
        if by_context is not None:
            return by_context
        thread = vars(threading).get("_active", {}).get(threading.get_ident())  # `current_thread` would make one
        return getattr(thread, MARK, None) or self._now

    def note(self, leak: Leak) -> Leak:
        """Write `leak` down, unless it is known; returns it with the step under way and a place, if it had none."""
        charged = self.charged()
        if not leak.step:
            leak = replace(leak, step=None if charged is None else charged.step)
        if not leak.file and charged is not None and charged.place is not None:
            place = charged.place
            leak = replace(leak, file=place.file, line=place.line, function=place.function)
        with self._lock:
            return self._found.setdefault(_key(leak), leak)

    def moved(self, leak: Leak, place: Place) -> Leak:
        """The place of a leak that is written down became known."""
        if (leak.file, leak.line, leak.function) == (place.file, place.line, place.function):
            return leak
        better = replace(leak, file=place.file, line=place.line, function=place.function)
        with self._lock:
            self._found.pop(_key(leak), None)
            return self._found.setdefault(_key(better), better)

    def all(self) -> list[Leak]:
        """In the order of their first time."""
        with self._lock:
            return list(self._found.values())


def find_place(frame: FrameType | None) -> Finding:
    """The innermost line of the user's own code on this stack, and on whose behalf it runs."""
    importing = at_prompt = False
    place: Place | None = None
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib"):
            importing = True
        elif name.endswith(_PROMPTS.get(frame.f_code.co_name, _NOWHERE)) and not is_own_code(name):
            at_prompt = True
        elif place is None and is_own_code(name):
            place = Place(name, frame.f_lineno or 0, frame.f_code.co_qualname)
        frame = frame.f_back
    return Finding(place, importing, at_prompt)


def is_own_code(name: str) -> bool:
    """Whether a file is the user's; generated code (`<string>`) is not, for nobody can open it."""
    return not name.startswith("<") and is_user_file(name)


def _key(leak: Leak) -> tuple[object, ...]:
    return (leak.kind, leak.what, leak.target, leak.file, leak.line, leak.step)


def _place_of(function: Callable[..., Any] | None) -> Place | None:
    code = getattr(function, "__code__", None)
    return None if code is None else Place(code.co_filename, code.co_firstlineno, code.co_qualname)
