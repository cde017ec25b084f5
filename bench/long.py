"""Long runs. Apart from the other workflows: a definition of 10,000 steps takes seconds to build."""

from __future__ import annotations

import asyncio
import os

import kairos
from bench.flows import Record, chain_of

LENGTH = int(os.environ.get("BENCH_LENGTH", "10000"))
LINES = 1000
"""Log lines of one step, as many as it may have."""

app = kairos.App("bench-long")
longest = chain_of(LENGTH, "longest", app)
talk = app.workflow("talk", input=Record)


async def say(input: Record, ctx: kairos.StepContext) -> None:
    """Log `LINES` lines, an event each."""
    for number in range(LINES):
        ctx.log.info("line", number=number)
    await asyncio.sleep(0)


for _number in range(100):
    talk.step(name=f"t{_number}", after=[f"t{_number - 1}"] if _number else [])(say)
