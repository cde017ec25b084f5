"""`kairos run` and `kairos cancel`."""

from __future__ import annotations

import io
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from kairos.cli import exits
from tests.cli.cli_support import Kairos, Process, eventually, working
from tests.conftest import TestDatabase

ORDER = '{"order_id": "7"}'


def test_a_run_is_started_and_named(on_database: Kairos) -> None:
    done = on_database("run", "fulfil", "--app", "flows.py:app", "--input", ORDER)
    assert done.code == 0
    assert done.out.startswith("fulfil  ")
    assert "SCHEDULED" in done.out


def test_json_tells_the_whole_run(on_database: Kairos) -> None:
    done = on_database(
        "run", "fulfil", "--app", "flows.py:app", "-i", ORDER, "--json", "--key", "k-1", "-l", "a=b", "-l", "c=d=e",
        "--queue", "fast", "--priority", "9", "--ttl", "1h",
    )  # fmt: skip
    run = done.json["run"]
    assert (run["key"], run["labels"], run["queue"], run["priority"]) == ("k-1", {"a": "b", "c": "d=e"}, "fast", 9)


def test_the_output_is_alone_on_standard_output(on_database: Kairos, database: TestDatabase, flows: ModuleType) -> None:
    with working(flows.app, database.dsn):
        done = on_database("run", "fulfil", "--app", "flows.py:app", "-i", ORDER, "--wait")
    assert done.code == 0
    assert json.loads(done.out) == {"text": "7 from A: 100"}
    assert "step_failed" in done.err
    assert "run_done" in done.err


def test_waiting_in_json_gives_run_and_output(on_database: Kairos, database: TestDatabase, flows: ModuleType) -> None:
    with working(flows.app, database.dsn):
        done = on_database("run", "fulfil", "--app", "flows.py:app", "-i", ORDER, "--wait", "--json")
    assert done.code == 0
    assert done.json["run"]["status"] == "DONE"
    assert done.json["output"] == {"text": "7 from A: 100"}
    assert done.err == ""


def test_a_failed_run_tells_why_and_exits_with_10(
    on_database: Kairos, database: TestDatabase, flows: ModuleType
) -> None:
    with working(flows.app, database.dsn):
        done = on_database("run", "fail", "--app", "flows.py:app", "-i", '{"text": "no [bold]way[/]"}', "--wait")
        in_json = on_database("run", "fail", "--app", "flows.py:app", "-i", '{"text": "x"}', "--wait", "--json")
    assert done.code == exits.FAILED
    assert done.out == ""
    assert "ValueError: no [bold]way[/]" in done.err
    assert "flows.py:" in done.err
    assert "detail = {'text': 'no [bold]way[/]'}" in done.err
    assert in_json.code == exits.FAILED
    assert in_json.json["error"]["message"] == "x"


def test_a_timeout_leaves_the_run_alone_and_exits_with_124(on_database: Kairos) -> None:
    done = on_database("run", "echo", "--app", "flows.py:app", "-i", '{"value": {}}', "--wait", "--timeout", "50ms")
    assert done.code == exits.TIMED_OUT
    assert "it goes on" in done.err
    in_json = on_database(
        "run", "echo", "--app", "flows.py:app", "-i", '{"value": {}}', "-w", "--timeout", "0", "--json"
    )
    assert in_json.code == exits.TIMED_OUT
    assert in_json.json["timed_out"] is True


def test_ctrl_c_while_waiting_leaves_the_run_alone(start_kairos: Callable[..., Process]) -> None:
    process = start_kairos("run", "mail", "--app", "flows.py:app", "-i", '{"to": "x"}', "--wait")
    process.says("run_scheduled")
    process.signal(signal.SIGINT)
    assert process.ends() == exits.INTERRUPTED
    assert re.search(r"the run goes on: kairos watch \w{8}\n", process.text)
    assert "Traceback" not in process.text


def test_without_an_app_the_registered_definition_is_used(
    on_database: Kairos, database: TestDatabase, flows: ModuleType
) -> None:
    assert "no workflow 'echo' has been registered here" in on_database("run", "echo", "-i", "{}").err
    with working(flows.app, database.dsn):
        done = on_database("run", "echo", "-i", '{"value": {"n": 1}}', "--wait")
    assert json.loads(done.out) == {"n": 1}


def test_the_nearest_workflow_is_proposed(on_database: Kairos) -> None:
    done = on_database("run", "fulfill", "--app", "flows.py:app")
    assert done.code == exits.ERROR
    assert "hint: Did you mean 'fulfil'?" in done.err


