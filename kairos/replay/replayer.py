"""Replays recorded runs with the code at hand: the parent's side. Knows the record; runs nothing of the user's."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, Final, TypeVar

from msgspec import structs

from kairos.domain import canonical
from kairos.domain.editing import Edit, apply_edits, read_edits
from kairos.domain.error_info import ErrorInfo
from kairos.domain.fingerprint import Definition
from kairos.domain.forking import plan_fork, read_parent
from kairos.domain.names import nearest
from kairos.domain.subtrees import BLANKED_HINT
from kairos.domain.unordered import has_sets, sort_sets
from kairos.errors import (
    AppUnavailable,
    BreakpointError,
    GuardUnavailable,
    InvalidArgument,
    KairosError,
    PayloadError,
    ReplayError,
    WorkflowNotFound,
)
from kairos.replay import messages as m
from kairos.replay.compare import Differences, Ignore, compare
from kairos.replay.facts import Ending, RunFacts, facts_of
from kairos.replay.folders import ReplayFolder
from kairos.replay.guard import scrub_environment
from kairos.replay.plan import Action, Choice, Mode, Plan, PlannedStep, make_plan
from kairos.replay.process import PATIENCE, ChildProcess, Died, Waiting, check_alive
from kairos.replay.record import RunRecord
from kairos.replay.results import Code, RunResult, StepResult
from kairos.replay.verdicts import Verdict, judge
from kairos.replay.withheld import hint_of

_BLANKED_HERE: Final = (
    "Part of it was blanked when this bundle was written (`kairos export --redact`): the step cannot get what it had. "
    "Replay the run from its database, from a bundle without --redact, or leave the step out: --serve STEP."
)
T = TypeVar("T", bound=m.Answer)

_DATABASE: Final = ("KAIROS_DATABASE_URL", "KAIROS_TEST_DATABASE_URL")
"""Never passed on, not even in live mode."""
_REFERENCE: Final = re.compile(rb'\{"\$secret":"(env:[^"\\]+)"\}')


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the child is set up; the same for all runs that it replays.

    Attributes:
        app: as `load_app` takes it.
        live: no guards, the whole environment, effects really happen.
        environment: variables that are let through by name.
        quiet: what the user's code prints goes to standard error.
        mute: it goes nowhere, and Ctrl-C ends the whole instead of a step.
        folder: where the child starts; None for the folder of this process.
        interactive: the user's code gets the terminal's standard input.
        timeout, probe, paced, debugger, trace: see `messages.Setup`.
        python: options for the child's interpreter.
    """

    app: str
    live: bool = False
    network: tuple[tuple[str, int | None], ...] = ()
    writes: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    strict: bool = False
    timeout: float | None = None
    probe: bool = True
    paced: bool = False
    quiet: bool = False
    mute: bool = False
    folder: str | None = None
    interactive: bool = False
    debugger: Mapping[str, Any] = field(default_factory=dict)
    trace: Mapping[str, Any] = field(default_factory=dict)
    python: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What takes the place of recorded values: the run's input, outputs of steps. Canonical bytes.

    `edits` is what was asked for; `Replayer.edits` makes the rest of it.
    """

    input: bytes | None = None
    outputs: Mapping[str, bytes] = field(default_factory=dict)
    edits: tuple[Edit, ...] = ()


class Listener:
    """Hears what happens, as it happens. This one does nothing."""

    def ready(self, hello: m.Hello, loaded: m.Loaded) -> None:
        """The child is there, with the app."""

    def began(self, step: PlannedStep, number: int, total: int) -> None:
        """A step begins to run."""

    def waiting(self, step: PlannedStep, number: int, total: int, seconds: float) -> None:
        """It still runs; said every quarter of a second."""

    def said(self, said: m.Said) -> None:
        """It wrote a log line or a number."""

    def noted(self, text: str) -> None:
        """The user should know this."""

    def ended(self, result: StepResult, total: int) -> None:
        """A step has its verdict, or was not run."""

    def leaked(self, result: StepResult, total: int, late: m.Late) -> None:
        """A step that has ended is blocked after all: by a thread that it has left running."""


class Replayer:
    """One child at a time, and the runs that it replays. To be used in a `with` statement.

    Attributes:
        withheld: names of variables that are set here, and that the child does not have.
        trace_file: where the recorded lines of the step of `Settings.trace` are, once it was replayed.
    """

    def __init__(self, settings: Settings, listener: Listener | None = None) -> None:
        self.settings = settings
        self.listener = listener or Listener()
        self._own = ReplayFolder()
        self.folder = self._own.path
        self.hello: m.Hello | None = None
        self.loaded: m.Loaded | None = None
        self._scratch = self.folder / "scratch"
        self._scratch.mkdir()
        self.trace_file = self._scratch / "step.ktrace"
        self._child: ChildProcess | None = None
        self._is_started = False
        self.withheld: frozenset[str] = frozenset()
        self._described: dict[str, m.Described] = {}

    def __enter__(self) -> Replayer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end_child(at_once=kind is not None)
        self._own.remove()

    def launch(self) -> None:
        """Have a child made, and do not wait for it."""
        self._child = self._spawn()
        self._child.ask(self._setup())

    def start(self) -> None:
        """Wait until the child has the app; make it, if need be.

        Raises:
            AppUnavailable: the app cannot be imported.
            GuardUnavailable: the guards cannot be had, and `strict` wants them.
            ReplayError: the child ends at once.
        """
        if self._child is None:
            self.launch()
        child = self._child
        assert child is not None
        self._is_started = True
        for answer in child.answers():
            match answer:
                case m.Hello():
                    self.hello = answer
                case m.Loaded():
                    self.loaded = answer
                    break
                case m.CannotLoad():
                    self.end_child()
                    raise _unavailable(answer, self.withheld)
                case m.Noted(text=text):
                    self.listener.noted(text)
                case _:
                    check_alive(answer)
        assert self.hello is not None
        assert self.loaded is not None
        self.listener.ready(self.hello, self.loaded)

    def describe(self, workflow: str) -> m.Described:
        """The workflow of this name, as the app has it. Raises WorkflowNotFound."""
        if workflow not in self._described:
            answer = self._ask_for(m.Describe(workflow), m.Described)
            if answer.definition is None:
                loaded = self.loaded
                assert loaded is not None
                raise WorkflowNotFound(
                    f"the app {loaded.app!r} has no workflow {workflow!r}",
                    hint=f"{nearest(workflow, loaded.workflows)} Was it renamed, or is it in another app? See --app.",
                )
            self._described[workflow] = answer
        return self._described[workflow]

    def code(self, record: RunRecord) -> Code:
        """The recorded code of a run beside the one at hand."""
        now = self.describe(record.definition.workflow)
        return Code(record.definition, Definition.from_json(now.definition or {}))

    def plan(self, record: RunRecord, choice: Choice, edits: Edits | None = None) -> Plan:
        """What would be done. Raises InvalidArgument if the choice names what there is not."""
        code = self.code(record)
        fork = None
        if choice.fork_from is not None:
            parent = read_parent(str(record.run_id), len(record.rows), record.history)
            fork = plan_fork(parent, code.now.graph, choice.fork_from, edits.edits if edits is not None else ())
        return make_plan(code.then.graph, code.now.graph, _facts(record), choice, fork)

    def edits(self, record: RunRecord, given: Mapping[str, Any], outputs: Mapping[str, Any]) -> Edits:
        """Apply changes by path, and whole outputs by step, to the recorded values; the app checks their types.

        Raises:
            InvalidArgument: a path leads nowhere.
            PayloadError: a value does not have its type.
        """
        found = read_edits(given, outputs, self.code(record).now.graph.steps)
        if not found:
            return Edits()
        facts = _facts(record)
        by_target: dict[str | None, list[Edit]] = {}
        for edit in found:
            by_target.setdefault(edit.step, []).append(edit)
        values: dict[str | None, bytes] = {}
        for step, group in by_target.items():
            payload = facts.input if step is None else facts.output(step)
            if payload is None and not group[0].is_whole:
                raise InvalidArgument(f"{group[0].path!r}: {step!r} has no recorded output to edit")
            old = canonical.decode(record.bytes_of(payload)) if payload is not None and not group[0].is_whole else None
            values[step] = canonical.encode(apply_edits(old, group))
        given_outputs = {step: raw for step, raw in values.items() if step is not None}
        workflow = record.definition.workflow
        checked = self._ask_for(m.Check(workflow=workflow, input=values.get(None), outputs=given_outputs), m.Checked)
        if checked.problem:
            raise PayloadError(checked.problem, hint=checked.hint)
        return Edits(input=checked.input, outputs=checked.outputs, edits=tuple(found))

    def replay(
        self,
        record: RunRecord,
        bundle: Path,
        choice: Choice,
        *,
        plan: Plan | None = None,
        edits: Edits | None = None,
        ignore: Iterable[str] = (),
    ) -> RunResult:
        """Replay one run. `bundle`: a file that holds `record`. A child that dies is replaced by another.

        Raises:
            ReplayError: the child cannot be had again.
        """
        plan = plan or self.plan(record, choice, edits)
        described = self.describe(record.definition.workflow)
        course = _Course(self, record, plan, choice, edits or Edits(), Ignore((*described.ignore, *ignore)))
        course.go(bundle)
        return course.result

    def _setup(self) -> m.Setup:
        s = self.settings
        guards = m.Guards(
            scratch=str(self._scratch), network=s.network, writes=s.writes, environment=s.environment, strict=s.strict
        )
        return m.Setup(
            app=s.app, guards=None if s.live else guards, timeout=s.timeout, probe=s.probe, paced=s.paced,
            debugger=s.debugger, trace={**s.trace, "file": str(self.trace_file)} if s.trace else {},
        )  # fmt: skip

    def _spawn(self) -> ChildProcess:
        s = self.settings
        environ = {name: value for name, value in os.environ.items() if name not in _DATABASE}
        if not s.live:
            environ = scrub_environment(environ, s.environment, scratch=self._scratch)
        self.withheld = frozenset(os.environ) - frozenset(environ) - frozenset(_DATABASE)
        reads = None if s.interactive else DEVNULL
        writes = DEVNULL if s.mute else 2 if s.quiet else None
        errors = DEVNULL if s.mute else None
        # At a prompt Ctrl-C is pressed as often as somebody likes.
        patience = None if s.debugger else PATIENCE
        return ChildProcess(
            environ, stdout=writes, stderr=errors, stdin=reads, folder=s.folder, shielded=s.mute, options=s.python,
            patience=patience,
        )  # fmt: skip

    def _ask_for(self, request: m.Describe | m.Check, kind: type[T]) -> T:
        child = self.child
        child.ask(request)
        for answer in child.answers():
            if isinstance(answer, kind):
                return answer
            check_alive(answer)
        raise ReplayError("the process that runs your code said nothing")

    @property
    def child(self) -> ChildProcess:
        """The child, with the app. Raises as `start`."""
        if not self._is_started:
            self.start()
        assert self._child is not None
        return self._child

    def end_child(self, *, at_once: bool = False) -> None:
        """Have the child end; the next replay gets another."""
        child, self._child, self._is_started = self._child, None, False
        if child is not None:
            child.close(at_once=at_once)


class _Course:
    """One run on its way through the child, or through several."""

    def __init__(
        self, replayer: Replayer, record: RunRecord, plan: Plan, choice: Choice, edits: Edits, ignore: Ignore
    ) -> None:
        self.replayer, self.record, self.plan, self.choice, self.edits = replayer, record, plan, choice, edits
        self.listener = replayer.listener
        self.facts = _facts(record)
        self.code = replayer.code(record)
        self.result = RunResult(str(record.run_id), record.definition.workflow, plan)
        self._ignore = ignore
        self._secrets = _secrets(record)
        self._numbers = {step.name: number for number, step in enumerate(plan.steps, 1)}
        self._done = 0
        self._changed: dict[str, bytes] = {}
        self._failed: list[str] = []

    def go(self, bundle: Path) -> None:
        """To the end of the plan."""
        while True:
            self._pass_over()
            if self._done == len(self.plan.steps) or self.result.quit:
                return
            child = self.replayer.child
            child.ready()
            child.ask(self._request(bundle))
            for answer in child.answers():
                if not self._hear(answer):
                    break

    def _request(self, bundle: Path) -> m.Replay:
        return m.Replay(
            bundle=str(bundle),
            workflow=self.record.definition.workflow,
            steps=self.plan.steps[self._done :],
            flows=self.choice.flows,
            live=self.choice.mode is Mode.LIVE,
            input=self.edits.input,
            given=dict(self.edits.outputs) | self._changed,
            without=tuple(self._failed),
            secrets=self._secrets,
        )

    def _hear(self, answer: m.Answer | Died | Waiting) -> bool:
        """Whether there is more to come."""
        match answer:
            case m.Began():
                self.listener.began(self._next, self._done + 1, len(self.plan.steps))
            case m.Said():
                self.listener.said(answer)
            case m.Noted(text=text):
                self.listener.noted(text)
            case m.Ended():
                self._end(answer)
                self._pass_over()
                if self.replayer.settings.paced:
                    self.replayer.child.ask(m.Go())
            case Waiting(seconds=seconds) if not self.replayer.settings.debugger:
                if self._done < len(self.plan.steps):
                    self.listener.waiting(self._next, self._done + 1, len(self.plan.steps), seconds)
            case Died(how=how):
                self.replayer.end_child()
                self._end(m.Ended(step=self._next.name, outcome="crashed", notes=(how,)))
                return False
            case m.Late():
                self._leak(answer)
            case m.Refused(message=message, hint=hint):
                raise BreakpointError(message, hint=hint)
            case m.Finished(quit=quit):
                self.result.quit = quit and self._done < len(self.plan.steps)
                return False
            case _:
                pass
        return True

    @property
    def _next(self) -> PlannedStep:
        return self.plan.steps[self._done]

    def _pass_over(self) -> None:
        """Steps that are not run have their line in their place."""
        while self._done < len(self.plan.steps) and self._next.action is not Action.RUN:
            step = self._next
            served = step.action is Action.SERVE
            if not served:
                self._failed.append(step.name)
            self._add(StepResult(
                step, self._done + 1, Verdict.SERVED if served else Verdict.MISSING, why=step.why,
                code=self.code.change(step.name),
            ))  # fmt: skip

    def _end(self, ended: m.Ended) -> None:
        step = self._next
        recorded = self.facts.step(step.name).attempt(step.attempt)
        output = recorded.output if recorded is not None else self.facts.output(step.name)
        then = None if output is None or ended.same else self.record.bytes_of(output)
        if ended.same and then is None and output is not None:
            then = b""  # never looked at: its bytes are the same
        schema = self.code.now.schemas.get(step.name) or {}
        judged = judge(recorded, then, ended, lambda old, new: self._compare(old, new, schema))
        if self.choice.flows:
            if ended.output is not None:
                self._changed[step.name] = ended.output
            elif not ended.same:
                self._failed.append(step.name)
        if judged.verdict is Verdict.NEW_ERROR and ended.problem is not None:
            error = ended.problem.error
            ended = self._with_own_hint(ended, error)
            hint = hint_of(error.summary, self.replayer.withheld)
            ended = structs.replace(ended, notes=(*ended.notes, hint)) if hint else ended
        self._add(StepResult(
            step, self._done + 1, judged.verdict, recorded, None if output is None else output.size, ended,
            judged.differences, self.code.change(step.name), self._why(ended),
        ))  # fmt: skip

    def _with_own_hint(self, ended: m.Ended, error: ErrorInfo) -> m.Ended:
        """Of a value that was blanked on its way into the bundle, the app's rules know nothing."""
        if error.hint != BLANKED_HINT or not self.record.redactions:
            return ended
        return structs.replace(ended, problem=m.Problem(data=error.to_json() | {"hint": _BLANKED_HERE}))

    def _leak(self, late: m.Late) -> None:
        for place, step in enumerate(self.result.steps):
            if late.run == self.result.run_id and step.name == late.step and step.ended is not None:
                ended = structs.replace(step.ended, leaks=(*step.ended.leaks, *late.leaks))
                blocked = replace(step, verdict=Verdict.BLOCKED, ended=ended)
                self.result.steps[place] = blocked
                self.listener.leaked(blocked, len(self.plan.steps), late)
                return
        for leak in late.leaks:
            self.listener.noted(
                f"step {late.step} of run {late.run} left a thread running, which was stopped at "
                f"{leak.file}:{leak.line}: {leak.what} {leak.target}"
            )

    def _why(self, ended: m.Ended) -> str:
        if ended.outcome == "crashed":
            return ended.notes[0]
        if ended.outcome != "missing":
            return ""
        up = ended.missing
        if self.choice.flows and up in self._failed:
            return f"{up} has no output in this replay"
        goes_on = "; --mode propagate goes on with what it returns now"
        if up not in self.record.definition.graph.steps:
            return f"it reads {up}, which is new: the run has no output of it{goes_on}"
        if self.facts.output(up) is not None:
            return f"the output of {up} cannot be read"
        then = self.facts.step(up).attempt()
        if then is not None and then.ending is Ending.FAILED:
            return f"{up} failed then, and has no recorded output{goes_on}"
        return f"its input is not known: {up} never finished"

    def _compare(self, old: bytes, new: bytes, schema: Mapping[str, Any]) -> Differences:
        then, now = canonical.decode(old), canonical.decode(new)
        if has_sets(schema):  # a set of a run that was recorded before sets were put into an order
            then, now = sort_sets(then, schema), sort_sets(now, schema)
        return compare(then, now, self._ignore)

    def _add(self, step: StepResult) -> None:
        self.result.steps.append(step)
        self._done += 1
        self.listener.ended(step, len(self.plan.steps))


def _facts(record: RunRecord) -> RunFacts:
    return facts_of(record.history, record.definition.graph.steps)


def _secrets(record: RunRecord) -> dict[str, str]:
    """Values of the secrets that the run's values refer to, as far as this machine's environment has them."""
    if "$secret" not in json.dumps(record.definition.to_json()["schemas"]):
        return {}
    found: dict[str, str] = {}
    for raw in (*(row.body for row in record.rows), *record.blobs.values()):
        for reference in _REFERENCE.findall(raw):
            name = reference.decode()
            value = os.environ.get(name.partition(":")[2])
            if value is not None and name.partition(":")[2] not in _DATABASE:
                found[name] = value
    return found


def _unavailable(answer: m.CannotLoad, withheld: Iterable[str]) -> KairosError:
    if answer.kind == "GuardUnavailable":
        return GuardUnavailable(answer.message, hint=answer.hint)
    return AppUnavailable(
        f"the app cannot be imported: {answer.kind}: {answer.message}" if answer.trace else answer.message,
        hint=answer.hint
        or hint_of(f"{answer.kind}: {answer.message}", withheld)
        or "The error is the app's own; its traceback stands above.",
        trace=answer.trace,
        leaks=answer.leaks,
    )
