"""An editor at a replayed step: debugpy, and a client that does what editors do."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kairos.replay.stopping import breakpoints
from tests.replay.stopping.conftest import Drive, line_of
from tests.replay.stopping.dap import DapClient
from tests.replay.stopping.terminal import Terminal

Attach = Callable[..., tuple[Terminal, DapClient]]


@pytest.fixture
def attach(drive: Drive) -> Iterator[Attach]:
    """Starts steps under debugpy on any free port, and attaches a client."""
    clients: list[DapClient] = []

    def start(*steps: str, **options: Any) -> tuple[Terminal, DapClient]:
        terminal = drive.on_terminal(*steps, debugger="debugpy", listen="127.0.0.1:0", **options)
        port = terminal.says(r"\[replay\] debugpy listens on 127\.0\.0\.1:(\d+); attach your editor now")[1]
        client = DapClient(int(port))
        clients.append(client)
        client.attach()
        terminal.says(r"\[replay\] attached")
        return terminal, client

    yield start
    for client in clients:
        client.close()


def test_a_session_in_an_editor(attach: Attach) -> None:
    place = f"spread:{line_of('in the thread')}"
    terminal, client = attach("reserve", "charge", "spread", break_at=["reserve", "charge", place])
    stop = client.stopped()
    assert (stop.reason, stop.function, stop.line) == ("breakpoint", "reserve", line_of("first line of reserve"))
    assert "order_id='A1'" in stop.locals()["order"]
    stop.go("next")
    stop = client.stopped()
    assert (stop.reason, stop.line, stop.locals()["where"]) == ("step", line_of("first line of reserve") + 1, "'A'")
    stop.go()

    stop = client.stopped()
    assert (stop.reason, stop.function, stop.line) == ("breakpoint", "charge", line_of("first line of charge"))
    assert stop.locals()["reserve"] == "'A1 from A'"
    stop.go("next")
    stop = client.stopped()
    stop.go("next")  # over an await
    stop = client.stopped()
    assert (stop.function, stop.line, stop.locals()["total"]) == ("charge", line_of("first line of charge") + 2, "100")
    stop.go()

    numbers = set()
    while (in_thread := client.stopped_or_ended()) is not None:
        assert (in_thread.function, in_thread.line) == ("work", line_of("in the thread"))
        numbers.add(in_thread.locals()["number"])
        in_thread.go()  # all of them: threads that stop at the same moment stop, and go on, as one
    assert numbers
    assert numbers <= {"0", "1", "2"}
    terminal.says(r"step spread  OK \[0, 1, 4\]")
    assert terminal.ends() == 0, terminal.text


def test_a_condition_chooses_the_time_and_one_that_fails_stops(attach: Attach) -> None:
    loop = f"charge:{line_of('in the loop')}"
    terminal, client = attach(
        "reserve", "charge", "settle",
        break_at=["reserve", loop, "settle"], conditions=["nobody > 1", "part == 2", "order.cents == 7"],
    )  # fmt: skip
    stop = client.stopped()
    assert stop.function == "reserve"
    terminal.says(r"the condition 'nobody > 1' raised NameError")
    stop.go()
    stop = client.stopped()
    assert stop.locals()["part"] == "2"
    stop.go()
    assert terminal.ends() == 0, terminal.text


def test_a_breakpoint_on_the_first_line_stops_once_even_if_that_is_a_loop(attach: Attach) -> None:
    terminal, client = attach("loops", "asks", break_at=["loops"])
    stop = client.stopped()
    assert (stop.reason, stop.line) == ("breakpoint", line_of("loops"))
    stop.go()
    stop = client.stopped()  # breakpoint() in the code
    assert stop.function == "asks"
    assert stop.locals()["note"] == "'before'"
    stop.go()
    assert terminal.ends() == 0, terminal.text


def test_what_a_step_raised_or_returned_differently_is_shown_in_its_frame(attach: Attach) -> None:
    record = {"reserve": {"output": "A1 from B"}}
    terminal, client = attach("reserve", "in_library", "grouped", break_on=["fail", "diverge"], record=record)
    stop = client.stopped()
    assert (stop.reason, stop.function, stop.line) == ("exception", "reserve", line_of("first line of reserve") + 1)
    assert stop.locals()["where"] == "'A'"
    assert "OutputDiverged" in stop.text
    stop.go()
    stop = client.stopped()
    assert (stop.reason, stop.function, stop.line) == ("exception", "in_library", line_of("json raises"))
    assert stop.locals()["text"] == "'{A1'"
    stop.go()
    stop = client.stopped()
    assert (stop.function, stop.line, stop.locals()["number"]) == ("one", line_of("the member"), "1")
    stop.go()
    terminal.says(r"step grouped  FAIL ExceptionGroup")
    assert terminal.ends() == 1


@pytest.mark.parametrize("how", ["disconnect", "close"])
def test_a_client_that_leaves_lets_the_replay_run_on(attach: Attach, how: str) -> None:
    terminal, client = attach("reserve", "charge", break_at=["reserve", "charge"])
    assert client.stopped().function == "reserve"
    getattr(client, how)()
    terminal.says(r"step charge  OK 206")
    assert terminal.ends() == 0, terminal.text


def test_ctrl_c_gives_up_waiting_for_a_client(drive: Drive) -> None:
    terminal = drive.on_terminal("reserve", debugger="debugpy", listen="127.0.0.1:0", break_at=["reserve"])
    port = int(terminal.says(r"debugpy listens on 127\.0\.0\.1:(\d+);")[1])
    terminal.types("\x03", end="")
    terminal.says(r"nobody attached")
    assert terminal.ends() == 130
    assert "Traceback" not in terminal.text
    wait_until_closed(port)


def test_a_port_that_is_taken_is_an_error_with_a_way_out(drive: Drive) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = drive.piped("", "reserve", debugger="debugpy", listen=f"127.0.0.1:{port}")
    assert re.search(rf"error: debugpy cannot listen on 127\.0\.0\.1:{port}: .*in use", done.stdout)
    assert "--listen 127.0.0.1:0 takes any free port" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 2


def test_without_debugpy_the_error_says_how_to_get_it(drive: Drive) -> None:
    (drive.folder / "sitecustomize.py").write_text("import sys\nsys.modules['debugpy'] = None\n")
    from tests.replay.stopping.terminal import ROOT

    env = {"PYTHONPATH": f"{drive.folder}:{ROOT}"}
    done = drive.piped("", "reserve", debugger="debugpy", listen="127.0.0.1:0", env=env)
    assert "which is not installed here\n  hint: pip install 'kairos[debug]'" in done.stdout
    assert done.returncode == 2


def test_if_debugpy_moves_its_private_parts_the_first_line_is_stopped_at_all_the_same(
    attach: Attach, drive: Drive
) -> None:
    place = f"charge:{line_of('in the loop')}"
    terminal, client = attach("reserve", "charge", break_at=["reserve", "charge", place], break_api=True)
    stop = client.stopped()
    assert (stop.function, stop.line) == ("reserve", line_of("first line of reserve"))
    stop.go()
    terminal.says(r"takes no breakpoints from inside .*; set it in the editor: \S+shop.py")
    stop = client.stopped()
    assert (stop.function, stop.line) == ("charge", line_of("first line of charge"))
    stop.go()
    assert terminal.ends() == 0, terminal.text


def test_once_attached_debugpy_needs_nothing_that_the_guards_refuse(attach: Attach, drive: Drive) -> None:
    terminal, client = attach("settle", break_at=["settle"])
    stop = client.stopped()
    stop.locals()
    answer = client.ask("evaluate", expression="order.order_id", frameId=stop.frames[0]["id"], context="repl")
    assert answer["result"] == "'A1'"
    stop.go("next")
    client.stopped().go()
    assert terminal.ends() == 0  # 1 if there were leaks
    assert not list(drive.scratch.iterdir())


@pytest.mark.parametrize("context", ["repl", "watch", "hover"])
def test_what_is_typed_that_a_guard_stops_is_answered_and_does_not_count(
    attach: Attach, drive: Drive, context: str
) -> None:
    terminal, client = attach("reserve", "charge", break_at=["reserve"])
    stop = client.stopped()
    target = drive.folder / "typed.txt"
    for expression in (f"open({str(target)!r}, 'w')", "__import__('socket').create_connection(('127.0.0.1', 1))"):
        answer = client.answer("evaluate", expression=expression, frameId=stop.frames[0]["id"], context=context)
        assert not answer["success"]
        assert "the guards stopped what was typed here: " in answer["message"]
    assert not target.exists()
    stop.go("next")
    client.stopped().go()
    terminal.says(r"step charge  OK 206")
    assert terminal.ends() == 0, terminal.text  # 1 if there were leaks


def test_the_child_runs_without_frozen_modules() -> None:
    done = subprocess.run(
        [sys.executable, *breakpoints.DEBUGPY_FLAGS, "-c", "import os; print(os.__spec__.origin)"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "frozen" not in done.stdout


def wait_until_closed(port: int) -> None:
    """Until nobody listens there any more."""
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return
        assert time.monotonic() < deadline, "the adapter has outlived the replay"
        time.sleep(0.05)
