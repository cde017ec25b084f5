"""What stands in a `.ktrace` file. Format 1.

    magic (8 bytes)
    blocks, each compressed by zlib:
        header      what was recorded, of which run; files, functions with their source, names, threads
        index       the columns of all events: kind, line, time, frame, thread, value; and who called whom
        changes/n   512 events: which locals changed, preceded by all locals of the frames that live there
        values/n    512 distinct snapshots
    footer          msgpack: each block's name, offset, length, size before compression, sha256
    trailer         offset and length of the footer (u64 each), its sha256, magic

A block is checked and unpacked when it is asked for, so that a large trace opens at once.
"""

from __future__ import annotations

import sys
from array import array
from enum import IntEnum
from typing import Final

import msgspec

MAGIC: Final = b"KTRACE\x01\n"
VERSION: Final = 1
PER_BLOCK: Final = 512
MAX_FILE: Final = 1 << 30
MAX_BLOCK: Final = 1 << 27
MAX_EVENTS: Final = 5_000_000
COLUMNS: Final = {"kinds": "B", "lines": "I", "times": "q", "frames": "I", "threads": "H", "values": "i"}
NO_VALUE: Final = -1
"""In the column of values: the event has none."""
ENTRIES: Final = {"at": "I", "frame": "I", "parent": "i"}


class Kind(IntEnum):
    """What happened at a position."""

    CALL = 0
    LINE = 1
    RETURN = 2
    SUSPEND = 3
    RESUME = 4
    EXCEPTION = 5
    UNWIND = 6


class About(msgspec.Struct, frozen=True):
    """Of what a trace is."""

    run: str = ""
    workflow: str = ""
    step: str = ""
    attempt: int = 0


class Function(msgspec.Struct, frozen=True, array_like=True):
    """One recorded function. `source` begins at `first_line`; empty where none was found."""

    name: str
    file: int
    first_line: int
    source: str


class Elided(msgspec.Struct, frozen=True, array_like=True):
    """A line that ran more often than it was recorded. `hits`: the unrecorded ones, -1: not known how many."""

    function: int
    line: int
    hits: int


class Header(msgspec.Struct, frozen=True):
    """All of a trace but its events and values.

    Attributes:
        wall_ns, own_ns: duration of the recording, and how much of it the recorder itself took.
        plain_ns: duration of the same without a recorder, if that was measured.
        is_full: events were left out because of the limit.
        trouble: why recording ended early, if it did.
    """

    about: About
    python: str
    backend: str
    recorded_at: str
    wall_ns: int
    own_ns: int
    files: list[str]
    functions: list[Function]
    names: list[str]
    threads: list[str]
    elided: list[Elided]
    plain_ns: int | None = None
    is_full: bool = False
    trouble: str | None = None

    @property
    def slower(self) -> float:
        """How many times longer the step took for being recorded.

        Where it is not known how long it takes without, this is the least: the recorder's own clock does not see
        what the interpreter spends on reporting.
        """
        return self.wall_ns / max(self.wall_ns - self.own_ns if self.plain_ns is None else self.plain_ns, 1)

    @property
    def overhead(self) -> str:
        """The same in words."""
        return f"{'at least ' if self.plain_ns is None else ''}x{self.slower:.1f} slower"


class Changes(msgspec.Struct, frozen=True, array_like=True):
    """A block of events.

    Attributes:
        before: frame -> its locals before the first event here: name, value, name, value, ...
        changes: the same for what each event changed.
    """

    before: dict[int, list[int]]
    changes: list[list[int]]


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Where a block lies."""

    name: str
    offset: int
    length: int
    size: int
    sha256: bytes


class Footer(msgspec.Struct, frozen=True):
    """The table of blocks."""

    version: int
    blocks: list[Block]


def pack_column(values: array[int]) -> bytes:
    """A column as little-endian bytes."""
    if sys.byteorder == "big":
        values = array(values.typecode, values)
        values.byteswap()
    return values.tobytes()


def unpack_column(code: str, raw: bytes) -> array[int]:
    """The column of these bytes. Raises ValueError if they are no whole number of items."""
    values = array(code)
    values.frombytes(raw)
    if sys.byteorder == "big":
        values.byteswap()
    return values
