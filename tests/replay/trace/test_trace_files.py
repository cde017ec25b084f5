"""A trace file from anywhere: whole, cut short, damaged, made up."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kairos.errors import TraceError
from kairos.replay.trace.history import Trace
from kairos.replay.trace.layout import MAGIC, About, Block, Footer
from kairos.replay.trace.reading import TraceFile
from tests.replay.trace.tracing_support import save


def busy(n: int) -> int:
    found = []
    for i in range(n):
        found.append(f"value {i}")
        total = len(found)
    return total


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "busy.ktrace"
    save(path, busy, 700, about=About("0192", "fulfil", "charge", 3))
    return path


def opened(path: Path, raw: bytes) -> TraceFile:
    path.write_bytes(raw)
    file = TraceFile(path)
    file.verify()
    return file


def test_a_trace_says_of_what_it_is_and_spans_many_blocks(path: Path) -> None:
    trace = Trace.open(path)
    trace.file.verify()
    assert trace.header.about == About("0192", "fulfil", "charge", 3)
    assert len(trace) > 2_000
    assert [trace.locals_at(at)["i"] for at in trace.hits(0, trace.header.functions[0].first_line + 3)] == list(
        range(700)
    )
    assert trace.source(0)[trace.header.functions[0].first_line] == "def busy(n: int) -> int:"
    assert path.stat().st_size < 25 * len(trace)


def test_every_kind_of_cut_is_noticed(path: Path, tmp_path: Path) -> None:
    raw = path.read_bytes()
    for length in (0, 1, 7, 8, 20, 71, 72, len(raw) // 2, len(raw) - 40, len(raw) - 1):
        with pytest.raises(TraceError, match=r"is not a trace|cut short"):
            opened(tmp_path / "cut.ktrace", raw[:length])


def test_every_flipped_byte_is_noticed(path: Path, tmp_path: Path) -> None:
    raw = path.read_bytes()
    for at in sorted(random.Random(4).sample(range(len(raw)), 200)):
        damaged = bytearray(raw)
        damaged[at] ^= 0x55
        with pytest.raises(TraceError):
            opened(tmp_path / "flipped.ktrace", bytes(damaged))


@pytest.mark.parametrize("junk", [b"", b"hello", b"PK\x03\x04" + b"\0" * 500, b"\x7fELF" * 99, MAGIC, MAGIC * 40])
def test_junk_is_no_trace(junk: bytes, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"is not a trace|cut short"):
        opened(tmp_path / "junk.ktrace", junk)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        TraceFile(tmp_path / "none.ktrace")
    with pytest.raises(TraceError):
        TraceFile(tmp_path)


def test_a_newer_format_asks_for_an_upgrade(path: Path, tmp_path: Path) -> None:
    raw = path.read_bytes()
    with pytest.raises(TraceError, match="not known here") as raised:
        opened(tmp_path / "new.ktrace", raw[:6] + b"\x02" + raw[7:])
    assert "newer Kairos" in str(raised.value)


def rebuilt(path: Path, change: Callable[[str, Any], Any], size: int | None = None) -> bytes:
    """The file with some parts changed and every checksum right: as a forger would make it."""
    raw = path.read_bytes()
    at, length, _, _ = struct.unpack("<QQ32s8s", raw[-56:])
    footer = msgspec.msgpack.decode(raw[at : at + length], type=Footer)
    out, blocks = bytearray(MAGIC), []
    for block in footer.blocks:
        part = msgspec.msgpack.decode(zlib.decompress(raw[block.offset : block.offset + block.length]), strict=False)
        plain = msgspec.msgpack.encode(change(block.name, part))
        packed = zlib.compress(plain)
        blocks.append(Block(block.name, len(out), len(packed), size or len(plain), hashlib.sha256(packed).digest()))
        out += packed
    end = msgspec.msgpack.encode(Footer(footer.version, blocks))
    return bytes(out) + end + struct.pack("<QQ", len(out), len(end)) + hashlib.sha256(end).digest() + MAGIC


def column(name: str, raw: bytes) -> Callable[[str, Any], Any]:
    return lambda block, part: {**part, name: raw + part[name][len(raw) :]} if block == "index" else part


FORGED: list[Callable[[str, Any], Any]] = [
    column("kinds", b"\xff"),
    column("frames", b"\xff\xff\xff\x7f"),
    column("threads", b"\xff\xff"),
    column("values", b"\xff\xff\xff\x7f"),
    column("function_of", b"\xff\xff\xff\x7f"),
    column("frame", b"\xff\xff\xff\x7f"),
    column("parent", b"\xff\xff\xff\x7f"),
    column("at", b"\xff\xff\xff\x7f"),
    lambda block, part: {**part, "lines": part["lines"][:-4]} if block == "index" else part,
    lambda block, part: {**part, "lines": part["lines"][:-1]} if block == "index" else part,
    lambda block, part: dict.fromkeys(part, b"") if block == "index" else part,
    lambda block, part: {**part, "files": []} if block == "header" else part,
    lambda block, part: {**part, "functions": []} if block == "header" else part,
    lambda block, part: [1] if block == "header" else part,
    lambda block, part: [part[0], part[1][:-1]] if block == "changes/1" else part,
    lambda block, part: [part[0], [[999, 0], *part[1][1:]]] if block == "changes/1" else part,
    lambda block, part: [part[0], [[0], *part[1][1:]]] if block == "changes/1" else part,
    lambda block, part: part[:-1] if block == "values/0" else part,
    lambda block, part: [b"\x91\xa1z", *part[1:]] if block == "values/0" else part,
    lambda block, part: [b"\x91" * 100_000, *part[1:]] if block == "values/0" else part,
]


@pytest.mark.parametrize("change", FORGED, ids=range(len(FORGED)))
def test_a_made_up_file_with_right_checksums_is_refused(change: Any, path: Path, tmp_path: Path) -> None:
    opened(tmp_path / "same.ktrace", rebuilt(path, lambda _, part: part))
    with pytest.raises(TraceError, match="damaged"):
        opened(tmp_path / "forged.ktrace", rebuilt(path, change))


def test_a_block_never_unpacks_to_more_than_it_says(path: Path, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="damaged"):
        opened(tmp_path / "bomb.ktrace", rebuilt(path, lambda _, part: part, size=100))
    with pytest.raises(TraceError, match="damaged"):
        opened(tmp_path / "bomb.ktrace", rebuilt(path, lambda _, part: part, size=1 << 40))


def test_a_trace_is_replaced_by_a_whole_one_or_not_at_all(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "t.ktrace"
    target.write_bytes(path.read_bytes())
    reader = Trace.open(target)
    save(target, busy, 3)
    assert len(Trace.open(target)) < 20
    # Who had the old one open reads on in it.
    reader.file.verify()
