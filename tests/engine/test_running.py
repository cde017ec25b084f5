"""What a worker does with runs: order, retries, failures, timeouts, cancels, queues, versions."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import Any

import pytest

import kairos
from kairos.domain.events import StepDead, StepExpired, StepFailed, StepStarted
from tests.conftest import TestDatabase
from tests.engine.harness import kinds, of_kind, until, working

QUICK = kairos.Retry(attempts=3, base="10ms", jitter=0)


def run(main: Any) -> Any:
    return asyncio.run(main)


def test_a_diamond_runs_in_order_and_its_sink_is_the_output(database: TestDatabase) -> None:
    app = kairos.App("t")
    wf = app.workflow("diamond", input=int)

    @wf.step
    async def top(input: int) -> int:
        return input + 1

    @wf.step
    async def left(top: int) -> int:
        return top * 10

    @wf.step
    def right(top: int) -> int:
        return top * 100

    @wf.step
    async def bottom(left: int, right: int) -> dict[str, int]:
        return {"sum": left + right}

    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            started = await client.start(wf, 1)
            assert await started.result(10) == {"sum": 220}
            seen = await kinds(client, started)
            assert seen[:3] == ["run_scheduled", "run_started", "step_started"]
            assert seen[-1] == "run_done"
            assert Counter(seen)["step_done"] == 4

    run(main())
    assert database.fetch("select count(*) from kairos.task") == [(0,)]


def test_a_failing_step_is_retried_until_it_succeeds(database: TestDatabase) -> None:
    app = kairos.App("t")
    wf = app.workflow("flaky")
    tries: list[int] = []

    @wf.step(retry=QUICK)
    async def flaky(ctx: kairos.StepContext) -> str:
        tries.append(ctx.token)
        if len(tries) < 3:
            raise ValueError(f"try {ctx.attempt}")
        return f"attempt {ctx.attempt}"

    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            started = await client.start(wf)
            assert await started.result(10) == "attempt 3"
            assert Counter(await kinds(client, started))["timer_fired"] == 2

    run(main())
    assert tries == sorted(set(tries))


def test_a_step_out_of_attempts_is_dead_and_the_run_fails_with_its_error(database: TestDatabase) -> None:
    app = kairos.App("t")
    wf = app.workflow("doomed")

    @wf.step(retry=QUICK)
    async def doomed() -> None:
        running_total = 17
        raise RuntimeError(f"cannot go on {running_total}")

    @wf.step
    async def below(doomed: None) -> None:
        raise AssertionError("never runs")

    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            started = await client.start(wf)
            with pytest.raises(kairos.RunFailed, match="cannot go on 17") as caught:
                await started.result(10)
            assert caught.value.facts["error"].locals["running_total"] == "17"
            failed = await of_kind(client, started, "step_failed")
            assert [isinstance(e, StepFailed) and e.retry_at is not None for e in failed] == [True, True, False]
            state = await client.state(started.id)
            assert {n: s.status.value for n, s in state.steps.items()} == {"doomed": "DEAD", "below": "PENDING"}

    run(main())
    assert database.fetch("select status, step, error from kairos.failure") == [
        ("FAILED", "doomed", "RuntimeError: cannot go on 17")
    ]


def test_independent_branches_go_on_after_a_death(database: TestDatabase) -> None:
    app = kairos.App("t")
    wf = app.workflow("branches")
    ran = threading.Event()

    @wf.step(retry=kairos.Retry(attempts=1))
    async def dies() -> None:
        raise RuntimeError("no")

    @wf.step
    def first() -> int:
        time.sleep(0.1)
        return 1

    @wf.step
    def second(first: int) -> int:
        ran.set()
        return first

    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            started = await (await client.start(wf)).wait(10)
            assert started.status == "FAILED"

    run(main())
    assert ran.is_set()


@pytest.mark.parametrize("is_async", [True, False])
def test_a_step_over_its_timeout_fails_and_frees_its_slot(database: TestDatabase, is_async: bool) -> None:
    app = kairos.App("t")
    wf = app.workflow("slow")
    release = threading.Event()
    options: dict[str, Any] = {"timeout": "100ms", "retry": kairos.Retry(attempts=1)}

    if is_async:

        @wf.step(**options)
        async def hangs() -> None:
            await asyncio.sleep(60)
    else:

        @wf.step(**options)
        def hangs() -> None:
            release.wait(60)

    other = app.job(name="other")(_nothing)

    async def main() -> None:
        async with working(app, database.dsn, concurrency=1) as (worker,), kairos.AsyncClient(database.dsn) as client:
            started = await client.start(wf)
            with pytest.raises(kairos.RunFailed, match="longer than its timeout of 100ms"):
                await started.result(10)
            assert await (await client.start(other)).result(10) is None
            assert worker.office.slots.taken == 0
            assert len(worker.office.threads.abandoned) == (0 if is_async else 1)
            release.set()
            await until(lambda: not worker.office.threads.abandoned)

    run(main())


def _nothing() -> None:
    return None


def test_cancelling_tells_the_body_and_ends_the_run(database: TestDatabase) -> None:
    app = kairos.App("t")
    wf = app.workflow("long")
    told: list[str] = []

    @wf.step
    def polite(ctx: kairos.StepContext) -> None:
        while not ctx.cancelled:
            time.sleep(0.005)
        told.append("polite")
        ctx.heartbeat()

    @wf.step
    async def rude() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append("rude")
            raise

    @wf.step
    async def after(polite: None) -> None:
        raise AssertionError("never")

    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            started = await client.start(wf)
            await until(lambda: _running(client, started, 2))
            assert await client.cancel(started.id, "changed my mind") == "RUNNING"
            await started.wait(10)
            assert started.status == "CANCELLED"
            with pytest.raises(kairos.RunCancelled, match="changed my mind"):
                await started.result()
            assert Counter(await kinds(client, started))["step_cancelled"] == 2

    run(main())
    assert sorted(told) == ["polite", "rude"]


async def _running(client: kairos.AsyncClient, started: kairos.AsyncRun, count: int) -> bool:
    return (await client.state(started.id)).running == count


def test_a_body_that_ignores_the_cancel_loses_its_fence(database: TestDatabase) -> None:
    app = kairos.App("t")
    wf = app.workflow("stubborn")
    release, returned = threading.Event(), threading.Event()

    @wf.step
    def stubborn() -> str:
        release.wait(30)
        returned.set()
        return "too late"

    async def main() -> None:
        async with (
            working(app, database.dsn, cancel_grace=0.2) as (worker,),
            kairos.AsyncClient(database.dsn) as client,
        ):
            started = await client.start(wf)
            await until(lambda: _running(client, started, 1))
            await client.cancel(started.id)
            await started.wait(10)
            assert started.status == "CANCELLED"
            events = await kinds(client, started)
            release.set()
            await until(returned.is_set)
            await until(lambda: not worker.office.threads.abandoned)
            assert await kinds(client, started) == events
            assert worker.office.slots.taken == 0

    run(main())


def test_a_run_that_nobody_has_begun_is_cancelled_at_once(database: TestDatabase) -> None:
    app = kairos.App("t")
    job = app.job(name="j")(_nothing)

    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            started = await client.start(job)
            assert await client.cancel(started.id) == "CANCELLED"
            assert await kinds(client, started) == [
                "run_scheduled",
                "run_cancel_requested",
                "step_cancelled",
                "run_cancelled",
            ]

    run(main())
    assert database.fetch("select count(*) from kairos.task") == [(0,)]


def test_a_job_whose_time_to_live_has_closed_expires_with_an_event(database: TestDatabase) -> None:
    app = kairos.App("t")
    job = app.job(name="j", ttl="50ms", queue="nobody-serves")(_nothing)

    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            started = await client.start(job)
            async with working(app, database.dsn):
                await started.wait(10)
            assert started.status == "EXPIRED"
            expired = await of_kind(client, started, "step_expired")
            assert isinstance(expired[0], StepExpired)
            assert "no worker took it" in expired[0].reason

    run(main())


def test_a_step_on_another_queue_is_run_by_a_worker_that_serves_it(database: TestDatabase) -> None:
    app = kairos.App("t")
    wf = app.workflow("routed")

    @wf.step
    async def here() -> int:
        return 1

    @wf.step(queue="gpu")
    async def there(here: int, ctx: kairos.StepContext) -> int:
        return here + 1

    @wf.step
    async def back(there: int) -> int:
        return there + 1

    async def main() -> None:
        async with (
            working(app, database.dsn),
            working(app, database.dsn, queues=("gpu",)),
            kairos.AsyncClient(database.dsn) as client,
        ):
            started = await client.start(wf)
            assert await started.result(15) == 3
            begun = await of_kind(client, started, "step_started")
            assert [e.worker is not None for e in begun if isinstance(e, StepStarted)] == [False, True, False]

    run(main())
    assert database.fetch("select count(*) from kairos.task") == [(0,)]


def test_surplus_steps_are_shared_and_the_join_happens_once(database: TestDatabase) -> None:
    app = kairos.App("t")
    wf = app.workflow("wide")
    for i in range(24):

        def part(ctx: kairos.StepContext) -> str:
            time.sleep(0.15)
            return ctx.step

        wf.step(name=f"part{i}")(part)

    @wf.step(after=[f"part{i}" for i in range(24)])
    async def join() -> str:
        return "joined"

    async def main() -> None:
        async with (
            working(app, database.dsn, count=2, concurrency=4) as workers,
            kairos.AsyncClient(database.dsn) as client,
        ):
            started = await client.start(wf)
            assert await started.result(30) == "joined"
            seen = Counter(await kinds(client, started))
            assert (seen["step_done"], seen["run_done"]) == (25, 1)
            begun = await of_kind(client, started, "step_started")
            helped = [e for e in begun if isinstance(e, StepStarted) and e.worker is not None]
            assert helped, "the second worker should have been given some of the work"
            await until(lambda: all(w.office.slots.taken == 0 for w in workers))

    run(main())
    assert database.fetch("select count(*) from kairos.task") == [(0,)]


def test_draining_gives_back_what_runs_without_burning_an_attempt(database: TestDatabase) -> None:
    app = kairos.App("t")
    wf = app.workflow("long")
    release = threading.Event()

    @wf.step(retry=kairos.Retry(attempts=1))
    def long(ctx: kairos.StepContext) -> int:
        if ctx.attempt == 1:
            release.wait(30)
        return ctx.attempt

    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            started = await client.start(wf)
            async with working(app, database.dsn, drain_timeout=0.1):
                await until(lambda: _running(client, started, 1))
            lost = await of_kind(client, started, "lease_lost")
            assert [e.reason for e in lost] == ["released"]  # type: ignore[union-attr]
            async with working(app, database.dsn):
                assert await started.result(10) == 2
            release.set()

    run(main())


def test_a_worker_leaves_versions_it_does_not_have(database: TestDatabase) -> None:
    old, new = kairos.App("t"), kairos.App("t")
    job = old.job(name="j")(_nothing)
    new.job(name="j")(lambda_free)

    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            started = await client.start(job)
            async with working(new, database.dsn):
                with pytest.raises(kairos.WaitTimeout):
                    await started.wait(0.5)
            async with working(old, database.dsn):
                await started.wait(10)
            assert started.status == "DONE"

    run(main())


def lambda_free() -> int:
    return 2


def test_one_dead_step_is_named_with_its_reason(database: TestDatabase) -> None:
    app = kairos.App("t")

    @app.job(retry=kairos.Retry(attempts=5, never_retry=ValueError))
    async def picky() -> None:
        raise ValueError("never again")

    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            started = await (await client.start(picky)).wait(10)
            dead = await of_kind(client, started, "step_dead")
            assert [e.reason for e in dead if isinstance(e, StepDead)] == ["ValueError: never again (not retryable)"]

    run(main())


def test_logs_and_metrics_of_a_step_are_events_before_its_end(database: TestDatabase) -> None:
    app = kairos.App("t")

    @app.job
    def chatty(ctx: kairos.StepContext) -> None:
        ctx.log.info("halfway", percent=50)
        ctx.emit("rows", 7, table="orders")

    @app.job
    async def hasty(ctx: kairos.StepContext) -> None:
        """Returns without ever giving up the loop."""
        ctx.log.info("halfway", percent=50)
        ctx.emit("rows", 7, table="orders")

    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            for job in (chatty, hasty):
                started = await (await client.start(job)).wait(10)
                seen = await kinds(client, started)
                assert seen.index("log_emitted") < seen.index("metric_emitted") < seen.index("step_done")

    run(main())


def test_runs_that_wait_for_a_retry_do_not_fill_the_memory(database: TestDatabase) -> None:
    app = kairos.App("t")

    attempts: list[int] = []

    @app.job(retry=kairos.Retry(attempts=2, base="1s", jitter=0))
    async def failing(ctx: kairos.StepContext) -> None:
        attempts.append(ctx.attempt)
        raise OSError("not yet")

    async def main() -> None:
        async with working(app, database.dsn, concurrency=1), kairos.AsyncClient(database.dsn) as client:
            runs = await client.start_many(failing, [None] * 30)
            await until(lambda: 2 in attempts)
            assert attempts.index(2) == 10  # the other 20 were not even claimed, though the only slot was free
            for started in runs:
                assert (await started.wait(30)).status == "FAILED"

    run(main())


def test_without_notify_a_worker_polls_and_keeps_no_connection_to_listen(database: TestDatabase) -> None:
    app = kairos.App("t")

    @app.job
    def quiet() -> int:
        return 1

    async def main() -> None:
        async with working(app, database.dsn, notify=False), kairos.AsyncClient(database.dsn) as client:
            assert await (await client.start(quiet)).result(10) == 1
            listening = (
                "select count(*) from pg_stat_activity where datname = current_database() and application_name = %s"
            )
            assert database.fetch(listening, ("kairos listener",)) == [(0,)]

    run(main())


def test_a_narrow_run_is_not_starved_by_a_wide_one(database: TestDatabase) -> None:
    app = kairos.App("t")
    wide, narrow = app.workflow("wide"), app.workflow("narrow")
    order: list[str] = []

    def part(ctx: kairos.StepContext) -> None:
        time.sleep(0.02)
        order.append(ctx.workflow)

    for i in range(100):
        wide.step(name=f"part{i}")(part)
    last: Any = ()
    for i in range(3):
        last = [narrow.step(name=f"link{i}", after=last)(part)]

    async def main() -> None:
        async with working(app, database.dsn, concurrency=2), kairos.AsyncClient(database.dsn) as client:
            first = await client.start(wide)
            second = await client.start(narrow)
            await first.wait(30)
            await second.wait(30)
            assert (first.status, second.status) == ("DONE", "DONE")

    run(main())
    assert max(i for i, name in enumerate(order) if name == "narrow") < 100


def test_steps_of_higher_priority_go_first(database: TestDatabase) -> None:
    app = kairos.App("t")
    wf = app.workflow("ranked")
    order: list[str] = []

    async def part(ctx: kairos.StepContext) -> None:
        order.append(ctx.step)

    for i, priority in enumerate([1, 9, 5, 10, 3]):
        wf.step(name=f"p{i}", priority=priority)(part)

    async def main() -> None:
        async with working(app, database.dsn, concurrency=1), kairos.AsyncClient(database.dsn) as client:
            await (await client.start(wf)).result(20)

    run(main())
    assert order == ["p3", "p1", "p2", "p4", "p0"]


def test_runs_of_higher_priority_are_claimed_first(database: TestDatabase) -> None:
    app = kairos.App("t")
    order: list[int] = []

    @app.job
    async def note(n: int) -> None:
        order.append(n)

    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            runs = [await client.start(note, {"n": n}, priority=n) for n in (2, 9, 5)]
            async with working(app, database.dsn, concurrency=1):
                for started in runs:
                    await started.wait(20)

    run(main())
    assert order == [9, 5, 2]


def test_an_attempt_whose_input_is_missing_fails_visibly(database: TestDatabase) -> None:
    app = kairos.App("t")

    @app.job(retry=kairos.Retry(attempts=1))
    async def big(text: str) -> int:
        return len(text)

    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            started = await client.start(big, {"text": "x" * 5000})
            import psycopg

            with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
                conn.execute("delete from kairos.blob")
            async with working(app, database.dsn):
                await started.wait(20)
            state = await client.state(started.id)
            error = state.steps["big"].error
            assert error is not None
            assert "missing from the database" in error.message

    run(main())


def test_a_wrongly_typed_output_fails_with_the_same_text_everywhere(database: TestDatabase) -> None:
    from kairos import testing

    app = kairos.App("t")
    wf = app.workflow("typed")

    @wf.step(retry=kairos.Retry(attempts=1))
    async def count() -> dict[str, int]:
        return {"a": "not a number"}  # type: ignore[dict-item]

    inline = testing.run(wf).error_of("count")

    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            started = await (await client.start(wf)).wait(10)
            error = (await client.state(started.id)).steps["count"].error
            assert error is not None
            assert inline is not None
            assert (error.type, error.message) == (inline.type, inline.message)
            assert "step 'count' returned a value that is not" in error.message

    run(main())


def test_a_secret_never_reaches_the_database(database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-7f3a91-value"
    monkeypatch.setenv("SHOP_CANARY", canary)
    app = kairos.App("t", redact=kairos.Redaction(fields=["card"]))
    wf = app.workflow("leaky", input=dict)

    @wf.step(retry=kairos.Retry(attempts=1))
    def leaks(input: dict[str, Any], ctx: kairos.StepContext) -> str:
        value = kairos.Secret("env:SHOP_CANARY").reveal()
        ctx.log.info(f"using {value}", key=value)
        return f"result of {value}"

    @wf.step(retry=kairos.Retry(attempts=1))
    def raises(leaks: str) -> None:
        shown = kairos.Secret("env:SHOP_CANARY").reveal()
        raise RuntimeError(f"cannot use {shown}")

    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            started = await client.start(wf, {"card": "4111-1111", "id": 1})
            await started.wait(20)
            assert started.status == "FAILED"

    run(main())
    everything = str(
        database.fetch("select body from kairos.event union all select data from kairos.blob")
        + database.fetch("select error::bytea from kairos.failure")
        + database.fetch("select report from kairos.worker")
    )
    assert "redacted" in everything
    assert canary not in everything
    assert "4111" not in everything


def test_an_owner_s_first_token_lies_above_all_that_dead_owners_may_have_used_unseen(database: TestDatabase) -> None:
    app = kairos.App("t")
    wf = app.workflow("two-roots")
    seen: list[int] = []

    async def root(ctx: kairos.StepContext) -> None:
        seen.append(ctx.token)

    wf.step(name="a")(root)
    wf.step(name="b")(root)

    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            started = await client.start(wf)
            import psycopg

            with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
                conn.execute("update kairos.run set epoch = 3")  # three owners have come and gone without a word
            async with working(app, database.dsn):
                await started.wait(20)

    run(main())
    assert sorted(seen) == [7, 8]
