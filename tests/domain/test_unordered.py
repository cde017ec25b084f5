"""Sets in values: the same bytes, in whatever order a process walks them; and lists stay as they are."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from kairos.domain.unordered import has_sets, sort_sets


class Tagged(BaseModel):
    tags: set[str]
    order: list[str] = []
    inner: dict[str, frozenset[int]] = {}
    child: Tagged | None = None


@dataclass
class Pair:
    left: set[int]
    right: tuple[str, set[str]] = field(default=("", set()))


def schema(kind: object) -> dict[str, object]:
    return TypeAdapter(kind).json_schema(mode="serialization")


@given(
    st.sets(st.text() | st.integers() | st.none() | st.booleans() | st.floats(allow_nan=False)),
    st.randoms(),
)
def test_whatever_the_order_it_comes_out_the_same(items: set[object], dice: random.Random) -> None:
    one, other = list(items), list(items)
    dice.shuffle(other)
    of_any = schema(set[object])
    assert repr(sort_sets(one, of_any)) == repr(sort_sets(other, of_any))
    assert len(sort_sets(one, of_any)) == len(one)


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        (set[int], [3, 1, 2], [1, 2, 3]),
        (list[int], [3, 1, 2], [3, 1, 2]),
        (list[set[str]], [["b", "a"], ["d", "c"]], [["a", "b"], ["c", "d"]]),
        (set[int] | None, [2, 1], [1, 2]),
        (set[int] | None, None, None),
        (set[int] | list[int], [2, 1], [2, 1]),
        (set[tuple[int, str]], [[2, "a"], [1, "b"]], [[1, "b"], [2, "a"]]),
        (dict[str, set[int]], {"z": [2, 1], "a": []}, {"z": [1, 2], "a": []}),
        (Tagged, {"tags": ["y", "x"], "order": ["y", "x"], "inner": {"k": [2, 1]}, "child": {"tags": ["q", "p"]}},
         {"tags": ["x", "y"], "order": ["y", "x"], "inner": {"k": [1, 2]}, "child": {"tags": ["p", "q"]}}),
        (Pair, {"left": [2, 1], "right": ["z", ["b", "a"]]}, {"left": [1, 2], "right": ["z", ["a", "b"]]}),
        (dict, {"tags": ["y", "x"]}, {"tags": ["y", "x"]}),
    ],
    ids=lambda item: str(item)[:20] if isinstance(item, list | dict) else None,
)  # fmt: skip
def test_only_what_is_a_set_is_sorted(kind: object, value: object, found: object) -> None:
    assert sort_sets(value, schema(kind)) == found
    assert has_sets(schema(kind)) == (kind not in (list[int], dict))


def test_a_value_that_does_not_fit_its_schema_is_left_as_it_is() -> None:
    assert sort_sets({"tags": 5, "more": [2, 1]}, schema(Tagged)) == {"tags": 5, "more": [2, 1]}
    assert sort_sets([2, 1], {"$ref": "#/$defs/gone"}) == [2, 1]
    assert sort_sets([2, 1], {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}) == [2, 1]
