"""The attainable limit: group commit without an engine. `python -m bench.prototype RUNS psycopg|asyncpg`,
the database in BENCH_DSN (a URL).

Chains of five, like W1: each run is submitted by a transaction of its own (8 connections), runs are claimed in
batches, every step that finished since the last commit goes into one statement (at most 100), and a step starts when
its input is durable. No types, retries, timers, leases, fencing, hash chain or start events: what an engine costs on
top of this is its own. Prints one JSON object. Needs psycopg or asyncpg; takes orjson and uvloop where installed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench.record import RECORD, step

STEPS, MAX_BATCH, SUBMITTERS = 5, 100, 8

SCHEMA = """
create table run (id bigint generated always as identity primary key, status smallint not null default 0,
                  pos integer not null default 0, owner integer, wf text not null, input bytea not null, output bytea,
                  created timestamptz default now(), updated timestamptz) with (fillfactor = 70);
create index run_ready on run (id) where status = 0;
create table event (id bigint generated always as identity primary key, run_id bigint not null, seq integer not null,
                    kind smallint not null, step text, at timestamptz not null default now(), payload bytea,
                    unique (run_id, seq));
"""
SUBMIT = """
with i as (insert into run (wf, input) values ('chain', $1::bytea) returning id, input)
insert into event (run_id, seq, kind, payload) select id, 0, 0, input from i
"""
CLAIM = """
with c as (select id from run where status = 0 order by id limit $1::integer for update skip locked)
update run set status = 1, owner = 1 from c where run.id = c.id returning run.id, run.input
"""
FLUSH = """
with e as (
    insert into event (run_id, seq, kind, step, payload)
    select * from unnest($1::bigint[], $2::integer[], $3::smallint[], $4::text[], $5::bytea[])
), moved as (
    update run set pos = u.pos, updated = now() from unnest($6::bigint[], $7::integer[]) as u (id, pos)
    where run.id = u.id
)
update run set status = 2, pos = 5, output = u.output, updated = now()
from unnest($8::bigint[], $9::bytea[]) as u (id, output) where run.id = u.id
"""
_STEP_DONE, _RUN_DONE = 2, 3

try:
    import orjson

    dumps: Any = orjson.dumps
    loads: Any = orjson.loads
except ImportError:

    def dumps(value: Any) -> bytes:
        return json.dumps(value, separators=(",", ":")).encode()

    loads = json.loads


class Psycopg:
    """A connection by psycopg."""

    def __init__(self, conn: Any, cursor: Any) -> None:
        self._conn, self._cursor = conn, cursor

    @classmethod
    async def open(cls, dsn: str) -> Psycopg:
        """Connect."""
        import psycopg

        conn = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        cursor = psycopg.AsyncRawCursor(conn)
        cursor.format = psycopg.pq.Format.BINARY
        return cls(conn, cursor)

    async def fetch(self, statement: str, *values: Any) -> list[Any]:
        """Run one statement, with $1 and so on; without values it may be several."""
        if not values:
            await self._conn.execute(statement)
            return []
        await self._cursor.execute(statement, values, prepare=True)
        return list(await self._cursor.fetchall()) if self._cursor.description else []

    async def close(self) -> None:
        """Disconnect."""
        await self._conn.close()


class Asyncpg:
    """A connection by asyncpg."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    @classmethod
    async def open(cls, dsn: str) -> Asyncpg:
        """Connect."""
        return cls(await importlib.import_module("asyncpg").connect(dsn))

    async def fetch(self, statement: str, *values: Any) -> Any:
        """As of `Psycopg`."""
        return await (self._conn.fetch(statement, *values) if values else self._conn.execute(statement))

    async def close(self) -> None:
        """Disconnect."""
        await self._conn.close()


