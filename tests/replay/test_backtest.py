"""`kairos backtest` and `kairos pytest` on a hundred runs that a real worker wrote."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import kairos
from kairos.authoring.loading import load_app
from kairos.cli.backtesting import Request
from tests.cli.cli_support import ROOT, working
from tests.conftest import Server
from tests.replay.replay_support import environment, warm

RUNS = 100
PAUSE = 0.005
"""Seconds that each step takes where it is passed on: real work, for which a busy machine is no slower."""
PLANTED = [n for n in range(RUNS) if n % 14 == 3]
APP = """
import os, time
from pathlib import Path
import kairos

app = kairos.App("shop")
flow = app.workflow("pricing", input=dict)
PAUSE = float(os.environ.get("PAUSE", "0"))

@flow.step
def fetch(input: dict) -> dict:
    time.sleep(PAUSE)
    return {"items": [{"sku": f"s{i}", "price": i + input["n"]} for i in range(3)]}

@flow.step
def clean(fetch: dict) -> list:
    time.sleep(PAUSE)
    return [item for item in fetch["items"] if item["price"] % 2 == 0]

@flow.step
def price(clean: list, input: dict) -> dict:
    time.sleep(PAUSE)
    return {"total": sum(item["price"] for item in clean), "items": clean}

@flow.step
def tax(price: dict) -> float:
    time.sleep(PAUSE)
    return price["total"] * 0.25

@flow.step(retry=kairos.Retry(attempts=1))
def check(tax: float, input: dict) -> str:
    time.sleep(PAUSE)
    if input["n"] in (5, 6):
        raise ValueError(f"{input['n']} is not allowed")
    return "fine"

@flow.step
def done(check: str, price: dict) -> dict:
    time.sleep(PAUSE)
    return {"check": check, "total": price["total"]}

never = app.workflow("never", input=dict)

@never.step
def nothing(input: dict) -> None:
    pass
