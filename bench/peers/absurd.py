"""Absurd. Its SDK gives a worker one connection, so a tuned process runs eight workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import psycopg
from absurd_sdk import Absurd, AsyncAbsurd
from absurdctl import BUNDLED_SCHEMA_SQL

from bench import processes
from bench.peers import common
from bench.peers.common import Task
from bench.record import RECORD, step

CONCURRENCY = 100
DONE = "select count(*) from absurd.t_q where state = 'completed'"


def prepare() -> None:
    """Install the schema and the queues."""
    text = BUNDLED_SCHEMA_SQL if isinstance(BUNDLED_SCHEMA_SQL, str) else BUNDLED_SCHEMA_SQL["sql"]
    with common.watch() as conn:
        conn.execute(text)
        for queue in ("q", "parents"):
            conn.execute("select absurd.create_queue(%s)", (queue,))


def work(task: Task, queue: str) -> None:
    """Work on a queue until killed."""
    connections, poll = task.settings.get("connections", 1), task.settings.get("poll", 0.25)

    async def one() -> None:
        app = AsyncAbsurd(common.dsn(), queue_name=queue)

        @app.register_task("chain")
        async def chain(params: Any, ctx: Any) -> Any:
            record = params
            for number in range(5):

                async def body(record: Any = record) -> Any:
                    return step(record)

                record = await ctx.step(f"s{number}", body)
            return record

        @app.register_task("job")
        async def job(params: Any, ctx: Any) -> Any:
            return {"took": time.time() - params["t"]}

        @app.register_task("part")
        async def part(params: Any, ctx: Any) -> Any:
            return step(params)

        @app.register_task("fan")
        async def fan(params: Any, ctx: Any) -> Any:
            async def spawn() -> list[str]:
                children = AsyncAbsurd(common.dsn(), queue_name="q")
                made = [(await children.spawn("part", RECORD, queue="q"))["task_id"] for _ in range(params["n"])]
                await children.close()
                return [str(one) for one in made]

            ids = await ctx.step("spawn", spawn)
            for child in ids:
                await ctx.await_task_result(child, queue_name="q")
            return len(ids)

        await app.start_worker(concurrency=max(1, CONCURRENCY // connections), poll_interval=poll)

    async def several() -> None:
        await asyncio.gather(*(one() for _ in range(connections)))

    common.say_ready()
    asyncio.run(several())


def submitter(name: str, params: Any) -> Callable[[], Callable[[int], Any]]:
    """For `common.submit`."""

    def connect() -> Callable[[int], Any]:
        app = Absurd(common.dsn(), queue_name="q")
        return lambda number: app.spawn(name, params, queue="q")

    return connect


def warm_up(conn: psycopg.Connection[Any]) -> None:
    """Let every worker open its connection and plan its statements."""
    common.submit(common.WARM_UP, submitter("chain", RECORD))
    processes.wait_until(lambda: common.count(conn, DONE) >= common.WARM_UP, "the warm-up is done")


def w1(task: Task) -> dict[str, float]:
    """Chains of five."""
    prepare()
    with common.workers("absurd", task, "q") as started, common.watch() as conn:
        warm_up(conn)
        meter = common.meter(conn, started).begin()
        submitting = common.submit(task.runs, submitter("chain", RECORD))
        wanted = task.runs + common.WARM_UP
        processes.wait_until(lambda: common.count(conn, DONE) >= wanted, "all chains are done")
        meter.end()
    steps = task.runs * 5
    return {"steps/s": steps / meter.seconds, "starts/s": task.runs / submitting, **meter.costs(steps)}


def latencies(task: Task) -> dict[str, float]:
    """W2, W3: one at a time."""
    prepare()
    times = []
    with common.workers("absurd", task, "q"), common.watch() as conn:
        warm_up(conn)
        app = Absurd(common.dsn(), queue_name="q")
        for number in range(task.latencies + 5):
            began = time.time()
            name, params = ("chain", RECORD) if task.workload == "w2" else ("job", {"t": began})
            made = app.spawn(name, params, queue="q")["task_id"]
            # Looked for more often than the SDK's own waiting would.
            query = "select completed_payload from absurd.t_q where task_id = %s and state = 'completed'"
            while (row := conn.execute(query, (made,)).fetchone()) is None:
                time.sleep(0.001)
            times.append(time.time() - began if task.workload == "w2" else row[0]["took"])
            time.sleep(0.013 * (number % 7))  # out of step with the poll
    return common.quantiles(times[5:])


def w4(task: Task) -> dict[str, float]:
    """A task with 1,000 children."""
    prepare()
    done = "select count(*) from absurd.t_parents where state = 'completed'"
    with common.workers("absurd", task, "q", "parents") as started, common.watch() as conn:
        warm_up(conn)
        app = Absurd(common.dsn(), queue_name="parents")
        meter = common.meter(conn, started).begin()
        app.spawn("fan", {"n": 1000}, queue="parents")
        processes.wait_until(lambda: common.count(conn, done) == 1, "the parent is done")
        meter.end()
    return {"steps/s": 1001 / meter.seconds, **meter.costs(1001)}


def w5(task: Task) -> dict[str, float]:
    """Jobs, enqueued one by one, then drained."""
    prepare()
    enqueueing = common.submit(task.jobs, submitter("job", {"t": 0}))
    with common.watch() as conn, common.workers("absurd", task, "q") as started:
        found = common.drain(conn, started, lambda: task.jobs - common.count(conn, DONE), task.jobs)
    return {**found, "enqueued/s": task.jobs / enqueueing}


if __name__ == "__main__":
    common.main(
        {"q": lambda task: work(task, "q"), "parents": lambda task: work(task, "parents")},
        {"w1": w1, "w2": latencies, "w3": latencies, "w4": w4, "w5": w5},
    )
