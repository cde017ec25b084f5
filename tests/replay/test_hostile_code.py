"""Replays of code that does its worst: to the process, to the terminal, to the protocol; and of a step that hangs."""

from __future__ import annotations

import asyncio
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

import kairos
from kairos.authoring.loading import load_app
from kairos.replay.bundle import export_bundle
from kairos.store.connect import Session
from kairos.store.reader import Reader
from tests.cli.cli_support import children_of, eventually, working
from tests.conftest import TestDatabase
from tests.replay.replay_support import environment, replay

APP = """
import asyncio, concurrent.futures, os, signal, sys, threading, time
import kairos

app = kairos.App("hostile")
w = app.workflow("w")
HERE = bool(os.environ.get("KAIROS_REPLAY"))

@w.step
def prints() -> str:
    print("said aloud"); print("and complained", file=sys.stderr); os.write(1, b"raw\\n")
    return "x"

@w.step
def closes_descriptors() -> str:
    if HERE: os.closerange(3, 256)
    return "x"

def write_everywhere(data):
    for fd in range(3, 1024):
        try: os.write(fd, data)
        except OSError: pass

@w.step
def writes_everywhere() -> str:
    if HERE: write_everywhere(b"garbage\\n")
    return "x"

@w.step
def writes_half_a_line_everywhere() -> str:
    if HERE: write_everywhere(b"{")
    return "x"

@w.step
def writes_empty_lines_everywhere() -> str:
    if HERE: write_everywhere(b"\\n")
    return "x"

@w.step
def leaves() -> str:
    if HERE: sys.exit(3)
    return "x"

@w.step
def dies() -> str:
    if HERE: os._exit(7)
    return "x"

@w.step
def crashes() -> str:
    if HERE: os.kill(os.getpid(), signal.SIGSEGV)
    return "x"

@w.step
def recurses() -> str:
    def deeper(): return deeper()
    if HERE: deeper()
    return "x"

@w.step
def starts_thread() -> str:
    if HERE: threading.Thread(target=time.sleep, args=(60,), name="lingerer").start()
    return "x"

@w.step
async def starts_task() -> str:
    if HERE: asyncio.create_task(asyncio.sleep(60))
    return "x"

@w.step
def reads_input() -> str:
    return "x" + (sys.stdin.read() if HERE else "")

@w.step
def writes_file() -> str:
    if HERE: open("leak.txt", "w")
    return "x"

@w.step
def hides_a_leak() -> str:
    try:
        if HERE: open("leak.txt", "w")
    except BaseException: pass
    return "x"

@w.step
def forgets_modules() -> str:
    if HERE: sys.modules.clear()
    return "x"

@w.step
def closes_output() -> str:
    if HERE: sys.stdout.close()
    return "x"

@w.step
def drops_the_signal() -> str:
    if HERE: signal.signal(signal.SIGINT, signal.SIG_IGN)
    return "x"

@w.step
async def sleeps() -> str:
    if HERE: await asyncio.sleep(60)
    return "x"

@w.step
def loops() -> str:
    while HERE: time.sleep(0.01)
    return "x"

@w.step
def returns_generator() -> str:
    return (i for i in ()) if HERE else "x"

@w.step
def colours() -> dict:
    return {"a\\x1b[31m": "\\x1b]0;title\\x07" if HERE else "plain"}

@w.step
def last() -> str:
    return "x"

lasting = app.workflow("lasting")
GO = threading.Event()
LEFT = []
POOL = concurrent.futures.ThreadPoolExecutor(1)

def leak(name):
    GO.wait()
    open(name, "w")

@lasting.step
def leaves_a_thread() -> str:
    if HERE:
        LEFT.append(threading.Thread(target=leak, args=("of_a_thread.txt",)))
        LEFT[0].start()
        POOL.submit(int).result()
    return "x"

@lasting.step
def lets_it_go(leaves_a_thread: str) -> str:
    if HERE:
        GO.set()
        LEFT[0].join()
    return "x"

@lasting.step
def uses_the_pool(lets_it_go: str) -> str:
    if HERE:
        try: POOL.submit(leak, "of_a_pool.txt").result()
        except BaseException: pass
    return "x"

@lasting.step
def has_done_nothing(uses_the_pool: str) -> str:
    return "x"

slow = app.workflow("slow")

@slow.step
def stuck() -> str:
    place = "the inner one"
    while HERE: time.sleep(0.02)
    return "x"

@slow.step
async def stuck_too() -> str:
    if HERE: await asyncio.sleep(60)
    return "x"

@slow.step
def after() -> str:
    return "x"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the app."""
    place = tmp_path_factory.mktemp("hostile")
    (place / "app.py").write_text(APP)
    return place


async def _export(dsn: str, run: kairos.Run, path: Path) -> None:
    session = Session(dsn, "kairos tests")
    try:
        await export_bundle(Reader(session), run.info.id, path)
    finally:
        await session.close()


@pytest.fixture
def files(place: Path, database: TestDatabase) -> Path:
    """The folder, with a bundle of a run of each workflow; made once."""
    if (place / "slow.kairos").exists():
        return place
    app = load_app(f"{place / 'app.py'}:app")
    with working(app, database.dsn), kairos.Client(database.dsn) as client:
        for name in ("w", "slow", "lasting"):
            run = client.start(app.get(name))
            run.wait(30)
            asyncio.run(_export(database.dsn, run, place / f"{name}.kairos"))
    return place


