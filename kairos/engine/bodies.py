"""Runs the bodies of attempts: in this process, or alone in a child when the step is a suspect."""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import get_ident
from typing import TYPE_CHECKING, Any

from kairos.authoring import Step, StepContext
from kairos.authoring.executor import Cancelled, Failed, Succeeded, run_attempt
from kairos.authoring.failure import describe_error
from kairos.domain.commands import EmitLog, EmitMetric, FailStep, FinishStep, LoseLease, RecordEffect, StopStep
from kairos.domain.events import StepStarted
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState
from kairos.engine.held import Body, HeldRun
from kairos.engine.isolation import Crashed, Isolation, Job
from kairos.engine.journal import Journal
from kairos.engine.office import Office, log
from kairos.engine.transactional import Committed, Ended, Fenced, Transactional, Uncertain
from kairos.store.failpoints import failpoint
from kairos.store.history import fetch_payloads

if TYPE_CHECKING:
    from kairos.authoring.context import LogRecord, MetricRecord

Ending = FinishStep | FailStep | LoseLease | StopStep
Note = EmitLog | EmitMetric | RecordEffect


class Sink(ABC):
    """Takes what a body says and has done, on whatever thread, to the inbox of its run.

    Attributes:
        opened: the journal of its effects, once it has asked for one.
    """

    __slots__ = ("_bodies", "_event", "_is_closed", "_state", "opened")

    def __init__(self, bodies: Bodies, state: RunState, event: StepStarted) -> None:
        self._bodies, self._state, self._event = bodies, state, event
        self.opened: Journal | None = None
        self._is_closed = False

    def log(self, record: LogRecord) -> None:
        """Pass on a log line."""
        e = self._event
        self._do(self.post, EmitLog(e.step, e.attempt, e.token, record.level, record.message, record.fields))

    def metric(self, record: MetricRecord) -> None:
        """Pass on a number."""
        e = self._event
        self._do(self.post, EmitMetric(e.step, e.attempt, e.token, record.name, record.value, record.labels))

    def journal(self) -> Journal:
        """Open the journal of effects."""
        if self.opened is None:
            self.opened = Journal(self, self._event, self._state.steps[self._event.step].effects)
            if self._is_closed:
                self.close()
        return self.opened

    def close(self) -> None:
        """The attempt is over."""
        self._is_closed = True
        if self.opened is not None:
            self.opened.close("this attempt is over")

    def put(self, command: RecordEffect) -> None:
        """Pass on an effect."""
        try:
            self._do(self.post, command)
        except RuntimeError:  # the event loop is closed: the worker is gone
            self._refuse("its worker has ended")

    def urge(self) -> None:
        """Have what was passed on appended now."""
        try:
            self._do(self.hurry)
        except RuntimeError:
            self._refuse("its worker has ended")

    def fetch(self, payload: Payload) -> Future[bytes]:
        """Read a blob."""

        async def read() -> bytes:
            return (await self._bodies.fetch([payload]))[payload.sha256 or ""]

        return asyncio.run_coroutine_threadsafe(read(), self._bodies.loop)

    @abstractmethod
    def post(self, command: Note) -> None:
        """Take it, on the thread of the event loop."""

    @abstractmethod
    def hurry(self) -> None:
        """Append what was taken, without waiting for more. On the thread of the event loop."""

    def _refuse(self, reason: str) -> None:
        if self.opened is not None:
            self.opened.close(reason)

    def _do(self, fn: Callable[..., None], *args: Any) -> None:
        if get_ident() == self._bodies.thread:
            fn(*args)  # at once: later the attempt may have ended, and its lines would be refused
        else:
            self._bodies.loop.call_soon_threadsafe(fn, *args)


