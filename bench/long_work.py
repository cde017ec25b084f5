"""W6 to W9: payloads, long runs, many processes, a soak. They take minutes: only when asked for."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import psycopg

from bench import kairos_work
from bench.flows import RECORD, chain, heavy
from bench.kairos_work import quantiles, require_done, workers
from bench.meter import Meter, tree_cpu
from bench.plan import Metrics, Options
from bench.server import Place, Server
from kairos import AsyncClient

WINDOW = 500
"""Steps over which the cost at a point of a long run is taken."""


def payloads(server: Server, options: Options, *, size: int, runs: int) -> Metrics:
    """W6: runs of four steps, each output new and as long as said; the next step gets it."""
    with server.fresh() as place, workers(place, 1, options) as started, place.watch() as conn:
        meter = Meter(conn, place.postmaster, [p.pid for p in started])

        async def measure() -> None:
            async with AsyncClient(place.dsn) as client:
                await (await client.start(heavy, size)).wait(60)
                meter.begin()
                # A run in flight holds its payloads in memory, so the longer they are, the fewer at once.
                turns = asyncio.Semaphore(max(8, min(runs, 8_000_000 // size)))

                async def one() -> None:
                    async with turns:
                        await (await client.start(heavy, size)).wait(120)

                await asyncio.gather(*(one() for _ in range(runs)))
                meter.end()

        stored = _stored(conn)
        asyncio.run(measure())
        stored = _stored(conn) - stored
        require_done(conn, runs + 1)
    steps = 4 * runs
    return {
        "MB/s": steps * size / 1e6 / meter.seconds,
        "steps/s": steps / meter.seconds,
        "stored B/step": stored / (steps + 4),
        **meter.costs(steps),
    }


def _stored(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute(
        "select sum(pg_total_relation_size(c.oid))::bigint from pg_class c "
        "join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'kairos' and c.relkind = 'r'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def long_run(server: Server, options: Options) -> Metrics:
    """W7: what a step costs at the beginning, at step 1,000 and at step 10,000 of one run."""
    from bench.long import LENGTH, longest

    with (
        server.fresh() as place,
        workers(place, 1, options, "bench.long:app") as started,
        place.watch() as conn,
    ):
        samples: list[tuple[int, float, float, float]] = []

        async def measure() -> None:
            async with AsyncClient(place.dsn) as client:
                run = await client.start(longest, RECORD)
                while not samples or samples[-1][0] < LENGTH:
                    samples.append((_steps_done(conn, run.id), time.perf_counter(), tree_cpu(started[0].pid),
                                    tree_cpu(place.postmaster)))  # fmt: skip
                    await asyncio.sleep(0.02)
                await run.wait(60)

        asyncio.run(measure())
    found: Metrics = {}
    for name, at in (("10", 10), ("1,000", 1000), ("10,000", LENGTH)):
        low, high = _around(samples, at, LENGTH)
        steps = max(1, high[0] - low[0])
        found[f"us/step at {name}"] = (high[1] - low[1]) * 1e6 / steps
        found[f"worker us at {name}"] = (high[2] - low[2]) * 1e6 / steps
        found[f"postgres us at {name}"] = (high[3] - low[3]) * 1e6 / steps
    found["growth"] = found["us/step at 10,000"] / found["us/step at 1,000"]
    return found


def _steps_done(conn: psycopg.Connection[Any], run: str) -> int:
    # Scheduled, claimed, and for each step its start and its end.
    row = conn.execute("select last_seq from kairos.run where id = %s", (run,)).fetchone()
    assert row is not None
    return max(0, (int(row[0]) - 2) // 2)


def _around(samples: list[tuple[int, float, float, float]], at: int, length: int) -> tuple[Any, Any]:
    """The samples nearest to the ends of a window of steps around `at`."""
    low = max(1, min(at, length) - WINDOW // 2)
    low = min(low, length - WINDOW)
    nearest = [min(samples, key=lambda sample: abs(sample[0] - edge)) for edge in (low, low + WINDOW)]
    return nearest[0], nearest[1]


def past_states(server: Server, options: Options) -> Metrics:
    """W7: `client.state(run, at=)` at event 10, 1,000 and 100,000 of one run."""
    from bench.long import talk

    with server.fresh() as place, workers(place, 1, options, "bench.long:app"):

        async def measure() -> Metrics:
            found: Metrics = {}
            async with AsyncClient(place.dsn) as client:
                run = await client.start(talk, RECORD)
                await run.wait(300)
                for name, at, tries in (("10", 10, 20), ("1,000", 1000, 20), ("100,000", 100_000, 3)):
                    times = []
                    for _ in range(tries):
                        began = time.perf_counter()
                        state = await client.state(run.id, at=at)
                        times.append((time.perf_counter() - began) * 1e3)
                        assert state.seq == at, state.seq
                    found[f"ms at {name}"] = statistics.median(times)
            return found

        return asyncio.run(measure())


def scaling(server: Server, options: Options, *, count: int) -> Metrics:
    """W8: W1 with so many processes and five times the runs; how often they were in each other's way."""
    runs = options.runs * 5
    with server.fresh() as place, workers(place, count, options) as started, place.watch() as conn:
        meter = Meter(conn, place.postmaster, [p.pid for p in started])
        asyncio.run(kairos_work.timed_chains(place, meter, chain, runs, is_bulk=True))
        require_done(conn, runs + kairos_work.WARM_UP)
        conflicts = kairos_work.conflicts(conn)
        stale = sum(_counted(process)["stale"] for process in started)
    steps = runs * 5
    return {"steps/s": steps / meter.seconds, "stale writes/run": stale / runs, **conflicts, **meter.costs(steps)}


