"""Fills in what a JSON schema declares as defaults, for inputs that no type of Python's has seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def fill_defaults(value: Any, schema: Mapping[str, Any]) -> Any:
    """`value` with the defaults of absent properties, in objects and lists at any depth.

    Follows `properties`, `items` and `$ref` into `$defs`; what is only one of several choices stays as it is.
    """
    return _fill(value, schema, schema.get("$defs", {}))


def _fill(value: Any, schema: Any, shared: Mapping[str, Any]) -> Any:
    if not isinstance(schema, Mapping):
        return value
    if "$ref" in schema:
        return _fill(value, shared.get(str(schema["$ref"]).removeprefix("#/$defs/")), shared)
    if isinstance(value, dict) and isinstance(properties := schema.get("properties"), Mapping):
        given = {name: _fill(item, properties.get(name), shared) for name, item in value.items()}
        return {
            name: p["default"] for name, p in properties.items() if isinstance(p, Mapping) and "default" in p
        } | given
    if isinstance(value, list | tuple) and "items" in schema:
        return [_fill(item, schema["items"], shared) for item in value]
    return value
