"""Results: kept as JSON, printed as a table, compared with a baseline, written into docs/performance.md."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.plan import Case, Metrics, Options, lower_is_better

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

SIZES = ("runs", "jobs", "latencies", "concurrency", "callers", "minutes", "old_events")
"""Options without which a result means little."""


@dataclass
class Result:
    """All repetitions of one case. `main` names the metric that counts; `facts` the machine and versions."""

    title: str
    main: str
    facts: dict[str, Any]
    options: dict[str, Any]
    reps: list[Metrics] = field(default_factory=list)

    def median(self, metric: str | None = None) -> float:
        """The median over the repetitions; nan if the metric was not measured."""
        values = [rep[metric or self.main] for rep in self.reps if (metric or self.main) in rep]
        return statistics.median(values) if values else math.nan

    def spread(self) -> tuple[float, float]:
        """Lowest and highest of the main metric."""
        values = [rep[self.main] for rep in self.reps]
        return min(values), max(values)


class Results:
    """Results by the key of their case, in the order of measuring."""

    def __init__(self, found: Mapping[str, Result] | None = None) -> None:
        self.found: dict[str, Result] = dict(found or {})

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read a file that `save` wrote; empty if there is none."""
        if not path.exists():
            return cls()
        return cls({key: Result(**value) for key, value in json.loads(path.read_text("utf-8")).items()})

    def save(self, path: Path) -> None:
        """Write them, beside what the file holds of other cases."""
        merged = {**Results.load(path).found, **self.found}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({key: asdict(value) for key, value in merged.items()}, indent=1) + "\n", "utf-8")

    def add(self, case: Case, metrics: Metrics, facts: dict[str, Any], options: Options) -> None:
        """Keep one repetition."""
        if case.key not in self.found:
            kept = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(options).items() if k in SIZES}
            self.found[case.key] = Result(case.title, case.main, facts, kept)
        self.found[case.key].reps.append(metrics)

    def ratio(self, key: str, other: str, metric: str | None = None, others: str | None = None) -> float:
        """How many times better `key` is than `other`: above 1 is better, also for times. nan if not measured."""
        if key not in self.found or other not in self.found:
            return math.nan
        one, two = self.found[key], self.found[other]
        return better(one.median(metric), two.median(others or metric), metric or one.main)


def better(value: float, than: float, metric: str) -> float:
    """How many times better one value is: above 1 is better."""
    if not value or not than:
        return math.nan
    return than / value if lower_is_better(metric) else value / than


def number(value: float) -> str:
    """A number as people read it: three digits or more that count."""
    if math.isnan(value):
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.4f}"


def head(facts: Mapping[str, Any], *reps: int) -> str:
    """Machine and settings, in three lines."""
    pg = facts["postgres"]
    on = ", ".join(f"{name} {pg[name]}" for name in pg if name != "server_version")
    return (
        f"{facts['at']}  Kairos {facts['kairos']} {facts['commit']}  Python {facts['python']}  "
        f"PostgreSQL {pg['server_version']} ({on})\n"
        f"{facts['cpus']} x {facts['cpu']}, {facts['memory_gb']} GB, {facts['system']}, "
        f"fdatasync of 8 kB {facts['fdatasync_us']} us; driver, workers and Postgres share it\n"
        f"median of {' or '.join(map(str, reps))} (lowest - highest), each on a fresh database"
    )


def table(results: Results, baseline: Results | None = None) -> str:
    """What was measured, one line a case; `baseline` adds how many times better it is than that one."""
    rows = [["", "", "", "" if baseline is None else "vs baseline", "also"]]
    for key, result in results.found.items():
        low, high = result.spread()
        main = f"{number(result.median())} {result.main}"
        versus = "" if baseline is None else _versus(key, result, baseline)
        rows.append([key, result.title, f"{main} ({number(low)} - {number(high)})", versus, _others(result)])
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4]]) for row in rows)


def ratios(results: Results) -> list[str]:
    """What follows from the cases together; leaves out what was not measured."""
    found = results.found
    pairs = [
        ("W1, one by one, by the prototype (asyncpg, uvloop)", "w1-1", "limit-prototype-asyncpg"),
        ("W1, one by one, by the prototype (psycopg, as Kairos)", "w1-1", "limit-prototype"),
        ("W1, two workers by one", "w1-2", "w1-1"),
        ("W2 by five bare flushes", "w2", "limit-flush"),
        ("W4 by the prototype's W1 (asyncpg, uvloop)", "w4", "limit-prototype-asyncpg"),
    ]
    lines = []
    for title, one, other in pairs:
        if one in found and other in found:
            ratio = found[one].median() / found[other].median()
            lines.append(f"{title}: {number(ratio / 5 if 'five' in title else ratio)}")
    if "w1-1" in found and "w1-ten" in found:
        for metric in ("WAL B/step", "worker us/step", "postgres us/step"):
            more = (found["w1-ten"].median(metric) * 10 - found["w1-1"].median(metric) * 5) / 5
            lines.append(f"one more step of W1 (ten by five), {metric}: {number(more)}")
    return lines


