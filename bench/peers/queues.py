"""Plain job queues, Procrastinate and PgQueuer: W3 and W5 only."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from bench.peers import common
from bench.peers.common import Task

CONCURRENCY = 10
"""Of Procrastinate; 100 was slower."""
BULK = 1000

Enqueue = Callable[[list[dict[str, Any]]], Awaitable[Any]]


def procrastinate_app(connections: int) -> tuple[Any, Any]:
    """An app and its task. A job tells the time it waited through the file that it is given."""
    import procrastinate

    app = procrastinate.App(
        connector=procrastinate.PsycopgConnector(conninfo=common.dsn(), min_size=connections, max_size=connections)
    )

    @app.task(name="job", pass_context=False)
    async def job(t: float, tell: str | None = None) -> None:
        _tell(tell, t)

    return app, job


def _tell(path: str | None, since: float) -> None:
    if path is not None:
        with open(path, "a") as file:
            file.write(f"{time.time() - since}\n")


async def _procrastinate_worker() -> None:
    app, _ = procrastinate_app(CONCURRENCY + 2)
    async with app.open_async():
        common.say_ready()
        await app.run_worker_async(concurrency=CONCURRENCY, listen_notify=True, install_signal_handlers=False)


async def _pgqueuer_worker(task: Task) -> None:
    import asyncpg
    from pgqueuer import Queries, QueueManager
    from pgqueuer.db import AsyncpgDriver

    manager = QueueManager(Queries(AsyncpgDriver(await asyncpg.connect(common.dsn()))))

    @manager.entrypoint("job")
    async def job(job: Any) -> None:
        given = json.loads(job.payload)
        _tell(given.get("tell"), given["t"])

    common.say_ready()
    await manager.run(batch_size=task.settings.get("batch", 10), dequeue_timeout=timedelta(seconds=30))


async def _open(task: Task) -> tuple[Enqueue, str]:
    """Install the schema. Returns how to enqueue, and the query for what is left."""
    if task.settings["library"] == "procrastinate":
        app, job = procrastinate_app(4)
        await app.open_async()
        await app.schema_manager.apply_schema_async()

        async def defer(given: list[dict[str, Any]]) -> None:
            await (job.batch_defer_async(*given) if len(given) > 1 else job.defer_async(**given[0]))

        return defer, "select count(*) from procrastinate_jobs where status in ('todo', 'doing')"
    import asyncpg
    from pgqueuer import Queries
    from pgqueuer.db import AsyncpgDriver

    queries = Queries(AsyncpgDriver(await asyncpg.connect(common.dsn())))
    await queries.install()

    async def enqueue(given: list[dict[str, Any]]) -> None:
        await queries.enqueue(["job"] * len(given), [json.dumps(one).encode() for one in given], [0] * len(given))

    return enqueue, "select count(*) from pgqueuer"


async def _w3(task: Task) -> dict[str, float]:
    enqueue, _ = await _open(task)
    path = f"{os.environ['BENCH_SCRATCH']}/told"
    with common.workers("queues", task, "work"):
        for number in range(task.latencies + 5):
            await enqueue([{"t": time.time(), "tell": path}])
            deadline = time.monotonic() + 30
            while len(_told(path)) <= number:
                assert time.monotonic() < deadline, f"job {number} has not begun within 30 s"
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)
    return common.quantiles(_told(path)[5:])


def _told(path: str) -> list[float]:
    try:
        with open(path) as file:
            return [float(line) for line in file if line.endswith("\n")]
    except FileNotFoundError:
        return []


async def _w5(task: Task) -> dict[str, float]:
    enqueue, left = await _open(task)
    began = time.perf_counter()
    for first in range(0, task.jobs, BULK):
        await enqueue([{"t": 0.0}] * min(BULK, task.jobs - first))
    enqueueing = time.perf_counter() - began
    with common.watch() as conn, common.workers("queues", task, "work") as started:
        found = common.drain(conn, started, lambda: common.count(conn, left), task.jobs)
    return {**found, "bulk enqueued/s": task.jobs / enqueueing}


def work(task: Task) -> None:
    """Work until killed."""
    is_first = task.settings["library"] == "procrastinate"
    asyncio.run(_procrastinate_worker() if is_first else _pgqueuer_worker(task))


if __name__ == "__main__":
    common.main({"work": work}, {"w3": lambda task: asyncio.run(_w3(task)), "w5": lambda task: asyncio.run(_w5(task))})
    os._exit(0)  # pools keep threads
