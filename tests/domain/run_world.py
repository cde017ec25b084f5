"""A run as it is lived: one log, several actors who are behind it by more or less, and one who reads along.

Every answer of the rules is checked as it comes: that nothing raised, that the state it was asked of is as it
was, that only an open attempt was listened to, and that the log it led to obeys the laws of `run_oracle` and
folds, through its rows, to the state of whoever wrote it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

from msgspec.structs import fields
from run_oracle import check_log, check_rest, check_state, open_attempts
from run_stories import NOON, RUN_ID, SECOND, scheduled

from kairos.domain import canonical, decisions
from kairos.domain.commands import (
    ClaimRun,
    Command,
    EmitLog,
    EmitMetric,
    Expire,
    FailStep,
    FinishCancel,
    FinishStep,
    FireRetry,
    LoseLease,
    RecordEffect,
    Refusal,
    RejectWrite,
    RequestCancel,
    StartStep,
    StopStep,
)
from kairos.domain.editing import Edit
from kairos.domain.error_info import ErrorInfo, Frame
from kairos.domain.events import Event, Recorded, StepStarted
from kairos.domain.forking import Origin, Parent, downstream_of, fork_events, plan_fork
from kairos.domain.graph import Graph, StepSpec
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState, apply, project
from kairos.domain.retry import Retry
from kairos.store import codec
from kairos.store.codec import Row, first_hash, link
from kairos.store.drive import OpenRun, input_hash

# Owners one after the other, a helper and a client: each by a clock of its own, so many seconds off.
ACTORS = {"owner": 0, "next owner": 3, "helper": -2, "client": 0}

OUTPUTS = [Payload.of(canonical.encode(v)) for v in (None, {"é": [1, -0.0, "\0"]}, "x" * 1022, "x" * 1023, "é" * 3000)]
ERRORS = [
    ErrorInfo("builtins.ValueError", "boom"),
    ErrorInfo("shop.Nö", "«no»\n\u2028", (Frame("f.py", 1, "f", "x"),), {"x": "'\\x00'"}, ("note",), "wait"),
]
POLICIES = [
    Retry(attempts=1),
    Retry(attempts=2, base=0, factor=1, jitter=0),
    Retry(attempts=3, base="5s", factor=3, cap="10s", jitter=0.5),
]
TTLS = [None, None, None, None, None, None, 20 * SECOND, timedelta(0)]
DELAYS = [timedelta(0), timedelta(microseconds=1), SECOND, 5 * SECOND, 10 * SECOND, 60 * SECOND]
ENDINGS = ["done", "done", "done", "failed", "failed", "failed for good", "lost", "crashed", "stopped"]
INTERFERENCES = ["claim", "sweep", "owner gone", "cancel", "grace over"]
FENCED = (FinishStep, FailStep, StopStep, EmitLog, EmitMetric, RecordEffect, LoseLease)


def roll_graph(dice: Random) -> Graph:
    """A DAG of one to six steps; some with data, some with order only, some alone."""
    steps: dict[str, StepSpec] = {}
    for i in range(dice.randint(1, 6)):
        upstream = dice.sample(list(steps), min(len(steps), dice.choice([0, 1, 1, 2, 3])))
        steps[f"s{i}"] = StepSpec(
            name=f"s{i}",
            needs={f"p{n}": up for n, up in enumerate(upstream[:2])},
            after=tuple(upstream[1:]),
            retry=dice.choice(POLICIES),
            ttl=dice.choice(TTLS),
            crash_limit=dice.randint(1, 2),
        )
    if dice.random() < 0.5:
        steps = dict(reversed(steps.items()))
    return Graph.build("story", steps)


def roll_fork(dice: Random, graph: Graph) -> list[Event]:
    """How a run of this graph begins that is a fork: of a parent in which any steps were done, at any step."""
    runs = [str(RUN_ID), "01890a5d-0000-7000-8000-000000000001"]
    done = dice.sample(list(graph.steps), dice.randint(0, len(graph.steps)))
    outputs = {name: Origin.of(dice.choice(runs), dice.randint(2, 90), dice.choice(OUTPUTS)) for name in done}
    parent = Parent(runs[0], 99, runs[1], scheduled(graph), outputs)
    from_step = dice.choice(list(graph.steps))
    free = [name for name in graph.steps if name != from_step and name not in downstream_of(graph, from_step)]
    given = dice.sample(free, dice.randint(0, min(2, len(free))))
    plan = plan_fork(parent, graph, from_step, [Edit(name, name, (), None) for name in given])
    return fork_events(plan, {name: dice.choice(OUTPUTS) for name in given}, {"é": [1]}, "änn", "why not")


def roll_command(dice: Random) -> Command:
    """Any command about any step, real or not, with any numbers."""
    step = dice.choice([*(f"s{i}" for i in range(6)), "ghost", ""])
    attempt, token, yes = dice.randint(-1, 4), dice.randint(-1, 8), dice.random() < 0.5
    commands: list[Command] = [
        ClaimRun("w9", token),
        StartStep(step, "00", "helper" if yes else None, yes, above=token),
        FireRetry(step),
        FinishStep(step, attempt, token, dice.choice(OUTPUTS)),
        FailStep(step, attempt, token, dice.choice(ERRORS), yes, dice.random()),
        LoseLease(step, token, "worker_lost", alone=yes),
        StopStep(step, attempt, token),
        FinishCancel(),
        Expire(),
        RejectWrite(step, attempt, token, "w9", "step_done"),
        EmitLog(step, attempt, token, "info", "ü"),
        EmitMetric(step, attempt, token, "rows", 0.5),
        RecordEffect(step, attempt, token, "now", 1, "now", result=OUTPUTS[0]),
    ]
    return dice.choice(commands)


class World:
    """One run and those who work on it. `trusting` leaves it to the log alone to show what went wrong."""

    def __init__(
        self,
        graph: Graph,
        ttl: timedelta | None,
        *,
        now: datetime = NOON,
        trusting: bool = False,
        fork: Sequence[Event] = (),
    ) -> None:
        self.graph, self.now, self.trusting = graph, now, trusting
        self.epoch = 0
        self.log: list[Recorded] = []
        self.rows: list[Row] = []
        self.attempts = [("s0", 0, 0), ("ghost", 1, 1)]
        self.reader = RunState(RUN_ID, graph)
        event = scheduled(
            graph,
            key="order-42",
            labels={"städte": "東京"},
            input=OUTPUTS[1],
            expires_at=None if ttl is None else now + ttl,
        )
        creator = OpenRun(RunState(RUN_ID, graph), first_hash(RUN_ID))
        for first in (event, *fork):
            self.append(creator.record(first, now), creator.state)
        check_rest(graph, self.log)
        self.actors: dict[str, OpenRun] = {}
        for who in ACTORS:
            self.forget(who)
            self.catch_up(who)

    # --- what happens

    def work(self, who: str, informed: bool, most: int, isolated: bool) -> None:
        """Claim the run if need be, and start what is ready or due."""
        if informed:
            self.catch_up(who)
        state = self.actors[who].state
        if state.status == "SCHEDULED":
            self.claim(who)
        due = [name for name in state.graph.steps if state.steps[name].status in ("SCHEDULED", "FAILED")]
        for step in due[:most]:
            worker = who if who == "helper" else None
            self.act(who, StartStep(step, input_hash(self.actors[who].state, step), worker, isolated))

    def end_attempt(
        self, who: str, pick: int, how: str, output: Payload, error: ErrorInfo, roll: float, suspect: bool
    ) -> None:
        """Report on an attempt, most often one that is under way."""
        step, attempt, token = self.attempt(pick)
        match how:
            case "done":
                self.act(who, FinishStep(step, attempt, token, output, 17))
            case "failed" | "failed for good":
                self.act(who, FailStep(step, attempt, token, error, how == "failed", roll, 17, suspect))
            case "lost":
                self.act(who, LoseLease(step, token, "worker_lost", who, None, False, suspect))
            case "crashed":
                self.act(who, LoseLease(step, token, "crashed", who, "SIGKILL", True, suspect))
            case _:
                self.act(who, StopStep(step, attempt, token))

    def interfere(self, who: str, what: str) -> None:
        """Somebody cancels, sweeps, claims anew, or finds an owner gone."""
        match what:
            case "claim":
                self.claim(who)
            case "sweep":
                self.act(who, Expire())
            case "cancel":
                self.act(who, RequestCancel("änn", "wrong order"))
                for step in list(self.reader.ready)[:2]:
                    self.act(who, StartStep(step))
            case "grace over":
                self.act(who, FinishCancel())
            case _:
                for step, _, token in sorted(open_attempts(self.log)):
                    self.act(who, LoseLease(step, token, "worker_lost", "owner", suspect=True))

    def report(self, who: str, pick: int) -> None:
        """A body writes a line and a number, and has had effects; somebody keeps a late write as evidence."""
        attempt = self.attempt(pick)
        self.act(who, EmitLog(*attempt, "info", "hällo\n", {"rows": [1, None, {"é": 2.5}]}))
        self.act(who, EmitMetric(*attempt, "rows", 1.5, {"k": "v"}))
        result, ordinal = OUTPUTS[pick % len(OUTPUTS)], 1 + pick % 2
        self.act(who, RecordEffect(*attempt, "täx", ordinal, "call", OUTPUTS[1], error=ERRORS[pick % 2]))
        self.act(who, RecordEffect(*attempt, "täx", ordinal, "call", OUTPUTS[1], result, duration_us=3))
        self.act(who, RejectWrite(*attempt, who, "step_done"))

    def live(self, dice: Random, turns: int) -> None:
        """So many things happen, one after the other, as the dice have it."""
        everybody = sorted(ACTORS)
        for _ in range(turns):
            who = dice.choice(everybody)
            match dice.choices(["work", "end", "wait", "wild", "look", "interfere", "report"], [6, 9, 3, 2, 1, 1, 1])[
                0
            ]:
                case "work":
                    self.work(who, dice.random() < 0.8, dice.randint(1, 3), dice.random() < 0.3)
                case "end":
                    output, error = dice.choice(OUTPUTS), dice.choice(ERRORS)
                    ending = dice.choice(ENDINGS), output, error, dice.random(), dice.random() < 0.5
                    self.end_attempt(who, dice.randrange(12), *ending)
                case "wait":
                    self.now += dice.choice(DELAYS)
                case "wild":
                    self.act(who, roll_command(dice))
                case "look":
                    self.catch_up(who)
                case "report":
                    self.report(who, dice.randrange(12))
                case _:
                    self.interfere(who, dice.choice(INTERFERENCES))

    # --- how it is done, and what must hold

    @property
    def ended(self) -> bool:
        return self.reader.status.is_terminal

    def claim(self, who: str) -> None:
        self.epoch += 1
        self.act(who, ClaimRun(who, self.epoch))

    def attempt(self, pick: int) -> tuple[str, int, int]:
        """An attempt that was begun at some time, the last one first; most picks are of open ones."""
        alive = sorted(open_attempts(self.log))
        if pick % 3 and alive:
            return alive[pick // 3 % len(alive)]
        return self.attempts[-1 - pick // 3 % len(self.attempts)]

    def act(self, who: str, command: Command) -> None:
        """Ask as `who`, who may be behind. An append that comes too late is dropped and decided again."""
        run, now = self.actors[who], self.now + ACTORS[who] * SECOND
        seen = self.log[: run.state.seq]
        in_time = len(seen) == len(self.log)
        shown = copy.deepcopy(run.state, {id(self.graph): self.graph})
        answer = decisions.decide(run.state, command, now)
        assert run.state == shown, "a rule changed the state it was shown"
        assert isinstance(answer, list | Refusal)
        if not self.trusting:
            self.judge(seen, command, answer)
        for event in [] if isinstance(answer, Refusal) else answer:
            row = run.record(event, now)
            if in_time:
                self.append(row, run.state)
        if in_time:
            check_rest(self.graph, self.log)
        else:
            self.forget(who)
            self.catch_up(who)
            self.act(who, command)

    def judge(self, seen: list[Recorded], command: Command, answer: list[Event] | Refusal) -> None:
        """Only an open attempt may speak; everybody else is turned away as stale."""
        if isinstance(command, FENCED):
            alive = open_attempts(seen)
            if isinstance(command, LoseLease):
                is_open = any((command.step, command.token) == (step, token) for step, _, token in alive)
            else:
                is_open = (command.step, command.attempt, command.token) in alive
            if not is_open:
                assert isinstance(answer, Refusal), "a stale attempt was listened to"
                assert answer.stale == (command.step in self.graph.steps or self.is_over(seen))
            elif not isinstance(command, StopStep):
                assert not isinstance(answer, Refusal), "the current attempt was turned away"

    def is_over(self, seen: list[Recorded]) -> bool:
        return project(RUN_ID, self.graph, seen).status.is_terminal

    def append(self, row: Row, live: RunState) -> None:
        """Commit a row; whoever reads it must come to the very state its writer is in."""
        recorded = codec.decode(row)
        apply(self.reader, recorded)
        assert self.reader == live, f"the fold is not the state as it was lived: {differences(self.reader, live)}"
        self.rows.append(row)
        self.log.append(recorded)
        if isinstance(recorded.event, StepStarted):
            self.attempts.append((recorded.event.step, recorded.event.attempt, recorded.event.token))
        check_log(self.graph, self.log)
        check_state(self.reader, self.log)

    def forget(self, who: str) -> None:
        self.actors[who] = OpenRun(RunState(RUN_ID, self.graph), first_hash(RUN_ID))

    def catch_up(self, who: str) -> None:
        run = self.actors[who]
        for row in self.rows[run.state.seq :]:
            apply(run.state, codec.decode(row))
            run.head_hash = row.hash
        assert run.state == self.reader, f"two readers of one log disagree: {differences(run.state, self.reader)}"

    def check_end(self) -> None:
        """The chain is whole, a stranger with the pinned graph folds the same, and the run can still end."""
        previous = first_hash(RUN_ID)
        for row in self.rows:
            due = link(previous, row.seq, row.kind, row.at, row.step, row.attempt, row.token, row.body)
            assert row.hash == due, "the chain is broken"
            previous = due
        pinned = Graph.from_json(canonical.decode(canonical.encode(self.graph.to_json())))
        assert project(RUN_ID, pinned, map(codec.decode, self.rows)) == self.reader
        for outcome in (finished, failed, crashed):
            bring_to_end(self.reader, self.now, outcome)


def differences(one: RunState, other: RunState) -> dict[str, Any]:
    pairs = {field.name: (getattr(one, field.name), getattr(other, field.name)) for field in fields(one)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def finished(step: str, attempt: int, token: int) -> Command:
    return FinishStep(step, attempt, token, OUTPUTS[0])


def failed(step: str, attempt: int, token: int) -> Command:
    return FailStep(step, attempt, token, ERRORS[0])


def crashed(step: str, attempt: int, token: int) -> Command:
    return LoseLease(step, token, "crashed", alone=True)


def bring_to_end(state: RunState, now: datetime, outcome: Callable[[str, int, int], Command]) -> None:
    """Keep starting and ending steps, as a fair scheduler would; the run must end after so many turns."""
    run = OpenRun(copy.deepcopy(state, {id(state.graph): state.graph}), b"")
    state = run.state

    def ask(command: Command) -> None:
        answer = decisions.decide(state, command, now)
        if not isinstance(answer, Refusal):
            for event in answer:
                run.record(event, now)

    turns = 3 + sum(2 * (spec.retry.attempts + spec.crash_limit + 1) for spec in state.graph.steps.values())
    for _ in range(turns):
        if state.status.is_terminal:
            return
        ask(ClaimRun("last", 99))
        for name, step in state.steps.items():
            if step.status == "RUNNING":
                ask(outcome(name, step.attempt, step.token))
            elif step.status == "FAILED" and step.retry_at is not None:
                now = max(now, step.retry_at)
                ask(StartStep(name))
            elif step.status == "SCHEDULED":
                ask(StartStep(name))
    raise AssertionError(f"the run does not end: {[(n, s.status.value) for n, s in state.steps.items()]}")
