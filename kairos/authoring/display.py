"""Writes any value as bounded, clean text, for errors and locals.

It never runs the value's own code: a `__repr__` may raise, hang, ask a database, or print a secret. What is
not a plain value, a container, a dataclass, a model, an enum or an exception is shown by its type alone.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import pathlib
import re
import types
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from pydantic import BaseModel

from kairos.authoring.redaction import PLACEHOLDER, Redactor
from kairos.authoring.secrets import Secret

MAX_ITEMS = 20
_BEYOND = 1_024
"""What is cut off is looked at this far, so that nothing which a pattern would blank is cut in two."""
MAX_NESTING = 4
_TRUSTED = frozenset(
    {
        bool, type(None), float, complex, decimal.Decimal, fractions.Fraction, uuid.UUID, range, slice,
        datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone,
        pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath,
        type(...), type(NotImplemented), re.Pattern, Secret,
    }
)  # fmt: skip
_NAMED = frozenset({types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType})
_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    deque: ("deque([", "])"),
}


def show(value: object, limit: int, redactor: Redactor | None = None) -> str:
    """`value` as text of at most `limit` characters, blanked by the rules of `redactor`."""
    rules = redactor or Redactor()
    try:
        text = _written(value, rules, limit)
    except Exception:
        # Built to touch nothing of the user's; should something break all the same, the type must do.
        text = f"<{type_name(type(value))}>"
    return shorten(text, limit, rules)


def _written(value: object, rules: Redactor, limit: int) -> str:
    pieces: list[str] = []
    room = limit + max(rules.longest, _BEYOND)
    for piece in _pieces(value, rules, MAX_NESTING, limit):
        pieces.append(piece)
        room -= len(piece)
        if room < 0:
            break
    return "".join(pieces)


def shorten(text: str, limit: int, rules: Redactor) -> str:
    """Text of any length, blanked by `rules`, clean and cut."""
    reach = limit + max(rules.longest, _BEYOND)
    unseen = max(0, len(text) - reach)
    return clean(rules.text(text[:reach]), limit, unseen)


def clean(text: str, limit: int, unseen: int = 0) -> str:
    """Text that UTF-8 and Postgres can hold: no lone surrogates, no NUL; cut with a note of what is missing.

    `unseen`: characters that were cut off before.
    """
    if len(text) + unseen > limit:
        note = f"... ({len(text) + unseen - limit:,} more)"
        text = text[: max(0, limit - len(note))] + note
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")[:limit]


def type_name(cls: type) -> str:
    """Module and qualified name, without asking a metaclass of the user."""
    try:
        module = type.__getattribute__(cls, "__module__")
        name = type.__getattribute__(cls, "__qualname__")
    except Exception:
        return "<unknown type>"
    return f"{module}.{name}" if isinstance(module, str) else str(name)


def _pieces(value: object, rules: Redactor, nesting: int, limit: int) -> Iterator[str]:
    kind = type(value)
    if kind is str or kind is bytes or kind is bytearray:
        yield _show_text(value, rules, limit)  # type: ignore[arg-type]
    elif kind is int:
        yield repr(value) if value.bit_length() <= 512 else f"<int of {value.bit_length():,} bits>"  # type: ignore[attr-defined]
    elif kind in _TRUSTED:
        yield repr(value)
    elif issubclass(kind, type):
        yield f"<class {type_name(value)}>"  # type: ignore[arg-type]
    elif kind in _NAMED:
        yield f"<{kind.__name__} {value.__name__}>"  # type: ignore[attr-defined]
    elif nesting == 0:
        yield f"<{type_name(kind)}>"
    else:
        yield from _compound(value, kind, rules, nesting - 1, limit)


def _compound(value: Any, kind: type, rules: Redactor, nesting: int, limit: int) -> Iterator[str]:
    if issubclass(kind, dict):
        yield "{" if kind is dict else f"{kind.__name__}({{"
        yield from _joined(_items(dict.items(value), rules, nesting, limit), dict.__len__(value))
        yield "}" if kind is dict else "})"
    elif issubclass(kind, enum.Enum):
        yield f"<{kind.__name__}.{attributes(value).get('_name_')}>"
    elif issubclass(kind, str):
        yield _show_text(str.__add__(value, ""), rules, limit)
    elif issubclass(kind, int):
        yield from _pieces(int.__add__(value, 0), rules, nesting, limit)
    elif issubclass(kind, tuple(_BRACKETS)):
        yield from _sequence(value, kind, rules, nesting, limit)
    elif issubclass(kind, BaseException):
        yield f"{kind.__name__}("
        args = BaseException.__getattribute__(value, "args")
        yield from _joined((_pieces(arg, rules, nesting, limit) for arg in args[:MAX_ITEMS]), len(args))
        yield ")"
    elif issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind):
        yield f"{kind.__name__}("
        shown = _fields(value, kind)
        yield from _joined(_items(shown.items(), rules, nesting, limit, sign="="), len(shown))
        yield ")"
    else:
        yield f"<{type_name(kind)}>"


def _sequence(value: Any, kind: type, rules: Redactor, nesting: int, limit: int) -> Iterator[str]:
    base: Any = next(b for b in _BRACKETS if issubclass(kind, b))
    total = base.__len__(value)
    opening, closing = _BRACKETS[base]
    yield opening if kind is base else kind.__name__ + opening
    items = islice(base.__iter__(value), MAX_ITEMS)
    yield from _joined((_pieces(item, rules, nesting, limit) for item in items), total)
    yield ",)" if base is tuple and total == 1 else closing


def _show_text(value: str | bytes | bytearray, rules: Redactor, limit: int) -> str:
    # Blanked before it is cut and before repr escapes it: half a secret is a secret too.
    start = value[: limit + max(rules.longest, _BEYOND)]
    if isinstance(start, str):
        start = rules.text(start)
    return repr(start) + (f"... ({len(value):,} long)" if len(value) > limit else "")


def _items(
    items: Iterable[tuple[Any, Any]], rules: Redactor, nesting: int, limit: int, sign: str = ": "
) -> Iterator[Iterator[str]]:
    for key, item in islice(items, MAX_ITEMS):
        yield _item(key, item, rules, nesting, limit, sign)


def _item(key: object, item: object, rules: Redactor, nesting: int, limit: int, sign: str) -> Iterator[str]:
    if sign == "=":
        yield str(key)
    else:
        yield from _pieces(key, rules, nesting, limit)
    yield sign
    if type(key) is str and rules.hides(key):
        yield PLACEHOLDER
    else:
        yield from _pieces(item, rules, nesting, limit)


def _joined(parts: Iterable[Iterator[str]], total: int) -> Iterator[str]:
    for index, part in enumerate(parts):
        if index:
            yield ", "
        yield from part
    if total > MAX_ITEMS:
        yield f", ... ({total - MAX_ITEMS:,} more)"


def _fields(value: object, kind: type) -> dict[str, Any]:
    held = attributes(value)
    if issubclass(kind, BaseModel):
        return held
    names = [f.name for f in dataclasses.fields(kind) if f.repr]  # type: ignore[arg-type]
    return {name: held[name] if name in held else _slot(value, name) for name in names}


def attributes(value: object) -> dict[str, Any]:
    """The instance's own dictionary, without asking the instance."""
    try:
        held = object.__getattribute__(value, "__dict__")
    except Exception:
        return {}
    return held if type(held) is dict else {}


def _slot(value: object, name: str) -> Any:
    try:
        return object.__getattribute__(value, name)
    except Exception:
        return ...
