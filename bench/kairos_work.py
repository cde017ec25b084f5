"""W1 to W5 on Kairos: each function takes a fresh database, measures once and returns its metrics."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from bench import processes
from bench.flows import RECORD, chain, chain10, job, pickup
from bench.meter import Meter
from bench.plan import Metrics, Options
from bench.server import Place, Server
from kairos import AsyncClient
from kairos.authoring import Workflow

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 50
"""Runs before the clock starts, for every engine alike."""
POLLED = 30
"""Pickups without NOTIFY: each takes a good part of the poll interval."""


@contextmanager
def workers(
    place: Place, count: int, options: Options, app: str = "bench.flows:app"
) -> Iterator[list[subprocess.Popen[str]]]:
    """Worker processes that are ready."""
    command = [sys.executable, "-m", "bench.worker", app, options.concurrency, options.profile, options.runs_per_flush]
    with processes.running(*[command] * count, env={"BENCH_DSN": place.dsn}, cwd=ROOT) as started:
        processes.wait_ready(started)
        yield started


def w1(
    server: Server, options: Options, *, count: int = 1, is_bulk: bool = False, flow: Workflow = chain, runs: int = 0
) -> Metrics:
    """Chains, from the first start to the last run known to be done."""
    runs, length = runs or options.runs, len(flow.steps)
    with server.fresh() as place, workers(place, count, options) as started, place.watch() as conn:
        meter = Meter(conn, place.postmaster, [p.pid for p in started])
        starting = asyncio.run(timed_chains(place, meter, flow, runs, is_bulk=is_bulk))
        require_done(conn, runs + WARM_UP)
        found = conflicts(conn)
    steps = runs * length
    return {"steps/s": steps / meter.seconds, "starts/s": runs / starting, **meter.costs(steps), **found}


async def timed_chains(place: Place, meter: Meter, flow: Workflow, runs: int, *, is_bulk: bool) -> float:
    """Warm up, then start the runs and wait for all of them under the meter; returns the seconds of the starts."""
    async with AsyncClient(place.dsn) as client:
        await warm_up(client, flow)
        meter.begin()
        began = time.perf_counter()
        if is_bulk:
            made = await client.start_many(flow, [RECORD] * runs)
        else:
            made = list(await asyncio.gather(*(client.start(flow, RECORD) for _ in range(runs))))
        starting = time.perf_counter() - began
        await asyncio.gather(*(run.wait(120) for run in made))
        meter.end()
        for run in made[:: max(1, runs // 10)]:
            output = await run.result(10)
            assert output["id"] == len(flow.steps), output
    return starting


async def warm_up(client: AsyncClient, flow: Workflow) -> None:
    """Let everybody open connections, plan statements and load definitions."""
    made = await asyncio.gather(*(client.start(flow, RECORD) for _ in range(WARM_UP)))
    await asyncio.gather(*(run.wait(60) for run in made))


def require_done(conn: psycopg.Connection[Any], runs: int) -> None:
    """Raise unless there are exactly so many runs, and all are DONE."""
    found = dict(conn.execute("select status, count(*) from kairos.run group by status").fetchall())
    if found != {"DONE": runs}:
        raise AssertionError(f"{runs} runs should be DONE; there are {found}")


def conflicts(conn: psycopg.Connection[Any]) -> Metrics:
    """How often workers were in each other's way: runs that were claimed again, as a share of all."""
    row = conn.execute("select sum(epoch - 1)::float8 / count(*) from kairos.run").fetchone()
    assert row is not None
    return {"reclaims/run": float(row[0])}


def w2(server: Server, options: Options) -> Metrics:
    """One chain at a time on an idle system, from the start to its output."""

    async def one(client: AsyncClient) -> float:
        began = time.perf_counter()
        await (await client.start(chain, RECORD)).result(30)
        return time.perf_counter() - began

    return _latencies(server, options, one, options.latencies)


def w3(server: Server, options: Options) -> Metrics:
    """One job at a time on an idle system, from before the enqueue to the begin of its body."""
    return _latencies(server, options, _pick_up, options.latencies)


