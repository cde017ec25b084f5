"""`kairos worker`: real processes, stopped, killed and orphaned."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

import kairos
from kairos import embedded
from kairos.cli import exits
from kairos.engine import processes
from kairos.engine.processes import Plan, Supervisor
from tests.cli.cli_support import FAST, Kairos, Process, children_of, eventually, is_alive
from tests.conftest import TestDatabase

Start = Callable[..., Process]
AT = ("--app", "flows.py:app")
# Long enough that a test which waits for it would time out: what is quick here does not wait for the lease.
PATIENT = {"KAIROS_LEASE": "600s"}


@pytest.fixture
def gate(place: Path) -> dict[str, str]:
    return {"begun": str(place / "begun"), "open": str(place / "open")}


def worker_states(database: TestDatabase) -> list[Any]:
    return [row[0] for row in database.fetch("select state from kairos.worker order by started_at")]


def start_gate(on_database: Kairos, gate: dict[str, str]) -> str:
    run_id: str = on_database("run", "gate", *AT, "-i", json.dumps(gate), "--json").json["run"]["id"]
    return run_id


def begun(gate: dict[str, str], database: TestDatabase, other_than: int = 0) -> int:
    """Wait until the body runs, and its start is recorded; returns the process it runs in."""

    def look() -> int | None:
        path = Path(gate["begun"])
        words = path.read_text().split() if path.exists() else []
        return int(words[0]) if len(words) == 2 and int(words[0]) != other_than else None

    pid: int = eventually(look)
    # A root step may begin a moment before its start is committed.
    eventually(lambda: database.fetch("select 1 from kairos.event where kind = 'step_started'"))
    return pid


def test_a_worker_works_and_drains(
    start_kairos: Start, on_database: Kairos, database: TestDatabase, gate: dict[str, str]
) -> None:
    process = start_kairos("worker", *AT)
    process.says("worker_started")
    start_gate(on_database, gate)
    begun(gate, database)
    process.signal(signal.SIGTERM)
    process.says("worker_drains")
    assert process.popen.poll() is None, "it must wait for the running step"
    Path(gate["open"]).touch()
    assert process.ends() == 0
    assert worker_states(database) == ["stopped"]
    steps = on_database("show", "last", "--json").json["steps"]
    assert (steps["wait_for_file"]["status"], steps["wait_for_file"]["attempts"]) == ("DONE", 1)


def test_what_does_not_end_in_time_is_given_back_without_burning_an_attempt(
    start_kairos: Start, on_database: Kairos, database: TestDatabase, gate: dict[str, str]
) -> None:
    process = start_kairos("worker", *AT, "--drain-timeout", "100ms")
    process.says("worker_started")
    start_gate(on_database, gate)
    begun(gate, database)
    process.signal(signal.SIGINT)
    assert process.ends() == 0
    step = on_database("show", "last", "--json").json["steps"]["wait_for_file"]
    assert (step["status"], step["failures"]) == ("SCHEDULED", 0)
    assert step["history"][0]["outcome"] == "lost"


def test_a_killed_child_is_buried_and_its_work_goes_on_at_once(
    start_kairos: Start, on_database: Kairos, database: TestDatabase, gate: dict[str, str]
) -> None:
    process = start_kairos("worker", *AT, env=PATIENT)
    process.says("worker_started")
    run_id = start_gate(on_database, gate)
    victim = begun(gate, database)
    assert children_of(process.pid) == [victim]
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    process.says(f"worker_died .*pid={victim} signal=SIGKILL runs_freed=1")
    process.says("worker_started", times=2)
    heir = begun(gate, database, other_than=victim)
    assert time.monotonic() - killed < 15, "far below the lease of ten minutes"
    assert heir != victim
    Path(gate["open"]).touch()
    assert on_database("watch", run_id).code == 0
    rows = database.fetch("select state, convert_from(report, 'UTF8') from kairos.worker order by started_at")
    assert rows[0][0] == "dead"
    assert json.loads(str(rows[0][1]))["signal"] == "SIGKILL"
    history = on_database("show", run_id, "--json").json["steps"]["wait_for_file"]["history"]
    assert [attempt["outcome"] for attempt in history] == ["lost", "done"]
    assert history[1]["isolated"] is True
    name = database.fetch("select name from kairos.worker where state = 'dead'")[0][0]
    assert (history[0]["worker"], history[0]["signal"]) == (name, "SIGKILL")
    told = f"worker {name} is gone (SIGKILL); runs alone from now on"
    assert re.search(rf"lease_lost +wait_for_file +{re.escape(told)}", on_database("events", run_id).out)
    assert f"lost  wait_for_file: {told}" in on_database("show", run_id).out
    assert on_database("verify", run_id).code == 0
    process.signal(signal.SIGTERM)
    assert process.ends() == 0


def test_several_processes_share_the_work_and_one_may_die(
    start_kairos: Start, on_database: Kairos, database: TestDatabase, gate: dict[str, str]
) -> None:
    process = start_kairos("worker", *AT, "--processes", "2", "--concurrency", "3", env=PATIENT)
    process.says("worker_started", times=2)
    assert len(children_of(process.pid)) == 2
    start_gate(on_database, gate)
    victim = begun(gate, database)
    os.kill(victim, signal.SIGKILL)
    begun(gate, database, other_than=victim)
    process.says("worker_started", times=3)
    assert sorted(worker_states(database)) == ["dead", "live", "live"]
    Path(gate["open"]).touch()
    assert on_database("watch", "last").code == 0
    process.signal(signal.SIGTERM)
    assert process.ends() == 0
    assert sorted(worker_states(database)) == ["dead", "stopped", "stopped"]


def test_children_drain_when_their_parent_is_killed(
    start_kairos: Start, on_database: Kairos, database: TestDatabase, gate: dict[str, str]
) -> None:
    process = start_kairos("worker", *AT, env=PATIENT)
    process.says("worker_started")
    start_gate(on_database, gate)
    child = begun(gate, database)
    process.signal(signal.SIGKILL)
    process.popen.wait(10)
    eventually(lambda: worker_states(database) == ["draining"])
    assert is_alive(child)
    Path(gate["open"]).touch()
    eventually(lambda: not is_alive(child))
    assert worker_states(database) == ["stopped"]
    step = on_database("show", "last", "--json").json["steps"]["wait_for_file"]
    assert (step["status"], step["attempts"]) == ("DONE", 1)


def test_a_second_signal_ends_everything_at_once(
    start_kairos: Start, on_database: Kairos, database: TestDatabase, gate: dict[str, str]
) -> None:
    process = start_kairos("worker", *AT, env=PATIENT)
    process.says("worker_started")
    start_gate(on_database, gate)
    child = begun(gate, database)
    process.signal(signal.SIGTERM)
    process.says("worker_drains")
    process.signal(signal.SIGTERM)
    assert process.ends(10) == 128 + signal.SIGTERM
    eventually(lambda: not is_alive(child))
    assert worker_states(database) == ["dead"], "buried, so that the next worker need not wait for the lease"
    assert database.fetch("select count(*) from kairos.task where worker is not null") == [(0,)]


def test_a_child_alone_drains_at_the_first_and_ends_at_the_second_sigterm(
    start_kairos: Start, on_database: Kairos, database: TestDatabase, gate: dict[str, str]
) -> None:
    process = start_kairos("worker", *AT, env=PATIENT)
    process.says("worker_started")
    start_gate(on_database, gate)
    child = begun(gate, database)
    os.kill(child, signal.SIGTERM)
    process.says("worker_drains")
    os.kill(child, signal.SIGTERM)
    process.says(f"worker_died .*pid={child} exit_code=143")
    process.says("worker_started", times=2)


def test_a_worker_that_keeps_dying_is_replaced_with_pauses(start_kairos: Start, place: Path) -> None:
    (place / "doomed.py").write_text(
        "import os, threading, kairos\napp = kairos.App('doomed')\n"
        "@app.job\ndef nothing() -> None: ...\n"
        "threading.Timer(1.0, lambda: os._exit(9)).start()\n"
    )
    process = start_kairos("worker", "--app", "doomed.py:app")
    process.says("worker_replaced .*exit_code=9: the next one starts now")
    process.says(r"worker_replaced .*exit_code=9: the next one starts in 0\.4s")
    process.signal(signal.SIGTERM)
    process.ends()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def (", "SyntaxError"),
        ("import no_such_module_at_all", "no_such_module_at_all"),
        ("import kairos\napp = 3", "has no app named 'app'"),
        ("import kairos\napp = kairos.App('x')\nwf = app.workflow('w')\n@wf.step\ndef a(b: int) -> int: ...", "b"),
    ],
)
def test_an_app_that_cannot_be_loaded_ends_the_worker(
    start_kairos: Start, place: Path, text: str, complaint: str
) -> None:
    (place / "broken.py").write_text(text)
    process = start_kairos("worker", "--app", "broken.py:app")
    assert process.ends() == 1
    assert complaint in process.text
    assert "importlib" not in process.text


def test_nohup_is_respected(start_kairos: Start, place: Path) -> None:
    (place / "nohup.py").write_text(
        "import signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "sys.argv = ['kairos', 'worker', *sys.argv[1:]]\n"
        "from kairos.cli import main\nmain()\n"
    )
    process = start_kairos(*AT, script="nohup.py")
    process.says("worker_started")
    process.signal(signal.SIGHUP)
    process.signal(signal.SIGTERM)
    process.says("worker_drains")
    assert process.ends() == 0, "a second signal would have ended it with another code"


def test_children_keep_the_embedded_server_up_after_their_parent(
    start_kairos: Start, run_kairos: Kairos, place: Path, gate: dict[str, str]
) -> None:
    env = {"KAIROS_DATABASE_URL": "", "KAIROS_DATA_DIR": str(place / "data"), "KAIROS_EMBEDDED_GRACE": "0s"}
    try:
        process = start_kairos("worker", *AT, env=env)
        process.says("worker_started", timeout=60)
        assert run_kairos("run", "gate", *AT, "-i", json.dumps(gate), env=env).code == 0
        eventually(Path(gate["begun"]).exists)
        child = children_of(process.pid)[0]
        process.signal(signal.SIGKILL)
        process.popen.wait(10)
        assert is_alive(child)
        Path(gate["open"]).touch()
        eventually(lambda: not is_alive(child))
        assert run_kairos("show", "last", "--json", env=env).json["steps"]["wait_for_file"]["status"] == "DONE"
        process.says("worker_stopped")
    finally:
        embedded.stop(place / "data", force=True)


def test_a_child_that_cannot_drain_is_killed_in_the_end(
    on_database: Kairos, database: TestDatabase, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "blocking.py").write_text(
        "import time, kairos\nfrom pathlib import Path\napp = kairos.App('blocking')\n"
        "@app.job\nasync def block(path: str) -> None:\n    Path(path).touch()\n    time.sleep(600)\n"
    )
    monkeypatch.setattr(processes, "DRAIN_MARGIN", 0.5)
    options = replace(FAST, drain_timeout=0.1)

    async def main() -> int:
        supervisor = Supervisor(Plan(f"{place / 'blocking.py'}:app", database.dsn, options), takes_signals=False)
        task = asyncio.create_task(supervisor.run())
        given = json.dumps({"path": str(place / "begun")})
        await asyncio.to_thread(
            lambda: eventually(lambda: any(child.is_ready for child in supervisor.children.values()))
        )
        async with kairos.AsyncClient(database.dsn) as client:
            await client.start("block", json.loads(given))
        await asyncio.to_thread(lambda: eventually((place / "begun").exists))
        supervisor.stop()
        return await asyncio.wait_for(task, 20)

    assert asyncio.run(main()) == 1
    assert worker_states(database) == ["dead"]


def test_what_a_step_prints_cannot_harm_the_terminal(
    start_kairos: Start, on_database: Kairos, database: TestDatabase
) -> None:
    process = start_kairos("worker", *AT)
    process.says("worker_started")
    text = json.dumps({"text": "\x1b[31mred\x07 née \x9b2J"})
    on_database("run", "shout", *AT, "-i", text, "--wait")
    process.signal(signal.SIGTERM)
    assert process.ends() == 0
    shown = "\\x1b[31mred\\x07 née \\x9b2J\n"
    assert (shown in process.out, shown in process.err) == (True, True)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", process.text)


def test_the_log_can_be_json(start_kairos: Start) -> None:
    process = start_kairos("worker", *AT, "--log-format", "json")
    process.says("worker_started")
    process.signal(signal.SIGTERM)
    assert process.ends() == 0
    lines = [json.loads(line) for line in process.err]
    assert {"at", "level", "logger", "pid", "message"} <= lines[0].keys()
    assert any(line["message"].startswith("worker_stopped") for line in lines)


def test_options_reach_the_worker(start_kairos: Start, database: TestDatabase) -> None:
    process = start_kairos("worker", *AT, "-c", "7", "-q", "mail,default", "--lease", "33s")
    process.says("worker_started")
    rows = database.fetch(
        "select queues, concurrency, round(extract(epoch from lease_until - beat_at)) from kairos.worker"
    )
    assert rows == [(["mail", "default"], 7, 33)]
    child = children_of(process.pid)[0]
    assert Path(f"/proc/{child}/oom_score_adj").read_text().strip() == "500"
    shown = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    assert "flows.py:app" in shown
    assert not re.search("password|postgresql:", shown)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--lease", "soon"), "--lease=soon: "),
        (("--lease", "1ms"), "--lease=1ms: must be a duration from 1s to 1h"),
        (("--drain-timeout", "-1s"), "--drain-timeout=-1s"),
        (("--queues", "no such"), "queue name 'no such' is not valid"),
        (("--queues", ","), "--queues=,: names no queue"),
        (("--processes", "0"), "'--processes'"),
        (("--log-format", "xml"), "--log-format=xml: must be text or json"),
    ],
)
def test_a_wrong_option_is_refused(on_database: Kairos, arguments: tuple[str, ...], complaint: str) -> None:
    done = on_database("worker", *AT, *arguments)
    assert done.code == exits.USAGE
    assert complaint in done.err


def test_a_worker_on_a_database_without_schema_says_so(on_database: Kairos, database: TestDatabase) -> None:
    with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        conn.execute("drop schema kairos cascade")
    done = on_database("worker", *AT)
    assert done.code == 1
    assert "Run `kairos migrate`" in done.err
