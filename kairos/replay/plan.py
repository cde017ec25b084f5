"""Decides which steps of a recorded run are run again, which are served from the record, and in which order.

Pure: it sees what is recorded, the graph of the app that is at hand, and what the user asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from msgspec import Struct

from kairos.domain.forking import ForkPlan
from kairos.domain.graph import Graph
from kairos.domain.names import nearest
from kairos.errors import InvalidArgument
from kairos.replay.facts import RunFacts, StepFacts


class Mode(StrEnum):
    """How far a replay goes.

    `verify`: each step gets its recorded input, effects are served from the log. `propagate`: effects are served
    too, but each step gets what the steps above it return now. `live`: as propagate, and effects really happen.
    """

    VERIFY = "verify"
    PROPAGATE = "propagate"
    LIVE = "live"


class Action(StrEnum):
    """What becomes of one step."""

    RUN = "run"
    SERVE = "serve"
    """Not run: its recorded output stands."""
    MISSING = "missing"
    """Neither can be done: there is no output to serve, and no function or no input to run it with."""


GIVEN: Final = "the output that was given"
"""Why a step is served whose output is an edit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the user asked for.

    Attributes:
        serve: steps that are not run.
        until: the last step that is run.
        only: the one step that is run.
        attempt: which attempt of a step is replayed; its last if None.
        fork_from: only this step and what follows are run, on new outputs, as a fork would run them.
    """

    mode: Mode = Mode.VERIFY
    serve: frozenset[str] = frozenset()
    until: str | None = None
    only: str | None = None
    attempt: int | None = None
    fork_from: str | None = None

    @property
    def flows(self) -> bool:
        """Whether a step gets what the steps above it return now, instead of what they returned then."""
        return self.mode is not Mode.VERIFY or self.fork_from is not None


class PlannedStep(Struct, frozen=True, kw_only=True):
    """One line of the plan.

    Attributes:
        attempt: the attempt that is replayed, as recorded; 1 if the step never started; `token` is its fence.
        reads: the steps whose outputs it receives.
        after: the steps that must have ended well before it, if outputs flow.
        why: why it is not run, for people.
    """

    name: str
    action: Action
    attempt: int = 1
    token: int = 0
    reads: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    why: str = ""


class Plan(Struct, frozen=True):
    """Every step, in the order in which they come; `notes` is what the user should know before."""

    steps: tuple[PlannedStep, ...]
    notes: tuple[str, ...] = ()

    @property
    def runs(self) -> tuple[PlannedStep, ...]:
        """The steps that are run."""
        return tuple(step for step in self.steps if step.action is Action.RUN)


def check_names(choice: Choice, graphs: Iterable[Graph]) -> None:
    """Raise InvalidArgument if the choice names a step that none of the graphs has."""
    known = {name: None for graph in graphs for name in graph.steps}
    named = {
        "--serve": choice.serve, "--until": {choice.until}, "--only": {choice.only},
    }  # fmt: skip
    for option, names in named.items():
        for name in sorted(name for name in names if name is not None):
            if name not in known:
                raise InvalidArgument(f"{option}: the run has no step {name!r}", hint=nearest(name, known))


def check_attempt(choice: Choice, facts: RunFacts) -> None:
    """Raise InvalidArgument if no step that could be run had such an attempt."""
    if choice.attempt is None:
        return
    names = [choice.only] if choice.only else list(facts.steps)
    tries = {name: len(facts.steps[name].attempts) for name in names if name in facts.steps}
    if not any(facts.steps[name].attempt(choice.attempt) for name in tries):
        most = max(tries.values(), default=0)
        whose = f"step {choice.only!r}" if choice.only else "any step"
        made = "One attempt was" if most == 1 else f"At most {most} attempts were"
        raise InvalidArgument(
            f"there is no attempt {choice.attempt} of {whose}", hint=f"{made} made. `kairos show RUN` lists them."
        )


def make_plan(recorded: Graph, local: Graph, facts: RunFacts, choice: Choice, fork: ForkPlan | None = None) -> Plan:
    """Decide for each step.

    Args:
        local: the graph of the workflow in the app that is at hand.
        fork: what a fork from `choice.fork_from` would do with that graph.

    Raises:
        InvalidArgument: the choice names a step or an attempt that there is not.
    """
    check_names(choice, (recorded, local))
    check_attempt(choice, facts)
    graph = _merged(recorded, local, choice)
    order = _order(graph)
    left_out = _left_out(order, choice, fork)
    given = frozenset(fork.overridden) if fork is not None else frozenset[str]()
    steps = tuple(_step(name, graph, local, facts, choice, left_out, given) for name in order)
    return Plan(steps, tuple(_notes(recorded, local, choice, fork)))


def _merged(recorded: Graph, local: Graph, choice: Choice) -> Graph:
    """The steps that a replay is about, with the edges of today where there are any."""
    specs = {name: local.steps.get(name, spec) for name, spec in recorded.steps.items()}
    if choice.flows:
        specs = {name: spec for name, spec in specs.items() if name in local.steps}
        specs |= {name: spec for name, spec in local.steps.items() if name not in specs}
    return Graph(recorded.workflow, specs)


def _order(graph: Graph) -> tuple[str, ...]:
    """As defined; an app defines each step below those it waits for, so that is an order to run them in."""
    seen: set[str] = set()
    for name, spec in graph.steps.items():
        if not seen.issuperset(up for up in spec.upstream if up in graph.steps):
            return _sorted(graph)
        seen.add(name)
    return tuple(graph.steps)


def _sorted(graph: Graph) -> tuple[str, ...]:
    from graphlib import TopologicalSorter

    edges = {name: [up for up in spec.upstream if up in graph.steps] for name, spec in graph.steps.items()}
    return tuple(TopologicalSorter(edges).static_order())


def _left_out(order: tuple[str, ...], choice: Choice, fork: ForkPlan | None) -> dict[str, str]:
    """The steps that the user does not want to be run, and why."""
    why: dict[str, str] = {}
    if fork is not None:
        why |= dict.fromkeys(fork.reused, f"it does not depend on {fork.from_step}")
        why |= dict.fromkeys(fork.overridden, GIVEN)
    if choice.until is not None and choice.until in order:
        why |= dict.fromkeys(order[order.index(choice.until) + 1 :], f"it comes after {choice.until}")
    if choice.only is not None:
        why |= dict.fromkeys((name for name in order if name != choice.only), f"only {choice.only} is run")
    return why | dict.fromkeys(choice.serve, "as asked")


def _step(
    name: str, graph: Graph, local: Graph, facts: RunFacts, choice: Choice, left_out: Mapping[str, str],
    given: frozenset[str],
) -> PlannedStep:  # fmt: skip
    recorded = facts.steps.get(name)
    why = left_out.get(name) or _why_not(name, local, recorded, choice)
    if why:
        has_output = name in given or (recorded is not None and recorded.output is not None)
        return PlannedStep(name=name, action=Action.SERVE if has_output else Action.MISSING, why=why)
    attempt = recorded and (recorded.attempt(choice.attempt) or recorded.attempt())
    spec = graph.steps[name]
    return PlannedStep(
        name=name,
        action=Action.RUN,
        attempt=attempt.number if attempt else 1,
        token=attempt.token if attempt else facts.token + 1,
        reads=tuple(dict.fromkeys(spec.needs.values())),
        after=spec.upstream if choice.flows else (),
    )


def _why_not(name: str, local: Graph, recorded: StepFacts | None, choice: Choice) -> str:
    if name not in local.steps:
        return "the app has no such step any more"
    if recorded is not None and recorded.given and choice.fork_from is None and name != choice.only:
        return f"{recorded.given} in this fork"
    if local.steps[name].transactional:
        return "transactional: a replay has no database"
    return ""


def _notes(recorded: Graph, local: Graph, choice: Choice, fork: ForkPlan | None) -> Iterable[str]:
    gone = [name for name in recorded.steps if name not in local.steps]
    new = [name for name in local.steps if name not in recorded.steps]
    if gone:
        yield f"the app no longer has: {_listed(gone)}"
    if new:
        what = "it is run as well" if len(new) == 1 else "they are run as well"
        yield f"new in the app since the run: {_listed(new)}" + (f"; {what}" if choice.flows else "; not part of it")
    if fork is not None and fork.stale:
        what = (
            "which ran on data that is other now, is"
            if len(fork.stale) == 1
            else "which ran on data that is other now, are"
        )
        yield f"{_listed(list(fork.stale))}, {what} reused all the same"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
