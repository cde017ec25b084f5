"""The parts of a bundle file, and the most that any of them may take.

A bundle is a zip of `manifest.json`, `definition.json`, `events.ndjson` and `blobs/<sha256>`, sealed by its comment:
a sha256 over every byte before the comment's text. It is data only: nothing in it is ever run, and nothing is
unpacked to disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Raw, Struct, field

from kairos.domain.projection import RunState
from kairos.store.codec import Row, micros_of, moment_of
from kairos.store.proof import Head

FORMAT: Final = "kairos-bundle"
VERSION: Final = 1
SUFFIX: Final = ".kairos"
MANIFEST: Final = "manifest.json"
DEFINITION: Final = "definition.json"
EVENTS: Final = "events.ndjson"
BLOBS: Final = "blobs/"
ENTRY: Final = re.compile(r"manifest\.json|definition\.json|events\.ndjson|blobs/[0-9a-f]{64}")
SEAL: Final = b"kairos bundle, sha256 of all before this comment: "
SEAL_SIZE: Final = len(SEAL) + 64
MEBI: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What a bundle may take, in bytes as unpacked; checked before anything is unpacked.

    `ratio`: how many times larger than in the file an entry over 1 MiB may become.
    """

    entries: int = 200_000
    total: int = 4096 * MEBI
    events: int = 1024 * MEBI
    entry: int = 65 * MEBI
    ratio: int = 200


CAPS: Final = Caps()


class Run(Struct, frozen=True, forbid_unknown_fields=True):
    """The head of the run when it was exported. `created_at` in microseconds since 1970; `head_hash` in hex."""

    id: UUID
    workflow: str
    fingerprint: str
    status: str
    created_at: int
    queue: str
    priority: int
    key: str | None
    labels: dict[str, str]
    last_seq: int
    head_hash: str
    parent: UUID | None = None

    @classmethod
    def of(cls, state: RunState, head_hash: bytes) -> Run:
        """The head that a folded log has."""
        created_at = 0 if state.scheduled_at is None else micros_of(state.scheduled_at)
        return cls(
            state.run_id, state.workflow, state.fingerprint, state.status.value, created_at, state.queue,
            state.priority, state.key, dict(sorted(state.labels.items())), state.seq, head_hash.hex(),
            None if state.forked is None else UUID(state.forked.parent),
        )  # fmt: skip

    def to_head(self, is_terminal: bool) -> Head:
        """As the database would hold it, if it held it as it must."""
        return Head(
            run_id=self.id,
            created_at=moment_of(self.created_at),
            workflow=self.workflow,
            fingerprint=self.fingerprint,
            queue=self.queue,
            priority=self.priority,
            key=self.key,
            labels=self.labels,
            last_seq=self.last_seq,
            head_hash=bytes.fromhex(self.head_hash),
            status=self.status,
            newest=self.last_seq,
            tasks=() if is_terminal else ("",),
            failure=self.status if is_terminal and self.status != "DONE" else None,
            parent=self.parent,
        )


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """One entry: its size in bytes and the sha256 of its bytes, in hex."""

    size: int
    sha256: str


class Blanked(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a part was blanked: at most `MAX_PATHS` paths, and how many there are."""

    paths: list[str]
    count: int


class Redaction(Struct, frozen=True, forbid_unknown_fields=True):
    """What is not as it was recorded. Its original hashes stand in the events and in the names of the blobs.

    `fields` and `patterns`: what was asked for (of patterns the number only: one may tell what it hides).
    `events`: by seq; `blobs`: by digest; `omitted`: digest -> size of values that were left out.
    """

    fields: list[str] = field(default_factory=list)
    patterns: int = 0
    payloads: bool = True
    events: dict[str, Blanked] = field(default_factory=dict)
    blobs: dict[str, Blanked] = field(default_factory=dict)
    omitted: dict[str, int] = field(default_factory=dict)


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says of itself. `kairos`: the version that wrote it."""

    format: str
    version: int
    kairos: str
    run: Run
    events: int
    blobs: int
    entries: dict[str, Entry]
    redaction: Redaction


class Stamp(Struct, frozen=True):
    """The part of a manifest that every version has."""

    format: str
    version: int


class EventLine(Struct, frozen=True, forbid_unknown_fields=True):
    """One event as one line. `at` in microseconds since 1970, `hash` in hex, `body` the very bytes that are hashed."""

    seq: int
    kind: str
    at: int
    step: str | None
    attempt: int | None
    token: int | None
    hash: str
    body: Raw

    @classmethod
    def of(cls, row: Row) -> EventLine:
        """The line of a row."""
        return cls(
            row.seq, row.kind, micros_of(row.at), row.step, row.attempt, row.token, bytes(row.hash).hex(),
            Raw(bytes(row.body)),
        )  # fmt: skip

    def to_row(self) -> Row:
        """The row of a line. Raises ValueError or OverflowError if it cannot be one."""
        digest = bytes.fromhex(self.hash)
        if len(digest) != 32:
            raise ValueError("its hash is not one")
        body = bytes(self.body)
        return Row(self.seq, self.kind, moment_of(self.at), self.step, self.attempt, self.token, digest, body)


def to_json(value: Any) -> bytes:
    """Readable JSON, the same for the same value."""
    return msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=1) + b"\n"


def blob_name(digest: str) -> str:
    """The entry of a value."""
    return f"{BLOBS}{digest}"


def as_mapping(items: Mapping[str, Blanked]) -> dict[str, tuple[str, ...]]:
    """Name -> paths."""
    return {name: tuple(item.paths) for name, item in items.items()}
