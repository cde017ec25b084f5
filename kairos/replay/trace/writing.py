"""Packs a recording into a `.ktrace` file: secrets blanked, compressed, checksummed, readable by its owner alone."""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from kairos.replay.trace.layout import (
    COLUMNS,
    ENTRIES,
    MAGIC,
    PER_BLOCK,
    VERSION,
    Block,
    Changes,
    Footer,
    Header,
    Kind,
    pack_column,
)
from kairos.replay.trace.recorder import Events

_encode = msgspec.msgpack.Encoder().encode


def write(path: Path, header: Header, events: Events, function_of: array[int], values: Sequence[bytes]) -> int:
    """Write all of a trace at once; a file that stands there is replaced only by a whole one.

    Args:
        values: the snapshots, without secrets.

    Returns:
        The size of the file in bytes.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            size = _write(file, header, events, function_of, values)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return size


def _write(file: IO[bytes], header: Header, events: Events, function_of: array[int], values: Sequence[bytes]) -> int:
    blocks: list[Block] = []
    file.write(MAGIC)
    for name, raw in _parts(header, events, function_of, values):
        packed = zlib.compress(raw, 6)
        blocks.append(Block(name, file.tell(), len(packed), len(raw), hashlib.sha256(packed).digest()))
        file.write(packed)
    footer = _encode(Footer(VERSION, blocks))
    at = file.tell()
    file.write(footer + struct.pack("<QQ", at, len(footer)) + hashlib.sha256(footer).digest() + MAGIC)
    return file.tell()


def _parts(
    header: Header, events: Events, function_of: array[int], values: Sequence[bytes]
) -> Iterator[tuple[str, bytes]]:
    yield "header", _encode(header)
    columns = {name: pack_column(getattr(events, name)) for name in COLUMNS}
    for index, (name, code) in enumerate(ENTRIES.items()):
        columns[name] = pack_column(array(code, [entry[index] for entry in events.entries]))
    columns["function_of"] = pack_column(function_of)
    columns["value_count"] = pack_column(array("I", [len(values)]))
    yield "index", _encode(columns)
    for number, block in enumerate(_blocks(events)):
        yield f"changes/{number}", _encode(block)
    for number, start in enumerate(range(0, len(values), PER_BLOCK)):
        yield f"values/{number}", _encode(list(values[start : start + PER_BLOCK]))


def _blocks(events: Events) -> Iterator[Changes]:
    live: dict[int, dict[int, int]] = {}
    for start in range(0, len(events), PER_BLOCK):
        before = {frame: [part for pair in found.items() for part in pair] for frame, found in live.items()}
        changes = events.changes[start : start + PER_BLOCK]
        yield Changes(before, [list(change) for change in changes])
        for position, change in enumerate(changes, start):
            frame = events.frames[position]
            live.setdefault(frame, {}).update(zip(change[::2], change[1::2], strict=True))
            if events.kinds[position] in (Kind.RETURN, Kind.UNWIND):
                del live[frame]
