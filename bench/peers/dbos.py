"""DBOS. Fastest when workflows are called in the process that runs them (W1, W2, W4); W3 and W5 go by its queues."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dbos import DBOS, DBOSClient

from bench.peers import common
from bench.peers.common import Task
from bench.record import RECORD, step

DONE = "select count(*) from dbos.workflow_status where status = 'SUCCESS'"
JOB: dict[str, Any] = {"queue_name": "q", "workflow_name": "job", "app_version": "1"}


def launch() -> dict[str, Any]:
    """Start DBOS in this process: pool of 10, four executor threads (more were slower)."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": common.dsn(),
            "log_level": "ERROR",
            "sys_db_pool_size": 10,
            "executor_id": f"bench-{os.getpid()}",
            "application_version": "1",
            "max_executor_threads": 4,
        }
    )

    @DBOS.step()
    async def async_step(record: dict[str, Any]) -> dict[str, Any]:
        return step(record)

    @DBOS.step()
    def plain_step(record: dict[str, Any]) -> dict[str, Any]:
        return step(record)

    @DBOS.workflow(name="async_chain")
    async def async_chain(record: dict[str, Any]) -> dict[str, Any]:
        for _ in range(5):
            record = await async_step(record)
        return record

    @DBOS.workflow(name="plain_chain")
    def plain_chain(record: dict[str, Any]) -> dict[str, Any]:
        for _ in range(5):
            record = plain_step(record)
        return record

    @DBOS.workflow(name="fan")
    async def fan(width: int) -> int:
        return len(await asyncio.gather(*[async_step(RECORD) for _ in range(width)]))

    @DBOS.workflow(name="job")
    async def job(t: float) -> float:
        return time.time() - t

    DBOS.launch()
    return {"async_chain": async_chain, "plain_chain": plain_chain, "fan": fan}


def serve(task: Task) -> None:
    """A process that dequeues, until killed."""
    launch()
    poll = task.settings.get("poll", 0.05)
    DBOS.register_queue("q", worker_concurrency=100, polling_interval_sec=poll)
    common.say_ready()
    threading.Event().wait()


def w1(task: Task) -> dict[str, float]:
    """Chains of five, called here by four threads."""
    flows = launch()
    with common.watch() as conn, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: flows["plain_chain"](RECORD), range(common.WARM_UP)))
        meter = common.meter(conn, []).begin()
        list(pool.map(lambda _: flows["plain_chain"](RECORD), range(task.runs)))
        meter.end()
        assert common.count(conn, DONE) == task.runs + common.WARM_UP
    steps = task.runs * 5
    return {"steps/s": steps / meter.seconds, **meter.costs(steps)}


def w2(task: Task) -> dict[str, float]:
    """One chain at a time."""
    flows = launch()

    async def measure() -> list[float]:
        times = []
        for _ in range(task.latencies + 20):
            began = time.perf_counter()
            handle = await DBOS.start_workflow_async(flows["async_chain"], RECORD)
            await handle.get_result()
            times.append(time.perf_counter() - began)
        return times[20:]

    return common.quantiles(asyncio.run(measure()))


def client() -> DBOSClient:
    """For enqueueing from outside."""
    return DBOSClient(system_database_url=common.dsn(), system_database_pool_size=10)


def w3(task: Task) -> dict[str, float]:
    """Enqueue to body."""
    with common.workers("dbos", task, "serve"):
        outside = client()
        times = []
        for _ in range(task.latencies + 5):
            handle: Any = outside.enqueue(JOB, time.time())
            times.append(float(handle.get_result(polling_interval_sec=0.01)))
        outside.destroy()
    return common.quantiles(times[5:])


def w4(task: Task) -> dict[str, float]:
    """A workflow that gathers 1,000 steps."""
    flows = launch()

    async def measure() -> None:
        handle = await DBOS.start_workflow_async(flows["fan"], 1000)
        assert await handle.get_result() == 1000

    with common.watch() as conn:
        for _ in range(common.WARM_UP):
            flows["plain_chain"](RECORD)
        meter = common.meter(conn, []).begin()
        asyncio.run(measure())
        meter.end()
    return {"steps/s": 1001 / meter.seconds, **meter.costs(1001)}


def w5(task: Task) -> dict[str, float]:
    """Jobs, enqueued one by one, then drained."""
    with common.workers("dbos", task, "serve"):  # makes the schema and the queue
        pass
    outside = client()

    def connect() -> Callable[[int], Any]:
        return lambda number: outside.enqueue(JOB, 0.0)

    enqueueing = common.submit(task.jobs, connect)
    with common.watch() as conn, common.workers("dbos", task, "serve") as started:
        found = common.drain(conn, started, lambda: task.jobs - common.count(conn, DONE), task.jobs)
    outside.destroy()
    return {**found, "enqueued/s": task.jobs / enqueueing}


if __name__ == "__main__":
    common.main({"serve": serve}, {"w1": w1, "w2": w2, "w3": w3, "w4": w4, "w5": w5})
    os._exit(0)  # DBOS keeps threads
