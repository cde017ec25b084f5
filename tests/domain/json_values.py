"""Plain JSON values, things that only look like them, and what it means to come back unchanged."""

from __future__ import annotations

import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import orjson
from hypothesis import strategies as st

Pair = namedtuple("Pair", "a b")


class Text(str):
    """A str by inheritance."""


class Number(int):
    """An int by inheritance."""


class Ratio(float):
    """A float by inheritance."""


class Record(dict[str, Any]):
    """A dict by inheritance."""


class Sequence(list[Any]):
    """A list by inheritance."""


class Colour(Enum):
    RED = "red"


class Mood(StrEnum):
    GOOD = "good"


class Level(IntEnum):
    LOW = 1


@dataclass
class Point:
    x: int = 1


ODDITIES: dict[str, Any] = {
    "nan": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "2 to the 64": 2**64,
    "below minus 2 to the 63": -(2**63) - 1,
    "an int of 5000 digits": 10**5000,
    "half a pair": "\ud800",
    "the other half": "a\udfffb",
    "datetime": datetime(2026, 1, 1, tzinfo=UTC),
    "date": date(2026, 1, 1),
    "timedelta": timedelta(1),
    "UUID": UUID(int=1),
    "Decimal": Decimal("1.5"),
    "bytes": b"x",
    "bytearray": bytearray(b"x"),
    "memoryview": memoryview(b"x"),
    "set": {1},
    "complex": 1j,
    "Enum": Colour.RED,
    "StrEnum": Mood.GOOD,
    "IntEnum": Level.LOW,
    "dataclass": Point(),
    "namedtuple": Pair(1, 2),
    "OrderedDict": OrderedDict(a=1),
    "str subclass": Text("x"),
    "int subclass": Number(1),
    "float subclass": Ratio(1.5),
    "dict subclass": Record(a=1),
    "list subclass": Sequence([1]),
    "object": object(),
    "class": int,
    "function": len,
    "generator": (i for i in ()),
    "orjson fragment": orjson.Fragment(b"1"),
    "int key": {1: "x"},
    "float key": {1.5: "x"},
    "bool key": {True: "x"},
    "null key": {None: "x"},
    "tuple key": {(1,): "x"},
    "UUID key": {UUID(int=1): "x"},
    "datetime key": {datetime(2026, 1, 1, tzinfo=UTC): "x"},
    "str subclass as key": {Text("k"): "x"},
    "StrEnum key": {Mood.GOOD: "x"},
    "half a pair as key": {"\ud800": "x"},
}
"""Nothing here is a plain JSON value; orjson alone would change a third of them silently."""

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
plain_scalars = scalars.filter(lambda v: not (isinstance(v, float) and math.isinf(v)))


def _nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=4).map(tuple)
            | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=12,
    )


json_values = _nested(plain_scalars)
anything = _nested(plain_scalars | st.sampled_from(list(ODDITIES)).map(lambda name: ODDITIES[name]))


def same(before: Any, after: Any) -> bool:
    """Whether `after` is `before`, types and signs of zero included; a tuple may come back as a list."""
    if type(before) in (list, tuple):
        return type(after) is list and len(before) == len(after) and all(map(same, before, after))
    if type(before) is dict:
        return type(after) is dict and before.keys() == after.keys() and all(same(before[k], after[k]) for k in before)
    return type(before) is type(after) and before == after and str(before) == str(after)


def nest(containers: int, innermost: Any = None, *, shape: str = "list") -> Any:
    """A value within `containers` lists or dicts; `innermost=None` leaves the innermost one empty."""
    make = {"list": lambda v: [v], "dict": lambda v: {"k": v}, "tuple": lambda v: (v,)}[shape]
    value = innermost
    if innermost is None:
        value = {"list": [], "dict": {}, "tuple": ()}[shape]
        containers -= 1
    for _ in range(containers):
        value = make(value)
    return value
