"""What the peers' modules share: the task, the counters, waiting. Needs psycopg only, and nothing of Kairos."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg

from bench import processes
from bench.meter import Meter

WARM_UP = 50
SUBMITTERS = 8
"""Threads that submit one by one, each with a connection of its own."""


@dataclass(frozen=True)
class Task:
    """What to do. `role` is `measure`, or what a worker process is to be."""

    workload: str
    runs: int = 1000
    jobs: int = 10_000
    latencies: int = 200
    role: str = "measure"
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def given(cls) -> Task:
        """The task of the command line."""
        return cls(**json.loads(sys.argv[1]))


def dsn() -> str:
    """The fresh database, as a URL."""
    return os.environ["BENCH_DSN"]


@contextmanager
def workers(module: str, task: Task, *roles: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Worker processes of these roles; ready when they have said a line."""
    commands = [
        [sys.executable, "-m", f"bench.peers.{module}", json.dumps({**asdict(task), "role": role})] for role in roles
    ]
    with processes.running(*commands) as started:
        processes.wait_ready(started)
        yield started


def say_ready() -> None:
    """Tell the measuring process that this worker begins to work."""
    print("ready", flush=True)


@contextmanager
def watch() -> Iterator[psycopg.Connection[Any]]:
    """An autocommit connection to look with."""
    with psycopg.connect(dsn(), autocommit=True) as conn:
        yield conn


def meter(conn: psycopg.Connection[Any], started: Sequence[subprocess.Popen[str]]) -> Meter:
    """Counters for these workers."""
    return Meter(conn, int(os.environ["BENCH_POSTMASTER"]), [process.pid for process in started])


def count(conn: psycopg.Connection[Any], query: str) -> int:
    """The number that a query returns."""
    row = conn.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def submit(total: int, connect: Callable[[], Callable[[int], Any]]) -> float:
    """Call what `connect` returns for 0 to `total` - 1, from `SUBMITTERS` threads; returns the seconds."""
    errors: list[BaseException] = []

    def go(first: int, call: Callable[[int], Any]) -> None:
        try:
            for number in range(first, total, SUBMITTERS):
                call(number)
        except BaseException as exc:
            errors.append(exc)

    calls = [connect() for _ in range(SUBMITTERS)]
    threads = [threading.Thread(target=go, args=(i, call)) for i, call in enumerate(calls)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return time.perf_counter() - began


def drain(
    conn: psycopg.Connection[Any], started: Sequence[subprocess.Popen[str]], left: Callable[[], int], jobs: int
) -> dict[str, float]:
    """From the first job that is seen done until none is left; those done at first are not counted."""
    processes.wait_until(lambda: left() < jobs, "the first job is done", pause=0.002)
    taken = meter(conn, started).begin()
    remaining = left()
    processes.wait_until(lambda: left() == 0, "all jobs are done", timeout=240)
    taken.end()
    return {"drained/s": remaining / taken.seconds, **taken.costs(max(1, remaining), "job")}


def quantiles(times: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile of seconds, in milliseconds."""
    ordered = sorted(times)
    return {"p50 ms": statistics.median(ordered) * 1e3, "p95 ms": ordered[int(len(ordered) * 0.95)] * 1e3}


def main(
    roles: Mapping[str, Callable[[Task], Any]], workloads: Mapping[str, Callable[[Task], dict[str, float]]]
) -> None:
    """Do the task: be a worker, or measure and print one JSON object."""
    task = Task.given()
    if task.role != "measure":
        roles[task.role](task)
        return
    processes.terminate_on_sigterm()
    found = workloads[task.workload](task)
    print(json.dumps(found), flush=True)
