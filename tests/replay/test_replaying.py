"""`kairos replay` on runs that a real worker wrote: verdicts, modes, output, exit codes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import kairos
from kairos.authoring.loading import load_app
from kairos.domain.events import EffectRecorded
from kairos.replay.bundle import export_bundle
from kairos.store.connect import Session
from kairos.store.reader import Reader
from tests.cli.cli_support import eventually, working
from tests.conftest import Server, TestDatabase
from tests.replay.replay_support import Replayed, replay

APP = """
import asyncio, functools, json, os, random, threading, time, uuid
from datetime import UTC, datetime
from pathlib import Path
import psycopg
import kairos
from pydantic import BaseModel

app = kairos.App("shop")
THERE = not os.environ.get("KAIROS_REPLAY")     # in production

class Order(BaseModel):
    order_id: str
    cents: int = 100
    key: kairos.Secret = kairos.Secret("env:SHOP_KEY")

class Tax:
    def __init__(self, rate): self.rate = rate
    def of(self, order: Order) -> float: return order.cents * self.rate

def logged(fn):
    @functools.wraps(fn)
    def inner(*args, **kwargs): return fn(*args, **kwargs)
    return inner

shapes = app.workflow("shapes", input=Order)

@shapes.step
def plain(order: Order) -> dict:
    return {"id": order.order_id, "né 名前": ["\\u202e", None, 1.5]}

@shapes.step
async def waits(order: Order, plain: dict) -> str:
    await asyncio.sleep(0.001)
    return f"{plain['id']} waited"

shapes.step(name="method")(Tax(0.2).of)

def _much(order: Order, much: int) -> int:
    return much

shapes.step(name="partial")(functools.partial(_much, much=3))

@shapes.step
@logged
def decorated(order: Order, method: float) -> float:
    return round(method, 2)

@shapes.step
def calls(order: Order, ctx: kairos.StepContext) -> dict:
    rate = ctx.call("rate", lambda: {"rate": 1.5 if THERE else 99})
    for n in range(3):
        rate[f"n{n}"] = ctx.call("count", lambda k: k if THERE else -1, n)
    ctx.log.info("rated", rate=rate["rate"])
    ctx.emit("rate", rate["rate"])
    return {**rate, "at": ctx.now().isoformat(), "id": str(ctx.uuid()), "dice": ctx.random()}

@shapes.step
async def calls_async(order: Order, ctx: kairos.StepContext) -> list:
    async def ask(n: int) -> int:
        await asyncio.sleep(0)
        return n if THERE else -1
    return await asyncio.gather(*(ctx.call(f"ask {n}", ask, n) for n in range(4)))

@shapes.step(retry=kairos.Retry(attempts=3, base="10ms", jitter=0))
def retried(order: Order, ctx: kairos.StepContext) -> dict:
    first = ctx.call("first", lambda: "paid" if THERE else "twice")
    if ctx.attempt == 1:
        raise ConnectionError("no answer")
    try:
        ctx.call("flaky", _flaky)
    except TimeoutError as exc:
        seen = str(exc)
    return {"first": first, "seen": seen, "attempt": ctx.attempt, "token": ctx.token > 0, "key": ctx.idempotency_key}

def _flaky():
    raise TimeoutError("slow" if THERE else "not served")

@shapes.step
def undetermined(order: Order) -> dict:
    return {"at": time.time(), "id": str(uuid.uuid4()), "dice": random.random(), "sure": order.order_id}

@shapes.step
def secretive(order: Order) -> dict:
    return {"length": len(order.key.reveal())}

@shapes.step
def transactional(order: Order, conn: psycopg.Connection) -> int:
    return conn.execute("select 7").fetchone()[0]

@shapes.step
def after_it(transactional: int) -> int:
    return transactional + 1

@shapes.step
def nothing() -> None:
    pass

@shapes.step
def large(order: Order) -> list:
    return [{"n": n, "text": "x" * 50} for n in range(500)]

@shapes.step
def prints(order: Order) -> str:
    print("out loud")
    os.write(1, b"raw\\n")
    return "quiet"

six = app.workflow("six", input=Order)

@six.step
def fetch(order: Order) -> dict:
    return {"cents": order.cents, "items": [{"sku": f"s{i}", "n": i} for i in range(5)]}

@six.step
def check(fetch: dict) -> int:
    return len(fetch["items"])

