"""Runs a whole workflow in this process, with no database: for tests, notebooks and scripts.

The same rules decide and the same code runs the steps as in a worker; only the log is a list in memory and
is forgotten at the end. Nothing here is durable.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

from kairos.authoring.context import LogRecord, MetricRecord, StepContext
from kairos.authoring.executor import Cancelled, Failed, Outcome, Succeeded, run_attempt
from kairos.authoring.step import Step
from kairos.authoring.threads import Threads
from kairos.domain.commands import (
    ClaimRun,
    Command,
    EmitLog,
    EmitMetric,
    FailStep,
    FinishStep,
    RecordEffect,
    Refusal,
    StartStep,
)
from kairos.domain.decisions import decide
from kairos.domain.events import Event, Recorded, RunScheduled, StepStarted
from kairos.domain.ids import uuid7
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState, apply
from kairos.domain.states import RunStatus, StepStatus
from kairos.errors import RunFailed

if TYPE_CHECKING:
    from kairos.authoring.effects import EffectJournal
    from kairos.authoring.workflow import Workflow

MAX_PARALLEL = 32
"""Steps that run at the same time."""

Clock = Callable[[], datetime]


def run_inline(workflow: Workflow, value: Any, *, sleep: bool, clock: Clock | None, connection: Any = None) -> Any:
    """Run and return the output. Works inside a running event loop too, blocking it."""
    run = InlineRun(workflow, value, sleep=sleep, clock=clock, connection=connection)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run.finish())
    return _in_other_thread(run.finish())


class InlineRun:
    """One run in memory.

    Attributes:
        history: its events, as a worker would have stored them.
        state: the fold of `history`.
    """

    def __init__(
        self,
        workflow: Workflow,
        value: Any = None,
        *,
        sleep: bool = False,
        clock: Clock | None = None,
        connection: Any = None,
    ) -> None:
        self._connection = connection
        self.workflow = workflow
        self.history: list[Recorded] = []
        self._sleep = sleep
        self._clock = clock or _utc_now
        self._skipped = timedelta()
        self._threads = Threads("kairos-inline")
        self._bodies: dict[asyncio.Task[Outcome], StepStarted] = {}
        self._retries: list[tuple[datetime, str]] = []
        self._notes: deque[Command] = deque()
        self._errors: dict[str, BaseException] = {}
        self.state = RunState(_new_id(self._clock()), workflow.graph)
        self._record(_scheduled(workflow, workflow.encode_input(value)))
        self._ask(ClaimRun(worker="inline", epoch=1))

    async def finish(self) -> Any:
        """Run to the end and return the output.

        Raises:
            RunFailed: a step is DEAD or EXPIRED; caused by the exception that the step raised.
        """
        try:
            while not self.state.status.is_terminal:
                self._start_ready()
                await self._wait()
        finally:
            await self._stop_bodies()
        if self.state.status is not RunStatus.DONE:
            raise self._failure()
        return self._output()

    def _now(self) -> datetime:
        now = self._clock() + self._skipped
        return max(now, self.state.at) if self.state.at else now

    def _record(self, event: Event) -> None:
        recorded = Recorded(self.state.seq + 1, self._now(), event)
        apply(self.state, recorded)
        self.history.append(recorded)

    def _ask(self, command: Command) -> list[Event]:
        events = decide(self.state, command, self._now())
        if isinstance(events, Refusal):
            return []
        for event in events:
            self._record(event)
        return events

    def _start_ready(self) -> None:
        self._start(list(islice(self.state.ready, self._room)))
        if self._retries and not self._sleep and self._room and not self.state.ready:
            # Instead of waiting, the clock is put forward to when the last backoff ends.
            self._skipped += max(timedelta(), max(self._retries)[0] - self._now())
        now = self._now()
        due: list[str] = []
        while self._retries and self._retries[0][0] <= now and len(due) < self._room:
            due.append(heapq.heappop(self._retries)[1])
        self._start(due)

    @property
    def _room(self) -> int:
        return MAX_PARALLEL - len(self._bodies)

    def _start(self, names: list[str]) -> None:
        for name in names:
            for event in self._ask(StartStep(name)):
                if isinstance(event, StepStarted):
                    self._begin(event)

    def step(self, name: str) -> Step[..., Any]:
        """The step to run under this name; a test may put another in its place."""
        return self.workflow.steps[name]

    def _begin(self, event: StepStarted) -> None:
        step = self.step(event.step)
        upstream = {name: _bytes(self.state.steps[name].output) for name in step.spec.needs.values()}
        attempt = run_attempt(
            step,
            _InlineContext(self, event),
            _bytes(self.state.input),
            upstream,
            threads=self._threads,
            timeout=step.spec.timeout,
        )
        self._bodies[asyncio.get_running_loop().create_task(attempt)] = event

    async def _wait(self) -> None:
        pause = self._seconds_to_next_retry() if self._sleep and self._room else None
        if not self._bodies:
            await asyncio.sleep(pause or 0)
            return
        ended, _ = await asyncio.wait(self._bodies, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        self._drain_notes()
        for task in ended:
            self._end(self._bodies.pop(task), task.result())

    def _seconds_to_next_retry(self) -> float | None:
        return max(0.0, (self._retries[0][0] - self._now()).total_seconds()) if self._retries else None

    def _end(self, event: StepStarted, outcome: Outcome) -> None:
        name, attempt, token = event.step, event.attempt, event.token
        match outcome:
            case Succeeded(output=output):
                self._ask(FinishStep(name, attempt, token, output))
            case Failed(error=error, retryable=retryable, timed_out=timed_out):
                roll = random.random()
                self._ask(FailStep(name, attempt, token, error, retryable, roll, timed_out=timed_out))
                retry_at = self.state.steps[name].retry_at
                if retry_at is not None and self.state.steps[name].status is StepStatus.FAILED:
                    heapq.heappush(self._retries, (retry_at, name))
            case Cancelled():
                raise RuntimeError(f"step {name!r} was cancelled, but nobody cancels an inline run")

    def _drain_notes(self) -> None:
        while self._notes:
            self._ask(self._notes.popleft())

    async def _stop_bodies(self) -> None:
        for task in self._bodies:
            task.cancel()
        if self._bodies:
            await asyncio.wait(self._bodies)

    def _output(self) -> Any:
        outputs = {
            name: self.workflow.steps[name].output_adapter.decode(
                _bytes(self.state.steps[name].output), f"the output of step {name!r}"
            )
            for name in self.state.graph.sinks
        }
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def _failure(self) -> RunFailed:
        blocked = self.state.steps_in(StepStatus.DEAD, StepStatus.EXPIRED)
        reasons = "; ".join(f"step {name!r}: {self.state.steps[name].reason}" for name in blocked[:5])
        failure = RunFailed(
            f"the run of {self.workflow.name!r} is {self.state.status}: {reasons or self.state.reason}",
            step=blocked[0] if blocked else None,
            steps=tuple(blocked),
            reason=self.state.reason,
            error=next((self.state.steps[name].error for name in blocked if self.state.steps[name].error), None),
        )
        failure.__cause__ = next((self._errors[name] for name in blocked if name in self._errors), None)
        return failure


class _InlineContext(StepContext):
    """Keeps what the step raised, so that a test sees the real traceback below `RunFailed`."""

    __slots__ = ("_run",)

    def __init__(self, run: InlineRun, event: StepStarted) -> None:
        workflow = run.workflow
        super().__init__(
            run_id=str(run.state.run_id),
            step=event.step,
            attempt=event.attempt,
            token=event.token,
            workflow=workflow.name,
            app=workflow.app.name,
            sink=_Notes(run._notes, event),
            redaction=workflow.app.redaction,
            journal=lambda: _journal(run, event),
        )
        self._run = run
        self.connection = run._connection

    def raised(self, error: BaseException) -> None:
        self._run._errors[self.step] = error


def _journal(run: InlineRun, event: StepStarted) -> EffectJournal:
    from kairos.authoring.effects import BasicJournal, Effect

    class Journal(BasicJournal):
        def record(self, effect: Effect) -> None:
            e = effect
            facts = e.name, e.ordinal, e.via, e.arguments, e.result, e.error, e.duration_us
            run._notes.append(RecordEffect(event.step, event.attempt, event.token, *facts))

    return Journal(run.state.steps[event.step].effects)


class _Notes:
    def __init__(self, notes: deque[Command], event: StepStarted) -> None:
        self._notes = notes
        self._event = event

    def log(self, record: LogRecord) -> None:
        event = self._event
        self._notes.append(EmitLog(event.step, event.attempt, event.token, record.level, record.message, record.fields))

    def metric(self, record: MetricRecord) -> None:
        event = self._event
        self._notes.append(EmitMetric(event.step, event.attempt, event.token, record.name, record.value, record.labels))


def _scheduled(workflow: Workflow, value: Payload) -> RunScheduled:
    return RunScheduled(
        workflow=workflow.name,
        fingerprint=workflow.fingerprint,
        input=value,
        queue=workflow.queue,
        priority=workflow.priority,
        trigger="inline",
    )


def _bytes(payload: Payload | None) -> bytes:
    return payload.data if payload is not None and payload.data is not None else b"null"


def _new_id(now: datetime) -> UUID:
    return uuid7(int(now.timestamp() * 1000), random.getrandbits(74))


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _in_other_thread(work: Coroutine[Any, Any, Any]) -> Any:
    answer: list[Any] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(asyncio.run(work))
        except BaseException as exc:
            error.append(exc)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="kairos-inline", daemon=True)
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return answer[0]
