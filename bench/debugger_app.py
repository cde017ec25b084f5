"""The runs that the debugger is measured with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import kairos

WIDTH = 1_000
NOTES = 8
"""Log lines per parallel step: 1,000 steps of three events and these are some 10,000 events."""
LONG_STEPS = 100
LONG_NOTES = 990

app = kairos.App("bench-debugger")
wide = app.workflow("wide", input=dict)
long = app.workflow("long", input=dict)
slow = app.workflow("slow", input=dict)

Body = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


def _noting(number: int, count: int) -> Body:
    async def body(plan: int, ctx: kairos.StepContext) -> dict[str, Any]:
        for line in range(count):
            ctx.log.info("row", number=line)
        return {"number": number, "email": f"user{number}@example.org", "total": number * 17 + 0.25}

    return body


@wide.step(name="plan")
async def plan_wide(input: dict[str, Any]) -> int:
    """What the parallel steps wait for."""
    return len(input)


_items = [wide.step(name=f"item_{n}")(_noting(n, NOTES)) for n in range(WIDTH)]


@wide.step(after=_items)
async def done(plan: int) -> int:
    """The join."""
    return plan


@long.step(name="plan")
async def plan_long(input: dict[str, Any]) -> int:
    """What the parallel steps wait for."""
    return len(input)


for n in range(LONG_STEPS):
    long.step(name=f"part_{n}")(_noting(n, LONG_NOTES))


@slow.step
async def talk(input: dict[str, Any], ctx: kairos.StepContext) -> int:
    """One line each so many milliseconds, each a commit of its own."""
    for line in range(input["lines"]):
        ctx.log.info("still here", line=line)
        await asyncio.sleep(input["pause"])
    return int(input["lines"])
