"""One JSON value, one sequence of bytes: the only encoding of what Kairos stores and hashes.

UTF-8, sorted keys, no white space. What JSON cannot carry back unchanged is refused with the path to
it: NaN and infinities, integers beyond 64 bits, keys that are not strings, lone surrogates, nesting
deeper than `MAX_DEPTH`, and any object that is not a plain JSON value.
"""

from __future__ import annotations

import marshal
import math
from typing import Any

import orjson

from kairos.errors import PayloadError

MAX_DEPTH = 100
"""Deepest nesting that is stored. Readers in other languages (and Python's own) stop soon after."""
MAX_BYTES = 64 * 1024 * 1024
"""Largest payload that is stored, in bytes of its canonical form."""

_STRICT = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


def encode(value: Any) -> bytes:
    """Return the canonical bytes of a plain JSON value (dict, list, tuple, str, int, float, bool, None).

    Raises:
        PayloadError: the value, or something inside it, cannot be stored. Names the path.
    """
    # orjson is no judge of what it is given: it lets UUIDs and enums through, and does not count how deep
    # tuples are nested (some thousand levels overrun its buffer). Marshal takes exactly the builtin types and
    # counts, so that it looks for all others at the speed of C. Its output is thrown away.
    try:
        marshal.dumps(value)
    except ValueError:
        check(value)
    return encode_plain(value)


def encode_plain(value: Any) -> bytes:
    """`encode` for a value known to be made of plain JSON types, such as the output of a serialiser.

    It skips the walk that looks for other types; everything else is refused all the same.
    """
    try:
        raw = orjson.dumps(value, option=_STRICT)
    except (TypeError, RecursionError, ValueError) as exc:
        check(value)
        raise PayloadError(f"this value cannot be stored as JSON: {exc}", hint=_HINT) from None
    # Reading it back shows whether a null was NaN, at a fraction of the time that a walk takes.
    if (b"null" in raw and orjson.loads(raw) != value) or _is_deep(raw, value):
        check(value)
    _check_size(raw)
    return raw


def decode(raw: bytes) -> Any:
    """Return the value that canonical bytes stand for."""
    return orjson.loads(raw)


def fragment(raw: bytes) -> Any:
    """Wrap bytes that are canonical already, so that `encode_trusted` copies them in unchanged."""
    return orjson.Fragment(raw)


def encode_trusted(value: Any) -> bytes:
    """Encode a value that Kairos itself has built (it may hold fragments). No checks."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def check(value: Any) -> None:
    """Raise `PayloadError` with the path to the first thing that JSON cannot carry back unchanged."""
    # An explicit stack: a value nested 50,000 deep must be an error of ours, not a RecursionError.
    stack: list[tuple[Any, tuple[str | int, ...]]] = [(value, ())]
    while stack:
        item, path = stack.pop()
        kind = type(item)
        if len(path) >= MAX_DEPTH and kind in (dict, list, tuple):
            raise _refuse(path[:6], f"is nested deeper than {MAX_DEPTH} levels (or contains itself)")
        if kind is dict:
            for key, inner in item.items():
                if type(key) is not str:
                    raise _refuse(path, f"has the key {_show(key)}, which is not a plain string")
                _check_text(key, path)
                stack.append((inner, (*path, key)))
        elif kind is list or kind is tuple:
            stack.extend((inner, (*path, i)) for i, inner in enumerate(item))
        elif kind is str:
            _check_text(item, path)
        elif kind is float:
            if not math.isfinite(item):
                raise _refuse(path, f"is {item}, which JSON does not have")
        elif kind is int:
            if not -(2**63) <= item < 2**64:
                raise _refuse(path, "is an integer beyond 64 bits; store it as a string")
        elif kind is not bool and item is not None:
            raise _refuse(path, f"is a {kind.__module__}.{kind.__qualname__}, which is not a JSON value")


_HINT = (
    "Use plain JSON values, or declare a type (a pydantic model, a dataclass, dict[str, datetime], ...) as the "
    "workflow's input or the step's return type: then pydantic converts both ways."
)
_TEXT_HINT = (
    "Such text comes from broken UTF-16, or from bytes decoded with `surrogateescape`. Repair it where it is read, "
    "for instance text.encode('utf-8', 'replace').decode(), or store the bytes in a field of type bytes."
)


def _is_deep(raw: bytes, value: Any) -> bool:
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return False
    level = [value]
    for _ in range(MAX_DEPTH):
        inside = [item for outer in level for item in (outer.values() if type(outer) is dict else outer)]
        level = [item for item in inside if type(item) is dict or type(item) is list or type(item) is tuple]
        if not level:
            return False
    return True


def _check_size(raw: bytes) -> None:
    if len(raw) > MAX_BYTES:
        raise PayloadError(
            f"this value takes {len(raw):,} bytes; the limit is {MAX_BYTES:,}",
            hint="Store large data outside (a file, object storage) and pass a reference.",
            size=len(raw),
        )


def _check_text(text: str, path: tuple[str | int, ...]) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        why = "holds half of a surrogate pair, which is not valid Unicode"
        raise _refuse(path, why, _TEXT_HINT) from None


def _refuse(path: tuple[str | int, ...], why: str, hint: str = _HINT) -> PayloadError:
    where = "$" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
    where = where.encode("utf-8", "backslashreplace").decode()
    return PayloadError(f"the value at {where} {why}", hint=hint, path=where)


def _show(key: object) -> str:
    try:
        return repr(key)[:80]
    except Exception:
        return f"<{type(key).__name__}>"
