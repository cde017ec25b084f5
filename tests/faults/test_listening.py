"""NOTIFY is only a hint: without it work is found by polling, and listening is taken up again."""

from __future__ import annotations

import asyncio
import time

import pytest

import kairos
from kairos.store import connect, listener
from tests.conftest import TestDatabase
from tests.engine.harness import until, working
from tests.faults import workload
from tests.faults.proxy import ChaosProxy
from tests.faults.support import fetch, verdict

LISTENERS = "select pid from pg_stat_activity where datname = current_database() and application_name = %s"


async def start_and_measure(client: kairos.AsyncClient, n: int) -> float:
    """Seconds from the start of a short run to its end."""
    began = time.monotonic()
    run = await client.start(workload.quick, {"n": n})
    await run.wait(10)
    return time.monotonic() - began


@pytest.mark.parametrize("name", ["kairos listener", "kairos waiter"])
def test_a_listener_that_is_terminated_comes_back_and_nothing_waits_for_it(database: TestDatabase, name: str) -> None:
    async def main() -> None:
        async with working(workload.app, database.dsn, poll=0.5), kairos.AsyncClient(database.dsn) as client:
            await start_and_measure(client, 0)
            for n in range(3):
                (pid,) = (await until(lambda: fetch(database.admin_dsn, LISTENERS, name)))[0]
                fetch(database.admin_dsn, "select pg_terminate_backend(%s)", pid)
                # By polling: twice the poll is for the worker's look and the client's.
                assert await start_and_measure(client, n) < 2.5
                await until(lambda pid=pid: fetch(database.admin_dsn, LISTENERS, name) not in ([], [(pid,)]))

    asyncio.run(main())
    verdict(database.admin_dsn)


@pytest.mark.parametrize("name", ["kairos listener", pytest.param("kairos waiter", marks=pytest.mark.slow)])
def test_a_listener_in_a_black_hole_notices_it_and_connects_anew(
    database: TestDatabase, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-open socket raises no error: a ping finds out."""
    monkeypatch.setattr(listener, "PING_EVERY", 0.3)

    async def main() -> None:
        with ChaosProxy(database.dsn) as proxy:
            async with working(workload.app, proxy.dsn, poll=0.5), kairos.AsyncClient(proxy.dsn) as client:
                await start_and_measure(client, 0)
                await until(lambda: proxy.count(name) == 1)
                assert proxy.swallow(name) == 1
                assert await start_and_measure(client, 1) < 2.5
                await until(lambda: proxy.count(name) == 1, timeout=20)
                assert await start_and_measure(client, 2) < 2.5

    asyncio.run(main())
    verdict(database.admin_dsn)


def test_a_heartbeat_in_a_black_hole_does_not_cost_the_worker_its_lease(database: TestDatabase) -> None:
    async def main() -> None:
        with ChaosProxy(database.dsn) as proxy:
            async with (
                working(workload.app, proxy.dsn, lease=3.0) as (worker,),
                kairos.AsyncClient(proxy.dsn) as client,
            ):
                first = worker.office.identity.id
                beaten = "select 1 from kairos.worker where beat_at > started_at"
                await until(lambda: fetch(database.admin_dsn, beaten))
                await until(lambda: proxy.swallow("kairos heartbeat") == 1)
                await until(lambda: proxy.count("kairos heartbeat") == 1, timeout=20)
                await start_and_measure(client, 1)
                assert worker.office.identity.id == first

    asyncio.run(main())
    verdict(database.admin_dsn)


@pytest.mark.parametrize("name", ["kairos flusher", "kairos worker"])
def test_a_worker_s_connection_in_a_black_hole_is_replaced(
    database: TestDatabase, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "ANSWER_WITHIN", 1.0)

    async def main() -> None:
        with ChaosProxy(database.dsn) as proxy:
            async with working(workload.app, proxy.dsn, lease=5.0), kairos.AsyncClient(database.dsn) as client:
                await start_and_measure(client, 0)
                assert proxy.swallow(name) == 1
                run = await client.start(workload.diamond, 5)
                assert await run.result(30) == workload.diamond_output(5)

    asyncio.run(main())
    verdict(database.admin_dsn)
