"""What is sent per step or per claim reaches its rows by run id or by queue, however many old runs there are.

Every statement of `history.sql` and `work.sql` counts as hot unless it stands in `RARE`: a new one is looked at
without being named here.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from kairos.store.partitions import AHEAD, Range, id_at, list_partitions, run_ddl, time_of
from kairos.store.queries import parse, query
from tests.conftest import Server

RARE = {
    "register_worker": "once per process",
    "set_worker_state": "once per process",
    "bury_worker": "once per death",
    "prune_workers": "now and then",
}
"""Statements that are sent once in the life of a worker, or less, and why they need not be quick."""

SMALL = ("worker", "definition")
"""One row per process or per version: reading them whole is right."""

GENERIC = ("flush", "flush_skipping_locked", "start_runs", "put_blobs", "find_keys")
"""Sent over sessions that plan once, for any values. All others are planned by psycopg's and Postgres' usual
rules: anew until a plan for any values is no worse."""

KEYS: Mapping[str, tuple[str, ...]] = {
    "run": ("id",),
    "event": ("run_id",),
    "task": ("run_id", "queue", "worker", "expires_at"),
    "run_key": ("key",),
    "failure": ("run_id",),
    "blob": ("sha256",),
    "imported_run": ("run_id",),
    "fork": ("run_id", "parent_id"),
}
"""What an index must be entered by. A task is found by its run, by its queue (the shard of those who wait), by who
holds it, or because its time is up. The index of what is held is as large as the slots of all workers: it may be
read whole."""


def statements() -> dict[str, str]:
    folder = resources.files("kairos.store").joinpath("sql")
    found: dict[str, str] = {}
    for name in ("history.sql", "work.sql"):
        found |= parse(folder.joinpath(name).read_text("utf-8"), name)
    return {name: text for name, text in found.items() if name not in RARE}


@dataclass
class Crowd:
    """A database with many old runs, few of which go on."""

    dsn: str
    ids: list[uuid.UUID]


def fill(conn: psycopg.Connection[Any], runs: int, per_run: int, going: int) -> None:
    """Old runs over some months in partitions of a week; one in `going` goes on, in one of 21 queues."""
    now = time.time()
    week = 7 * 86400
    present = list_partitions(conn)[0].range
    assert present is not None
    high = time_of(present.low)
    for n in range(8):
        low, end = high.timestamp() - (n + 1) * week, high.timestamp() - n * week
        range_ = Range(
            id_at(type(high).fromtimestamp(low, high.tzinfo)), id_at(type(high).fromtimestamp(end, high.tzinfo))
        )
        run_ddl(conn, query("create_partition"), f"event_w{n}")
        run_ddl(conn, query("attach_partition"), f"event_w{n}", range_)
    conn.execute(
        "insert into kairos.run select (lpad(to_hex((%s * 1000)::bigint - n::bigint * %s), 12, '0') || '7abc8' ||"
        " substr(md5(n::text), 1, 15))::uuid, now(), 'w' || n %% 5, 'f', 'q' || n %% 21, 5, 'k' || n, null, 0, %s,"
        " '\\x00', case when n %% %s = 0 then 'RUNNING' else 'DONE' end from generate_series(1, %s) n",
        (now, int((now - high.timestamp() + 8 * week) * 1000 / runs), per_run, going, runs),
    )
    for statement in (
        f"insert into kairos.event select id, s, 'step_done', now(), 's', 1, 1, sha256('x'), sha256('y')"
        f" from kairos.run, generate_series(1, {per_run}) s",
        "insert into kairos.task (run_id, workflow, fingerprint, queue, priority, ready_at, expires_at, worker)"
        " select id, workflow, fingerprint, queue, priority, created_at,"
        " case when key like '%3' then now() + interval '1 day' end,"
        " case when key like '%7' then '00000000-0000-0000-0000-000000000001'::uuid end"
        " from kairos.run where status = 'RUNNING'",
        "insert into kairos.run_key select workflow, key, id, '' from kairos.run",
        "insert into kairos.failure select id, now(), workflow, 'FAILED', null, 'e', 'g' from kairos.run limit 1000",
        # So many that PostgreSQL 14 to 16, which count a descent for each digest, find the index cheaper too.
        "insert into kairos.blob select sha256(n::text::bytea), 'x' from generate_series(1, 100000) n",
        "insert into kairos.worker select gen_random_uuid(), 'n', 'h', 1, 'a', 'v', '{q1}', '{f}', 1, now(), now(),"
        " now() + interval '1 day' from generate_series(1, 20)",
        # As autovacuum does it: tables that nobody has written to are left alone.
        "analyze kairos.run, kairos.task, kairos.run_key, kairos.failure, kairos.blob, kairos.worker",
    ):
        conn.execute(statement)
    for (part,) in conn.execute("select distinct tableoid::regclass::text from kairos.event").fetchall():
        conn.execute(f"analyze {part}")


def crowd_of(server: Server, template: str, runs: int, per_run: int, going: int) -> Iterator[Crowd]:
    dsn = make_conninfo(server.admin, dbname="kairos_crowd")
    with psycopg.connect(make_conninfo(server.admin, dbname="postgres"), autocommit=True) as admin:
        admin.execute("drop database if exists kairos_crowd with (force)")
        admin.execute(f"create database kairos_crowd template {template}")
        with psycopg.connect(dsn, autocommit=True) as conn:
            fill(conn, runs, per_run, going)
            ids = [row[0] for row in conn.execute("select run_id from kairos.task limit 100")]
        yield Crowd(dsn, ids)
        admin.execute("drop database kairos_crowd with (force)")


@pytest.fixture(scope="module")
def crowd(server: Server, template: str) -> Iterator[Crowd]:
    yield from crowd_of(server, template, 30_000, 3, going=6)


@pytest.fixture(scope="module")
def multitude(server: Server, template: str) -> Iterator[Crowd]:
    yield from crowd_of(server, template, 200_000, 4, going=40)


def plan(conn: psycopg.Connection[Any], crowd: Crowd, name: str, text: str) -> dict[str, Any]:
    """The plan of a statement, with values as a worker would send them."""
    types: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        types.setdefault(match[1], match[2])
        return f"${list(types).index(match[1]) + 1}"

    text = re.sub(r"%\((\w+)\)[sb]::([a-z_]+(?: precision)?(?:\[\])?)", number, text).replace("%%", "%")
    conn.execute(f"set plan_cache_mode = {'force_generic_plan' if name in GENERIC else 'force_custom_plan'}")
    conn.execute(f"prepare x ({', '.join(types.values())}) as {text}" if types else f"prepare x as {text}")
    given = ", ".join(value(parameter, kind, crowd) for parameter, kind in types.items())
    row = conn.execute(f"explain (format json) execute x ({given})" if types else "explain (format json) execute x")
    found = (row.fetchone() or ({},))[0]
    conn.execute("deallocate x")
    return dict(found[0]["Plan"])


def value(parameter: str, kind: str, crowd: Crowd) -> str:
    """A literal such as a worker sends."""
    if parameter == "worker":
        return "'00000000-0000-0000-0000-000000000001'"
    some = {
        "uuid": f"'{crowd.ids[0]}'",
        "integer": "100",
        "bigint": "1",
        "smallint": "5",
        "double precision": "15",
        "boolean": "true",
        "timestamptz": "now()",
        "bytea": "sha256('1')",
        "jsonb": "'{}'",
        "text": {"queue": "'q1'", "fingerprint": "'f'"}.get(parameter, "''"),
    }
    if not kind.endswith("[]"):
        return some[kind]
    if kind == "uuid[]":
        return "array[" + ", ".join(f"'{i}'" for i in crowd.ids) + "]::uuid[]"
    items = {"queues": "'q1', 'q2'", "fingerprints": "'f'"}.get(parameter)
    return f"array[{items or ', '.join([some[kind[:-2]]] * len(crowd.ids))}]::{kind}"


def scans(node: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(kind of node, table, condition by which an index is entered) of all that reads a table."""
    if "Relation Name" in node and node["Node Type"] != "ModifyTable":
        table = "event" if node["Relation Name"].startswith("event") else node["Relation Name"]
        inner = node.get("Plans", [{}])[0] if node["Node Type"] == "Bitmap Heap Scan" else node
        yield node["Node Type"], table, inner.get("Index Cond", "") + inner.get("Index Name", "")
    for child in node.get("Plans", []):
        yield from scans(child)


