"""Tells which JSON shapes a type is written as and which it can be read from, to refuse what can never fit.

Only what is plain is told; for everything else (validators, serialisers, enums, generics of the user's) the
answer is every shape. A connection is refused only if the two sets have nothing in common.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Shapes = frozenset[str]

ALL: Shapes = frozenset({"null", "bool", "int", "float", "str", "array", "object"})
_LENIENT: Shapes = frozenset({"bool", "int", "float", "str"})
_ARRAYS = frozenset({"list", "tuple", "set", "frozenset"})
_SCALARS: Mapping[str, str] = {"none": "null", "bool": "bool", "int": "int", "float": "float", "str": "str"}
_CLASSES: Mapping[str, str] = {"model": "model-fields", "dataclass": "dataclass-args"}
"""Kind of class -> what stands inside its schema if no validator of the user's does."""


def written(schema: Mapping[str, Any]) -> Shapes:
    """The shapes that values of a type can have when they are stored. `schema`: pydantic's, of the type."""
    kind = schema["type"]
    if "serialization" in schema:
        return ALL
    if kind in _SCALARS:
        return frozenset({_SCALARS[kind]})
    if kind == "nullable" or kind == "union":
        return _of_choices(schema, written)
    return _of_container(schema)


def readable(schema: Mapping[str, Any]) -> Shapes:
    """The shapes from which a value of a type can be read."""
    kind = schema["type"]
    if "serialization" in schema:
        return ALL
    if kind in _SCALARS:
        return _of_scalar(schema)
    if kind == "function-after":
        return readable(schema["schema"])
    if kind == "nullable" or kind == "union":
        choices = _of_choices(schema, readable)
        # In company of a class, scalars are read leniently: "3" for an int.
        is_lenient = not choices <= _LENIENT | {"null"} and choices & _LENIENT
        return choices | _LENIENT if is_lenient else choices
    return _of_container(schema)


def _of_scalar(schema: Mapping[str, Any]) -> Shapes:
    kind = schema["type"]
    if schema.get("strict") is False or schema.get("coerce_numbers_to_str"):
        return ALL
    return frozenset({"int", "float"}) if kind == "float" else frozenset({_SCALARS[kind]})


def _of_choices(schema: Mapping[str, Any], shapes: Callable[[Mapping[str, Any]], Shapes]) -> Shapes:
    if schema["type"] == "nullable":
        return shapes(schema["schema"]) | {"null"}
    choices = (choice[0] if isinstance(choice, tuple) else choice for choice in schema["choices"])
    return frozenset().union(*map(shapes, choices))


def _of_container(schema: Mapping[str, Any]) -> Shapes:
    kind = schema["type"]
    if kind in _ARRAYS:
        return frozenset({"array"})
    if kind == "dict" or kind == "typed-dict":
        return frozenset({"object"})
    inside = _CLASSES.get(kind)
    is_plain = inside is not None and schema["schema"]["type"] == inside
    if is_plain and not schema.get("root_model") and not schema.get("custom_init"):
        return frozenset({"object"})
    return ALL
