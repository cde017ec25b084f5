"""Opens bundles: every digest, the hash chain and the rules are checked before anybody sees an event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec

from kairos.domain import canonical
from kairos.domain.fingerprint import Definition, forged_sources
from kairos.domain.fingerprint import fingerprint as fingerprint_of
from kairos.domain.states import ENDED, RunStatus
from kairos.errors import BundleError, KairosError
from kairos.replay.bundle.container import HOSTILE, Blobs, Container, blob_places, refuse
from kairos.replay.bundle.erasing import marks
from kairos.replay.bundle.layout import (
    BLOBS,
    CAPS,
    DEFINITION,
    EVENTS,
    FORMAT,
    MANIFEST,
    VERSION,
    Caps,
    EventLine,
    Manifest,
    Stamp,
    blob_name,
)
from kairos.replay.record import Redactions, RunRecord
from kairos.store.codec import Row
from kairos.store.proof import Report, check_run

T = TypeVar("T")
_LINE: Final = msgspec.json.Decoder(EventLine)


@dataclass(frozen=True, slots=True)
class BundleReport:
    """What `verify_bundle` found out about a file.

    Attributes:
        problem: why it cannot be trusted; None if it is whole.
        code: the same in one word, for programs: `no_file`, `foreign`, `too_large`, `future`, `changed`, `broken`,
            `missing`, `unreadable`, `history`.
        seq: the event concerned, if it is about one.
        kairos: the version that wrote the file.
        redacted: events and values that are not as they were recorded, by what the file says itself; the hash chain
            links across them, but what they hold cannot be proved.
    """

    path: Path
    run_id: UUID | None = None
    workflow: str = ""
    status: str = ""
    kairos: str = ""
    events: int = 0
    values: int = 0
    redactions: Redactions = field(default_factory=Redactions)
    problem: str | None = None
    code: str | None = None
    seq: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing was found."""
        return self.problem is None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        redactions = self.redactions
        return {
            "ok": self.is_whole,
            "file": str(self.path),
            "run_id": None if self.run_id is None else str(self.run_id),
            "workflow": self.workflow,
            "status": self.status,
            "kairos": self.kairos,
            "events": self.events,
            "values": self.values,
            "redacted": {
                "events": {str(seq): list(paths) for seq, paths in redactions.events.items()},
                "values": {digest: list(paths) for digest, paths in redactions.blobs.items()},
                "omitted": dict(redactions.omitted),
            },
            "problem": None if self.is_whole else {"code": self.code, "message": self.problem, "seq": self.seq},
        }


def open_bundle(path: str | Path, *, caps: Caps = CAPS) -> RunRecord:
    """Read a bundle. The file must stay where it is as long as its values are wanted.

    Raises:
        BundleError: it is not a bundle, broken, changed, too large, of a newer version, or its history is not whole.
    """
    return _open(Path(path).absolute(), caps)[1]


def read_bundle(path: str | Path, *, caps: Caps = CAPS) -> tuple[BundleReport, RunRecord]:
    """As `open_bundle`, with what was found out about the file beside it. Raises BundleError."""
    path = Path(path).absolute()
    manifest, record = _open(path, caps)
    return _report(path, manifest, record), record


def verify_bundle(path: str | Path, *, caps: Caps = CAPS) -> BundleReport:
    """Check a bundle, offline: container, caps, every digest, hash chain, rules, fold. Raises nothing."""
    path = Path(path).absolute()
    try:
        manifest, record = _open(path, caps)
    except BundleError as exc:
        return BundleReport(path, problem=exc.message, code=exc.facts.get("code", "history"), seq=exc.facts.get("seq"))
    return _report(path, manifest, record)


def _report(path: Path, manifest: Manifest, record: RunRecord) -> BundleReport:
    run = manifest.run
    return BundleReport(
        path, run.id, run.workflow, run.status, manifest.kairos, manifest.events, manifest.blobs, record.redactions
    )


def _open(path: Path, caps: Caps) -> tuple[Manifest, RunRecord]:
    with Container(path, caps) as container:
        manifest = _read_manifest(container)
        for name, entry in manifest.entries.items():
            container.check(name, entry)
        definition = _read_definition(container, manifest)
        rows = _read_events(container, manifest)
        digests = [name.removeprefix(BLOBS) for name in manifest.entries if name.startswith(BLOBS)]
        entries = {digest: manifest.entries[blob_name(digest)] for digest in digests}
        blobs = Blobs(path, blob_places(container.places(), iter(digests)), entries)
    redactions = _redactions(path, manifest)
    run = manifest.run
    record = RunRecord(run.id, run.fingerprint, definition, rows, blobs, str(path), redactions)
    try:
        _check(path, manifest, record)
    except BundleError:
        raise
    except (*HOSTILE, KairosError) as exc:
        # A fold is not made for bodies that no Kairos has ever written.
        refuse("history", f"{path}: its history cannot be read: {exc}")
    return manifest, record


