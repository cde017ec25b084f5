"""The first page: how things stand, what goes wrong most, what has become slow, what waits for whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from debugger_ui import words
from debugger_ui.board import Part, Wish
from debugger_ui.groups import stem_of
from debugger_ui.ui import Ui, ui_of
from debugger_ui.wanted import address
from kairos.client.facts import read_workers
from kairos.diagnosis import WorkerFact
from kairos.domain.states import RunStatus
from kairos.errors import InvalidArgument
from kairos.store.aggregates import MOST_RUNS, Activity, Aggregates, StepTimes, TaskCount
from kairos.store.reader import Reader

SPANS: Final = {
    "1h": (timedelta(hours=1), timedelta(minutes=5)),
    "24h": (timedelta(days=1), timedelta(hours=1)),
    "7d": (timedelta(days=7), timedelta(hours=6)),
}
"""How far back a dashboard looks, and how much time a bar of its chart spans."""
SLOW: Final = 10
CHART: Final = (720, 72)
"""Width and height of the chart, in its own units."""
GAP: Final = 2.0


@dataclass(frozen=True, slots=True)
class Bar:
    """Runs created in [begin, end): pieces from the bottom up as (class, y, height), in units of the chart."""

    begin: datetime
    end: datetime
    x: float
    width: float
    counts: dict[str, int]
    pieces: list[tuple[str, float, float]]
    href: str

    @property
    def says(self) -> str:
        """In words."""
        parts = [f"{n:,} {status.lower()}" for status, n in self.counts.items()]
        return f"{words.day_time(self.begin)[:-3]} UTC: {', '.join(parts) or 'no runs'}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"from": words.iso(self.begin), "to": words.iso(self.end), **self.counts}


@dataclass(frozen=True, slots=True)
class Chart:
    """Runs by time. `most`: the highest bar; `is_cut`: there were more runs than were counted."""

    bars: list[Bar]
    most: int
    counts: dict[RunStatus, int]
    total: int

    @property
    def is_cut(self) -> bool:
        """Whether there may be more than were counted."""
        return self.total >= MOST_RUNS


async def dashboard(request: Request) -> Response:
    """The page; a fragment of it when a script asks for news."""
    ui = ui_of(request)
    chosen = request.query_params.get("span", "24h")
    span = chosen if chosen in SPANS else "24h"
    parts = await read_parts(ui, span)
    async with ui.reads.reader() as reader:
        latest = await reader.list_runs(limit=8)
    name = "dashboard_body.html" if request.headers.get("hx-request") else "dashboard.html"
    facts: dict[str, Any] = {
        "span": span,
        "spans": list(SPANS),
        "statuses": list(RunStatus),
        "chart_size": CHART,
        "latest": latest,
    }
    return ui.page(request, name, **facts, parts=parts)


async def api(request: Request) -> Response:
    """The same for programs. A part that is being counted is null; one that took too long is left out."""
    span = request.query_params.get("span", "24h")
    if span not in SPANS:
        raise InvalidArgument(f"span={span[:40]!r}: must be one of {', '.join(SPANS)}")
    parts = await read_parts(ui_of(request), span, patience=5.0)

    def of(name: str) -> Any:
        part = parts[name]
        return None if part is None else part.value

    chart, steps = of("activity"), of("steps")
    return JSONResponse(
        {
            "span": span,
            "counts": chart and {status.value: count for status, count in chart.counts.items()},
            "activity": chart
            and [{"from": words.iso(b.begin), "to": words.iso(b.end), **b.counts} for b in chart.bars],
            "failures": [group.to_json() for group in of("groups") or ()],
            "steps": steps and [times.to_json() for times in steps],
            "queues": [count.to_json() for count in of("tasks") or ()],
            "workers": [worker_json(worker) for worker in of("workers") or ()],
        }
    )


async def read_parts(ui: Ui, span: str, **more: float) -> dict[str, Part | None]:
    """Everything that is counted, by name; None is being counted."""
    length, width = SPANS[span]

    async def activity(reader: Reader) -> Chart:
        begin = _floor(words.now() - length, width) + width
        return chart(await Aggregates(reader.session).activity(begin, width), begin, width, int(length / width))

    async def steps(reader: Reader) -> list[StepTimes]:
        known = Aggregates(reader.session)
        return slowest(await known.step_times(await known.active_workflows(), words.now() - length))

    async def tasks(reader: Reader) -> list[TaskCount]:
        return await Aggregates(reader.session).tasks()

    wishes = {
        "activity": Wish(f"activity {span}", activity, 3),
        "groups": Wish(f"groups {span}", lambda reader: reader.failure_groups(words.now() - length, most=12), 5),
        "tasks": Wish("tasks", tasks, 3),
        "workers": Wish("workers", read_workers, 3),
        "steps": Wish(f"steps {span}", steps, 30),
    }
    return await ui.board.look(wishes, **more)


def chart(found: Sequence[Activity], begin: datetime, width: timedelta, count: int) -> Chart:
    """The bars of so many stretches from `begin` on."""
    by_index: list[dict[RunStatus, int]] = [{} for _ in range(count)]
    for part in found:
        if 0 <= part.index < count:
            by_index[part.index][part.status] = part.count
    most = max((sum(counts.values()) for counts in by_index), default=0)
    bars = []
    step = CHART[0] / count
    for index, counts in enumerate(by_index):
        since = begin + index * width
        pieces, y = [], float(CHART[1])
        for status in RunStatus:
            if n := counts.get(status, 0):
                # What went wrong must be seen, however little it is.
                height = max(n / most * CHART[1], 1.5)
                y -= height
                pieces.append((_shade(status), round(max(y, 0.0), 2), round(height, 2)))
        shown = {status.value: counts[status] for status in RunStatus if counts.get(status)}
        href = address("/runs", {}, since=_minute(since), until=_minute(since + width))
        bars.append(Bar(since, since + width, round(index * step, 2), round(step - GAP, 2), shown, pieces, href))
    totals = {status: sum(counts.get(status, 0) for counts in by_index) for status in RunStatus}
    return Chart(bars, most, totals, sum(part.count for part in found))


def slowest(times: Sequence[StepTimes]) -> list[StepTimes]:
    """What has become slower first, then what takes longest. Of like steps (`send_1`, `send_2`) the worst stands for
    all."""
    worst: dict[tuple[str, str], StepTimes] = {}
    for found in times:
        name = found.workflow, stem_of(found.step)
        if found.recent is not None and (name not in worst or _badness(found) > _badness(worst[name])):
            worst[name] = found
    return sorted(worst.values(), key=_badness, reverse=True)[:SLOW]


def _badness(times: StepTimes) -> tuple[bool, float]:
    return is_slower(times), times.recent.p95 if times.recent else 0.0


def is_slower(times: StepTimes) -> bool:
    """Whether a step takes noticeably longer than it used to."""
    factor = times.factor
    return factor is not None and factor >= 1.5 and times.recent is not None and times.recent.p50 >= 0.01


def worker_json(worker: WorkerFact) -> dict[str, Any]:
    """A worker, as plain JSON."""
    return {
        "name": worker.name,
        "state": worker.state,
        "live": worker.is_live,
        "queues": list(worker.queues),
        "versions": sorted(worker.fingerprints),
        "concurrency": worker.concurrency,
        "running": worker.running,
        "beat_at": words.iso(worker.beat_at),
        "lease_until": words.iso(worker.lease_until),
    }


def _shade(status: RunStatus) -> str:
    return "s-dead" if status is RunStatus.FAILED else f"s-{status.value.lower()}"


def _floor(moment: datetime, width: timedelta) -> datetime:
    micros = width // timedelta(microseconds=1)
    return moment - timedelta(microseconds=words.micros(moment) % micros)


def _minute(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%MZ")
