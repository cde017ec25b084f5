"""`kairos dev` and `kairos demo`: what a newcomer sees first."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from kairos import embedded
from kairos.cli import exits
from kairos.cli.moral import example
from tests.cli.cli_support import Kairos, Process, children_of
from tests.conftest import TestDatabase

Start = Callable[..., Process]
AT = ("--app", "flows.py:app")


def test_dev_greets_serves_every_queue_and_tells_of_endings(start_kairos: Start, on_database: Kairos) -> None:
    process = start_kairos("dev", *AT)
    process.says(r"ready +fulfil, fail, echo, mail, shout, gate  \(queues: default, mail\)")
    assert "app       flows.py:app" in process.text
    assert on_database("run", "mail", *AT, "-i", '{"to": "x"}', "-w").code == 0
    process.says(r"done +mail \w{8} in ")
    on_database("run", "fail", *AT, "-i", '{"text": "no"}', "-w")
    process.says(r"failed +fail \w{8} in \S+  fail: ValueError: no   kairos show \w{8}")
    process.signal(signal.SIGINT)
    assert process.ends() == 0
    assert "Traceback" not in process.text


def test_dev_reloads_and_survives_mistakes(start_kairos: Start, on_database: Kairos, place: Path) -> None:
    text = (place / "flows.py").read_text()
    process = start_kairos("dev", *AT)
    process.says("ready")
    (place / "flows.py").write_text(text.replace('return f"{order.order_id} from A"', 'return "from B"'))
    process.says(r"changed +flows\.py: reloading")
    process.says("ready", times=2)
    done = on_database("run", "fulfil", "-i", '{"order_id": "7"}', "--wait", "--json")
    assert done.json["output"] == {"text": "from B: 100"}
    (place / "flows.py").write_text("def (")
    process.says("SyntaxError")
    process.says("app_not_loaded .*save a change to try again")
    (place / "flows.py").write_text(text)
    process.says("ready", times=3)
    assert on_database("run", "echo", "-i", '{"value": {}}', "--wait").code == 0
    process.signal(signal.SIGTERM)
    assert process.ends() == 0


def test_dev_replaces_a_worker_that_dies(start_kairos: Start) -> None:
    process = start_kairos("dev", *AT)
    process.says("ready")
    os.kill(children_of(process.pid)[0], signal.SIGSEGV)
    process.says("worker_died .*signal=SIGSEGV")
    process.says("ready", times=2)


def test_dev_brings_its_own_database(start_kairos: Start, run_kairos: Kairos, place: Path) -> None:
    env = {"KAIROS_DATABASE_URL": "", "KAIROS_DATA_DIR": str(place / "data"), "KAIROS_EMBEDDED_GRACE": "1s"}
    try:
        process = start_kairos("dev", *AT, env=env)
        process.says("embedded PostgreSQL in data")
        process.says("ready", timeout=60)
        assert run_kairos("run", "echo", "-i", '{"value": {"n": 1}}', "-w", "--json", env=env).json["output"] == {
            "n": 1
        }
        process.signal(signal.SIGINT)
        assert process.ends() == 0
    finally:
        embedded.stop(place / "data", force=True)


@pytest.mark.timeout(180)
def test_the_demo_kills_a_worker_and_shows_the_recovery(
    start_kairos: Start, on_database: Kairos, database: TestDatabase
) -> None:
    process = start_kairos("demo", env={"KAIROS_LEASE": "600s"})
    assert process.ends(150) == 0, process.text
    page = process.text
    assert re.search(r"kill -9 +worker \d+, while it was running \w+", page)
    assert re.search(r"lost +\d attempts?: parse_\d", page)
    assert re.search(r"recovered +\d+\.\ds later a new worker took over; \d steps? ran again", page)
    assert "hash chain and stored state: whole" in page
    assert re.search(r"result +\d+ modules, ", page)
    commands = re.findall(r"^  kairos (show \S+|events \S+|state \S+ --at \d+) ", page, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert on_database(*command.split()).code == 0
    assert on_database("verify", "--all").code == 0
    assert database.fetch("select count(*) from kairos.worker where state in ('live', 'draining')") == [(0,)]


def test_the_demo_can_be_interrupted(start_kairos: Start, database: TestDatabase) -> None:
    process = start_kairos("demo")
    process.says("step_started +discover")
    process.signal(signal.SIGINT)
    assert process.ends() == exits.INTERRUPTED
    assert "Traceback" not in process.text
    assert database.fetch("select state from kairos.worker") == [("stopped",)]


def test_the_examples_are_found_beside_the_package() -> None:
    assert example("census.py").is_file()
    assert example("orders.py").is_file()
