"""`kairos trace FILE` as a user meets it: piped, on a terminal, without colours, with a wrong file."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kairos.replay.trace.history import Trace
from kairos.replay.trace.layout import About
from tests.replay.trace.test_walking import FIRST, ORDERS, bill
from tests.replay.trace.tracing_support import save

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "bill.ktrace"
    save(path, bill, ORDERS, about=About("0192aa", "fulfil", "bill", 2))
    return path


def kairos(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "FORCE_COLOR": ""}
    command = [sys.executable, "-m", "kairos.cli", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, env=env, timeout=60)


def test_piped_commands_are_obeyed_and_shown(trace_file: Path) -> None:
    done = kairos("trace", str(trace_file), stdin="p\nlast amount\nprint order['who']\nnonsense\nq\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "trace of fulfil step bill attempt 2  0192aa" in done.stdout
    assert "raises ValueError('order 3 owes -4')" in done.stdout
    assert re.search(r"\(\d+/\d+\) last amount\n", done.stdout)
    assert "this line made amount = -4" in done.stdout
    assert "'ann'" in done.stdout
    assert "there is no command 'nonsense'" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_end_of_the_input_ends_it(trace_file: Path) -> None:
    assert kairos("trace", str(trace_file)).returncode == 0


def test_the_facts_as_json(trace_file: Path) -> None:
    facts = json.loads(kairos("trace", str(trace_file), "--json").stdout)
    assert (facts["run"], facts["workflow"], facts["step"], facts["attempt"]) == ("0192aa", "fulfil", "bill", 2)
    assert facts["complete"] is True
    assert facts["failed_at"] > 1


def test_a_file_that_is_no_trace_exits_with_4(tmp_path: Path) -> None:
    (tmp_path / "x.ktrace").write_text("hello")
    done = kairos("trace", str(tmp_path / "x.ktrace"))
    assert done.returncode == 4
    assert "x.ktrace is not a trace" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert kairos("trace", str(tmp_path / "none")).returncode == 4


def typed(arguments: list[str], *keys: tuple[str, str]) -> str:
    """What a terminal shows when, each time that it shows a text, some keys are pressed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    pid, main = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-m", "kairos.cli", *arguments], env)
    shown, told, deadline = "", 0, time.monotonic() + 60
    try:
        for awaited, press in (*keys, ("", "")):
            while awaited not in shown[told:] or not awaited:
                assert time.monotonic() < deadline, shown
                if select.select([main], [], [], 1)[0]:
                    try:
                        shown += os.read(main, 65536).decode(errors="replace")
                    except OSError:
                        break
            told = len(shown)
            if press:
                os.write(main, press.encode())
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(main)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return shown


@pytest.mark.parametrize("color", [True, False])
def test_on_a_terminal_it_has_a_prompt_and_colours_unless_told_not_to(trace_file: Path, color: bool) -> None:
    prompt = f"/{len(Trace.open(trace_file))}) "
    options = [] if color else ["--no-color"]
    shown = typed(["trace", str(trace_file), *options], (prompt, "p\n"), (prompt, "wh\x03"), (prompt, "q\n"))
    assert "raises" in shown
    assert f":{FIRST + 5}" in shown
    assert ("\x1b[1;36m" in shown) is color
    assert "Traceback" not in shown
