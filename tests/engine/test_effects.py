"""Effects in production: durable before the step goes on, given to the next attempt, wherever a step may run."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import kairos
from kairos.domain.events import EffectRecorded
from kairos.store.connect import Session
from kairos.store.verify import Verifier
from tests.conftest import TestDatabase
from tests.engine.harness import of_kind, until, working

QUICK = kairos.Retry(attempts=3, base="10ms", jitter=0)
app = kairos.App("effects")
made: Counter[str] = Counter()
gate, reached = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def _afresh() -> None:
    made.clear()
    gate.clear()
    reached.clear()


def make(what: str, size: int = 3) -> dict[str, Any]:
    made[what] += 1
    return {"what": what, "n": made[what], "text": "x" * size}


async def amake(what: str, size: int = 3) -> dict[str, Any]:
    await asyncio.sleep(0)
    return make(what, size)


def wait_for_gate(what: str) -> str:
    made[what] += 1
    reached.set()
    gate.wait(30)
    return what


@app.job(retry=QUICK)
def plain(ctx: kairos.StepContext) -> list[Any]:
    values = [ctx.call("a", make, "a"), ctx.call("big", make, "big", 5000), str(ctx.uuid()), ctx.now().isoformat()]
    with ThreadPoolExecutor(4) as pool:
        values += pool.map(lambda n: ctx.call(f"t{n}", make, f"t{n}"), range(4))
    if ctx.attempt < 3:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return values


@app.job(retry=QUICK)
async def later(ctx: kairos.StepContext) -> list[Any]:
    values = list(await asyncio.gather(*(ctx.call(f"n{n}", amake, f"n{n}") for n in range(8))))
    values += [await ctx.call("big", make, "big", 5000), str(ctx.uuid()), ctx.now().isoformat(), ctx.random()]
    if ctx.attempt < 3:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return values


@app.job(retry=QUICK)
def changes_its_mind(ctx: kairos.StepContext) -> int:
    ctx.call("charge", make, f"attempt {ctx.attempt}")
    raise ConnectionError("try again")


@app.job(retry=QUICK)
def transactional(conn: psycopg.Connection[Any], ctx: kairos.StepContext) -> str:
    conn.execute("insert into entry values (%s)", (ctx.call("charge", make, "charge")["n"],))
    ctx.now()
    if ctx.attempt == 1:
        raise RuntimeError("after the charge")
    return "done"


@app.job(retry=QUICK)
async def transactional_async(conn: psycopg.AsyncConnection[Any], ctx: kairos.StepContext) -> str:
    await conn.execute("insert into entry values (%s)", ((await ctx.call("charge", amake, "charge"))["n"],))
    ctx.now()
    if ctx.attempt == 1:
        raise RuntimeError("after the charge")
    return "done"


left: list[Any] = []


@app.job(retry=kairos.Retry(attempts=1))
def leaves_a_thread(ctx: kairos.StepContext) -> str:
    def linger() -> None:
        gate.wait(30)
        try:
            ctx.call("late", make, "late")
        except BaseException as exc:
            left.append(exc)

    threading.Thread(target=linger, daemon=True).start()
    return "done"


@app.job(retry=kairos.Retry(attempts=1), timeout="200ms")
def times_out(ctx: kairos.StepContext) -> None:
    ctx.now()
    try:
        ctx.call("first", wait_for_gate, "first")
    except BaseException as exc:
        left.append(exc)
        raise


split = app.workflow("split")


@split.step(queue="side", retry=QUICK)
def aside(ctx: kairos.StepContext) -> list[Any]:
    values = [ctx.call("a", make, "a"), ctx.call("big", make, "big", 5000), str(ctx.now())]
    if ctx.attempt == 1:
        raise ConnectionError("once")
    return values


@app.job(retry=kairos.Retry(attempts=1))
def holds(ctx: kairos.StepContext) -> str:
    first = ctx.call("first", wait_for_gate, "first")
    return first + str(ctx.call("second", wait_for_gate, "second"))


@app.job(retry=kairos.Retry(attempts=1))
async def aholds(ctx: kairos.StepContext) -> str:
    first = await ctx.call("first", wait_for_gate, "first")
    return first + str(await ctx.call("second", wait_for_gate, "second"))


@app.job
def many(count: int, ctx: kairos.StepContext) -> int:
    return sum(ctx.call("n", int, n) for n in range(count))


async def effects_of(client: kairos.AsyncClient, run: Any) -> list[EffectRecorded]:
    return [e for e in await of_kind(client, run, "effect_recorded") if isinstance(e, EffectRecorded)]


async def is_sound(dsn: str) -> None:
    session = Session(dsn, "kairos verify")
    try:
        problems = [str(p) async for report in Verifier(session).every() for p in report.problems]
    finally:
        await session.close()
    assert not problems, problems


@pytest.mark.parametrize("job", [plain, later], ids=["in a thread", "async"])
def test_three_attempts_have_each_effect_once(job: Any, database: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            run = await client.start(job)
            values = await run.result(30)
            recorded = await effects_of(client, run)
            assert set(made.values()) == {1}
            assert {(e.attempt, e.ordinal) for e in recorded} == {(1, 1)}
            assert next(v for v in values if isinstance(v, dict) and v["what"] == "big")["text"] == "x" * 5000
            (big,) = [e for e in recorded if e.name == "big"]
            assert big.result is not None
            assert big.result.sha256 is not None
            await is_sound(database.admin_dsn)

    asyncio.run(main())


def test_another_argument_than_recorded_fails_the_step_for_good(database: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            run = await (await client.start(changes_its_mind)).wait(30)
            state = await client.state(run.id)
            step = state.steps["changes_its_mind"]
            assert (run.status, step.failures) == ("FAILED", 2)
            assert step.error is not None
            assert step.error.type == "kairos.errors.EffectMismatch"
            assert "attempt 1" in step.error.message
            assert "attempt 2" in step.error.message

    asyncio.run(main())
    assert made == {"attempt 1": 1}


@pytest.mark.parametrize("job", [transactional, transactional_async], ids=["blocking", "async"])
def test_what_happened_in_the_world_stays_recorded_when_the_transaction_is_rolled_back(
    job: Any, database: TestDatabase
) -> None:
    with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        conn.execute("create table entry (n int)")
        conn.execute("grant all on entry to public")

    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            run = await client.start(job)
            assert await run.result(30) == "done"
            assert [(e.name, e.attempt) for e in await effects_of(client, run)] == [("charge", 1), ("now", 1)]
            await is_sound(database.admin_dsn)

    asyncio.run(main())
    assert made == {"charge": 1}
    assert database.fetch("select n from entry") == [(1,)]


def test_a_helper_records_too(database: TestDatabase) -> None:
    async def main() -> None:
        async with (
            working(app, database.dsn, queues=("default",)) as (owner,),
            working(app, database.dsn, queues=("side",)) as (helper,),
            kairos.AsyncClient(database.dsn) as client,
        ):
            owner.office.peers = helper.office.peers = 1
            run = await client.start(split)
            values = await run.result(30)
            assert values[0] == {"what": "a", "n": 1, "text": "xxx"}
            assert [(e.name, e.attempt) for e in await effects_of(client, run)] == [("a", 1), ("big", 1), ("now", 1)]
            await is_sound(database.admin_dsn)

    asyncio.run(main())
    assert made == {"a": 1, "big": 1}


@pytest.mark.parametrize("job", [holds, aholds], ids=["in a thread", "async"])
def test_a_worker_that_was_fenced_inside_of_an_effect_goes_no_further(job: Any, database: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, database.dsn) as (worker,), kairos.AsyncClient(database.dsn) as client:
            run = await client.start(job)
            await until(reached.is_set)
            await until(
                lambda: database.fetch("select count(*) from kairos.event where kind = 'step_started'") == [(1,)]
            )
            with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
                conn.execute("update kairos.run set epoch = epoch + 1")
            gate.set()
            await until(lambda: worker.office.slots.taken == 0)
            assert await effects_of(client, run) == []
            assert made == {"first": 1}, "the second effect must not begin under a void fence"

    asyncio.run(main())


@pytest.mark.parametrize("job", [holds, aholds], ids=["in a thread", "async"])
def test_a_cancelled_run_begins_no_further_effect(job: Any, database: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            run = await client.start(job)
            await until(reached.is_set)
            await run.cancel(reason="enough")
            asked = "select count(*) from kairos.event where kind = 'run_cancel_requested'"
            await until(lambda: database.fetch(asked) == [(1,)])
            await asyncio.sleep(0.3)  # for the worker to hear of it
            gate.set()
            assert (await run.wait(20)).status == "CANCELLED"
            assert made == {"first": 1}
            await is_sound(database.admin_dsn)

    asyncio.run(main())


def test_a_worker_that_shuts_down_lets_an_effect_end_and_the_next_one_resumes_after_it(database: TestDatabase) -> None:
    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            async with working(app, database.dsn, drain_timeout=0.5) as (worker,):
                run = await client.start(holds)
                await until(reached.is_set)
                worker.stop()
                await until(lambda: worker.office.stopping)
                gate.set()  # the first ends while the worker drains; so does the second
            async with working(app, database.dsn):
                assert await run.result(20) == "firstsecond"
            assert made == {"first": 1, "second": 1}

    asyncio.run(main())


def test_what_runs_past_the_drain_is_not_recorded_and_happens_again(database: TestDatabase) -> None:
    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            async with working(app, database.dsn, drain_timeout=0.2) as (worker,):
                run = await client.start(holds)
                await until(reached.is_set)
                worker.stop()
            gate.set()
            async with working(app, database.dsn):
                assert await run.result(20) == "firstsecond"
            assert made == {"first": 2, "second": 1}, "at least once, as any step"
            assert [(e.name, e.attempt) for e in await effects_of(client, run)] == [("first", 2), ("second", 2)]
            await is_sound(database.admin_dsn)

    asyncio.run(main())


def test_a_loop_of_calls_is_one_durable_function(database: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            run = await client.start(many, {"count": 100})
            assert await run.result(30) == 4950
            assert [e.ordinal for e in await effects_of(client, run)] == list(range(1, 101))
            await is_sound(database.admin_dsn)

    asyncio.run(main())


@pytest.mark.parametrize("job", [leaves_a_thread, times_out])
def test_a_thread_that_outlives_its_attempt_is_stopped_at_its_next_effect(job: Any, database: TestDatabase) -> None:
    left.clear()

    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            run = await (await client.start(job)).wait(20)
            gate.set()
            await until(lambda: left)
            assert isinstance(left[0], kairos.StepCancelled)
            assert [e.name for e in await effects_of(client, run)] == (["now"] if job is times_out else [])

    asyncio.run(main())
    assert made == ({"first": 1} if job is times_out else {})