class Engine:
    """Moves claimed runs forward; one flush after the other."""

    def __init__(self, db: Any) -> None:
        self.db, self.left, self.flushes = db, 0, 0
        self.finished: list[tuple[int, int, bytes]] = []
        self.wake, self.done = asyncio.Event(), asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def begin(self, run: int, position: int, payload: bytes) -> None:
        """Run one step."""
        task = asyncio.create_task(self._run(run, position, payload))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, run: int, position: int, payload: bytes) -> None:
        self.finished.append((run, position, dumps(step(loads(payload)))))
        self.wake.set()

    async def flush_forever(self) -> None:
        """Commit what has finished, then start what follows."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            while self.finished:
                batch, self.finished = self.finished[:MAX_BATCH], self.finished[MAX_BATCH:]
                await self.db.fetch(FLUSH, *_columns(batch))
                self.flushes += 1
                for run, position, payload in batch:
                    if position < STEPS - 1:
                        self.begin(run, position + 1, payload)
                    else:
                        self.left -= 1
                if not self.left:
                    self.done.set()


def _columns(batch: Sequence[tuple[int, int, bytes]]) -> list[list[Any]]:
    events: list[tuple[int, int, int, str | None, bytes | None]] = []
    moved: list[tuple[int, int]] = []
    ended: list[tuple[int, bytes]] = []
    for run, position, payload in batch:
        events.append((run, position + 1, _STEP_DONE, f"s{position}", payload))
        if position < STEPS - 1:
            moved.append((run, position + 1))
        else:
            events.append((run, position + 2, _RUN_DONE, None, None))
            ended.append((run, payload))
    ids, seqs, kinds, steps, payloads = (list(column) for column in zip(*events, strict=True))
    return [
        ids, seqs, kinds, steps, payloads,
        [m[0] for m in moved], [m[1] for m in moved], [e[0] for e in ended], [e[1] for e in ended],
    ]  # fmt: skip


async def measure(kind: Any, dsn: str, runs: int) -> dict[str, float]:
    """Submit and work in one process, as the reference for W1."""
    db = await kind.open(dsn)
    await db.fetch(SCHEMA)
    submitters = [await kind.open(dsn) for _ in range(SUBMITTERS)]
    await _once(db, submitters, 50)
    cpu, began = time.process_time(), time.perf_counter()
    submitted, engine = await _once(db, submitters, runs)
    took = time.perf_counter() - began
    cpu = time.process_time() - cpu
    rows = await db.fetch("select count(*) from run where status = 2 and pos = $1::integer", STEPS)
    assert rows[0][0] == runs + 50, rows
    for one in (db, *submitters):
        await one.close()
    return {
        "steps/s": runs * STEPS / took,
        "starts/s": runs / (submitted - began),
        "worker us/step": cpu * 1e6 / (runs * STEPS),
        "commits/step": (engine.flushes + runs) / (runs * STEPS),
    }


async def _once(db: Any, submitters: Sequence[Any], runs: int) -> tuple[float, Engine]:
    body = dumps(RECORD)

    async def submit(number: int) -> None:
        for _ in range(number, runs, SUBMITTERS):
            await submitters[number].fetch(SUBMIT, body)

    await asyncio.gather(*(submit(number) for number in range(SUBMITTERS)))
    submitted = time.perf_counter()
    engine = Engine(db)
    engine.left = runs
    # Claimed before the flusher uses the connection.
    claimed: list[Any] = []
    while len(claimed) < runs:
        claimed += await db.fetch(CLAIM, 500)
    flusher = asyncio.create_task(engine.flush_forever())
    for row in claimed:
        engine.begin(row[0], 0, bytes(row[1]))
    waiter = asyncio.create_task(engine.done.wait())
    await asyncio.wait([waiter, flusher], return_when=asyncio.FIRST_COMPLETED)
    if flusher.done():
        flusher.result()
    flusher.cancel()
    return submitted, engine


def main(runs: str, driver: str) -> None:
    """See the module."""
    kind = {"psycopg": Psycopg, "asyncpg": Asyncpg}[driver]
    try:
        run = importlib.import_module("uvloop").run if driver == "asyncpg" else asyncio.run
    except ImportError:
        run = asyncio.run
    print(json.dumps(run(measure(kind, os.environ["BENCH_DSN"], int(runs)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
