"""`kairos replay` with a debugger, as typed by a user: a run that failed in step 4 of 6, looked at and repaired."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import kairos
from kairos.authoring.loading import load_app
from tests.cli.cli_support import working
from tests.conftest import Server
from tests.replay.replay_support import Replayed, replay
from tests.replay.stopping.dap import DapClient
from tests.replay.stopping.terminal import Terminal

SHOP = """
import asyncio, os, threading, time
import kairos

app = kairos.App("shop")
flow = app.workflow("fulfil", input=dict)
THERE = not os.environ.get("KAIROS_REPLAY")

@flow.step
def check(input: dict) -> dict:
    return {"country": input["country"], "cents": input["cents"]}

@flow.step
def reserve(check: dict, ctx: kairos.StepContext) -> str:
    return ctx.call("warehouse", lambda: "A" if THERE else "nowhere")

@flow.step
async def price(check: dict, reserve: str) -> int:
    total = check["cents"]
    await asyncio.sleep(0)
    for part in (1, 2):
        total += part  # in the loop
    return total

@flow.step(retry=kairos.Retry(attempts=1))
def tax(check: dict, price: int) -> int:
    rates = {"de": 19}
    rate = rates[check["country"]]  # the bug
    return price * rate // 100

@flow.step
def charge(tax: int, price: int) -> int:
    return price + tax

@flow.step
def confirm(charge: int) -> str:
    return f"charged {charge}"

hung = app.workflow("hung", input=dict)

@hung.step
def hang(input: dict) -> str:
    count = 0
    while input["open"] == "no":
        count += 1
        print("it hangs", flush=True)
        time.sleep(0.05)
    return "done"
"""


@dataclass(frozen=True)
class Shop:
    """A folder with shop.py, and the database that knows its runs."""

    folder: Path
    dsn: str

    @property
    def env(self) -> dict[str, str]:
        """What a user has set."""
        return {"KAIROS_DATABASE_URL": self.dsn, "KAIROS_APP": "shop.py:app", "NO_COLOR": "1"}

    def replay(self, *arguments: str, stdin: str = "") -> Replayed:
        """`kairos replay`, with these lines on stdin."""
        return replay(self.folder, *arguments, env=self.env, stdin=stdin)

    def line(self, comment: str) -> int:
        """The line of shop.py with this comment."""
        lines = (self.folder / "shop.py").read_text().splitlines()
        return 1 + next(number for number, line in enumerate(lines) if line.endswith(f"# {comment}"))


@pytest.fixture(scope="module")
def runs(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """A database with a run that is done, one that failed in step 4, and the name of each."""
    name = "kairos_stopped"
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute(f"drop database if exists {name} with (force)")
        conn.execute(f"create database {name} template {template}")
    dsn = make_conninfo(server.app, dbname=name)
    path = tmp_path_factory.mktemp("production") / "shop.py"
    path.write_text(SHOP)
    app = load_app(f"{path}:app")
    ids = {}
    with working(app, dsn), kairos.Client(dsn) as client:
        starts = [("hung", "hung", {"open": "yes"}), ("good", "fulfil", {"country": "de", "cents": 100}),
                  ("bad", "fulfil", {"country": "fr", "cents": 100})]  # fmt: skip
        for title, workflow, start in starts:
            run = client.start(app.workflows[workflow], start)
            run.wait(30)
            ids[title] = str(run.info.id)
    return dsn, ids


@pytest.fixture
def shop(runs: tuple[str, dict[str, str]], tmp_path: Path) -> Shop:
    """A developer's copy of the app."""
    (tmp_path / "shop.py").write_text(SHOP)
    return Shop(tmp_path, runs[0])


