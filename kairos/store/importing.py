"""Takes a run that comes out of a file into the log, as evidence: readable and provable here, worked on by nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import psycopg

from kairos.domain import canonical
from kairos.domain.events import Recorded, RunForked, output_in
from kairos.domain.fingerprint import Definition
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState
from kairos.errors import BundleError
from kairos.store import arrays
from kairos.store.batch import Batch
from kairos.store.codec import Row, decode, first_hash
from kairos.store.connect import Session
from kairos.store.drive import OpenRun
from kairos.store.history import Conn, failure_row, flush, put_definition
from kairos.store.queries import query

Outcome = Literal["imported", "extended", "known"]
"""`extended`: a shorter part of the same history had been imported before. `known`: all of it is there already."""


@dataclass(frozen=True, slots=True)
class Import:
    """A run to take in; its history was proved already.

    Attributes:
        inherited: what it inherited from other runs; those must be here.
        file: name of the file that it comes from; `sha256`: of its bytes.
    """

    state: RunState
    rows: Sequence[Row]
    history: Sequence[Recorded]
    definition: Definition
    inherited: Sequence[Payload]
    file: str
    sha256: bytes


async def put_blobs(session: Session, blobs: Mapping[str, bytes]) -> None:
    """Store values by digest, before the events that refer to them."""
    params = {
        "digests": arrays.byteas([bytes.fromhex(digest) for digest in blobs]),
        "datas": arrays.byteas(list(blobs.values())),
    }
    await session.execute("put_blobs", params)


async def import_run(session: Session, wanted: Import) -> Outcome:
    """Take it in, in one transaction. Its values must be there. The same import again changes nothing.

    Raises:
        BundleError: a run with this id has another history here, or what it inherited from is not here.
    """
    return await session.run(lambda conn: _import(conn, wanted))


async def _import(conn: Conn, wanted: Import) -> Outcome:
    run_id = wanted.state.run_id
    async with conn.transaction():
        await _require_origins(conn, wanted)
        await put_definition(conn, wanted.state.fingerprint, wanted.definition)
        created = await (await conn.execute(query("import_head"), _head(wanted.state))).fetchone()
        before, outcome = (0, "imported") if created is not None else await _existing(conn, wanted)
        if before == len(wanted.rows) or outcome == "known":
            return "known"
        batch = Batch()
        run = OpenRun(wanted.state, wanted.rows[-1].hash)
        batch.add(run, before, list(wanted.rows[before:]))
        committed, _ = await flush(conn, batch.params())
        if committed is not None:
            raise psycopg.errors.SerializationFailure(f"the head of run {run_id} moved while it was imported")
        await _put_what_follows(conn, wanted)
        return "imported" if outcome == "imported" else "extended"


async def _existing(conn: Conn, wanted: Import) -> tuple[int, str]:
    """How many of its events are here already, and whether that is all that may be here."""
    run_id = wanted.state.run_id
    row = await (await conn.execute(query("lock_head"), {"run_id": run_id})).fetchone()
    assert row is not None
    _, last_seq, _, _, _, is_imported = row
    common = min(last_seq, len(wanted.rows))
    params = {"run_id": run_id, "seq": common}
    found = await (await conn.execute(query("hash_at"), params)).fetchone()
    if found is None or bytes(found[0]) != wanted.rows[common - 1].hash:
        raise BundleError(
            f"run {run_id} is here with another history: event {common} differs",
            hint=f"Compare the two: kairos diff {run_id} {wanted.file}",
            code="exists",
        )
    if last_seq >= len(wanted.rows):
        return last_seq, "known"
    if not is_imported:
        raise BundleError(
            f"run {run_id} is at home here and has {last_seq} of these {len(wanted.rows)} events: it is not overtaken",
            hint=f"Was this database restored from a backup? `kairos show {wanted.file}` reads the file as it is.",
            code="exists",
        )
    return last_seq, "extended"


async def _require_origins(conn: Conn, wanted: Import) -> None:
    """A fork refers to outputs in other runs: they must be here, with the values that it refers to."""
    forked = wanted.state.forked
    origins = {payload.origin: payload for payload in wanted.inherited if payload.origin is not None}
    params = {"run_ids": [UUID(run) for run, _ in origins], "seqs": [seq for _, seq in origins]}
    rows = await (await conn.execute(query("get_events_at"), params)).fetchall() if origins else []
    held = {(str(row[0]), row[1]): _output(Row(*row[1:])) for row in rows}
    missing = [place[0] for place, payload in origins.items() if held.get(place) != payload.digest]
    if forked is not None:
        there = await (await conn.execute(query("read_head"), {"run_id": UUID(forked.parent)})).fetchone()
        missing += [] if there is not None else [forked.parent]
    if missing:
        raise BundleError(
            f"run {wanted.state.run_id} is a fork of run {missing[0]}, which is not here, or has other outputs here",
            hint=f"Import that one first: `kairos export {missing[0]}` where it is at home.",
            code="parent",
        )


def _output(row: Row) -> str | None:
    output = output_in(decode(row).event, row.step or "")
    return None if output is None else output.digest


async def _put_what_follows(conn: Conn, wanted: Import) -> None:
    state = wanted.state
    failure = failure_row(state, (recorded.event for recorded in wanted.history))
    if failure is not None:
        await conn.execute(query("put_failures"), failure)
    run_id = state.run_id
    await conn.execute(query("put_import"), {"run_id": run_id, "file": wanted.file, "sha256": wanted.sha256})
    await conn.execute(query("hold_run"), {"run_id": run_id, "reason": f"imported from {wanted.file}"})
    if (await (await conn.execute(query("is_fork"), {"run_id": run_id})).fetchone()) == (False,):
        await _put_fork(conn, wanted)


async def _put_fork(conn: Conn, wanted: Import) -> None:
    for recorded in wanted.history:
        event = recorded.event
        if isinstance(event, RunForked):
            params = {
                "run_id": wanted.state.run_id,
                "parent_id": UUID(event.parent),
                "root_id": UUID(event.root),
                "parent_seq": event.parent_seq,
                "from_step": event.from_step,
                "at": recorded.at,
                "author": event.author,
                "reason": event.reason,
            }
            await conn.execute(query("put_fork"), params)
            needed = {event.parent, *_runs(wanted.inherited)}
            holder = {"holder": wanted.state.run_id, "run_ids": sorted(UUID(run) for run in needed)}
            await conn.execute(query("hold_for_fork"), holder)


def _runs(payloads: Iterable[Payload]) -> set[str]:
    return {payload.origin[0] for payload in payloads if payload.origin is not None}


def _head(state: RunState) -> dict[str, object]:
    labels = canonical.encode_trusted(dict(state.labels)).decode() if state.labels else None
    return {
        "id": state.run_id,
        "created_at": state.scheduled_at,
        "workflow": state.workflow,
        "fingerprint": state.fingerprint,
        "queue": state.queue,
        "priority": state.priority,
        "key": state.key,
        "labels": labels,
        "hash": first_hash(state.run_id),
    }
