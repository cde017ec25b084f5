"""Defaults of a JSON schema, filled into what was given."""

from __future__ import annotations

from typing import Any

import pytest

from kairos.domain.defaults import fill_defaults

LINE = {"type": "object", "properties": {"sku": {"type": "string"}, "qty": {"type": "integer", "default": 1}}}
TREE = {"type": "object", "properties": {"kids": {"items": {"$ref": "#/$defs/Tree"}, "default": []}}}
ORDER: dict[str, Any] = {
    "$defs": {"Line": LINE, "Tree": TREE},
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "first": {"$ref": "#/$defs/Line"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
        "tree": {"$ref": "#/$defs/Tree"},
    },
}

ROWS: list[tuple[Any, Any]] = [
    ({"id": "1"}, {"id": "1", "note": None}),
    ({"note": "x", "more": 1}, {"note": "x", "more": 1}),
    ({"first": {"sku": "a"}}, {"note": None, "first": {"sku": "a", "qty": 1}}),
    ({"lines": [{}, {"qty": 2}, "odd"]}, {"note": None, "lines": [{"qty": 1}, {"qty": 2}, "odd"]}),
    ({"tree": {"kids": [{}]}}, {"note": None, "tree": {"kids": [{"kids": []}]}}),
    ([1], [1]),
    ("x", "x"),
    (None, None),
]


@pytest.mark.parametrize(("given", "filled"), ROWS, ids=str)
def test_absent_properties_get_their_defaults(given: Any, filled: Any) -> None:
    assert fill_defaults(given, ORDER) == filled


@pytest.mark.parametrize(
    "schema", [{}, {"type": "null"}, {"$ref": "#/$defs/Gone"}, {"properties": {"a": True}, "items": False}], ids=str
)
def test_a_schema_that_says_nothing_changes_nothing(schema: dict[str, Any]) -> None:
    assert fill_defaults({"a": [1]}, schema) == {"a": [1]}
