"""Group commit: everything that the worker's runs did since the last flush, in one statement.

No timer: the next flush begins when the last one returned, so the batch is as large as the database is slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from kairos.domain.commands import FinishStep, RecordEffect
from kairos.domain.states import ENDED, RunStatus
from kairos.engine.held import HeldRun
from kairos.engine.office import Office, log
from kairos.engine.owner import Owner
from kairos.store.batch import Batch
from kairos.store.connect import backoff, is_transient
from kairos.store.failpoints import failpoint
from kairos.store.history import Conn, failure_row, flush
from kairos.store.queries import query

MAX_RUNS = 500
"""Runs in one flush; more would make the first of them wait for the last."""
GATHER = 128
"""Runs taken a step further at a stretch, while a flush is under way: then its answer gets a chance."""
MIN_SPLIT = 64
"""Below this, splitting the runs in hand over two flushes costs more than it gains."""


class Flight(NamedTuple):
    """A flush that is under way."""

    members: list[HeldRun]
    task: asyncio.Task[set[UUID] | None]


class Flusher:
    """Commits what the owner's runs have collected.

    One flush at a time is under way; meanwhile the next one is put together and bodies run. To keep both
    sides busy, a flush takes at most about half of the runs in hand.
    """

    def __init__(self, office: Office, owner: Owner) -> None:
        self.office, self.owner = office, owner
        self.flushes = self.events = 0
        self._staged: dict[HeldRun, None] = {}
        self._flight: Flight | None = None

    @property
    def is_busy(self) -> bool:
        """Whether anything waits for a flush or for the answer to one."""
        return bool(self._flight or self._staged or self.owner.dirty)

    async def run(self) -> None:
        """Flush until cancelled."""
        wake = self.owner.wake_flusher
        try:
            while True:
                await wake.wait()
                wake.clear()
                flight = self._flight
                if flight is not None and flight.task.done():
                    self._flight = None
                    self._launch()
                    await asyncio.sleep(0)  # it is sent first: Postgres works while we see to what this one brought
                    await self._land(flight)
                while self.owner.dirty:
                    self._gather()
                    if self._flight is None:
                        self._launch()
                    else:
                        await asyncio.sleep(0)
                        if self._flight.task.done():
                            break
                if self._flight is None:
                    self._launch()
        except asyncio.CancelledError:
            if self._flight is not None:
                self._flight.task.cancel()
            raise

    def _gather(self) -> None:
        """Take some of the runs that have news a step further in memory, and stage what is to be written."""
        owner, staged = self.owner, self._staged
        dirty, now = owner.dirty, self.office.clock.now()
        for _ in range(min(len(dirty), GATHER)):
            held = dirty.popleft()
            held.is_queued = False
            if held.dropped:
                continue
            if held.in_flight:
                held.look_again = True
                continue
            if not held.resend:
                owner.step_forward(held, now)
            if held.to_offer:
                staged.pop(held, None)
                owner.mark(held)  # decided again there, on top of a locked head
            elif held.rows:
                staged[held] = None
            else:
                owner.idle(held)
        if self.office.slots.free > 0:
            self.office.slots.freed.set()  # what is free now, no run in hand wants

    def _launch(self) -> None:
        """Send what is staged, or a part of it."""
        limit = min(MAX_RUNS, max(MIN_SPLIT, (len(self.owner.held) + 1) // 2))
        members: list[HeldRun] = []
        for held in list(self._staged):
            if len(members) == limit:
                break
            del self._staged[held]
            if held.rows and not held.in_flight and not held.dropped:  # else the slow lane has it, or nobody
                members.append(held)
                held.in_flight = True
        if not members:
            return
        task = asyncio.create_task(self._send(_batch(members), members))
        task.add_done_callback(self._wake)
        self._flight = Flight(members, task)

    def _wake(self, _: object) -> None:
        self.owner.wake_flusher.set()

    async def _land(self, flight: Flight) -> None:
        members = flight.members
        try:
            await self._settle_all(flight.task, members)
        except Exception:
            # A bug of ours. The runs are given back, so that they do not wait for our lease to run out.
            for held in members:
                await self._give_up(held)
            raise
        for held in members:
            if held.retries and held.dropped is None and (due := self.owner.can_park(held)):
                await self._park(held, due)

    async def _settle_all(self, sent: Awaitable[set[UUID] | None], members: list[HeldRun]) -> None:
        try:
            committed = await sent
        except (psycopg.DataError, psycopg.IntegrityError) as exc:
            await self._bisect(members, exc)
            return
        for held in members:
            if committed is None or held.run_id in committed:
                self.owner.committed(held)
            else:
                await self.owner.settle(held)

    async def _send(self, batch: Batch, members: list[HeldRun]) -> set[UUID] | None:
        """Send until there is an answer: the same bytes, so that a lost reply cannot write twice.

        Returns the runs that were committed; None means all.
        """
        params = batch.params()
        failures = self._failures(members)
        tries, skip_locked = 0, False
        while True:
            try:
                committed, now = await self.office.flusher.once(
                    lambda conn: self._send_once(conn, batch, params, failures, skip_locked)  # noqa: B023
                )
            except Exception as exc:
                if not is_transient(exc):
                    raise
                tries += 1
                skip_locked = isinstance(exc, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)
                log.warning("flush_retried tries=%s: %s", tries, str(exc).splitlines()[0] if str(exc) else repr(exc))
                if not skip_locked:
                    await asyncio.sleep(backoff(tries))
                continue
            self.flushes += 1
            self.events += sum(len(held.rows) for held in members)
            self.office.clock.hear(now)
            return committed

    async def _send_once(
        self, conn: Conn, batch: Batch, params: dict[str, Any], failures: list[dict[str, Any]], skip_locked: bool
    ) -> tuple[set[UUID] | None, datetime]:
        if batch.blobs:
            await conn.execute(query("put_blobs"), batch.blob_params())
        if not failures:
            done = await flush(conn, params, skip_locked=skip_locked)
            failpoint("after_commit")
            return done
        async with conn.transaction():
            done = await flush(conn, params, skip_locked=skip_locked)
            for row in failures:
                if done[0] is None or row["run_id"] in done[0]:
                    await conn.execute(query("put_failures"), row)
            failpoint("before_commit")
        failpoint("after_commit")
        return done

    @staticmethod
    def _failures(members: list[HeldRun]) -> list[dict[str, Any]]:
        from kairos.store.codec import decode

        rows = []
        for held in members:
            state = held.open.state
            if state.status in ENDED and state.status is not RunStatus.DONE:
                row = failure_row(state, (decode(r).event for r in held.rows[-1:]))
                rows += [row] if row else []
        return rows

    async def _bisect(self, members: list[HeldRun], exc: psycopg.Error) -> None:
        """One run's data is refused by the database: find it, so that the others go on."""
        if len(members) > 1:
            half = len(members) // 2
            for part in (members[:half], members[half:]):
                await self._settle_all(self._send(_batch(part), part), part)
            return
        held = members[0]
        log.error("flush_refused run=%s: %s", held.run_id, exc)
        held.in_flight = False
        self.owner.poison(held, exc)
        await self.owner.reload(held)

    async def _give_up(self, held: HeldRun) -> None:
        if held.dropped is None and held.rows:
            self.owner.drop(held, "an internal error", is_stale=False)
            params = {"run_id": held.run_id, "worker": self.office.identity.id, "epoch": held.open.epoch}
            later = self.office.clock.now() + timedelta(seconds=5)
            await self.office.work.execute("release_run", {**params, "ready_at": later, "crashed": False})

    async def _park(self, held: HeldRun, due: Any) -> None:
        """Give back a run that only waits for a backoff; its task is due when the backoff ends."""
        failpoint("before_schedule_retry")
        params = {
            "run_id": held.run_id,
            "worker": self.office.identity.id,
            "epoch": held.open.epoch,
            "ready_at": due,
            "crashed": False,
        }
        self.owner.let_go(held, "waits for its next attempt")
        await self.office.work.execute("release_run", params)
        failpoint("after_schedule_retry")


def _batch(members: list[HeldRun]) -> Batch:
    batch = Batch()
    for held in members:
        batch.add(held.open, held.expected, held.rows)
        for command in held.taken:
            if type(command) is FinishStep and command.output.sha256 is not None:
                batch.add_blob(command.output)
            elif type(command) is RecordEffect:
                batch.add_blobs(command.arguments, command.result)
    return batch
