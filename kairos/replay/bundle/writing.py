"""Writes bundles: a file appears under its name whole, readable by its owner only, or not at all."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final
from uuid import UUID
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import msgspec

from kairos import __version__
from kairos.authoring.redaction import Redaction as Rules
from kairos.domain import canonical
from kairos.domain.payload import Payload
from kairos.domain.projection import project
from kairos.errors import BundleError, HistoryError, KairosError
from kairos.replay.bundle.container import refuse, seal_of
from kairos.replay.bundle.erasing import MAX_PATHS, Eraser
from kairos.replay.bundle.layout import (
    CAPS,
    DEFINITION,
    EVENTS,
    FORMAT,
    MANIFEST,
    MEBI,
    SEAL_SIZE,
    VERSION,
    Blanked,
    Entry,
    EventLine,
    Manifest,
    Redaction,
    Run,
    blob_name,
    to_json,
)
from kairos.replay.reading import read_log, read_values
from kairos.replay.record import RunRecord
from kairos.store.codec import Row, decode
from kairos.store.proof import Report, check_run

if TYPE_CHECKING:
    from kairos.store.reader import Reader  # with the database driver, which a replay from a file does without

LEVEL: Final = 1
"""Of compression: a tenth larger than the usual 6, in a third of the time."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Written:
    """What an export wrote.

    Attributes:
        size: of the file, in bytes; `values`: how many blobs it holds, and `value_bytes` theirs as unpacked.
        redacted: events and values of which something was blanked or left out.
    """

    path: Path
    run_id: UUID
    workflow: str
    status: str
    size: int
    events: int
    values: int
    value_bytes: int
    redacted: int


def write_bundle(
    record: RunRecord, path: Path, *, redact: Rules | None = None, payloads: bool = True, force: bool = False
) -> Written:
    """Write a run to one file. The same run gives the same bytes.

    Args:
        redact: what to blank; the file says what was blanked, and hashes prove the rest.
        payloads: False blanks every input, output, effect, error text and log line.
        force: replace a file that is there.

    Raises:
        BundleError: the file is there, or cannot be written, or the run is larger than a bundle may be.
        HistoryError: the run's log is broken, or a value is missing.
    """
    with Writer(record, path, Eraser(redact, payloads=payloads), force=force) as writer:
        if writer.must_learn:
            for payload in writer.wanted:
                writer.learn(record.bytes_of(payload))
        writer.write_log()
        for payload in writer.wanted:
            writer.add(payload.digest, record.bytes_of(payload))
        return writer.finish()


async def export_bundle(
    reader: Reader,
    run_id: UUID,
    path: Path,
    *,
    redact: Rules | None = None,
    payloads: bool = True,
    force: bool = False,
) -> Written:
    """As `write_bundle`, from the database: some MB of values in memory at once, however many the run has.

    Raises:
        RunNotFound: no such run; and what `write_bundle` raises.
    """
    record = await read_log(reader, run_id)
    with Writer(record, path, Eraser(redact, payloads=payloads), force=force) as writer:
        if writer.must_learn:
            async for _, raw in read_values(reader, record):
                writer.learn(raw)
        writer.write_log()
        if payloads:
            async for digest, raw in read_values(reader, record):
                writer.add(digest, raw)
        return writer.finish()


