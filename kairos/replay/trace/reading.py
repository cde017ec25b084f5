"""Opens `.ktrace` files. Everything is checked before it is believed: a file may come from anywhere."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from kairos.errors import TraceError
from kairos.replay.trace.layout import (
    COLUMNS,
    ENTRIES,
    MAGIC,
    MAX_BLOCK,
    MAX_EVENTS,
    MAX_FILE,
    PER_BLOCK,
    VERSION,
    Block,
    Changes,
    Footer,
    Header,
    Kind,
    unpack_column,
)
from kairos.replay.trace.values import Value, decoder

_TRAILER = struct.Struct(f"<QQ32s{len(MAGIC)}s")


class TraceFile:
    """An open trace: its header and the columns of its events at once, locals and values when asked for.

    Args:
        path: the file; it is held open until `close`.
        most: bytes that one of its blocks may take when it is unpacked.

    Raises:
        TraceError: no such file, not a trace, cut short, damaged, or of a format that is not known here.
    """

    def __init__(self, path: Path, *, most: int = MAX_BLOCK) -> None:
        self.path, self._most = path, most
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as exc:
            raise TraceError(f"{path} cannot be read: {exc.strerror}") from exc
        try:
            self._blocks = self._read_footer()
            self.header: Header = self._unpack("header", Header)
            self._read_index(self._unpack("index", dict[str, bytes]))
        except OSError as exc:
            os.close(self._fd)
            raise TraceError(f"{path} cannot be read: {exc.strerror}") from exc
        except BaseException:
            os.close(self._fd)
            raise
        self._changes = lru_cache(maxsize=64)(self._load_changes)
        self._values = lru_cache(maxsize=64)(self._load_values)
        self.value = lru_cache(maxsize=4096)(self._value)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._fd)

    def __len__(self) -> int:
        return len(self.kinds)

    def change(self, position: int) -> list[int]:
        """The locals that changed at an event: name, value, name, value, ... as numbers."""
        return self._changes(position // PER_BLOCK).changes[position % PER_BLOCK]

    def before(self, block: int, frame: int) -> list[int]:
        """All locals of a frame before the first event of a block of `PER_BLOCK` events."""
        return self._changes(block).before.get(frame, [])

    def verify(self) -> None:
        """Read everything. Raises TraceError if anything is damaged."""
        for position in range(0, len(self), PER_BLOCK):
            self._changes(position // PER_BLOCK)
        for number in range(self.value_count):
            self.value(number)

    def _value(self, number: int) -> Value:
        raw = self._values(number // PER_BLOCK)[number % PER_BLOCK]
        try:
            value: Value = decoder.decode(raw)
            return value
        except (msgspec.MsgspecError, RecursionError) as exc:
            raise self._damaged(f"value {number}") from exc

    def _load_changes(self, number: int) -> Changes:
        block: Changes = self._unpack(f"changes/{number}", Changes)
        names, values = len(self.header.names), self.value_count
        for change in (*block.before.values(), *block.changes):
            whole = len(change) % 2 == 0
            if (
                not whole
                or not all(0 <= n < names for n in change[::2])
                or not all(0 <= v < values for v in change[1::2])
            ):
                raise self._damaged(f"changes/{number}")
        if len(block.changes) != min(PER_BLOCK, len(self) - number * PER_BLOCK):
            raise self._damaged(f"changes/{number}")
        return block

    def _load_values(self, number: int) -> list[bytes]:
        values: list[bytes] = self._unpack(f"values/{number}", list[bytes])
        if len(values) != min(PER_BLOCK, self.value_count - number * PER_BLOCK):
            raise self._damaged(f"values/{number}")
        return values

    def _read_footer(self) -> dict[str, Block]:
        size = os.fstat(self._fd).st_size
        begin = os.pread(self._fd, len(MAGIC), 0)
        if begin[:6] != MAGIC[:6]:
            raise TraceError(
                f"{self.path} is not a trace",
                hint="Traces are written by `kairos replay RUN --trace STEP --trace-out FILE`.",
            )
        if len(begin) == len(MAGIC) and begin != MAGIC:
            raise self._too_new()
        if size > MAX_FILE:
            raise TraceError(f"{self.path} is larger than a trace can be: {size:,} bytes")
        if size < len(MAGIC) + _TRAILER.size:
            raise self._cut_short()
        at, length, digest, end = _TRAILER.unpack(os.pread(self._fd, _TRAILER.size, size - _TRAILER.size))
        if end != MAGIC or at + length + _TRAILER.size != size:
            raise self._cut_short()
        raw = os.pread(self._fd, length, at)
        if hashlib.sha256(raw).digest() != digest:
            raise self._damaged("the table of blocks")
        try:
            footer = msgspec.msgpack.decode(raw, type=Footer)
        except msgspec.MsgspecError as exc:
            raise self._damaged("the table of blocks") from exc
        if footer.version != VERSION:
            raise self._too_new()
        return {block.name: block for block in footer.blocks}

    def _unpack(self, name: str, kind: Any) -> Any:
        block = self._blocks.get(name)
        if block is None or block.size > MAX_BLOCK or block.offset < 0 or not 0 <= block.length <= MAX_BLOCK:
            raise self._damaged(name)
        if max(block.size, block.length) > self._most:
            raise TraceError(f"{self.path}: {name} would take {block.size:,} bytes; the limit is {self._most:,}")
        packed = os.pread(self._fd, block.length, block.offset)
        if hashlib.sha256(packed).digest() != block.sha256:
            raise self._damaged(name)
        try:
            # Never more than it says: a few bytes may unpack to gigabytes.
            raw = zlib.decompressobj().decompress(packed, block.size + 1)
            if len(raw) != block.size:
                raise self._damaged(name)
            return msgspec.msgpack.decode(raw, type=kind)
        except (zlib.error, msgspec.MsgspecError, RecursionError) as exc:
            raise self._damaged(name) from exc

    def _read_index(self, columns: dict[str, bytes]) -> None:
        codes = {**COLUMNS, **ENTRIES, "function_of": "I", "value_count": "I"}
        try:
            found = {name: unpack_column(code, columns[name]) for name, code in codes.items()}
            (self.value_count,) = found["value_count"]
        except (KeyError, ValueError) as exc:
            raise self._damaged("index") from exc
        self.kinds, self.lines, self.times = found["kinds"], found["lines"], found["times"]
        self.frames, self.threads, self.values = found["frames"], found["threads"], found["values"]
        self.function_of = found["function_of"]
        self.entries = list(zip(found["at"], found["frame"], found["parent"], strict=False))
        if not self._is_sound({len(found[name]) for name in COLUMNS}, {len(found[name]) for name in ENTRIES}):
            raise self._damaged("index")

    def _is_sound(self, lengths: set[int], entries: set[int]) -> bool:
        header, frames, count = self.header, len(self.function_of), len(self.kinds)
        return (
            len(lengths) == len(entries) == 1
            and 0 < count <= MAX_EVENTS
            and max(self.kinds) <= max(Kind)
            and max(self.frames) < frames
            and max(self.threads) < len(header.threads)
            and max(self.function_of) < len(header.functions)
            and -1 <= min(self.values) <= max(self.values) < self.value_count
            and all(0 <= function.file < len(header.files) for function in header.functions)
            and all(0 <= elided.function < len(header.functions) for elided in header.elided)
            and all(at < count and frame < frames and -1 <= parent < frames for at, frame, parent in self.entries)
            and all(a[0] < b[0] for a, b in pairwise(self.entries))
            and {frame for _, frame, _ in self.entries} == set(self.frames)
        )

    def _cut_short(self) -> TraceError:
        return TraceError(f"{self.path} was cut short: its end is missing", hint="Copy or record it anew.")

    def _damaged(self, part: str) -> TraceError:
        return TraceError(f"{self.path} is damaged: {part} is not what was written", hint="Copy or record it anew.")

    def _too_new(self) -> TraceError:
        return TraceError(
            f"{self.path} has a format that is not known here",
            hint="It was written by a newer Kairos: upgrade this one.",
        )
