"""A suspect's child process: it runs the worker's version of the app or nothing, and never outlives its worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kairos.authoring.context import LogRecord, MetricRecord, StepCancelled
from kairos.authoring.effects import SETTLED, Effect, done
from kairos.authoring.executor import Cancelled, Failed, Succeeded
from kairos.authoring.loading import load_app
from kairos.domain.events import EffectRecorded
from kairos.domain.payload import Payload
from kairos.engine.isolation import Crashed, Isolation, Job
from kairos.engine.transactional import Ended
from kairos.errors import PayloadError
from tests.engine.harness import until

ROOT = Path(__file__).resolve().parents[2]

APP = """
import asyncio, os, sys, time, kairos
app = kairos.App("alone")

@app.job
def one(input: str) -> str:
    print("\\x1b[31m", end="")
    return f"{input} and done"

def big(n: int) -> str:
    return "x" * n

async def abig(n: int) -> str:
    return "x" * n

@app.job
def asks(input: str, ctx: kairos.StepContext) -> str:
    said = ctx.call("big", big, 5000) + ctx.call("small", big, 1)
    try:
        ctx.call("fails", big, None)
    except TypeError:
        said += sys.stdin.read()
    return f"{len(said)} {ctx.now().year} {ctx.uuid()} {ctx.random()}"

@app.job
async def aasks(input: str, ctx: kairos.StepContext) -> str:
    both = await asyncio.gather(ctx.call("big", abig, 5000), ctx.call("small", big, 1))
    ctx.now()
    return str(sum(map(len, both)))

@app.job
def linger(input: str) -> None:
    with open(input, "w") as file:
        file.write(str(os.getpid()))
    os.rename(input, input + ".pid")
    time.sleep(600)
"""


class NoSink:
    """Nothing is logged here; effects are kept."""

    def __init__(self) -> None:
        self.kept: list[Effect] = []
        self.stored: dict[str, bytes] = {}
        self.failure: BaseException | None = None

    def journal(self) -> Any:
        """Keeps effects, in place of a run."""
        return self

    def record(self, effect: Effect) -> None:
        """Keep it."""
        self.kept.append(effect)
        if effect.result is not None:
            self.stored[effect.result.digest] = effect.result.data or b""

    def settle(self) -> Future[None]:
        """Durable at once, unless told otherwise."""
        if self.failure is None:
            return SETTLED
        future: Future[None] = Future()
        future.set_exception(self.failure)
        return future

    def fetch(self, payload: Payload) -> Future[bytes]:
        """What was kept."""
        return done(self.stored[payload.digest])

    def recorded(self) -> list[EffectRecorded]:
        """What a later attempt recalls: blobs without their bytes."""
        return [
            EffectRecorded(
                step="asks",
                attempt=1,
                token=1,
                name=e.name,
                ordinal=e.ordinal,
                via=e.via,
                arguments=e.arguments,
                result=Payload.blob(e.result.sha256, e.result.size) if e.result.sha256 else e.result,
            )
            for e in self.kept
            if e.result is not None
        ]

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


def run(file: Path, job: Job, sink: NoSink | None = None) -> Ended | Crashed:
    return asyncio.run(Isolation(f"{file}:app").run(job, sink or NoSink()))


def output_of(outcome: Ended | Crashed) -> str:
    assert isinstance(outcome, Succeeded), outcome
    return (outcome.output.inline or b"").decode()


def test_the_version_of_the_worker_runs(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = run(file, job_of(file))
    assert isinstance(outcome, Succeeded)
    assert outcome.output.inline == b'"begun and done"'
    assert "\\x1b[31m" in capfd.readouterr().err, "escaped, and not lost at the end of the process"


def test_effects_travel_to_the_worker_and_back(file: Path) -> None:
    first, second = NoSink(), NoSink()
    output = output_of(run(file, job_of(file, "asks"), first))
    assert output.startswith('"5001 20')
    assert [(e.name, e.ordinal, e.error is not None) for e in first.kept] == [
        ("big", 1, False), ("small", 1, False), ("fails", 1, True), ("now", 1, False), ("uuid", 1, False),
        ("random", 1, False),
    ]  # fmt: skip
    second.stored = first.stored
    again = replace(job_of(file, "asks"), attempt=2, effects=tuple(first.recorded()))
    assert output_of(run(file, again, second)) == output
    assert [e.name for e in second.kept] == ["fails"]


def test_effects_of_an_async_step_travel_too(file: Path) -> None:
    sink = NoSink()
    assert output_of(run(file, job_of(file, "aasks"), sink)) == '"5001"'
    assert sorted(e.name for e in sink.kept) == ["big", "now", "small"]


def test_a_child_whose_effect_cannot_be_recorded_goes_no_further(file: Path) -> None:
    for failure, told in [(StepCancelled("fenced"), Cancelled), (PayloadError("too large", hint="less"), Failed)]:
        sink = NoSink()
        sink.failure = failure
        outcome = run(file, job_of(file, "asks"), sink)
        assert isinstance(outcome, told)
        assert [e.name for e in sink.kept] == ["big"]


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
