"""Work that could go on goes on: no step waits for a slot, a peer or a helper that never comes."""

from __future__ import annotations

import asyncio

import kairos
from tests.conftest import TestDatabase
from tests.engine.harness import until, working
from tests.faults import workload
from tests.faults.support import verdict


def test_a_lone_worker_with_few_slots_finishes_wide_runs(database: TestDatabase) -> None:
    async def main() -> None:
        async with working(workload.app, database.dsn, concurrency=2), kairos.AsyncClient(database.dsn) as client:
            runs = await client.start_many(workload.diamond, list(range(12)))
            for n, run in enumerate(runs):
                assert await run.result(30) == workload.diamond_output(n)

    asyncio.run(main())
    verdict(database.admin_dsn)


def test_a_step_that_was_offered_to_peers_runs_here_when_they_are_gone(database: TestDatabase) -> None:
    app = kairos.App("t")
    pair = app.workflow("pair")
    gate = asyncio.Event()

    @pair.step
    async def holds_the_only_slot() -> str:
        await gate.wait()
        return "held"

    @pair.step
    async def waits_for_it() -> str:
        return "came"

    async def main() -> None:
        async with (
            working(app, database.dsn, concurrency=1) as (worker,),
            kairos.AsyncClient(database.dsn) as client,
        ):

            def is_offered() -> bool:
                # A peer that is counted but never comes: it has just died. Each round counts anew.
                worker.office.peers = 1
                return any(held.offered for held in worker.owner.held.values())

            is_offered()
            run = await client.start(pair)
            await until(is_offered)
            worker.office.peers = 0
            gate.set()
            assert await run.result(30) == {"holds_the_only_slot": "held", "waits_for_it": "came"}

    asyncio.run(main())
    verdict(database.admin_dsn)


def test_a_worker_of_another_queue_finds_the_steps_that_are_for_it(database: TestDatabase) -> None:
    async def main() -> None:
        async with (
            working(workload.app, database.dsn),
            working(workload.app, database.dsn, queues=(workload.SIDE_QUEUE,)),
            kairos.AsyncClient(database.dsn) as client,
        ):
            # More rounds than one: each of them counts the peers anew.
            for word in ("once", "twice", "three times"):
                run = await client.start(workload.routed, word)
                assert await run.result(15) == word
                await asyncio.sleep(0.7)

    asyncio.run(main())
    verdict(database.admin_dsn)


def test_a_step_for_another_queue_is_offered_again_after_each_failure(database: TestDatabase) -> None:
    app = kairos.App("t")
    wf = app.workflow("wf", retry=kairos.Retry(attempts=4, base="10ms", jitter=0))

    @wf.step(queue="elsewhere")
    async def far(ctx: kairos.StepContext) -> int:
        if ctx.attempt < 4:
            raise ValueError("not yet")
        return ctx.attempt

    async def main() -> None:
        async with (
            working(app, database.dsn),
            working(app, database.dsn, queues=("elsewhere",)),
            kairos.AsyncClient(database.dsn) as client,
        ):
            run = await client.start(wf)
            assert await run.result(20) == 4

    asyncio.run(main())
    verdict(database.admin_dsn)
    started = database.fetch("select convert_from(body, 'utf8') from kairos.event where kind = 'step_started'")
    assert all("worker" in str(body) for (body,) in started), "only a worker of its queue may run a step"
