"""`kairos watch`: follows a run to its end; its exit code tells which."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from kairos.cli import exits
from tests.cli.cli_support import Kairos, Process, eventually, working
from tests.conftest import TestDatabase


def test_lines_come_while_the_run_goes_on(
    start_kairos: Callable[..., Process], on_database: Kairos, database: TestDatabase, flows: ModuleType, place: Path
) -> None:
    gate = {"begun": str(place / "begun"), "open": str(place / "open")}
    with working(flows.app, database.dsn):
        on_database("run", "gate", "--app", "flows.py:app", "-i", json.dumps(gate))
        watching = start_kairos("watch", "last")
        following = start_kairos("events", "last", "--follow", "--json")
        watching.says("step_started +wait_for_file")
        following.says('"step_started"')
        assert "step_done" not in watching.text
        (place / "open").touch()
        assert watching.ends() == exits.OK
        assert following.ends() == exits.OK
    assert "run_done" in watching.out[-1]
    assert json.loads(following.out[-1])["kind"] == "run_done"


@pytest.mark.parametrize(
    ("workflow", "given", "code", "word"),
    [
        ("echo", '{"value": {}}', exits.OK, "run_done"),
        ("fail", '{"text": "no"}', exits.FAILED, "✗ FAILED"),
    ],
)
def test_the_exit_code_tells_how_it_ended(
    on_database: Kairos, database: TestDatabase, flows: ModuleType, workflow: str, given: str, code: int, word: str
) -> None:
    with working(flows.app, database.dsn):
        on_database("run", workflow, "--app", "flows.py:app", "-i", given, "-w")
    done = on_database("watch", "last")
    assert done.code == code
    assert word in done.out + done.err


def test_an_expired_run_exits_with_12(on_database: Kairos, database: TestDatabase, flows: ModuleType) -> None:
    on_database("run", "mail", "--app", "flows.py:app", "-i", '{"to": "x"}', "--ttl", "1ms")
    with working(flows.app, database.dsn):
        assert on_database("watch", "last", "--timeout", "15s").code == exits.EXPIRED


def test_json_ends_with_a_document_about_the_run(
    on_database: Kairos, database: TestDatabase, flows: ModuleType
) -> None:
    with working(flows.app, database.dsn):
        on_database("run", "echo", "--app", "flows.py:app", "-i", '{"value": {"n": 1}}', "-w")
    *events, last = [json.loads(line) for line in on_database("watch", "last", "--json").lines]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (last["run"]["status"], last["output"]) == ("DONE", {"n": 1})


def test_patience_has_an_end(on_database: Kairos) -> None:
    on_database("run", "mail", "--app", "flows.py:app", "-i", '{"to": "x"}')
    done = on_database("watch", "last", "--timeout", "0.05")
    assert done.code == exits.TIMED_OUT
    assert "still ○ SCHEDULED after 0.05; it goes on" in done.err


def test_a_terminal_is_redrawn_in_place(
    on_database: Kairos, database: TestDatabase, flows: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working(flows.app, database.dsn):
        on_database("run", "fulfil", "--app", "flows.py:app", "-i", '{"order_id": "7"}', "-w")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    page = on_database("watch", "last").out
    assert "3 of 3 done" in page
    assert "charge" in page
    assert "kairos show" in page
    assert eventually(lambda: "\x1b[" in page)
