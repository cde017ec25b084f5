"""Reads a run out of the database as a record. Reads only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from uuid import UUID

from kairos.domain.events import StepDone, StepOverridden
from kairos.domain.payload import Payload
from kairos.errors import HistoryError, RunNotFound
from kairos.replay.record import RunRecord
from kairos.store.codec import Row, decode

if TYPE_CHECKING:
    from kairos.store.reader import Reader  # with the database driver, which a replay from a file does without

BATCH_BYTES: Final = 16 * 1024 * 1024
"""Values are read in groups of about this size: a run may have more of them than fit into memory."""
BATCH: Final = 500


async def read_record(reader: Reader, run_id: UUID) -> RunRecord:
    """A run as it stands now, with every value that it refers to in memory.

    Raises:
        RunNotFound: no such run.
        HistoryError: its log cannot be read, or a value is missing or was changed.
    """
    record = await read_log(reader, run_id)
    blobs = {digest: raw async for digest, raw in read_values(reader, record)}
    return RunRecord(record.run_id, record.fingerprint, record.definition, record.rows, blobs)


async def read_log(reader: Reader, run_id: UUID) -> RunRecord:
    """As `read_record`, without the values: for runs that are passed on piece by piece."""
    info = await reader.run(run_id)
    definition = await reader.session.run(lambda conn: reader.definitions.get(conn, info.fingerprint))
    return RunRecord(run_id, info.fingerprint, definition, await reader.rows(run_id))


async def find_last_good(reader: Reader, workflow: str, run_id: UUID) -> UUID:
    """The last run of a workflow that is DONE: before this one, else after it. Raises RunNotFound if there is none."""
    for before in (run_id, None):
        for info in await reader.list_runs(workflow=workflow, statuses=["DONE"], before=before, limit=2):
            if info.id != run_id:
                return info.id
    raise RunNotFound(
        f"no other run of {workflow!r} is DONE, so there is nothing to compare with",
        hint=f"`kairos runs --workflow {workflow}` lists them.",
    )


async def read_values(
    reader: Reader, record: RunRecord, wanted: Collection[str] | None = None
) -> AsyncIterator[tuple[str, bytes]]:
    """The values that a run's events refer to, in order of digest, each checked; some MB in memory at once.

    Args:
        wanted: only the values with these digests.
    """
    digests = record.referred.keys() if wanted is None else record.referred.keys() & set(wanted)
    for group in _groups(record.referred[digest] for digest in sorted(digests)):
        found = await reader.payloads(payload for payload in group if payload.origin is None or payload.sha256)
        found |= await _inherited(reader, [p for p in group if p.origin is not None and not p.sha256])
        for payload in group:
            raw = found.get(payload.digest)
            if raw is None or sha256(raw).hexdigest() != payload.digest:
                what = "is missing" if raw is None else "was changed"
                raise HistoryError(
                    f"run {record.run_id}: the value {payload.digest[:12]} {what}",
                    hint=f"`kairos verify {record.run_id}` says more.",
                )
            yield payload.digest, raw


async def _inherited(reader: Reader, payloads: Sequence[Payload]) -> dict[str, bytes]:
    """Short values that stand in events of the runs from which they were inherited."""
    places = [payload.origin for payload in payloads if payload.origin is not None]
    params = {"run_ids": [UUID(run) for run, _ in places], "seqs": [seq for _, seq in places]}
    rows = await reader.session.execute("get_events_at", params) if places else []
    events = (decode(Row(*row[1:])).event for row in rows)
    outputs = [event.output for event in events if isinstance(event, StepDone | StepOverridden)]
    return {output.digest: output.inline for output in outputs if output.inline is not None}


def _groups(payloads: Iterable[Payload]) -> Iterable[list[Payload]]:
    group: list[Payload] = []
    size = 0
    for payload in payloads:
        if group and (size + payload.size > BATCH_BYTES or len(group) == BATCH):
            yield group
            group, size = [], 0
        group.append(payload)
        size += payload.size
    if group:
        yield group
