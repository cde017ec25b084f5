"""Looking at runs: by part of an id, in lists, at any moment; waiting; what a closed client says."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

import kairos
from tests.conftest import TestDatabase
from tests.engine.harness import working

app = kairos.App("look")
double = app.workflow("double", input=int)


@double.step
async def times_two(input: int) -> int:
    return input * 2


@double.step
async def again(times_two: int) -> int:
    return times_two * 2


@app.job
async def fails() -> None:
    raise RuntimeError("on purpose")


def test_a_run_is_named_by_any_unique_part_or_last(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client:
        with pytest.raises(kairos.RunNotFound, match="no runs yet"):
            client.get_run("last")
        runs = [client.start(double, i) for i in range(20)]
        target = runs[7]
        assert client.get_run("last").id == runs[-1].id
        assert client.get_run(target.id.upper()).id == target.id
        assert client.get_run(target.id[-12:]).id == target.id
        assert client.get_run(target.id[:-1]).id == target.id
        with pytest.raises(kairos.AmbiguousRun, match="matches several"):
            client.get_run(target.id[:4])
        for nonsense in ("zzz", "", str(uuid4()), "%", "_" * 36):
            with pytest.raises(kairos.RunNotFound):
                client.get_run(nonsense)


def test_lists_are_filtered_and_paged_newest_first(database: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            done = [await client.start(double, i, labels={"shop": str(i % 2)}, key=f"k{i}") for i in range(6)]
            bad = await client.start(fails)
            for run in (*done, bad):
                await run.wait(20)
            assert [r.id for r in await client.list(limit=3)] == [bad.id, done[5].id, done[4].id]
            page = await client.list(limit=3, before=done[4].id)
            assert [r.id for r in page] == [done[3].id, done[2].id, done[1].id]
            assert [r.id for r in await client.list(status="failed")] == [bad.id]
            assert [r.id for r in await client.list(status=["DONE", "FAILED"], limit=1)] == [bad.id]
            assert {r.id for r in await client.list(labels={"shop": "1"})} == {r.id for r in done[1::2]}
            assert [r.id for r in await client.list(key="k2")] == [done[2].id]
            assert len(await client.list(workflow="double")) == 6
            future = datetime.now(UTC) + timedelta(hours=1)
            assert await client.list(since=future) == []
            assert len(await client.list(until=future)) == 7
            with pytest.raises(kairos.InvalidArgument, match="limit=0: must be between 1 and 1,000"):
                await client.list(limit=0)

    asyncio.run(main())


@pytest.mark.parametrize("status", ["dno", ["done", "dno"]], ids=str)
def test_an_unknown_status_is_told_the_nearest_and_all(database: TestDatabase, status: Any) -> None:
    async def ask() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            await client.list(status=status)

    with kairos.Client(database.dsn) as client:
        for listing in (lambda: client.list(status=status), lambda: asyncio.run(ask())):
            with pytest.raises(kairos.InvalidArgument) as caught:
                listing()
            assert str(caught.value) == (
                "status='dno' is not a status of a run: SCHEDULED, RUNNING, PAUSED, DONE, FAILED, CANCELLED, EXPIRED\n"
                "  hint: Did you mean 'DONE'?"
            )
            assert isinstance(caught.value, ValueError)


def test_the_state_at_every_seq_is_the_fold_of_the_events_up_to_there(database: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            run = await client.start(double, 1)
            assert await run.result(10) == 4
            events = await client.events(run.id)
            assert [e.seq for e in events] == list(range(1, len(events) + 1))
            assert (await client.state(run.id, at=0)).steps == {}
            halfway = await client.state(run.id, at=4)
            assert {n: s.status for n, s in halfway.steps.items()} == {"times_two": "DONE", "again": "SCHEDULED"}
            assert (await client.state(run.id)).status == "DONE"
            assert [e.seq for e in await client.events(run.id, after=3, limit=2)] == [4, 5]
            with pytest.raises(ValueError, match="at=-1"):
                await client.state(run.id, at=-1)
            with pytest.raises(kairos.RunNotFound):
                await client.events(uuid4())

    asyncio.run(main())


def test_waiting_too_short_says_that_the_run_goes_on(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client:
        run = client.start(double, 1)
        with pytest.raises(kairos.WaitTimeout, match=r"still SCHEDULED after 0\.05s"):
            run.wait(timeout=0.05)
        with pytest.raises(kairos.RunNotFound):
            client.wait(uuid4(), timeout=5)


def test_a_failed_run_raises_what_happened_and_where_to_look(database: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            run = await client.start(fails)
            with pytest.raises(kairos.RunFailed, match="on purpose") as caught:
                await run.result(30)
            assert caught.value.facts["step"] == "fails"
            assert f"kairos show {run.id}" in str(caught.value)

    slow = fails.steps["fails"].retry
    assert slow.attempts == 3
    asyncio.run(main())


def test_a_reason_may_hold_anything(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client:
        run = client.start(double, 1)
        assert client.cancel(run.id, "why \ud800 \0 " + "x" * 5000, author="\udcff") == "CANCELLED"
        reason = client.get_run(run.id).info.reason
        assert reason is not None
        assert reason.startswith("why \\ud800 \\0 xxx")


def test_a_client_that_is_not_open_says_so(database: TestDatabase) -> None:
    client = kairos.Client(database.dsn)
    with pytest.raises(kairos.KairosError, match="is not open"):
        client.start(double, 1)
    with client:
        client.start(double, 1)
    with pytest.raises(kairos.KairosError, match="is not open"):
        client.list()


def test_a_forked_child_gets_a_clear_error_and_its_parent_goes_on(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client:
        client.start(double, 1)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                client.list()
            except kairos.KairosError as exc:
                os.write(writer, exc.message.encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert b"before a fork" in os.read(reader, 1000)
        assert len(client.list()) == 1


def test_an_unreachable_database_is_a_clear_error_without_the_password() -> None:
    with pytest.raises(kairos.DatabaseUnavailable) as caught:
        kairos.Client("postgresql://someone:hunter2@127.0.0.1:1/nowhere", patience=0.1).open()
    assert "hunter2" not in str(caught.value)
    with pytest.raises(kairos.ConfigError) as wrong:
        kairos.Client("postgresql://someone:hunter2@[::1/nowhere").open()
    assert "hunter2" not in str(wrong.value)
