"""`kairos replay RUN --trace STEP`: a step of a run that a real worker wrote, recorded behind the guards."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import kairos
from kairos.authoring.loading import load_app
from kairos.domain.states import RunStatus
from kairos.replay.bundle import export_bundle
from kairos.replay.trace.history import Trace
from kairos.replay.trace.layout import About
from kairos.replay.trace.values import render
from kairos.store.connect import Session
from kairos.store.reader import Reader
from tests.cli.cli_support import working
from tests.conftest import Server, TestDatabase
from tests.replay.replay_support import Replayed, environment, replay
from tests.replay.trace.test_serving_an_ide import Client
from tests.replay.trace.tracing_support import positions, shown_locals

APP = """
import asyncio, os, time
import kairos

app = kairos.App("billing")
bill = app.workflow("bill", input=dict)
THERE = not os.environ.get("KAIROS_REPLAY")

@bill.step
def load(input: dict) -> list:
    return [{"id": n, "cents": n * 100} for n in range(input["orders"])] + [{"id": 99, "cents": -5}]

@bill.step
async def rate(load: list, ctx: kairos.StepContext) -> float:
    found = await ctx.call("rate", ask)
    await asyncio.sleep(0)
    return found

async def ask() -> float:
    return 1.5 if THERE else 99.0

@bill.step(retry=kairos.Retry(attempts=1))
def charge(load: list, rate: float, input: dict, ctx: kairos.StepContext) -> int:
    card = input["card_number"]
    key = kairos.Secret("env:BILL_KEY").reveal()
    total = 0
    for order in load:
        amount = order["cents"] * rate
        if amount < 0:
            raise ValueError(f"order {order['id']} owes {amount}")
        total += amount
    return total

@bill.step
def never(charge: int) -> int:
    return charge
"""


class Place:
    """A folder with the app and a bundle of a run whose third step failed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def replay(self, *arguments: str, stdin: str = "", app: str = "billing.py") -> Replayed:
        """`kairos replay run.kairos ...`, without any database."""
        env = {"BILL_KEY": "s3cr3t-of-the-shop"}
        return replay(self.folder, "run.kairos", "--app", f"{app}:app", *arguments, env=env, stdin=stdin)


