"""The workflows that are measured."""

from __future__ import annotations

from typing_extensions import TypedDict

import kairos

app = kairos.App("bench")


class Record(TypedDict):
    """About 200 bytes of JSON."""

    id: int
    name: str
    qty: int
    ok: bool
    tags: list[str]
    note: str


RECORD: Record = {"id": 0, "name": "widget", "qty": 3, "ok": True, "tags": ["a", "b", "c"], "note": "x" * 110}

chain = app.workflow("chain", input=Record)


@chain.step
async def s0(input: Record) -> Record:
    """First of five."""
    return {**input, "id": input["id"] + 1}


@chain.step
async def s1(s0: Record) -> Record:
    """Second."""
    return {**s0, "id": s0["id"] + 1}


@chain.step
async def s2(s1: Record) -> Record:
    """Third."""
    return {**s1, "id": s1["id"] + 1}


@chain.step
async def s3(s2: Record) -> Record:
    """Fourth."""
    return {**s2, "id": s2["id"] + 1}


@chain.step
async def s4(s3: Record) -> Record:
    """Last."""
    return {**s3, "id": s3["id"] + 1}