@pytest.fixture
def terminal(shop: Shop) -> Iterator[Callable[..., Terminal]]:
    """Starts a `kairos` command on a terminal of its own."""
    started: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        started.append(Terminal(sys.executable, "-m", "kairos.cli", *arguments, cwd=shop.folder, env=shop.env))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_from_a_failed_run_to_a_fixed_and_verified_fork(shop: Shop, terminal: Callable[..., Terminal]) -> None:
    listed = terminal("runs", "--status", "failed")
    listed.says(r"fulfil.*FAILED|FAILED.*fulfil")
    assert listed.ends() == 0

    first = terminal("replay", "last", "--post-mortem")
    first.says(r"\[replay\] tax, attempt 1, of run \S+ \(fulfil\), raised KeyError: 'fr'\n  the same error as recorded")
    first.says(r"check = {'cents': 100, 'country': 'fr'}\n  price = 103")
    first.says(rf"> \S+shop.py\({shop.line('the bug')}\)tax\(\)")
    first.asks("p rates", r"{'de': 19}")
    first.asks("rec", r"KeyError: 'fr'\nits locals, as recorded:\n")
    first.asks("c", r"FAIL")
    assert first.ends() == 0  # the same error is what the record has
    assert "step 3/6: price  SERVED" in first.text or "price  OK" not in first.text

    second = terminal("replay", "last", "--break-at", "tax", "--only", "tax")
    second.says(r"\[replay\] stopped in tax, attempt 1")
    second.asks("inp check", r"check = {'cents': 100, 'country': 'fr'}")
    second.asks("n", r"-> rate = rates")
    second.asks("q", r"\[replay\] ended early: 3 served; 3 of 6 steps not run to the end")
    assert second.ends() == 0
    assert "Traceback" not in second.text

    third = terminal("replay", "last", "--post-mortem")
    third.says(r"the same error as recorded")
    third.asks("q", r"\[replay\] complete: 1 same-error, 3 served, 2 missing")
    assert third.ends() == 0

    path = shop.folder / "shop.py"
    path.write_text(path.read_text().replace('{"de": 19}', '{"de": 19, "fr": 20}'))
    done = shop.replay("last", "--fork-from", "tax")
    assert done.code == 0, done.out
    assert [line for line in done.out.splitlines() if re.search(r"(check|reserve|price)  SERVED", line)]
    assert "OK" in done.line("tax")
    assert "OK" in done.line("confirm")

    worker = terminal("worker", "--app", "shop.py:app")
    worker.says("worker_started")
    fork = terminal("fork", "last", "--from", "tax", "--app", "shop.py:app", "--reason", "fr was missing", "--wait")
    fork.says(r"3 reused, 0 given, 3 to run")
    fork.says(r"charged 123")
    assert fork.ends() == 0
    events = terminal("events", "last")
    events.says(r"steps_inherited +3 from ")
    assert events.ends() == 0
    assert not re.search(r"step_started +(check|reserve|price)", events.text)
    verified = terminal("verify", "last")
    verified.says(r"whole")
    assert verified.ends() == 0
    lineage = terminal("lineage", "last")
    lineage.says(r"FAILED[\s\S]*DONE  from tax .*fr was missing")
    worker.types("\x03", end="")
    worker.ends()


def test_a_coroutine_is_stopped_in_and_effects_are_shown(shop: Shop, runs: tuple[str, dict[str, str]]) -> None:
    place = f"price:{shop.line('in the loop')}"
    typed = "fx\nc\np total\nc\nc\n"
    done = shop.replay(
        runs[1]["good"], "--break-at", "reserve", "--break-at", place, "--if", "1", "--if", "part == 2", stdin=typed
    )
    assert re.search(r"1  call    warehouse#1  -> 'A'", done.out)
    assert "(kairos) 101" in done.out
    assert (done.code, done.err) == (0, "")
    assert "6 same" in done.out


def test_a_difference_stops_where_the_step_returned(shop: Shop, runs: tuple[str, dict[str, str]]) -> None:
    path = shop.folder / "shop.py"
    path.write_text(path.read_text().replace("return price + tax", "return price - tax"))
    done = shop.replay(runs[1]["good"], "--break-on", "diverge", stdin="p price, tax\nc\n")
    assert "charge, attempt 1, of run" in done.out
    assert "1 difference from the record: (all)  changed  122 -> 84" in done.out
    assert "(kairos) (103, 19)" in done.out
    assert done.code == 1


@pytest.mark.parametrize(
    ("instead", "said", "typed"),
    [
        (
            'ctx.call("warehouse", lambda: "A") + ctx.call("spare", lambda: "")',
            "1 difference from the record: the record has no effect spare #1",
            "p check\nc\n",
        ),
        (
            '"A"',
            "1 difference from the record: the effect warehouse #1 of the record was not asked for",
            "p check\nc\n",
        ),
        ('ctx.call("warehouse", str, 7)', 'recorded with no arguments, asked for with {"args":[7]}', "p check\nc\n"),
    ],
    ids=["too many", "too few", "other arguments"],
)
def test_other_effects_than_recorded_are_stopped_at(
    shop: Shop, runs: tuple[str, dict[str, str]], instead: str, said: str, typed: str
) -> None:
    path = shop.folder / "shop.py"
    path.write_text(path.read_text().replace('ctx.call("warehouse", lambda: "A" if THERE else "nowhere")', instead))
    done = shop.replay(runs[1]["good"], "--only", "reserve", "--break-on", "diverge", stdin=typed)
    assert said in done.out, done.out
    assert "(kairos) {'cents': 100, 'country': 'de'}" in done.out
    assert done.code == 1