@pytest.fixture(scope="module")
def place(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("billing")
    (folder / "billing.py").write_text(APP)
    name = "kairos_tracing"
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute(f"drop database if exists {name} with (force)")
        conn.execute(f"create database {name} template {template}")
    database = TestDatabase(make_conninfo(server.app, dbname=name), make_conninfo(server.admin, dbname=name))
    app = load_app(f"{folder / 'billing.py'}:app")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BILL_KEY", "s3cr3t-of-the-shop")
        with working(app, database.dsn), kairos.Client(database.dsn) as client:
            run = client.start("bill", {"orders": 3, "card_number": "4111"})
            run.wait(30)
            assert run.info.status is RunStatus.FAILED
            asyncio.run(_export(database.dsn, run.info.id, folder / "run.kairos"))
    return Place(folder)


async def _export(dsn: str, run: UUID, path: Path) -> None:
    session = Session(dsn, "kairos tests")
    try:
        await export_bundle(Reader(session), run, path)
    finally:
        await session.close()


def test_a_failed_step_is_stepped_through_backwards_in_the_same_command(place: Place) -> None:
    done = place.replay("--trace", "charge", stdin="last amount\nprint order['id']\nprint load[3]['cents']\nrc\nq\n")
    assert done.code == 0, done.err
    assert re.search(r"note: recorded \d+ events, x[\d.]+ slower", done.out)
    assert "raises ValueError('order 99 owes -7.5')" in done.out
    assert "this line made amount = -7.5" in done.out
    assert "\n99\n" in done.out
    assert "\n-5\n" in done.out
    assert not list(Path("/tmp").glob("kairos-trace-*/step.ktrace"))


def test_a_trace_is_kept_where_it_is_asked_for_and_holds_no_secret(place: Place) -> None:
    done = place.replay("--trace", "charge", "--trace-out", "charge.ktrace")
    assert done.code == 0, done.err
    assert "open it with: kairos trace charge.ktrace" in done.out
    trace = Trace.open(place.folder / "charge.ktrace")
    about = trace.header.about
    assert about == About(about.run, "bill", "charge", 1)
    assert re.fullmatch(r"[0-9a-f-]{36}", about.run)
    assert trace.header.plain_ns is not None
    assert trace.failure is not None
    told = shown_locals(trace, trace.failure)
    assert (told["amount"], told["total"], told["rate"]) == ("-7.5", "450.0", "1.5")
    assert (told["ctx"], told["key"]) == ("<StepContext…>", "'[redacted]'")
    everything = repr([trace.file.value(n) for n in range(trace.file.value_count)]) + repr(trace.header)
    assert "s3cr3t" not in everything


def test_an_async_step_is_recorded_and_its_effects_are_served(place: Place) -> None:
    done = place.replay("--only", "rate", "--trace", "rate", "--trace-out", "rate.ktrace")
    assert done.code == 0, done.err
    trace = Trace.open(place.folder / "rate.ktrace")
    assert {function.name for function in trace.header.functions} == {"rate"}
    assert render(trace.value(trace.last)) == "1.5"
    assert len({trace.file.frames[at] for at in positions(trace, "rate")}) == 1


def test_a_trace_replaces_the_one_before(place: Place) -> None:
    for _ in range(2):
        done = place.replay("--only", "load", "--trace", "load", "--trace-out", "again.ktrace", "--json")
        assert done.code == 0, done.err
        assert done.json["trace"] == "again.ktrace"
    Trace.open(place.folder / "again.ktrace").file.verify()


def test_an_ide_is_served_from_the_replay(place: Place) -> None:
    command = ["replay", "run.kairos", "--app", "billing.py:app", "--trace", "charge", "--reverse", "--dap", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "kairos.cli", *command], cwd=place.folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment(PYTHONUNBUFFERED="1"),
    )  # fmt: skip
    try:
        assert process.stderr is not None
        found = next(match for line in process.stderr if (match := re.search(r"127\.0\.0\.1:(\d+)", line)))
        client = Client(int(found[1]))
        client.attach()
        assert client.locals()["amount"]["value"] == "-7.5"
        client.move("stepBack")
        client.body("disconnect")
        client.close()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--trace", "chrge"], 2, "there is no step 'chrge' to trace"),
        (["--trace-out", "x.ktrace"], 2, "what is to be recorded?"),
        (["--dap", "0"], 2, "what is to be recorded?"),
        (["--reverse"], 2, "what is to be recorded?"),
        (["--trace", "charge", "--json"], 2, "--json prints one document"),
        (["--trace", "charge", "--dap", "99999"], 2, "99999"),
        (["--trace", "charge", "--trace-into", "nowhere"], 2, "no package 'nowhere'"),
        (["--trace", "charge", "--trace-out", "no/such/folder/x.ktrace"], 2, "cannot be written"),
    ],
    ids=range(8),
)
def test_wrong_requests_are_explained(place: Place, arguments: list[str], code: int, complaint: str) -> None:
    done = place.replay(*arguments)
    assert complaint in " ".join((done.out + done.err).split())
    assert done.code == code
    assert "Traceback" not in done.err


def test_a_step_that_is_not_run_is_not_recorded_and_that_is_said(place: Place) -> None:
    done = place.replay("--trace", "never", stdin="q\n")
    assert "note: step never was not run, so nothing was recorded" in done.out


def test_a_step_that_hangs_is_recorded_up_to_where_it_hung(place: Place) -> None:
    hung = APP.replace("        total += amount\n", "        while amount:\n            time.sleep(0.01)\n")
    assert hung != APP
    (place.folder / "hung.py").write_text(hung)
    arguments = ["--only", "charge", "--trace", "charge", "--trace-out", "hung.ktrace", "--timeout", "1s"]
    done = place.replay(*arguments, app="hung.py")
    assert "at least x" in done.out
    trace = Trace.open(place.folder / "hung.ktrace")
    assert trace.failure is not None
    assert "KeyboardInterrupt" in render(trace.value(trace.failure))
    assert shown_locals(trace, trace.failure)["amount"] == "150.0"
