"""What a load takes of Postgres and of workers, by the costs that were measured: `python -m bench.capacity --help`.

A model, not a measurement: costs of CPU and WAL come from `bench/baseline.json` (W1 with five and with ten steps tells
apart what a run and what a step costs), bytes on disk were measured once (below), and all else is arithmetic. What is
assumed and was never measured stands in `ASSUMED`, and is printed with the result.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from kairos.domain.duration import parse_duration
from kairos.domain.payload import INLINE_MAX
from kairos.store.partitions import AHEAD, width_for

BASELINE = Path(__file__).parent / "baseline.json"
DAY = 86_400

# Measured: 1,000 runs of W1 (13,000 events of 124 bytes of body) took 253 bytes of table and 55 of index per event, and
# 516 bytes per head with its indexes.
EVENT_BYTES = 253 - 124 + 55
STEP_BODIES = 33 + 33
RUN_BODIES = 57 + 110
HEAD_BYTES = 516
MEASURED_PAYLOAD = 180
"""Bytes of input and output in W1."""

ASSUMED = {
    "busy": 0.6,  # share of a core that may be in use at the peak
    "blob_us": 50.0,  # CPU of Postgres for a payload that does not fit into its event
    "wal_per_payload_byte": 1.0,
}
"""Not measured."""
CONNECTIONS = 4
"""Of one worker process: flusher, work, listener, heart. A client has at most three."""


@dataclass(frozen=True)
class Cost:
    """CPU in microseconds, and bytes of WAL."""

    postgres: float
    worker: float
    wal: float


@dataclass(frozen=True)
class Load:
    """What is asked for. `peak`: how much busier the busiest time is than the mean. `retention`: None is for ever."""

    runs_per_day: float
    steps: int
    payload: int = MEASURED_PAYLOAD
    peak: float = 3.0
    retention: timedelta | None = timedelta(days=30)


@dataclass(frozen=True)
class Need:
    """What it takes. `cores` at the peak, at the share of use in `ASSUMED`; disk without WAL and backups."""

    runs_per_s: float
    steps_per_s: float
    postgres_cores: float
    worker_cores: float
    worker_processes: int
    connections: int
    wal_mb_per_s: float
    wal_gb_per_day: float
    disk_gb_per_day: float
    disk_gb: float | None
    partition_days: float
    partitions: int
    gb_per_partition: float


def measured(baseline: Mapping[str, Any]) -> tuple[Cost, Cost]:
    """What a run costs beside its steps, and what a step costs."""

    def of(case: str, what: str) -> float:
        return float(statistics.median(rep[what] for rep in baseline[case]["reps"]))

    def split(what: str) -> tuple[float, float]:
        five, ten = 5 * of("w1-1", what), 10 * of("w1-ten", what)
        step = (ten - five) / 5
        if 0 < step <= five / 5:
            return five - 5 * step, step
        return 0.0, (five + ten) / 15  # the difference is lost in the noise

    parts = [split(what) for what in ("postgres us/step", "worker us/step", "WAL B/step")]
    return Cost(*(run for run, _ in parts)), Cost(*(step for _, step in parts))


def need(load: Load, run: Cost, step: Cost) -> Need:
    """What this load takes."""
    runs = load.runs_per_day / DAY
    is_blob = load.payload > INLINE_MAX
    blob_us = ASSUMED["blob_us"] * (load.steps + 1) if is_blob else 0.0
    more = (load.payload - MEASURED_PAYLOAD) * (load.steps + 1)

    def cores(us_per_run: float) -> float:
        return runs * load.peak * us_per_run / 1e6 / ASSUMED["busy"]

    wal = run.wal + load.steps * step.wal + max(more, -MEASURED_PAYLOAD) * ASSUMED["wal_per_payload_byte"]
    disk = HEAD_BYTES + 3 * EVENT_BYTES + RUN_BODIES + load.steps * (2 * EVENT_BYTES + STEP_BODIES)
    disk += load.payload * (load.steps + 1)
    width = width_for(load.retention) / timedelta(days=1)
    kept = None if load.retention is None else load.retention / timedelta(days=1)
    # What is kept, the part of a partition by which runs go late, the present one and those that are made ahead.
    partitions = math.ceil((365 if kept is None else kept) / width) + 1 + AHEAD
    worker_cores = cores(run.worker + load.steps * step.worker)
    processes = max(1, math.ceil(worker_cores))
    per_day = runs * DAY * disk / 1e9
    return Need(
        runs_per_s=runs * load.peak,
        steps_per_s=runs * load.peak * load.steps,
        postgres_cores=cores(run.postgres + load.steps * step.postgres + blob_us),
        worker_cores=worker_cores,
        worker_processes=processes,
        connections=processes * CONNECTIONS,
        wal_mb_per_s=runs * load.peak * wal / 1e6,
        wal_gb_per_day=runs * DAY * wal / 1e9,
        disk_gb_per_day=per_day,
        disk_gb=None if kept is None else per_day * (kept + width),
        partition_days=width,
        partitions=partitions,
        gb_per_partition=per_day * width,
    )


def report(load: Load, found: Need, run: Cost, step: Cost) -> str:
    """As text."""
    kept = "for ever" if load.retention is None else f"{load.retention / timedelta(days=1):g} days"
    disk = "grows for ever" if found.disk_gb is None else f"{found.disk_gb:,.1f} GB"
    year = " after a year" if load.retention is None else ""
    return "\n".join(
        (
            f"load        {load.runs_per_day:,.0f} runs a day of {load.steps} steps, {load.payload:,} bytes each, "
            f"peak {load.peak:g} times the mean, kept {kept}",
            f"at the peak {found.runs_per_s:,.1f} runs/s, {found.steps_per_s:,.1f} steps/s",
            f"postgres    {found.postgres_cores:.2f} cores  "
            f"({run.postgres:.0f} us a run, {step.postgres:.0f} us a step)",
            f"workers     {found.worker_cores:.2f} cores, {found.worker_processes} worker processes  "
            f"({run.worker:.0f} us a run, {step.worker:.0f} us a step, without the bodies)",
            f"connections {found.connections} of workers, up to 3 for each client",
            f"WAL         {found.wal_mb_per_s:.2f} MB/s at the peak, {found.wal_gb_per_day:,.2f} GB a day",
            f"disk        {found.disk_gb_per_day:,.2f} GB a day, {disk}",
            f"partitions  {found.partitions}{year}, of {found.partition_days:g} days and "
            f"{found.gb_per_partition:,.1f} GB each",
            "assumed     " + ", ".join(f"{name} {value:g}" for name, value in ASSUMED.items()) + " (not measured)",
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what a load takes."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("--runs-per-day", type=float, required=True)
    parser.add_argument("--steps", type=int, default=5, help="steps of a run (default 5)")
    parser.add_argument("--payload", type=int, default=MEASURED_PAYLOAD, help="bytes of the input and of each output")
    parser.add_argument("--peak", type=float, default=3.0, help="the busiest time by the mean (default 3)")
    parser.add_argument("--retention", default="30d", help="30d, 12h, ... or `forever` (default 30d)")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    retention = None if given.retention == "forever" else parse_duration(given.retention)
    load = Load(given.runs_per_day, given.steps, given.payload, given.peak, retention)
    run, step = measured(json.loads(BASELINE.read_text("utf-8")))
    found = need(load, run, step)
    print(json.dumps(asdict(found), indent=2) if given.json else report(load, found, run, step))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
