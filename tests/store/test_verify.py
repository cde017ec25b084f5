"""Whatever is changed behind Kairos' back, verify names it, and the first event concerned."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

import kairos
from kairos.store.connect import Session
from kairos.store.verify import Report, Verifier
from tests.conftest import TestDatabase
from tests.engine.harness import working

app = kairos.App("v")
wf = app.workflow("two", input=str)


@wf.step
async def one(input: str) -> str:
    return input


@wf.step
async def two(one: str) -> str:
    return one


async def _finished(database: TestDatabase) -> kairos.AsyncRun:
    async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
        run = await client.start(wf, "x" * 3000)
        await run.wait(10)
        return run


async def _check(database: TestDatabase, run: kairos.AsyncRun | None = None) -> Report:
    session = Session(database.dsn, "verify")
    verifier = Verifier(session)
    try:
        if run is not None:
            return await verifier.one(run.info.id)
        async for _ in verifier.every():
            pass
        return verifier.report
    finally:
        await session.close()


def test_an_untouched_run_is_clean(database: TestDatabase) -> None:
    async def main() -> None:
        run = await _finished(database)
        for report in (await _check(database), await _check(database, run)):
            assert (report.is_clean, report.runs, report.events) == (True, 1, 7)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("tampering", "check", "seq"),
    [
        ("update kairos.event set body = convert_to(replace(convert_from(body, 'UTF8'), 'duration', 'd'), 'UTF8')"
         " where seq = 4", "chain", 4),
        ("update kairos.event set at = at + interval '1 microsecond' where seq = 3", "chain", 3),
        ("update kairos.event set token = 9 where seq = 6", "chain", 6),
        ("update kairos.event set step = 'one' where seq = 5", "chain", 5),
        ("delete from kairos.event where seq = 5", "gap", 5),
        ("delete from kairos.event where seq = 7", "truncated", 7),
        ("update kairos.event set seq = case seq when 4 then 104 else 105 end where seq in (4, 5);"
         "update kairos.event set seq = case seq when 104 then 5 else 4 end where seq > 100", "reordered", 4),
        ("insert into kairos.event select run_id, 8, kind, at, step, attempt, token, hash, body from kairos.event"
         " where seq = 4", "chain", 8),
        ("delete from kairos.run", "orphan", None),
        ("update kairos.run set last_seq = 6", "beyond_head", 7),
        ("update kairos.run set head_hash = sha256('x')", "head_hash", 7),
        ("update kairos.run set status = 'FAILED'", "projection", None),
        ("update kairos.run set status = 'RUNNING'", "projection", None),
        ("update kairos.run set workflow = 'other'", "projection", None),
        ("update kairos.run set priority = 1", "projection", None),
        ("update kairos.blob set data = 'y'", "blob", 1),
        ("delete from kairos.blob", "blob", 1),
        ("update kairos.definition set body = convert_to(replace(convert_from(body, 'UTF8'), 'crash_limit\":3',"
         " 'crash_limit\":4'), 'UTF8')", "definition", None),
        ("insert into kairos.failure values ((select id from kairos.run), now(), 'two', 'FAILED', null, 'e', 'g')",
         "failure", None),
        ("insert into kairos.task select id, '', workflow, fingerprint, queue, priority, now() from kairos.run",
         "task", None),
    ],
)  # fmt: skip
def test_tampering_is_named_with_its_first_event(
    database: TestDatabase, tampering: str, check: str, seq: int | None
) -> None:
    async def main() -> None:
        await _finished(database)
        with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
            conn.execute("set session_replication_role = replica")  # past the trigger that refuses all this
            for statement in tampering.split(";"):
                conn.execute(statement)
        report = await _check(database)
        assert (check, seq) in {(p.code, p.seq) for p in report.problems}

    asyncio.run(main())


def test_a_run_that_waits_is_clean_and_one_without_a_task_is_not(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client:
        client.start(wf, "x")
    assert asyncio.run(_check(database)).is_clean
    with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        conn.execute("delete from kairos.task")
    report = asyncio.run(_check(database))
    assert [p.code for p in report.problems] == ["task"]