def _versus(key: str, result: Result, baseline: Results) -> str:
    then = baseline.found.get(key)
    if then is None:
        return "-"
    note = "" if then.options == result.options else " (other sizes)"
    return f"x{better(result.median(), then.median(), result.main):.2f}{note}"


def _others(result: Result) -> str:
    names = dict.fromkeys(name for rep in result.reps for name in rep if name != result.main)
    return ", ".join(f"{number(result.median(name))} {name}" for name in names)


# -- the document ------------------------------------------------------------------------------------------


def markdown(results: Results, groups: Mapping[str, Sequence[str]]) -> str:
    """The measured part of docs/performance.md: a table per group of cases, then the peers."""
    if not results.found:
        return "Nothing has been measured yet."
    facts = next(iter(results.found.values())).facts
    reps = {len(result.reps) for result in results.found.values()}
    parts = ["```\n" + head(facts, *sorted(reps)) + "\n```"]
    times = sorted({result.facts["at"] for result in results.found.values()})
    if len(times) > 1:
        parts.append(
            f"Of {len(times)} bench runs, from {times[0]} to {times[-1]}: "
            "ratios between cases of different runs are rough."
        )
    for title, keys in groups.items():
        rows = [_markdown_row(key, results.found[key]) for key in keys if key in results.found]
        if rows:
            parts.append(
                f"### {title}\n\n| case | median (lowest - highest) | also |\n|---|---|---|\n" + "\n".join(rows)
            )
    if lines := ratios(results):
        parts.append("### Ratios\n\n" + "\n".join(f"- {line}" for line in lines))
    if peers := peer_table(results):
        parts.append(f"### Kairos and its peers\n\n{peers}")
    return "\n\n".join(parts)


def _markdown_row(key: str, result: Result) -> str:
    low, high = result.spread()
    main = f"**{number(result.median())}** {result.main} ({number(low)} - {number(high)})"
    return f"| {result.title} | {main} | {_others(result)} |"


COMPARED = [
    ("W1 one by one", "w1", "steps/s", "w1-1"),
    ("W1 in bulk", "w1", "steps/s", "w1-bulk-1"),
    ("W2", "w2", "p50 ms", "w2"),
    ("W3", "w3", "p50 ms", "w3"),
    ("W4", "w4", "steps/s", "w4"),
    ("W5 drain", "w5", "drained/s", "w5"),
    ("W5 enqueue", "w5", "enqueued/s", "w5"),
    ("W5 enqueue", "w5", "bulk enqueued/s", "w5-bulk"),
]
"""Title, workload of the peers, metric, case of Kairos. No peer starts workflows in bulk: W1 stands there twice."""


def peer_table(results: Results) -> str:
    """Peers down, workloads across: the peer's median and how many times better Kairos is. Empty without both."""
    found = results.found
    peers = dict.fromkeys(key.split("-")[1] for key in found if key.startswith("peer-"))
    cells: dict[str, list[str]] = {"": [], "---": [], "**Kairos**": [], **{peer: [] for peer in peers}}
    for title, workload, metric, ours in COMPARED:
        theirs = {peer: found[key].median(metric) for peer in peers if (key := f"peer-{peer}-{workload}") in found}
        if ours not in found or all(math.isnan(value) for value in theirs.values()):
            continue
        mine = found[ours].median(metric)
        cells[""].append(f"{title}, {metric}")
        cells["---"].append("---")
        cells["**Kairos**"].append(f"**{number(mine)}**")
        for peer in peers:
            value = theirs.get(peer, math.nan)
            shown = "" if math.isnan(value) else f"{number(value)} (x{number(better(mine, value, metric))})"
            cells[peer].append(shown)
    if not cells[""]:
        return ""
    return "\n".join(f"| {' | '.join([name, *row])} |" for name, row in cells.items())


def write_document(path: Path, text: str) -> None:
    """Put `text` between the marks of the document.

    Raises:
        ValueError: the marks are not there.
    """
    document = path.read_text("utf-8")
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no marks {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")