def w3_polling(server: Server, options: Options) -> Metrics:
    """As `w3` with NOTIFY off: the worker polls."""

    async def one(client: AsyncClient) -> float:
        await asyncio.sleep(random.uniform(0, 0.5))  # else each enqueue follows right upon a look at the queue
        return await _pick_up(client)

    before = os.environ.get("KAIROS_NOTIFY")
    os.environ["KAIROS_NOTIFY"] = "off"
    try:
        return _latencies(server, options, one, min(POLLED, options.latencies), warm=3)
    finally:
        os.environ.pop("KAIROS_NOTIFY") if before is None else os.environ.update(KAIROS_NOTIFY=before)


async def _pick_up(client: AsyncClient) -> float:
    return float(await (await client.start(pickup, {"t": time.time()})).result(30))


def _latencies(
    server: Server, options: Options, one: Callable[[AsyncClient], Any], count: int, warm: int = 20
) -> Metrics:
    with server.fresh() as place, workers(place, 1, options) as started, place.watch() as conn:
        meter = Meter(conn, place.postmaster, [p.pid for p in started])

        async def measure() -> list[float]:
            times = []
            async with AsyncClient(place.dsn) as client:
                for number in range(warm + count):
                    if number == warm:
                        meter.begin()
                    times.append(await one(client))
                    await asyncio.sleep(random.uniform(0.002, 0.006))
                meter.end()
            return times[warm:]

        times = asyncio.run(measure())
        require_done(conn, warm + count)
    return {**quantiles(times), "commits/run": meter.commits / count}


def quantiles(times: Sequence[float]) -> Metrics:
    """Median and 95th percentile of seconds, in milliseconds."""
    ordered = sorted(times)
    return {"p50 ms": statistics.median(ordered) * 1e3, "p95 ms": ordered[int(len(ordered) * 0.95)] * 1e3}


def w4(server: Server, options: Options) -> Metrics:
    """One run of 1,000 parallel steps and a join, from its start to its end; five such, one after the other."""
    from bench.wide import WIDTH, fan

    with (
        server.fresh() as place,
        workers(place, 1, options, "bench.wide:app") as started,
        place.watch() as conn,
    ):
        meter = Meter(conn, place.postmaster, [p.pid for p in started])

        async def measure() -> None:
            async with AsyncClient(place.dsn) as client:
                await (await client.start(fan, RECORD)).wait(60)
                meter.begin()
                for _ in range(5):
                    await (await client.start(fan, RECORD)).wait(60)
                meter.end()

        asyncio.run(measure())
        require_done(conn, 6)
    steps = 5 * (WIDTH + 1)
    return {"steps/s": steps / meter.seconds, **meter.costs(steps)}


def w5(server: Server, options: Options, *, is_bulk: bool = False, count: int = 1) -> Metrics:
    """Jobs: all enqueued while no worker runs, then drained. A job counts when its end is committed.

    The clock of the drain starts when the first are seen done, and they are not counted, as for the peers.
    """
    jobs = options.jobs
    with server.fresh() as place, place.watch() as conn:
        enqueueing = asyncio.run(_enqueue(place, jobs, 0 if is_bulk else options.callers))

        def done() -> int:
            row = conn.execute("select count(*) from kairos.run where status = 'DONE'").fetchone()
            return int(row[0]) if row else 0

        with workers(place, count, options) as started:
            meter = Meter(conn, place.postmaster, [p.pid for p in started])
            processes.wait_until(lambda: done() > 0, "the first job is done", pause=0.002)
            meter.begin()
            before = done()
            processes.wait_until(lambda: done() >= jobs, "all jobs are done")
            meter.end()
        require_done(conn, jobs)
    drained = max(1, jobs - before)
    how = "bulk enqueued/s" if is_bulk else "enqueued/s"
    return {"drained/s": drained / meter.seconds, how: jobs / enqueueing, **meter.costs(drained, "job")}


async def _enqueue(place: Place, jobs: int, callers: int) -> float:
    """Seconds to start so many jobs: one by one by `callers` concurrent callers, or at once if 0."""
    async with AsyncClient(place.dsn) as client:
        await client.start_many(job, [])
        inputs = [{"t": 0.0}] * jobs

        async def caller(number: int) -> None:
            for one in inputs[number::callers]:
                await client.start(job, one)

        began = time.perf_counter()
        if callers:
            await asyncio.gather(*(caller(number) for number in range(callers)))
        else:
            await client.start_many(job, inputs)
        return time.perf_counter() - began


def w1_ten(server: Server, options: Options) -> Metrics:
    """W1 with ten steps: against five it shows what one more step costs."""
    return w1(server, options, flow=chain10)
