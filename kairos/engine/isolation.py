"""Runs suspects alone, each in a fresh child process.

A step that was in flight when its worker died may have killed it. What it does to its child (a segfault,
`os._exit`, exhausted memory) ends that child alone, and waitpid tells the signal. The child gets its job on
standard input, sends logs, metrics, effects and its outcome as lines of JSON, and talks to the database only for a
transactional step.
"""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from kairos.authoring.context import ContextSink, LogRecord, MetricRecord
from kairos.authoring.executor import Cancelled, Failed, Succeeded
from kairos.domain import canonical
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import EffectRecorded
from kairos.domain.payload import Payload
from kairos.engine.relay import Relay
from kairos.engine.transactional import Committed, Ended, Fenced, Transactional, Uncertain
from kairos.store.codec import Row, decode, encode_body

if TYPE_CHECKING:
    from kairos.authoring import StepContext
    from kairos.engine.journal import Journal

PARENT: Final = "KAIROS_ISOLATED"
"""The environment variable that tells the child who its worker is."""
STREAM_LIMIT: Final = 512 * 1024 * 1024
"""Longest line between worker and child: one payload in base64, with room to spare."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """The child died without an answer. `signal` names what killed it, or its exit code."""

    signal: str


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt, as it is sent to the child.

    Attributes:
        fingerprint: of the workflow as the worker has it; the child must have loaded the same.
        effects: what earlier attempts have recorded.
    """

    workflow: str
    fingerprint: str
    run_id: str
    step: str
    attempt: int
    token: int
    run_input: bytes
    upstream: Mapping[str, bytes]
    timeout: timedelta | None
    transactional: Transactional | None = None
    effects: tuple[EffectRecorded, ...] = ()

    @classmethod
    def of(
        cls,
        ctx: StepContext,
        fingerprint: str,
        run_input: bytes,
        upstream: Mapping[str, bytes],
        timeout: timedelta | None,
        transactional: Transactional | None,
        effects: Iterable[EffectRecorded] = (),
    ) -> Job:
        """The attempt that `ctx` stands for."""
        return cls(
            ctx.workflow, fingerprint, ctx.run_id, ctx.step, ctx.attempt, ctx.token,
            run_input, upstream, timeout, transactional, tuple(effects),
        )  # fmt: skip

    def to_line(self) -> bytes:
        """As one line of JSON."""
        return (
            canonical.encode_trusted(
                {
                    "workflow": self.workflow,
                    "fingerprint": self.fingerprint,
                    "run_id": self.run_id,
                    "step": self.step,
                    "attempt": self.attempt,
                    "token": self.token,
                    "input": _pack(self.run_input),
                    "upstream": {name: _pack(raw) for name, raw in self.upstream.items()},
                    "timeout": None if self.timeout is None else self.timeout.total_seconds(),
                    "transactional": None if self.transactional is None else self.transactional.to_json(),
                    "effects": [[e.attempt, e.token, canonical.fragment(encode_body(e))] for e in self.effects],
                }
            )
            + b"\n"
        )

    @classmethod
    def from_line(cls, line: bytes) -> Job:
        """The inverse of `to_line`."""
        d = canonical.decode(line)
        timeout = None if d["timeout"] is None else timedelta(seconds=d["timeout"])
        upstream = {name: _unpack(raw) for name, raw in d["upstream"].items()}
        transactional = d["transactional"] and Transactional.from_json(d["transactional"])
        effects = tuple(_effect(d["step"], *row) for row in d["effects"])
        return cls(
            d["workflow"],
            d["fingerprint"],
            d["run_id"],
            d["step"],
            d["attempt"],
            d["token"],
            _unpack(d["input"]),
            upstream,
            timeout,
            transactional or None,
            effects,
        )


def outcome_to_line(outcome: Ended) -> bytes:
    """An outcome as one line of JSON."""
    match outcome:
        case Succeeded(output=output):
            data: dict[str, Any] = {"succeeded": _pack(output.data or output.inline or b"null")}
        case Failed():
            data = {
                "failed": outcome.error.to_json(),
                "retryable": outcome.retryable,
                "timed_out": outcome.timed_out,
            }
        case Cancelled():
            data = {"cancelled": True}
        case Committed() | Uncertain() | Fenced():
            data = {"transaction": type(outcome).__name__}
    return canonical.encode_trusted(data) + b"\n"


def outcome_from_json(data: Mapping[str, Any]) -> Ended:
    """The inverse of `outcome_to_line`."""
    if "succeeded" in data:
        return Succeeded(Payload.of(_unpack(data["succeeded"])))
    if "failed" in data:
        return Failed(ErrorInfo.from_json(data["failed"]), data["retryable"], data["timed_out"])
    if "transaction" in data:
        kinds: dict[str, Ended] = {"Committed": Committed(), "Uncertain": Uncertain(), "Fenced": Fenced()}
        return kinds[data["transaction"]]
    return Cancelled()


def _effect(step: str, attempt: int, token: int, body: dict[str, Any]) -> EffectRecorded:
    raw = canonical.encode_trusted(body)
    event = decode(Row(0, EffectRecorded.kind, _NEVER, step, attempt, token, b"", raw)).event
    assert isinstance(event, EffectRecorded)
    return event


_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


class EffectSink(ContextSink, Protocol):
    """Takes the effects of a step too."""

    def journal(self) -> Journal:
        """Open their journal."""


class Isolation:
    """Starts a child for each suspect and listens to it.

    Args:
        app_spec: how a fresh process finds the app (`module:attribute` or `file.py:attribute`).
    """

    def __init__(self, app_spec: str | None) -> None:
        self.app_spec = app_spec
        # Each child imports the app: more at once than there are cores would only slow all of them down.
        self._turn = asyncio.Semaphore(max(2, os.cpu_count() or 2))

    async def run(self, job: Job, sink: EffectSink) -> Ended | Crashed:
        """Run one attempt in a process of its own; its logs, metrics and effects go to `sink`.

        Cancelling this stops the child: first SIGTERM, then SIGKILL.
        """
        async with self._turn:
            return await self._run(job, sink)

    async def _run(self, job: Job, sink: EffectSink) -> Ended | Crashed:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "kairos.engine.isolated",
            self.app_spec or "",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=STREAM_LIMIT,
            env={**os.environ, PARENT: str(os.getpid())},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        answer: Ended | None = None
        relay = Relay(sink.journal, process.stdin)
        try:
            process.stdin.write(job.to_line())
            await process.stdin.drain()
            async for line in process.stdout:
                message = canonical.decode(line)
                if not relay.hear(message):
                    answer = self._hear(message, sink) or answer
            code = await process.wait()
        except (BrokenPipeError, ConnectionResetError):
            code = await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise
        if answer is not None:
            return answer
        return Crashed(signal.Signals(-code).name if code < 0 else f"exit code {code}")

    @staticmethod
    def _hear(message: dict[str, Any], sink: ContextSink) -> Ended | None:
        if "log" in message:
            sink.log(LogRecord(**message["log"]))
        elif "metric" in message:
            sink.metric(MetricRecord(**message["metric"]))
        else:
            return outcome_from_json(message)
        return None


async def _end(process: asyncio.subprocess.Process) -> None:
    for end in (process.terminate, process.kill):
        try:
            end()
            await asyncio.wait_for(asyncio.shield(process.wait()), 5)
            return
        except (TimeoutError, ProcessLookupError):
            continue


def _pack(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _unpack(text: str) -> bytes:
    return base64.b64decode(text)
