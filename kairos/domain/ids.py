"""Run ids: UUIDv7, so that their order is the order of creation. Time and chance are arguments."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID


def uuid7(unix_ms: int, random_bits: int) -> UUID:
    """RFC 9562 UUID version 7 from 48 bits of milliseconds since 1970 and 74 random bits."""
    value = (unix_ms & 0xFFFFFFFFFFFF) << 80
    value |= 0x7 << 76
    value |= (random_bits >> 62 & 0xFFF) << 64
    value |= 0b10 << 62
    value |= random_bits & 0x3FFFFFFFFFFFFFFF
    return UUID(int=value)


def first_id(at: datetime) -> UUID:
    """The lowest id that a run created at `at` (with its time zone) or later can have."""
    return UUID(int=max(int(at.timestamp() * 1000), 0) << 80)