def complaints(found: dict[str, Any]) -> list[str]:
    wrong = []
    for kind, table, entered_by in scans(found):
        if table in SMALL:
            continue
        if kind == "Seq Scan":
            wrong.append(f"reads the whole of {table}")
        elif entered_by != "task_held" and not any(re.search(rf"\b{key}\b", entered_by) for key in KEYS[table]):
            wrong.append(f"enters {table} by {entered_by!r}")
    return wrong


@pytest.mark.parametrize("name", statements())
def test_a_hot_statement_reaches_its_rows_by_run_or_by_queue(crowd: Crowd, name: str) -> None:
    with psycopg.connect(crowd.dsn, autocommit=True) as conn:
        assert complaints(plan(conn, crowd, name, statements()[name])) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", statements())
def test_it_is_the_same_with_two_hundred_thousand_old_runs(multitude: Crowd, name: str) -> None:
    with psycopg.connect(multitude.dsn, autocommit=True) as conn:
        assert complaints(plan(conn, multitude, name, statements()[name])) == []


PAGES = {
    name: text
    for file in ("aggregates.sql", "lists.sql")
    for name, text in parse(resources.files("kairos.store").joinpath("sql", file).read_text("utf-8"), file).items()
}


@pytest.mark.parametrize("name", PAGES)
def test_what_pages_count_and_list_never_reads_the_whole_log(crowd: Crowd, name: str) -> None:
    with psycopg.connect(crowd.dsn, autocommit=True) as conn:
        conn.execute("set enable_seqscan = off")
        found = complaints(plan(conn, crowd, name, PAGES[name]))
        assert not [complaint for complaint in found if "event" in complaint]


def test_events_of_one_run_are_looked_for_in_one_partition(crowd: Crowd) -> None:
    with psycopg.connect(crowd.dsn, autocommit=True) as conn:
        assert len(list_partitions(conn)) > AHEAD + 8
        for mode in ("force_custom_plan", "force_generic_plan"):
            conn.execute(f"set plan_cache_mode = {mode}")
            conn.execute("prepare x (uuid) as select * from kairos.event e where e.run_id = $1 order by e.seq")
            row = conn.execute(f"explain (analyze, format json) execute x ('{crowd.ids[0]}')").fetchone()
            assert row is not None
            assert len(list(scans(row[0][0]["Plan"]))) == 1
            conn.execute("deallocate x")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("select * from kairos.event e where e.kind = 'step_failed'", "reads the whole of event"),
        ("select count(*) from kairos.run r where r.status = 'RUNNING'", "reads the whole of run"),
        ("select * from kairos.run r where r.workflow = 'w1' order by r.id limit 5", "enters run by"),
        ("select * from kairos.task t where t.ready_at < now()", "reads the whole of task"),
    ],
)
def test_a_statement_that_reads_more_than_it_needs_is_noticed(crowd: Crowd, text: str, complaint: str) -> None:
    with psycopg.connect(crowd.dsn, autocommit=True) as conn:
        assert any(c.startswith(complaint) for c in complaints(plan(conn, crowd, "x", text)))