def test_an_input_that_does_not_fit_is_refused_before_anything_starts(on_database: Kairos) -> None:
    done = on_database("run", "fulfil", "--app", "flows.py:app", "-i", '{"order_id": "7", "cents": "many"}')
    assert done.code == exits.ERROR
    assert "cents" in done.err
    assert on_database("runs", "--json").json["runs"] == []


def test_an_input_comes_from_a_file_or_from_standard_input(
    on_database: Kairos, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "order.json").write_text(ORDER)
    assert on_database("run", "fulfil", "--app", "flows.py:app", "-i", "@order.json").code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(ORDER))
    assert on_database("run", "fulfil", "--app", "flows.py:app", "-i", "-").code == 0


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("{order}", "--input is not JSON"),
        ("@nowhere.json", "--input: nowhere.json cannot be read"),
        ("", "--input is not JSON"),
    ],
)
def test_a_malformed_input_says_where(on_database: Kairos, given: str, complaint: str) -> None:
    done = on_database("run", "fulfil", "--app", "flows.py:app", "--input", given)
    assert done.code == exits.USAGE
    assert complaint in done.err


def test_a_workflow_with_only_optional_fields_needs_no_input(on_database: Kairos, place: Path) -> None:
    (place / "lazy.py").write_text(
        "import kairos\nfrom pydantic import BaseModel\napp = kairos.App('lazy')\n"
        "class Ask(BaseModel):\n    root: str | None = None\n"
        "wf = app.workflow('lazy', input=Ask)\n@wf.step\ndef one(ask: Ask) -> int: return 1\n"
    )
    assert on_database("run", "lazy", "--app", "lazy.py:app").code == 0
    # The definition is registered now; the same holds without the app, defaults included.
    assert on_database("run", "lazy").code == 0
    assert on_database("state", "last", "--json").json["input"] == {"root": None}


def test_the_same_key_is_the_same_run(on_database: Kairos) -> None:
    first = on_database("run", "fulfil", "--app", "flows.py:app", "-i", ORDER, "--key", "k", "--json").json["run"]
    second = on_database("run", "fulfil", "--app", "flows.py:app", "-i", ORDER, "--key", "k", "--json").json["run"]
    assert first["id"] == second["id"]
    other = on_database("run", "fulfil", "--app", "flows.py:app", "-i", '{"order_id": "8"}', "--key", "k")
    assert other.code == exits.ERROR
    assert "another input" in other.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--label", "x"), "--label 'x' is not NAME=VALUE"),
        (("--timeout", "5s"), "--timeout says how long --wait waits"),
        (("--wait", "--timeout", "soon"), "--timeout 'soon' is not a duration"),
        (("--ttl", "soon"), "--ttl 'soon' is not a duration"),
        (("--priority", "11"), "'--priority'"),
        (("--queue", "no such"), "queue name 'no such' is not valid"),
        (("--key", ""), "the key must be a string"),
    ],
)
def test_a_wrong_option_is_refused_by_name(on_database: Kairos, arguments: tuple[str, ...], complaint: str) -> None:
    done = on_database("run", "fulfil", "--app", "flows.py:app", "-i", ORDER, *arguments)
    assert done.code == exits.USAGE
    assert complaint in done.err


def test_a_waiting_run_is_cancelled_at_once(on_database: Kairos) -> None:
    on_database("run", "fulfil", "--app", "flows.py:app", "-i", ORDER)
    done = on_database("cancel", "last", "--reason", "not needed")
    assert done.code == 0
    assert "CANCELLED" in done.out
    again = on_database("cancel", "last")
    assert "it had ended already" in again.out
    assert on_database("cancel", "last", "--json").json["was"] == "CANCELLED"
    assert on_database("why", "last", "--json").json["sentence"].endswith("not needed.")


def test_a_running_run_is_told_to_stop(
    on_database: Kairos, database: TestDatabase, flows: ModuleType, place: Path
) -> None:
    paths = json.dumps({"begun": str(place / "begun"), "open": str(place / "open")})
    with working(flows.app, database.dsn):
        on_database("run", "gate", "--app", "flows.py:app", "-i", paths)
        eventually((place / "begun").exists)
        done = on_database("cancel", "last")
        assert "nothing new starts" in done.out
        assert on_database("watch", "last").code == exits.CANCELLED


def test_an_unknown_run_cannot_be_cancelled(on_database: Kairos) -> None:
    done = on_database("cancel", "abcdef")
    assert done.code == exits.NO_SUCH_RUN
    assert "no run matches 'abcdef'" in done.err