"""
RETURN_OF_PRICE = 'return {"total": sum(item["price"] for item in clean), "items": clean}'
DEAR = """
    if input["n"] % 14 == 3:
        return {"total": sum(item["price"] for item in clean) + 1, "items": [{**i, "price": -1} for i in clean]}
    """


@dataclass(frozen=True)
class Shop:
    """Where the runs are: a database, and `run_ids` by the number in the input."""

    dsn: str
    run_ids: list[str]


@pytest.fixture(scope="module")
def shop(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    name = "kairos_backtested"
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute(f"drop database if exists {name} with (force)")
        conn.execute(f"create database {name} template {template}")
    dsn = make_conninfo(server.app, dbname=name)
    file = tmp_path_factory.mktemp("shop") / "backtested_shop.py"
    file.write_text(APP)
    app = load_app(str(file))
    with working(app, dsn), kairos.Client(dsn) as client:
        runs = [client.start("pricing", {"n": n}) for n in range(RUNS)]
        for run in runs:
            run.wait(60)
    return Shop(dsn, [str(run.id) for run in runs])


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Done]


@pytest.fixture
def call(shop: Shop, tmp_path: Path) -> Call:
    """Call `kairos` in a folder of its own, with the app as it was, or with a part of it replaced."""

    def run(*arguments: str, change: tuple[str, str] = ("", ""), program: tuple[str, ...] = ("kairos.cli",)) -> Done:
        assert change[0] in APP
        (tmp_path / "shop.py").write_text(APP.replace(*change) if change[0] else APP)
        env = environment(KAIROS_DATABASE_URL=shop.dsn, KAIROS_APP="shop.py", PAUSE=str(PAUSE))
        if program == ("kairos.cli",):
            return Done(*warm().run(arguments, tmp_path, env, timeout=100))
        command = [sys.executable, "-m", *program, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100)
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def test_code_that_is_as_it_was_gives_the_same_in_little_more_than_its_own_time(call: Call, shop: Shop) -> None:
    done = call("backtest", "pricing", "--json", "--require-isolation", "strict", "--env", "PAUSE")
    assert done.code == 0, done.err
    assert (done.json["runs"], done.json["same"], done.json["differing"]) == (RUNS, RUNS, [])
    assert [step["step"] for step in done.json["steps"]] == ["fetch", "clean", "price", "tax", "check", "done"]
    verdicts = {step["step"]: step["verdicts"] for step in done.json["steps"]}
    assert verdicts["tax"] == {"same": RUNS}
    assert verdicts["check"] == {"same": RUNS - 2, "same-error": 2}
    assert verdicts["done"] == {"same": RUNS - 2, "missing": 2}
    # Others have the processor too; that it is twice at most on an idle machine is asserted in the slow lane, below.
    assert done.json["replay_seconds"] <= 6 * PAUSE * 6 * RUNS


@pytest.mark.slow
def test_a_hundred_runs_take_at_most_twice_the_time_of_a_plain_loop(call: Call) -> None:
    taken = [call("backtest", "pricing", "--json", "--env", "PAUSE").json["replay_seconds"] for _ in range(3)]
    assert min(taken) <= 2 * PAUSE * 6 * RUNS, taken


def test_a_change_planted_in_seven_runs_is_reported_for_exactly_those(call: Call, shop: Shop, tmp_path: Path) -> None:
    done = call("backtest", "pricing", "--json", "--junit", "out.xml", change=(RETURN_OF_PRICE, DEAR + RETURN_OF_PRICE))
    planted = {shop.run_ids[n] for n in PLANTED}
    assert len(planted) == 7
    assert done.code == 1
    assert {line["run"] for line in done.json["differing"]} == planted
    assert all(line["steps"] == ["price"] for line in done.json["differing"])
    (price,) = [step for step in done.json["steps"] if step["differing"]]
    assert (price["step"], price["differing"], price["code_changed"]) == ("price", 7, RUNS)
    ways = {way["path"]: way for way in price["ways"]}
    assert ways.keys() == {"total", "items[*].price"}
    assert set(ways["total"]["runs"]) == planted
    assert [(way["kind"], way["count"]) for way in price["ways"]] == [("changed", 7), ("changed", 7)]
    assert ways["total"]["new"] == ways["total"]["old"] + 1
    _check_junit(tmp_path / "out.xml", planted)


def _check_junit(file: Path, planted: set[str]) -> None:
    root = ET.fromstring(file.read_bytes())
    (suite,) = root
    assert (root.tag, suite.tag, suite.get("name")) == ("testsuites", "testsuite", "pricing")
    cases = list(suite)
    assert {case.tag for case in cases} == {"testcase"}
    assert {case.get("name") for case in cases if case.find("failure") is not None} == planted
    for element in (root, suite):
        assert [element.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["100", "7", "0", "0"]
        assert float(element.get("time") or "") > 0
    assert all(float(case.get("time") or "") > 0 and case.get("classname") == "kairos.pricing" for case in cases)
    texts = {failure.text for case in cases for failure in case}
    assert all(text is not None and "price: changed total\n" in text for text in texts)


def test_the_lines_tell_how_many_would_differ_and_how(call: Call, shop: Shop) -> None:
    done = call("backtest", "pricing", change=(RETURN_OF_PRICE, DEAR + RETURN_OF_PRICE))
    assert done.code == 1
    assert "[backtest] workflow pricing: 100 runs, created " in done.out
    assert "[backtest] isolation: env yes, audit yes, landlock yes (ABI " in done.out
    assert "[backtest] price: 7 of 100 would differ  (its code changed since 100 of them)" in done.out
    assert "7x  ~ total  " in done.out
    assert "7x  ~ items[*].price  " in done.out
    assert "[backtest] complete: 93 runs same or fixed, 7 differ (" in done.out
    newest = shop.run_ids[PLANTED[-1]]
    assert f"[backtest] next: kairos replay {newest} --only price" in done.out
    named = Request(workflow="pricing", app="the shop.py", url="postgresql://me:secret@db/x", env=("PAUSE",))
    assert named.again("1", "price") == (
        "kairos replay 1 --only price --env PAUSE --app 'the shop.py' --database-url postgresql://me@db/x"
    )
    assert "--mode propagate" in replace(named, mode="propagate").again("1", "price")
    rows = [line.split() for line in done.out.splitlines() if line.strip().startswith(("STEP", "price ", "tax "))]
    assert rows == [
        ["STEP", "SAME", "SAME-ERROR", "DIVERGED:OUTPUT", "MISSING"], ["price", "93", "7"], ["tax", "100"],
    ]  # fmt: skip


def test_failed_runs_tell_whether_they_are_fixed(call: Call, shop: Shop) -> None:
    done = call("backtest", "pricing", "--status", "failed", "--json", change=('if input["n"] in (5, 6)', "if False"))
    assert done.code == 0
    assert (done.json["runs"], done.json["same"]) == (2, 2)
    assert {step["step"]: step["verdicts"] for step in done.json["steps"]}["check"] == {"fixed": 2}
    one = call("backtest", "pricing", "-s", "failed", "--json", change=("in (5, 6)", "== 6"))
    assert {step["step"]: step["verdicts"] for step in one.json["steps"]}["check"] == {"fixed": 1, "same-error": 1}
    assert one.code == 0


def test_a_new_error_is_told_once_with_its_runs(call: Call, shop: Shop) -> None:
    done = call("backtest", "pricing", "--last", "20", "--json", change=("in (5, 6)", ">= 97"))
    assert done.code == 1
    assert done.json["runs"] == 20
    (check,) = [step for step in done.json["steps"] if step["differing"]]
    assert [(way["kind"], way["text"], way["count"]) for way in check["ways"]] == [
        ("error", f"ValueError: {n} is not allowed", 1) for n in (99, 98, 97)
    ]


def test_in_propagate_mode_a_change_flows_on(call: Call, shop: Shop) -> None:
    changed = (RETURN_OF_PRICE, DEAR + RETURN_OF_PRICE)
    done = call("backtest", "pricing", "--last", "20", "--mode", "propagate", "--json", change=changed)
    differing = {step["step"]: step["differing"] for step in done.json["steps"]}
    in_last_20 = len([n for n in PLANTED if n >= 80])
    assert differing == {"fetch": 0, "clean": 0, "price": in_last_20, "tax": in_last_20, "check": 0, "done": in_last_20}


def test_places_that_do_not_count_are_left_out(call: Call, shop: Shop) -> None:
    changed = (RETURN_OF_PRICE, DEAR + RETURN_OF_PRICE)
    done = call("backtest", "pricing", "--ignore", "total", "--ignore", "items[*].price", "--json", change=changed)
    assert (done.code, done.json["same"]) == (0, RUNS)


def test_what_a_guard_stops_is_told_and_exits_with_3(call: Call, shop: Shop) -> None:
    leaky = (RETURN_OF_PRICE, 'Path("/tmp/kairos-backtest-leak").write_text("x"); ' + RETURN_OF_PRICE)
    done = call("backtest", "pricing", "--last", "3", change=leaky)
    assert done.code == 3
    assert "3x  blocked: " in done.out
    assert "shop.py:" in done.out
    assert "opens for writing /tmp/kairos-backtest-leak" in done.out
    assert not Path("/tmp/kairos-backtest-leak").exists()


WRONG = [
    (("pricin",), 2, "Did you mean 'pricing'"),
    (("never",), 4, "no run of workflow 'never' is recorded"),
    (("pricing", "--since", "2099-01-01"), 4, "no run of workflow 'pricing' is recorded that matches"),
    (("pricing", "--mode", "live"), 2, "There are: verify, propagate."),
    (("pricing", "--status", "faild"), 2, "Did you mean 'FAILED'"),
    (("pricing", "--since", "yesterday"), 2, "is not a time"),
    (("pricing", "--junit", "no/such/folder/out.xml"), 2, "cannot be written"),
    (("pricing", "--allow-writes", "/no/such"), 2, "there is no such file or folder"),
    (("pricing", "--require-isolation", "lax"), 2, "There is: strict."),
    (("pricing", "--timeout", "soon"), 2, "--timeout"),
    (("pricing", "--ignore", "a["), 2, "a["),
    (("pricing", "--app", "gone.py"), 2, "there is no file"),
]


@pytest.mark.parametrize(("arguments", "code", "text"), WRONG, ids=[" ".join(a) for a, _, _ in WRONG])
def test_what_cannot_be_done_is_said(call: Call, arguments: tuple[str, ...], code: int, text: str) -> None:
    done = call("backtest", *arguments)
    assert (done.code, text in done.err) == (code, True), done.err


def test_a_terminal_shows_how_far_it_is_and_ctrl_c_ends_it_with_what_there_is(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP.replace('"PAUSE", "0"', '"PAUSE", "0.1"'))
    terminal, end = pty.openpty()
    env = environment(KAIROS_DATABASE_URL=shop.dsn, TERM="xterm", COLUMNS="100")
    command = [sys.executable, "-m", "kairos.cli", "backtest", "pricing", "--app", "shop.py"]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdin=end, stdout=end, stderr=end) as process:
        os.close(end)
        seen = ""
        deadline = time.monotonic() + 60
        while "2/100" not in seen and time.monotonic() < deadline:
            seen += os.read(terminal, 4096).decode()
        process.send_signal(signal.SIGINT)
        while True:
            try:
                seen += os.read(terminal, 4096).decode()
            except OSError:
                break
        os.close(terminal)
    assert process.returncode == 130
    assert "2/100" in seen
    assert "interrupted: " in seen
    assert " same or fixed" in seen


def test_a_run_becomes_a_test_that_passes_and_fails_with_the_step_that_changed(
    call: Call, shop: Shop, tmp_path: Path
) -> None:
    (tmp_path / "tests").mkdir()
    run = shop.run_ids[PLANTED[0]]
    written = call("pytest", run)
    assert written.code == 0, written.err
    test = tmp_path / "tests" / f"test_replay_pricing_{run[-8:]}.py"
    bundle = test.with_suffix(".kairos")
    assert f"next: pytest tests/{test.name}" in written.out
    assert bundle.stat().st_mode & 0o777 == 0o600
    assert str(tmp_path) not in test.read_text()

    options = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly", "tests")
    passed = call(*options, program=("pytest",))
    assert (passed.code, "6 passed" in passed.out) == (0, True), passed.out
    failed = call(*options, change=(RETURN_OF_PRICE, DEAR + RETURN_OF_PRICE), program=("pytest",))
    assert failed.code == 1
    assert "1 failed, 5 passed" in failed.out
    assert "step 3/6: price  DIVERGED" in failed.out
    assert "~ total  " in failed.out

    again = call("pytest", run)
    assert (again.code, "is there already" in again.err) == (2, True)
    assert call("pytest", run, "--force", "--ignore", "total", "--ignore", "items[*].price").code == 0
    ignoring = call(*options, change=(RETURN_OF_PRICE, DEAR + RETURN_OF_PRICE), program=("pytest",))
    assert (ignoring.code, "6 passed" in ignoring.out) == (0, True), ignoring.out


def test_a_failed_run_is_pinned_as_far_as_it_got_also_from_a_bundle(call: Call, shop: Shop, tmp_path: Path) -> None:
    assert call("export", shop.run_ids[5], "-o", "failed.kairos").code == 0
    written = call("pytest", "failed.kairos", "--output", "pinned", "--json")
    assert written.code == 0, written.err
    assert written.json["steps"] == ["fetch", "clean", "price", "tax", "check"]
    options = ("-q", "-p", "no:cacheprovider", "pinned")
    assert "5 passed" in call(*options, program=("pytest",)).out
    other = call(*options, change=("is not allowed", "is bad"), program=("pytest",))
    assert "1 failed, 4 passed" in other.out
    assert "a new error: ValueError: 5 is bad" in other.out


def test_an_app_that_cannot_be_imported_fails_the_test_with_the_reason(call: Call, shop: Shop) -> None:
    call("pytest", shop.run_ids[0], "-o", "pinned")
    done = call(
        "-q", "-p", "no:cacheprovider", "pinned", change=("import os, time", "import os, nowhere"), program=("pytest",)
    )
    assert done.code == 1
    assert "6 failed" in done.out
    assert "No module named 'nowhere'" in done.out


def test_the_plugin_imports_nothing_of_kairos_until_it_is_used() -> None:
    code = "import sys, kairos_replay; print([m for m in sys.modules if m.split('.')[0] in ('kairos', 'pydantic')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
