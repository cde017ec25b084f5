"""Tells what happens to one run, command by command, and keeps its log as rows. No database, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from kairos.domain.commands import ClaimRun, Command, FailStep, FinishStep, LoseLease, Refusal, StartStep
from kairos.domain.decisions import decide
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import Event, RunScheduled
from kairos.domain.graph import Graph, StepSpec
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState
from kairos.domain.retry import Retry
from kairos.store.codec import Row, first_hash
from kairos.store.drive import OpenRun

RUN_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)

BOOM = ErrorInfo("builtins.ValueError", "boom")
OUTPUT = Payload.of(b'{"ok":true}')
STEADY = Retry(attempts=3, base="10s", factor=1, cap="10s", jitter=0)


def graph_of(**steps: str | StepSpec) -> Graph:
    """A graph from `name="the steps it waits for"`; a `StepSpec` says more."""
    specs = {
        name: what if isinstance(what, StepSpec) else StepSpec(name=name, after=tuple(what.split()), retry=STEADY)
        for name, what in steps.items()
    }
    return Graph.build("story", specs)


def spec(name: str, after: str = "", **more: Any) -> StepSpec:
    """A step with the steady retry of the stories unless it has another."""
    return StepSpec(name=name, after=tuple(after.split()), **{"retry": STEADY, **more})


def scheduled(graph: Graph, **more: Any) -> RunScheduled:
    """The first event of a run of `graph`."""
    usual = {"fingerprint": "f" * 32, "input": Payload.of(b"{}"), "queue": "default", "priority": 5}
    return RunScheduled(workflow=graph.workflow, **{**usual, **more})


class Story:
    """One run. `ask` decides a command at `now` and records what follows; `now` moves only by `wait`."""

    def __init__(self, graph: Graph, **more: Any) -> None:
        self.now = NOON
        self.run = OpenRun(RunState(RUN_ID, graph), first_hash(RUN_ID))
        self.rows: list[Row] = []
        self.events: list[Event] = []
        self._record([scheduled(graph, **more)])

    @property
    def state(self) -> RunState:
        return self.run.state

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def wait(self, delay: timedelta) -> Story:
        self.now += delay
        return self

    def ask(self, command: Command) -> list[Event] | Refusal:
        answer = decide(self.state, command, self.now)
        if not isinstance(answer, Refusal):
            self._record(answer)
        return answer

    def claim(self, worker: str = "w1") -> Story:
        self._must(ClaimRun(worker, self.run.epoch + 1))
        return self

    def start(self, *steps: str, **more: Any) -> Story:
        for step in steps:
            self._must(StartStep(step, input_hash="0" * 16, **more))
        return self

    def finish(self, *steps: str, output: Payload = OUTPUT) -> Story:
        for step in steps:
            self._must(FinishStep(step, *self.attempt(step), output))
        return self

    def fail(self, *steps: str, **more: Any) -> Story:
        for step in steps:
            self._must(FailStep(step, *self.attempt(step), BOOM, **more))
        return self

    def lose(self, *steps: str, **more: Any) -> Story:
        for step in steps:
            self._must(LoseLease(step, self.attempt(step)[1], "worker_lost", **more))
        return self

    def attempt(self, step: str) -> tuple[int, int]:
        """Number and token of the last attempt."""
        return self.state.steps[step].attempt, self.state.steps[step].token

    def statuses(self) -> dict[str, str]:
        return {name: step.status.value for name, step in self.state.steps.items()}

    def _must(self, command: Command) -> None:
        answer = self.ask(command)
        assert not isinstance(answer, Refusal), answer.reason

    def _record(self, events: Iterable[Event]) -> None:
        for event in events:
            self.rows.append(self.run.record(event, self.now))
            self.events.append(event)
