"""Values at the boundaries: what goes in comes out equal, or is refused with a text that helps."""

from __future__ import annotations

import enum
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from authoring_support import short_id
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, computed_field, field_validator
from typing_extensions import TypedDict

from kairos.authoring.values import ValueType
from kairos.domain import canonical
from kairos.domain.payload import NULL, Payload
from kairos.errors import DefinitionError, PayloadError


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Line(BaseModel):
    sku: str
    price: Decimal
    bought: datetime
    tags: set[str] = set()


class Order(BaseModel):
    id: UUID
    lines: list[Line] = []
    colour: Colour = Colour.RED


@dataclass
class Point:
    x: int
    y: float = 0.0
    path: list[Point] = field(default_factory=list)


class Row(TypedDict):
    a: int
    b: list[str]


class Aliased(BaseModel):
    amount: int = Field(alias="amountCents")


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


class Camera(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    raw: bytes


class Open(BaseModel):
    x: Any = None
    y: float | None = None


def round_trip(annotation: Any, value: Any) -> Any:
    kind = ValueType(annotation)
    payload = kind.encode(value)
    assert payload.data is not None
    assert canonical.encode(canonical.decode(payload.data)) == payload.data, "the bytes are canonical"
    return kind.decode(payload.data)


WHEN = datetime(2024, 5, 1, 12, 30, 15, 123456, UTC)
LINE = Line(sku="a", price=Decimal("9.90"), bought=WHEN, tags={"x"})

STORABLE: list[tuple[Any, Any]] = [
    (Any, {"a": [1, 2.5, None, True, "x"]}),
    (object, [1]),
    (dict, {"a": {"b": []}}),
    (list, [1, [2]]),
    (str, "a\0b"),
    (str, ""),
    (int, -(2**63)),
    (int, 2**64 - 1),
    (float, 1e308),
    (float, 5e-324),
    (bool, True),
    (None, None),
    (Order, Order(id=UUID(int=1), lines=[LINE], colour=Colour.BLUE)),
    (list[Line], [LINE, LINE]),
    (dict[str, Line], {"k": LINE}),
    (Line | None, None),
    (Line | int, 5),
    (Point, Point(1, 2.5, [Point(3)])),
    (Row, {"a": 1, "b": ["x"]}),
    (Aliased, Aliased(amountCents=5)),
    (Tree, Tree(value=1, children=[Tree(value=2)])),
    (Camera, Camera(raw=b"\xff\x00")),
    (bytes, b"\xff\x00"),
    (list[bytes], [b"\xff"]),
    (datetime, WHEN),
    (date, date(2024, 5, 1)),
    (timedelta, timedelta(days=1, microseconds=1)),
    (Decimal, Decimal("1.10")),
    (UUID, UUID(int=7)),
    (Path, Path("/tmp/x")),
    (Colour, Colour.BLUE),
    (Level, Level.LOW),
    (Literal["a", 1], 1),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2)),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (dict[int, str], {1: "a"}),
    (dict[date, int], {date(2024, 5, 1): 1}),
    (dict[str, Any], {"a": None, "b": [1]}),
    (Sequence[int], [1, 2]),
    (Annotated[int, Field(gt=0)], 5),
    (complex, 1j),
    (int | str, "1"),
    (int | None, None),
    (Open, Open(x={"a": [1]}, y=1.5)),
]


@pytest.mark.parametrize(("annotation", "value"), STORABLE, ids=short_id)
def test_a_storable_value_comes_back_equal_and_of_its_type(annotation: Any, value: Any) -> None:
    back = round_trip(annotation, value)
    assert back == value
    assert type(back) is type(value)


def test_minus_zero_keeps_its_sign() -> None:
    for annotation in (Any, float, list[float], Open):
        value: Any = {Any: -0.0, float: -0.0, Open: Open(y=-0.0)}.get(annotation, [-0.0])
        back = round_trip(annotation, value)
        number: Any = back.y if isinstance(back, Open) else back[0] if isinstance(back, list) else back
        assert math.copysign(1, number) == -1


def test_a_float_takes_an_int_and_stores_a_float() -> None:
    assert ValueType(float).encode(3) == Payload.of(b"3.0")
    assert type(ValueType(float).decode(b"3")) is float


def test_a_dict_is_taken_for_a_model_and_checked() -> None:
    assert round_trip(Aliased, {"amountCents": "5"}) == Aliased(amountCents=5)


