"""All that is known of one run, wherever it was read: what replay, comparison and export work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID

from kairos.domain.events import Recorded
from kairos.domain.fingerprint import Definition
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState, project
from kairos.errors import HistoryError
from kairos.store.codec import Row, decode
from kairos.store.proof import payloads_of


@dataclass(frozen=True, slots=True)
class Redactions:
    """What was blanked when a bundle was written; empty for a run that was read from the database.

    Attributes:
        events: seq -> paths of what was blanked in that event's body (`output.card`).
        blobs: digest -> paths of what was blanked in that value; its bytes no longer have this digest.
        omitted: digest -> size in bytes of values that were left out.
    """

    events: Mapping[int, Sequence[str]] = field(default_factory=dict)
    blobs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    omitted: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.events or self.blobs or self.omitted)


@dataclass(frozen=True)
class RunRecord:
    """One run: its log as stored, what it is pinned to, and the bytes that its events refer to.

    Attributes:
        blobs: digest -> bytes of every value that stands in none of the run's own events. Of a bundle: read from
            the file, and checked, when they are asked for.
        source: where it was read: `database`, or the path of a bundle.
        redactions: what is not as it was recorded.
    """

    run_id: UUID
    fingerprint: str
    definition: Definition
    rows: Sequence[Row]
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    source: str = "database"
    redactions: Redactions = field(default_factory=Redactions)

    @cached_property
    def history(self) -> list[Recorded]:
        """The events, oldest first. Raises HistoryError if one cannot be read."""
        return [decode(row) for row in self.rows]

    @cached_property
    def state(self) -> RunState:
        """The fold of all events."""
        return project(self.run_id, self.definition.graph, self.history)

    def bytes_of(self, payload: Payload) -> bytes:
        """The bytes of a value that this run's events hold or refer to. Raises HistoryError if they are not here."""
        raw = payload.data if payload.data is not None else self.blobs.get(payload.digest)
        if raw is None:
            what = f"run {self.run_id}: the value {payload.digest[:12]} ({payload.size:,} bytes)"
            if payload.digest in self.redactions.omitted:
                raise HistoryError(
                    f"{what} was left out of {self.source}",
                    hint="The bundle was written with --no-payloads; export the run again without it.",
                )
            raise HistoryError(f"{what} is not in {self.source}")
        return raw

    def is_redacted(self, seq: int, payload: Payload) -> bool:
        """Whether a value of event `seq` is not what was recorded: blanked, or left out."""
        if payload.inline is not None:
            return seq in self.redactions.events
        return payload.digest in self.redactions.blobs or payload.digest in self.redactions.omitted

    @cached_property
    def referred(self) -> Mapping[str, Payload]:
        """Digest -> every value that the events refer to but do not hold."""
        payloads = (payload for recorded in self.history for payload in payloads_of(recorded.event))
        return {payload.digest: payload for payload in payloads if payload.inline is None}
