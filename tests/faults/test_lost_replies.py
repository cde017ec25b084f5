"""The server did it, and its answer never came: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import psycopg
import pytest

import kairos
from kairos.client.starting import new_run_id
from tests.conftest import TestDatabase
from tests.engine.harness import kinds, until, working
from tests.faults import workload
from tests.faults.ledger import VARIABLE, Ledger
from tests.faults.proxy import ChaosProxy
from tests.faults.support import fetch, verdict


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "ledger"))
    return Ledger(tmp_path / "ledger")


@pytest.mark.parametrize("is_answered", [True, False], ids=["after it was done", "while it was being done"])
def test_a_start_whose_answer_is_lost_makes_one_run(database: TestDatabase, is_answered: bool) -> None:
    async def main() -> None:
        with ChaosProxy(database.dsn) as proxy:
            async with kairos.AsyncClient(proxy.dsn) as client:
                for n in range(10):
                    rule = proxy.lose_replies(b'"trigger":"client"', app="kairos starter", is_answered=is_answered)
                    run_id = str(new_run_id())
                    run = await client.start(workload.quick, {"n": n}, run_id=run_id, key=f"key {n}")
                    assert run.id == run_id
                    assert rule.cuts == 1
                    again = await client.start(workload.quick, {"n": n}, key=f"key {n}")
                    assert again.id == run_id

    asyncio.run(main())
    assert database.fetch("select count(*) from kairos.run") == [(10,)]
    verdict(database.admin_dsn, all_ended=False)


CASES = {
    "the flush of a start": (b"step_started", "kairos flusher"),
    "the flush of an end": (b"step_done", "kairos flusher"),
    "the flush of the last event": (b"run_done", "kairos flusher"),
    "the commit of a failed run": (b"COMMIT", "kairos flusher"),
    "a claim": (workload.diamond.fingerprint.encode(), "kairos worker"),
}


@pytest.mark.parametrize("is_answered", [True, False], ids=["after it was done", "while it was being done"])
@pytest.mark.parametrize("what", CASES)
def test_a_worker_goes_on_when_the_answer_is_lost_to(
    database: TestDatabase, ledger: Ledger, what: str, is_answered: bool
) -> None:
    needle, app = CASES[what]
    rounds = 10 if is_answered else 3

    async def main() -> None:
        with ChaosProxy(database.dsn) as proxy:
            async with working(workload.app, proxy.dsn), kairos.AsyncClient(database.dsn) as client:
                cuts = 0
                for n in range(rounds):
                    rule = proxy.lose_replies(needle, app=app, is_answered=is_answered)
                    diamond = await client.start(workload.diamond, n)
                    doomed = await client.start(workload.doomed, {"n": n})
                    assert await diamond.result(20) == workload.diamond_output(n)
                    await doomed.wait(20)
                    cuts += rule.cuts
                    rule.times = 0
                assert cuts == rounds, f"only {cuts} answers were lost"

    asyncio.run(main())
    verdict(database.admin_dsn, ledger)


@pytest.mark.parametrize("is_answered", [True, False], ids=["after it was done", "while it was being done"])
@pytest.mark.parametrize("who", ["owner", "helper"])
def test_on_the_slow_path_too_a_lost_commit_is_neither_lost_nor_repeated(
    database: TestDatabase, ledger: Ledger, who: str, is_answered: bool
) -> None:
    """The owner offers a step, a helper runs it: every append is a transaction with a COMMIT of its own."""

    async def main() -> None:
        with ChaosProxy(database.dsn) as proxy:
            own = proxy.dsn if who == "owner" else database.dsn
            help_ = proxy.dsn if who == "helper" else database.dsn
            async with (
                working(workload.app, own) as (owner,),
                working(workload.app, help_, queues=(workload.SIDE_QUEUE,)),
                kairos.AsyncClient(database.dsn) as client,
            ):
                for nth in range(10):
                    skip = iter([False] * (nth % 3))
                    rule = proxy.lose_replies(
                        b"COMMIT",
                        app="kairos worker",
                        is_answered=is_answered,
                        chance=lambda skip=skip: next(skip, True),
                    )
                    run = await client.start(workload.routed, f"round {nth}")
                    assert await run.result(20) == f"round {nth}", await kinds(client, run)
                    assert nth % 3 == 2 or rule.cuts == 1
                    rule.times = 0
                await until(lambda: owner.office.slots.taken == 0)

    asyncio.run(main())
    verdict(database.admin_dsn, ledger)


@pytest.mark.parametrize("is_answered", [True, False], ids=["after it was done", "while it was being done"])
def test_a_step_s_log_lines_and_numbers_are_recorded_once(database: TestDatabase, is_answered: bool) -> None:
    app = kairos.App("t")
    wf = app.workflow("wf")

    @wf.step
    async def near() -> int:
        return 1

    @wf.step(queue="side")
    async def far(near: int, ctx: kairos.StepContext) -> None:
        for n in range(5):
            ctx.emit("rows", n)
            await asyncio.sleep(0.01)

    async def main() -> None:
        with ChaosProxy(database.dsn) as proxy:
            async with (
                working(app, database.dsn),
                working(app, proxy.dsn, queues=("side",)),
                kairos.AsyncClient(database.dsn) as client,
            ):
                rule = proxy.lose_replies(b"COMMIT", app="kairos worker", times=5, is_answered=is_answered)
                run = await client.start(wf)
                await run.wait(20)
                assert rule.cuts
                assert Counter(await kinds(client, run))["metric_emitted"] == 5

    asyncio.run(main())
    verdict(database.admin_dsn)


def test_a_cancel_whose_commit_is_lost_is_one_cancel(database: TestDatabase) -> None:
    async def main() -> None:
        with ChaosProxy(database.dsn) as proxy:
            async with kairos.AsyncClient(proxy.dsn) as client:
                for n in range(10):
                    run = await client.start(workload.quick, {"n": n})
                    rule = proxy.lose_replies(b"COMMIT", app="kairos client")
                    assert await client.cancel(run.id) == "CANCELLED"
                    assert rule.cuts == 1

    asyncio.run(main())
    assert fetch(database.admin_dsn, "select status, count(*) from kairos.run group by 1") == [("CANCELLED", 10)]
    verdict(database.admin_dsn)


@pytest.mark.parametrize("is_answered", [True, False], ids=["after it was done", "while it was being done"])
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
def test_a_transactional_step_writes_once_though_the_answer_to_its_commit_is_lost(
    database: TestDatabase, is_answered: bool, is_async: bool
) -> None:
    fetch(database.admin_dsn, "create table public.paid (run text, step text)")
    fetch(database.admin_dsn, "grant all on public.paid to public")
    app = kairos.App("t")
    wf = app.workflow("pay", retry=workload.QUICK)
    insert = "insert into public.paid values (%s, %s)"

    if is_async:

        @wf.step
        async def pay(conn: psycopg.AsyncConnection, ctx: kairos.StepContext) -> str:
            await conn.execute(insert, (ctx.run_id, ctx.step))
            return "paid"
    else:

        @wf.step
        def pay(conn: psycopg.Connection, ctx: kairos.StepContext) -> str:
            conn.execute(insert, (ctx.run_id, ctx.step))
            return "paid"

    @wf.step
    async def thank(pay: str) -> str:
        return pay

    async def main() -> None:
        with ChaosProxy(database.dsn) as proxy:
            async with working(app, proxy.dsn), kairos.AsyncClient(database.dsn) as client:
                for _ in range(5):
                    rule = proxy.lose_replies(b"COMMIT", app="kairos step", is_answered=is_answered)
                    run = await client.start(wf)
                    assert await run.result(20) == "paid"
                    assert rule.cuts == 1

    asyncio.run(main())
    assert database.fetch("select count(*), count(distinct run) from public.paid") == [(5, 5)]
    verdict(database.admin_dsn)
