"""A form made from a JSON schema and a value: what to type into, and what was typed as a value again.

What a form cannot show well (lists, unions, values of any shape) is a piece of JSON within it. A schema that says
nothing of what is inside, such as that of a plain `dict`, is completed by what the value has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

MAX_FIELDS: Final = 60
"""Controls of one value; a value that needs more is edited as JSON."""
MAX_DEPTH: Final = 4
MAX_TEXT: Final = 20_000
"""Characters of one control."""
LONG: Final = 70
MISSING: Final = object()
"""Stands for a place that has no value."""

Key = str | int
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_BOUNDS: Final = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "more than {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "less than {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("pattern", "matches {}"),
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
)


@dataclass(frozen=True, slots=True)
class Field:
    """One control, or a group of them.

    Attributes:
        kind: `text`, `long`, `number`, `integer`, `boolean`, `choice`, `json`, `group`, or `fixed` (too long to edit).
        text: what stands in it; a boolean or choice as JSON. Empty if the value is null or not there.
        old: the value that it had; `MISSING` if it had none.
        choices: what can be chosen, as JSON.
        note: what the schema says beside the type.
        default: what is taken if nothing is given, as JSON.
    """

    keys: tuple[Key, ...]
    kind: str
    text: str = ""
    old: Any = MISSING
    is_null: bool = False
    can_be_null: bool = False
    is_required: bool = False
    choices: tuple[str, ...] = ()
    note: str = ""
    default: str = ""
    children: tuple[Field, ...] = ()
    error: str = ""

    @property
    def label(self) -> str:
        """Its name; empty for the whole value."""
        return str(self.keys[-1]) if self.keys else ""

    @property
    def pointer(self) -> str:
        """Where it stands, as a JSON pointer."""
        return "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in self.keys)

    @property
    def is_absent(self) -> bool:
        """Whether the value did not have it."""
        return self.old is MISSING

    def walk(self) -> Iterator[Field]:
        """It, and all inside."""
        yield self
        for child in self.children:
            yield from child.walk()


def describe(schema: Any, value: Any) -> Field | None:
    """The form of a value (`MISSING`: of a new one). None if it is better edited as JSON."""
    root = _field((), schema if isinstance(schema, Mapping) else {}, value, _shared(schema), True)
    if root.kind != "group" and value is not MISSING and root.kind in ("json", "fixed"):
        return None
    if root.kind == "json" or sum(1 for _ in root.walk()) > MAX_FIELDS:
        return None
    return root


def _shared(schema: Any) -> Mapping[str, Any]:
    found = schema.get("$defs", {}) if isinstance(schema, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def _field(keys: tuple[Key, ...], schema: Any, value: Any, shared: Mapping[str, Any], is_required: bool) -> Field:
    schema, can_be_null = _plain(schema, shared)
    about: dict[str, Any] = {
        "old": value,
        "is_null": value is None,
        "can_be_null": can_be_null or value is None,
        "is_required": is_required,
        "note": _note(schema),
        "default": written(schema["default"]) if "default" in schema else "",
    }
    choices = _choices(schema)
    if choices:
        return Field(keys, "choice", "" if value in (None, MISSING) else written(value), choices=choices, **about)
    kind = _kind(schema, value)
    if kind == "object" and len(keys) < MAX_DEPTH and (value is MISSING or isinstance(value, dict)):
        inside: Mapping[str, Any] = value if isinstance(value, dict) else {}
        children = _children(keys, schema, inside, shared)
        if children:
            return Field(keys, "group", children=children, **about)
    if not _is_of(kind, value):
        return _json(keys, value, about)
    if value is MISSING or value is None:
        return Field(keys, "text" if kind == "string" else kind, "", **about)
    if kind == "string":
        if len(value) > MAX_TEXT:
            return Field(keys, "fixed", f"{len(value):,} characters", **about)
        is_long = len(value) > LONG or not value.isprintable()
        return Field(keys, "long" if is_long else "text", value, **about)
    return Field(keys, kind, written(value), **about)


def _is_of(kind: str, value: Any) -> bool:
    """Whether a control of this kind can show the value."""
    if kind not in _TYPES:
        return False
    if value is MISSING or value is None:
        return True
    return isinstance(value, _TYPES[kind]) and (kind == "boolean") == isinstance(value, bool)


def _json(keys: tuple[Key, ...], value: Any, about: Mapping[str, Any]) -> Field:
    text = "" if value is MISSING or value is None else pretty(value)
    if len(text) > MAX_TEXT:
        return Field(keys, "fixed", f"{len(text):,} characters of JSON", **about)
    return Field(keys, "json", text, **about)


def _plain(schema: Any, shared: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """A schema without references and without null; and whether null was one of its choices."""
    can_be_null = False
    for _ in range(20):
        if not isinstance(schema, Mapping):
            return {}, can_be_null
        if isinstance(schema.get("$ref"), str):
            schema = shared.get(schema["$ref"].removeprefix("#/$defs/"))
            continue
        several = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if isinstance(several, list):
            rest = [one for one in several if not (isinstance(one, Mapping) and one.get("type") == "null")]
            can_be_null |= len(rest) < len(several)
            if len(rest) != 1 or not isinstance(rest[0], Mapping):
                kept = {name: schema[name] for name in ("default", "description", "title") if name in schema}
                return kept, can_be_null
            outer = {name: schema[name] for name in ("default", "description") if name in schema}
            schema = {**rest[0], **outer}
            continue
        if isinstance(schema.get("type"), list):
            types = [name for name in schema["type"] if name != "null"]
            can_be_null |= len(types) < len(schema["type"])
            schema = {**schema, "type": types[0] if len(types) == 1 else None}
        return schema, can_be_null
    return {}, can_be_null


def _kind(schema: Mapping[str, Any], value: Any) -> str:
    """`object`, `string`, `integer`, `number`, `boolean`, or nothing; by the value if the schema is mute."""
    declared = schema.get("type")
    if isinstance(declared, str):
        return declared if declared in ("object", "string", "integer", "number", "boolean") else ""
    if isinstance(value, bool):
        return "boolean"
    known = {dict: "object", str: "string", int: "integer", float: "number"}
    return known.get(type(value), "")


def _children(
    keys: tuple[Key, ...], schema: Mapping[str, Any], value: Mapping[str, Any], shared: Mapping[str, Any]
) -> tuple[Field, ...]:
    declared = schema.get("properties")
    properties = declared if isinstance(declared, Mapping) else {}
    required = schema.get("required")
    names = dict.fromkeys((*properties, *value))
    if len(names) > MAX_FIELDS:
        return ()
    needed = set(required) if isinstance(required, list) and all(isinstance(r, str) for r in required) else set()
    return tuple(
        _field((*keys, name), properties.get(name, {}), value.get(name, MISSING), shared, name in needed)
        for name in names
    )


def _choices(schema: Mapping[str, Any]) -> tuple[str, ...]:
    if "const" in schema:
        return (written(schema["const"]),)
    options = schema.get("enum")
    if not isinstance(options, list) or not 0 < len(options) <= 200:
        return ()
    return tuple(written(option) for option in options if option is not None)


def _note(schema: Mapping[str, Any]) -> str:
    parts = [str(schema["format"])] if isinstance(schema.get("format"), str) else []
    parts += [how.format(schema[name]) for name, how in _BOUNDS if isinstance(schema.get(name), str | int | float)]
    if isinstance(schema.get("description"), str):
        parts.append(" ".join(schema["description"].split()))
    text = ", ".join(parts)
    return text if len(text) <= 160 else text[:159] + "…"


def written(value: Any) -> str:
    """A value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


