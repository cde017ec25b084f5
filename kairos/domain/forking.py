"""What a fork takes over from its parent and what it runs anew.

A fork is a new run. It inherits, by reference, every step that is done in its parent unless that is the fork point or
lies downstream of it; all else runs. The output of an inherited step stays in the event (or blob) that it was written
to when the step really ran, however many forks lie in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from kairos.domain.editing import INPUT, Edit
from kairos.domain.events import (
    Event,
    Recorded,
    RunForked,
    RunScheduled,
    StepDone,
    StepOverridden,
    StepsInherited,
)
from kairos.domain.graph import Graph
from kairos.domain.names import nearest
from kairos.domain.payload import Payload
from kairos.errors import HistoryError, InvalidArgument

CHUNK: Final = 1000
"""Most steps in one `steps_inherited`."""
MAX_NAMED: Final = 5


class Origin(NamedTuple):
    """Where an output stands: event `seq` of `run`, itself or as a blob."""

    run: str
    seq: int
    size: int
    digest: str
    is_blob: bool

    @classmethod
    def of(cls, run: str, seq: int, output: Payload) -> Origin:
        """That of an output which event `seq` of `run` holds."""
        return cls(run, seq, output.size, output.digest, output.sha256 is not None)

    @property
    def payload(self) -> Payload:
        """The output as a fork refers to it."""
        return Payload.inherited(*self)


@dataclass(frozen=True, slots=True)
class Parent:
    """What of a run matters to its forks.

    Attributes:
        seq: of its last event, when it was read.
        root: the first ancestor; its own id if it is no fork.
        outputs: step -> where its output is, for every step that is DONE.
    """

    run_id: str
    seq: int
    root: str
    scheduled: RunScheduled
    outputs: Mapping[str, Origin]


KINDS: Final = (
    RunScheduled.kind,
    RunForked.kind,
    StepsInherited.kind,
    StepOverridden.kind,
    StepDone.kind,
)
"""All that `read_parent` needs of a log."""


def read_parent(run_id: str, seq: int, history: Iterable[Recorded], done: Mapping[str, Origin] | None = None) -> Parent:
    """Read a parent from those of its events that are of `KINDS`. `done`: what `step_done`s left out of it say.

    Raises:
        HistoryError: it does not begin with `run_scheduled`.
    """
    scheduled: RunScheduled | None = None
    root, outputs = run_id, dict(done or {})
    for recorded in history:
        event = recorded.event
        match event:
            case StepDone() | StepOverridden():
                outputs[event.step] = Origin.of(run_id, recorded.seq, event.output)
            case StepsInherited():
                outputs |= {step: Origin(event.run, *entry) for step, entry in event.outputs.items()}
            case RunForked():
                root = event.root
            case RunScheduled():
                scheduled = event
            case _:
                pass
    if scheduled is None:
        raise HistoryError(f"run {run_id}: its log does not begin with run_scheduled")
    return Parent(run_id, seq, root, scheduled, outputs)


@dataclass(frozen=True, slots=True)
class ForkPlan:
    """What becomes of each step.

    Attributes:
        reused: step -> where its output is; inherited.
        overridden: steps whose output the author gives.
        runs: step -> why it runs.
        stale: reused steps that ran on data which is other now: what they read is edited, or runs anew.
    """

    parent: Parent
    from_step: str
    reused: Mapping[str, Origin]
    overridden: tuple[str, ...]
    runs: Mapping[str, str]
    stale: tuple[str, ...]
    edits: Sequence[Edit]

    @property
    def edits_input(self) -> bool:
        """Whether the fork has another input than its parent."""
        return any(edit.step is None for edit in self.edits)

    @property
    def notes(self) -> list[str]:
        """What whoever starts it should know: reused data that is not what the fork would make."""
        found = []
        if self.stale:
            named = ", ".join(self.stale[:MAX_NAMED]) + (", ..." if len(self.stale) > MAX_NAMED else "")
            found.append(
                f"{named} read what is other in the fork, but their outputs are reused; fork from there to run them."
            )
        if self.edits_input and self.reused:
            found.append("the reused steps ran with the input as it was.")
        return found


def plan_fork(parent: Parent, graph: Graph, from_step: str, edits: Sequence[Edit] = ()) -> ForkPlan:
    """Work out a fork of `parent` whose definition has this graph.

    Raises:
        InvalidArgument: there is no such step; an edit is of an output that would be made anew, or that is not there.
            The output of `from_step` itself may be given: then it does not run either.
    """
    if from_step not in graph.steps:
        raise InvalidArgument(
            f"there is no step {from_step!r} to fork from in this version of {graph.workflow!r}",
            hint=nearest(from_step, graph.steps),
            from_step=from_step,
        )
    below = downstream_of(graph, from_step)
    # An output for the fork point itself takes its place: what runs is what lies below it.
    overridden = {edit.step for edit in edits if edit.step is not None}
    for edit in edits:
        _check_edit(edit, parent, graph, from_step, below)
    kept = {
        name: parent.outputs[name]
        for name in graph.steps
        if name in parent.outputs and name != from_step and name not in below and name not in overridden
    }
    runs = {name: _why(name, from_step, below) for name in graph.steps if name not in kept and name not in overridden}
    changed = runs.keys() | overridden
    stale = tuple(name for name in kept if changed & set(graph.steps[name].needs.values()))
    given = tuple(name for name in graph.steps if name in overridden)
    return ForkPlan(parent, from_step, kept, given, runs, stale, tuple(edits))


def downstream_of(graph: Graph, step: str) -> set[str]:
    """Every step that waits for `step`, directly or not."""
    found: set[str] = set()
    waiting = list(graph.downstream[step])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph.downstream[name]
    return found


def _why(name: str, from_step: str, below: set[str]) -> str:
    if name == from_step:
        return "the fork point"
    return f"downstream of {from_step}" if name in below else "not done in the parent"


def _check_edit(edit: Edit, parent: Parent, graph: Graph, from_step: str, below: set[str]) -> None:
    step = edit.step
    if step is None:
        return
    if step in below:
        what = f"the output of {step!r}" if edit.is_whole else repr(edit.path)
        raise InvalidArgument(
            f"{what} cannot be given: {step!r} runs again in a fork from {from_step!r}",
            hint=f"Edit what it reads: `{INPUT}`, the output of {from_step!r}, or that of a step before it. "
            f"Or fork from {step!r} with this output.",
            path=edit.path,
        )
    if not edit.is_whole and step not in parent.outputs:
        raise InvalidArgument(
            f"{edit.path!r}: {step!r} is not done in run {parent.run_id}, so there is no output to edit",
            hint=f"A whole output is given as {step}=JSON; without one the step runs.",
            path=edit.path,
        )


def fork_events(
    plan: ForkPlan, outputs: Mapping[str, Payload], edits: Mapping[str, Any], author: str, reason: str
) -> list[Event]:
    """What follows the `run_scheduled` of a fork. `outputs`: those of the overridden steps."""
    parent = plan.parent
    events: list[Event] = [
        RunForked(
            parent=parent.run_id,
            root=parent.root,
            parent_seq=parent.seq,
            from_step=plan.from_step,
            author=author,
            reason=reason,
            edits=edits,
        )
    ]
    by_run: dict[str, list[tuple[str, Origin]]] = {}
    for name, origin in plan.reused.items():
        by_run.setdefault(origin.run, []).append((name, origin))
    for run, entries in by_run.items():
        for begin in range(0, len(entries), CHUNK):
            chunk = {name: (o.seq, o.size, o.digest, o.is_blob) for name, o in entries[begin : begin + CHUNK]}
            events.append(StepsInherited(run=run, outputs=chunk))
    events += [StepOverridden(step=name, output=outputs[name]) for name in plan.overridden]
    return events
