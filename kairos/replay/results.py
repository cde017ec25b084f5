"""What came of a replay, for whoever shows it, counts it or writes it down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import unified_diff

from kairos.domain.fingerprint import Definition
from kairos.replay.compare import Differences
from kairos.replay.facts import Attempt, Ending
from kairos.replay.messages import Ended, Leak
from kairos.replay.plan import Action, Plan, PlannedStep
from kairos.replay.verdicts import DIVERGED, Verdict, exit_code


@dataclass(frozen=True, slots=True)
class StepResult:
    """One line of the outcome.

    Attributes:
        number: place in the plan, from 1.
        recorded: the attempt that it is held against; None if it never started.
        then: size of the recorded output in bytes, if there was one.
        ended: what the child said; None if the step was not run.
        moved: an input of it differs from the recorded one, because a step above it changed.
        code: how its definition differs from the recorded one: "", `code changed`, `options changed` or `new`.
    """

    planned: PlannedStep
    number: int
    verdict: Verdict
    recorded: Attempt | None = None
    then: int | None = None
    ended: Ended | None = None
    differences: Differences | None = None
    code: str = ""
    why: str = ""

    @property
    def name(self) -> str:
        """The step's name."""
        return self.planned.name

    @property
    def has_diverged(self) -> bool:
        """Whether it does something else than then. A step that hung then and hangs here does not."""
        then = self.recorded
        open_ended = then is not None and not then.death and then.ending in (Ending.OPEN, Ending.LOST, Ending.CANCELLED)
        hung = open_ended or (then is not None and then.timed_out)
        return self.verdict in DIVERGED and not (self.verdict is Verdict.INTERRUPTED and hung)

    @property
    def was_run(self) -> bool:
        """Whether its function was called."""
        return self.ended is not None and self.ended.outcome != "missing"


@dataclass(slots=True)
class RunResult:
    """One replayed run.

    Attributes:
        quit: the user ended the replay before its end.
        leaks: what was stopped while the app was imported. The app went on without it, so by itself it is no verdict.
    """

    run_id: str
    workflow: str
    plan: Plan
    steps: list[StepResult] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    quit: bool = False

    @property
    def verdicts(self) -> list[Verdict]:
        """Of all steps."""
        return [step.verdict for step in self.steps]

    @property
    def exit_code(self) -> int:
        """See `verdicts.exit_code`."""
        return exit_code(self.verdicts)

    @property
    def first_divergence(self) -> StepResult | None:
        """The first step that differs, in the order of the plan."""
        return next((step for step in self.steps if step.has_diverged), None)

    @property
    def counts(self) -> Mapping[Verdict, int]:
        """How often each verdict was given, in the order in which `Verdict` lists them."""
        found = self.verdicts
        return {verdict: n for verdict in Verdict if (n := found.count(verdict))}

    @property
    def total(self) -> int:
        """Steps in the plan."""
        return len(self.plan.steps)

    @property
    def left(self) -> int:
        """Steps of which nothing is known, because the user ended the replay."""
        return self.total - len(self.steps)


class Code:
    """The code that a run was made by, beside the code that is at hand."""

    def __init__(self, then: Definition, now: Definition) -> None:
        self.then, self.now = then, now

    def change(self, step: str) -> str:
        """In two words: how a step's definition differs from the recorded one; empty if it does not."""
        if step not in self.now.graph.steps:
            return "gone"
        if step not in self.then.graph.steps:
            return "new"
        if self.then.code.get(step) != self.now.code.get(step):
            return "code changed"
        if self.then.schemas.get(step) != self.now.schemas.get(step):
            return "type changed"
        return "options changed" if self.then.graph.steps[step] != self.now.graph.steps[step] else ""

    @property
    def changes(self) -> Mapping[str, str]:
        """Step -> `change`, for those that differ."""
        names = dict.fromkeys((*self.then.graph.steps, *self.now.graph.steps))
        return {name: change for name in names if (change := self.change(name))}

    def source_diff(self, step: str) -> Iterator[str]:
        """The lines of a unified diff of the step's source; none if it is the same, or not known."""
        old, new = (d.sources.get(step, "").splitlines() for d in (self.then, self.now))
        yield from unified_diff(old, new, f"{step} (as it ran)", f"{step} (here)", lineterm="")


def is_served(planned: PlannedStep) -> bool:
    """Whether the step is answered from the record."""
    return planned.action is Action.SERVE