def pretty(value: Any) -> str:
    """A value as JSON for people."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def parse(text: str) -> Any:
    """JSON, without what only Python takes for it. Raises ValueError, with what is wrong and where."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as exc:
        raise ValueError(f"not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}") from None
    except RecursionError:
        raise ValueError("not JSON: it is too deep") from None


def _refuse(name: str) -> None:
    raise ValueError(f"JSON does not have {name}")


def retyped(field: Field, texts: Mapping[str, str], nulls: Mapping[str, str]) -> Field:
    """The form with what was typed into it, by pointer; what was typed wrongly has an `error`.

    `nulls`: pointers of what is null now. What is not in `texts` stays as it was.
    """
    if field.kind == "group":
        return replace(field, children=tuple(retyped(child, texts, nulls) for child in field.children))
    if field.kind == "fixed" or field.pointer not in texts:
        return field
    text = _lines(texts[field.pointer])
    # Whoever types into a field that is null means what was typed.
    is_null = field.pointer in nulls and not (field.is_null and text and text != field.text)
    changed = replace(field, text=text, is_null=is_null)
    try:
        value_of(changed)
    except ValueError as exc:
        return replace(changed, error=str(exc))
    return changed if changed.text != _lines(field.text) or changed.is_null != field.is_null else field


def value_of(field: Field) -> Any:
    """The value that a form stands for, `MISSING` if none. Raises ValueError for what was typed wrongly."""
    if field.kind == "group":
        found = {child.label: value for child in field.children if (value := value_of(child)) is not MISSING}
        return MISSING if not found and field.is_absent else found
    if field.is_null:
        return None
    if field.kind == "fixed" or field.text == _original(field):
        return field.old
    if field.kind in ("text", "long"):
        return MISSING if not field.text and field.is_absent else field.text
    if not field.text.strip():
        if field.is_absent or not field.is_required:
            return MISSING
        raise ValueError("a value is needed here")
    return _typed(field)


def _original(field: Field) -> str | None:
    """The text that a field of this value begins with."""
    if field.old is None or field.old is MISSING:
        return None
    if field.kind in ("text", "long"):
        return _lines(str(field.old))
    return pretty(field.old) if field.kind == "json" else written(field.old)


def _typed(field: Field) -> Any:
    text = field.text.strip()
    if field.kind == "integer":
        if not re.fullmatch(r"-?\d{1,300}", text):
            raise ValueError(f"a whole number is needed, not {text[:40]!r}")
        return int(text)
    if field.kind == "number":
        if not re.fullmatch(r"-?\d{1,300}(\.\d{1,300})?([eE][+-]?\d{1,3})?", text):
            raise ValueError(f"a number is needed, not {text[:40]!r}")
        return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
    if field.kind == "choice" and text not in field.choices:
        raise ValueError(f"{text[:40]} is not one of {', '.join(field.choices[:8])}")
    if field.kind == "boolean" and text not in ("true", "false"):
        raise ValueError(f"true or false is needed, not {text[:40]!r}")
    return parse(text)


def _lines(text: str) -> str:
    """As it was before a browser gave every line its own end."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def with_errors(field: Field, errors: Mapping[tuple[Key, ...], str]) -> Field:
    """The form with these errors at their places; an error inside of a piece of JSON stands at that piece."""
    if not errors:
        return field
    if field.kind == "group":
        own = errors.get(field.keys, "")
        return replace(field, error=own, children=tuple(with_errors(child, errors) for child in field.children))
    depth = len(field.keys)
    found = [
        (f"{'.'.join(map(str, keys[depth:]))}: " if keys[depth:] else "") + text
        for keys, text in errors.items()
        if keys[:depth] == field.keys
    ]
    return replace(field, error="; ".join(found)) if found else field
