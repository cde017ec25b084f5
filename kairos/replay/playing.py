"""Replays one run in the child: gathers the input of each step, runs it, says what came of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import convert

from kairos.authoring.context import LogRecord, MetricRecord, StepContext
from kairos.domain.payload import Payload
from kairos.errors import BreakpointError, HistoryError
from kairos.replay import messages as m
from kairos.replay.bundle import open_bundle
from kairos.replay.effects import ReplayJournal
from kairos.replay.facts import RunFacts, facts_of
from kairos.replay.performing import Performed, Stage, StepCall
from kairos.replay.plan import Action, PlannedStep
from kairos.replay.record import RunRecord
from kairos.replay.speaking import Turns, flush
from kairos.replay.stopping.session import DebuggerQuit

if TYPE_CHECKING:
    from kairos.authoring.app import App
    from kairos.authoring.workflow import Workflow
    from kairos.replay.channel import Channel
    from kairos.replay.fencing import Fence
    from kairos.replay.stopping.stops import Stops
    from kairos.replay.trace.observing import StepTrace


class Player:
    """Everything that replays in this process share."""

    def __init__(
        self, app: App, setup: m.Setup, channel: Channel, turns: Turns, stage: Stage, fence: Fence, stops: Stops
    ) -> None:
        self.turns, self.stops = turns, stops
        self.app, self.setup, self.channel, self.stage, self.fence = app, setup, channel, stage, fence
        self.nowhere = open(os.devnull, "w")  # noqa: SIM115
        self.trace: StepTrace | None = None
        if setup.trace:
            from kairos.replay.trace.observing import StepTrace, TraceOptions

            self.trace = StepTrace(convert(setup.trace, TraceOptions))
            stage.observers.append(self.trace)

    def play(self, request: m.Replay) -> bool:
        """Replay one run; says whether the user wants no more.

        Tells of each step that is to be run; those that are served need no telling.
        """
        run = Run(self, request, open_bundle(request.bundle))
        try:
            self._arm(run)
            return self._play(run)
        except BreakpointError as exc:
            self.channel.send(m.Refused(message=exc.message, hint=exc.hint))
            return True
        except DebuggerQuit:
            return True

    def _arm(self, run: Run) -> None:
        """Find the breakpoints in the run's workflow, and what they are held against in its record."""
        self.stops.bytes_of = run.record.bytes_of
        for note in self.stops.check({name: step.fn for name, step in run.workflow.steps.items()}):
            self.channel.send(m.Noted(note))

    def _play(self, run: Run) -> bool:
        request = run.request
        for planned in request.steps:
            if planned.action is not Action.RUN:
                continue
            self.channel.send(m.Began(planned.name))
            try:
                ended = run.replay(planned)
                self._tell_of_late_leaks(run.last)
                self.channel.send(ended)
            except BaseException as exc:
                if getattr(exc, "ends_replay", False):  # of a debugger: its user has had enough
                    return True
                raise
            if self.setup.paced:
                self.turns.told()
            if self.stops.session.quit:  # once the step had ended
                return True
        self._tell_of_late_leaks(None)
        self.turns.catch_up()
        return False

    def _tell_of_late_leaks(self, call: StepCall | None) -> None:
        for late in self.fence.late(call):
            self.channel.send(late)


