"""The child process of one suspect: loads the app, runs one attempt, prints what came of it.

    python -m kairos.engine.isolated module:app  < job

Standard output is the line protocol of `isolation`; what the step prints goes to standard error instead.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import BinaryIO

from kairos.authoring import StepContext
from kairos.authoring.context import LogRecord, MetricRecord
from kairos.authoring.executor import run_attempt
from kairos.authoring.loading import load_app
from kairos.authoring.threads import Threads
from kairos.domain import canonical
from kairos.engine.isolation import Job, outcome_to_line
from kairos.engine.logs import escape_prints
from kairos.engine.transactional import Ended


class LineSink:
    """Sends log lines and metrics to the worker."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def log(self, record: LogRecord) -> None:
        """Pass on a log line."""
        self._send({"log": {"level": record.level, "message": record.message, "fields": dict(record.fields)}})

    def metric(self, record: MetricRecord) -> None:
        """Pass on a number."""
        body = {"name": record.name, "value": record.value, "labels": dict(record.labels)}
        self._send({"metric": body})

    def _send(self, message: dict[str, object]) -> None:
        self._out.write(canonical.encode_trusted(message) + b"\n")
        self._out.flush()


def main() -> None:
    """Run the job on standard input."""
    # The protocol gets a descriptor of its own: a print() in the step must not be taken for an answer.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    escape_prints()
    job = Job.from_line(sys.stdin.buffer.readline())
    app = load_app(sys.argv[1])
    step = app.get(job.workflow).steps[job.step]
    ctx = StepContext(
        run_id=job.run_id,
        workflow=job.workflow,
        app=app.name,
        step=job.step,
        attempt=job.attempt,
        token=job.token,
        sink=LineSink(out),
        redaction=app.redaction,
    )
    signal.signal(signal.SIGTERM, lambda *_: ctx.cancel("the worker asked for it"))
    _volunteer_for_the_oom_killer()
    run = job.transactional.run if job.transactional else run_attempt
    outcome: Ended = asyncio.run(
        run(step, ctx, job.run_input, job.upstream, threads=Threads("isolated"), timeout=job.timeout)
    )
    out.write(outcome_to_line(outcome))
    out.flush()
    os._exit(0)


def _volunteer_for_the_oom_killer() -> None:
    # Of all processes here this one should go first when memory runs out.
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


if __name__ == "__main__":
    main()
