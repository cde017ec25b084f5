"""Snapshots of values: bounded, without running a line of the user's code, without secrets."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import uuid
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydantic
import pytest

import kairos
from kairos.authoring.redaction import Redaction, Redactor
from kairos.authoring.secrets import Secret
from kairos.replay.trace.blanking import Blanking
from kairos.replay.trace.capture import Limits, Snapshots
from kairos.replay.trace.history import Trace
from kairos.replay.trace.reading import TraceFile
from kairos.replay.trace.scope import Scope
from kairos.replay.trace.values import Value, children, decoder, left_out, render
from tests.replay.trace.tracing_support import record, save


def snapshot(value: object, redactor: Redactor | None = None, **limits: int) -> Value:
    shots = Snapshots(Scope(), redactor or Redactor(), Limits(**limits))
    raw = shots.values[shots.take(value)]
    kept: Value = decoder.decode(Blanking(shots.redactor, shots.limits)(raw))
    return kept


class Color(enum.Enum):
    RED = "r"


class Model(pydantic.BaseModel):
    name: str
    tags: list[int] = []


@dataclasses.dataclass
class Point:
    x: int
    y: int = 2


class Slotted:
    __slots__ = ("a", "missing")

    def __init__(self) -> None:
        self.a = 1


class Words(list[str]):
    pass


class Code(str):
    pass


Pair = namedtuple("Pair", "left right")


def generator() -> Any:
    yield


SHOWN = [
    (None, "None"),
    (True, "True"),
    (-1.5, "-1.5"),
    (float("nan"), "nan"),
    (2**70, "1180591620717411303424"),
    (-(2**63) - 1, "-9223372036854775809"),
    (10**5000, "<int of 16,610 bits>"),
    ("naïve ☃", "'naïve ☃'"),
    ("\ud800", "'\\\\ud800'"),
    ([1, [2.0, "x"]], "[1, [2.0, 'x']]"),
    ((1,), "(1,)"),
    ((), "()"),
    (set(), "set()"),
    ({1}, "{1}"),
    (frozenset({1}), "frozenset([1])"),
    (deque([1, 2]), "deque([1, 2])"),
    ({"a": {1: None}}, "{'a': {1: None}}"),
    (OrderedDict(a=1), "OrderedDict({'a': 1})"),
    (defaultdict(list, a=[1]), "defaultdict({'a': [1]})"),
    (Counter("aa"), "Counter({'a': 2})"),
    (b"\x00ab", "b'\\x00ab'"),
    (bytearray(b"x"), "b'x'"),
    (Decimal("1.50"), "Decimal('1.50')"),
    (datetime.date(2026, 1, 2), "datetime.date(2026, 1, 2)"),
    (uuid.UUID(int=1), "UUID('00000000-0000-0000-0000-000000000001')"),
    (Path("/tmp"), "PosixPath('/tmp')"),
    (Color.RED, "<Color.RED>"),
    (Model(name="n", tags=[1]), "Model(name='n', tags=[1])"),
    (Point(1), "Point(x=1, y=2)"),
    (Slotted(), "Slotted(a=1)"),
    (Pair(1, "b"), "Pair(left=1, right='b')"),
    (SimpleNamespace(a=1), "SimpleNamespace(a=1)"),
    (Words(["a"]), "Words(['a'])"),
    (Code("c"), "'c'"),
    (ValueError("bad", 3), "ValueError('bad', 3)"),
    (snapshot, "<function snapshot>"),
    (len, "<builtin len>"),
    (Point(1).__eq__, "<method Point.__eq__>"),
    (generator(), "<generator generator>"),
    (enum, "<module enum>"),
    (range(3), "range(0, 3)"),
    (object(), "<builtins.object>"),
    (Secret("env:KEY"), "Secret(KEY)"),
]


@pytest.mark.parametrize(("value", "text"), SHOWN, ids=[f"{n}-{type(v).__name__}" for n, (v, _) in enumerate(SHOWN)])
def test_values_are_shown_much_as_python_shows_them(value: object, text: str) -> None:
    if type(value) is Secret:
        assert "KEY" in render(snapshot(value))
        return
    assert render(snapshot(value)) == text


class Hostile(type):
    """A metaclass that answers nothing."""

    def __eq__(cls, other: object) -> bool:
        raise AssertionError("asked a class whether it is equal")

    def __hash__(cls) -> int:
        raise AssertionError("asked a class for its hash")

    def __getattribute__(cls, name: str) -> Any:
        raise AssertionError(f"asked a class for {name}")

    def __instancecheck__(cls, instance: object) -> bool:
        raise AssertionError("asked a class about an instance")

    def __subclasscheck__(cls, subclass: type) -> bool:
        raise AssertionError("asked a class about a subclass")


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("the user's code was run")


REFUSED = """
    __repr__ __str__ __eq__ __hash__ __len__ __iter__ __getattribute__ __getattr__ __bool__ __contains__ __getitem__
    __format__ __int__ __float__ __index__ __sizeof__ __dir__ items keys values
