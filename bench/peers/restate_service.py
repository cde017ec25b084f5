"""The Restate service, served by an ASGI server: `bench.peers.restate_service:app`."""

from __future__ import annotations

import time
from typing import Any

import restate

from bench import processes
from bench.record import RECORD, step

# This runs in a process that the ASGI server starts; once, one outlived its parent and answered for the next run.
processes.die_with_parent()

service = restate.Service("Bench")


async def one_step(record: dict[str, Any]) -> dict[str, Any]:
    """The trivial step."""
    return step(record)


@service.handler()
async def chain(ctx: restate.Context, record: dict[str, Any]) -> dict[str, Any]:
    """Five steps, each recorded."""
    for number in range(5):
        record = await ctx.run_typed(f"s{number}", one_step, restate.RunOptions(), record)
    return record


@service.handler()
async def pickup(ctx: restate.Context, since: float) -> float:
    """Seconds since then."""
    return time.time() - since


@service.handler()
async def job(ctx: restate.Context, record: dict[str, Any]) -> dict[str, Any]:
    """A trivial job."""
    return step(record)


@service.handler()
async def fan(ctx: restate.Context, width: int) -> int:
    """Parallel steps, each recorded."""
    parts = [ctx.run_typed(f"s{number}", one_step, restate.RunOptions(), RECORD) for number in range(width)]
    await restate.gather(*parts)
    return len(parts)


app = restate.app([service])