class Run:
    """One recorded run, and what has become of its steps in this replay."""

    def __init__(self, player: Player, request: m.Replay, record: RunRecord) -> None:
        self.player, self.request, self.record = player, request, record
        self.workflow: Workflow = player.app.workflows[request.workflow]
        self.facts: RunFacts = facts_of(record.history, record.definition.graph.steps)
        self.input = record.bytes_of(self.facts.input) if request.input is None else request.input
        self.last: StepCall | None = None
        self._now: dict[str, bytes | None] = dict.fromkeys(request.without) | dict(request.given)

    def replay(self, planned: PlannedStep) -> m.Ended:
        """Run one step."""
        name = planned.name
        missing = next((up for up in planned.after if up in self._now and self._now[up] is None), None)
        upstream: dict[str, bytes] = {}
        for up in planned.reads:
            raw = self._output(up)
            if raw is None:
                missing = missing or up
            else:
                upstream[up] = raw
        if missing is not None:
            if self.request.flows:
                self._now[name] = None
            return m.Ended(step=name, outcome="missing", missing=missing)
        call, journal = self._call(planned, upstream)
        self.last = call
        self.player.fence.begin(call)
        done = self.player.stage.perform(call)
        if done.output is not None:
            is_whole = call.recorded is not None and call.recorded.output is not None
            self.player.stops.returned(done.output.data or b"null", journal.use().missing if is_whole else ())
        if call.raised is not None:
            self.player.fence.explain(call.raised)
        leaks = self.player.fence.of(call)
        if self.player.trace is not None:
            self._save_trace(self.player.trace, planned, upstream, runs_again=not leaks and not self.request.live)
        if self.request.flows:
            self._now[name] = None if done.output is None else done.output.data
        flush()
        return self._ended(planned, call, journal, done, leaks, upstream)

    def _call(
        self, planned: PlannedStep, upstream: Mapping[str, bytes], *, is_heard: bool = True
    ) -> tuple[StepCall, ReplayJournal]:
        step, facts = self.workflow.steps[planned.name], self.facts.step(planned.name)
        recorded = facts.attempt(planned.attempt)
        is_whole = recorded is not None and recorded.output is not None and is_heard and not self.request.live
        on_extra = self.player.stops.unrecorded if is_whole else None
        journal = ReplayJournal(facts, recorded, self.record.bytes_of, is_live=self.request.live, on_extra=on_extra)
        ctx = StepContext(
            run_id=str(self.record.run_id),
            workflow=self.workflow.name,
            app=self.player.app.name,
            step=planned.name,
            attempt=planned.attempt,
            token=planned.token,
            sink=_Sink(self.player.channel, planned.name) if is_heard else _Silence(),
            redaction=self.player.app.redaction,
            journal=lambda: journal,
        )
        journal.ctx = ctx
        return StepCall(step, ctx, self.input, upstream, facts, recorded), journal

    def _ended(
        self, planned: PlannedStep, call: StepCall, journal: ReplayJournal, done: Performed,
        leaks: tuple[m.Leak, ...], upstream: Mapping[str, bytes],
    ) -> m.Ended:  # fmt: skip
        output = done.output
        then = call.recorded.output if call.recorded is not None else call.facts.output
        same = output is not None and then is not None and output.digest == then.digest
        raw = None if output is None or same else output.data
        is_blocked = any(not leak.at_import for leak in leaks)
        return m.Ended(
            step=planned.name,
            outcome=done.outcome,
            same=same,
            output=raw,
            size=0 if output is None else output.size,
            again=self._again(planned, upstream) if raw is not None and then is not None and not is_blocked else None,
            problem=None if done.error is None else m.Problem.of(done.error),
            duration_us=done.duration_us,
            moved=self.request.flows and self._is_moved(planned),
            effects=journal.use(),
            leaks=leaks,
            notes=done.notes,
        )

    def _again(self, planned: PlannedStep, upstream: Mapping[str, bytes]) -> bytes | None:
        """What it returns when it is run once more: where that differs too, the step differs each time."""
        setup = self.player.setup
        if not setup.probe or self.request.live or setup.guards is None or setup.guards.network or setup.guards.writes:
            return None  # what really happens, happens once
        call, _ = self._call(planned, upstream, is_heard=False)
        nowhere = self.player.nowhere
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            done = self.player.stage.perform(call, again=True)
        return None if done.output is None else done.output.data

    def _save_trace(
        self, trace: StepTrace, planned: PlannedStep, upstream: Mapping[str, bytes], *, runs_again: bool
    ) -> None:
        def again() -> StepCall:
            return self._call(planned, upstream, is_heard=False)[0]

        nowhere = self.player.nowhere
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            said = trace.save(self.player.stage, again if runs_again else None)
        if said is not None:
            self.player.channel.send(m.Noted(said))

    def _output(self, name: str) -> bytes | None:
        """What a step is given as the output of another one."""
        if name in self._now:
            return self._now[name]
        then = self.facts.output(name)
        try:
            return None if then is None else self.record.bytes_of(then)
        except HistoryError as exc:  # left out of the bundle
            self.player.channel.send(m.Noted(f"the output of {name} cannot be read: {exc.message}"))
            return None

    def _is_moved(self, planned: PlannedStep) -> bool:
        if self.request.input is not None:
            return True
        for up in planned.reads:
            then, now = self.facts.output(up), self._now.get(up)
            if now is not None and (then is None or Payload.of(now).digest != then.digest):
                return True
        return False


class _Sink:
    """Passes on what a step says."""

    def __init__(self, channel: Channel, step: str) -> None:
        self._channel, self._step = channel, step

    def log(self, record: LogRecord) -> None:
        """A log line."""
        fields = dict(record.fields)
        self._channel.send(m.Said(step=self._step, level=record.level, text=record.message, fields=fields))

    def metric(self, record: MetricRecord) -> None:
        """A number."""
        fields: dict[str, Any] = {"value": record.value, **record.labels}
        self._channel.send(m.Said(step=self._step, level="metric", text=record.name, fields=fields))


class _Silence:
    """Takes what a step says when it is run once more."""

    def log(self, record: LogRecord) -> None:
        """Nothing."""

    def metric(self, record: MetricRecord) -> None:
        """Nothing."""