def test_an_ignored_difference_does_not_stop(shop: Shop, runs: tuple[str, dict[str, str]]) -> None:
    path = shop.folder / "shop.py"
    path.write_text(path.read_text().replace('"cents": input["cents"]', '"cents": input["cents"] + 1'))
    done = shop.replay(runs[1]["good"], "--only", "check", "--break-on", "diverge", stdin="q\n")
    assert "1 difference from the record: cents  changed  100 -> 101" in done.out
    done = shop.replay(runs[1]["good"], "--only", "check", "--break-on", "diverge", "--ignore", "cents")
    assert "(kairos)" not in done.out
    assert done.code == 0


def test_a_failure_that_does_not_come_again_is_a_difference(shop: Shop, runs: tuple[str, dict[str, str]]) -> None:
    path = shop.folder / "shop.py"
    path.write_text(path.read_text().replace('{"de": 19}', '{"de": 19, "fr": 20}'))
    done = shop.replay(runs[1]["bad"], "--post-mortem")
    assert "not reproduced. It returned; the record has this failure:" in done.out
    assert "KeyError: 'fr'" in done.out
    assert "  rates = {'de': 19}" in done.out
    assert done.code == 1


def test_a_hung_step_is_looked_into_with_ctrl_c(
    shop: Shop, runs: tuple[str, dict[str, str]], terminal: Callable[..., Terminal]
) -> None:
    path = shop.folder / "shop.py"
    path.write_text(path.read_text().replace('== "no"', '== "yes"'))
    hung = terminal("replay", runs[1]["hung"], "--break-at", "hang")
    hung.asks("c", r"it hangs")
    for _ in range(4):  # more often than a replay without a debugger bears
        hung.types("\x03", end="")
        hung.says(r"interrupted here")
        hung.asks("p count > 0", "True")
        hung.asks("c", r"it hangs")
    hung.types("\x03", end="")
    hung.asks("q", r"\[replay\] ended early")
    assert hung.ends() == 0
    assert "Traceback" not in hung.text


def test_an_editor_attaches(shop: Shop, runs: tuple[str, dict[str, str]], terminal: Callable[..., Terminal]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    waiting = terminal(
        "replay", runs[1]["good"], "--break-at", "price", "--debugger", "debugpy",
        "--listen", f"127.0.0.1:{port}", "--write-vscode",
    )  # fmt: skip
    waiting.says(rf"debugpy listens on 127\.0\.0\.1:{port}; attach your editor now")
    client = DapClient(port)
    try:
        client.attach()
        stop = client.stopped()
        assert (stop.reason, stop.function) == ("breakpoint", "price")
        assert stop.locals()["reserve"] == "'A'"
        stop.go("next")
        stop = client.stopped()
        assert stop.locals()["total"] == "100"
        stop.go()
        waiting.says(r"complete: 6 same")
        assert waiting.ends() == 0
    finally:
        client.close()
    written = json.loads((shop.folder / ".vscode" / "launch.json").read_text())
    assert written["configurations"][0]["connect"] == {"host": "127.0.0.1", "port": port}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--break-at", "txa"], "there is no step 'txa'\nhint: Did you mean 'tax'?"),
        (["--break-at", "tax:1"], "line 1 of shop.py is outside of step 'tax'"),
        (["--break-at", "tax", "--if", "x >"], "--if 'x >' is not an expression"),
        (["--break-on", "fali"], "--break-on 'fali' is not known\nhint: Did you mean 'fail'?"),
        (["--debugger", "gdb"], "--debugger 'gdb' is not known"),
        (["--listen", "127.0.0.1:1"], "--listen is where debugpy waits"),
        (["--debugger", "debugpy", "--listen", "0.0.0.0:1"], "it listens on this machine only"),
        (["--write-vscode"], "--write-vscode is for an editor"),
        (["--break-at", "tax", "--timeout", "1s"], "--timeout would end a step while you look at it"),
    ],
)
def test_what_cannot_be_is_wrong_usage(
    shop: Shop, runs: tuple[str, dict[str, str]], arguments: list[str], complaint: str
) -> None:
    done = shop.replay(runs[1]["bad"], *arguments)
    assert complaint in " ".join(done.err.replace("\nhint", "~hint").split("\n")).replace("~hint", "\nhint")
    assert (done.code, "Traceback" in done.err) == (2, False)


def test_there_must_be_a_failure_to_look_at(shop: Shop, runs: tuple[str, dict[str, str]]) -> None:
    done = shop.replay(runs[1]["good"], "--post-mortem")
    assert "no step of this run has failed" in done.err
    assert done.code == 2
