"""The runs that the tests look at. Written by the real engine."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import kairos
from tests.cli.cli_support import working
from tests.ui.support import Told

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "{{7*7}}${7*7}",
    "\"' onmouseover=alert(1) x='",
    "<a hx-get=//evil.example hx-trigger=load>x</a>",
    "\u2028\u2029\u202egnp.exe\ufeff",
    "javascript:alert(1)",
    "<svg/onload=alert(1)>",
    "]]><!--",
]

GATES: dict[str, threading.Event] = {}


async def exchange_rate(currency: str) -> float:
    """What the world answers."""
    return 1.08 if currency == "EUR" else 1.0


def shop() -> kairos.App:
    """An app with steps that work, fail, retry, log, fan out and wait."""
    app = kairos.App("shop")
    order = app.workflow("fulfil-order", input=dict)

    @order.step
    async def reserve(input: dict) -> dict:
        return {"warehouse": "A", "lines": [{"sku": f"s{i}", "qty": i} for i in range(300)], "note": "x" * 3000}

    @order.step(retry=kairos.Retry(attempts=3, base="30ms", jitter=0))
    async def charge(input: dict, reserve: dict, ctx: kairos.StepContext) -> dict:
        amount = input["amount"]
        ctx.log.info("charging", amount=amount)
        ctx.emit("amount", amount)
        rate = await ctx.call("rate", exchange_rate, "EUR")
        if input.get("declined") or ctx.attempt == 1:
            raise ConnectionError("card declined")
        return {"charged": amount, "rate": rate}

    @order.step
    async def ship(charge: dict) -> str:
        return "sent"

    letters = app.workflow("newsletter", input=dict)

    @letters.step
    async def plan(input: dict) -> int:
        return input["fail"]

    def sender(number: int) -> Any:
        async def send(plan: int) -> int:
            if number == plan:
                raise ValueError(f"address {number} bounced")
            return number

        return send

    sends = [letters.step(name=f"send_{i}", retry=kairos.Retry(attempts=1))(sender(i)) for i in range(12)]

    @letters.step(after=sends)
    async def report(plan: int) -> str:
        return "ok"

    gate = app.workflow("gate", input=dict)

    @gate.step
    async def wait_here(input: dict, ctx: kairos.StepContext) -> int:
        rounds = 0
        while not GATES[input["gate"]].is_set():
            await asyncio.sleep(0.02)
            if input.get("talk"):
                rounds += 1
                ctx.log.info("still here", round=rounds)
        return rounds

    @gate.step
    async def after(wait_here: int) -> int:
        return wait_here

    @app.job(retry=kairos.Retry(attempts=1))
    def harm(text: list, ctx: kairos.StepContext) -> dict:
        for piece in text:
            ctx.log.warning(piece, piece=piece)
        if len(text) > 1:
            raise ValueError(text[0] + text[1])
        return {piece: piece for piece in text}

    @app.job(queue="nobody")
    def unserved(to: str) -> str:
        return to

    return app


def open_gate(name: str) -> None:
    """Let the runs that wait at this gate go on."""
    GATES[name].set()


@contextlib.contextmanager
def tell(dsn: str) -> Iterator[Told]:
    """Start the runs; the worker goes on for the length of the block."""
    app = shop()
    with working(app, dsn), kairos.Client(dsn) as client:
        told = Told(dsn, client=client, app=app)

        def start(name: str, workflow: str, value: Any, **more: Any) -> Any:
            run = client.start(app.get(workflow), value, **more)
            told.runs[name] = run.id
            return run

        runs = [
            start("done", "fulfil-order", {"amount": 5}, key="order-1", labels={"customer": "42"}),
            start("failed", "fulfil-order", {"amount": 7, "declined": True}),
            start("fan", "newsletter", {"fail": 7}),
            start("harm", "harm", {"text": HOSTILE}, key=HOSTILE[1], labels={"l": HOSTILE[0]}),
            start("values", "harm", {"text": [HOSTILE[0]]}),
        ]
        start("waiting", "unserved", {"to": "x"})
        for run in runs:
            run.wait(60)
        fork = client.fork(
            told.runs["failed"], from_step="charge", set={"input.declined": False}, reason="card <b>renewed</b>"
        )
        told.runs["fork"] = fork.id
        fork.wait(60)
        try:
            yield told
        finally:
            for gate in GATES.values():
                gate.set()
