"""Builds, for an annotation, the pydantic adapter and the functions between values and canonical bytes.

Three ways, from fast to thorough: types that one look can check; types whose checked values are plain JSON
already; and all others, which pydantic writes and which are read back at once to prove that they can be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from kairos.authoring.display import clean, type_name
from kairos.domain import canonical
from kairos.domain.unordered import sort_sets
from kairos.errors import DefinitionError, PayloadError

Encoder = Callable[[Any], bytes]
Loader = Callable[[bytes], Any]

_LENIENT = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")
_STRICT = ConfigDict(strict=True, **_LENIENT)
_EXACT: tuple[Any, ...] = (dict, list, str, int, float, bool, None)
"""Annotations that one look at the value's type can check."""
_BUILT_BY_CLASS = frozenset({"model", "dataclass", "typed-dict", "function-plain", "function-wrap", "custom-error"})
_OPEN = frozenset({"any", "is-instance", "is-subclass", "callable", "function-plain", "function-wrap"})
_NUMBERS = frozenset({"float", "decimal", "complex"})
_SETS = frozenset({"set", "frozenset"})
_UNIONS = frozenset({"union", "tagged-union"})
_NATIVE = frozenset({"str", "int", "float", "bool", "none", "any"})


def build_adapter(annotation: Any, label: str, names: dict[str, Any] | None) -> TypeAdapter[Any]:
    """The adapter of `annotation`; `label` names it in errors, `names` resolve forward references.

    Raises:
        DefinitionError: values of this type cannot be stored, or the type is not complete yet.
    """
    try:
        adapter = _adapter(annotation, _LENIENT)
        if not adapter.pydantic_complete:
            adapter.rebuild(raise_errors=True, _types_namespace=names or {})
        kinds = set(_kinds(adapter.core_schema))
        if not kinds & _BUILT_BY_CLASS:
            adapter = _adapter(annotation, _STRICT)
    except PydanticUserError as exc:
        first = str(exc).split("\n", 1)[0].split(". Set `arbitrary", 1)[0]
        raise DefinitionError(f"values of type {label} cannot be stored: {first}", hint=_STORABLE) from None
    if "generator" in kinds:
        raise DefinitionError(
            f"values of type {label} cannot be stored: an iterator may never end and is empty after one reading",
            hint="Use list[...].",
        )
    if _has_masked(json_schema(adapter, "serialization")):
        raise DefinitionError(
            f"values of type {label} cannot be stored: a pydantic SecretStr is written as '**********'",
            hint="Use a kairos.Secret: a reference that the step resolves where it runs.",
        )
    return adapter


_STORABLE = "Models, dataclasses, TypedDicts, enums, datetime, Decimal, UUID, bytes and generics of them can be."


def _adapter(annotation: Any, config: ConfigDict) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=config)
    except PydanticUserError as exc:
        if exc.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)  # a class of the user's: it brings its own configuration


def coders(annotation: Any, adapter: TypeAdapter[Any]) -> tuple[Encoder, Loader]:
    """How values of this annotation become bytes, and the other way round."""
    if any(annotation is exact for exact in _EXACT):
        kind = type(None) if annotation is None else annotation
        return _exact_encoder(kind, adapter), _exact_loader(kind, adapter)
    make = _native_encoder if _is_native(adapter.core_schema) else _general_encoder
    return make(adapter), adapter.validator.validate_json


def _exact_encoder(kind: type, adapter: TypeAdapter[Any]) -> Encoder:
    if kind is float:

        def encode_float(value: Any) -> bytes:
            return canonical.encode(value if type(value) is float else adapter.validate_python(value))

        return encode_float

    def encode(value: Any) -> bytes:
        return canonical.encode(value if type(value) is kind else adapter.validate_python(value))

    return encode


def _exact_loader(kind: type, adapter: TypeAdapter[Any]) -> Loader:
    def load(raw: bytes) -> Any:
        value = canonical.decode(raw)
        return value if type(value) is kind else adapter.validate_python(value)

    return load


def _native_encoder(adapter: TypeAdapter[Any]) -> Encoder:
    validate = adapter.validator.validate_python
    # Where everything has been checked by its type, the walk over the value has nothing left to find.
    write = canonical.encode if "any" in _kinds(adapter.core_schema) else canonical.encode_plain

    def encode(value: Any) -> bytes:
        return write(validate(value))

    return encode


