"""What holds for every command: errors, exit codes, start-up, pipes, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kairos.cli import entry, exits
from kairos.cli.commands import app
from tests.cli.cli_support import ROOT, Kairos, Process
from tests.conftest import TestDatabase

COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands if command.callback)


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, timeout=60)


HEAVY = ("psycopg", "pydantic", "networkx", "orjson", "watchfiles", "rich", "asyncio")
RUN = "from kairos.cli import entry; assert entry.run({}) == 0"
START = RUN.format(["run", "echo", "-i", '{"value": {}}'])
EACH_COMMAND = {"psycopg", "orjson", "asyncio"}


def heavy_modules(code: str, **env: str) -> set[str]:
    """Those of HEAVY that a fresh process has loaded after this code."""
    done = python(f"import sys\n{code}\nprint(*[m for m in {HEAVY} if m in sys.modules])", **env)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import kairos", set()),
        (RUN.format(["--help"]), set()),
        (RUN.format(["run", "--help"]), set()),
        (RUN.format(["--version"]), set()),
        ("import kairos; kairos.App", {"orjson", "pydantic"}),
        ("import kairos; kairos.Client", {"asyncio", "orjson", "psycopg"}),
        ("import kairos; kairos.Worker", {"asyncio", "orjson", "psycopg", "pydantic"}),
    ],
)
def test_heavy_modules_are_loaded_by_what_uses_them(code: str, loaded: set[str]) -> None:
    assert heavy_modules(code) == loaded


def test_a_start_by_name_loads_neither_pydantic_nor_networkx(on_database: Kairos, database: TestDatabase) -> None:
    assert on_database("run", "echo", "--app", "flows.py:app", "-i", '{"value": {}}').code == 0
    env = {"KAIROS_DATABASE_URL": database.dsn}
    assert heavy_modules(START, **env) == {*EACH_COMMAND, "rich"}
    assert heavy_modules(RUN.format(["runs"]), **env) == {*EACH_COMMAND, "rich"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run_kairos: Kairos, command: str) -> None:
    done = run_kairos(command, "--help")
    assert done.code == 0
    assert "Usage: kairos" in done.out


def test_no_command_shows_what_there_is(run_kairos: Kairos) -> None:
    done = run_kairos()
    assert done.code == 0
    assert all(command in done.out for command in COMMANDS)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("config", "version")])
def test_a_malformed_setting_stops_every_command_at_once(run_kairos: Kairos, command: str) -> None:
    needs_name = command in (
        "run", "show", "events", "state", "watch", "why", "cancel", "export", "import", "diff", "trace"
    )  # fmt: skip
    done = run_kairos(command, *(["x"] if needs_name else []), env={"KAIROS_CONCURRENCY": "lots"})
    assert done.code == exits.ERROR
    assert done.out == ""
    assert "KAIROS_CONCURRENCY='lots'" in done.err


def test_a_misspelt_setting_stops_too(run_kairos: Kairos) -> None:
    done = run_kairos("runs", env={"KAIROS_DATABSE_URL": "x"})
    assert "KAIROS_DATABSE_URL is not a setting of Kairos\nhint: Did you mean 'KAIROS_DATABASE_URL'?" in done.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["rnus"], "no such command 'rnus'"),
        (["runs", "--stauts", "x"], "no such option: --stauts"),
        (["show"], "missing argument 'RUN|FILE'"),
        (["state", "last", "--at", "x"], "--at"),
    ],
)
def test_wrong_usage_exits_with_2(run_kairos: Kairos, arguments: list[str], complaint: str) -> None:
    done = run_kairos(*arguments)
    assert done.code == exits.USAGE
    assert complaint in done.err
    assert "--help" in done.err
    in_json = run_kairos(*arguments, "--json")
    assert in_json.code == exits.USAGE
    assert in_json.json["error"]["type"] == "UsageError"


def test_an_unknown_run_exits_with_4(on_database: Kairos) -> None:
    for command in ("show", "events", "state", "watch", "why", "verify"):
        done = on_database(command, "0123abcd")
        assert (done.code, done.out) == (exits.NO_SUCH_RUN, "")
        assert "error: no run matches '0123abcd'" in done.err
        in_json = on_database(command, "0123abcd", "--json")
        assert in_json.code == exits.NO_SUCH_RUN
        assert in_json.json["error"]["type"] == "RunNotFound"
        assert in_json.err == ""


def test_an_unexpected_error_is_one_line_unless_debugging(on_database: Kairos, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **more: object) -> int:
        raise RuntimeError("oops [bold]\x1b[0m")

    monkeypatch.setattr("kairos.cli.listing.list_runs", broken)
    done = on_database("runs")
    assert done.code == exits.ERROR
    assert done.err.startswith("error: RuntimeError: oops [bold]\\x1b[0m\nhint: ")
    assert "Traceback" not in done.err
    assert "Traceback" in on_database("runs", env={"KAIROS_LOG_LEVEL": "debug"}).err


def test_an_app_that_cannot_be_imported_shows_its_own_error(on_database: Kairos, place: Path) -> None:
    (place / "broken.py").write_text("import kairos\nraise LookupError('no config')\n")
    done = on_database("run", "x", "--app", "broken.py:app")
    assert done.code == exits.ERROR
    assert "no config" in done.err


def test_an_interrupt_exits_with_130(on_database: Kairos, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **more: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("kairos.cli.listing.list_runs", interrupted)
    assert on_database("runs").code == exits.INTERRUPTED


def test_ctrl_c_while_watching_leaves_no_traceback(start_kairos: Callable[..., Process], on_database: Kairos) -> None:
    on_database("run", "mail", "--app", "flows.py:app", "-i", '{"to": "x"}')
    process = start_kairos("watch", "last")
    process.says("run_scheduled")
    process.signal(signal.SIGINT)
    assert process.ends() == exits.INTERRUPTED
    assert "Traceback" not in process.text


def test_a_reader_that_goes_away_is_no_error(place: Path, database: TestDatabase) -> None:
    command = f'{sys.executable} -m kairos.cli config | head -c 5; echo " ${{PIPESTATUS[0]}}"'
    env = {**os.environ, "PYTHONPATH": str(ROOT), "KAIROS_DATABASE_URL": database.dsn, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=env, cwd=place, timeout=60)
    assert done.stderr == ""
    assert done.stdout.split()[-1] in (str(exits.BROKEN_PIPE), "0")


def test_the_output_survives_a_terminal_that_knows_only_ascii(on_database: Kairos, database: TestDatabase) -> None:
    on_database("run", "mail", "--app", "flows.py:app", "-i", '{"to": "x"}', "--key", "名前")
    done = python(
        "from kairos.cli import main; import sys; sys.argv = ['kairos', 'runs']; main()",
        PYTHONIOENCODING="ascii", PYTHONUTF8="0", KAIROS_DATABASE_URL=database.dsn,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "SCHEDULED" in done.stdout
    assert "\\u540d\\u524d" in done.stdout


def test_json_never_mixes_with_text(on_database: Kairos) -> None:
    for arguments in (["runs"], ["workflows"], ["doctor"], ["verify"], ["config"], ["version"]):
        done = on_database(*arguments, "--json")
        json.loads(done.out)
        assert done.err == ""


def test_the_entry_point_is_the_one_that_is_installed() -> None:
    from kairos.cli import main

    assert main is entry.main
