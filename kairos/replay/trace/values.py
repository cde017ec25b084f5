"""What the recorder keeps of a value: plain data, bounded, of a shape that can be looked into.

None, bool, float, short text and ints of up to 64 bits are kept as they are; everything else is one of the
structs below. Where something was left out the struct holds the true size, so that a reader can say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    pass


class Text(_Kept, frozen=True, array_like=True, tag="s"):
    """The beginning of a text of `size` characters."""

    shown: str
    size: int


class Scalar(_Kept, frozen=True, array_like=True, tag="v"):
    """A value without parts, as text: a Decimal, a date, bytes, a function, an enum member, an array's shape."""

    kind: str
    shown: str


class Items(_Kept, frozen=True, array_like=True, tag="l"):
    """A list, tuple, set or deque of `size` items, of which the first ones are kept."""

    kind: str
    size: int
    items: list[Value]


class Pairs(_Kept, frozen=True, array_like=True, tag="d"):
    """A mapping of `size` keys, of which the first ones are kept."""

    kind: str
    size: int
    pairs: list[tuple[Value, Value]]


class Object(_Kept, frozen=True, array_like=True, tag="o"):
    """An object with `size` attributes, of which the first ones are kept."""

    kind: str
    size: int
    fields: list[tuple[str, Value]]


class Cut(_Kept, frozen=True, array_like=True, tag="c"):
    """A value of which nothing is kept but its type and size (None: it has none)."""

    kind: str
    size: int | None


class Hidden(_Kept, frozen=True, array_like=True, tag="r"):
    """A value that a redaction rule hides."""


class Unbound(_Kept, frozen=True, array_like=True, tag="u"):
    """The name had no value any more."""


Value = None | bool | int | float | str | Text | Scalar | Items | Pairs | Object | Cut | Hidden | Unbound
"""One recorded value."""

encode: Final = msgspec.msgpack.Encoder().encode
decoder: Final = msgspec.msgpack.Decoder(Value)

_BRACKETS: Final = {"list": ("[", "]"), "tuple": ("(", ")"), "set": ("{", "}")}
_ELLIPSIS: Final = "…"


def render(value: Value, limit: int = 200) -> str:
    """`value` as one line of at most `limit` characters, close to what `repr` writes; `…` stands for what was cut."""
    pieces: list[str] = []
    room = limit
    for piece in _pieces(value):
        pieces.append(piece)
        room -= len(piece)
        if room < 0:
            return "".join(pieces)[: limit - 1] + _ELLIPSIS
    return "".join(pieces)


def children(value: Value) -> list[tuple[str, Value]]:
    """What a value holds, by label: `[0]`, `['key']`, `attribute`. Empty for what has no parts."""
    if isinstance(value, Items):
        return [(f"[{index}]", item) for index, item in enumerate(value.items)]
    if isinstance(value, Pairs):
        return [(f"[{render(key, 80)}]", item) for key, item in value.pairs]
    if isinstance(value, Object):
        return list(value.fields)
    return []


def left_out(value: Value) -> int:
    """How many items, keys, attributes or characters of this value (not of what it holds) were not recorded."""
    if isinstance(value, Text):
        return value.size - len(value.shown)
    if isinstance(value, Items | Pairs | Object):
        return value.size - len(children(value))
    return (value.size or 0) if isinstance(value, Cut) else 0


def type_of(value: Value) -> str:
    """The name of the value's type."""
    if isinstance(value, Text):
        return "str"
    if isinstance(value, Scalar | Items | Pairs | Object | Cut):
        return value.kind
    return "" if isinstance(value, Hidden | Unbound) else type(value).__name__


def _pieces(value: Value) -> Iterator[str]:
    match value:
        case Text(shown, size):
            yield f"{shown!r}{_ELLIPSIS}({size:,} long)"
        case Scalar(_, shown):
            yield shown
        case Items(kind, size, items):
            yield from _sequence(kind, size, items)
        case Pairs(kind, size, pairs):
            yield "{" if kind == "dict" else f"{kind}({{"
            yield from _joined([(": ", key, item) for key, item in pairs], size - len(pairs))
            yield "}" if kind == "dict" else "})"
        case Object(kind, size, fields):
            yield f"{kind}("
            yield from _joined(list(_attributes(fields)), size - len(fields))
            yield ")"
        case Cut(kind, size):
            yield f"<{kind}{_ELLIPSIS}>" if size is None else f"<{kind} of {size:,}{_ELLIPSIS}>"
        case Hidden():
            yield "[redacted]"
        case Unbound():
            yield "(deleted)"
        case _:
            yield repr(value)


def _sequence(kind: str, size: int, items: list[Value]) -> Iterator[str]:
    if not size and kind == "set":
        yield "set()"
        return
    opening, closing = _BRACKETS.get(kind, (f"{kind}([", "])"))
    yield opening
    yield from _joined([("", None, item) for item in items], size - len(items))
    yield ",)" if kind == "tuple" and size == 1 else closing


def _attributes(fields: list[tuple[str, Value]]) -> Iterator[tuple[str, Value, Value]]:
    for name, item in fields:
        if name == "args" and isinstance(item, Items):
            # Of an exception: `ValueError('no such order')`.
            yield from (("", None, argument) for argument in item.items)
        else:
            yield "=", name, item


def _joined(parts: list[tuple[str, Value, Value]], more: int) -> Iterator[str]:
    for index, (sign, key, item) in enumerate(parts):
        if index:
            yield ", "
        if sign:
            yield str(key) if sign == "=" else render(key, 80)
            yield sign
        yield from _pieces(item)
    if more > 0:
        yield f"{', ' if parts else ''}{_ELLIPSIS}({more:,} more)"
