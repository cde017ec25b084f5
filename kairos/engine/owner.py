"""Runs that this worker owns: what starts next, and what a commit or a refusal of it means.

Nothing here talks to Postgres on the fast path: `step_forward` collects rows, the flusher commits them, and
`committed` begins the bodies whose starts are now durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from kairos.domain.commands import (
    ClaimRun,
    Command,
    Expire,
    FailStep,
    FinishCancel,
    FinishStep,
    FireRetry,
    LoseLease,
    RecordEffect,
    Refusal,
    RejectWrite,
    StartStep,
    StopStep,
)
from kairos.domain.decisions import expires_at
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import EffectRecorded, Event, StepFailed, StepStarted
from kairos.domain.graph import DEFAULT_PRIORITY
from kairos.domain.projection import RunState
from kairos.domain.states import ENDED, RunStatus, StepStatus
from kairos.engine.bodies import Bodies
from kairos.engine.held import HeldRun
from kairos.engine.leases import killed_by
from kairos.engine.office import Office, log
from kairos.errors import KairosError, PayloadError
from kairos.store.codec import Row, first_hash
from kairos.store.drive import OpenRun, drive, input_hash, tokens_spent
from kairos.store.failpoints import failpoint
from kairos.store.history import Advanced, Conn, Once, catch_up, load_rows, load_run
from kairos.store.queries import query

if TYPE_CHECKING:
    from kairos.authoring.workflow import Workflow

OFFER_AFTER = timedelta(milliseconds=100)
"""A step that has waited this long for a slot of its owner is offered to other workers, if there are any."""
PARK_AFTER = timedelta(seconds=5)
"""A run that waits only for a timer further away than this is given back to the queue until then."""
EARLY_FLUSH = 0.002
"""Seconds after which the start of a root step is flushed even if its body has not ended: most bodies that
end sooner save a commit. Its input is durable already; a crash meanwhile is caught by `task.crashed`."""


class Traits(NamedTuple):
    """What of a definition matters for the scheduling of each of its runs: whether any step has a priority, a
    time to live; the queues that steps name."""

    priority: bool
    ttl: bool
    queues: frozenset[str]


class Owner:
    """Holds runs and takes them forward."""

    def __init__(self, office: Office, bodies: Bodies) -> None:
        self.office, self.bodies = office, bodies
        self.held: dict[UUID, HeldRun] = {}
        self.dirty: deque[HeldRun] = deque()
        self.slow: deque[HeldRun] = deque()
        self.starved: dict[UUID, HeldRun] = {}
        self.wake_flusher = asyncio.Event()
        self.wake_slow = asyncio.Event()
        self.rejects: deque[tuple[UUID, list[RejectWrite]]] = deque()
        self._traits: dict[str, Traits] = {}
        self._queues = frozenset(office.options.queues)
        bodies.on_done = self.body_done
        bodies.on_urgent = self.mark

    # -- taking runs -------------------------------------------------------------------------------------

    async def take(self, claims: list[tuple[Any, ...]]) -> None:
        """Fold the claimed runs from the log and set them going."""
        found: dict[UUID, list[Row]] = {row[0]: [Row(*row[7:])] for row in claims if row[3] == 1}
        older = [row[0] for row in claims if row[3] > 1]
        if older:
            for row in await self.office.work.execute("load_events_of", {"run_ids": older}):
                found.setdefault(row[0], []).append(Row(*row[1:]))
        now, early = self.office.clock.now(), list[HeldRun]()
        for row in claims:
            try:
                held = self._hold(row, found[row[0]])
                if row[3] > 1:
                    await self._inherit(held)
            except KairosError as exc:
                log.error("run_not_taken run=%s: %s", row[0], exc)
                params = {"run_id": row[0], "worker": self.office.identity.id, "epoch": row[2]}
                later = self.office.clock.now() + timedelta(minutes=1)
                await self.office.work.execute("release_run", {**params, "ready_at": later, "crashed": row[5]})
            else:
                self.held[row[0]] = held
                if self._adopt(held, now):
                    early.append(held)
        if early:
            asyncio.get_running_loop().call_later(EARLY_FLUSH, self._flush_early, early)

    def _hold(self, claim: tuple[Any, ...], rows: list[Row]) -> HeldRun:
        run_id, fingerprint, epoch, last_seq, _, crashed = claim[:6]
        workflow = self.office.registry[fingerprint]
        run = OpenRun(RunState(run_id, workflow.graph), first_hash(run_id), epoch)
        catch_up(run, (row for row in rows if row.seq <= last_seq))
        traits = self._traits_of(workflow)
        held = HeldRun(run, workflow, run.state.seq, str(run_id), has_priority=traits.priority, has_ttl=traits.ttl)
        held.is_served = run.state.queue in self.office.options.queues and traits.queues <= self._queues
        if last_seq == 1 and crashed:
            held.suspects.update(run.state.ready)
        return held

    def _traits_of(self, workflow: Workflow) -> Traits:
        traits = self._traits.get(workflow.fingerprint)
        if traits is None:
            specs = workflow.graph.steps.values()
            traits = self._traits[workflow.fingerprint] = Traits(
                any(spec.priority is not None for spec in specs),
                any(spec.ttl is not None for spec in specs),
                frozenset(spec.queue for spec in specs if spec.queue is not None),
            )
        return traits

    async def _inherit(self, held: HeldRun) -> None:
        """Settle what the last owner left behind."""
        state = held.open.state
        tasks = await self.office.work.execute("list_inherited_tasks", {"run_id": held.run_id})
        worker, report = next(((name, report) for step, name, report in tasks if not step), (None, None))
        for name, step in state.steps.items():
            if step.status is StepStatus.RUNNING and step.worker is None:
                # A suspect that cannot be isolated counts: else it could take workers down for ever.
                counts = step.suspect and self.bodies.isolation.app_spec is None
                lost = LoseLease(name, step.token, "worker_lost", worker, killed_by(report), counts, suspect=True)
                held.inbox.append(lost)
            elif step.status is StepStatus.FAILED and step.retry_at is not None:
                held.retries[name] = step.retry_at
        held.offered.update(step for step, *_ in tasks if step)
        if any(isinstance(c, LoseLease) for c in held.inbox):
            held.suspects.update(state.ready)

    def _adopt(self, held: HeldRun, now: datetime) -> bool:
        """Set a run going. Whether its first flush may wait a little for its first bodies to end."""
        claim = ClaimRun(worker=self.office.identity.name, epoch=held.open.epoch)
        held.inbox.insert(0, claim)
        if held.offered:
            self.mark(held)
            return False
        self.step_forward(held, now)
        is_plain = not any(held.workflow.steps[event.step].spec.transactional for event in held.starting)
        if held.expected == 1 and is_plain and not held.suspects and not held.to_offer:
            # Inputs of root steps are durable since the start: their bodies need not wait for this flush.
            starts, held.starting = held.starting, []
            for event in starts:
                held.begun.add((event.step, event.attempt, event.token))
                held.taken.append(StartStep(event.step, event.input_hash, above=tokens_spent(held.open)))
                self.bodies.begin(held, event)
            return True
        self.mark(held)
        return False

    def _flush_early(self, taken: list[HeldRun]) -> None:
        """Where a root body is still running, make its start durable without waiting for its end."""
        for held in taken:
            if held.rows and not held.in_flight:
                self.mark(held)

    # -- going forward -----------------------------------------------------------------------------------

    def mark(self, held: HeldRun) -> None:
        """Have a run looked at by the flusher (or, while tasks are out, by the slow lane)."""
        if held.is_queued or held.dropped:
            return
        held.is_queued = True
        if held.offered or held.to_offer or held.is_slow:
            held.is_slow = True
            self.slow.append(held)
            self.wake_slow.set()
        else:
            self.dirty.append(held)
            self.wake_flusher.set()

    def step_forward(self, held: HeldRun, now: datetime) -> None:
        """Decide what is in the inbox, then what starts next; rows wait for the flush."""
        commands, held.inbox = held.inbox, []
        driven = drive(held.open, commands, now, lambda state, now: self.schedule(held, state, now))
        held.taken += commands
        held.rows += driven.rows
        self.observe(held, driven.events, driven.refused)

    def schedule(self, held: HeldRun, state: RunState, now: datetime) -> Iterable[Command]:
        """What to ask for in view of the state: expiries, retries that are due, steps that are ready."""
        if state.status is not RunStatus.RUNNING or state.cancel_requested or self.office.stopping:
            return ()
        if held.retries or held.has_ttl:
            return self._schedule(held, state, now)
        ready = state.ready
        is_plain = held.is_served and not (held.has_priority or held.offered or held.to_offer or self.office.peers)
        if is_plain and len(ready) <= self.office.slots.free:
            return [self._start(held, state, name) for name in ready]
        return self._schedule(held, state, now) if ready else ()

    def _schedule(self, held: HeldRun, state: RunState, now: datetime) -> Iterator[Command]:
        if held.has_ttl and state.ready:
            yield Expire()
        budget = self.office.slots.free
        ready = self._ready(held, state, budget)
        for name in [*_due(held, now), *ready] if held.retries else ready:
            if name in held.offered or name in held.to_offer:
                continue
            if not held.is_served and (state.graph.steps[name].queue or state.queue) not in self._queues:
                if name not in state.ready:
                    yield FireRetry(name)
                held.to_offer.append(name)
            elif budget > 0:
                budget -= 1
                yield self._start(held, state, name)
            else:
                # Whoever frees a slot next must know that this run waits for one.
                self.starved[held.run_id] = held
                break
        if self.office.peers and state.ready:
            self._offer_surplus(held, state, now)

    def _ready(self, held: HeldRun, state: RunState, budget: int) -> list[str]:
        if held.has_priority:
            specs = state.graph.steps
            return sorted(state.ready, key=lambda name: -(specs[name].priority or state.priority))
        if len(state.ready) < 2:
            return list(state.ready)
        # One more than there are slots for, so that it shows whether any is left waiting.
        return list(islice(state.ready, max(budget, 0) + len(held.offered) + len(held.to_offer) + 1))

    def _start(self, held: HeldRun, state: RunState, name: str) -> StartStep:
        step = state.steps[name]
        if step.status is StepStatus.FAILED:
            failpoint("before_schedule_retry")
        return StartStep(name, input_hash(state, name), None, step.suspect or name in held.suspects)

    def _offer_surplus(self, held: HeldRun, state: RunState, now: datetime) -> None:
        for name in list(state.ready):
            since = state.steps[name].scheduled_at
            is_out = name in held.offered or name in held.to_offer
            if not is_out and since is not None and now - since >= OFFER_AFTER:
                held.to_offer.append(name)

    def observe(self, held: HeldRun, events: Iterable[Event], refused: list[tuple[Command, Refusal]]) -> None:
        """Take note of what was just decided."""
        for event in events:
            if type(event) is StepStarted:
                held.retries.pop(event.step, None)
                if (event.step, event.attempt, event.token) not in held.begun:
                    self.office.slots.take()
                    held.starting.append(event)
            elif type(event) is StepFailed and event.retry_at is not None:
                held.retries[event.step] = event.retry_at
            elif type(event) is EffectRecorded:
                held.effects.append(event)
        for command, refusal in refused:
            self._refused(held, command, refusal)

    def _refused(self, held: HeldRun, command: Command, refusal: Refusal) -> None:
        if isinstance(command, FinishStep):
            step = held.open.state.steps[command.step]
            if step.status is StepStatus.DONE and (step.attempt, step.token) == (command.attempt, command.token):
                return  # our own write, sent twice after a lost reply
        if isinstance(command, RecordEffect):
            journal = held.journal_of(command)
            if journal is not None:
                journal.close(refusal.reason)
        if isinstance(command, FinishStep | FailStep):
            self.office.stale_writes += 1
            log.warning("stale_write_rejected run=%s step=%s attempt=%s token=%s: %s",
                        held.run_id, command.step, command.attempt, command.token, refusal.reason)  # fmt: skip

    # -- what a flush brought ----------------------------------------------------------------------------

    def committed(self, held: HeldRun) -> None:
        """The rows are durable: begin what they started, or let go of a run that has ended."""
        held.expected = held.open.state.seq
        held.rows, held.taken, held.in_flight, held.resend = [], [], False, False
        starts, held.starting = held.starting, []
        if held.effects:
            for recorded in held.effects:
                journal = held.journal_of(recorded)
                if journal is not None:
                    journal.committed()
            held.effects = []
        state = held.open.state
        if state.status in ENDED:
            self._finish(held)
            return
        for event in starts:
            self.bodies.begin(held, event)
        if held.begun:
            held.begun.clear()
        if state.cancel_requested:
            self._cancel(held)
        if held.inbox or held.to_offer or held.look_again:
            held.look_again = False
            self.mark(held)
        if held.retries or held.timer or held.has_ttl or self.office.peers:
            self._set_timer(held)

    def _finish(self, held: HeldRun) -> None:
        self.held.pop(held.run_id, None)
        held.dropped = f"the run is {held.open.state.status}"
        held.stop_timers()
        self._abandon_bodies(held)

    def _set_timer(self, held: HeldRun) -> None:
        if held.timer is None and not held.retries and not held.has_ttl and not self.office.peers:
            return
        state = held.open.state
        due = list(held.retries.values())
        if held.has_ttl:
            due += [at for name in state.ready if (at := expires_at(state, name)) is not None]
        surplus = len(state.ready) > len(held.offered) and self.office.peers > 0
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        if not due and not surplus:
            return
        delay = (min(due) - self.office.clock.now()).total_seconds() if due else 1.0
        if surplus:
            delay = min(delay, OFFER_AFTER.total_seconds())
        held.timer = asyncio.get_running_loop().call_later(max(delay, 0.001), self.mark, held)

    def idle(self, held: HeldRun) -> None:
        """The run was looked at and had nothing to write: see to its timers."""
        if held.open.state.cancel_requested:
            self._cancel(held)
        self._set_timer(held)

    def let_go(self, held: HeldRun, why: str) -> None:
        """Forget a run of which nothing is under way here."""
        held.dropped = why
        held.stop_timers()
        self.held.pop(held.run_id, None)

    def can_park(self, held: HeldRun) -> datetime | None:
        """When the run is next due, if nothing of it needs this worker until well after now."""
        state = held.open.state
        if state.running or state.ready or held.bodies or held.inbox or held.rows or not held.retries:
            return None
        due = min(held.retries.values())
        return due if due - self.office.clock.now() > PARK_AFTER else None

    async def settle(self, held: HeldRun) -> None:
        """A flush did not return this run: find out why, and do what follows from it."""
        held.in_flight = False
        state = held.open.state
        work = self.office.work
        heads = await work.execute("read_head", {"run_id": held.run_id})
        found = await work.execute("hash_at", {"run_id": held.run_id, "seq": state.seq})
        if found and bytes(found[0][0]) == held.open.head_hash:
            self.committed(held)  # the reply was lost, the write was not
        elif not heads or heads[0][0] != held.open.epoch:
            self.drop(held, "another worker has claimed the run", is_stale=True)
        elif heads[0][1] == held.expected:
            # Its head was locked, perhaps by a first try that is still under way: the same rows go again.
            held.resend = True
            asyncio.get_running_loop().call_later(0.005, self.mark, held)
        else:
            await self.reload(held)

    async def reload(self, held: HeldRun) -> None:
        """Somebody appended (a cancel, a helper): decide again on top of it."""
        definitions = self.office.definitions
        run = await self.office.work.run(lambda conn: load_run(conn, definitions, held.run_id))
        run.epoch = held.open.epoch
        self.office.slots.give(len(held.starting))
        held.open, held.expected = run, run.state.seq
        if run.state.status.is_terminal:
            self.drop(held, f"the run is {run.state.status}", is_stale=True)
            return
        held.inbox = [*held.taken, *held.inbox]
        held.rows, held.taken, held.starting, held.effects, held.resend = [], [], [], [], False
        self._retries_from_state(held)
        if run.state.cancel_requested:
            self._cancel(held)
        self.mark(held)

    async def refresh(self, held: HeldRun) -> None:
        """Fold in what others have appended, if nothing of ours is on its way."""
        if held.dropped or held.rows or held.in_flight or held.is_slow:
            self.mark(held)  # the next append finds out by itself
            return
        after = held.open.state.seq
        rows = await self.office.work.run(lambda conn: load_rows(conn, held.run_id, after))
        if not rows or held.rows or held.in_flight or held.dropped or after != held.open.state.seq:
            return
        catch_up(held.open, rows)
        held.expected = held.open.state.seq
        self._retries_from_state(held)
        if held.open.state.status.is_terminal:
            self._finish(held)
            return
        if held.open.state.cancel_requested:
            self._cancel(held)
        self.mark(held)

    def _retries_from_state(self, held: HeldRun) -> None:
        steps = held.open.state.steps
        held.retries = {
            name: step.retry_at
            for name, step in steps.items()
            if step.status is StepStatus.FAILED and step.retry_at is not None
        }
        ended = {name for name in held.offered if steps[name].status not in (StepStatus.SCHEDULED, StepStatus.RUNNING)}
        held.offered -= ended

    def poison(self, held: HeldRun, exc: BaseException) -> None:
        """The database refuses what a step of this run produced: that step fails, with a clear error."""
        text = f"the database refused to store this step's outcome: {str(exc).splitlines()[0]}"
        error = ErrorInfo("kairos.errors.PayloadError", text)
        for command in held.taken:
            if isinstance(command, RecordEffect) and (journal := held.journal_of(command)) is not None:
                journal.refuse(PayloadError(f"the database refused to store effect {command.name!r}: {exc}"))
        held.taken = [c for c in held.taken if not isinstance(c, RecordEffect)]
        held.taken = [
            FailStep(step=c.step, attempt=c.attempt, token=c.token, error=error, retryable=False)
            if isinstance(c, FinishStep | FailStep)
            else c
            for c in held.taken
        ]

    # -- the slow lane -----------------------------------------------------------------------------------

    async def step_slowly(self, held: HeldRun) -> None:
        """Take a run with tasks out forward: lock its head, decide, append, offer."""
        commands, held.inbox = [*held.taken, *held.inbox], []
        self.office.slots.give(len(held.starting))
        held.rows, held.taken, held.starting, held.effects = [], [], [], []
        once, offered = Once(), set[str]()

        async def within(conn: Conn, done: Advanced) -> None:
            offered.clear()
            offered.update(await self._offer(conn, held, done.run.state))

        async def work(conn: Conn) -> Advanced:
            held.to_offer = []
            return await self.office.history.advance(
                conn, held.run_id, commands, within=within, epoch=held.open.epoch, once=once,
                schedule=lambda state, now: self.schedule(held, state, now),
            )  # fmt: skip

        try:
            done = await self.office.work.run(work)
        except BaseException:
            held.inbox = [*commands, *held.inbox]
            raise
        held.offered |= offered
        held.to_offer = []
        held.open = done.run
        self.observe(held, done.events, done.refused)
        self._retries_from_state(held)
        self.committed(held)
        if not held.offered and not held.dropped:
            held.is_slow = False
            self.office.history.forget(held.run_id)

    async def _offer(self, conn: Conn, held: HeldRun, state: RunState) -> list[str]:
        names = [name for name in held.to_offer if name in state.ready]
        if not names or state.status.is_terminal:
            return []
        specs = [state.graph.steps[name] for name in names]
        await conn.execute(
            query("offer_steps"),
            {
                "run_id": held.run_id,
                "workflow": state.workflow,
                "fingerprint": state.fingerprint,
                "steps": names,
                "queues": [spec.queue or state.queue for spec in specs],
                "priorities": [spec.priority or state.priority or DEFAULT_PRIORITY for spec in specs],
                "expires": [expires_at(state, name) for name in names],
                "crashed": [name in held.suspects or state.steps[name].suspect for name in names],
            },
        )
        await conn.execute(query("notify"), {"channel": "kairos_task", "payload": ""})
        return names

    # -- endings -----------------------------------------------------------------------------------------

    def _cancel(self, held: HeldRun) -> None:
        """Tell the bodies; when the grace is over their fences are revoked."""
        if held.cancel_timer is not None:
            return
        for body in held.bodies.values():
            self.bodies.ask_to_stop(body, held.workflow.steps[body.step])
        grace = self.office.options.cancel_grace
        held.cancel_timer = asyncio.get_running_loop().call_later(grace, self._cancel_now, held)

    def _cancel_now(self, held: HeldRun) -> None:
        if not held.dropped:
            held.inbox.append(FinishCancel())
            self.mark(held)

    def _abandon_bodies(self, held: HeldRun) -> None:
        for body in list(held.bodies.values()):
            self.bodies.abandon(body)

    def drop(self, held: HeldRun, reason: str, *, is_stale: bool) -> None:
        """Let go of a run. If another worker has it, what we still had to say is recorded as refused."""
        if held.dropped:
            return
        held.dropped = reason
        held.stop_timers()
        self.held.pop(held.run_id, None)
        self.office.slots.give(len(held.starting))
        held.starting = []
        self._abandon_bodies(held)
        late = [c for c in (*held.taken, *held.inbox) if isinstance(c, FinishStep | FailStep)]
        log.warning("run_dropped run=%s: %s", held.run_id, reason)
        if is_stale and late:
            self.reject(held.run_id, late)

    def reject(self, run_id: UUID, late: Iterable[FinishStep | FailStep]) -> None:
        """Have late results recorded in the log of the run, as evidence."""
        me = self.office.identity.name
        records = []
        for command in late:
            self.office.stale_writes += 1
            what = "output" if isinstance(command, FinishStep) else "failure"
            log.warning("stale_write_rejected run=%s step=%s attempt=%s token=%s: late %s",
                        run_id, command.step, command.attempt, command.token, what)  # fmt: skip
            records.append(RejectWrite(command.step, command.attempt, command.token, me, what))
        self.rejects.append((run_id, records))
        self.wake_slow.set()

    def feed_starved(self) -> None:
        """A slot is free: have the runs looked at that found none, longest waiting first."""
        if not self.starved:
            return
        for _ in range(min(len(self.starved), max(self.office.slots.free, 0))):
            self.mark(self.starved.pop(next(iter(self.starved))))

    def body_done(self, held: HeldRun, command: FinishStep | FailStep | LoseLease | StopStep | None) -> None:
        """A body has ended; `command` is what it has to say."""
        self.office.slots.give()
        self.feed_starved()
        if command is None:
            return
        if held.dropped is None:
            held.inbox.append(command)
            self.mark(held)
        elif isinstance(command, FinishStep | FailStep):
            self.reject(held.run_id, [command])


def _due(held: HeldRun, now: datetime) -> list[str]:
    return [name for name, at in held.retries.items() if at <= now]
