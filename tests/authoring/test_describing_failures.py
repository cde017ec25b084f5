"""Exceptions as data: frames, locals, notes; bounded, clean, whatever the exception does."""

from __future__ import annotations

import functools
import json
import sys
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest
from authoring_support import attempt, error_of, new_workflow
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from kairos.authoring.display import clean, show
from kairos.authoring.failure import describe_error
from kairos.domain import canonical
from kairos.domain.error_info import MAX_FRAMES, MAX_LOCAL, MAX_LOCALS, MAX_MESSAGE, ErrorInfo
from kairos.errors import ConfigError, RunNotFound


def caught(raise_it: Any) -> ErrorInfo:
    try:
        raise_it()
    except BaseException as exc:
        return describe_error(exc)
    raise AssertionError("it did not raise")


def fail(exc: BaseException) -> Any:
    raise exc


class BadStr(Exception):
    def __str__(self) -> str:
        raise BaseException("no text")

    __repr__ = __str__


class OtherStr(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class SlyText(str):
    def __getitem__(self, key: Any) -> str:
        raise RuntimeError("cut me if you can")

    def __len__(self) -> int:
        return -1


class SlyStr(Exception):
    def __str__(self) -> str:
        return SlyText("sly")


class Unpicklable(Exception):
    def __init__(self, a: int, *, b: int) -> None:
        super().__init__(lambda: a, b)

    def __reduce__(self) -> Any:
        raise RuntimeError("no")


class LyingMeta(type):
    def __repr__(cls) -> str:
        raise RuntimeError("no")

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__name__", "__qualname__", "__module__"):
            raise RuntimeError("no")
        return super().__getattribute__(name)


class Lying(Exception, metaclass=LyingMeta):
    pass


class BadNotes(Exception):
    __notes__ = property(lambda self: 1 / 0)


class BadRepr:
    def __repr__(self) -> str:
        raise BaseException("no repr")

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("hands off")


def endless_cause() -> Exception:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    return first


ODD: list[tuple[BaseException, str]] = [
    (ValueError("nul \0 and \ud800"), "nul \\x00 and \\ud800"),
    (ValueError(), ""),
    (ValueError(float("nan"), 2**70), "(nan, 1180591620717411303424)"),
    (ValueError(10**5000), "(its text cannot be read: printing it raises ValueError)"),
    (BadStr(), "(its text cannot be read: printing it raises BaseException)"),
    (OtherStr(), "(its text cannot be read: printing it raises TypeError)"),
    (SlyStr(), "sly"),
    (Lying("x"), "x"),
    (BadNotes("x"), "x"),
    (endless_cause(), "1"),
    (KeyError("k"), "'k'"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "'utf-8' codec can't decode byte 0xff in position 0: bad"),
    (OSError(2, "No such file", "x"), "[Errno 2] No such file: 'x'"),
]


@pytest.mark.parametrize(("exc", "message"), ODD, ids=[str(i) for i in range(len(ODD))])
def test_any_exception_becomes_plain_data(exc: BaseException, message: str) -> None:
    info = caught(lambda: fail(exc))
    assert info.message == message
    raw = canonical.encode(info.to_json())
    assert b"\\u0000" not in raw
    assert ErrorInfo.from_json(canonical.decode(raw)) == info


def test_an_exception_whose_arguments_cannot_be_stored_is_kept_as_text() -> None:
    info = caught(lambda: fail(Unpicklable(1, b=2)))
    assert info.type == "test_describing_failures.Unpicklable"
    assert "<function" in info.message


def test_messages_and_locals_are_bounded() -> None:
    def deep() -> None:
        huge = "x" * 10_000_000  # noqa: F841
        many = list(range(10**6))  # noqa: F841
        raise ValueError("y" * 10_000_000)

    info = caught(deep)
    assert len(info.message) == MAX_MESSAGE
    assert info.message.endswith("more)")
    assert all(len(text) <= MAX_LOCAL for text in info.locals.values())
    assert info.locals["many"].endswith("... (999,980 more)]")
    assert len(canonical.encode(info.to_json())) < 20_000


def test_at_most_so_many_locals_are_kept() -> None:
    names = {f"v{i}": i for i in range(100)}
    source = "def body():\n" + "".join(f"    {k} = {v}\n" for k, v in names.items()) + "    raise ValueError\n"
    scope: dict[str, Any] = {}
    exec(source, scope)
    assert len(caught(scope["body"]).locals) == MAX_LOCALS


def test_only_the_users_frames_are_shown_outermost_first() -> None:
    wf = new_workflow()

    def inner() -> None:
        raise ValueError("x")

    @wf.step
    def charge() -> None:
        inner()

    info = error_of(attempt(charge))
    assert [frame.function.rpartition(".")[2] for frame in info.frames] == ["charge", "inner"]
    assert [frame.code for frame in info.frames] == ["inner()", 'raise ValueError("x")']
    assert info.frames[0].file == __file__


def test_locals_are_those_of_the_users_code_and_not_of_a_library() -> None:
    wf = new_workflow()

    @wf.step
    def parse() -> None:
        text = "{broken"
        json.loads(text)

    info = error_of(attempt(parse))
    assert info.locals == {"text": "'{broken'"}
    assert info.frames[-1].file.endswith("decoder.py")


def test_an_endless_recursion_keeps_both_ends() -> None:
    def again(n: int) -> int:
        return again(n + 1) + 1

    info = caught(lambda: again(0))
    assert info.type == "builtins.RecursionError"
    assert len(info.frames) == MAX_FRAMES
    [gap] = [frame for frame in info.frames if not frame.file]
    assert "frames left out" in gap.function


def test_causes_contexts_and_notes_become_lines() -> None:
    def body() -> None:
        try:
            try:
                raise KeyError("a")
            except KeyError as exc:
                raise ValueError("b") from exc
        except ValueError:
            error = RuntimeError("c")
            error.add_note("a note")
            raise error  # noqa: B904

    assert caught(body).notes == ("a note", "while handling ValueError: b", "caused by KeyError: 'a'")


def test_a_suppressed_context_stays_hidden() -> None:
    def body() -> None:
        try:
            raise KeyError("a")
        except KeyError:
            raise ValueError("b") from None

    assert caught(body).notes == ()


def test_a_group_names_what_it_contains() -> None:
    group = ExceptionGroup("several", [ValueError("a"), ExceptionGroup("in", [KeyError("b")])])
    info = caught(lambda: fail(group))
    assert info.message == "several (2 sub-exceptions)"
    assert info.notes == ("contains ValueError: a", "contains KeyError: 'b'")
    many = caught(lambda: fail(ExceptionGroup("many", [ValueError(str(i)) for i in range(100)])))
    assert len(many.notes) == 21


def test_errors_of_kairos_keep_message_and_hint_apart() -> None:
    info = caught(lambda: fail(RunNotFound("no run x")))
    assert info.message == "no run x"
    assert info.hint == RunNotFound.hint
    assert caught(lambda: fail(ConfigError("c", hint="password=abc"))).hint == "password=[redacted]"


def test_many_locals_of_any_kind_are_shown_without_running_their_code() -> None:
    class Colour(Enum):
        RED = 1

        def __repr__(self) -> str:
            raise RuntimeError("no")

    class Model(BaseModel):
        a: int = 1
        password: str = "p"
        masked: SecretStr = SecretStr("s3cr3t-value")

    @dataclass
    class Point:
        x: int
        loop: Any = None

        def __repr__(self) -> str:
            raise RuntimeError("no")

    point = Point(1)
    point.loop = [point]
    shown = {
        "colour": (Colour.RED, "<Colour.RED>"),
        "model": (Model(), "Model(a=1, password=[redacted], masked=<pydantic.types.SecretStr>)"),
        "point": (point, "Point(x=1, loop=[Point(x=1, loop=[<list>])])".replace("<list>", "<x>")),
        "bad": (BadRepr(), "<test_describing_failures.BadRepr>"),
        "big": (10**5000, "<int of 16,610 bits>"),
        "when": (datetime(2024, 5, 1, tzinfo=UTC), "datetime.datetime(2024, 5, 1, 0, 0, tzinfo=datetime.timezone.utc)"),
        "fn": (fail, "<function fail>"),
        "cls": (Model, None),
        "part": (functools.partial(fail), "<functools.partial>"),
        "tuple": ((1,), "(1,)"),
        "sets": ({1}, "{1}"),
        "bytes": (b"\0\xff", "b'\\x00\\xff'"),
        "text": ("a\0\ud800", "'a\\x00\\ud800'"),
        "error": (ValueError("x", {"token": "t"}), "ValueError('x', {'token': [redacted]})"),
        "lying": (Lying, None),
    }
    for name, (value, expected) in shown.items():
        text = show(value, 500)
        if name == "point":
            assert text.startswith("Point(x=1, loop=[Point(x=1, loop=[")
        elif expected is not None:
            assert text == expected, name


def test_a_dictionary_that_changes_its_own_iteration_is_read_as_a_dictionary() -> None:
    class Sly(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            raise RuntimeError("no")

        def __iter__(self) -> Any:
            raise RuntimeError("no")

    assert show(Sly(a=1), 100) == "Sly({'a': 1})"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.frozensets(st.text())
    ),
    max_leaves=30,
)


@given(ANYTHING, st.integers(1, 200))
def test_any_value_is_shown_as_clean_text_within_the_limit(value: Any, limit: int) -> None:
    text = show(value, limit)
    assert len(text) <= limit
    assert "\0" not in text
    text.encode()


@given(st.text(alphabet=st.characters(), max_size=200), st.integers(1, 100))
def test_clean_text_is_valid_and_within_the_limit(text: str, limit: int) -> None:
    cleaned = clean(text, limit)
    assert len(cleaned) <= limit
    assert "\0" not in cleaned
    cleaned.encode()


def test_describing_leaves_the_traceback_as_it_was() -> None:
    try:
        fail(ValueError("x"))
    except ValueError as exc:
        before = traceback.format_exc()
        describe_error(exc)
        assert traceback.format_exc() == before
    assert sys.exc_info() == (None, None, None)
