"""Runs W1 (throughput of chains) and W2 (latency of one chain) and prints medians."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from bench.flows import RECORD, chain
from kairos import AsyncClient
from kairos.database import Database


def workers(dsn: str, count: int) -> list[subprocess.Popen[str]]:
    """Start worker processes and wait until they are ready."""
    env = {**os.environ, "BENCH_DSN": dsn}
    started = [
        subprocess.Popen([sys.executable, "-m", "bench.worker"], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    return started


def stop(processes: list[subprocess.Popen[str]]) -> float:
    """Stop the workers; returns the CPU seconds they used."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def counters(conn: psycopg.Connection[Any]) -> tuple[int, int]:
    """WAL bytes and commits so far."""
    conn.execute("select pg_stat_force_next_flush()")
    row = conn.execute(
        "select pg_current_wal_insert_lsn() - '0/0'::pg_lsn, xact_commit from pg_stat_database "
        "where datname = current_database()"
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


async def w1(dsn: str, admin: str, runs: int, count: int, bulk: bool) -> dict[str, float]:
    """Chains of five, from the first start to the last result."""
    processes = workers(dsn, count)
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute("checkpoint")
        async with AsyncClient(dsn) as client:
            await (await client.start(chain, RECORD)).wait(30)
            wal, commits = counters(conn)
            mine = time.process_time()
            began = time.perf_counter()
            if bulk:
                started = await client.start_many(chain, [RECORD] * runs)
            else:
                started = await asyncio.gather(*(client.start(chain, RECORD) for _ in range(runs)))
            all_started = time.perf_counter() - began
            await asyncio.gather(*(run.wait(120) for run in started))
            took = time.perf_counter() - began
            mine = time.process_time() - mine
            await asyncio.sleep(0.3)
            wal_after, commits_after = counters(conn)
    cpu = stop(processes)
    steps = runs * 5
    return {
        "steps/s": steps / took,
        "starts/s": runs / all_started,
        "WAL B/step": (wal_after - wal) / steps,
        "commits/step": (commits_after - commits) / steps,
        "worker us/step": cpu * 1e6 / steps,
        "driver us/step": mine * 1e6 / steps,
    }


async def w2(dsn: str, admin: str, runs: int) -> dict[str, float]:
    """One chain at a time on an idle system."""
    processes = workers(dsn, 1)
    times = []
    with psycopg.connect(admin, autocommit=True) as conn:
        async with AsyncClient(dsn) as client:
            for i in range(runs + 10):
                if i == 10:
                    _, commits = counters(conn)
                began = time.perf_counter()
                await (await client.start(chain, RECORD)).result(30)
                times.append((time.perf_counter() - began) * 1e3)
                await asyncio.sleep(0.003)
            _, after = counters(conn)
    stop(processes)
    times = sorted(times[10:])
    return {"p50 ms": statistics.median(times), "p95 ms": times[int(len(times) * 0.95)],
            "commits/run": (after - commits) / runs}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", default="w1,w1bulk,w2")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kairos-bench-"))
    results: dict[str, Any] = {}
    try:
        with Database(data_dir=folder / "data") as database:
            for name in args.only.split(","):
                rows = []
                for _ in range(args.reps):
                    if name == "w2":
                        rows.append(asyncio.run(w2(database.dsn, database.admin_dsn, min(args.runs, 200))))
                    else:
                        bulk = name == "w1bulk"
                        rows.append(asyncio.run(w1(database.dsn, database.admin_dsn, args.runs, args.workers, bulk)))
                results[name] = {
                    key: [statistics.median(r[key] for r in rows), min(r[key] for r in rows), max(r[key] for r in rows)]
                    for key in rows[0]
                }
                print(name, "  ".join(f"{k} {v[0]:,.1f} ({v[1]:,.1f}-{v[2]:,.1f})" for k, v in results[name].items()))
    finally:
        from kairos import embedded

        embedded.stop(folder / "data", force=True)
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
