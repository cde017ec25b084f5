"""`kairos fork` and `kairos lineage`: from a failed run to a repaired one, one by one and many at once."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kairos
from kairos.authoring.loading import load_app
from kairos.cli.bulk import read_rate, read_share
from kairos.cli.forking import read_output, read_set
from kairos.cli.usage import UsageError
from kairos.cli.where import read_where
from tests.cli.cli_support import ROOT, Kairos, Process, eventually, working
from tests.conftest import TestDatabase

BROKEN = """
import kairos
from pydantic import BaseModel

app = kairos.App("shop")

class Order(BaseModel):
    order_id: str
    parts: int = 0

fulfil = app.workflow("fulfil", input=Order)

@fulfil.step
def reserve(order: Order) -> dict[str, str]:
    return {"warehouse": "A"}

@fulfil.step(retry=kairos.Retry(attempts=1))
def charge(order: Order, reserve: dict[str, str]) -> float:
    return 100 / order.parts

@fulfil.step
def email(charge: float, reserve: dict[str, str]) -> str:
    return f"{charge:g} from {reserve['warehouse']}"
"""
FIXED = BROKEN.replace("100 / order.parts", "100 / max(order.parts, 1)")
HALF_FIXED = BROKEN.replace("100 / order.parts", "100 / len(order.order_id.replace('bad', ''))")


class Shop:
    """A folder with flows.py, a database, and workers in this process."""

    def __init__(self, place: Path, database: TestDatabase, run: Kairos) -> None:
        self.place, self.database, self.run = place, database, run

    def load(self, source: str) -> kairos.App:
        self.forget()
        (self.place / "flows.py").write_text(source)
        return load_app(f"{self.place / 'flows.py'}:app")

    def forget(self) -> None:
        for name in [n for n, m in sys.modules.items() if getattr(m, "__file__", None) == str(self.place / "flows.py")]:
            del sys.modules[name]

    def failed(self, *order_ids: str) -> list[str]:
        """Ids of runs that failed at `charge`; the version with the fix is registered afterwards."""
        app = self.load(BROKEN)
        with working(app, self.database.dsn), kairos.Client(self.database.dsn) as client:
            runs = [client.start(app.get("fulfil"), {"order_id": name}) for name in order_ids]
            assert {run.wait(30).status for run in runs} == {"FAILED"}
        return [run.id for run in runs]


@pytest.fixture
def shop(place: Path, database: TestDatabase, on_database: Kairos) -> Iterator[Shop]:
    shop = Shop(place, database, on_database)
    yield shop
    shop.forget()


def test_a_failed_run_is_forked_followed_and_told_of(shop: Shop) -> None:
    (run,) = shop.failed("7")
    app = shop.load(FIXED)
    plan = shop.run("fork", run, "--from", "charge", "--app", "flows.py:app", "--dry-run")
    assert plan.code == 0
    assert [line.split()[:2] for line in plan.lines if line.startswith(("reserve", "charge", "email"))] == [
        ["reserve", "reused"], ["charge", "runs"], ["email", "runs"]
    ]  # fmt: skip
    assert "would be refused: the version of the code here" in plan.out
    assert shop.run("runs").out.count("fulfil") == 1
    with working(app, shop.database.dsn):
        done = shop.run("fork", "last", "--from", "charge", "--app", "flows.py:app", "--reason", "÷0", "--wait")
        assert (done.code, done.out) == (0, "100 from A\n")
        assert "no live worker" not in done.err
    fork = shop.run("runs", "--json").json["runs"][0]["id"]

    shown = shop.run("show", fork)
    assert f"fork of {run[-8:]} from charge" in shown.out
    assert "÷0" in shown.out
    assert "INHERITED" in next(line for line in shown.lines if line.startswith("reserve"))
    assert f"forked as {fork[-8:]}" in shop.run("show", run).out
    document = shop.run("show", fork, "--json").json
    assert (document["fork_of"]["parent"], document["steps"]["reserve"]["inherited"]["run"]) == (run, run)
    assert shop.run("show", run, "--json").json["forks"][0]["run_id"] == fork
    assert f"inherited from {run[-8:]} #" in shop.run("state", fork).out
    assert shop.run("verify", fork).code == 0
    assert "steps_inherited" in shop.run("events", fork).out


def test_edits_are_typed_as_json_or_text(shop: Shop) -> None:
    (run,) = shop.failed("7")
    app = shop.load(FIXED)
    (shop.place / "reserve.json").write_text('{"warehouse": "B"}')
    with working(app, shop.database.dsn):
        edits = ["--set", "input.parts=4", "--set", "reserve.warehouse=C"]
        assert shop.run("fork", run, "--from", "charge", *edits, "--wait").out == "25 from C\n"
        edits = ["--output", "reserve=@reserve.json", "--output", "charge=9.5"]
        assert shop.run("fork", run, "--from", "email", *edits, "--wait").out == "9.5 from B\n"
        told = shop.run("fork", run, "--from", "charge", "--set", "input.parts=5", "--wait", "--json").json
        assert (told["output"], told["plan"]["edits"]) == ("20 from A", {"input.parts": 5})


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["--from", "chrge"], 2, "no step 'chrge'", "Did you mean 'charge'?"),
        (["--from", "charge", "--set", "reserve.warehuse=B"], 2, "has no 'warehuse'", "Did you mean 'warehouse'?"),
        (["--from", "charge", "--set", "input.parts=many"], 2, "parts", None),
        (["--from", "charge", "--output", "email=1"], 2, "'email' runs again", "fork from"),
        (["--from", "charge", "--set", "input.parts"], 2, "not PATH=VALUE", "input.amount=5"),
        (["--from", "charge", "--output", "reserve=B"], 2, "not JSON", "needs its quotes"),
        (["--from", "charge", "--output", "reserve=@none.json"], 2, "cannot be read", None),
        (["--from", "charge", "--set", "input.parts=1", "--set", "input.parts=2"], 2, "twice", None),
        (["--from", "charge", "--version", "zzz"], 2, "no version", "kairos workflows"),
        (["--from", "charge", "--timeout", "3s"], 2, "--wait", "Add --wait"),
        (["--from", "charge", "--app", "flows.py:nix"], 1, "no app named 'nix'", "app"),
        ([], 2, "--from", None),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    shop: Shop, arguments: list[str], code: int, message: str, hint: str | None
) -> None:
    with kairos.Client(shop.database.dsn) as client:
        app = shop.load(FIXED)
        run = client.start(app.get("fulfil"), {"order_id": "7"}).id
    done = shop.run("fork", run, *arguments)
    if "warehuse" in str(arguments):
        message, hint = "'reserve' is not done", "reserve=JSON"  # nothing has run yet: there is nothing to edit
    if "email=1" in str(arguments):
        hint = "Edit what it reads"
    assert done.code == code
    assert message in done.err
    assert hint is None or hint in done.err
    assert shop.database.fetch("select count(*) from kairos.fork") == [(0,)]


def test_a_failed_step_is_repaired_by_an_output_for_it(shop: Shop) -> None:
    (run,) = shop.failed("7")
    app = shop.load(BROKEN)
    plan = shop.run("fork", run, "--from", "charge", "--output", "charge=9.5", "--dry-run")
    assert (plan.code, "1 reused, 1 given, 1 to run" in plan.out) == (0, True)
    with working(app, shop.database.dsn):
        done = shop.run("fork", run, "--from", "charge", "--output", "charge=9.5", "--wait")
        assert (done.code, done.out) == (0, "9.5 from A\n")
        fork = shop.run("runs", "--json").json["runs"][0]["id"]
        changed = shop.run("fork", fork, "--from", "charge", "--set", "charge=1", "--wait")
        assert (changed.code, changed.out) == (0, "1 from A\n")
        # The last step: nothing is left to run, and the fork is done at once.
        last = shop.run("fork", run, "--from", "email", "--output", 'email="by hand"', "--output", "charge=1", "--wait")
        assert (last.code, last.out) == (0, "by hand\n")
        typed = shop.run("fork", run, "--from", "charge", "--output", 'charge="much"')
        assert typed.code == 2
    assert shop.run("verify").code == 0


def test_neither_a_run_nor_conditions_is_a_question(shop: Shop) -> None:
    shop.load(FIXED)
    assert "which run?" in shop.run("fork", "--from", "charge").err
    assert shop.run("fork", "ffff", "--from", "charge").code in (1, 4)


def test_any_member_shows_the_whole_tree(shop: Shop) -> None:
    (run,) = shop.failed("7")
    app = shop.load(FIXED)
    with working(app, shop.database.dsn), kairos.Client(shop.database.dsn) as client:
        first = client.fork(run, from_step="charge", reason="one").wait(20).id
        second = client.fork(first, from_step="email", reason="two").wait(20).id
        third = client.fork(run, from_step="reserve", author="bob").wait(20).id
    pages = [shop.run("lineage", name) for name in (run, first, second, third)]
    assert {page.code for page in pages} == {0}
    assert [line[:4] for line in pages[0].lines] == ["fulf", "├── ", "│   ", "└── "]
    assert len({re.sub(r"  <- this run|now|\d+m?s ago", "", page.out) for page in pages}) == 1
    for page, name in zip(pages, (run, first, second, third), strict=True):
        assert [line for line in page.lines if "<- this run" in line and name[-8:] in line]
    assert "✗ FAILED" in pages[0].lines[0]
    assert "ZeroDivisionError" in pages[0].lines[0]
    told = shop.run("lineage", second, "--json").json
    assert told["root"] == run
    assert [(entry["run"]["id"], (entry["fork"] or {}).get("parent")) for entry in told["runs"]] == [
        (run, None), (first, run), (second, first), (third, run)
    ]  # fmt: skip


def test_a_run_without_forks_is_a_tree_of_one(in_shop: Kairos) -> None:
    page = in_shop("lineage", "last")
    assert page.code == 0
    assert "no forks" in page.out
    assert in_shop("lineage", "0123456789").code == 4


WHERE = "workflow=fulfil status=failed step=charge since=2h"


def test_many_runs_are_forked_once_after_a_canary(shop: Shop) -> None:
    runs = shop.failed("1", "2", "3", "4")
    app = shop.load(FIXED)
    dry = shop.run("fork", "--where", WHERE, "--from", "failed", "--dry-run")
    assert dry.code == 0
    assert "4 runs would be forked, 1 of them first as canary" in dry.out
    assert all(run in dry.out for run in runs)
    assert shop.run("fork", "--where", WHERE, "--from", "failed").code == 2  # nobody to ask
    with working(app, shop.database.dsn):
        done = shop.run("fork", "--where", WHERE, "--from", "failed", "--rate", "50/s", "--yes")
        assert done.code == 0, done.err + done.out
        assert "4 of 4 forked, 0 going on, 4 done, 0 failed" in done.out
        assert "canary: 1 of 4 forked" in done.err
        again = shop.run("fork", "--where", WHERE, "--from", "failed", "--yes")
        assert (again.code, again.lines) == (0, ["No runs to fork.", "left out: 4 with a fork already"])
    assert shop.database.fetch("select count(*) from kairos.fork") == [(4,)]
    assert shop.run("verify").code == 0


def test_a_canary_that_fails_stops_everything(shop: Shop) -> None:
    shop.failed("1", "2", "3")
    app = shop.load(BROKEN)
    with working(app, shop.database.dsn):
        done = shop.run("fork", "--where", WHERE, "--from", "charge", "--yes")
    assert done.code == 10
    assert "stopped: the canary failed. 2 runs not forked" in done.out
    assert "kairos show" in done.out
    assert shop.database.fetch("select count(*) from kairos.fork") == [(1,)]


def test_it_stops_when_too_many_have_failed_and_a_failed_fork_is_forked_next_time(shop: Shop) -> None:
    shop.failed("bad", "bad", "bad", "fine")  # newest first: the canary is fine
    app = shop.load(HALF_FIXED)
    with working(app, shop.database.dsn):
        told = shop.run(
            "fork", "--where", "workflow=fulfil status=failed", "--from", "failed", "--rate", "2/s",
            "--stop-if-failed", "40%", "--yes", "--json",
        )  # fmt: skip
        assert told.code == 10
        report = told.json
        assert (report["started"], report["done"], report["failed"]) == (2, 1, 1)
        assert "1 of 2 forks that have ended failed; the limit is 40%" in report["stopped"]
    app = shop.load(FIXED)
    with working(app, shop.database.dsn):
        rest = shop.run("fork", "--where", "status=failed", "--from", "failed", "--yes", "--json")
        assert rest.code == 0, rest.out
        # Two that were never forked, and the fork that failed instead of its parent.
        assert (rest.json["planned"], rest.json["done"]) == (3, 3)
        assert rest.json["skipped"] == {"with a fork already": 2}
    generations = shop.database.fetch("select count(*) from kairos.fork f join kairos.fork g on g.parent_id = f.run_id")
    assert generations == [(1,)]


def test_edits_that_do_not_fit_are_told_before_the_first_fork(shop: Shop) -> None:
    shop.failed("1", "2")
    shop.load(FIXED)
    done = shop.run("fork", "--where", WHERE, "--from", "failed", "--set", "reserve.place=B", "--yes")
    assert done.code == 2
    assert "has no 'place'" in done.err
    assert shop.database.fetch("select count(*) from kairos.fork") == [(0,)]


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(shop: Shop, start_kairos: Callable[..., Process]) -> None:
    shop.failed("1", "2", "3")
    version = shop.load(FIXED).get("fulfil").fingerprint
    # Nobody works: the canary waits.
    command = ("fork", "--where", WHERE, "--from", "failed", "--yes", "--app", "flows.py:app", "--version", version)
    process = start_kairos(*command)
    process.says("to fork, 1 of them first as canary")
    eventually(lambda: shop.database.fetch("select 1 from kairos.fork"))
    process.signal(signal.SIGINT)
    assert process.ends() == 130
    assert "1 of 3 forked, 1 going on" in process.text
    assert "stopped: interrupted. 2 runs not forked; what is forked goes on" in process.text
    app = shop.load(FIXED)
    with working(app, shop.database.dsn):
        done = shop.run(*command)
        assert "2 of 2 forked, 0 going on, 2 done" in done.out
    assert shop.database.fetch("select count(distinct parent_id), count(*) from kairos.fork") == [(3, 3)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("status=failed workflw=x", "no condition 'workflw'"),
        ("failed", "'failed' is not NAME=VALUE"),
        ("status=", "is not NAME=VALUE"),
        ("status=broken", "not a status"),
        ("since=yesterdayish", "not a time"),
        ("step=a step=b", "twice"),
        ("label=x", "not label.NAME=VALUE"),
        ("'open", "cannot be read"),
    ],
)
def test_conditions_that_mean_nothing_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_where(text)
    assert message in caught.value.message
    assert caught.value.hint


def test_conditions_are_read() -> None:
    where = read_where("workflow='my flow' status=failed,cancelled label.customer=42 label=a=b error='no money' key=k")
    assert (where.workflow, where.statuses, where.labels) == (
        "my flow", ("FAILED", "CANCELLED"), {"customer": "42", "a": "b"}
    )  # fmt: skip
    assert (where.error, where.key, where.step, where.since) == ("no money", "k", None, None)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("input.n=5", ("input.n", 5)), ("a.b=x=y", ("a.b", "x=y")), ("a.b=", ("a.b", "")), ("a=NaN", ("a", "NaN")),
        ('a["k=v"].b={"x":[1]}', ('a["k=v"].b', {"x": [1]})), ('a.b="5"', ("a.b", "5")), ("a.b=true", ("a.b", True)),
        ("a.b=null", ("a.b", None)), ("a.b= 5 ", ("a.b", 5)),
    ],
)  # fmt: skip
def test_a_setting_is_json_or_text(text: str, pair: tuple[str, Any]) -> None:
    assert read_set(text) == pair


@pytest.mark.parametrize("text", ["=5", "a", "", 'a["b=5'])
def test_a_setting_without_a_path_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_set(text)


def test_an_output_is_json_only() -> None:
    assert read_output("a.b=[1]") == ("a.b", [1])
    with pytest.raises(UsageError, match="NaN"):
        read_output("a=NaN")


@pytest.mark.parametrize(("text", "pause"), [(None, 0.0), ("10/s", 0.1), ("30/m", 2.0), ("100/h", 36.0), ("4", 0.25)])
def test_a_rate_is_a_pause(text: str | None, pause: float) -> None:
    assert read_rate(text) == pytest.approx(pause)


@pytest.mark.parametrize("text", ["0/s", "-1/s", "ten", "10/x", ""])
def test_a_rate_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_rate(text)


def test_a_share_is_between_nothing_and_all() -> None:
    assert [read_share(text) for text in ("5%", "0.05", "0%", "1")] == [0.05, 0.05, 0.0, 1.0]
    for text in ("101%", "-1%", "x", "2"):
        with pytest.raises(UsageError):
            read_share(text)


def test_hostile_texts_do_no_harm(shop: Shop) -> None:
    hostile = "\x1b[31mred\u202e\x07 [bold]x"
    (run,) = shop.failed("7")
    shop.load(FIXED)
    for command in (
        ["fork", run, "--from", "charge", "--reason", hostile, "--set", f"input.order_id={hostile}"],
        ["lineage", run], ["show", run], ["show", "last"], ["events", "last"], ["state", "last"],
        ["fork", "last", "--from", hostile], ["fork", "last", "--from", "charge", "--set", f"{hostile}=1"],
        ["fork", "--where", hostile, "--from", "x", "--dry-run"],
    ):  # fmt: skip
        done = shop.run(*command)
        for letter in ("\x1b", "\x07", "\u202e"):
            assert letter not in done.out + done.err, command
    assert json.loads(shop.run("lineage", run, "--json").out)


def test_a_fork_for_which_no_worker_has_the_code_waits_visibly(shop: Shop) -> None:
    (run,) = shop.failed("7")
    fixed = shop.load(FIXED).get("fulfil").fingerprint[:8]
    forked = shop.run("fork", run, "--from", "charge", "--app", "flows.py:app", "--version", fixed)
    assert (forked.code, f"no live worker has version {fixed}" in forked.err) == (0, True)
    with working(shop.load(BROKEN), shop.database.dsn):
        told = shop.run("why", "last")
    assert f"version {fixed}" in told.lines[0]


def test_code_that_no_worker_ever_had_is_not_forked_to_unless_it_is_named(shop: Shop) -> None:
    (run,) = shop.failed("7")
    broken = shop.load(BROKEN).get("fulfil").fingerprint
    fixed = shop.load(FIXED).get("fulfil").fingerprint
    command = ("fork", run, "--from", "charge", "--app", "flows.py:app")
    for refused in (shop.run(*command), shop.run("fork", "--where", WHERE, *command[2:], "--yes")):
        assert refused.code == 2
        assert f"the version of the code here, {fixed[:8]}, was never announced by a worker" in refused.err
        assert f"--version pinned ({broken[:8]}" in refused.err
        assert f"--version {fixed[:8]} forks all the same" in refused.err
    assert shop.database.fetch("select count(*) from kairos.fork") == [(0,)]
    assert shop.run(*command, "--version", "pinned").code == 0
    assert shop.run(*command, "--version", fixed[:8]).code == 0
    # Neither a fork nor a start with code of one's own makes it the version of everybody else.
    assert shop.run("run", "fulfil", "--input", '{"order_id": "1"}', "--app", "flows.py:app").code == 0
    (shop.place / "flows.py").unlink()
    assert shop.run("run", "fulfil", "--input", '{"order_id": "2"}').code == 0
    assert shop.run("fork", run, "--from", "charge").code == 0
    newest = shop.database.fetch("select fingerprint from kairos.run order by id desc limit 3")
    assert [row[0] for row in newest] == [broken, broken, fixed]
    with working(shop.load(FIXED), shop.database.dsn):
        pass
    assert shop.run("fork", run, "--from", "charge").code == 0
    assert shop.database.fetch("select fingerprint from kairos.run order by id desc limit 1") == [(fixed,)]


def test_two_who_give_the_same_command_at_once_fork_nothing_twice(
    shop: Shop, start_kairos: Callable[..., Process]
) -> None:
    runs = shop.failed(*"123456")
    app = shop.load(FIXED)
    command = ("fork", "--where", WHERE, "--from", "failed", "--yes", "--app", "flows.py:app", "--canary", "0")
    with working(app, shop.database.dsn):
        both = [start_kairos(*command) for _ in range(2)]
        assert [process.ends() for process in both] == [0, 0]
    rows = shop.database.fetch("select parent_id::text, count(*) from kairos.fork group by 1")
    assert sorted(rows) == [(run, 1) for run in sorted(runs)]


def test_at_a_terminal_it_asks_and_draws(shop: Shop) -> None:
    shop.failed("1", "2", "3")
    app = shop.load(FIXED)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "KAIROS_DATABASE_URL": shop.database.dsn, "TERM": "xterm"}
    command = [
        sys.executable,
        "-m",
        "kairos.cli",
        "fork",
        "--where",
        WHERE,
        "--from",
        "failed",
        "--app",
        "flows.py:app",
    ]

    def typed(answer: bytes) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(command, cwd=shop.place, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        seen = b""
        has_answered = False
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            seen += part
            if b"[y/N]" in seen and not has_answered:
                os.write(ours, answer)
                has_answered = True
        os.close(ours)
        return process.wait(30), seen.decode()

    with working(app, shop.database.dsn):
        code, seen = typed(b"n\r")
        assert code == 0
        assert "Fork 3 runs?" in seen
        assert shop.database.fetch("select count(*) from kairos.fork") == [(0,)]
        code, seen = typed(b"y\r")
    assert code == 0
    assert "canary: " in seen
    assert "3 of 3 forked, 0 going on, 3 done, 0 failed" in seen
