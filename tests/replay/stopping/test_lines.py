"""Where a function begins: told from its code, checked against where Python's own tracing stops first."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from kairos.errors import BreakpointError
from kairos.replay.stopping.breakpoints import parse_breakpoint
from kairos.replay.stopping.lines import def_line, find_place, first_user_line, user_code
from tests.replay.stopping import shop
from tests.replay.stopping.conftest import line_of

LINES = Path(__file__).read_text("utf-8").splitlines()


def wrapped(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def outer(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return outer


def bare(fn: Callable[..., Any]) -> Callable[..., Any]:
    def outer(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return outer


def plain(x: int) -> int:
    return x  # first


@wrapped
@bare
@wrapped
def decorated(
    x: int,
    y: int = 2,
) -> list[int]:
    """One line."""

    # a comment
    return [x, y]  # first


def long_docstring(x: int) -> int:
    """Several

    lines.
    """
    y = x  # first
    return y


async def asynchronous(x: int) -> int:
    "A docstring."
    y = x  # first
    return y


async def stream(x: int) -> Any:
    yield x  # first


def generator(x: int) -> Any:
    for n in range(x):  # first
        yield n + 1


def one_line(x: int) -> int: return x  # first  # fmt: skip


def loop(x: int) -> int:
    while True:  # first
        return x


def tried(x: int) -> int:
    try:  # first
        return x
    finally:
        pass


def annotated(x: int) -> Any:
    y: int
    import os as y  # first

    return y


def enclosing() -> Callable[[int], int]:
    total = 0

    def inner(x: int) -> int:
        nonlocal total
        total += x  # first
        return total

    return inner


def cell(x: int) -> Callable[[], int]:
    y = lambda: x  # first  # noqa: E731
    return y


several = lambda x: (  # noqa: E731
    x + 1  # first
)


class Callable_:
    def __call__(self, x: int) -> int:
        return x  # first

    def method(self, x: int) -> int:
        return x  # first

    @classmethod
    def of(cls, x: int) -> int:
        return x  # first

    @staticmethod
    def alone(x: int) -> int:
        return x  # first


class Deferred:
    """A decorator written as a class."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn

    def __call__(self, *args: Any) -> Any:
        return self.fn(*args)


@Deferred
def by_class(x: int) -> int:
    return x  # first


namespace: dict[str, Any] = {}
exec(compile("def sourceless(x):\n    'doc'\n\n    return x\n", "<nowhere>", "exec"), namespace)
sourceless = namespace["sourceless"]


def only_docstring(x: int) -> None:
    """Nothing else."""


def empty(x: int) -> None: ...


KINDS: dict[str, Callable[..., Any]] = {
    "plain": plain, "decorated": decorated, "long_docstring": long_docstring, "asynchronous": asynchronous,
    "stream": stream, "generator": generator, "one_line": one_line, "loop": loop, "tried": tried,
    "annotated": annotated, "inner": enclosing(), "cell": cell, "lambda": several, "callable": Callable_(),
    "method": Callable_().method, "classmethod": Callable_.of, "staticmethod": Callable_.alone,
    "partial": functools.partial(functools.partial(plain), 1), "by_class": by_class, "cached": functools.cache(plain),
}  # fmt: skip
UNMARKED: dict[str, Callable[..., Any]] = {
    "sourceless": sourceless,
    "only_docstring": only_docstring,
    "empty": empty,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_line_is_inside_the_function_as_written(kind: str) -> None:
    place = first_user_line(KINDS[kind])
    assert place.file == __file__
    assert "# first" in LINES[place.line - 1]
    assert place.once


@pytest.mark.parametrize("kind", [*KINDS, *UNMARKED])
def test_python_itself_stops_there_first(kind: str) -> None:
    fn = {**KINDS, **UNMARKED}[kind]
    code = user_code(fn)
    seen: list[int] = []

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code is code and event == "line":
            seen.append(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        value = fn() if kind == "partial" else fn(1)
        run = value.asend(None) if hasattr(value, "asend") else value
        if hasattr(run, "send"):
            with contextlib.suppress(StopIteration):
                run.send(None)
    finally:
        sys.settrace(before)
    assert first_user_line(fn).line == seen[0]


def test_lines_may_be_counted_from_the_def() -> None:
    assert def_line(first_user_line(decorated).code) == LINES.index("def decorated(") + 1
    assert def_line(first_user_line(one_line).code) == first_user_line(one_line).line
    place = find_place(parse_breakpoint("charge:+4"), shop.charge.fn)
    assert (place.line, place.note) == (line_of("in the loop"), None)


def test_a_line_may_be_that_of_the_file() -> None:
    line = line_of("in the thread")
    place = find_place(parse_breakpoint(f"spread:{line}"), shop.spread.fn)
    assert (place.file, place.line, place.note, place.once) == (shop.__file__, line, None, False)


def test_a_line_without_code_means_the_next_one_that_has_some() -> None:
    docstring = line_of("first line of reserve") - 2
    place = find_place(parse_breakpoint(f"reserve:{docstring}"), shop.reserve.fn)
    assert place.line == docstring + 2
    assert place.note == f"line {docstring} has no code; line {docstring + 2} is taken"


def test_a_line_of_another_function_is_taken_and_said() -> None:
    line = line_of("the line of the helper")
    place = find_place(parse_breakpoint(f"charge:{line}"), shop.charge.fn)
    assert place.line == line
    assert place.note == f"line {line} is in twice(), outside of charge"


@pytest.mark.parametrize("line", [0, 1, 99_999])
def test_a_line_of_no_function_is_refused(line: int) -> None:
    with pytest.raises(BreakpointError, match=f"line {line} of shop.py is outside of step 'charge'") as caught:
        find_place(parse_breakpoint(f"charge:{line}"), shop.charge.fn)
    assert "charge:+1 is the line below its def" in (caught.value.hint or "")


@pytest.mark.parametrize("fn", [len, functools.partial(print, 1), str])
def test_what_is_not_written_in_python_is_refused(fn: Callable[..., Any]) -> None:
    with pytest.raises(BreakpointError, match="is not written in Python"):
        first_user_line(fn)


def test_wrappers_that_hold_each_other_are_not_followed_for_ever() -> None:
    def first() -> None: ...

    def second() -> None: ...

    first.__wrapped__, second.__wrapped__ = second, first  # type: ignore[attr-defined]
    assert user_code(first) in (first.__code__, second.__code__)


def test_a_function_that_only_encloses_another_is_itself_the_step() -> None:
    def helper(x: int) -> int:
        return x

    def step(x: int) -> int:
        return helper(x)

    assert user_code(step) is step.__code__
