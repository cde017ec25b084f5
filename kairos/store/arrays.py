"""Packs columns of values into Postgres' binary array format, for the flush.

psycopg's own list dumper calls Python once per element; a flush carries thousands, so this is the hottest
code of the store. Format: https://www.postgresql.org/docs/current/protocol-overview.html (array_send):
ndim, has-null flag, element oid, then size and lower bound; then each element with its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct, pack
from uuid import UUID

from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

_HEADER = Struct(">iiIii")
_LENGTH = Struct(">i")
_NULL = _LENGTH.pack(-1)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Packed:
    """Bytes that are a binary array already. One subclass per array type."""

    __slots__ = ("data",)
    element_oid = 0
    array_oid = 0

    def __init__(self, data: bytes) -> None:
        self.data = data


class Int4Array(Packed):
    """integer[]"""

    element_oid, array_oid = 23, 1007


class Int8Array(Packed):
    """bigint[]"""

    element_oid, array_oid = 20, 1016


class TextArray(Packed):
    """text[]"""

    element_oid, array_oid = 25, 1009


class ByteaArray(Packed):
    """bytea[]"""

    element_oid, array_oid = 17, 1001


class UuidArray(Packed):
    """uuid[]"""

    element_oid, array_oid = 2950, 2951


class TimestampArray(Packed):
    """timestamptz[]"""

    element_oid, array_oid = 1184, 1185


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Packed) -> Buffer:
        return obj.data


def _dumper_for(kind: type[Packed]) -> type[Dumper]:
    return type(f"{kind.__name__}Dumper", (_PackedDumper,), {"oid": kind.array_oid})


DUMPERS: Sequence[tuple[type[Packed], type[Dumper]]] = [
    (kind, _dumper_for(kind)) for kind in (Int4Array, Int8Array, TextArray, ByteaArray, UuidArray, TimestampArray)
]
"""What a connection must register (see `connect.prepare_adapters`)."""


def int4s(values: Sequence[int]) -> Int4Array:
    """integer[] without nulls."""
    flat = [4] * (2 * len(values))
    flat[1::2] = values
    return Int4Array(_head(Int4Array, len(values), 0) + pack(f">{len(flat)}i", *flat))


def int4s_or_null(values: Sequence[int | None]) -> Int4Array:
    """integer[]; None is null."""
    return Int4Array(_head(Int4Array, len(values), 1) + b"".join(map(_int4, values)))


def int8s_or_null(values: Sequence[int | None]) -> Int8Array:
    """bigint[]; None is null."""
    return Int8Array(_head(Int8Array, len(values), 1) + b"".join(map(_int8, values)))


def byteas(values: Sequence[bytes]) -> ByteaArray:
    """bytea[] without nulls."""
    length = _LENGTH.pack
    return ByteaArray(_head(ByteaArray, len(values), 0) + b"".join([length(len(v)) + v for v in values]))


def texts(values: Sequence[str]) -> TextArray:
    """text[] without nulls."""
    return TextArray(_head(TextArray, len(values), 0) + b"".join(map(_text, values)))


def texts_or_null(values: Sequence[str | None]) -> TextArray:
    """text[]; None is null."""
    return TextArray(_head(TextArray, len(values), 1) + b"".join(map(_text, values)))


def uuids(values: Sequence[UUID]) -> UuidArray:
    """uuid[] without nulls."""
    return uuids_of([v.bytes for v in values])


def uuids_of(values: Sequence[bytes]) -> UuidArray:
    """uuid[] from the 16 bytes of each."""
    return UuidArray(_head(UuidArray, len(values), 0) + b"".join([b"\0\0\0\x10" + v for v in values]))


def timestamps(values: Sequence[datetime]) -> TimestampArray:
    """timestamptz[] without nulls."""
    return TimestampArray(_head(TimestampArray, len(values), 0) + b"".join(map(_timestamp, values)))


def timestamps_or_null(values: Sequence[datetime | None]) -> TimestampArray:
    """timestamptz[]; None is null."""
    return TimestampArray(_head(TimestampArray, len(values), 1) + b"".join(map(_timestamp, values)))


# The same few kinds, steps, small numbers and times fill a flush: their elements are packed once.


@lru_cache(maxsize=4096)
def _int4(value: int | None) -> bytes:
    return _NULL if value is None else pack(">ii", 4, value)


@lru_cache(maxsize=4096)
def _int8(value: int | None) -> bytes:
    return _NULL if value is None else pack(">iq", 8, value)


@lru_cache(maxsize=1024)
def _timestamp(value: datetime | None) -> bytes:
    return _NULL if value is None else pack(">iq", 8, (value - _EPOCH) // _MICROSECOND)


@lru_cache(maxsize=4096)
def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    raw = value.encode()
    return _LENGTH.pack(len(raw)) + raw


def _head(kind: type[Packed], count: int, has_null: int) -> bytes:
    if not count:
        return pack(">iiI", 0, 0, kind.element_oid)
    return _HEADER.pack(1, has_null, kind.element_oid, count, 1)