def _general_encoder(adapter: TypeAdapter[Any]) -> Encoder:
    validate, load, dump = (
        adapter.validator.validate_python,
        adapter.validator.validate_json,
        adapter.serializer.to_python,
    )
    kinds = set(_kinds(adapter.core_schema))
    takes_anything = not kinds.isdisjoint(_OPEN)
    # Under a field of any type a tuple may become a list: there the type makes no promise to keep.
    is_union = not takes_anything and not kinds.isdisjoint(_UNIONS)
    takes_nan = takes_anything or not kinds.isdisjoint(_NUMBERS)
    sets = json_schema(adapter, "serialization") if not kinds.isdisjoint(_SETS) else None

    def encode(value: Any) -> bytes:
        checked = validate(value)
        if takes_anything:
            _refuse_iterators(checked)
        plain = dump(checked, mode="json", by_alias=True, round_trip=True, warnings=False)
        raw = canonical.encode_plain(plain if sets is None else sort_sets(plain, sets))
        if takes_nan and b"null" in raw:
            # pydantic writes NaN as null unless told otherwise: the value would come back changed.
            _refuse_nan(dump(checked, mode="python", by_alias=True, warnings=False))
        # A model that was changed after it was built, or an alias that only works in one direction, shows
        # here, in the step that made it, rather than in the step that reads it.
        back = load(raw)
        if is_union:
            _refuse_confusion(dump(checked, mode="python", warnings=False), dump(back, mode="python", warnings=False))
        return raw

    return encode


def _is_native(schema: Any) -> bool:
    """Whether validated values are plain JSON already, so that nothing has to be serialised."""
    kind = schema.get("type")
    if "serialization" in schema or schema.get("metadata", {}).get("pydantic_js_functions"):
        return False
    if kind in _NATIVE:
        return True
    if kind == "literal":
        return all(type(item) in (str, int, bool, type(None)) for item in schema["expected"])
    if kind == "nullable":
        return _is_native(schema["schema"])
    if kind == "list":
        return _is_native(schema.get("items_schema", {"type": "any"}))
    if kind == "dict":
        keys = schema.get("keys_schema", {})
        return keys.get("type") == "str" and _is_native(schema.get("values_schema", {"type": "any"}))
    if kind == "typed-dict":
        return not schema.get("computed_fields") and all(map(_is_native_field, schema["fields"].values()))
    return False


def _is_native_field(field: Any) -> bool:
    plain = not any(field.get(k) for k in ("validation_alias", "serialization_alias", "serialization_exclude"))
    return plain and _is_native(field["schema"])


def _kinds(schema: Any) -> Iterator[str]:
    """Every `type` in a core schema, at any depth."""
    stack, seen = [schema], set()
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            if isinstance(item.get("type"), str):
                yield item["type"]
            stack.extend(inner for key, inner in item.items() if key != "metadata")
        elif isinstance(item, list | tuple):
            stack.extend(item)


class _SchemaWriter(GenerateJsonSchema):
    """Says nothing about defaults that JSON cannot carry: they are left out."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default", "skipped-discriminator"}


def json_schema(adapter: TypeAdapter[Any], mode: JsonSchemaMode) -> dict[str, Any]:
    """The JSON schema, or `{}` if it has none."""
    try:
        schema = adapter.json_schema(mode=mode, schema_generator=_SchemaWriter)
        canonical.encode(schema)
    except Exception:
        return {}
    return schema


def _has_masked(schema: Any) -> bool:
    if isinstance(schema, dict):
        if schema.get("format") == "password" and schema.get("writeOnly"):
            return True
        return any(map(_has_masked, schema.values()))
    return isinstance(schema, list) and any(map(_has_masked, schema))


def _walk(value: Any) -> Iterator[tuple[Any, str]]:
    """Every part of `value`, with its path, each object once."""
    stack, seen = [(value, "$")], set()
    while stack:
        item, path = stack.pop()
        yield item, path
        if id(item) in seen:
            continue
        if isinstance(item, dict):
            inner: Any = ((v, f"{path}.{k}") for k, v in item.items() if type(k) is str)
        elif isinstance(item, list | tuple | set | frozenset):
            inner = ((v, f"{path}[{i}]") for i, v in enumerate(item))
        elif isinstance(item, BaseModel) or (is_dataclass(item) and hasattr(item, "__dict__")):
            inner = ((v, f"{path}.{k}") for k, v in vars(item).items())
        else:
            continue
        seen.add(id(item))
        stack.extend(inner)


def _refuse_iterators(value: Any) -> None:
    # pydantic would read an iterator to its end, which may never come.
    for item, path in _walk(value):
        if hasattr(type(item), "__next__"):
            raise _refuse(path, f"is a {type_name(type(item))}, which may never end; store a list")


def _refuse_nan(value: Any) -> None:
    for item, path in _walk(value):
        if isinstance(item, float) and not math.isfinite(item):
            raise _refuse(path, f"is {item!r}, which JSON does not have")


def _refuse_confusion(made: Any, read: Any) -> None:
    # `str | date` is the classic: as JSON both are text, and the first one that fits is read.
    pairs = [(made, read, "$")]
    while pairs:
        before, after, path = pairs.pop()
        if type(before) is not type(after):
            was, becomes = type(before).__name__, type(after).__name__
            raise _refuse(path, f"is a {was}, but would be read back as a {becomes}: as JSON the two look the same")
        if isinstance(before, dict):
            pairs += [(before[k], after[k], f"{path}.{k}") for k in before.keys() & after.keys()]
        elif isinstance(before, list | tuple):
            pairs += [(*pair, f"{path}[{i}]") for i, pair in enumerate(zip(before, after, strict=False))]


def _refuse(path: str, why: str) -> PayloadError:
    return PayloadError(f"the value at {clean(path, 200)} {why}", path=path)
