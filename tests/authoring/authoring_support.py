"""What the tests of authoring share: a sink that remembers, and verbs to run one attempt."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from kairos.authoring import App, Redaction, Step, StepContext, Workflow
from kairos.authoring.context import LogRecord, MetricRecord
from kairos.authoring.executor import Failed, Outcome, Succeeded, run_attempt
from kairos.authoring.threads import Threads
from kairos.domain import canonical
from kairos.domain.error_info import ErrorInfo


class RememberingSink:
    """Keeps records in lists."""

    def __init__(self) -> None:
        self.logs: list[LogRecord] = []
        self.metrics: list[MetricRecord] = []

    def log(self, record: LogRecord) -> None:
        self.logs.append(record)

    def metric(self, record: MetricRecord) -> None:
        self.metrics.append(record)


def new_workflow(input: Any = None, redact: Redaction | None = None) -> Workflow:
    return App("shop", redact=redact).workflow("fulfil", input=input)


def context(step: str = "charge", sink: RememberingSink | None = None, attempt: int = 1) -> StepContext:
    return StepContext(
        run_id="0190f3a2-0000-7000-8000-000000000001",
        step=step,
        attempt=attempt,
        token=7,
        workflow="fulfil",
        app="shop",
        sink=sink or RememberingSink(),
    )


def attempt(
    step: Step[..., Any],
    *,
    input: Any = None,
    upstream: Mapping[str, Any] | None = None,
    ctx: StepContext | None = None,
    threads: Threads | None = None,
    timeout: float | None = 20,
) -> Outcome:
    """Run one attempt of `step` in a loop of its own; inputs are given as plain JSON values."""
    return asyncio.run(
        run_attempt(
            step,
            ctx or context(step.name),
            canonical.encode(input),
            {name: canonical.encode(value) for name, value in (upstream or {}).items()},
            threads=threads or Threads("test"),
            timeout=None if timeout is None else timedelta(seconds=timeout),
        )
    )


def output_of(outcome: Outcome) -> Any:
    assert isinstance(outcome, Succeeded), outcome
    return canonical.decode(outcome.output.data or b"")


def error_of(outcome: Outcome) -> ErrorInfo:
    assert isinstance(outcome, Failed), outcome
    return outcome.error


def wait_until(condition: Callable[[], Any], *, within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.002)


def short_id(value: object) -> str:
    """Names a parameter by its text, without addresses: ids must be the same in every process."""
    return re.sub(" at 0x[0-9a-f]+", "", str(value))[:40]
