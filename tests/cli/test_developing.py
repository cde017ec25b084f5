"""`kairos dev` and `kairos demo`: what a newcomer sees first."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from watchfiles import Change

from kairos import embedded
from kairos.cli import exits
from kairos.cli.moral import example
from kairos.cli.reloading import Sources
from tests.cli.cli_support import Kairos, Process, children_of, eventually
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
    process.says(
        r"failed +fail \w{8} in \S+  fail: ValueError: no \(attempt 1 of 1\)   http://127\.0\.0\.1:\d+/runs/[0-9a-f-]{36}"
    )
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


def test_dev_waits_for_a_fix_of_any_file_until_the_app_can_be_loaded(start_kairos: Start, place: Path) -> None:
    (place / "flows.py").write_text("import helper\n" + (place / "flows.py").read_text())
    (place / "helper.py").write_text("def (")
    process = start_kairos("dev", *AT)
    process.says("app_not_loaded .*save a change to try again")
    (place / "helper.py").write_text("")
    process.says(r"changed +helper\.py: reloading")
    process.says("ready")


@pytest.mark.parametrize("app", ["nope.py:app", "nope:app", "nope.flows:app", "package.nope:app"])
@pytest.mark.parametrize("command", ["dev", "worker", "run x"])
def test_an_app_that_does_not_exist_is_told_at_once(run_kairos: Kairos, place: Path, command: str, app: str) -> None:
    (place / "package").mkdir()
    (place / "package" / "__init__.py").write_text("raise AssertionError('nobody may run this only to look')")
    done = run_kairos(*command.split(), "--app", app)
    assert done.code == exits.USAGE
    assert re.match(r"error: there is no (file|module) \S*nope", done.err)
    assert not (place / ".kairos").exists()


def test_dev_reloads_for_the_modules_of_the_app_alone(start_kairos: Start, place: Path) -> None:
    process = start_kairos("dev", *AT)
    process.says("ready")
    process.says(rf"watching  {re.escape(str(place))}\s+the modules that the app has\s+loaded")
    (place / "other.py").write_text("print('nobody imports this')")
    (place / "flows.py").write_text((place / "flows.py").read_text() + "\n")
    process.says(r"changed +flows\.py: reloading")
    process.says("ready", times=2)
    assert "other.py" not in process.text


def test_dev_names_what_a_reload_waits_for_and_the_runs_it_leaves_behind(
    start_kairos: Start, on_database: Kairos, place: Path
) -> None:
    gate = {"begun": str(place / "begun"), "open": str(place / "open")}
    process = start_kairos("dev", *AT, env={"KAIROS_DRAIN_TIMEOUT": "100ms"})
    process.says("ready")
    on_database("run", "gate", *AT, "-i", json.dumps(gate))
    eventually((place / "begun").exists)
    old = (place / "flows.py").read_text()
    (place / "flows.py").write_text(old.replace('return f"attempt', 'return f"try'))
    process.says(r"waits +for wait_for_file of gate \w{8}\n")
    process.says("ready", times=2)
    process.says(r"waiting +1 run of gate for version \w{8}, which this source is not: undo the change, or")
    (place / "open").touch()
    (place / "flows.py").write_text(old)
    process.says(r"done +gate ")
    process.says("ready", times=3)
    assert len(re.findall("waiting ", process.text)) == 1


def test_ctrl_c_tells_what_dev_waits_for(start_kairos: Start, on_database: Kairos, place: Path) -> None:
    gate = {"begun": str(place / "begun"), "open": str(place / "open")}
    process = start_kairos("dev", *AT, env={"KAIROS_DRAIN_TIMEOUT": "600s"})
    process.says("ready")
    on_database("run", "gate", *AT, "-i", json.dumps(gate))
    eventually((place / "begun").exists)
    process.signal(signal.SIGINT)
    process.says("stopping +running steps get 600s to end, then go back to the queue; Ctrl-C again stops at once")
    process.says(r"waits +for wait_for_file of gate \w{8}\n")
    assert process.popen.poll() is None
    (place / "open").touch()
    assert process.ends() == 0


def test_a_second_dev_in_a_folder_is_told_of_the_first(start_kairos: Start) -> None:
    first = start_kairos("dev", *AT)
    first.says("ready")
    second = start_kairos("dev", *AT)
    second.says("notice +another `kairos dev` runs in this folder")
    second.says("ready")
    assert "notice" not in first.text


def test_a_reload_is_for_loaded_modules_and_their_packages(tmp_path: Path) -> None:
    folder = tmp_path / "build"  # ignored inside a project, not above it
    loaded = [folder / "flows.py", folder / "shop" / "__init__.py", folder / "shop" / "cards.py"]
    (folder / "shop").mkdir(parents=True)
    for file in loaded:
        file.touch()

    def matter(sources: Sources) -> list[str]:
        names = ["flows.py", "other.py", "shop/cards.py", "shop/lazy.py", "shop/note.txt", "build/flows.py"]
        return [name for name in names if sources(Change.modified, str(folder / name))]

    sources = Sources(folder / "flows.py")
    assert matter(sources) == ["flows.py", "other.py", "shop/cards.py", "shop/lazy.py"], "nothing is known yet"
    sources.learn(map(str, loaded))
    assert matter(sources) == ["flows.py", "shop/cards.py", "shop/lazy.py"]
    sources.forget()
    assert "other.py" in matter(sources)
    assert Sources(folder / "shop").folder == folder / "shop"


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


def test_dev_runs_the_debugger_beside_the_worker(start_kairos: Start, on_database: Kairos) -> None:
    process = start_kairos("dev", *AT)
    url = process.says(r"debugger  (http://127\.0\.0\.1:\d+)")[0]
    process.says("ready")
    run = on_database("run", "mail", *AT, "-i", '{"to": "x"}', "-w", "--json").json["run"]["id"]
    with urllib.request.urlopen(f"{url}/runs/{run}") as answer:
        assert answer.status == 200
        assert "mail" in answer.read().decode()
    process.signal(signal.SIGINT)
    assert process.ends() == 0
    assert "Traceback" not in process.text


def test_dev_does_without_the_debugger_if_told(start_kairos: Start) -> None:
    process = start_kairos("dev", *AT, "--no-ui")
    process.says("ready")
    assert "debugger" not in process.text
