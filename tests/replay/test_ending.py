"""A replay that is told to end: it is quiet, its exit code says so, and nothing of production stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kairos.replay import folders
from kairos.replay.bundle import write_bundle
from kairos.replay.folders import PREFIX, ReplayFolder
from kairos.replay.record import RunRecord
from tests.cli.cli_support import eventually
from tests.replay.replay_support import environment

APP = """
import os, time
from pathlib import Path
import kairos

app = kairos.App("shop")
order = app.workflow("order", input=dict)
if SLOW_IMPORT:
    print("importing", flush=True)
    time.sleep(60)

@order.step
def reserve(input: dict) -> dict:
    print("running", flush=True)
    time.sleep(60)

@order.step
def charge(input: dict, reserve: dict) -> dict: ...

@order.step
def confirm(charge: dict) -> str: ...
"""
Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, record_of: Callable[[str], RunRecord]) -> Iterator[Start]:
    """Starts a replay in a session of its own, with a folder for temporary files; waits for what its code says."""
    write_bundle(record_of("good"), tmp_path / "good.kairos")
    (tmp_path / "tmp").mkdir()
    started: list[subprocess.Popen[str]] = []

    def run(until: str) -> subprocess.Popen[str]:
        (tmp_path / "app.py").write_text(APP.replace("SLOW_IMPORT", str(until == "importing")))
        process = subprocess.Popen(
            [sys.executable, "-m", "kairos.cli", "replay", "good.kairos", "--app", "app.py:app"],
            cwd=tmp_path, env=environment(TMPDIR=str(tmp_path / "tmp"), PYTHONUNBUFFERED="1"), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == until:
                return process
        raise AssertionError(process.communicate()[1])

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def left(place: Path) -> list[Path]:
    return list((place / "tmp").iterdir())


def test_ctrl_c_while_the_app_is_imported_ends_it_quietly(start: Start, tmp_path: Path) -> None:
    process = start("importing")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said, complained = process.communicate(timeout=20)
    assert (process.returncode, complained) == (130, "")
    assert "Traceback" not in said
    assert left(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: signal.Signals(number).name)
def test_a_replay_that_is_told_to_end_takes_its_folder_along(start: Start, tmp_path: Path, number: int) -> None:
    process = start("running")
    (folder,) = left(tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert folder.stat().st_mode & 0o777 == 0o700
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert left(tmp_path) == []
    assert len(children) == 1
    eventually(lambda: not Path(f"/proc/{children[0]}").exists())


def test_the_folder_of_a_killed_replay_is_swept_by_the_next(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start("running")
    (folder,) = left(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    first = ReplayFolder()
    assert sorted(left(tmp_path)) == sorted([folder, first.path])  # both are in use
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    stranger = tmp_path / "tmp" / f"{PREFIX}file"
    stranger.write_text("not a folder")
    unlocked = tmp_path / "tmp" / f"{PREFIX}young"
    unlocked.mkdir()
    second = ReplayFolder()
    assert sorted(left(tmp_path)) == sorted([first.path, second.path, stranger, unlocked])
    monkeypatch.setattr(folders, "_ORPHAN", -1.0)
    folders.sweep()
    assert not unlocked.exists()
    for one in (first, second):
        one.remove()
    assert left(tmp_path) == [stranger]
