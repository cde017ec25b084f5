"""What one step returns and another takes: refused where it can never fit, and only there."""

# ruff: noqa: UP007, UP045  (built of values, some of which do not take `|`)

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypeVar, Union

import psycopg
import pytest
from authoring_support import new_workflow, short_id
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    RootModel,
    model_serializer,
    model_validator,
)
from typing_extensions import TypedDict

from kairos.authoring import App
from kairos.authoring.values import ValueType
from kairos.errors import DefinitionError, PayloadError

T = TypeVar("T")


class O(BaseModel):  # noqa: E742
    n: int = 1


class Special(O):
    more: str = "x"


class Box(BaseModel, Generic[T]):
    n: T


class Root(RootModel[int]):
    pass


class Lax(BaseModel):
    n: int = 1

    @model_validator(mode="before")
    @classmethod
    def anything(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else {"n": 1}


class AsNumber(BaseModel):
    n: int = 1

    @model_serializer
    def number(self) -> int:
        return self.n


class Tree(BaseModel):
    kids: list[Tree] = []


@dataclasses.dataclass
class Data:
    n: int = 1


class Typed(TypedDict):
    n: int


class Pair(NamedTuple):
    a: int
    b: str


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


UserId = NewType("UserId", int)

VALUES: list[tuple[Any, list[Any]]] = [
    (None, [None]),
    (bool, [True, False]),
    (int, [0, 1, -7, 2**40]),
    (float, [0.0, 1.0, 2.5, -1e300]),
    (str, ["", "1", "2.5", "true", "2024-05-01", '{"n": 1}', "red"]),
    (dict, [{}, {"n": 1}, {"a": {"b": []}}]),
    (list, [[], [1], ["1", 2], [[1, "x"]]]),
    (list[int], [[], [1, 2]]),
    (tuple[int, str], [(1, "x")]),
    (set[int], [set(), {1}]),
    (dict[str, int], [{}, {"n": 1}]),
    (dict[int, str], [{}, {1: "x"}]),
    (O, [O(), O(n=5)]),
    (Special, [Special()]),
    (Box[int], [Box[int](n=1)]),
    (Box[str], [Box[str](n="1")]),
    (Root, [Root(1)]),
    (Lax, [Lax()]),
    (AsNumber, [AsNumber(n=3)]),
    (Tree, [Tree(kids=[Tree()])]),
    (Data, [Data(), Data(n=3)]),
    (Typed, [{"n": 1}]),
    (Pair, [Pair(1, "x")]),
    (Colour, [Colour.RED]),
    (Number, [Number.ONE]),
    (Literal["red", 1], ["red", 1]),
    (date, [date(2024, 5, 1)]),
    (Decimal, [Decimal("1"), Decimal("2.5")]),
    (bytes, [b"", b"x"]),
    (UserId, [1]),
    (Annotated[int, Field(ge=0)], [0, 5]),
    (Annotated[int, Field(strict=False)], [1]),
    (Annotated[int, AfterValidator(lambda n: n)], [1]),
    (Annotated[int, PlainSerializer(lambda n: str(n))], [1]),
    (Annotated[int, BeforeValidator(lambda n: n if isinstance(n, int) else 1)], [1]),
    (Annotated[str, Field(coerce_numbers_to_str=True)], ["1"]),
    (Any, [None, 1, "x", {"n": 1}, [1]]),
]


Row = tuple[Any, list[Any]]


def derived(row: Row) -> list[Row]:
    """The type itself, and what is built of it."""
    kind, values = row
    return [
        row,
        (Optional[kind], [*values, None]),
        (Union[kind, str], [*values, "x"]),
        (Union[kind, Data], [*values, Data()]),
        (list[kind], [values, []]),
        (dict[str, kind], [{"n": value} for value in values]),
    ]


def stored(kind: ValueType, values: list[Any]) -> list[bytes]:
    found = []
    for value in values:
        try:
            found.append(kind.encode(value).data or b"")
        except PayloadError:
            continue  # a union whose members look the same as JSON
    return found


def test_what_is_refused_could_never_have_been_read() -> None:
    """Every type of the table, alone and in company, into every other one, with real values."""
    rows = [more for row in VALUES for more in derived(row)]
    types = [(ValueType(kind), values) for kind, values in rows]
    produced = [(kind, stored(kind, values)) for kind, values in types]
    refused = 0
    for consumer, _ in types:
        for producer, raws in produced:
            if consumer.never_reads(producer):
                refused += 1
                for raw in raws:
                    with pytest.raises(PayloadError):
                        consumer.decode(raw)
    assert refused > 1000


def test_what_is_plainly_of_another_shape_is_refused() -> None:
    plain: list[Any] = [None, bool, int, float, str, list, list[int], dict, dict[str, int], O, Data, Typed, set[int]]
    shape = {None: "null", bool: "bool", int: "int", float: "float", str: "str", list: "array"}
    shape |= {list[int]: "array", set[int]: "array"}
    for consumer in plain:
        for producer in plain:
            one, other = shape.get(consumer, "object"), shape.get(producer, "object")
            fits = one == other or (one, other) == ("float", "int")
            assert ValueType(consumer).never_reads(ValueType(producer)) is not fits, (consumer, producer)


MIGHT_WORK: list[tuple[Any, Any]] = [
    (int, float), (int, Any), (Any, int), (int, int | str), (int | str, str), (Optional[int], Optional[str]),
    (O, dict), (dict, O), (dict, Typed), (Typed, O), (Special, O), (O, Special), (Box[int], Box[str]), (Data, dict),
    (int, Root), (str, Lax), (AsNumber, int), (str, date), (str, Colour), (int, Number), (str, bytes), (str, Decimal),
    (int, Union[str, list[O]]), (str, Union[int, list[O]]), (str, Union[int, O]), (UserId, int), (int, UserId),
    (int, Annotated[str, Field(coerce_numbers_to_str=True)]), (str, Annotated[int, Field(strict=False)]),
    (Annotated[int, PlainSerializer(lambda n: str(n))], str), (str, Annotated[int, BeforeValidator(int)]),
    (list[int], tuple[int, ...]), (set[int], list), (Tree, dict), (int, object),
]  # fmt: skip


@pytest.mark.parametrize(("producer", "consumer"), MIGHT_WORK, ids=short_id)
def test_what_might_work_is_let_be(producer: Any, consumer: Any) -> None:
    assert not ValueType(consumer).never_reads(ValueType(producer))


def test_a_parameter_that_can_never_take_its_step_s_output_is_refused() -> None:
    wf = new_workflow()

    @wf.step
    def count() -> int:
        return 1

    with pytest.raises(DefinitionError) as caught:

        @wf.step
        def show(count: str) -> None: ...

    assert caught.value.message == (
        "step 'show': parameter 'count' is annotated str, but it receives the output of step 'count', "
        "which is int and can never be read as str"
    )
    assert "Annotate it int" in str(caught.value)
    assert caught.value.facts == {"step": "show", "parameter": "count"}
    with pytest.raises(DefinitionError, match="parameter 'total' is annotated O, but it receives the output of step"):

        @wf.step(needs={"total": count})
        def charge(total: O) -> None: ...

    assert list(wf.steps) == ["count"]


def test_a_parameter_that_can_never_take_the_input_is_refused() -> None:
    wf = new_workflow(O)
    with pytest.raises(DefinitionError, match="'input' is annotated int, but it receives the run's input, which is O"):

        @wf.step
        def read(input: int) -> None: ...

    @wf.step
    def read_dict(input: dict[str, Any]) -> int:
        return int(input["n"])

    assert wf.run_inline(O(n=4)) == 4


def use_two(one: psycopg.Connection, other: psycopg.Connection[Any]) -> None: ...  # type: ignore[type-arg]


@pytest.mark.parametrize("define", [new_workflow().step, App("shop").job], ids=["step", "job"])
def test_an_attempt_has_one_connection(define: Callable[..., Any]) -> None:
    with pytest.raises(DefinitionError, match="parameters 'one' and 'other' are all psycopg connections"):
        define(use_two)
