"""Turns an exception into an `ErrorInfo`: what happened, where in the user's code, with which locals.

Bounded and redacted. Never raises: an exception may refuse to be printed, be its own cause, or hold
objects that break when touched.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType

import pydantic

from kairos.authoring.display import attributes, clean, shorten, show, type_name
from kairos.authoring.redaction import PLACEHOLDER, Redactor
from kairos.domain.error_info import MAX_FRAMES, MAX_LOCAL, MAX_LOCALS, MAX_MESSAGE, ErrorInfo, Frame
from kairos.errors import KairosError
from kairos.usercode import OWN, is_user_file

MAX_NOTES = 20
MAX_NOTE = 1_024
_MAX_CODE = 200
_PYDANTIC = str(Path(pydantic.__file__).resolve().parent) + "/"
_Located = tuple[FrameType, int]


def describe_error(exc: BaseException, redactor: Redactor | None = None) -> ErrorInfo:
    """`exc` as data that may be stored."""
    rules = redactor or Redactor()
    try:
        return _describe(exc, rules)
    except BaseException:
        # Nothing above should raise; if something does, the failure itself must still be recorded.
        return ErrorInfo(type_name(type(exc)), "(the details of this error could not be read)")


def describe_stack(frames: Iterable[FrameType], redactor: Redactor) -> tuple[Frame, ...]:
    """Where running code stands, outermost first, without the frames of Kairos."""
    located = [(frame, frame.f_lineno) for frame in frames]
    own = next((i for i, (frame, _) in enumerate(located) if _file(frame).startswith(OWN)), 0)
    return _frames(_user_part(located[own:]), redactor)


def one_line(exc: BaseException, redactor: Redactor) -> str:
    """`ValueError: bad amount`."""
    message = _message(exc, redactor).strip().split("\n", 1)[0]
    name = type_name(type(exc)).removeprefix("builtins.")
    return clean(f"{name}: {message}" if message else name, 500)


def _describe(exc: BaseException, rules: Redactor) -> ErrorInfo:
    located = _user_part(list(_walk(exc.__traceback__)))
    return ErrorInfo(
        type=clean(type_name(type(exc)), 500),
        message=_message(exc, rules),
        frames=_frames(located, rules),
        locals=_locals(located, rules),
        notes=tuple(_notes(exc, rules)),
        hint=_hint(exc, rules),
    )


def _message(exc: BaseException, rules: Redactor) -> str:
    if isinstance(exc, SystemExit):
        return clean(
            f"the step called sys.exit({show(exc.code, 80, rules) if exc.code is not None else ''})", MAX_MESSAGE
        )
    if isinstance(exc, KeyboardInterrupt) and not exc.args:
        return "the step raised KeyboardInterrupt"
    try:
        text = exc.message if isinstance(exc, KairosError) else str(exc)
        if not isinstance(text, str):
            raise TypeError("not a text")
        # A plain copy: a subclass of str may do anything when it is sliced or printed.
        text = str.__add__("", text)
    except BaseException as broken:
        text = f"(its text cannot be read: printing it raises {type(broken).__name__})"
    return shorten(text, MAX_MESSAGE, rules)


def _hint(exc: BaseException, rules: Redactor) -> str | None:
    hint = exc.hint if isinstance(exc, KairosError) else None
    return shorten(hint, MAX_NOTE, rules) if isinstance(hint, str) else None


def _walk(traceback: TracebackType | None) -> Iterator[_Located]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _user_part(located: list[_Located]) -> list[_Located]:
    """Without Kairos' own frames at either end, and without pydantic's at the outer one."""
    start, end = 0, len(located)
    while start < end and _file(located[start][0]).startswith((OWN, _PYDANTIC)):
        start += 1
    while end > start and _file(located[end - 1][0]).startswith(OWN):
        end -= 1
    return located[start:end]


def _frames(located: list[_Located], rules: Redactor) -> tuple[Frame, ...]:
    if len(located) > MAX_FRAMES:
        head, tail = located[:10], located[-(MAX_FRAMES - 11) :]
        gap = Frame("", 0, f"({len(located) - MAX_FRAMES + 1:,} frames left out)")
        return (*(_frame(item, rules) for item in head), gap, *(_frame(item, rules) for item in tail))
    return tuple(_frame(item, rules) for item in located)


def _frame(item: _Located, rules: Redactor) -> Frame:
    frame, line = item
    try:
        text = linecache.getline(_file(frame), line, frame.f_globals).strip()
    except Exception:
        text = ""
    return Frame(
        clean(_file(frame), 500),
        line or 0,
        clean(frame.f_code.co_qualname, 200),
        clean(rules.text(text), _MAX_CODE),
    )


def _locals(located: list[_Located], rules: Redactor) -> dict[str, str]:
    """Of the innermost frame that is the user's own code, or else the innermost."""
    if not located:
        return {}
    chosen = next((frame for frame, _ in reversed(located) if _is_user(frame)), located[-1][0])
    kept: dict[str, str] = {}
    for name, value in list(chosen.f_locals.items()):
        if name.startswith("__") or name.startswith("@"):
            continue
        if len(kept) == MAX_LOCALS:
            break
        kept[clean(name, 200)] = PLACEHOLDER if rules.hides(name) else show(value, MAX_LOCAL, rules)
    return kept


def _file(frame: FrameType) -> str:
    return frame.f_code.co_filename


def _is_user(frame: FrameType) -> bool:
    return is_user_file(_file(frame))


def _notes(exc: BaseException, rules: Redactor) -> Iterator[str]:
    lines: list[str] = []
    own = attributes(exc).get("__notes__")
    if isinstance(own, list | tuple):
        lines += [shorten(note, MAX_NOTE, rules) for note in own[:MAX_NOTES] if type(note) is str]
    lines += _causes(exc, rules)
    if isinstance(exc, BaseExceptionGroup):
        lines += [f"contains {one_line(inner, rules)}" for inner in _flatten(exc)]
    for line in lines[:MAX_NOTES]:
        yield clean(line, MAX_NOTE)
    if len(lines) > MAX_NOTES:
        yield f"({len(lines) - MAX_NOTES} more notes left out)"


def _causes(exc: BaseException, rules: Redactor) -> Iterator[str]:
    seen = {id(exc)}
    while True:
        cause, how = exc.__cause__, "caused by"
        if cause is None and not exc.__suppress_context__:
            cause, how = exc.__context__, "while handling"
        if cause is None or id(cause) in seen or len(seen) > MAX_NOTES:
            return
        seen.add(id(cause))
        yield f"{how} {one_line(cause, rules)}"
        exc = cause


def _flatten(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    stack: list[BaseException] = list(reversed(group.exceptions))
    while stack and len(found) <= MAX_NOTES:
        item = stack.pop()
        if isinstance(item, BaseExceptionGroup):
            stack.extend(reversed(item.exceptions))
        else:
            found.append(item)
    return found