class Writer:
    """One bundle while it is written; `finish` gives it its name, leaving the block without it leaves nothing."""

    def __init__(self, record: RunRecord, path: Path, eraser: Eraser, *, force: bool) -> None:
        self._record, self._path, self._eraser, self._force = record, path, eraser, force
        self._entries: dict[str, Entry] = {}
        self._redaction = _carried(record, eraser)
        self._head: Run | None = None
        if path.exists() and not force:
            _refuse_existing(path)
        check_history(record)
        if eraser.must_learn:
            for row in record.rows:
                eraser.learn_event(row.kind, row.body)

    @property
    def must_learn(self) -> bool:
        """Whether the values have to be shown to `learn` before anything is written."""
        return self._eraser.must_learn

    @property
    def wanted(self) -> Sequence[Payload]:
        """The values to be added, in order."""
        if not self._eraser.payloads:
            return []
        referred = self._record.referred
        return [referred[digest] for digest in sorted(referred) if digest not in self._redaction.omitted]

    def learn(self, raw: bytes) -> None:
        """See what stands in the named fields of a value."""
        self._eraser.learn(raw)

    def write_log(self) -> None:
        """Write the definition and the events. The values come after them."""
        definition = canonical.encode_trusted(self._record.definition.to_json())
        self._put(DEFINITION, definition)
        self._put(EVENTS, b"".join(self._line(row) + b"\n" for row in self._record.rows))
        if not self._eraser.payloads:
            self._redaction.omitted.update((d, p.size) for d, p in sorted(self._record.referred.items()))

    def add(self, digest: str, raw: bytes) -> None:
        """Write one value."""
        if self._eraser.is_active:
            raw, paths = self._eraser.blob(raw)
            _note(self._redaction.blobs, digest, paths)
        self._put(blob_name(digest), raw)

    def finish(self) -> Written:
        """Seal the file and give it its name."""
        sizes = [entry.size for name, entry in self._entries.items() if name not in (DEFINITION, EVENTS)]
        run, redaction = self._run(), self._redaction
        manifest = Manifest(
            FORMAT, VERSION, __version__, run, len(self._record.rows), len(sizes), self._entries, redaction
        )
        self._put(MANIFEST, to_json(manifest))
        if sum(entry.size for entry in self._entries.values()) > CAPS.total or len(self._entries) > CAPS.entries:
            refuse("too_large", f"run {run.id} is larger than a bundle may be", _TOO_LARGE)
        self._zip.comment = b"." * SEAL_SIZE
        self._zip.close()
        size = self._seal()
        _put_in_place(Path(self._file.name), self._path, self._force)
        redacted = len(redaction.events) + len(redaction.blobs) + len(redaction.omitted)
        return Written(
            self._path, run.id, run.workflow, run.status, size, len(self._record.rows), len(sizes), sum(sizes), redacted
        )

    def __enter__(self) -> Writer:
        folder = self._path.parent
        try:
            self._file = tempfile.NamedTemporaryFile(
                dir=folder, prefix=f".{self._path.name[:80]}.", suffix=".part", delete=False
            )
        except OSError as exc:
            refuse("cannot_write", f"{self._path} cannot be written: {exc.strerror}", "Name another file with -o.")
        self._zip = ZipFile(self._file, "w")
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        with suppress(ValueError, OSError):
            self._zip.close()
        self._file.close()
        with suppress(FileNotFoundError):
            os.unlink(self._file.name)
        if isinstance(exc, OSError):
            hint = "Is the disk full? Nothing was left behind."
            raise BundleError(
                f"{self._path} cannot be written: {exc.strerror}", hint=hint, code="cannot_write"
            ) from exc

    def _line(self, row: Row) -> bytes:
        if self._eraser.is_active:
            body, paths = self._eraser.event(row.kind, row.body)
            _note(self._redaction.events, str(row.seq), paths)
            if paths:
                row = msgspec.structs.replace(row, body=body)
        line = msgspec.json.encode(EventLine.of(row))
        if b"\n" in line:
            refuse("unreadable", f"event {row.seq} is not written as Kairos writes them; it cannot be exported")
        return line

    def _run(self) -> Run:
        """The head; of what was blanked in its labels and its key, blanked too."""
        state, head = self._record.state, self._record.rows[-1].hash
        if not self._eraser.is_active:
            return Run.of(state, head)
        first = self._record.rows[0]
        body, _ = self._eraser.event(first.kind, first.body)
        scheduled = decode(msgspec.structs.replace(first, body=body))
        blanked = project(state.run_id, state.graph, [scheduled])
        state = msgspec.structs.replace(state, key=blanked.key, labels=blanked.labels)
        return Run.of(state, head)

    def _put(self, name: str, raw: bytes) -> None:
        most = CAPS.events if name == EVENTS else CAPS.entry
        if len(raw) > most:
            refuse("too_large", f"{name} would take {len(raw):,} bytes; a bundle may hold {most:,}", _TOO_LARGE)
        info = ZipInfo(name, _EPOCH)
        info.create_system, info.external_attr = 3, 0o600 << 16
        info.compress_type = ZIP_STORED if _is_dense(raw) else ZIP_DEFLATED
        self._zip.writestr(info, raw, compresslevel=LEVEL)
        self._entries[name] = Entry(len(raw), sha256(raw).hexdigest())

    def _seal(self) -> int:
        file = self._file
        size = file.seek(0, os.SEEK_END)
        seal = seal_of(file.file, size - SEAL_SIZE)
        file.seek(size - SEAL_SIZE)
        file.write(seal)
        file.flush()
        os.fsync(file.fileno())
        return size


_TOO_LARGE: Final = "Export it without its values: `kairos export RUN --no-payloads`."


def check_history(record: RunRecord) -> None:
    """Raise HistoryError unless the log is whole: what is exported must be worth reading."""
    if not record.rows:
        raise HistoryError(f"run {record.run_id} has no events")
    report, problem = Report(), None
    try:
        head = Run.of(record.state, record.rows[-1].hash).to_head(record.state.status.is_terminal)
        check_run(head, record.rows, record.definition, report, redacted=record.redactions.events)
    except KairosError as exc:
        problem = exc.message
    if report.problems or problem:
        raise HistoryError(
            f"run {record.run_id} is not exported, its history is not whole: {problem or report.problems[0].message}",
            hint=f"`kairos verify {record.run_id}` says more.",
        )


def _carried(record: RunRecord, eraser: Eraser) -> Redaction:
    """What was redacted before, if the run comes out of a bundle."""
    before = record.redactions
    return Redaction(
        fields=sorted(eraser.rules.fields),
        patterns=eraser.pattern_count,
        payloads=eraser.payloads,
        events={str(seq): Blanked(list(paths), len(paths)) for seq, paths in before.events.items()},
        blobs={digest: Blanked(list(paths), len(paths)) for digest, paths in before.blobs.items()},
        omitted=dict(before.omitted),
    )


def _note(into: dict[str, Blanked], name: str, paths: Sequence[str]) -> None:
    if paths:
        merged = list(dict.fromkeys([*(into[name].paths if name in into else ()), *paths]))
        into[name] = Blanked(merged[:MAX_PATHS], len(merged))


def _is_dense(raw: bytes) -> bool:
    """Whether a value would be packed so well that it looked like an attack: then it stays as it is."""
    return len(raw) > MEBI and len(raw) > CAPS.ratio * 0.9 * len(zlib.compress(raw, LEVEL))


def _put_in_place(made: Path, path: Path, force: bool) -> None:
    if force:
        made.replace(path)
        return
    try:
        # Unlike a rename it fails if somebody else has made the file meanwhile.
        os.link(made, path)
    except FileExistsError:
        _refuse_existing(path)
    except OSError:  # a file system without links
        if path.exists():
            _refuse_existing(path)
        made.replace(path)


def _refuse_existing(path: Path) -> None:
    refuse("exists", f"{path} is there already", "Add --force to replace it, or name another file with -o.")
