"""A suspect's child process: it runs the worker's version of the app or nothing, and never outlives its worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from kairos.authoring.context import LogRecord, MetricRecord
from kairos.authoring.executor import Failed, Succeeded
from kairos.authoring.loading import load_app
from kairos.engine.isolation import Crashed, Isolation, Job
from kairos.engine.transactional import Ended
from tests.engine.harness import until

ROOT = Path(__file__).resolve().parents[2]

APP = """
import os, sys, time, kairos
app = kairos.App("alone")

@app.job
def one(input: str) -> str:
    print("\\x1b[31m", end="")
    return f"{input} and done"

@app.job
def linger(input: str) -> None:
    with open(input, "w") as file:
        file.write(str(os.getpid()))
    os.rename(input, input + ".pid")
    time.sleep(600)
"""


class NoSink:
    """Nothing is logged here."""

    def log(self, record: LogRecord) -> None:
        """Not expected."""

    def metric(self, record: MetricRecord) -> None:
        """Not expected."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "alone.py"
    path.write_text(APP)
    return path


def job_of(file: Path, workflow: str = "one", value: str = "begun") -> Job:
    """An attempt at the job of that name, in the version that stands in the file now."""
    app = load_app(f"{file}:app")
    for name in [name for name, module in sys.modules.items() if getattr(module, "__file__", None) == str(file)]:
        del sys.modules[name]
    given = f'{{"input":"{value}"}}'.encode()
    run_id = "01a1fe0e-7c8b-7710-bcc6-82e21684a982"
    return Job(workflow, app.get(workflow).fingerprint, run_id, workflow, 1, 1, given, {}, timedelta(minutes=20), None)


def run(file: Path, job: Job) -> Ended | Crashed:
    return asyncio.run(Isolation(f"{file}:app").run(job, NoSink()))


def test_the_version_of_the_worker_runs(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = run(file, job_of(file))
    assert isinstance(outcome, Succeeded)
    assert outcome.output.inline == b'"begun and done"'
    assert "\\x1b[31m" in capfd.readouterr().err, "escaped, and not lost at the end of the process"


def test_an_app_that_was_changed_after_its_worker_started_does_not_run(file: Path) -> None:
    job = job_of(file)
    file.write_text(APP.replace("and done", "and quite another thing"))
    outcome = run(file, job)
    assert isinstance(outcome, Failed)
    assert f"the run needs version {job.fingerprint[:8]} of 'one'; in {file}:app it is version" in outcome.error.message
    assert "Bring the old source back" in str(outcome.error.hint)
    assert outcome.retryable


def test_a_workflow_that_is_gone_is_a_failure_not_a_crash(file: Path) -> None:
    outcome = run(file, replace(job_of(file), workflow="renamed"))
    assert isinstance(outcome, Failed)
    assert "it is gone by now" in outcome.error.message


@pytest.mark.parametrize("text", ["def (", "import no_such_module", "raise SystemExit('closed')"])
def test_an_app_that_cannot_be_loaded_any_more_is_a_failure_not_a_crash(file: Path, text: str) -> None:
    job = job_of(file)
    file.write_text(text)
    outcome = run(file, job)
    assert isinstance(outcome, Failed)
    assert outcome.error.locals == {}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_child_dies_with_a_worker_that_nobody_supervises(file: Path, tmp_path: Path) -> None:
    pid_file = tmp_path / "child.pid"
    worker = subprocess.Popen(
        [sys.executable, "-c", "import sys; from tests.engine.test_isolation import *\n"
         "run(Path(sys.argv[1]), job_of(Path(sys.argv[1]), 'linger', sys.argv[2]))", file, tmp_path / "child"],
        cwd=ROOT,
    )  # fmt: skip
    try:
        asyncio.run(until(pid_file.exists))
        child = int(pid_file.read_text())
        assert is_running(child)
        worker.kill()
        worker.wait()
        asyncio.run(until(lambda: not is_running(child)))
    finally:
        worker.kill()
        worker.wait()
        if pid_file.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid_file.read_text()), signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