def _counted(process: subprocess.Popen[str]) -> dict[str, int]:
    """What a worker counted; stops it."""
    process.terminate()
    assert process.stdout is not None
    found: dict[str, int] = json.loads(process.stdout.read().splitlines()[-1])
    return found


def soak(server: Server, options: Options) -> Metrics:
    """W9: half load for minutes on top of many old events. Compares the last third with the first.

    The old events are written by the engine itself. Progress goes to standard error, once per tenth.
    """
    with server.fresh() as place, workers(place, 1, options) as started, place.watch() as conn:
        return asyncio.run(_soak(place, conn, options, [p.pid for p in started]))


async def _soak(place: Place, conn: psycopg.Connection[Any], options: Options, pids: list[int]) -> Metrics:
    async with AsyncClient(place.dsn) as client:
        began = time.perf_counter()
        filled = 0
        while _count(conn, "select count(*) from kairos.event") < options.old_events:
            made = await client.start_many(chain, [RECORD] * 2000)
            await asyncio.gather(*(run.wait(120) for run in made))
            filled += len(made)
        if filled:
            rate = filled / (time.perf_counter() - began) / 2
        else:
            rate = await _half_of_capacity(client)
        print(f"  w9: {filled:,} old runs; now {rate:,.0f} runs/s", file=sys.stderr, flush=True)
        conn.execute("checkpoint")
        tenths: list[Metrics] = []
        for number in range(10):
            tenths.append(await _drive(client, rate, options.minutes * 6))
            tenths[-1] |= {f"MB {k}": v for k, v in _sizes(conn).items()} | {
                f"dead {k}": v for k, v in _dead(conn).items()
            }
            said = ", ".join(f"{key} {value:,.1f}" for key, value in tenths[-1].items())
            print(f"  w9 {number + 1}/10: {said}", file=sys.stderr, flush=True)
    early, late = tenths[:3], tenths[-3:]

    def middle(part: list[Metrics], metric: str) -> float:
        return statistics.median(one[metric] for one in part)

    last = tenths[-1]
    return {
        "runs/s": middle(late, "runs/s"),
        "asked runs/s": rate,
        "p50 ms": middle(late, "p50 ms"),
        "p95 ms": middle(late, "p95 ms"),
        "p95 late by early": middle(late, "p95 ms") / middle(early, "p95 ms"),
        "rate late by early": middle(late, "runs/s") / middle(early, "runs/s"),
        **{key: value for key, value in last.items() if key.startswith(("MB ", "dead "))},
        **{f"{key} after 1/10": tenths[0][key] for key in ("MB run", "MB task")},
    }


async def _half_of_capacity(client: AsyncClient) -> float:
    began = time.perf_counter()
    made = await client.start_many(chain, [RECORD] * 2000)
    await asyncio.gather(*(run.wait(120) for run in made))
    return 2000 / (time.perf_counter() - began) / 2


async def _drive(client: AsyncClient, rate: float, seconds: float) -> Metrics:
    """Start runs at an even pace, whether or not the last ones have ended."""
    times: list[float] = []

    async def one() -> None:
        began = time.perf_counter()
        await (await client.start(chain, RECORD)).wait(120)
        times.append(time.perf_counter() - began)

    began, tasks, started = time.perf_counter(), set[asyncio.Task[None]](), 0
    while (passed := time.perf_counter() - began) < seconds:
        for _ in range(int(passed * rate) - started):
            started += 1
            task = asyncio.create_task(one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)
    return {"runs/s": len(times) / (time.perf_counter() - began), **quantiles(times)}


def _count(conn: psycopg.Connection[Any], query: str) -> int:
    row = conn.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _sizes(conn: psycopg.Connection[Any]) -> Metrics:
    # The log lies in partitions, named after it.
    rows = conn.execute(
        "select split_part(relname, '_', 1), sum(pg_total_relation_size(relid)) / 1e6 from pg_stat_user_tables "
        "where schemaname = 'kairos' and relname ~ '^(run|task|event(_.*)?)$' group by 1"
    )
    return {str(name): float(size) for name, size in rows.fetchall()}


def _dead(conn: psycopg.Connection[Any]) -> Metrics:
    rows = conn.execute(
        "select relname, n_dead_tup from pg_stat_user_tables where schemaname = 'kairos' and relname in ('run', 'task')"
    )
    return {str(name): float(dead) for name, dead in rows.fetchall()}