def _read_manifest(container: Container) -> Manifest:
    path, raw = container.path, container.read(MANIFEST, container.caps.entry)
    stamp = _parse(path, MANIFEST, partial(msgspec.json.decode, raw, type=Stamp))
    if stamp.format != FORMAT:
        refuse("foreign", f"{path} is not a bundle: it says that it is a {stamp.format[:40]!r}")
    if stamp.version != VERSION:
        refuse(
            "future",
            f"{path} is a bundle of format {stamp.version}; this version of Kairos reads format {VERSION}",
            "Upgrade Kairos: a newer version wrote this file.",
        )
    manifest: Manifest = _parse(path, MANIFEST, partial(msgspec.json.decode, raw, type=Manifest))
    listed, there = manifest.entries.keys(), container.infos.keys() - {MANIFEST}
    for name in sorted(listed ^ there)[:1]:
        state = "has {}, which its manifest does not list" if name in there else "lacks {}, which its manifest lists"
        refuse("missing", f"{path} {state.format(ascii(name)[:90])}", entry=name)
    return manifest


def _read_definition(container: Container, manifest: Manifest) -> Definition:
    raw = container.read(DEFINITION, container.caps.entry)
    definition = _parse(container.path, DEFINITION, lambda: Definition.from_json(canonical.decode(raw)))
    found = _parse(container.path, DEFINITION, lambda: fingerprint_of(definition))
    if found != manifest.run.fingerprint:
        refuse("changed", f"{container.path}: its definition was changed: it has fingerprint {found}")
    forged = _parse(container.path, DEFINITION, lambda: forged_sources(definition))
    if forged:
        refuse("changed", f"{container.path}: the source of step {ascii(forged[0])[:80]} is not the one that ran")
    return definition


def _read_events(container: Container, manifest: Manifest) -> list[Row]:
    rows: list[Row] = []
    for line in container.lines(EVENTS):
        number = len(rows) + 1
        rows.append(_parse(container.path, f"event {number}", partial(_row, line)))
    if len(rows) != manifest.events:
        refuse("missing", f"{container.path}: it has {len(rows)} events, its manifest says {manifest.events}")
    return rows


def _row(line: bytes) -> Row:
    return _LINE.decode(line).to_row()


def _parse(path: Path, what: str, work: Callable[[], T]) -> T:
    try:
        return work()
    except (*HOSTILE, KairosError) as exc:  # msgspec's errors are ValueErrors
        refuse("unreadable", f"{path}: {what} cannot be read: {exc}")


def _redactions(path: Path, manifest: Manifest) -> Redactions:
    redaction = manifest.redaction
    for name in redaction.events:
        if not name.isascii() or not name.isdigit() or not 0 < int(name[:12]) <= manifest.events:
            refuse("unreadable", f"{path}: its manifest says that event {ascii(name)[:40]} was redacted")
    for digest in redaction.blobs:
        if blob_name(digest) not in manifest.entries:
            refuse("unreadable", f"{path}: its manifest says that value {ascii(digest)[:40]} was redacted")
    return Redactions(
        {int(name): tuple(item.paths) for name, item in redaction.events.items()},
        {digest: tuple(item.paths) for digest, item in redaction.blobs.items()},
        redaction.omitted,
    )


def _check(path: Path, manifest: Manifest, record: RunRecord) -> None:
    is_terminal = RunStatus(manifest.run.status) in ENDED
    report = Report()
    head = manifest.run.to_head(is_terminal)
    payloads = check_run(head, record.rows, record.definition, report, redacted=record.redactions.events)
    if report.problems:
        problem = report.problems[0]
        refuse("history", f"{path}: its history is not whole: {problem.message}", seq=problem.seq)
    wanted = {payload.digest: (seq, payload) for _, seq, payload in payloads if payload.inline is None}
    redactions = record.redactions
    for digest, (seq, payload) in wanted.items():
        entry = manifest.entries.get(blob_name(digest))
        if entry is None and digest not in redactions.omitted:
            refuse("missing", f"{path}: the value {digest[:12]} of event {seq} is not in it", seq=seq)
        if (
            entry is not None
            and digest not in redactions.blobs
            and (entry.sha256, entry.size) != (digest, payload.size)
        ):
            refuse("changed", f"{path}: the value {digest[:12]} of event {seq} was changed", seq=seq)
    for name in manifest.entries:
        if name.startswith(BLOBS) and name.removeprefix(BLOBS) not in wanted:
            refuse("foreign", f"{path} holds {name[:24]}, which no event refers to")
    _check_marks(path, record)


def _check_marks(path: Path, record: RunRecord) -> None:
    """What is said to be blanked must look so: a changed event cannot pass for a redacted one unless it is one."""
    rows = {row.seq: row.body for row in record.rows}
    events = ((f"event {seq}", rows[seq], paths) for seq, paths in record.redactions.events.items())
    blobs = ((f"value {d[:12]}", record.blobs[d], paths) for d, paths in record.redactions.blobs.items())
    for what, raw, paths in chain(events, blobs):
        there = set(marks(canonical.decode(raw)))
        if not paths or not there.issuperset(paths):
            refuse("changed", f"{path}: {what} is listed as redacted, but was changed where nothing is blanked")
