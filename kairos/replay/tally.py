"""Counts what came of many replays: step by step, and in which ways outputs differ. Does no I/O."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from kairos.replay.compare import MISSING
from kairos.replay.results import RunResult, StepResult
from kairos.replay.verdicts import DIVERGED, SAME_OR_FIXED, UNREADABLE, Verdict, exit_code

_POSITION: Final = re.compile(r"\[\d+\]")
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{6,16}\b")
_BAD: Final = DIVERGED | {Verdict.BLOCKED}


@dataclass(frozen=True, slots=True)
class Way:
    """One way in which a step differs from its record; what is the same in many runs is one way.

    Attributes:
        kind: `changed`, `added`, `removed` or `type` for a place in the output; `effects`, `error`, `crash`,
            `timeout`, `interrupted` or `blocked`.
        what: the place, with `[*]` for every position in a list; else what happened, in words.
    """

    kind: str
    what: str


@dataclass(slots=True)
class Group:
    """The runs in which a step differs in one way; `old` and `new` are of the first of them, `MISSING` if none."""

    way: Way
    runs: list[str] = field(default_factory=list)
    old: Any = MISSING
    new: Any = MISSING


@dataclass(slots=True)
class StepTally:
    """One step over all runs.

    Attributes:
        changed: in how many runs it ran with other code, or options, than it has here.
        differing: the runs in which it diverged or was blocked.
    """

    name: str
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    changed: int = 0
    differing: list[str] = field(default_factory=list)
    groups: dict[Way, Group] = field(default_factory=dict)

    def ranked(self) -> list[Group]:
        """The most frequent way first."""
        return sorted(self.groups.values(), key=lambda group: -len(group.runs))


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run in short. `ways`: step -> how it differs. `problem`: why it could not be replayed at all."""

    run_id: str
    verdicts: tuple[Verdict, ...] = ()
    ways: dict[str, tuple[Way, ...]] = field(default_factory=dict)
    seconds: float = 0.0
    problem: str = ""

    @property
    def is_same(self) -> bool:
        """Whether nothing in it differs."""
        return not self.problem and exit_code(self.verdicts) == SAME_OR_FIXED


class Tally:
    """What came of the runs so far.

    Attributes:
        runs: in the order in which they were replayed.
        steps: in the order in which they came first.
    """

    def __init__(self, workflow: str) -> None:
        self.workflow = workflow
        self.runs: list[RunLine] = []
        self.steps: dict[str, StepTally] = {}

    def add(self, result: RunResult, seconds: float) -> RunLine:
        """Count one replayed run."""
        ways: dict[str, tuple[Way, ...]] = {}
        for step in result.steps:
            tally = self.steps.setdefault(step.name, StepTally(step.name))
            tally.verdicts[step.verdict] += 1
            tally.changed += step.was_run and step.code not in ("", "gone", "new")
            if step.verdict in _BAD:
                tally.differing.append(result.run_id)
                ways[step.name] = tuple(_count(tally, step, result.run_id))
        line = RunLine(result.run_id, tuple(result.verdicts), ways, seconds)
        self.runs.append(line)
        return line

    def add_unreadable(self, run_id: str, problem: str) -> RunLine:
        """Count a run that could not be replayed."""
        line = RunLine(run_id, problem=problem or "it cannot be read")
        self.runs.append(line)
        return line

    @property
    def same(self) -> list[RunLine]:
        """Runs in which nothing differs."""
        return [run for run in self.runs if run.is_same]

    @property
    def differing(self) -> list[RunLine]:
        """Runs in which some step diverged, failed anew or was blocked."""
        return [run for run in self.runs if not run.is_same and not run.problem]

    @property
    def unreadable(self) -> list[RunLine]:
        """Runs that could not be replayed."""
        return [run for run in self.runs if run.problem]

    @property
    def exit_code(self) -> int:
        """Of the whole: 0 same or fixed, 1 diverged or failed anew, 3 blocked by a guard, 4 unreadable or none."""
        code = exit_code(verdict for run in self.runs for verdict in run.verdicts)
        if code == SAME_OR_FIXED and (self.unreadable or not self.runs):
            return UNREADABLE
        return code


def ways_of(step: StepResult) -> Iterator[tuple[Way, Any, Any]]:
    """How a step that diverged or was blocked differs, with an old and a new value where there are such."""
    ended = step.ended
    if ended is None:
        return
    match step.verdict:
        case Verdict.BLOCKED:
            for leak in ended.leaks:
                place = f"{leak.file}:{leak.line}: " if leak.file else ""
                yield Way("blocked", f"{place}{leak.what} {leak.target}".strip()), MISSING, MISSING
        case Verdict.NEW_ERROR:
            text = ended.problem.error.summary if ended.problem is not None else "it failed"
            yield Way("error", _ADDRESS.sub("0x", text)), MISSING, MISSING
        case Verdict.CRASHED:
            yield Way("crash", f"the process died: {step.why}"), MISSING, MISSING
        case Verdict.NOT_COMPARED:
            yield Way("not compared", step.why), MISSING, MISSING
        case Verdict.INTERRUPTED:
            yield Way("timeout" if ended.outcome == "timeout" else "interrupted", "it did not end"), MISSING, MISSING
        case _:
            yield from _differences(step)


def _differences(step: StepResult) -> Iterator[tuple[Way, Any, Any]]:
    assert step.ended is not None
    use = step.ended.effects
    if step.verdict is Verdict.DIVERGED_EFFECTS:
        texts = (use.mismatch, _listed("not asked for", use.missing), _listed("not recorded", use.extra))
        for text in filter(None, texts):
            yield Way("effects", text), MISSING, MISSING
    for item in step.differences or ():
        yield Way(item.kind, _POSITION.sub("[*]", item.path)), item.old, item.new


def _listed(what: str, names: Iterable[str]) -> str:
    text = ", ".join(names)
    return f"{what}: {text}" if text else ""


def _count(tally: StepTally, step: StepResult, run_id: str) -> Iterator[Way]:
    for way, old, new in ways_of(step):
        group = tally.groups.setdefault(way, Group(way, [], old, new))
        if run_id not in group.runs[-1:]:  # many items of one list may differ alike
            group.runs.append(run_id)
            yield way
