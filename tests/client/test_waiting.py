"""What a waiting client asks the database, and that it never misses an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest

import kairos
from kairos.store.connect import Session
from tests.conftest import TestDatabase
from tests.engine.harness import working

app = kairos.App("wait")
echo = app.workflow("echo", input=str)


@echo.step
async def left(input: str) -> str:
    return input


@echo.step
async def a_longer_name(input: str) -> str:
    return input.upper()


@app.job
async def fails() -> None:
    raise ValueError("a NUL \0 in a reason")


@asynccontextmanager
async def asked(client: kairos.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """The names of the queries that this client sends meanwhile."""
    names: list[str] = []
    plain = Session.execute

    async def execute(self: Session, name: str, params: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        if self in (client._reads, client._starts):
            names.append(name)
        return await plain(self, name, params)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "execute", execute)
        yield names


def test_a_result_takes_one_question_once_the_client_listens(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            await (await client.start(echo, "first")).result(20)
            counts = []
            for _ in range(5):
                async with asked(client, monkeypatch) as names:
                    run = await client.start(echo, "a")
                    assert await run.result(20) == {"left": "a", "a_longer_name": "A"}
                    assert run.status == "DONE"
                counts.append([name for name in names if name != "notify"])
            # A look at all that is waited for may fall into one of them, not into most.
            assert counts.count(["start_runs", "ended_runs"]) >= 3, counts

    asyncio.run(main())


def test_an_output_too_long_for_its_event_is_fetched(database: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            long = "x" * 5000
            assert (await (await client.start(echo, long)).result(20))["a_longer_name"] == "X" * 5000

    asyncio.run(main())


def test_runs_that_end_before_anybody_waits_are_found(database: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            await (await client.start(echo, "first")).wait(20)
            runs = await client.start_many(echo, ["a"] * 300)
            async with asyncio.timeout(20):
                while await client.list(status=["scheduled", "running"]):
                    await asyncio.sleep(0.01)
            await asyncio.gather(*(run.wait(20) for run in runs))
            assert {run.status for run in runs} == {"DONE"}
            assert all(run.info.ended_at is not None for run in runs)

    asyncio.run(main())


def test_an_end_that_nobody_was_told_of_is_found_by_looking(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            await (await client.start(echo, "first")).wait(20)
            monkeypatch.setattr(client._waiter, "_on_notice", lambda channel, payload: None)
            for task in client._waiter._tasks:
                task.cancel()
            client._waiter._tasks = []
            run = await client.start(echo, "a")
            assert (await run.wait(20)).status == "DONE"

    asyncio.run(main())


def test_a_failed_run_raises_its_error_even_with_text_that_jsonb_refuses(database: TestDatabase) -> None:
    async def main() -> None:
        async with working(app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            run = await client.start(fails)
            with pytest.raises(kairos.RunFailed, match="a NUL"):
                await run.result(30)
            assert run.status == "FAILED"

    asyncio.run(main())


def test_many_waiters_of_one_run_all_learn_of_its_end_and_one_may_give_up(database: TestDatabase) -> None:
    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            run = await client.start(echo, "a")
            others = [asyncio.create_task((await client.get_run(run.id)).wait(30)) for _ in range(3)]
            with pytest.raises(kairos.WaitTimeout):
                await run.wait(0.01)
            others[0].cancel()
            async with working(app, database.dsn):
                assert await run.result(20) == {"left": "a", "a_longer_name": "A"}
                assert [other.status for other in await asyncio.gather(*others[1:])] == ["DONE", "DONE"]
            assert client._waiter._awaited == {}

    asyncio.run(main())


def test_a_run_that_does_not_exist_is_not_waited_for(database: TestDatabase) -> None:
    async def main() -> None:
        async with kairos.AsyncClient(database.dsn) as client:
            with pytest.raises(kairos.RunNotFound):
                await client.wait(uuid4(), timeout=20)

    asyncio.run(main())


def test_a_start_that_was_rolled_back_is_not_waited_for(database: TestDatabase) -> None:
    with kairos.Client(database.dsn) as client, psycopg.connect(database.dsn) as conn:
        run = client.start(echo, "a", connection=conn)
        conn.rollback()
        with pytest.raises(kairos.RunNotFound):
            run.wait(20)