def test_whatever_a_step_does_the_others_are_replayed(files: Path) -> None:
    done = replay(files, "w.kairos", "--app", "app.py:app", "--timeout", "500ms", "--json", stdin="a secret")
    assert done.code == 3, done.err
    expected = dict.fromkeys(done.verdicts, "same")
    expected |= {"leaves": "new-error", "dies": "crashed", "crashes": "crashed", "recurses": "new-error"}
    scribblers = [name for name in expected if name.endswith("_everywhere")]
    expected |= dict.fromkeys(scribblers, "crashed")
    expected |= {"writes_file": "blocked", "hides_a_leak": "blocked", "returns_generator": "new-error"}
    expected |= {"sleeps": "interrupted", "loops": "interrupted", "colours": "diverged:output"}
    assert done.verdicts == expected
    steps = done.steps
    assert steps["dies"]["why"] == "exit code 7"
    assert steps["crashes"]["why"] == "signal SIGSEGV"
    for name in scribblers:
        assert steps[name]["why"] == "it wrote into the descriptors of the replay itself, and was ended"
    assert steps["leaves"]["error"]["message"] == "the step called sys.exit(3)"
    assert steps["starts_thread"]["notes"] == ["left 1 thread running: lingerer"]
    assert steps["starts_task"]["notes"] == ["left 1 asyncio task running; cancelled"]
    hidden = '        if HERE: open("leak.txt", "w")'
    assert steps["hides_a_leak"]["leaks"][0]["line"] == APP.splitlines().index(hidden) + 1
    assert steps["sleeps"]["error"]["frames"][0]["function"] == "sleeps"
    assert "said aloud" in done.err  # standard output holds the document alone
    assert not (files / "leak.txt").exists()


def test_the_terminal_is_safe_and_the_lines_come_in_order(files: Path) -> None:
    done = replay(files, "w.kairos", "--app", "app.py:app", "--timeout", "500ms")
    assert done.code == 3
    assert "\x1b" not in done.out
    assert "\x07" not in done.out
    lines = done.out.splitlines()
    numbered = [int(found[1]) for line in lines if (found := re.match(r"\[replay\] step (\d+)/", line))]
    assert numbered == list(range(1, len(numbered) + 1))
    assert lines.index("said aloud") < next(n for n, line in enumerate(lines) if ": prints  OK" in line)


def test_a_leak_of_a_thread_belongs_to_the_step_that_started_it(files: Path) -> None:
    done = replay(files, "lasting.kairos", "--app", "app.py:app", "--json")
    assert done.code == 3, done.err
    assert done.verdicts == {
        "leaves_a_thread": "blocked", "lets_it_go": "same", "uses_the_pool": "blocked", "has_done_nothing": "same",
    }  # fmt: skip
    (late,) = done.steps["leaves_a_thread"]["leaks"]
    assert (late["function"], late["target"]) == ("leak", "of_a_thread.txt")
    (of_pool,) = done.steps["uses_the_pool"]["leaks"]
    assert of_pool["target"] == "of_a_pool.txt"
    assert "Traceback" not in done.err
    assert "step 1/4: leaves_a_thread  BLOCKED (after its end, by a thread that it has left running)" in done.err


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, place: Path, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "kairos.cli", "replay", *arguments]
        self.popen = subprocess.Popen(
            command, cwd=place, env=environment(TERM="xterm", COLUMNS="200"), stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)
        self.text = ""

    def until(self, pattern: str, timeout: float = 30) -> None:
        """Read until the output matches."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text
            self._read()

    def rest(self) -> int:
        """Read to the end; returns the exit code."""
        while self._read():
            pass
        os.close(self.master)
        return self.popen.wait(10)

    def press(self, keys: bytes) -> None:
        """As if they were typed."""
        os.write(self.master, keys)

    def _read(self) -> bool:
        if not select.select([self.master], [], [], 0.2)[0]:
            return self.popen.poll() is None
        try:
            more = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            return False
        self.text += re.sub(r"\x1b\[[0-9;]*m", "", more.decode())
        return bool(more)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_ctrl_c_shows_where_a_hung_step_stands_and_goes_on(files: Path) -> None:
    terminal = Terminal(files, "slow.kairos", "--app", "app.py:app")
    terminal.until(r"step 1/3: stuck  still runs; Ctrl-C shows where it stands, and goes on")
    terminal.press(b"\x03")
    terminal.until(r"step 1/3: stuck  FAIL \(\S+, interrupted\)")
    terminal.until(r"step 2/3: stuck_too  still runs")
    terminal.press(b"\x03")
    assert terminal.rest() == 1
    line = APP.splitlines().index("    while HERE: time.sleep(0.02)") + 1
    assert f"app.py:{line} in stuck" in terminal.text
    assert "place = 'the inner one'" in terminal.text
    assert "in stuck_too" in terminal.text
    assert re.search(r"step 3/3: after  OK", terminal.text)
    assert "Traceback" not in terminal.text


def test_a_child_dies_with_the_command(files: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "kairos.cli", "replay", "slow.kairos", "--app", "app.py:app"],
        cwd=files, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    child = eventually(lambda: children_of(process.pid))[0]
    assert process.stdout is not None
    for line in process.stdout:
        if "still runs" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    eventually(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text())