@six.step
def price(fetch: dict) -> float:
    return fetch["cents"] / 100

@six.step(retry=kairos.Retry(attempts=2, base="10ms", jitter=0))
def charge(price: float, check: int, ctx: kairos.StepContext) -> dict:
    detail = {"price": price}
    if check > 4:
        raise ValueError(f"too many items: {check}")
    return {"charged": ctx.call("charge", lambda: price), "items": check}

@six.step
def email(order: Order, charge: dict) -> str:
    return f"{order.order_id}: {charge['charged']}"

@six.step
def close(email: str) -> int:
    return len(email)

hang = app.workflow("hang", input=Order)

@hang.step
def begin(order: Order, ctx: kairos.StepContext) -> str:
    return ctx.call("before", lambda: "made" if THERE else "again")

@hang.step
def stuck(order: Order, begin: str, ctx: kairos.StepContext) -> str:
    token = ctx.call("token", lambda: "t-1" if THERE else "t-2")
    while not Path(os.environ.get("SHOP_GATE", "/nowhere")).exists():
        time.sleep(0.01)
    return token

@hang.step
def never(stuck: str) -> str:
    return stuck
"""


@dataclass(frozen=True)
class Shop:
    """A folder with the app, and a database with runs of it."""

    place: Path
    database: TestDatabase
    runs: dict[str, str]

    def replay(self, run: str, *arguments: str, app: str = "shop.py", env: dict[str, str] | None = None) -> Replayed:
        """`kairos replay RUN ...`"""
        given = {"KAIROS_DATABASE_URL": self.database.dsn, **(env or {})}
        return replay(self.place, self.runs.get(run, run), *arguments, "--app", f"{app}:app", env=given)

    def edited(self, name: str, *changes: tuple[str, str]) -> str:
        """The app with these changes, as another file."""
        text = APP
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (self.place / name).write_text(text)
        return name


@pytest.fixture(scope="module")
def shop(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """One run of each workflow: done, failed in its fourth step, and, as a file, hung in its second."""
    place = tmp_path_factory.mktemp("shop")
    (place / "shop.py").write_text(APP)
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute("drop database if exists kairos_replaying with (force)")
        conn.execute(f"create database kairos_replaying template {template}")
    database = TestDatabase(
        make_conninfo(server.app, dbname="kairos_replaying"), make_conninfo(server.admin, dbname="kairos_replaying")
    )
    app = load_app(f"{place / 'shop.py'}:app")
    gate = place / "gate"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_KEY", "sesame-sesame")
        patch.setenv("SHOP_GATE", str(gate))
        with working(app, database.dsn), kairos.Client(database.dsn) as client:
            runs = {name: client.start(app.get(name), {"order_id": "42"}) for name in ("shapes", "six", "hang")}
            for name in ("shapes", "six"):
                runs[name].wait(30)
            eventually(lambda: _has_effect(client, runs["hang"].id, "stuck"))
            asyncio.run(_export(database.dsn, runs["hang"].id, place / "hung.kairos"))
            gate.touch()
            runs["hang"].wait(30)
    gate.unlink()
    return Shop(place, database, {name: run.id for name, run in runs.items()} | {"hang": "hung.kairos"})


def _has_effect(client: kairos.Client, run: str, step: str) -> bool:
    events = [recorded.event for recorded in client.events(run)]
    return any(isinstance(event, EffectRecorded) and event.step == step for event in events)


async def _export(dsn: str, run: str, path: Path) -> None:
    session = Session(dsn, "kairos tests")
    try:
        await export_bundle(Reader(session), UUID(run), path)
    finally:
        await session.close()


def test_every_shape_of_step_is_replayed(shop: Shop) -> None:
    done = shop.replay("shapes", "--json", env={"SHOP_KEY": "sesame-sesame"})
    assert done.code == 0, done.err
    expected = dict.fromkeys(done.verdicts, "same") | {"undetermined": "approximate", "transactional": "served"}
    assert done.verdicts == expected
    assert len(expected) == 15
    effects = {name: step["effects"]["served"] for name, step in done.steps.items() if "effects" in step}
    assert {name: n for name, n in effects.items() if n} == {"calls": 7, "calls_async": 4, "retried": 2}
    assert {item["path"] for item in done.steps["undetermined"]["differences"]["differences"]} == {"at", "id", "dice"}
    assert done.steps["retried"]["attempt"] == 2
    assert done.json["code_changes"] == {}
