"""Runs to replay, compare and export: written once per session by a real worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import kairos
from kairos.replay.reading import read_record
from kairos.replay.record import RunRecord
from kairos.store.connect import Session
from kairos.store.reader import Reader
from tests.cli.cli_support import Kairos, working
from tests.cli.conftest import _no_settings, place, run_kairos  # noqa: F401
from tests.conftest import Server, TestDatabase

app = kairos.App("shop")
order = app.workflow("order", input=dict)


@order.step
def reserve(input: dict) -> dict:
    return {"items": [{"sku": f"s{i}", "price": i} for i in range(120)], "card": input["card"]}


@order.step(retry=kairos.Retry(attempts=2, base="10ms", jitter=0))
def charge(input: dict, reserve: dict, ctx: kairos.StepContext) -> dict:
    ctx.log.info("charging", amount=input["amount"])
    if ctx.attempt == 1:
        raise ConnectionError(f"no answer for {reserve['card']}")
    if input["amount"] < 0:
        raise ValueError("a negative amount")
    return {"charged": input["amount"], "paid_with": reserve["card"]}


@order.step
def confirm(charge: dict) -> str:
    return f"charged {charge['charged']} né 名前"


STARTS = {
    "good": {"card": "4111-1111-1111-1111", "amount": 12},
    "other": {"card": "4222-2222-2222-2222", "amount": 13},
    "bad": {"card": "4111-1111-1111-1111", "amount": -1},
}


@pytest.fixture(scope="session")
def told(server: Server, template: str) -> tuple[TestDatabase, dict[str, UUID]]:
    """A database with three runs: two that are done, one that failed. Only to be read."""
    name = "kairos_replayed"
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute(f"drop database if exists {name} with (force)")
        conn.execute(f"create database {name} template {template}")
    database = TestDatabase(make_conninfo(server.app, dbname=name), make_conninfo(server.admin, dbname=name))
    runs: dict[str, UUID] = {}
    with working(app, database.dsn), kairos.Client(database.dsn) as client:
        for title, start in STARTS.items():
            run = client.start(order, start, labels={"card": start["card"]}, key=f"key-{title}")
            run.wait(30)
            runs[title] = run.info.id
    return database, runs


@pytest.fixture(scope="session")
def record_of(told: tuple[TestDatabase, dict[str, UUID]]) -> Callable[[str], RunRecord]:
    """The record of one of these runs, by its title."""

    async def read(run_id: UUID) -> RunRecord:
        session = Session(told[0].dsn, "kairos tests")
        try:
            return await read_record(Reader(session), run_id)
        finally:
            await session.close()

    return lambda title: asyncio.run(read(told[1][title]))


@pytest.fixture
def bundle(record_of: Callable[[str], RunRecord], tmp_path: Path) -> Path:
    """The run that is done, as a file."""
    from kairos.replay.bundle import write_bundle

    return write_bundle(record_of("good"), tmp_path / "good.kairos").path


@pytest.fixture
def kairos_there(
    request: pytest.FixtureRequest, told: tuple[TestDatabase, dict[str, UUID]], monkeypatch: pytest.MonkeyPatch
) -> Kairos:
    """Runs a command on the database of `told`, in an empty folder."""
    run: Kairos = request.getfixturevalue("run_kairos")
    monkeypatch.setenv("KAIROS_DATABASE_URL", told[0].dsn)
    return run
