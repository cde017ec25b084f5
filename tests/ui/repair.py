"""Runs that are worth forking and comparing: typed data, a bug in one step, a version without it."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field

import kairos
from tests.cli.cli_support import working
from tests.ui.support import Told


class Speed(enum.Enum):
    """How fast."""

    slow = "slow"
    fast = "fast"


class Address(BaseModel):
    """Where to."""

    city: str
    country: str = Field("DE", pattern="^[A-Z]{2}$")


class Order(BaseModel):
    """What is ordered."""

    order_id: str
    parts: int = Field(0, ge=0)
    express: bool = False
    speed: Speed = Speed.slow
    coupon: str | None = None
    address: Address = Address(city="Berlin")
    lines: list[str] = []


class Login(BaseModel):
    """Holds a secret by its name."""

    token: kairos.Secret
    n: int = 1


class Reserved(BaseModel):
    """What was set aside."""

    warehouse: str
    shelf: int = 1


def repairs() -> kairos.App:
    """`refund`: charge divides by the parts of the order; 0 fails. `secretive`: takes a secret."""
    app = kairos.App("repairs")
    refund = app.workflow("refund", input=Order)

    @refund.step
    def reserve(order: Order) -> Reserved:
        return Reserved(warehouse="A")

    @refund.step
    def weigh(order: Order) -> dict[str, Any]:
        return {"grams": 400, "of": [order.order_id, "x" * 2000]}

    @refund.step(retry=kairos.Retry(attempts=1))
    def charge(order: Order, reserve: Reserved, weigh: dict[str, Any]) -> dict[str, Any]:
        return {"each": 100 // order.parts, "from": reserve.warehouse}

    @refund.step
    def pack(reserve: Reserved) -> str:
        return f"packed in {reserve.warehouse}"

    @refund.step
    def ship(charge: dict[str, Any], pack: str) -> str:
        return f"{pack} for {charge['each']}"

    secretive = app.workflow("secretive", input=Login)

    @secretive.step
    def hide(login: Login) -> dict[str, Any]:
        return {"n": login.n, "ok": True}

    return app


@contextlib.contextmanager
def repairing(dsn: str) -> Iterator[Told]:
    """Start the runs; the worker goes on for the length of the block."""
    app = repairs()
    with working(app, dsn), kairos.Client(dsn) as client:
        told = Told(dsn, client=client, app=app)
        given = {
            "good": ("refund", {"order_id": "o-1", "parts": 4}),
            "bad": ("refund", {"order_id": "o-1", "parts": 0}),
            "secret": ("secretive", {"token": {"$secret": "env:PATH"}, "n": 1}),
        }
        for name, (workflow, value) in given.items():
            run = client.start(app.get(workflow), value)
            told.runs[name] = run.id
            run.wait(60)
        yield told
