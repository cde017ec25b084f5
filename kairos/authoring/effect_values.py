"""What goes into an effect and what comes out of it, as values that can be stored.

Results are as strict as outputs of steps. Arguments are only looked at, to tell one call from another: whatever
JSON does not have is written as its type.
"""

from __future__ import annotations

import base64
import functools
import math
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from kairos.authoring.display import clean, type_name
from kairos.authoring.redaction import Redactor
from kairos.authoring.secrets import Secret
from kairos.authoring.values import ValueType
from kairos.domain import canonical
from kairos.domain.payload import Payload
from kairos.errors import DefinitionError

MAX_ARGUMENTS = 64 * 1024
"""Bytes of arguments that are kept; longer ones are kept as their hash."""
_DEEPEST = 30
_FAR_ENOUGH = 50
_ANYTHING = ValueType(Any)


def arguments_of(args: tuple[Any, ...], kwargs: Mapping[str, Any], redactor: Redactor) -> Payload | None:
    """What a function is called with, as JSON: `{"args": [...], "kwargs": {...}}`; None if with nothing.

    The same values give the same bytes in every process. Never raises.
    """
    if not args and not kwargs:
        return None
    value: dict[str, Any] = {}
    if args:
        value["args"] = [plain(item) for item in args]
    if kwargs:
        value["kwargs"] = {name: plain(item) for name, item in kwargs.items()}
    return stored(value, redactor)


def stored(value: Any, redactor: Redactor) -> Payload:
    """A plain JSON value as a payload, redacted and bounded."""
    if redactor.is_active:
        value = redactor.json(value)
    raw = canonical.encode_trusted(value)
    if len(raw) > MAX_ARGUMENTS:
        raw = canonical.encode_trusted({"$sha256": sha256(raw).hexdigest(), "$size": len(raw)})
    return Payload.of(raw)


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as plain JSON, without running any code of the user's."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return _text(value)
    if kind is int:
        return value if -(2**63) <= value < 2**64 else str(value)
    if kind is float:
        return value if math.isfinite(value) else repr(value)
    if depth > _DEEPEST:
        return _label(value)
    if kind is dict:
        return {_key(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item, depth + 1) for item in value), key=canonical.encode_trusted)
    return _object(value, depth)


def _object(value: Any, depth: int) -> Any:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if isinstance(value, Enum):
        return plain(value.value, depth + 1)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID | Decimal | PurePath):
        return _text(str(value))
    if isinstance(value, Secret):
        return {"$secret": _text(value.reference)}
    if isinstance(value, BaseModel):
        return {_key(name): plain(item, depth + 1) for name, item in vars(value).items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name, None), depth + 1) for f in fields(value)}
    if isinstance(value, str | int | float):  # a subclass: by its plain value
        base = str if isinstance(value, str) else int if isinstance(value, int) else float
        return plain(base.__add__(base(), value), depth + 1)  # type: ignore[operator]
    return _label(value)


def _key(key: Any) -> str:
    return _text(key) if type(key) is str else _text(canonical.encode_trusted(plain(key, _DEEPEST)).decode())


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _label(value: Any) -> dict[str, str]:
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
        return {"$function": clean(f"{value.__module__}.{value.__qualname__}", 200)}
    return {"$type": clean(type_name(type(value)), 200)}


def returns_of(fn: Callable[..., Any], owner: str) -> ValueType:
    """The type by which the result of `fn` is stored and read back: its return annotation, or any JSON value.

    Raises:
        DefinitionError: values of that type cannot be stored.
    """
    body = _function(fn)
    annotation = body if isinstance(body, type) else _return_annotation(body)
    if annotation is Any:
        return _ANYTHING
    if typing.get_origin(annotation) in (Awaitable, Coroutine):
        annotation = typing.get_args(annotation)[-1]
    try:
        try:
            return _type_of(annotation)
        except TypeError:  # an annotation that cannot be hashed
            return ValueType(annotation)
    except DefinitionError as exc:
        raise DefinitionError(f"{owner}: {exc.message}", hint=_RETURN_DATA) from exc


_RETURN_DATA = "Call a function of yours that returns what you need of it: a dict, a text, a model."


@functools.lru_cache(maxsize=1024)
def _type_of(annotation: Any) -> ValueType:
    return ValueType(annotation)


def _function(fn: Any) -> Any:
    for _ in range(_FAR_ENOUGH):
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif isinstance(fn, types.MethodType):
            fn = fn.__func__
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        else:
            break
    if isinstance(fn, type | types.FunctionType | types.BuiltinFunctionType):
        return fn
    return getattr(type(fn), "__call__", fn)  # noqa: B004


def _return_annotation(body: Any) -> Any:
    try:
        annotation = body.__annotations__["return"]
        if isinstance(annotation, str):
            # By itself: a parameter whose type is not at hand at run time does not matter here.
            alone = types.SimpleNamespace(__annotations__={"return": annotation})
            names = typing.get_type_hints(alone, getattr(body, "__globals__", {}), _enclosed(body))
            return names["return"]
    except Exception:
        return Any  # none, or a name that exists for type checkers only: then by what it is
    return type(None) if annotation is None else annotation


def _enclosed(body: Any) -> dict[str, Any]:
    """Names of the functions around it that it uses itself: types that are defined there."""
    cells = zip(getattr(body, "__code__").co_freevars, body.__closure__ or (), strict=False)  # noqa: B009
    found = {}
    for name, cell in cells:
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found
