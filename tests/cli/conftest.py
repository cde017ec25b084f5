"""Fixtures of the command line tests: `run_kairos` in this process, `start_kairos` in another, an app to run."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import kairos
from kairos.authoring.loading import load_app
from kairos.cli import entry
from tests.cli.cli_support import ROOT, Kairos, Process, Result, working
from tests.conftest import Server, TestDatabase

_COUNT = itertools.count(1)

FLOWS = """
import os, sys, time
from pathlib import Path
import kairos
from pydantic import BaseModel

app = kairos.App("shop")

class Order(BaseModel):
    order_id: str
    cents: int = 100

fulfil = app.workflow("fulfil", input=Order)

@fulfil.step
def reserve(order: Order) -> str:
    return f"{order.order_id} from A"

@fulfil.step(retry=kairos.Retry(attempts=3, base="10ms", jitter=0))
def charge(order: Order, reserve: str, ctx: kairos.StepContext) -> int:
    if ctx.attempt == 1:
        raise ConnectionError("no answer")
    ctx.log.info("charged", cents=order.cents)
    ctx.emit("cents", order.cents)
    return order.cents

@fulfil.step
def confirm(reserve: str, charge: int) -> dict:
    return {"text": f"{reserve}: {charge}"}

@app.job(retry=kairos.Retry(attempts=1))
def fail(text: str) -> str:
    detail = {"text": text}
    raise ValueError(text)

@app.job
def echo(value: dict) -> dict:
    return value

@app.job(queue="mail")
def mail(to: str) -> str:
    return to

@app.job
def shout(text: str) -> None:
    print(text)
    print(text, file=sys.stderr)

gate = app.workflow("gate", input=dict)

@gate.step
def wait_for_file(input: dict, ctx: kairos.StepContext) -> str:
    Path(input["begun"]).write_text(f"{os.getpid()} {ctx.attempt}")
    while not Path(input["open"]).exists():
        ctx.heartbeat()
        time.sleep(0.01)
    return f"attempt {ctx.attempt}"

@gate.step
def after(wait_for_file: str) -> str:
    return wait_for_file
"""


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of whoever runs the tests must not matter."""
    import os

    for name in os.environ:
        if name.startswith("KAIROS_") and name not in ("KAIROS_TEST_DATABASE_URL", "KAIROS_SEED"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with flows.py in it."""
    (tmp_path / "flows.py").write_text(FLOWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.fixture
def flows(place: Path) -> Iterator[ModuleType]:
    """The module flows.py, loaded."""
    load_app(f"{place / 'flows.py'}:app")
    yield next(m for m in sys.modules.values() if getattr(m, "__file__", None) == str(place / "flows.py"))
    for name in [n for n, m in sys.modules.items() if getattr(m, "__file__", None) == str(place / "flows.py")]:
        del sys.modules[name]


@pytest.fixture
def run_kairos(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Kairos:
    """Runs a command in this process."""

    def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
        with monkeypatch.context() as patch:
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            capsys.readouterr()
            code = entry.run(arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def on_database(run_kairos: Kairos, database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> Kairos:
    """Runs a command in this process, on a fresh database."""
    monkeypatch.setenv("KAIROS_DATABASE_URL", database.dsn)
    return run_kairos


@dataclass(frozen=True)
class Told:
    """A database in which something has happened: runs by name, to be cloned for each test."""

    __test__ = False
    source: str
    runs: dict[str, str]


def _tell(server: Server, template: str, name: str, folder: Path, starts: dict[str, dict[str, Any]]) -> Told:
    """Make a database called `name` in which these runs have been started, and those of queue `default` ended."""
    (folder / "flows.py").write_text(FLOWS)
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute(f"drop database if exists {name} with (force)")
        conn.execute(f"create database {name} template {template}")
    app = load_app(f"{folder / 'flows.py'}:app")
    dsn = make_conninfo(server.app, dbname=name)
    runs: dict[str, str] = {}
    with working(app, dsn), kairos.Client(dsn) as client:
        for title, start in starts.items():
            run = client.start(app.get(start.pop("workflow")), **start)
            runs[title] = run.id
            if run.info.queue == "default":
                run.wait(30)
    for module in [n for n, m in sys.modules.items() if getattr(m, "__file__", None) == str(folder / "flows.py")]:
        del sys.modules[module]
    return Told(name, runs)


@pytest.fixture(scope="session")
def shop_told(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A done order with key and label, a failed job, a job in a queue that nobody serves; oldest first."""
    starts: dict[str, dict[str, Any]] = {
        "order": {"workflow": "fulfil", "input": {"order_id": "7"}, "key": "k-7", "labels": {"customer": "42"}},
        "failure": {"workflow": "fail", "input": {"text": "no money"}},
        "waiting": {"workflow": "mail", "input": {"to": "x"}},
    }
    return _tell(server, template, "kairos_shop", tmp_path_factory.mktemp("shop"), starts)


HOSTILE = "née 名前 👍 \x1b[31mred [bold]x[/bold] \x07 \u202egnp.exe \x9b2J \u2028 end"


@pytest.fixture(scope="session")
def hostile_told(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Runs whose every text tries to harm the terminal."""
    starts: dict[str, dict[str, Any]] = {
        "echo": {"workflow": "echo", "input": {"value": {HOSTILE: HOSTILE}}, "key": HOSTILE},
        "fail": {"workflow": "fail", "input": {"text": HOSTILE}, "labels": {"l": HOSTILE}},
    }
    return _tell(server, template, "kairos_hostile", tmp_path_factory.mktemp("hostile"), starts)


@pytest.fixture
def told_database(
    request: pytest.FixtureRequest, server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestDatabase]:
    """A clone of the database of `shop_told`, or of the fixture that the test names by parameter."""
    told: Told = request.getfixturevalue(getattr(request, "param", "shop_told"))
    name = f"{told.source}_{next(_COUNT)}"
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute(f"create database {name} template {told.source}")
    database = TestDatabase(make_conninfo(server.app, dbname=name), make_conninfo(server.admin, dbname=name))
    monkeypatch.setenv("KAIROS_DATABASE_URL", database.dsn)
    yield database
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute(f"drop database if exists {name} with (force)")


@pytest.fixture
def in_shop(run_kairos: Kairos, told_database: TestDatabase) -> Kairos:
    """Runs a command in this process, on a database in which something has happened."""
    return run_kairos


@pytest.fixture
def start_kairos(place: Path, database: TestDatabase) -> Iterator[Callable[..., Process]]:
    """Starts a command in a process of its own, on a fresh database."""
    started: list[Process] = []

    def start(*arguments: str, env: dict[str, str] | None = None, script: str | None = None) -> Process:
        process = Process(arguments, place, {"KAIROS_DATABASE_URL": database.dsn, **(env or {})}, script=script)
        started.append(process)
        return process

    yield start
    for process in started:
        process.destroy()
