"""Loads runs from the log and appends to it. The only module that writes to `event`.

There are two ways to append, and one `decide`. The owner of a run stages what its steps did and flushes many
runs in one statement (`flush`). Everybody else locks the head, loads, decides and appends (`advance`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from kairos.domain import canonical
from kairos.domain.commands import Command, Refusal
from kairos.domain.events import EffectRecorded, Event, RunCancelled, RunExpired, RunFailed, StepDone, StepOverridden
from kairos.domain.fingerprint import Definition
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState, apply
from kairos.domain.states import ENDED
from kairos.errors import HistoryError, Refused, RunNotFound, StaleWrite
from kairos.store.batch import Batch
from kairos.store.codec import Row, decode, first_hash
from kairos.store.drive import OpenRun, drive
from kairos.store.failpoints import failpoint
from kairos.store.queries import query

NO_LIMIT = 2**31 - 1

Conn = AsyncConnection[Any]


class Definitions:
    """Definitions by fingerprint, read once and kept: they never change."""

    def __init__(self) -> None:
        self._known: dict[str, Definition] = {}

    def add(self, fingerprint: str, definition: Definition) -> None:
        """Remember one that this process has itself."""
        self._known[fingerprint] = definition

    async def get(self, conn: Conn, fingerprint: str) -> Definition:
        """The definition with this fingerprint. Raises HistoryError if the database has none."""
        if fingerprint not in self._known:
            row = await (await conn.execute(query("get_definition"), {"fingerprint": fingerprint})).fetchone()
            if row is None:
                raise HistoryError(f"definition {fingerprint} is not in the database", fingerprint=fingerprint)
            self._known[fingerprint] = Definition.from_json(canonical.decode(row[0]))
        return self._known[fingerprint]


async def put_definition(conn: Conn, fingerprint: str, definition: Definition) -> None:
    """Pin a definition. It must be there before the first run that refers to it."""
    await conn.execute(query("put_definition"), _definition_params(fingerprint, definition))


async def announce_definition(conn: Conn, fingerprint: str, definition: Definition) -> None:
    """Pin a definition that a worker has: from now on it may be the latest version of its workflow."""
    await conn.execute(query("announce_definition"), _definition_params(fingerprint, definition))


def _definition_params(fingerprint: str, definition: Definition) -> dict[str, Any]:
    body = canonical.encode_trusted(definition.to_json())
    return {"fingerprint": fingerprint, "workflow": definition.workflow, "body": body}


async def load_rows(conn: Conn, run_id: UUID, after: int = 0, upto: int = NO_LIMIT) -> list[Row]:
    """The events of a run with `after` < seq <= `upto`."""
    params = {"run_id": run_id, "after": after, "upto": upto}
    cursor = await conn.execute(query("load_events"), params, prepare=True)
    return [Row(*row) for row in await cursor.fetchall()]


async def load_run(conn: Conn, definitions: Definitions, run_id: UUID, upto: int = NO_LIMIT) -> OpenRun:
    """Fold a run from the log, up to seq `upto`. Raises RunNotFound."""
    row = await (await conn.execute(query("read_head"), {"run_id": run_id}, prepare=True)).fetchone()
    if row is None:
        raise RunNotFound(f"there is no run {run_id}", run_id=run_id)
    definition = await definitions.get(conn, row[4])
    run = OpenRun(RunState(run_id, definition.graph), first_hash(run_id), row[0])
    catch_up(run, await load_rows(conn, run_id, 0, upto))
    return run


def catch_up(run: OpenRun, rows: Iterable[Row]) -> list[Row]:
    """Fold further rows into a run in memory; returns them."""
    taken = list(rows)
    for row in taken:
        apply(run.state, decode(row))
        run.head_hash = row.hash
    return taken


async def flush(conn: Conn, params: dict[str, Any], *, skip_locked: bool = False) -> tuple[set[UUID] | None, datetime]:
    """Send a flush. Returns the ids that were committed (None: all of them) and the database's time."""
    name = "flush_skipping_locked" if skip_locked else "flush"
    failpoint("before_append")
    row = await (await conn.execute(query(name), params, prepare=True)).fetchone()
    failpoint("after_append")
    assert row is not None
    return (None if row[0] is None else set(row[0])), row[1]


