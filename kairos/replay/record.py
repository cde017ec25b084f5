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


@dataclass(frozen=True)
class RunRecord:
    """One run: its log as stored, what it is pinned to, and the bytes that its events refer to.

    Attributes:
        blobs: digest -> bytes of every value that stands in none of the run's own events.
        source: where it was read: `database`, or the path of a bundle.
    """

    run_id: UUID
    fingerprint: str
    definition: Definition
    rows: Sequence[Row]
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    source: str = "database"

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
            raise HistoryError(f"run {self.run_id}: payload {payload.digest[:12]} is not in {self.source}")
        return raw
