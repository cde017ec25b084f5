"""Group commit: everything that the worker's runs did since the last flush, in one statement.

No timer: the next flush begins when the last one returned, so the batch is as large as the database is slow.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg

from kairos.domain.commands import FinishStep
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


class Flusher:
    """Commits what the owner's runs have collected."""

    def __init__(self, office: Office, owner: Owner) -> None:
        self.office, self.owner = office, owner
        self.flushes = self.events = 0

    async def run(self) -> None:
        """Flush until cancelled."""
        owner = self.owner
        while True:
            await owner.wake_flusher.wait()
            owner.wake_flusher.clear()
            while owner.dirty:
                await self.cycle()

    async def cycle(self) -> None:
        """One flush."""
        batch, members = self._collect()
        if members:
            for held in members:
                held.in_flight = True
            try:
                await self._commit(batch, members)
            except Exception:
                # A bug of ours. The runs are given back, so that they do not wait for our lease to run out.
                for held in members:
                    await self._give_up(held)
                raise
            for held in members:
                if held.dropped is None and (due := self.owner.can_park(held)):
                    await self._park(held, due)

    def _collect(self) -> tuple[Batch, list[HeldRun]]:
        batch, members = Batch(), []
        dirty = self.owner.dirty
        for _ in range(min(len(dirty), MAX_RUNS)):
            held = dirty.popleft()
            held.is_queued = False
            if held.dropped:
                continue
            if held.in_flight:  # in the slow lane: what is decided there must not be decided here as well
                asyncio.get_running_loop().call_later(0.005, self.owner.mark, held)
                continue
            if not held.resend:
                self.owner.step_forward(held)
            if held.to_offer:
                self.owner.mark(held)  # decided again there, on top of a locked head
            elif held.rows:
                batch.add(held.open, held.expected, held.rows)
                members.append(held)
                for command in held.taken:
                    if type(command) is FinishStep:
                        batch.add_blob(command.output)
            else:
                self.owner.idle(held)
        return batch, members

    async def _commit(self, batch: Batch, members: list[HeldRun]) -> None:
        try:
            committed = await self._send(batch, members)
        except (psycopg.DataError, psycopg.IntegrityError) as exc:
            await self._bisect(members, exc)
            return
        for held in members:
            if held.run_id in committed:
                self.owner.committed(held)
            else:
                await self.owner.settle(held)

    async def _send(self, batch: Batch, members: list[HeldRun]) -> set[UUID]:
        """Send until there is an answer: the same bytes, so that a lost reply cannot write twice."""
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
            if now is not None:
                self.office.clock.hear(now)
            return committed

    async def _send_once(
        self, conn: Conn, batch: Batch, params: dict[str, Any], failures: list[dict[str, Any]], skip_locked: bool
    ) -> tuple[set[UUID], Any]:
        if batch.blobs:
            await conn.execute(query("put_blobs"), batch.blob_params())
        if not failures:
            done = await flush(conn, params, skip_locked=skip_locked)
            failpoint("after_commit")
            return done
        async with conn.transaction():
            done = await flush(conn, params, skip_locked=skip_locked)
            for row in failures:
                if row["run_id"] in done[0]:
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
            if state.status.is_terminal and state.status != "DONE":
                row = failure_row(state, (decode(r).event for r in held.rows[-1:]))
                rows += [row] if row else []
        return rows

    async def _bisect(self, members: list[HeldRun], exc: psycopg.Error) -> None:
        """One run's data is refused by the database: find it, so that the others go on."""
        if len(members) > 1:
            half = len(members) // 2
            for part in (members[:half], members[half:]):
                batch = Batch()
                for held in part:
                    batch.add(held.open, held.expected, held.rows)
                    for command in held.taken:
                        if type(command) is FinishStep:
                            batch.add_blob(command.output)
                await self._commit(batch, part)
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
