"""References measured in the same bench run: what this machine and this Postgres can do at all."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from bench import processes
from bench.meter import Meter
from bench.plan import Metrics, Options
from bench.server import Place, Server

ROOT = Path(__file__).resolve().parents[1]
_BODY = b"x" * 300
_ROWS = """
create table event (run_id uuid not null, seq integer not null, kind text not null,
                    at timestamptz not null default clock_timestamp(), hash bytea not null, body bytea not null,
                    primary key (run_id, seq))
"""
_HEAD = "create table head (id integer primary key, seq integer not null, hash bytea not null) with (fillfactor = 50)"
_INSERT = """
insert into event (run_id, seq, kind, hash, body)
select r, s, 'step_done', h, b from unnest(%b::uuid[], %b::int4[], %b::bytea[], %b::bytea[]) as u (r, s, h, b)
"""
_FLUSH = """
with u as (update head set seq = seq + 2, hash = %(hash)b::bytea where id = 1 returning seq)
insert into event (run_id, seq, kind, hash, body)
select %(run)b::uuid, u.seq + n, 'step_done', %(hash)b::bytea, %(body)b::bytea from u, generate_series(0, 1) as n
"""


def insert_rate(server: Server, options: Options, *, batch: int = 100, seconds: float = 1.5) -> Metrics:
    """Event rows per second, `batch` to a statement and commit, on one connection."""
    with server.fresh(with_schema=False) as place, place.watch() as conn:
        conn.execute(_ROWS)
        return {"rows/s": rows_per_second(conn, batch, seconds)}


def rows_per_second(conn: psycopg.Connection[Any], batch: int, seconds: float) -> float:
    """Insert batches into `event`, made by `_ROWS`, for so long."""
    written, began, hashes, bodies = 0, time.perf_counter(), [b"h" * 32] * batch, [_BODY] * batch
    while True:
        runs = [uuid4() for _ in range(batch)]
        for seq in range(5):
            conn.execute(_INSERT, (runs, [seq] * batch, hashes, bodies), prepare=True)
            written += batch
            if (took := time.perf_counter() - began) > seconds:
                return written / took


def bare_flush(server: Server, options: Options) -> Metrics:
    """One statement that moves one head and adds two events, committed: the floor under any durable step."""
    with server.fresh(with_schema=False) as place, place.watch() as conn:
        conn.execute(_ROWS)
        conn.execute(_HEAD)
        conn.execute("insert into head values (1, 0, '')")
        times, params = [], {"hash": b"h" * 32, "run": uuid4(), "body": _BODY}
        meter = Meter(conn, place.postmaster)
        for number in range(550):
            if number == 50:
                meter.begin()
            began = time.perf_counter()
            conn.execute(_FLUSH, params, prepare=True)
            times.append((time.perf_counter() - began) * 1e3)
        meter.end()
        ordered = sorted(times[50:])
        return {"p50 ms": statistics.median(ordered), "p95 ms": ordered[475], "WAL B/flush": meter.wal / 500}


def prototype(server: Server, options: Options, *, driver: str = "psycopg") -> Metrics:
    """The like-for-like prototype in a process of its own."""
    python = Path(sys.executable) if driver == "psycopg" else options.environments / "peers" / "bin" / "python"
    with server.fresh(with_schema=False) as place:
        return run_json([python, "-m", "bench.prototype", options.runs, driver], place)


def run_json(
    command: list[object], place: Place, timeout: float = 120.0, env: Mapping[str, str] | None = None
) -> Metrics:
    """Run a measuring process to its end; its last line is a JSON object. Raises RuntimeError if it fails."""
    ours = {"PYTHONPATH": str(ROOT), "BENCH_DSN": place.url, "BENCH_POSTMASTER": str(place.postmaster)}
    with processes.running(command, env={**ours, **(env or {})}, cwd=ROOT, patience=20.0) as (process,):
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{' '.join(map(str, command[1:]))} did not end within {timeout:g} s") from None
        if process.returncode:
            raise RuntimeError(f"{' '.join(map(str, command[1:]))} failed, exit code {process.returncode}:\n{said}")
    found: Metrics = json.loads(said.splitlines()[-1])
    return found