@dataclass(slots=True)
class Advanced:
    """What `advance` did: the run as it is now, the events appended, and the commands refused."""

    run: OpenRun
    events: list[Event] = field(default_factory=list)
    refused: list[tuple[Command, Refusal]] = field(default_factory=list)


@dataclass(slots=True)
class Once:
    """One append over all its tries. Pass the same one to each try: when the reply to a commit was lost, the
    next try finds that very write in the log and returns what it had decided, instead of deciding again."""

    done: Advanced | None = None


class History:
    """The slow path, with folded runs kept so that each append loads only the tail.

    Not for concurrent use: one per `Session`, whose turns it follows.
    """

    def __init__(self, definitions: Definitions, *, keep: int = 128) -> None:
        self.definitions = definitions
        self._runs: OrderedDict[UUID, OpenRun] = OrderedDict()
        self._keep = keep

    async def advance(
        self,
        conn: Conn,
        run_id: UUID,
        commands: Sequence[Command],
        *,
        within: Callable[[Conn, Advanced], Awaitable[None]] | None = None,
        schedule: Callable[[RunState, datetime], Iterable[Command]] | None = None,
        epoch: int | None = None,
        once: Once | None = None,
    ) -> Advanced:
        """Lock the head, load, decide, append: one transaction (a savepoint if the caller has one open).

        Args:
            commands: what to ask, in order.
            schedule: what to ask after that, in view of the state as it is then.
            epoch: refuse if the run was claimed again since the claim with this number.
            within: awaited before the commit, for writes that belong to the same transaction.
            once: for appends that are tried again after a lost reply.

        Raises:
            RunNotFound: no such run.
            StaleWrite: the epoch is not the current one.
        """
        try:
            async with conn.transaction():
                run = await self._locked(conn, run_id)
                if once is not None and once.done is not None and await self._is_committed(conn, once.done):
                    return once.done
                if epoch is not None and run.epoch != epoch:
                    raise StaleWrite(f"run {run_id} is at epoch {run.epoch}, not {epoch}", run_id=run_id)
                now = (await (await conn.execute(query("read_clock"))).fetchone() or (None,))[0]
                assert now is not None
                done = await self._decide(conn, run, commands, schedule, now)
                if once is not None and done.events:
                    once.done = done
                if within is not None:
                    await within(conn, done)
                failpoint("before_commit")
        except BaseException:
            self.forget(run_id)
            raise
        failpoint("after_commit")
        return done

    @staticmethod
    async def _is_committed(conn: Conn, done: Advanced) -> bool:
        params = {"run_id": done.run.run_id, "seq": done.run.state.seq}
        row = await (await conn.execute(query("hash_at"), params, prepare=True)).fetchone()
        return row is not None and bytes(row[0]) == done.run.head_hash

    def forget(self, run_id: UUID) -> None:
        """Drop what is kept of a run."""
        self._runs.pop(run_id, None)

    async def _locked(self, conn: Conn, run_id: UUID) -> OpenRun:
        row = await (await conn.execute(query("lock_head"), {"run_id": run_id}, prepare=True)).fetchone()
        if row is None:
            raise RunNotFound(f"there is no run {run_id}", run_id=run_id)
        epoch, last_seq, head_hash, status, fingerprint, is_imported = row
        if is_imported and status not in ENDED:
            raise Refused(
                f"run {run_id} was imported: it is evidence, and nothing is added to its history",
                hint=f"`kairos fork {run_id} --from STEP` continues it as a run of this place.",
            )
        run = self._runs.get(run_id)
        if run is None:
            graph = (await self.definitions.get(conn, fingerprint)).graph
            run = OpenRun(RunState(run_id, graph), first_hash(run_id))
            self._runs[run_id] = run
        self._runs.move_to_end(run_id)
        while len(self._runs) > self._keep:
            self._runs.popitem(last=False)
        catch_up(run, await load_rows(conn, run_id, run.state.seq, last_seq))
        if run.state.seq != last_seq or run.head_hash != bytes(head_hash):
            raise HistoryError(
                f"run {run_id}: its head says seq {last_seq}, its log folds to {run.state.seq}",
                hint=f"`kairos verify {run_id}` says where the log was changed.",
            )
        run.epoch = epoch
        return run

    async def _decide(
        self, conn: Conn, run: OpenRun, commands: Sequence[Command], schedule: Any, now: datetime
    ) -> Advanced:
        expected = run.state.seq
        driven = drive(run, commands, now, schedule)
        done = Advanced(run, driven.events, driven.refused)
        if driven.rows:
            batch = Batch()
            batch.add(run, expected, driven.rows)
            for event in done.events:
                if isinstance(event, StepDone):
                    batch.add_blob(event.output)
                elif isinstance(event, EffectRecorded):
                    batch.add_blobs(event.arguments, event.result)
            await self._write(conn, batch, done)
        return done

    async def _write(self, conn: Conn, batch: Batch, done: Advanced) -> None:
        if batch.blobs:
            await conn.execute(query("put_blobs"), batch.blob_params())
        committed, _ = await flush(conn, batch.params())
        if committed is not None:
            raise psycopg.errors.SerializationFailure(f"the head of run {done.run.run_id} moved while locked")
        failure = failure_row(done.run.state, done.events)
        if failure is not None:
            await conn.execute(query("put_failures"), failure)


