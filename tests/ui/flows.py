"""Runs through which values of known origin flow. Written by the real engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from hashlib import sha256
from random import Random
from typing import Any

import kairos
from tests.cli.cli_support import working
from tests.ui.support import Told

SEED = 7
AMBIGUOUS = [f"twin-{i}-{sha256(str(i).encode()).hexdigest()[:8]}" for i in range(6)]
DEEP = 95
"""Levels of nesting; the engine stores no more than 100."""


class Truth:
    """Where each value was made: (verdict, step, effect)."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[str, str | None, str | None]] = {}

    def new(self, verdict: str, step: str | None, name: str, effect: str | None = None) -> str:
        value = sha256(f"{SEED} {verdict} {step} {name} {effect}".encode()).hexdigest()[:14]
        self.made[value] = (verdict, step, effect)
        return value


TRUTH = Truth()


def order() -> dict[str, Any]:
    """The input: values that stand there once, and some that stand there twice."""
    return {
        "customer": {"email": "ada@example.com", "id": TRUTH.new("input", None, "customer"), "vip": True},
        "lines": [{"sku": TRUTH.new("input", None, f"sku{i}"), "qty": i % 3} for i in range(24)],
        "twins": {"here": AMBIGUOUS, "there": AMBIGUOUS},
    }


def texts(value: Any) -> list[str]:
    """All generated texts in a value."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [text for item in inside for text in texts(item)]
    return [value] if isinstance(value, str) and value in TRUTH.made else found


async def build(step: str, ctx: kairos.StepContext, **given: Any) -> dict[str, Any]:
    """What a step makes: some of what it was given, answers of its effects, and values of its own."""
    dice = Random(f"{SEED}{step}")
    seen = texts(list(given.values()))
    answers = []
    for i in range(4):

        async def ask(about: str, number: int = i) -> dict[str, Any]:
            return {
                "about": about,
                "rows": [TRUTH.new("effect", step, f"{number}.{j}", f"ask_{number}") for j in range(3)],
            }

        answers.append(await ctx.call(f"ask_{i}", ask, dice.choice(seen)))
    kept = dice.sample(seen, min(len(seen), 12))
    return {
        "ok": True,
        "kept": {f"k{i}": text for i, text in enumerate(kept)},
        "answers": [row for answer in answers for row in dice.sample(answer["rows"], 2)],
        "made": [{"id": TRUTH.new("produced", step, str(i)), "n": i} for i in range(18)],
        "repeated": dice.sample(kept, min(len(kept), 2)),
    }


def flows() -> kairos.App:
    """The app."""
    app = kairos.App("flows")
    flow = app.workflow("flow", input=dict)

    @flow.step
    async def fetch(input: dict, ctx: kairos.StepContext) -> dict:
        return await build("fetch", ctx, input=input)

    @flow.step(retry=kairos.Retry(attempts=2, base="10ms", jitter=0))
    async def enrich(input: dict, fetch: dict, ctx: kairos.StepContext) -> dict:
        made = await build("enrich", ctx, input=input, fetch=fetch)
        if ctx.attempt == 1:
            raise ConnectionError(f"no answer about {input['customer']['email']}")
        return made

    @flow.step
    async def price(fetch: dict, ctx: kairos.StepContext) -> dict:
        return await build("price", ctx, fetch=fetch)

    @flow.step
    async def pack(enrich: dict, price: dict, ctx: kairos.StepContext) -> dict:
        ctx.log.info("packing", parcels=2, mark="visible-mark")
        return await build("pack", ctx, enrich=enrich, price=price)

    @flow.step
    async def bill(input: dict, price: dict, ctx: kairos.StepContext) -> dict:
        made = await build("bill", ctx, input=input, price=price)
        return {**made, "twin": input["twins"]["here"][0], "customer": input["customer"], "flag": True}

    @flow.step
    async def ship(pack: dict, bill: dict, ctx: kairos.StepContext) -> dict:
        made = await build("ship", ctx, pack=pack, bill=bill)
        return {**made, "to": bill["customer"]["email"], "twin": bill["twin"]}

    @app.job
    def large(items: int, text: int) -> dict:
        deep: Any = "bottom-of-it"
        for level in range(DEEP):
            deep = [deep] if level % 2 else {"in": deep}
        return {
            "deep": deep,
            "list": list(range(items)),
            "text": "x" * text + " needle-at-the-end",
            "a key": {"x.y": [1, {'q"u': "odd-names-inside"}]},
            "0": "digit-name-1",
        }

    @app.job
    def heavy(text: int) -> dict:
        return {"text": "y" * text, "id": "heavy-id-1"}

    return app


@contextlib.contextmanager
def flowing(dsn: str) -> Iterator[Told]:
    """Start the runs; the worker goes on for the length of the block."""
    app = flows()
    with working(app, dsn), kairos.Client(dsn) as client:
        told = Told(dsn, client=client, app=app)
        started = {
            "flow": client.start(app.get("flow"), order()),
            "large": client.start(app.get("large"), {"items": 100_000, "text": 3_000_000}),
            "heavy": client.start(app.get("heavy"), {"text": 10_000_000}),
        }
        for name, run in started.items():
            run.wait(60)
            told.runs[name] = run.id
        edits = {"input.customer.email": "eve@example.org"}
        fork = client.fork(told.runs["flow"], from_step="bill", set=edits, reason="moved")
        fork.wait(60)
        told.runs["fork"] = fork.id
        yield told
