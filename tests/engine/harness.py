"""Runs workers beside a test, in its own event loop, and waits for conditions instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import kairos
from kairos.domain.events import Event
from kairos.engine.worker import Worker
from kairos.settings import WorkerOptions

FAST = WorkerOptions(lease=2.0, poll=0.1, drain_timeout=5.0, cancel_grace=1.0)


@asynccontextmanager
async def working(app: kairos.App, dsn: str, *, count: int = 1, **options: Any) -> AsyncIterator[list[Worker]]:
    """Workers for the length of the block; they drain at its end."""
    workers = [Worker(app, dsn, replace(FAST, **options)) for _ in range(count)]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    ready = [asyncio.create_task(worker.ready.wait()) for worker in workers]
    try:
        await asyncio.wait(ready, timeout=10)
        for worker in workers:
            worker.office.peers = count - 1
        yield workers
    finally:
        for worker in workers:
            worker.stop()
        await asyncio.gather(*tasks)
        for task in ready:
            task.cancel()


async def until(condition: Callable[[], Any | Awaitable[Any]], timeout: float = 15.0) -> Any:
    """Wait until `condition` is true; returns its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout}s: {condition}")
        await asyncio.sleep(0.01)


async def kinds(client: kairos.AsyncClient, run: kairos.AsyncRun) -> list[str]:
    """The kinds of a run's events, in order."""
    return [recorded.event.kind for recorded in await client.events(run.id)]


async def of_kind(client: kairos.AsyncClient, run: kairos.AsyncRun, kind: str) -> list[Event]:
    """The events of one kind."""
    return [recorded.event for recorded in await client.events(run.id) if recorded.event.kind == kind]