class OwnSink(Sink):
    """For a run that this worker owns."""

    __slots__ = ("_held",)

    def __init__(self, bodies: Bodies, held: HeldRun, event: StepStarted) -> None:
        super().__init__(bodies, held.open.state, event)
        self._held = held

    def post(self, command: Note) -> None:
        """Into the inbox; it is looked at soon."""
        held = self._held
        if held.dropped is not None:
            if type(command) is RecordEffect:
                self._refuse(held.dropped)
            return
        is_first = not held.inbox
        held.inbox.append(command)
        if is_first:
            self._bodies.on_note(held)

    def hurry(self) -> None:
        """Have the run looked at."""
        self._bodies.on_urgent(self._held)


class Bodies:
    """Begins, stops and reports on attempts."""

    def __init__(self, office: Office, isolation: Isolation) -> None:
        self.office, self.isolation = office, isolation
        self.on_done: Callable[[HeldRun, Ending | None], None] = lambda held, ending: None
        self.on_committed: Callable[[HeldRun], None] = lambda held: None
        self.on_note: Callable[[HeldRun], None] = lambda held: None
        self.on_urgent: Callable[[HeldRun], None] = lambda held: None
        self.running: set[asyncio.Task[None]] = set()
        self.loop, self.thread = asyncio.get_running_loop(), get_ident()

    def begin(self, held: HeldRun, event: StepStarted) -> None:
        """Start the body of an attempt whose inputs are durable."""
        name = event.step
        step = held.workflow.steps[name]
        sink = OwnSink(self, held, event)
        ctx = self.context(held.name, held.open.state.workflow, event, sink)
        body = held.bodies[name] = Body(name, event.attempt, event.token, ctx, sink)
        body.task = self.loop.create_task(self._run(held, body, event, step, sink))
        self.running.add(body.task)

    def context(self, run_id: str, workflow: str, event: StepStarted, sink: Sink) -> StepContext:
        """The context that a body is given."""
        return StepContext(
            run_id=run_id,
            workflow=workflow,
            app=self.office.app.name,
            step=event.step,
            attempt=event.attempt,
            token=event.token,
            sink=sink,
            redaction=self.office.app.redaction,
            journal=sink.journal,
        )

    def ask_to_stop(self, body: Body, step: Step[..., Any]) -> None:
        """The run is being cancelled: raise the flag; async bodies get a CancelledError at their next await."""
        body.ctx.cancel("the run is being cancelled")
        if step.is_async:
            self.abandon(body)

    def abandon(self, body: Body) -> None:
        """Stop waiting for a body, whatever it does: its fence is void."""
        body.ctx.cancel("this attempt is no longer wanted")
        if body.task is not None and not body.task.done():
            body.task.cancel()

    async def _run(self, held: HeldRun, body: Body, event: StepStarted, step: Step[..., Any], sink: Sink) -> None:
        ending: Ending | None = None
        state = held.open.state
        try:
            if event.isolated or step.spec.transactional:
                epoch = held.open.epoch
                ending = await self.attempt(state, event, step, body.ctx, sink, epoch=epoch, is_helper=False)
            else:  # what `attempt` does for a plain step, without its detours
                given = self._at_hand(state, event.step) or await self._inputs(state, event.step)
                failpoint("before_body")
                began = time.perf_counter_ns()
                outcome = await run_attempt(
                    step, body.ctx, *given, threads=self.office.threads, timeout=step.spec.timeout
                )
                failpoint("after_body")
                ending = self.ending(event, outcome, (time.perf_counter_ns() - began) // 1000)
        except asyncio.CancelledError:
            ending = StopStep(event.step, event.attempt, event.token)
        except Exception as exc:
            ending = self.broken(event, body.ctx, exc)
        finally:
            if body.task is not None:
                self.running.discard(body.task)
            if held.bodies.get(event.step) is body:
                del held.bodies[event.step]
            sink.close()
            self.on_done(held, ending)
            if ending is None:
                self.on_committed(held)

    async def attempt(
        self, state: RunState, event: StepStarted, step: Step[..., Any], ctx: StepContext, sink: Sink,
        *, epoch: int | None, is_helper: bool,
    ) -> Ending | None:  # fmt: skip
        """Run one attempt to its end and say what is to be recorded; None: nothing more, see the log."""
        run_input, upstream = self._at_hand(state, event.step) or await self._inputs(state, event.step)
        failpoint("before_body")
        began = time.perf_counter_ns()
        outcome: Ended | Crashed
        transactional = None
        if step.spec.transactional:
            office = self.office
            transactional = Transactional(office.dsn, office.definitions, state.run_id, epoch, event, is_helper)
        if event.isolated and self.isolation.app_spec is not None:
            earlier = (state.steps[event.step].effects or {}).values()
            job = Job.of(ctx, state.fingerprint, run_input, upstream, step.spec.timeout, transactional, earlier)
            outcome = await self.isolation.run(job, sink)
        elif transactional is not None:
            outcome = await transactional.run(
                step, ctx, run_input, upstream, threads=self.office.threads, timeout=step.spec.timeout
            )
        else:
            outcome = await run_attempt(
                step, ctx, run_input, upstream, threads=self.office.threads, timeout=step.spec.timeout
            )
        failpoint("after_body")
        return self.ending(event, outcome, (time.perf_counter_ns() - began) // 1000)

    def broken(self, event: StepStarted, ctx: StepContext, exc: Exception) -> FailStep:
        """The attempt could not even be made (an input's blob is missing, say): it has failed, visibly."""
        log.exception("attempt_broken run=%s step=%s", ctx.run_id, event.step)
        error = describe_error(exc, ctx.redactor)
        return FailStep(event.step, event.attempt, event.token, error, True, random.random())

    def ending(self, event: StepStarted, outcome: Ended | Crashed, micros: int) -> Ending | None:
        """Translate an outcome into the command that records it."""
        name, attempt, token = event.step, event.attempt, event.token
        match outcome:
            case Succeeded(output=output):
                return FinishStep(name, attempt, token, output, micros)
            case Failed():
                return FailStep(
                    name, attempt, token, outcome.error, outcome.retryable, random.random(), micros, outcome.timed_out
                )
            case Cancelled():
                return StopStep(name, attempt, token)
            case Committed():
                return None
            case Fenced():
                self.office.stale_writes += 1
                log.warning("stale_write_rejected step=%s attempt=%s token=%s: rolled back", name, attempt, token)
                return None
            case Uncertain():
                # If it did commit, this is refused: the step is DONE.
                return LoseLease(name, token, "connection_lost", self.office.identity.name)
            case Crashed(signal=signal):
                me = self.office.identity.name
                return LoseLease(name, token, "crashed", me, signal, alone=True, suspect=True)

    @staticmethod
    def _at_hand(state: RunState, name: str) -> tuple[bytes, Mapping[str, bytes]] | None:
        """What `_inputs` gives, unless something must be fetched."""
        run_input, upstream = state.input.data, {}
        if run_input is None:
            return None
        for above in state.graph.steps[name].needs.values():
            output = state.steps[above].output
            if output is not None:
                if output.data is None:
                    return None
                upstream[above] = output.data
        return run_input, upstream

    async def _inputs(self, state: RunState, name: str) -> tuple[bytes, Mapping[str, bytes]]:
        """The bytes of the run's input and of the outputs that the step needs, by upstream step."""
        wanted: dict[str, Payload] = {}
        for upstream in state.graph.steps[name].needs.values():
            output = state.steps[upstream].output
            if output is not None:
                wanted[upstream] = output
        missing = [p for p in (state.input, *wanted.values()) if p.data is None]
        found = await self.fetch(missing) if missing else {}

        def data(payload: Payload) -> bytes:
            return payload.data if payload.data is not None else found[payload.digest]

        return data(state.input), {upstream: data(payload) for upstream, payload in wanted.items()}

    async def fetch(self, payloads: list[Payload]) -> dict[str, bytes]:
        """Read blobs, by digest."""
        return await self.office.work.run(lambda conn: fetch_payloads(conn, payloads))