def test_none_is_one_shared_payload() -> None:
    assert ValueType(None).encode(None) is NULL
    assert ValueType(Any).encode(None) is NULL


def test_a_recursive_and_a_forward_referring_type_work() -> None:
    assert round_trip(list[Tree], [Tree(value=1)]) == [Tree(value=1)]


WRONG_TYPE: list[tuple[Any, Any, str]] = [
    (int, "3", "the value is not int: Input should be a valid integer (got '3')"),
    (int, True, "the value is not int: Input should be a valid integer (got True)"),
    (int, 1.0, "the value is not int: Input should be a valid integer (got 1.0)"),
    (str, 3, "the value is not str: Input should be a valid string (got 3)"),
    (str, b"x", "the value is not str: Input should be a valid string (got b'x')"),
    (float, "1.5", "the value is not float: Input should be a valid number (got '1.5')"),
    (float, 2**5000, "the value is not float: Input should be a valid number (got <int of 5,001 bits>)"),
    (bool, 1, "the value is not bool: Input should be a valid boolean (got 1)"),
    (dict, [], "the value is not dict: Input should be a valid dictionary (got [])"),
    (list, (1,), "the value is not list: Input should be a valid list (got (1,))"),
    (None, 5, "the value is not None: Input should be None (got 5)"),
    (list[int], ["1"], "the value is not list[int]: [0]: Input should be a valid integer (got '1')"),
    (datetime, "2024-05-01", "the value is not datetime: Input should be a valid datetime (got '2024-05-01')"),
    (Aliased, {}, "the value is not Aliased: amountCents: Field required"),
    (Aliased, None, "Input should be a valid dictionary or instance of Aliased (got None)"),
    (Order, LINE, "Input should be a valid dictionary or instance of Order (got Line(sku='a', price=Decimal"),
    (Annotated[int, Field(gt=5)], 5, "Input should be greater than 5 (got 5)"),
]


@pytest.mark.parametrize(("annotation", "value", "message"), WRONG_TYPE, ids=short_id)
def test_a_value_of_another_type_is_refused_with_the_reason(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(PayloadError) as caught:
        ValueType(annotation).encode(value)
    assert message in caught.value.message


def test_several_problems_become_a_list_and_very_many_are_counted() -> None:
    with pytest.raises(PayloadError) as caught:
        ValueType(Line).encode({"price": "x"})
    assert caught.value.message.splitlines() == [
        "the value is not Line: ",
        "  - sku: Field required",
        "  - price: Input should be a valid decimal (got 'x')",
        "  - bought: Field required",
    ]
    with pytest.raises(PayloadError, match="and 80 more problems"):
        ValueType(list[int]).encode(["x"] * 100)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def cyclic() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


class BadRepr:
    def __repr__(self) -> str:
        raise BaseException("no repr")

    __str__ = __repr__


UNSTORABLE: list[tuple[str, Any, str]] = [
    ("nan", math.nan, "is nan, which JSON does not have"),
    ("inf", math.inf, "is inf"),
    ("minus inf", -math.inf, "is -inf"),
    ("2**70", 2**70, "beyond 64 bits"),
    ("5000 digits", 10**5000, ""),
    ("surrogate", "\ud800", "half of a surrogate pair"),
    ("surrogate key", {"\ud800": 1}, "half of a surrogate pair"),
    ("int key", {1: 2}, "is not a"),
    ("deep", nested(150), "nested deeper than"),
    ("very deep", nested(50_000), "nested deeper than"),
    ("cyclic", cyclic(), ""),
    ("bytes", b"x", "is a builtins.bytes"),
    ("datetime", {"at": WHEN}, "$.at is a datetime.datetime"),
    ("decimal", Decimal(1), "is a decimal.Decimal"),
    ("set", {1}, "is a builtins.set"),
    ("lambda", lambda: 1, "is a builtins.function"),
    ("generator", (i for i in [1]), "is a builtins.generator"),
    ("endless", itertools.count(), "is a itertools.count"),
    ("bad repr", BadRepr(), "BadRepr"),
    ("exception", ValueError(1), "is a builtins.ValueError"),
    ("class", int, "is a builtins.type"),
]


@pytest.mark.parametrize(("value", "message"), [row[1:] for row in UNSTORABLE], ids=[row[0] for row in UNSTORABLE])
def test_what_json_cannot_carry_is_refused_in_a_plain_value(value: Any, message: str) -> None:
    with pytest.raises(PayloadError) as caught:
        ValueType(Any).encode(value)
    assert caught.value.message.startswith("the value cannot be stored: the value at $")
    assert message in caught.value.message


FINE_IN_A_MODEL = {"bytes", "datetime", "decimal", "set", "int key"}
"""pydantic writes these as JSON by itself."""


@pytest.mark.parametrize(("name", "value"), [row[:2] for row in UNSTORABLE], ids=[row[0] for row in UNSTORABLE])
def test_a_field_of_any_type_refuses_the_same_or_writes_json(name: str, value: Any) -> None:
    kind = ValueType(Open)
    if name in FINE_IN_A_MODEL:
        assert kind.encode(Open(x=value)).data
        return
    with pytest.raises(PayloadError):
        kind.encode(Open(x=value))


def test_nan_in_a_model_is_refused_with_its_path_and_not_stored_as_null() -> None:
    with pytest.raises(PayloadError, match=r"the value at \$\.y is nan"):
        ValueType(Open).encode(Open(y=math.nan))
    with pytest.raises(PayloadError, match=r"the value at \$\[0\]\.x\[1\] is inf"):
        ValueType(list[Open]).encode([Open(x=[1, math.inf])])
    with pytest.raises(PayloadError, match="nan"):
        ValueType(list[float]).encode([math.nan])


def test_an_endless_iterator_inside_a_model_is_not_read() -> None:
    with pytest.raises(PayloadError, match=r"\$\.x\[0\] is a itertools.count, which may never end; store a list"):
        ValueType(Open).encode(Open(x=[itertools.count()]))


@pytest.mark.parametrize("depth", [1, 50, 98])
def test_nesting_within_the_limit_is_stored(depth: int) -> None:
    assert round_trip(Any, nested(depth)) == nested(depth)


def test_a_megabyte_is_stored_as_a_blob() -> None:
    value = {"data": "x" * 1024 * 1024}
    payload = ValueType(Any).encode(value)
    assert payload.inline is None
    assert payload.sha256 is not None
    assert ValueType(dict).decode(payload.data or b"") == value


def test_a_value_over_the_limit_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "MAX_BYTES", 100)
    for annotation, value in ((Any, "x" * 98), (Row, {"a": 1, "b": ["x" * 84]}), (Open, {"x": "x" * 83})):
        size = len(ValueType(annotation).encode(value).data or b"")
        assert size == 100
    with pytest.raises(PayloadError, match="takes 101 bytes; the limit is 100"):
        ValueType(Any).encode("x" * 99)
    with pytest.raises(PayloadError, match="takes 101 bytes"):
        ValueType(Open).encode({"x": "x" * 84})


