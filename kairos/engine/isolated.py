"""The child process of one suspect: loads the app, runs one attempt, prints what came of it.

    python -m kairos.engine.isolated module:app  < job

It dies with its worker, and runs nothing but the very version of the workflow that the worker has. Standard output
is the line protocol of `isolation`; what the step prints goes to standard error instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from dataclasses import replace
from typing import Any, BinaryIO

from kairos.authoring import App, Step, StepContext, Workflow
from kairos.authoring.context import LogRecord, MetricRecord
from kairos.authoring.executor import Failed, run_attempt
from kairos.authoring.failure import describe_error
from kairos.authoring.loading import load_app
from kairos.authoring.threads import Threads
from kairos.domain import canonical
from kairos.engine.isolation import PARENT, Job, outcome_to_line
from kairos.engine.lifeline import die_with_parent
from kairos.engine.logs import escape_prints
from kairos.engine.relay import PipeJournal
from kairos.engine.transactional import Ended
from kairos.errors import ConfigError


class LineSink:
    """Sends log lines and metrics to the worker."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def log(self, record: LogRecord) -> None:
        """Pass on a log line."""
        self.send({"log": {"level": record.level, "message": record.message, "fields": dict(record.fields)}})

    def metric(self, record: MetricRecord) -> None:
        """Pass on a number."""
        body = {"name": record.name, "value": record.value, "labels": dict(record.labels)}
        self.send({"metric": body})

    def send(self, message: dict[str, Any]) -> None:
        """Write one line."""
        raw = canonical.encode_trusted(message) + b"\n"
        with self._lock:
            self._out.write(raw)
            self._out.flush()


def main() -> None:
    """Run the job on standard input."""
    # The protocol gets a descriptor of its own: a print() in the step must not be taken for an answer.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # And so do the worker's answers: what the step reads from standard input is nothing.
    orders = os.fdopen(os.dup(0), "rb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    escape_prints()
    die_with_parent(int(os.environ[PARENT]), signal.SIGKILL)
    job = Job.from_line(orders.readline())
    _volunteer_for_the_oom_killer()
    try:
        app = load_app(sys.argv[1])
        step = _workflow(app, job).steps[job.step]
    except (Exception, SystemExit) as exc:
        # Of this one attempt, not of the process: nothing has crashed. The locals would be the module's globals.
        _answer(out, Failed(replace(describe_error(exc), locals={}), retryable=True))
    else:
        _answer(out, _run(app, step, job, LineSink(out), orders))
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


def _workflow(app: App, job: Job) -> Workflow:
    """The workflow of the job. Raises ConfigError if it is not the one that the worker has."""
    workflow = app.workflows.get(job.workflow)
    if workflow is None or workflow.fingerprint != job.fingerprint:
        found = "is gone" if workflow is None else f"is version {workflow.fingerprint[:8]}"
        raise ConfigError(
            f"the run needs version {job.fingerprint[:8]} of {job.workflow!r}; in {sys.argv[1]} it {found} by now",
            hint="The app was changed after its worker had started. Bring the old source back, or let a worker that "
            "runs from a copy of it take the run.",
        )
    return workflow


def _run(app: App, step: Step[..., Any], job: Job, sink: LineSink, orders: BinaryIO) -> Ended:
    journals: list[PipeJournal] = []

    def journal() -> PipeJournal:
        journals.append(PipeJournal(sink.send, orders, job.effects))
        return journals[0]

    def stop(*_: object) -> None:
        ctx.cancel("the worker asked for it")
        for opened in journals:
            opened.close("the worker asked for it")

    ctx = StepContext(
        run_id=job.run_id,
        workflow=job.workflow,
        app=app.name,
        step=job.step,
        attempt=job.attempt,
        token=job.token,
        sink=sink,
        redaction=app.redaction,
        journal=journal,
    )
    signal.signal(signal.SIGTERM, stop)
    run = job.transactional.run if job.transactional else run_attempt
    return asyncio.run(run(step, ctx, job.run_input, job.upstream, threads=Threads("isolated"), timeout=job.timeout))


def _answer(out: BinaryIO, outcome: Ended) -> None:
    out.write(outcome_to_line(outcome))
    out.flush()


def _volunteer_for_the_oom_killer() -> None:
    # Of all processes here this one should go first when memory runs out.
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


if __name__ == "__main__":
    main()
