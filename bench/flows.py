"""The workflows that are measured."""

from __future__ import annotations

import base64
import os
import time

from typing_extensions import TypedDict

import kairos
from bench.record import RECORD as _RECORD
from kairos.authoring import Workflow

app = kairos.App("bench")


class Record(TypedDict):
    """About 200 bytes of JSON."""

    id: int
    name: str
    qty: int
    ok: bool
    tags: list[str]
    note: str


RECORD: Record = {**_RECORD}  # type: ignore[typeddict-item]


async def first(input: Record) -> Record:
    """The trivial step, for the run's input."""
    return {**input, "id": input["id"] + 1}


async def following(before: Record) -> Record:
    """The trivial step, for the output of the step before."""
    return {**before, "id": before["id"] + 1}


def chain_of(length: int, name: str, owner: kairos.App) -> Workflow:
    """A workflow of `length` trivial steps, one after the other."""
    made = owner.workflow(name, input=Record)
    made.step(name="s0")(first)
    for number in range(1, length):
        made.step(name=f"s{number}", needs={"before": f"s{number - 1}"})(following)
    return made


def fan_of(width: int, owner: kairos.App) -> Workflow:
    """A workflow of `width` trivial steps side by side, and a join."""
    made = owner.workflow("fan", input=Record)
    parts = [made.step(name=f"f{number}")(first) for number in range(width)]

    async def join() -> int:
        """Waits for all of them."""
        return width

    made.step(after=parts)(join)
    return made


chain = chain_of(5, "chain", app)
chain10 = chain_of(10, "chain10", app)


@app.job
async def job(t: float) -> None:
    """A trivial job."""


@app.job
async def pickup(t: float) -> float:
    """Seconds from `t`, the moment before the enqueue, to the start of this body."""
    return time.time() - t


heavy = app.workflow("heavy", input=int)


def _text(size: int) -> str:
    # Fresh for each step, so that neither compression nor content addressing makes it smaller.
    return base64.b64encode(os.urandom(size * 3 // 4 + 3)).decode()[:size]


@heavy.step
async def h0(input: int) -> str:
    """As many characters as asked for."""
    return _text(input)


@heavy.step
async def h1(h0: str) -> str:
    """As many again."""
    return _text(len(h0))


@heavy.step
async def h2(h1: str) -> str:
    """As many again."""
    return _text(len(h1))


@heavy.step
async def h3(h2: str) -> str:
    """As many again."""
    return _text(len(h2))
