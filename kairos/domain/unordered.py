"""Puts what came out of a set into an order: two processes walk the same set differently, and JSON has only lists.

Owns: which lists of a JSON value are sets, by its JSON schema (`uniqueItems`), and the order they are kept in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def sort_sets(value: Any, schema: Schema) -> Any:
    """`value`, with each list that stands for a set sorted by the JSON text of its items.

    Where the schema allows several shapes for one place, and more than one of them is a list (or more than one an
    object), that place is left as it is: there the order may mean something.
    """
    return _sorted(value, schema, schema.get("$defs", {}))


def has_sets(schema: Schema) -> bool:
    """Whether any place of the schema is a set."""
    stack: list[Any] = [schema]
    while stack:
        item = stack.pop()
        if isinstance(item, Mapping):
            if item.get("uniqueItems") is True:
                return True
            stack += item.values()
        elif isinstance(item, list):
            stack += item
    return False


def _sorted(value: Any, schema: Any, defs: Schema) -> Any:
    if not isinstance(value, dict | list):
        return value
    found = _shape(schema, defs, "array" if isinstance(value, list) else "object")
    if found is None:
        return value
    if isinstance(value, list):
        first = found.get("prefixItems", ())
        rest = found.get("items")
        items = [_sorted(item, first[i] if i < len(first) else rest, defs) for i, item in enumerate(value)]
        return sorted(items, key=_text) if found.get("uniqueItems") is True else items
    named, others = found.get("properties", {}), found.get("additionalProperties")
    return {name: _sorted(inner, named.get(name, others), defs) for name, inner in value.items()}


def _text(item: Any) -> str:
    return json.dumps(item, sort_keys=True)


def _shape(schema: Any, defs: Schema, kind: str) -> Schema | None:
    """The one schema for this kind of value in a place; None if there is none, or several."""
    found: list[Schema] = []
    stack, followed = [schema], set[str]()
    while stack:
        item = stack.pop()
        if not isinstance(item, Mapping):
            continue
        reference = item.get("$ref")
        if isinstance(reference, str) and reference not in followed:
            followed.add(reference)
            stack.append(defs.get(reference.removeprefix("#/$defs/")))
        for several in ("anyOf", "oneOf", "allOf"):
            stack += item.get(several, ())
        if item.get("type") == kind:
            found.append(item)
    return found[0] if len(found) == 1 else None
