"""Workflows: their versions, what is different between two of them, how their runs go, and the state machines."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from debugger_ui import words
from debugger_ui.board import Part, Wish
from debugger_ui.graph import picture
from debugger_ui.machines import diagrams
from debugger_ui.sources import lines_of
from debugger_ui.ui import Ui, ui_of
from debugger_ui.versions import Changes, both, compare_versions
from debugger_ui.wanted import address
from kairos.domain.duration import format_duration
from kairos.domain.fingerprint import Definition
from kairos.domain.graph import Graph, StepSpec
from kairos.domain.names import nearest
from kairos.domain.projection import RunState, apply
from kairos.domain.states import RunStatus
from kairos.errors import KairosError, WorkflowNotFound
from kairos.store.aggregates import Aggregates, Outcomes, StepTimes, Version
from kairos.store.codec import Row, decode
from kairos.store.lists import BROKEN, RunFilter
from kairos.store.reader import Reader

MOST_LISTED: Final = 500
"""Workflows on one page."""
AMONG_LISTED: Final = 200
"""Newest runs of each workflow that its success rate in the list is said of."""
AMONG: Final = 10_000
"""Newest runs of one workflow that its own page counts."""
WEEK: Final = timedelta(days=7)
RECENT: Final = 8


@dataclass(slots=True)
class Tally:
    """How the newest runs of a workflow, or of one version, stand."""

    counts: Counter[RunStatus] = field(default_factory=Counter)
    first: datetime | None = None
    last: datetime | None = None

    def add(self, found: Outcomes) -> None:
        """Count these, too."""
        self.counts[found.status] += found.count
        self.first = found.first if self.first is None else min(self.first, found.first)
        self.last = found.last if self.last is None else max(self.last, found.last)

    @property
    def total(self) -> int:
        """All of them."""
        return self.counts.total()

    @property
    def rate(self) -> float | None:
        """Share of DONE among those that were done or broke; None if none was."""
        ended = self.counts[RunStatus.DONE] + sum(self.counts[status] for status in BROKEN)
        return self.counts[RunStatus.DONE] / ended if ended else None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "runs": self.total,
            "counts": {status.value: count for status, count in self.counts.items()},
            "success_rate": self.rate,
            "first_at": None if self.first is None else words.iso(self.first),
            "last_at": None if self.last is None else words.iso(self.last),
        }


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the page of a workflow looks at. `against`: the older version it is held against."""

    name: str
    versions: list[Version]
    version: Version
    definition: Definition
    against: Version | None = None
    changes: Changes | None = None
    graph: Graph | None = None
    notices: tuple[str, ...] = ()

    def query(self, **changes: object) -> str:
        """The address of this page, changed."""
        given = {"version": "" if self.version is self.versions[0] else self.version.fingerprint[:12]}
        given["against"] = self.against.fingerprint[:12] if self.against else ""
        return address(f"/workflows/{self.name}", given, **changes)


async def listing(request: Request) -> Response:
    """All workflows."""
    ui = ui_of(request)
    groups = by_workflow(await _versions(ui))
    return ui.page(request, "workflows.html", groups=groups, tallies=await _tallies(ui, list(groups)))


async def page(request: Request) -> Response:
    """One workflow."""
    ui = ui_of(request)
    chosen = await choose(ui, request.path_params["name"], request.query_params)
    parts = await read_parts(ui, chosen)
    async with ui.reads.reader() as reader:
        runs = await reader.select_runs(RunFilter(workflow=chosen.name), limit=RECENT)
    step = request.query_params.get("step", "")
    opened = request.query_params.get("open", "")[:200]
    facts: dict[str, Any] = {
        "chosen": chosen,
        "parts": parts,
        "runs": runs,
        "among": AMONG,
        "picture": picture(chosen.graph or chosen.definition.graph, opened.split(",")),
        "opened": opened,
        "diagrams": diagrams(),
        "step": describe(chosen.definition, step) if step in chosen.definition.graph.steps else None,
    }
    return ui.page(request, "workflow.html", **facts)


async def api_list(request: Request) -> Response:
    """All workflows, for programs."""
    ui = ui_of(request)
    groups = by_workflow(await _versions(ui))
    tallies = await _tallies(ui, list(groups), patience=5.0)
    facts = [
        {
            "workflow": name,
            "versions": [version_json(v) for v in versions],
            **(tallies[name].to_json() if tallies and name in tallies else {}),
        }
        for name, versions in groups.items()
    ]
    return JSONResponse({"workflows": facts})


async def api(request: Request) -> Response:
    """One workflow, for programs."""
    ui = ui_of(request)
    chosen = await choose(ui, request.path_params["name"], request.query_params)
    parts = await read_parts(ui, chosen, patience=5.0)
    tallies: dict[str, Tally] = value_of(parts["outcomes"]) or {}
    times = value_of(parts["steps"])
    facts: dict[str, Any] = {
        "workflow": chosen.name,
        "version": chosen.version.fingerprint,
        "graph": chosen.definition.graph.to_json(),
        "versions": [
            version_json(v) | (tallies[v.fingerprint].to_json() if v.fingerprint in tallies else {})
            for v in chosen.versions
        ],
        "against": None if chosen.against is None else chosen.against.fingerprint,
        "changes": None if chosen.changes is None else [change.to_json() for change in chosen.changes.found],
        "input_changed": None if chosen.changes is None else chosen.changes.input_changed,
        "steps": times and [found.to_json() for found in times],
        "step_states": value_of(parts["states"]),
    }
    return JSONResponse(facts)


