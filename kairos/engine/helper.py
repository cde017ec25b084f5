"""Steps that other workers' runs have offered: this worker runs them and reports by slow appends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from kairos.domain.commands import Command, FailStep, FinishStep, LoseLease, RecordEffect, StartStep, StopStep
from kairos.domain.events import StepStarted
from kairos.domain.projection import RunState
from kairos.domain.states import StepStatus
from kairos.engine.bodies import Bodies, Note, Sink
from kairos.engine.held import Body
from kairos.engine.office import Office, log
from kairos.errors import KairosError
from kairos.store.drive import input_hash
from kairos.store.history import Advanced, Conn, Once
from kairos.store.queries import query


@dataclass(slots=True)
class Helped:
    """One step task in hand."""

    run_id: UUID
    step: str
    fingerprint: str
    is_suspect: bool
    body: Body | None = None
    has_slot: bool = True


@dataclass(slots=True)
class Lane:
    """What is to be appended to one run; several steps that end together share one append."""

    commands: list[Command] = field(default_factory=list)
    claims: list[Helped] = field(default_factory=list)
    is_running: bool = False


class HelpedSink(Sink):
    """For a step of a run that another worker owns."""

    __slots__ = ("_helper", "_run_id")

    def __init__(self, helper: Helper, run_id: UUID, state: RunState, event: StepStarted) -> None:
        super().__init__(helper.bodies, state, event)
        self._helper, self._run_id = helper, run_id

    def post(self, command: Note) -> None:
        """Into the next append of the run, which begins at once."""
        if not self._helper.put(self._run_id, self._event.step, command) and type(command) is RecordEffect:
            self._refuse("the step is not this worker's any more")

    def hurry(self) -> None:
        """Nothing: it is on its way."""


class Helper:
    """Takes step tasks, runs them, appends what happened."""

    def __init__(self, office: Office, bodies: Bodies) -> None:
        self.office, self.bodies = office, bodies
        self.tasks: dict[tuple[UUID, str], Helped] = {}
        self.lanes: dict[UUID, Lane] = {}
        self.running: set[asyncio.Task[None]] = set()
        self.on_free: Callable[[], None] = lambda: None

    def take(self, rows: list[tuple[Any, ...]]) -> None:
        """Begin the claimed step tasks; each has its slot from now on."""
        for run_id, step, fingerprint, crashed in rows:
            helped = self.tasks[run_id, step] = Helped(run_id, step, fingerprint, crashed)
            self.office.slots.take()
            lane = self.lanes.setdefault(run_id, Lane())
            lane.claims.append(helped)
            self._go(run_id, lane)

    def run_ids(self) -> set[UUID]:
        """Runs of which a step is in hand."""
        return {run_id for run_id, _ in self.tasks}

    def cancel_run(self, run_id: UUID) -> None:
        """Tell the bodies of one run to stop."""
        for (owner, name), helped in list(self.tasks.items()):
            if owner == run_id and helped.body is not None:
                step = self.office.registry[helped.fingerprint].steps[name]
                self.bodies.ask_to_stop(helped.body, step)

    def drop_all(self) -> None:
        """Let go of everything: this worker has been declared dead."""
        for helped in list(self.tasks.values()):
            if helped.body is not None:
                self.bodies.abandon(helped.body)

    async def give_back(self) -> None:
        """At shutdown: hand back what still runs, without burning an attempt."""
        for helped in list(self.tasks.values()):
            if helped.body is not None:
                me = self.office.identity.name
                lane = self.lanes.setdefault(helped.run_id, Lane())
                lane.commands.append(LoseLease(helped.step, helped.body.token, "released", me))
                self._go(helped.run_id, lane)
        while self.running:
            await asyncio.wait(self.running)

    def put(self, run_id: UUID, step: str, command: Command) -> bool:
        """Have what a body says appended. Whether the step is in hand."""
        if (run_id, step) not in self.tasks:
            return False
        lane = self.lanes.setdefault(run_id, Lane())
        lane.commands.append(command)
        self._go(run_id, lane)
        return True

    def _go(self, run_id: UUID, lane: Lane) -> None:
        if not lane.is_running:
            lane.is_running = True
            task = asyncio.get_running_loop().create_task(self._drain(run_id, lane))
            self.running.add(task)
            task.add_done_callback(self.running.discard)

    async def _drain(self, run_id: UUID, lane: Lane) -> None:
        try:
            while lane.commands or lane.claims:
                await self._append(run_id, lane)
        except KairosError as exc:
            log.error("helper_failed run=%s: %s", run_id, exc)
        finally:
            lane.is_running = False
            self.lanes.pop(run_id, None)

    async def _append(self, run_id: UUID, lane: Lane) -> None:
        commands, claims = lane.commands, lane.claims
        lane.commands, lane.claims = [], []

        def schedule(state: RunState, now: object) -> list[StartStep]:
            me = self.office.identity.name
            return [
                StartStep(h.step, input_hash(state, h.step), me, h.is_suspect or state.steps[h.step].suspect)
                for h in claims
                if h.step in state.ready
            ]

        async def within(conn: Conn, done: Advanced) -> None:
            await self._settle_tasks(conn, run_id, done, claims, commands)

        once = Once()

        async def work(conn: Conn) -> Advanced:
            return await self.office.history.advance(
                conn, run_id, commands, within=within, schedule=schedule, once=once
            )

        effects = [c for c in commands if isinstance(c, RecordEffect)]
        try:
            done = await self.office.work.run(work)
        except BaseException as exc:
            for effect in effects:
                self._answer(run_id, effect, f"its effects could not be recorded: {exc}")
            for helped in (*claims, *self._spoken_for(run_id, commands)):
                self._let_go(helped)
            raise
        refused = {id(command): refusal.reason for command, refusal in done.refused}
        for effect in effects:
            self._answer(run_id, effect, refused.get(id(effect)))
        self._after(done, commands, claims)

    def _answer(self, run_id: UUID, effect: RecordEffect, refusal: str | None) -> None:
        """Tell the step that its effect is durable, or will never be."""
        helped = self.tasks.get((run_id, effect.step))
        body = None if helped is None else helped.body
        if body is None or body.token != effect.token or body.sink.opened is None:
            return
        if refusal is None:
            body.sink.opened.committed()
        else:
            body.sink.opened.close(refusal)

    def _spoken_for(self, run_id: UUID, commands: list[Command]) -> list[Helped]:
        """The tasks whose end these commands tell."""
        found = []
        for command in commands:
            if isinstance(command, FinishStep | FailStep | StopStep | LoseLease):
                helped = self.tasks.get((run_id, command.step))
                if helped is not None and helped.body is not None and helped.body.token == command.token:
                    found.append(helped)
        return found

    async def _settle_tasks(
        self, conn: Conn, run_id: UUID, done: Advanced, claims: list[Helped], commands: list[Command]
    ) -> None:
        """Within the append: fence the tasks that began, remove those that ended, give back the released."""
        me = self.office.identity.id
        started = {e.step: e for e in done.events if isinstance(e, StepStarted)}
        for event in started.values():
            params = {"run_id": run_id, "step": event.step, "attempt": event.attempt, "token": event.token}
            await conn.execute(query("start_step_task"), {**params, "worker": me})
        released = {c.step: c for c in commands if isinstance(c, LoseLease)}
        for step, command in released.items():
            params = {"run_id": run_id, "step": step, "worker": me, "crashed": command.suspect, "ready_at": None}
            await conn.execute(query("release_step_task"), params)
        ended = [c.step for c in commands if isinstance(c, FinishStep | FailStep | StopStep)]
        ended += [h.step for h in claims if h.step not in started]
        if ended:
            params = {"run_id": run_id, "steps": ended, "worker": me, "token": None}
            await conn.execute(query("delete_step_tasks"), params)
        if done.events:
            await conn.execute(query("notify"), {"channel": "kairos_task", "payload": f"run:{run_id.hex}"})

    def _after(self, done: Advanced, commands: list[Command], claims: list[Helped]) -> None:
        started = {e.step: e for e in done.events if isinstance(e, StepStarted)}
        for helped in claims:
            event = started.get(helped.step)
            if event is None:
                self._let_go(helped)
            else:
                self._begin(helped, done.run.state, event)
        for helped in self._spoken_for(done.run.run_id, commands):
            self._let_go(helped)
        for command, refusal in done.refused:
            if isinstance(command, FinishStep | FailStep):
                step = done.run.state.steps[command.step]
                if step.status is StepStatus.DONE and (step.attempt, step.token) == (command.attempt, command.token):
                    continue  # our own write, sent twice after a lost reply
                self.office.stale_writes += 1
                log.warning("stale_write_rejected run=%s step=%s attempt=%s token=%s: %s",
                            done.run.run_id, command.step, command.attempt, command.token, refusal.reason)  # fmt: skip

    def _begin(self, helped: Helped, state: RunState, event: StepStarted) -> None:
        workflow = self.office.registry[helped.fingerprint]
        step = workflow.steps[helped.step]
        run_id = helped.run_id

        sink = HelpedSink(self, run_id, state, event)
        ctx = self.bodies.context(str(state.run_id), state.workflow, event, sink)
        helped.body = Body(event.step, event.attempt, event.token, ctx, sink)

        async def run() -> None:
            ending: Command | None = None
            try:
                ending = await self.bodies.attempt(state, event, step, ctx, sink, epoch=None, is_helper=True)
            except asyncio.CancelledError:
                ending = StopStep(event.step, event.attempt, event.token)
            except Exception as exc:
                ending = self.bodies.broken(event, ctx, exc)
            finally:
                sink.close()
                self._free_slot(helped)
                if ending is None:
                    self._let_go(helped)
                else:
                    lane = self.lanes.setdefault(run_id, Lane())
                    lane.commands.append(ending)
                    self._go(run_id, lane)

        task = asyncio.get_running_loop().create_task(run())
        helped.body.task = task
        self.bodies.running.add(task)
        task.add_done_callback(self.bodies.running.discard)

    def _let_go(self, helped: Helped) -> None:
        """The task is not ours any more. Not before the append that says so: what the database says is ours
        and is not known here is taken for an orphan."""
        key = helped.run_id, helped.step
        if self.tasks.get(key) is helped:
            del self.tasks[key]
        self._free_slot(helped)

    def _free_slot(self, helped: Helped) -> None:
        if helped.has_slot:
            helped.has_slot = False
            self.office.slots.give()
            self.on_free()