def test_a_changed_model_is_checked_again() -> None:
    order = Aliased(amountCents=1)
    order.amount = "abc"  # type: ignore[assignment]
    with pytest.raises(PayloadError, match="amountCents: Input should be a valid integer"):
        ValueType(Aliased).encode(order)
    order.amount = object()  # type: ignore[assignment]
    with pytest.raises(PayloadError, match="cannot be stored as Aliased: PydanticSerializationError"):
        ValueType(Aliased).encode(order)
    point = Point(1)
    point.x = "abc"  # type: ignore[assignment]
    with pytest.raises(PayloadError, match="x: Input should be a valid integer"):
        ValueType(Point).encode(point)


def test_an_alias_that_cannot_be_read_back_fails_where_it_is_written() -> None:
    class OneWay(BaseModel):
        amount: int = Field(validation_alias="amountIn", serialization_alias="amountOut")

    with pytest.raises(PayloadError, match="amountIn: Field required"):
        ValueType(OneWay).encode(OneWay.model_validate({"amountIn": 1}))


def test_a_type_that_pydantic_cannot_read_back_fails_where_it_is_written() -> None:
    with pytest.raises(PayloadError, match=r"Input should be <Colour\.RED"):
        ValueType(Literal[Colour.RED]).encode(Colour.RED)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (str | date, date(2024, 5, 1), "the value at $ is a date, but would be read back as a str"),
        (list[str | date], ["x", date(2024, 5, 1)], "the value at $[1] is a date, but would be read back as a str"),
        (dict[str, float | Decimal], {"a": Decimal(1)}, None),
    ],
)
def test_a_union_that_json_cannot_tell_apart_is_refused(annotation: Any, value: Any, message: str | None) -> None:
    kind = ValueType(annotation)
    if message is None:
        assert kind.decode(kind.encode(value).data or b"") == value
        return
    with pytest.raises(PayloadError, match=re.escape(message)):
        kind.encode(value)


