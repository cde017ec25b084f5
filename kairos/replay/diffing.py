"""Two runs side by side, aligned by step name, and the step at which they part. Does no I/O of its own.

The first divergence is the first step, in the order of the graph, that was given the same and answered otherwise: what
differs below it may be its consequence. If the runs were given different input, that is the cause, and the first step
that differs only shows where it began to matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, Literal

from kairos.domain import canonical
from kairos.domain.events import EffectRecorded, StepDone, StepFailed, StepOverridden, StepsInherited
from kairos.domain.fingerprint import step_fingerprints
from kairos.domain.ignoring import Ignore
from kairos.domain.payload import Payload
from kairos.domain.projection import StepState
from kairos.errors import HistoryError
from kairos.replay.compare import MISSING, Difference, Differences, compare
from kairos.replay.compare.comparing import NONE
from kairos.replay.record import RunRecord

Cause = Literal["", "input", "step"]
Code = Literal["same", "code", "definition"]
CHANCE: Final = ("now", "uuid", "random")
"""Effects whose results are expected to differ from run to run."""


@dataclass(frozen=True, slots=True)
class Side:
    """One step as one of the runs had it.

    Attributes:
        took_us: of its last attempt, in microseconds; None if that has not ended, or was not run here.
        given: "" if it ran there, `inherited` from another run, or `overridden` by the author of a fork.
        error: `ValueError: no money`, of the attempt that failed last, if the step is not done.
    """

    status: str
    attempts: int
    took_us: int | None
    given: str
    error: str | None


@dataclass(frozen=True, slots=True)
class EffectDiff:
    """An effect that is in one run only (`added`, `removed`), or was asked or answered otherwise."""

    name: str
    ordinal: int
    kind: Literal["added", "removed", "arguments", "result"]
    differences: Differences = NONE


@dataclass(frozen=True, slots=True)
class StepDiff:
    """One step in both runs; a side is None if that run's version does not have the step.

    Attributes:
        inputs: what differs in what it was given, by the name of the parameter.
        output: what differs in what it returned.
        unknown: values that are not at hand (left out of a bundle) and have different digests: `output`, `input`.
        code: what of its definition differs: its `code`, or another part (`definition`: retries, schema, needs).
    """

    name: str
    old: Side | None
    new: Side | None
    inputs: Mapping[str, Differences] = field(default_factory=dict)
    output: Differences = NONE
    effects: tuple[EffectDiff, ...] = ()
    unknown: tuple[str, ...] = ()
    code: Code = "same"

    @property
    def what(self) -> tuple[str, ...]:
        """In what they differ, beside times: `step`, `status`, `error`, `input`, `output`, `effects`."""
        if self.old is None or self.new is None:
            return ("step",)
        facts = {
            "status": self.old.status != self.new.status,
            "error": self.old.error != self.new.error,
            "input": bool(self.inputs) or "input" in self.unknown,
            "output": bool(self.output) or "output" in self.unknown,
            "effects": bool(self.effects),
        }
        return tuple(name for name, differs in facts.items() if differs)

    @property
    def is_given_the_same(self) -> bool:
        """Whether it received the same in both runs, as far as other steps gave it."""
        return self.old is not None and self.new is not None and not self.inputs and "input" not in self.unknown

    @property
    def answers_otherwise(self) -> bool:
        """Whether what came of it differs."""
        return bool(set(self.what) - {"input"})

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "step": self.name,
            "differs": list(self.what),
            "old": _side_json(self.old),
            "new": _side_json(self.new),
            "inputs": {name: item.to_json() for name, item in self.inputs.items()},
            "output": self.output.to_json(),
            "effects": [
                {"name": e.name, "ordinal": e.ordinal, "kind": e.kind, **e.differences.to_json()} for e in self.effects
            ],
            "unknown": list(self.unknown),
            "code": self.code,
        }


@dataclass(frozen=True, slots=True)
class RunDiff:
    """Two runs.

    Attributes:
        steps: all steps of either, in the order of the graph.
        input: what differs in the input of the run.
        first: the step at which they part; None if none differs.
        cause: `input` if they were given different input, `step` if the first one was given the same; "" if neither.
    """

    old: RunRecord
    new: RunRecord
    steps: tuple[StepDiff, ...]
    input: Differences
    first: StepDiff | None
    cause: Cause

    @property
    def is_same(self) -> bool:
        """Whether nothing differs but times, attempts and code."""
        return not self.input and self.first is None and self.old.state.status == self.new.state.status

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "same": self.is_same,
            "old": _run_json(self.old),
            "new": _run_json(self.new),
            "input": self.input.to_json(),
            "first_divergence": None if self.first is None else self.first.name,
            "cause": self.cause or None,
            "steps": [step.to_json() for step in self.steps],
        }


def diff_runs(old: RunRecord, new: RunRecord, ignore: Ignore | None = None) -> RunDiff:
    """Compare two runs, of one workflow or not.

    Args:
        ignore: paths that do not count, beside those that the workflows declare with `replay_ignore`.

    Raises:
        HistoryError: a log cannot be read.
    """
    rules = (ignore or Ignore()) | declared(old) | declared(new)
    comparing = _Comparing(old, new, rules)
    given, unknown = comparing.payloads(old.state.input, new.state.input)
    steps = tuple(comparing.step(name) for name in order_of(old, new))
    first: StepDiff | None = None
    cause: Cause = ""
    if given or unknown:
        first, cause = next((step for step in steps if step.what), None), "input"
    else:
        parted = [step for step in steps if step.answers_otherwise]
        first = next((step for step in parted if step.is_given_the_same), parted[0] if parted else None)
        cause = "step" if first is not None else ""
    return RunDiff(old, new, steps, given, first, cause)


def declared(record: RunRecord) -> Ignore:
    """What the workflow of a run says does not count (`replay_ignore`)."""
    return Ignore(record.definition.defaults.get("replay_ignore", ()))


def order_of(old: RunRecord, new: RunRecord) -> tuple[str, ...]:
    """The steps of both, each behind all that it waits for; ties in order of definition."""
    upstream: dict[str, dict[str, None]] = {}
    for record in (new, old):
        for name, spec in record.definition.graph.steps.items():
            upstream.setdefault(name, {}).update(dict.fromkeys(spec.upstream))
    place = {name: i for i, name in enumerate(upstream)}
    sorter = TopologicalSorter(upstream)
    try:
        sorter.prepare()
    except CycleError:
        return tuple(upstream)  # one version turned an arrow of the other around
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place.__getitem__)
        order += ready
        sorter.done(*ready)
    return tuple(order)


class _Comparing:
    """What is needed of both runs to compare their steps one by one."""

    def __init__(self, old: RunRecord, new: RunRecord, rules: Ignore) -> None:
        self.old, self.new, self.rules = old, new, rules
        self.lengths = _lengths(old), _lengths(new)
        self.given = _given(old), _given(new)
        self.prints = step_fingerprints(old.definition), step_fingerprints(new.definition)
        self.known: dict[tuple[str, str], tuple[Differences, bool]] = {}

    def step(self, name: str) -> StepDiff:
        """One step."""
        a, b = self.old.state.steps.get(name), self.new.state.steps.get(name)
        old = None if a is None else _side(a, self.lengths[0].get(name), self.given[0].get(name, ""))
        new = None if b is None else _side(b, self.lengths[1].get(name), self.given[1].get(name, ""))
        if a is None or b is None or old is None or new is None:
            return StepDiff(name, old, new)
        inputs, unknown_input = self._inputs(name)
        output, unknown_output = self.payloads(a.output, b.output) if a.output and b.output else (NONE, False)
        unknown = [what for what, is_so in (("input", unknown_input), ("output", unknown_output)) if is_so]
        # A step that was inherited asked the world in the run that it came from, and its log tells of that.
        effects = () if old.given or new.given else tuple(self._effects(a, b))
        return StepDiff(name, old, new, inputs, output, effects, tuple(unknown), self._code(name))

    def payloads(self, old: Payload | None, new: Payload | None) -> tuple[Differences, bool]:
        """What differs, and whether that is unknown because a value is not at hand."""
        if old is None or new is None or old.digest == new.digest:
            return (NONE if (old is None) == (new is None) else _only(self, old, new)), False
        key = old.digest, new.digest
        if key not in self.known:
            try:
                before, after = canonical.decode(self.old.bytes_of(old)), canonical.decode(self.new.bytes_of(new))
                self.known[key] = compare(before, after, self.rules), False
            except HistoryError:
                self.known[key] = NONE, True
        return self.known[key]

    def _inputs(self, name: str) -> tuple[dict[str, Differences], bool]:
        needs = [dict(r.definition.graph.steps[name].needs) for r in (self.old, self.new)]
        found: dict[str, Differences] = {}
        is_unknown = False
        for parameter in dict.fromkeys((*needs[0], *needs[1])):
            pair = [
                None if parameter not in need else record.state.steps[need[parameter]].output
                for record, need in ((self.old, needs[0]), (self.new, needs[1]))
            ]
            differences, unknown = self.payloads(*pair)
            is_unknown |= unknown
            if differences:
                found[parameter] = differences
        return found, is_unknown

    def _effects(self, old: StepState, new: StepState) -> Iterable[EffectDiff]:
        before, after = old.effects or {}, new.effects or {}
        for key in dict.fromkeys((*before, *after)):
            a, b = before.get(key), after.get(key)
            if a is None or b is None:
                yield EffectDiff(*key, "added" if a is None else "removed")
            else:
                yield from self._effect(a, b)

    def _effect(self, old: EffectRecorded, new: EffectRecorded) -> Iterable[EffectDiff]:
        if old.via in CHANCE and new.via == old.via:
            return
        for kind, pair in (("arguments", (old.arguments, new.arguments)), ("result", (old.result, new.result))):
            differences, unknown = self.payloads(*pair)
            if differences or unknown:
                yield EffectDiff(new.name, new.ordinal, "arguments" if kind == "arguments" else "result", differences)

    def _code(self, name: str) -> Code:
        if self.prints[0][name] == self.prints[1][name]:
            return "same"
        return "definition" if self.old.definition.code.get(name) == self.new.definition.code.get(name) else "code"


def _only(comparing: _Comparing, old: Payload | None, new: Payload | None) -> Differences:
    """A value that one run has and the other has not."""
    record, payload = (comparing.old, old) if old is not None else (comparing.new, new)
    try:
        value = None if payload is None else canonical.decode(record.bytes_of(payload))
    except HistoryError:
        value = None
    item = Difference("", "removed", value, MISSING) if old is not None else Difference("", "added", MISSING, value)
    return Differences((item,), 0, item.size)


def _side(step: StepState, took_us: int | None, given: str) -> Side:
    error = step.error.summary if step.error is not None and step.output is None else None
    return Side(step.status.value, step.attempt, took_us, given, error or step.reason)


def _lengths(record: RunRecord) -> dict[str, int]:
    return {
        recorded.event.step: recorded.event.duration_us
        for recorded in record.history
        if isinstance(recorded.event, StepDone | StepFailed)
    }


def _given(record: RunRecord) -> dict[str, str]:
    """The steps that did not run in this run, and why."""
    found: dict[str, str] = {}
    for recorded in record.history:
        if isinstance(recorded.event, StepsInherited):
            found |= dict.fromkeys(recorded.event.outputs, "inherited")
        elif isinstance(recorded.event, StepOverridden):
            found[recorded.event.step] = "overridden"
    return found


def _side_json(side: Side | None) -> dict[str, Any] | None:
    if side is None:
        return None
    names = ("status", "attempts", "took_us", "given", "error")
    return {name: getattr(side, name) for name in names}


def _run_json(record: RunRecord) -> dict[str, Any]:
    state = record.state
    return {
        "run_id": str(record.run_id),
        "workflow": state.workflow,
        "status": state.status.value,
        "fingerprint": record.fingerprint,
        "source": record.source,
        "started_at": None if state.started_at is None else state.started_at.isoformat(),
        "finished_at": None if state.finished_at is None else state.finished_at.isoformat(),
    }
