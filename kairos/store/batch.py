"""Collects what a flush writes, column by column, and hands it over as the parameters of one statement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from msgspec import Struct

from kairos.domain.payload import Payload
from kairos.domain.states import ENDED
from kairos.store import arrays
from kairos.store.codec import Row
from kairos.store.drive import OpenRun

NOTICE_LIMIT = 200
"""Most ids in one NOTIFY (its payload must stay under 8,000 bytes); beyond that the notice is `*`."""


class Staged(Struct, gc=False):
    """What one run adds in a flush: rows that follow `expected`, and the head as it will be."""

    run: OpenRun
    expected: int
    rows: list[Row]


@dataclass(slots=True)
class Batch:
    """The columns of a flush. Add each run at most once."""

    staged: list[Staged] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def add(self, run: OpenRun, expected: int, rows: list[Row]) -> None:
        """Stage the rows that bring `run` from seq `expected` to where it is now."""
        self.staged.append(Staged(run, expected, rows))

    def add_blob(self, payload: Payload) -> None:
        """Remember the bytes of a payload that is too long to be inline."""
        if payload.sha256 is not None and payload.data is not None:
            self.blobs[payload.sha256] = payload.data

    def add_blobs(self, *payloads: Payload | None) -> None:
        """The same for several, some of which may be missing."""
        for payload in payloads:
            if payload is not None:
                self.add_blob(payload)

    def blob_params(self) -> dict[str, Any]:
        """Parameters of `put_blobs`."""
        return {
            "digests": arrays.byteas([bytes.fromhex(d) for d in self.blobs]),
            "datas": arrays.byteas(list(self.blobs.values())),
        }

    def params(self) -> dict[str, Any]:
        """Parameters of `flush`. Built once: a lost reply is resolved by sending these very bytes again."""
        # Ascending ids: the order in which heads are locked everywhere.
        by_id = {staged.run.state.run_id.bytes: staged for staged in self.staged}
        ids = sorted(by_id)
        return _params(ids, [by_id[run_id] for run_id in ids])


def _params(ids: Sequence[bytes], items: Sequence[Staged]) -> dict[str, Any]:
    rows: list[Row] = []
    run_ids: list[bytes] = []
    for run_id, item in zip(ids, items, strict=True):
        rows += item.rows
        run_ids += [run_id] * len(item.rows)
    states = [item.run.state for item in items]
    ended = [state.run_id for state in states if state.status in ENDED]
    return {
        "ids": arrays.uuids_of(ids),
        "count": len(items),
        "expected": arrays.int4s([item.expected for item in items]),
        "seqs": arrays.int4s([state.seq for state in states]),
        "hashes": arrays.byteas([item.run.head_hash for item in items]),
        "epochs": arrays.int8s_or_null([item.run.epoch for item in items]),
        "statuses": arrays.texts([state.status for state in states]),
        "run_ids": arrays.uuids_of(run_ids),
        "event_seqs": arrays.int4s([row.seq for row in rows]),
        "kinds": arrays.texts([row.kind for row in rows]),
        "ats": arrays.timestamps([row.at for row in rows]),
        "steps": arrays.texts_or_null([row.step for row in rows]),
        "attempts": arrays.int4s_or_null([row.attempt for row in rows]),
        "tokens": arrays.int8s_or_null([row.token for row in rows]),
        "event_hashes": arrays.byteas([row.hash for row in rows]),
        "bodies": arrays.byteas([row.body for row in rows]),
        "ended": arrays.uuids(ended),
        "notice": notice(ended),
    }


def notice(ended: Iterable[UUID]) -> str:
    """The payload that tells waiting clients which runs ended; empty for none."""
    ids = [run_id.hex for run_id in ended]
    return "*" if len(ids) > NOTICE_LIMIT else ",".join(ids)
