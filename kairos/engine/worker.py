"""A worker process: claims runs and offered steps, runs them, commits. Safe to kill at any line."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from uuid import UUID

import psycopg

from kairos import __version__
from kairos.authoring import App
from kairos.authoring.loading import spec_of
from kairos.authoring.threads import Threads
from kairos.domain.commands import LoseLease
from kairos.engine.bodies import Bodies
from kairos.engine.flusher import Flusher
from kairos.engine.held import HeldRun
from kairos.engine.helper import Helper
from kairos.engine.isolation import Isolation
from kairos.engine.leases import Heartbeat, Reaper
from kairos.engine.office import Identity, Office, Slots, log
from kairos.engine.owner import Owner
from kairos.errors import KairosError, StaleWrite
from kairos.settings import WorkerOptions
from kairos.store.clock import DatabaseClock
from kairos.store.connect import PLAN_ONCE, Session, is_transient
from kairos.store.failpoints import failpoint
from kairos.store.history import Conn, Definitions, History, Once, announce_definition
from kairos.store.listener import listen

HELD_PER_SLOT = 10
"""Runs in memory, for each body that may run at once."""
KEEP_WORKERS = 7 * 86400.0
"""Seconds for which the rows of ended workers are kept for `kairos doctor`."""


class Worker:
    """Runs an app's workflows and jobs until told to stop.

    Args:
        app: what to run.
        dsn: the database; its schema must be migrated.
        options: queues, concurrency, lease and the rest.
        app_spec: how a child process loads the app; found out when left out.

    Use `await worker.run()`; `worker.stop()` (from a signal handler, say) makes it drain and return.
    """

    def __init__(
        self, app: App, dsn: str, options: WorkerOptions | None = None, *, app_spec: str | None = None
    ) -> None:
        self.app, self.dsn = app, dsn
        self.options = options or WorkerOptions.from_settings()
        self.app_spec = app_spec or spec_of(app)
        self.stopped = asyncio.Event()
        self._reborn = self._claiming = False
        self._aside: set[asyncio.Task[None]] = set()
        self._loop_beat = time.monotonic()
        self._looked_for_steps = 0.0
        self._others = 0
        self.ready = asyncio.Event()

    def stop(self) -> None:
        """Claim nothing more, let running steps end within the drain timeout, then return from `run`."""
        self.stopped.set()
        if hasattr(self, "office"):
            self.office.wake.set()
            self.office.slots.freed.set()

    async def run(self) -> None:
        """Work until `stop()`; as a new incarnation whenever this worker was declared dead meanwhile."""
        while True:
            self._reborn = False
            await self._live()
            if not self._reborn or self.stopped.is_set():
                return
            log.warning("worker_reborn: going on as a new worker")

    # -- one incarnation ---------------------------------------------------------------------------------

    async def _live(self) -> None:
        self._open()
        await self._register()
        heart = Heartbeat(self.dsn, self.office.identity, self.options.lease, self._report, self._lost_from_thread())
        heart.start()
        loops = [
            self._guard(self.flusher.run),
            self._guard(self._slow_lane),
            self._guard(self._maintain),
            self._guard(self._tick),
        ]
        if self.options.notify:
            loops.append(listen(self.dsn, "kairos listener", ["kairos_task"], self._on_notice, self.office.wake.set))
        tasks = [asyncio.create_task(loop) for loop in loops]
        self.ready.set()
        log.info("worker_started worker=%s queues=%s concurrency=%s", self.office.identity.name,
                 ",".join(self.options.queues), self.options.concurrency)  # fmt: skip
        try:
            await self._claim_until_stopped()
            if not self._reborn:
                await self._drain()
        finally:
            tasks += self._aside
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            heart.stop()
            await self._close()
            await asyncio.get_running_loop().run_in_executor(None, heart.join, 5)

    def _open(self) -> None:
        registry = {workflow.fingerprint: workflow for workflow in self.app.workflows.values()}
        definitions = Definitions()
        for fingerprint, workflow in registry.items():
            definitions.add(fingerprint, workflow.definition)
        self.office = Office(
            app=self.app,
            dsn=self.dsn,
            options=self.options,
            identity=Identity.new(),
            registry=registry,
            slots=Slots(self.options.concurrency),
            clock=DatabaseClock(),
            # A head locked by somebody else must not hold up everybody's flush.
            flusher=Session(self.dsn, "kairos flusher", patience=None, lock_timeout="50ms", **PLAN_ONCE),
            work=Session(self.dsn, "kairos worker", patience=None, lock_timeout="250ms", **PLAN_ONCE),
            history=History(definitions),
            threads=Threads("kairos-step"),
        )
        self.bodies = Bodies(self.office, Isolation(self.app_spec))
        self.owner = Owner(self.office, self.bodies)
        self.bodies.on_note = self._note
        self.bodies.on_committed = self._committed_elsewhere
        self.flusher = Flusher(self.office, self.owner)
        self.helper = Helper(self.office, self.bodies)
        self.helper.on_free = self.owner.feed_starved
        self.reaper = Reaper(self.office)

    async def _register(self) -> None:
        office = self.office

        async def pin(conn: Conn) -> None:
            for fingerprint, workflow in office.registry.items():
                await announce_definition(conn, fingerprint, workflow.definition)

        await office.work.run(pin)
        await office.work.execute(
            "register_worker",
            {
                "id": office.identity.id,
                "name": office.identity.name,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "app": self.app.name,
                "version": __version__,
                "queues": office.queues,
                "fingerprints": list(office.registry),
                "concurrency": self.options.concurrency,
                "lease": self.options.lease,
            },
        )

    async def _close(self) -> None:
        await self.office.flusher.close()
        await self.office.work.close()

    # -- claiming ----------------------------------------------------------------------------------------

    async def _claim_until_stopped(self) -> None:
        office = self.office
        while not self.stopped.is_set() and not self._reborn:
            office.wake.clear()
            office.slots.freed.clear()
            if self._room() > 0:
                try:
                    is_more = await self._claim()
                except Exception as exc:
                    if not isinstance(exc, KairosError) and not is_transient(exc):
                        raise
                    log.error("claim_failed: %s", exc)
                    is_more = False
                if not is_more:
                    await self._wait(office.wake)
            else:
                await office.slots.freed.wait()

    def _room(self) -> int:
        """How many more runs to take: for the slots that no run in hand is about to use (those that have just
        finished a step mostly go on), and never so many that runs which wait for a retry fill the memory."""
        most = HELD_PER_SLOT * self.options.concurrency - len(self.owner.held)
        return min(self.office.slots.free - len(self.owner.dirty), most)

    async def _claim(self) -> bool:
        """Take what there is room for. Whether there may be more: a busy worker asks again unasked."""
        office = self.office
        failpoint("before_claim")
        self._claiming = True
        try:
            room = self._room()
            claims = await office.work.execute("claim_runs", office.claim_params(room))
            failpoint("after_claim")
            if claims:
                office.clock.hear(claims[0][6])
                await self.owner.take(claims)
            steps: list[tuple[Any, ...]] = []
            if self._room() > 0 and self._may_find_steps():
                steps = await office.work.execute("claim_steps", office.claim_params(self._room()))
                self.helper.take(steps)
        finally:
            self._claiming = False
        return bool(steps) or len(claims) >= room

    def _may_find_steps(self) -> bool:
        """Whether to ask for offered steps too: if there are other workers, runs of ours have some out, or it
        has not been done for a while (those who offered may all be gone)."""
        now = time.monotonic()
        is_due = now - self._looked_for_steps > self.options.lease / 3
        if not (is_due or self._others or any(held.offered for held in self.owner.held.values())):
            return False
        self._looked_for_steps = now
        return True

    async def _wait(self, event: asyncio.Event) -> None:
        pause = self.options.poll * random.uniform(0.5, 1.0)
        try:
            async with asyncio.timeout(pause):
                await event.wait()
        except TimeoutError:
            pass

    def _on_notice(self, channel: str, payload: str) -> None:
        kind, _, argument = payload.partition(":")
        if kind == "run":
            self._look_at(UUID(argument))
        else:
            self.office.wake.set()

    def _look_at(self, run_id: UUID) -> None:
        if run_id in self.owner.held or run_id in self.helper.run_ids():
            task = asyncio.get_running_loop().create_task(self._guard(lambda: self._refresh(run_id)))
            self.bodies.running.add(task)
            task.add_done_callback(self.bodies.running.discard)
        self.office.wake.set()

    async def _refresh(self, run_id: UUID) -> None:
        held = self.owner.held.get(run_id)
        if held is not None:
            await self.owner.refresh(held)
        if run_id in self.helper.run_ids():
            rows = await self.office.work.execute("cancel_asked", {"run_ids": [run_id]})
            if rows:
                self.helper.cancel_run(run_id)

    def _note(self, held: HeldRun) -> None:
        # Logs and metrics ride along with the next flush; on their own they are worth a short wait.
        asyncio.get_running_loop().call_later(0.05, self.owner.mark, held)

    def _committed_elsewhere(self, held: HeldRun) -> None:
        """A transactional step has committed its own completion: fold it in."""
        if held.dropped is None:
            self._look_at(held.run_id)

    # -- loops beside the claims -------------------------------------------------------------------------

    async def _slow_lane(self) -> None:
        owner = self.owner
        while True:
            await owner.wake_slow.wait()
            owner.wake_slow.clear()
            while owner.rejects:
                run_id, records = owner.rejects.popleft()
                self._beside(self._reject(run_id, records))
            for _ in range(len(owner.slow)):
                held = owner.slow.popleft()
                held.is_queued = False
                if held.dropped:
                    continue
                if held.in_flight:
                    asyncio.get_running_loop().call_later(0.005, owner.mark, held)
                    continue
                # Beside each other: a head that is locked elsewhere must not hold up the other runs.
                held.in_flight = held.is_slow = True
                self._beside(self._step_slowly(held))
            if owner.slow:
                owner.wake_slow.set()

    async def _step_slowly(self, held: HeldRun) -> None:
        try:
            await self.owner.step_slowly(held)
        except StaleWrite as exc:
            self.owner.drop(held, exc.message, is_stale=True)
        except (psycopg.DataError, psycopg.IntegrityError) as exc:
            log.error("append_refused run=%s: %s", held.run_id, exc)
            held.taken, held.inbox, held.in_flight = held.inbox, [], False
            self.owner.poison(held, exc)
            self.owner.mark(held)
        except Exception:
            held.in_flight = False
            asyncio.get_running_loop().call_later(1.0, self.owner.mark, held)
            raise

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` go on beside the slow lane; its errors are bugs."""

        async def run() -> None:
            try:
                await work
            except Exception:
                log.exception("worker_broken: please report this; the worker goes on")

        task = asyncio.create_task(run())
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _reject(self, run_id: UUID, records: list[Any]) -> None:
        once = Once()

        async def work(conn: Conn) -> None:
            await self.office.history.advance(conn, run_id, records, once=once)

        await self.office.work.run(work)

    async def _maintain(self) -> None:
        """The rounds: look for dead workers, for news of held runs, for peers."""
        pause = min(self.options.lease / 3, 5.0)
        while True:
            office = self.office
            me = {"id": office.identity.id, "queues": office.queues, "fingerprints": list(office.registry)}
            office.peers, self._others = (await office.work.execute("count_peers", me))[0]
            if await self.reaper.sweep():
                office.wake.set()
            await self._poll_heads()
            await self._free_orphans()
            await office.work.execute("prune_workers", {"keep": KEEP_WORKERS})
            await asyncio.sleep(pause * random.uniform(0.7, 1.0))

    async def _poll_heads(self) -> None:
        held = self.owner.held
        if held:
            for run_id, epoch, last_seq, *_ in await self.office.work.execute("read_heads", {"run_ids": list(held)}):
                run = held.get(run_id)
                if run is None or run.dropped:
                    continue
                if epoch != run.open.epoch:
                    self.owner.drop(run, "another worker has claimed the run", is_stale=True)
                elif last_seq > run.expected:
                    await self.owner.refresh(run)
        helped = self.helper.run_ids()
        if helped:
            for (run_id,) in await self.office.work.execute("cancel_asked", {"run_ids": list(helped)}):
                self.helper.cancel_run(run_id)

    async def _free_orphans(self) -> None:
        """Give back what the database says is ours and we know nothing of: a claim whose reply was lost."""
        if self._claiming:
            return
        known = [(run_id, "") for run_id in self.owner.held] + list(self.helper.tasks)
        params = {"worker": self.office.identity.id, "runs": [k[0] for k in known], "steps": [k[1] for k in known]}
        for run_id, step, token in await self.office.work.execute("find_orphans", params):
            log.warning("claim_given_back run=%s step=%s", run_id, step or "-")
            await self.reaper.give_back(run_id, step, token)

    async def _tick(self) -> None:
        while True:
            self._loop_beat = time.monotonic()
            await asyncio.sleep(0.5)

    async def _guard(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Keep a loop alive through outages; anything else is a bug and ends the worker loudly."""
        while True:
            try:
                await loop()
                return
            except Exception as exc:
                if isinstance(exc, asyncio.CancelledError):
                    raise
                if not is_transient(exc):
                    log.exception("worker_broken: please report this; the worker goes on")
                await asyncio.sleep(random.uniform(0.1, 0.5))

    # -- endings -----------------------------------------------------------------------------------------

    def _lost_from_thread(self) -> Callable[[], None]:
        loop = asyncio.get_running_loop()

        def lost() -> None:
            loop.call_soon_threadsafe(self._lost)

        return lost

    def _lost(self) -> None:
        """Declared dead: let go of everything, then start again under a new name."""
        self._reborn = True
        for held in list(self.owner.held.values()):
            self.owner.drop(held, "this worker was declared dead", is_stale=True)
        self.helper.drop_all()
        self.office.wake.set()
        self.office.slots.freed.set()

    async def _drain(self) -> None:
        """Let running bodies end, up to the deadline; give back the rest without burning an attempt."""
        office = self.office
        office.stopping = True
        log.info("worker_drains worker=%s running=%s", office.identity.name, office.slots.taken)
        await office.work.execute("set_worker_state", {"id": office.identity.id, "state": "draining"})
        deadline = time.monotonic() + self.options.drain_timeout
        while (self.bodies.running or self.flusher.is_busy) and time.monotonic() < deadline:
            if self.bodies.running:
                await asyncio.wait(self.bodies.running, timeout=min(0.2, deadline - time.monotonic()))
            await asyncio.sleep(0.01)
        me = office.identity.name
        for held in list(self.owner.held.values()):
            for body in list(held.bodies.values()):
                body.ctx.cancel("the worker shuts down")
                held.inbox.append(LoseLease(body.step, body.token, "released", me))
            self.owner.mark(held)
        await self.helper.give_back()
        await self._flush_rest()
        failpoint("before_release")
        for held in list(self.owner.held.values()):
            params = {"run_id": held.run_id, "worker": office.identity.id, "epoch": held.open.epoch}
            await office.work.execute("release_run", {**params, "ready_at": None, "crashed": False})
            self.owner.let_go(held, "the worker shuts down")
        failpoint("after_release")
        await office.work.execute("set_worker_state", {"id": office.identity.id, "state": "stopped"})
        await office.work.execute("notify", {"channel": "kairos_task", "payload": ""})
        log.info("worker_stopped worker=%s", me)

    async def _flush_rest(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            waiting = [h for h in self.owner.held.values() if h.rows or h.inbox or h.is_queued or h.in_flight]
            if not waiting:
                return
            for held in waiting:
                self.owner.mark(held)
            await asyncio.sleep(0.01)

    def _report(self) -> dict[str, Any]:
        """What the heartbeat stores for `kairos doctor`. Called on the heartbeat's thread."""
        office = self.office
        return {
            "running": office.slots.taken,
            "held": len(self.owner.held),
            "stale_writes": office.stale_writes,
            "loop_lag": round(max(0.0, time.monotonic() - self._loop_beat - 0.5), 3),
            "abandoned": [
                {"run_id": a.run_id, "step": a.step, "attempt": a.attempt, "for": round(a.age, 1), "at": a.where}
                for a in office.threads.abandoned[:20]
            ],
        }