def failure_row(state: RunState, events: Iterable[Event]) -> dict[str, Any] | None:
    """The row for lists of failures, if these events ended the run badly."""
    ended = next((e for e in events if isinstance(e, RunFailed | RunExpired | RunCancelled)), None)
    if ended is None:
        return None
    step = ended.steps[0] if isinstance(ended, RunFailed) and ended.steps else None
    error = state.steps[step].error if step else None
    text = error.summary if error else ended.reason
    group = f"{state.workflow}|{step or ''}|{error.type if error else state.status}"
    return {
        "run_id": state.run_id,
        "at": state.at,
        "workflow": state.workflow,
        "status": state.status.value,
        "step": step,
        "error": text.replace("\0", "\\0"),
        "error_group": group,
    }


async def fetch_payloads(conn: Conn, payloads: Iterable[Payload]) -> dict[str, bytes]:
    """Read the bytes of payloads that are not at hand, by digest: blobs, and short outputs of other runs.

    Raises:
        HistoryError: a blob is missing; the event that an inherited output refers to is gone or holds something else.
    """
    blobs: set[str] = set()
    inherited: dict[str, tuple[str, int]] = {}
    for payload in payloads:
        if payload.sha256 is not None:
            blobs.add(payload.sha256)
        elif payload.origin is not None and payload.inline is None:
            inherited[payload.digest] = payload.origin
    found = await _fetch_blobs(conn, blobs) if blobs else {}
    return found | await _fetch_inherited(conn, inherited) if inherited else found


async def _fetch_blobs(conn: Conn, wanted: set[str]) -> dict[str, bytes]:
    digests = [bytes.fromhex(d) for d in wanted]
    cursor = await conn.execute(query("get_blobs"), {"digests": digests})
    found = {bytes(row[0]).hex(): bytes(row[1]) for row in await cursor.fetchall()}
    if missing := wanted - found.keys():
        raise HistoryError(f"blob {min(missing)} is missing from the database")
    return found


async def _fetch_inherited(conn: Conn, wanted: dict[str, tuple[str, int]]) -> dict[str, bytes]:
    """Short outputs from the events that they were written to, in the runs that made them."""
    params = {"run_ids": [origin[0] for origin in wanted.values()], "seqs": [origin[1] for origin in wanted.values()]}
    cursor = await conn.execute(query("get_events_at"), params)
    there = {(str(row[0]), row[1]): decode(Row(*row[1:])).event for row in await cursor.fetchall()}
    found: dict[str, bytes] = {}
    for digest, origin in wanted.items():
        event = there.get(origin)
        raw = event.output.inline if isinstance(event, StepDone | StepOverridden) else None
        if raw is None or sha256(raw).hexdigest() != digest:
            what = "is gone" if event is None else "holds another value"
            raise HistoryError(
                f"event {origin[1]} of run {origin[0]}, which holds an inherited output, {what}",
                hint="`kairos verify` says what is missing.",
                run_id=origin[0],
                seq=origin[1],
            )
        found[digest] = raw
    return found
