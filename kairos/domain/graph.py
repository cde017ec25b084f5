"""The shape of a workflow: steps, what each needs, and the policies that are pinned to every run.

No functions here: a graph is data, stored with its fingerprint, so that any process can fold a run's log
without the user's code. The only user of networkx, which takes longer to load than all else here: only what draws or
sorts a graph loads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from kairos.domain.retry import Retry
from kairos.errors import DefinitionError

if TYPE_CHECKING:
    import networkx as nx

DEFAULT_TIMEOUT = timedelta(minutes=30)
DEFAULT_QUEUE = "default"
DEFAULT_PRIORITY = 5
DEFAULT_CRASH_LIMIT = 3
MAX_STEPS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """One node.

    Attributes:
        needs: parameter name -> the step whose output it receives.
        after: steps that must be done first, without passing data.
        timeout: per attempt; None means no limit.
        queue: None means: the queue of the run.
        ttl: how long the step may wait SCHEDULED before it is EXPIRED; None means for ever.
        crash_limit: crashes while running alone in a process of its own after which the step is DEAD.
    """

    name: str
    needs: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    retry: Retry = field(default_factory=Retry)
    timeout: timedelta | None = DEFAULT_TIMEOUT
    queue: str | None = None
    priority: int | None = None
    ttl: timedelta | None = None
    crash_limit: int = DEFAULT_CRASH_LIMIT
    transactional: bool = False

    @property
    def upstream(self) -> tuple[str, ...]:
        """Every step this one waits for, in order of first mention."""
        return tuple(dict.fromkeys((*self.needs.values(), *self.after)))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; the durations in microseconds."""
        return {
            "name": self.name,
            "needs": dict(self.needs),
            "after": list(self.after),
            "retry": self.retry.to_json(),
            "timeout_us": _micros(self.timeout),
            "queue": self.queue,
            "priority": self.priority,
            "ttl_us": _micros(self.ttl),
            "crash_limit": self.crash_limit,
            "transactional": self.transactional,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StepSpec:
        """The inverse of `to_json`."""
        return cls(
            name=data["name"],
            needs=data["needs"],
            after=tuple(data["after"]),
            retry=Retry.from_json(data["retry"]),
            timeout=_delta(data["timeout_us"]),
            queue=data["queue"],
            priority=data["priority"],
            ttl=_delta(data["ttl_us"]),
            crash_limit=data["crash_limit"],
            transactional=data.get("transactional", False),
        )


@dataclass(frozen=True)
class Graph:
    """A checked DAG: `steps` in order of definition."""

    workflow: str
    steps: Mapping[str, StepSpec]

    @classmethod
    def build(cls, workflow: str, steps: Mapping[str, StepSpec]) -> Graph:
        """Check and build.

        Raises:
            DefinitionError: no steps, too many, an unknown upstream, or a cycle (spelled out whole).
        """
        if not steps:
            raise DefinitionError(f"workflow {workflow!r} has no steps", hint="Decorate a function with @wf.step.")
        if len(steps) > MAX_STEPS:
            raise DefinitionError(f"workflow {workflow!r} has {len(steps):,} steps; the limit is {MAX_STEPS:,}")
        for spec in steps.values():
            for name in spec.upstream:
                if name not in steps:
                    raise DefinitionError(f"step {spec.name!r} waits for {name!r}, which is not a step")
        try:
            TopologicalSorter({name: spec.upstream for name, spec in steps.items()}).prepare()
        except CycleError as exc:
            path = " -> ".join(exc.args[1])
            raise DefinitionError(f"workflow {workflow!r} has a cycle: {path}", cycle=path) from None
        return cls(workflow, dict(steps))

    def to_networkx(self) -> nx.DiGraph[str]:
        """Edges point from upstream to downstream."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(self.steps)
        graph.add_edges_from((up, spec.name) for spec in self.steps.values() for up in spec.upstream)
        return graph

    @cached_property
    def downstream(self) -> Mapping[str, tuple[str, ...]]:
        """Step -> the steps that wait for it, in order of definition."""
        result: dict[str, list[str]] = {name: [] for name in self.steps}
        for spec in self.steps.values():
            for up in spec.upstream:
                result[up].append(spec.name)
        return {name: tuple(below) for name, below in result.items()}

    @cached_property
    def inputs(self) -> Mapping[str, tuple[tuple[str, str], ...]]:
        """Step -> (parameter, upstream step) for each output that it receives, ordered by parameter."""
        return {name: tuple(sorted(spec.needs.items())) for name, spec in self.steps.items()}

    @cached_property
    def upstream_count(self) -> Mapping[str, int]:
        """Step -> how many steps it waits for."""
        return {name: len(spec.upstream) for name, spec in self.steps.items()}

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """Steps that wait for nothing."""
        return tuple(name for name, spec in self.steps.items() if not spec.upstream)

    @cached_property
    def sinks(self) -> tuple[str, ...]:
        """Steps that nothing waits for: their outputs are the run's output."""
        return tuple(name for name in self.steps if not self.downstream[name])

    @cached_property
    def order(self) -> tuple[str, ...]:
        """A topological order; ties in order of definition."""
        import networkx as nx

        position = {name: i for i, name in enumerate(self.steps)}
        return tuple(nx.lexicographical_topological_sort(self.to_networkx(), key=position.__getitem__))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"workflow": self.workflow, "steps": [spec.to_json() for spec in self.steps.values()]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Graph:
        """The inverse of `to_json`."""
        specs = [StepSpec.from_json(item) for item in data["steps"]]
        return cls.build(data["workflow"], {spec.name: spec for spec in specs})


def _micros(value: timedelta | None) -> int | None:
    return None if value is None else value // timedelta(microseconds=1)


def _delta(value: int | None) -> timedelta | None:
    return None if value is None else timedelta(microseconds=value)