"""
REFUSING = dict.fromkeys(REFUSED.split(), refuse)


@pytest.mark.parametrize("base", [object, dict, list, tuple, set, str, int, float, bytes, Exception, deque, Decimal])
def test_no_code_of_the_user_is_run(base: type) -> None:
    trap = property(refuse)
    body = {**REFUSING, "__dict__": trap, "__class__": trap, "prop": trap, "shape": trap, "args": trap, "_fields": trap}
    kind = Hostile("Trap", (base,), body)
    value = base.__new__(kind)
    for held in (value, [value], {"k": value}, kind):
        assert render(snapshot(held))


def test_a_module_with_its_own_getattr_is_not_asked() -> None:
    import types

    module = types.ModuleType("lazy")
    module.__getattr__ = refuse  # type: ignore[method-assign]
    assert render(snapshot(module)) == "<module lazy>"


def test_what_is_cut_off_is_counted() -> None:
    many = snapshot(list(range(100)))
    assert left_out(many) == 80
    assert render(many).endswith("19, …(80 more)]")
    text = snapshot("x" * 1_000)
    assert left_out(text) == 840
    assert "(1,000 long)" in render(text)
    deep = snapshot([[[[[[1]]]]]])
    assert render(deep) == "[[[[<list of 1…>]]]]"
    wide = snapshot([[n] * 20 for n in range(20)])
    assert sum(len(children(item)) for _, item in children(wide)) <= 80


def test_a_value_that_holds_itself_ends() -> None:
    value: list[Any] = []
    value.append(value)
    assert render(snapshot(value)) == "[[[[<list of 1…>]]]]"


def test_a_huge_value_costs_no_more_than_a_small_one() -> None:
    huge = {"rows": [{"n": n, "text": "x" * 10_000} for n in range(2_000)], "raw": b"y" * 10_000_000}
    shots = Snapshots(Scope(), Redactor(), Limits())
    assert len(shots.values[shots.take(huge)]) < 100_000
    assert len(Blanking(Redactor(), Limits())(shots.values[-1])) < 20_000


def handle(password: str, form: dict[str, Any], key: str, rows: list[str]) -> str:
    api_key = key  # noqa: F841
    note = f"Authorization: Bearer {key}"
    cut = "." * 150 + key + "." * 200
    late = Secret("env:LATE_SECRET").reveal() + "!"
    return note + cut + late


def test_secrets_reach_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATE_SECRET", "s3cr3t-revealed-late")
    key = "sk_live_0123456789abcdef"
    redactor = Redactor(Redaction(fields=["card*"], values=[key, "4242"]))
    redactor.reveal("s3cr3t-revealed-late")
    rows = ["s3cr3t-revealed-late in an argument that came before"]
    form = {"card_number": "9999888877776666", "token": "tok_1", "pin": 4242, "nested": [{"api-key": "abcd-efgh"}]}
    path = tmp_path / "t.ktrace"
    save(path, handle, "hunter22", form, key, rows, redactor=redactor)
    file = TraceFile(path)
    everything = repr([file.value(n) for n in range(file.value_count)]) + repr(file.header)
    for secret in (key, "sk_live", "hunter22", "9999888877776666", "tok_1", "abcd-efgh", "s3cr3t", "4242"):
        assert secret not in everything, secret
    trace = Trace(file)
    assert {name for name, value in trace.locals_at(trace.last).items() if render(value) == "[redacted]"} >= {
        "password", "api_key",
    }  # fmt: skip


def get_password() -> str:
    return "hunter22"


def test_what_a_function_with_a_secret_name_returns_is_hidden() -> None:
    trace = record(get_password)
    assert render(trace.value(trace.last)) == "[redacted]"


def test_objects_of_the_engine_and_of_libraries_are_shown_by_their_type_alone() -> None:
    import threading

    assert render(snapshot(kairos.App("x"))) == "<App…>"
    assert render(snapshot(threading.Lock())) == "<lock…>"
    assert render(snapshot(threading.Thread())) == "<Thread…>"