def test_a_union_beside_a_field_of_any_type_is_stored() -> None:
    class Mixed(BaseModel):
        anything: Any
        number: int | str

    assert round_trip(Mixed, Mixed(anything=(1, 2), number="1")) == Mixed(anything=[1, 2], number="1")


def test_computed_fields_are_not_stored_and_do_no_harm() -> None:
    class Area(BaseModel):
        model_config = ConfigDict(extra="forbid")
        width: int

        @computed_field  # type: ignore[prop-decorator]
        @property
        def square(self) -> int:
            return self.width**2

    assert ValueType(Area).encode(Area(width=3)) == Payload.of(b'{"width":3}')
    assert round_trip(Area, Area(width=3)).square == 9


def test_validators_of_the_user_that_raise_anything_become_payload_errors() -> None:
    class Touchy(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def check(cls, value: int) -> int:
            raise RuntimeError("the validator broke")

    with pytest.raises(PayloadError, match="cannot be stored as Touchy: RuntimeError: the validator broke"):
        ValueType(Touchy).encode({"x": 1})
    with pytest.raises(PayloadError, match="cannot be read as Touchy: RuntimeError"):
        ValueType(Touchy).decode(b'{"x":1}')


def test_private_attributes_are_not_stored() -> None:
    class WithPrivate(BaseModel):
        x: int
        _cache: str = PrivateAttr("y")

    assert ValueType(WithPrivate).encode(WithPrivate(x=1)) == Payload.of(b'{"x":1}')


class Masked(BaseModel):
    inner: list[SecretStr]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (SecretStr, "a pydantic SecretStr is written as"),
        (Masked, "a pydantic SecretStr is written as"),
        (Iterable[int], "an iterator may never end"),
        (dict[str, Iterable[int]], "an iterator may never end"),
        (BadRepr, "values of type BadRepr cannot be stored: Unable to generate"),
    ],
)
def test_types_that_cannot_be_stored_are_refused_when_defined(annotation: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        ValueType(annotation)
    assert message in str(caught.value)


def test_decoding_something_else_is_a_payload_error() -> None:
    with pytest.raises(PayloadError, match="the value is not Row: a: Field required"):
        ValueType(Row).decode(b'{"b":[]}')
    with pytest.raises(PayloadError, match="the value is not dict: Input should be a valid dictionary"):
        ValueType(dict).decode(b"[]")
    with pytest.raises(PayloadError, match="cannot be read as dict"):
        ValueType(dict).decode(b"{broken")


def test_the_json_form_of_a_value_is_taken_where_that_is_asked_for() -> None:
    kind = ValueType(date)
    assert kind.encode_loosely("2024-05-01") == kind.encode(date(2024, 5, 1))
    with pytest.raises(PayloadError, match="Input should be a valid date"):
        kind.encode_loosely("tomorrow")
    with pytest.raises(PayloadError, match="Input should be a valid date"):
        kind.encode("2024-05-01")


def test_schemas_tell_input_from_output() -> None:
    assert ValueType(Any).schema() == {}
    assert ValueType(Order).schema("validation") != {}
    assert ValueType(Row).schema()["properties"]["a"] == {"title": "A", "type": "integer"}


def test_keys_are_stored_in_one_order() -> None:
    assert ValueType(dict).encode({"b": 1, "a": 2}) == ValueType(dict).encode({"a": 2, "b": 1})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(JSON)
def test_any_json_value_comes_back_equal(value: Any) -> None:
    assert round_trip(Any, value) == value
    assert round_trip(Open, Open(x=value)) == Open(x=value)


@given(
    st.builds(
        Line,
        sku=st.text(),
        price=st.decimals(allow_nan=False, allow_infinity=False),
        bought=st.datetimes(timezones=st.just(UTC)),
        tags=st.sets(st.text(max_size=5), max_size=3),
    )
)
def test_any_model_comes_back_equal(line: Line) -> None:
    assert round_trip(Line, line) == line


@given(st.lists(st.fixed_dictionaries({"a": st.integers(-(2**63), 2**63 - 1), "b": st.lists(st.text())})))
def test_any_typed_dict_comes_back_equal(rows: list[Any]) -> None:
    assert round_trip(list[Row], rows) == rows


@given(st.binary(), st.dictionaries(st.integers(), st.binary()))
def test_any_bytes_come_back_equal(raw: bytes, table: dict[int, bytes]) -> None:
    assert round_trip(bytes, raw) == raw
    assert round_trip(dict[int, bytes], table) == table
