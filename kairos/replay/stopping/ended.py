"""Looks at what is over: the exceptions of a failed step and the user's frames in them, a value that differs.

Finds where to stand, and puts it into words. Opens no debugger.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType, FrameType, TracebackType
from typing import Any

from kairos.authoring.display import clean
from kairos.authoring.failure import one_line
from kairos.replay.stopping.facts import Facts, error_lines
from kairos.usercode import is_user_file

_MAX_EXCEPTIONS = 50


class OutputDiverged(Exception):
    """Stands for a step that returned something else than was recorded, where a debugger wants an exception."""


def exceptions_of(exc: BaseException) -> list[tuple[str, BaseException]]:
    """`exc` and all that it holds or comes from: members of groups, causes, contexts; with how each belongs to it."""
    found: list[tuple[str, BaseException]] = []
    seen: set[int] = set()
    left: list[tuple[str, BaseException]] = [("", exc)]
    while left and len(found) < _MAX_EXCEPTIONS:
        how, item = left.pop(0)
        if id(item) in seen:
            continue
        seen.add(id(item))
        found.append((how, item))
        if isinstance(item, BaseExceptionGroup):
            left += [("in the group", inner) for inner in item.exceptions]
        if item.__cause__ is not None:
            left.append(("caused by", item.__cause__))
        elif item.__context__ is not None and not item.__suppress_context__:
            left.append(("while handling", item.__context__))
    return found


def begin_with(found: list[tuple[str, BaseException]]) -> int:
    """Which of them to stand in: the first member of a group that passed the user's code, or what was raised."""
    if isinstance(found[0][1], BaseExceptionGroup):
        for number, (how, exc) in enumerate(found):
            in_group = how == "in the group" and not isinstance(exc, BaseExceptionGroup)
            if in_group and last_user_frame(exc.__traceback__) is not None:
                return number
    return 0


def user_traceback(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame of the user's on; all of it if there is none."""
    start = traceback
    while start is not None and not is_user_file(start.tb_frame.f_code.co_filename):
        start = start.tb_next
    return start or traceback


def last_user_frame(traceback: TracebackType | None) -> TracebackType | None:
    """The innermost entry that is the user's own code."""
    last = None
    while traceback is not None:
        if is_user_file(traceback.tb_frame.f_code.co_filename):
            last = traceback
        traceback = traceback.tb_next
    return last


def up_to(traceback: TracebackType, last: TracebackType) -> TracebackType:
    """A copy of the traceback that ends with `last`: for debuggers that always stand in the innermost frame."""
    entries: list[TracebackType] = []
    item: TracebackType | None = traceback
    while item is not None:
        entries.append(item)
        item = None if item is last else item.tb_next
    copy: TracebackType | None = None
    for entry in reversed(entries):
        copy = TracebackType(copy, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return copy or traceback


def failure_lines(exc: BaseException, facts: Facts) -> Iterator[str]:
    """What was raised, whether that is what the record has, and what else there is to look at."""
    rules = facts.redactor
    if isinstance(exc, OutputDiverged):
        yield f"{facts.title}, has returned: {exc}"
        return
    yield f"{facts.title}, raised {one_line(exc, rules)}"
    if isinstance(exc, SyntaxError) and exc.filename:
        yield f"  in {clean(str(exc.filename), 500)}, line {exc.lineno}"
    if facts.error is not None:
        then = facts.error
        same = then.type == f"{type(exc).__module__}.{type(exc).__qualname__}" and then.message == _message(exc)
        yield "  the same error as recorded" if same else f"  another error than recorded: {then.summary}"
    elif facts.output is not None:
        yield "  a new error: the record has an output"
    others = exceptions_of(exc)[1:]
    if others:
        yield from (f"  {how} {one_line(inner, rules)}" for how, inner in others[:5])


def not_reproduced_lines(facts: Facts) -> Iterator[str]:
    """For a recorded failure that did not come again: all that is left of it."""
    yield f"{facts.title}: not reproduced. It returned; the record has this failure:"
    if facts.error is not None:
        yield from error_lines(facts.error)


class LastReturn:
    """Keeps the frame in which a function returns, for as long as its value is compared.

    Uses the profiling hook, which pdb, debugpy, coverage and line tracers leave alone. Costs a call for each call and
    return below it, so it is on only while somebody waits for a difference.
    """

    def __init__(self, code: CodeType) -> None:
        self._code = code
        self._kept: tuple[FrameType, int, int] | None = None
        self._before: Any = None

    def __enter__(self) -> LastReturn:
        self._before = sys.getprofile()
        sys.setprofile(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)

    def _look(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "return" and frame.f_code is self._code:
            self._kept = (frame, frame.f_lasti, frame.f_lineno)

    @property
    def traceback(self) -> TracebackType | None:
        """The place of the return, as a traceback of one entry."""
        return None if self._kept is None else TracebackType(None, *self._kept)


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:
        return ""
