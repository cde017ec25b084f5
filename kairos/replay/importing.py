"""Brings a bundle into a database, as evidence."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Final
from uuid import UUID

from kairos.errors import BundleError
from kairos.replay.bundle import open_bundle
from kairos.replay.record import RunRecord
from kairos.store.connect import Session
from kairos.store.importing import Import, Outcome, import_run, put_blobs

BATCH_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: see `Outcome`. `status`: of the run in the file."""

    run_id: UUID
    workflow: str
    status: str
    events: int
    outcome: Outcome


async def import_bundle(session: Session, path: Path) -> Imported:
    """Take the run of a bundle into the database, under its own id.

    It can be looked at, compared, verified, replayed and forked there. No worker ever takes it up, even if it had not
    ended; retention leaves it alone until somebody releases it.

    Raises:
        BundleError: the file cannot be trusted, something of it was redacted, the run is there with another history,
            or it is a fork whose parent is not there.
    """
    record = open_bundle(path)
    if record.redactions:
        raise BundleError(
            f"{path} was redacted: its history can be read, but not proved",
            hint=f"Look at the file itself: kairos show {path}",
            code="redacted",
        )
    await _put_values(session, record)
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").digest()
    state = record.state
    inherited = [payload for payload in record.referred.values() if payload.origin is not None]
    wanted = Import(state, record.rows, record.history, record.definition, inherited, path.name[:200], digest)
    outcome = await import_run(session, wanted)
    return Imported(record.run_id, state.workflow, state.status.value, len(record.rows), outcome)


async def _put_values(session: Session, record: RunRecord) -> None:
    group: dict[str, bytes] = {}
    size = 0
    for digest, payload in record.referred.items():
        if payload.sha256 is None:
            continue  # it stands in the event of another run
        group[digest] = record.bytes_of(payload)
        size += payload.size
        if size > BATCH_BYTES:
            await put_blobs(session, group)
            group, size = {}, 0
    if group:
        await put_blobs(session, group)