async def choose(ui: Ui, name: str, query: Mapping[str, str]) -> Chosen:
    """The workflow and versions that an address means. Raises WorkflowNotFound."""
    groups = by_workflow(await _versions(ui))
    if name not in groups:
        raise WorkflowNotFound(f"no workflow {name[:80]!r} has been registered here", hint=nearest(name, groups))
    versions, notices = groups[name], list[str]()
    version = _find(versions, query.get("version", ""), notices) or versions[0]
    against = _find(versions, query.get("against", ""), notices)
    against = None if against is version else against
    async with ui.reads.reader() as reader:
        definition = await reader.definition(version.fingerprint)
        old = await reader.definition(against.fingerprint) if against is not None else None
    if old is None:
        return Chosen(name, versions, version, definition, notices=tuple(notices))
    changes, graph = compare_versions(old, definition), both(old, definition)
    return Chosen(name, versions, version, definition, against, changes, graph, tuple(notices))


async def read_parts(ui: Ui, chosen: Chosen, **more: float) -> dict[str, Part | None]:
    """What is counted of a workflow, by name; None is being counted."""
    name, version, graph = chosen.name, chosen.version.fingerprint, chosen.definition.graph

    async def outcomes(reader: Reader) -> dict[str, Tally]:
        tallies: dict[str, Tally] = {"": Tally()}
        for found in await Aggregates(reader.session).outcomes([name], AMONG):
            tallies[""].add(found)
            tallies.setdefault(found.fingerprint, Tally()).add(found)
        return tallies

    async def steps(reader: Reader) -> list[StepTimes]:
        since, order = words.now() - WEEK, {step: place for place, step in enumerate(graph.steps)}
        found = await Aggregates(reader.session).step_times([name], since, runs=1_000, events=20_000)
        return sorted(found, key=lambda times: (order.get(times.step, len(order)), times.step))

    async def states(reader: Reader) -> dict[str, Any]:
        logs = await Aggregates(reader.session).sample_logs(name, version)
        return await asyncio.to_thread(count_states, graph, logs)

    wishes = {
        "outcomes": Wish(f"outcomes {name}", outcomes, 5),
        "steps": Wish(f"times {version}", steps, 30),
        "states": Wish(f"states {version}", states, 15),
    }
    return await ui.board.look(wishes, **more)


def count_states(graph: Graph, logs: Mapping[UUID, Sequence[Row]]) -> dict[str, Any]:
    """How many runs were folded, and how many of their steps are in each status."""
    counts: Counter[str] = Counter()
    runs = 0
    for run_id, rows in logs.items():
        state = RunState(run_id, graph)
        try:
            for row in rows:
                apply(state, decode(row))
        except KairosError:
            continue  # a log that cannot be folded says so on its own page
        runs += 1
        counts.update(step.status.value for step in state.steps.values())
    return {"runs": runs, "counts": dict(counts)}


def describe(definition: Definition, name: str) -> dict[str, Any]:
    """One step of a version: what it waits for, its options, its source."""
    spec = definition.graph.steps[name]
    source = definition.sources.get(name, "")
    return {
        "name": name,
        "spec": spec,
        "options": options_of(spec),
        "below": [other.name for other in definition.graph.steps.values() if name in other.upstream],
        "lines": lines_of(source) if source else [],
    }


def options_of(spec: StepSpec) -> list[tuple[str, str]]:
    """How a step is run, in words."""
    retry = spec.retry
    more = f", from {format_duration(retry.base_delay)} to {format_duration(retry.cap_delay)} apart"
    found = [("attempts", f"{retry.attempts}{more if retry.attempts > 1 else ''}")]
    found.append(("timeout", "none" if spec.timeout is None else format_duration(spec.timeout)))
    found += [("queue", spec.queue)] if spec.queue else []
    found += [("priority", str(spec.priority))] if spec.priority is not None else []
    found += [("time to live", format_duration(spec.ttl))] if spec.ttl is not None else []
    return found + ([("writes", "in one transaction with its completion")] if spec.transactional else [])


def version_json(version: Version) -> dict[str, Any]:
    """A version, as `kairos workflows --json` has it."""
    return {
        "version": version.fingerprint,
        "registered_at": words.iso(version.registered_at),
        "workers": version.workers,
        "open": version.open,
        "waiting": version.waiting,
    }


def by_workflow(versions: Sequence[Version]) -> dict[str, list[Version]]:
    """workflow -> its versions, the newest first."""
    groups: dict[str, list[Version]] = {}
    for version in versions:
        groups.setdefault(version.workflow, []).append(version)
    return groups


def value_of(part: Part | None) -> Any:
    """What was counted, if it was."""
    return None if part is None else part.value


async def _versions(ui: Ui) -> list[Version]:
    async with ui.reads.reader() as reader:
        return await Aggregates(reader.session).versions()


async def _tallies(ui: Ui, names: list[str], **more: float) -> dict[str, Tally] | None:
    async def load(reader: Reader) -> dict[str, Tally]:
        found: dict[str, Tally] = {}
        for outcome in await Aggregates(reader.session).outcomes(names[:MOST_LISTED], AMONG_LISTED):
            found.setdefault(outcome.workflow, Tally()).add(outcome)
        return found

    found: dict[str, Tally] | None = value_of((await ui.board.look({"": Wish("tallies", load, 5)}, **more))[""])
    return found


def _find(versions: list[Version], text: str, notices: list[str]) -> Version | None:
    if not text:
        return None
    found = [version for version in versions if version.fingerprint.startswith(text.lower())]
    if len(found) != 1:
        how = "Several versions begin" if found else "No version begins"
        notices.append(f"{how} with {words.one_line(text, 40)!r}.")
    return found[0] if len(found) == 1 else None
