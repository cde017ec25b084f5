"""A transactional step's writes and its completion commit together: both or neither."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import psycopg
import pytest

import kairos
from tests.conftest import TestDatabase
from tests.engine.harness import kinds, of_kind, until, working

app = kairos.App("bank")
transfer = app.workflow("transfer", input=int)
QUICK = kairos.Retry(attempts=3, base="10ms", jitter=0)
gate = threading.Event()


@transfer.step(retry=QUICK)
def debit(input: int, conn: psycopg.Connection[Any], ctx: kairos.StepContext) -> str:
    conn.execute("insert into entry (run, what, amount) values (%s, 'debit', %s)", (ctx.run_id, -input))
    if ctx.attempt == 1:
        raise RuntimeError("after the write")
    return "debited"


@transfer.step(retry=QUICK)
async def credit(debit: str, input: int, conn: psycopg.AsyncConnection[Any], ctx: kairos.StepContext) -> str:
    await conn.execute("insert into entry (run, what, amount) values (%s, 'credit', %s)", (ctx.run_id, input))
    if ctx.attempt == 1:
        await conn.execute("select 1 / 0")
    return "credited"


@app.job(retry=kairos.Retry(attempts=1))
def slow_write(conn: psycopg.Connection[Any], ctx: kairos.StepContext) -> None:
    conn.execute("insert into entry (run, what, amount) values (%s, 'slow', 0)", (ctx.run_id,))
    gate.wait(30)


@app.job(retry=kairos.Retry(attempts=1))
def commits_by_itself(conn: psycopg.Connection[Any]) -> None:
    conn.commit()


@app.job(retry=kairos.Retry(attempts=1))
async def breaks_a_deferred_rule(conn: psycopg.AsyncConnection[Any], ctx: kairos.StepContext) -> None:
    await conn.execute("insert into rule values (1), (1)")


@pytest.fixture
def bank(database: TestDatabase) -> TestDatabase:
    with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        conn.execute("create table entry (run text, what text, amount int)")
        conn.execute("create table rule (n int unique deferrable initially deferred)")
        conn.execute("grant all on entry, rule to public")
    gate.clear()
    return database


def test_failed_attempts_leave_nothing_and_the_good_one_leaves_everything_once(bank: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, bank.dsn), kairos.AsyncClient(bank.dsn) as client:
            runs = await client.start_many(transfer, list(range(1, 21)))
            for run in runs:
                assert await run.result(60) == "credited"
                assert (await kinds(client, run)).count("step_done") == 2

    asyncio.run(main())
    assert bank.fetch("select count(*), sum(amount), count(distinct (run, what)) from entry") == [(40, 0, 40)]


def test_a_worker_that_was_fenced_meanwhile_writes_nothing(bank: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, bank.dsn) as (worker,), kairos.AsyncClient(bank.dsn) as client:
            run = await client.start(slow_write)
            await until(lambda: worker.office.slots.taken == 1)
            await until(lambda: bank.fetch("select count(*) from kairos.event where kind = 'step_started'") == [(1,)])
            with psycopg.connect(bank.admin_dsn, autocommit=True) as conn:
                conn.execute("update kairos.run set epoch = epoch + 1")
            gate.set()
            await until(lambda: worker.office.slots.taken == 0)
            assert "step_done" not in await kinds(client, run)

    asyncio.run(main())
    assert bank.fetch("select count(*) from entry") == [(0,)]


def test_the_body_cannot_commit_on_its_own(bank: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, bank.dsn), kairos.AsyncClient(bank.dsn) as client:
            run = await (await client.start(commits_by_itself)).wait(20)
            (failed,) = await of_kind(client, run, "step_failed")
            assert "commit" in failed.error.message  # type: ignore[union-attr]

    asyncio.run(main())


def test_a_rule_checked_at_commit_fails_the_step_with_its_message(bank: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, bank.dsn), kairos.AsyncClient(bank.dsn) as client:
            run = await (await client.start(breaks_a_deferred_rule)).wait(20)
            (failed,) = await of_kind(client, run, "step_failed")
            assert "rule_n_key" in failed.error.message  # type: ignore[union-attr]
            assert run.status == "FAILED"

    asyncio.run(main())
    assert bank.fetch("select count(*) from rule") == [(0,)]


def test_the_connection_must_fit_the_function() -> None:
    other = kairos.App("other")
    with pytest.raises(kairos.DefinitionError, match=r"psycopg\.Connection"):

        @other.job
        def plain(conn: psycopg.AsyncConnection[Any]) -> None: ...


def test_inline_a_transactional_step_uses_the_connection_it_is_given(bank: TestDatabase) -> None:
    with pytest.raises(kairos.RunFailed, match="transactional"):
        transfer.run_inline(5)
    only = kairos.App("x")
    wf = only.workflow("only")

    @wf.step
    def write(conn: psycopg.Connection[Any]) -> int:
        conn.execute("insert into entry values ('inline', 'x', 1)")
        return 1

    with psycopg.connect(bank.dsn) as conn:
        assert wf.run_inline(connection=conn) == 1
        conn.rollback()
    assert bank.fetch("select count(*) from entry") == [(0,)]
