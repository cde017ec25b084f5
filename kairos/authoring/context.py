"""What a step may ask for and say while it runs: who it is, logs, metrics, whether it should stop.

Safe to use from any thread. Knows nothing of where records go: they are handed to a `ContextSink`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload
from uuid import UUID

from kairos.authoring.display import clean, shorten, show
from kairos.authoring.redaction import PLACEHOLDER, Redaction, Redactor
from kairos.domain import canonical
from kairos.errors import EffectMismatch, PayloadError

if TYPE_CHECKING:
    from kairos.authoring.effects import EffectJournal, Effects
    from kairos.authoring.http_record import Recording

P = ParamSpec("P")
T = TypeVar("T")

MAX_LOG_LINES = 1_000
MAX_METRICS = 10_000
MAX_LINE = 8_192
"""Bytes of one log line: message and fields together."""
_MAX_NAME = 200


class StepCancelled(BaseException):
    """Raised by `ctx.heartbeat()` when the attempt should stop. Not an Exception, so that a broad
    `except Exception` in a step does not swallow it."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One log line of a step, bounded and redacted."""

    level: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """One number reported by a step."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class ContextSink(Protocol):
    """Where a step's records go. Called from any thread; must not block for long."""

    def log(self, record: LogRecord) -> None:
        """Take a log line."""

    def metric(self, record: MetricRecord) -> None:
        """Take a number."""


class StepContext:
    """The running attempt, as seen by its step.

    Attributes:
        run_id: the run.
        step: the step's name.
        attempt: 1 for the first try.
        token: the fence of this attempt: larger than that of any attempt before it in the run.
        workflow: the workflow's name.
        app: the app's name.
        connection: what a parameter annotated as a psycopg connection receives; None outside such a step.
        last_heartbeat: monotonic time of the last `heartbeat()`; 0.0 if there was none.
    """

    # What an attempt rarely changes stands here, so that making a context sets only what differs.
    connection: Any = None
    last_heartbeat = 0.0
    _reason: str | None = None
    _open = True
    _lines = _dropped = _metrics = 0
    _effects: Effects | None = None

    def __init__(
        self,
        *,
        run_id: str,
        step: str,
        attempt: int,
        token: int,
        workflow: str,
        app: str,
        sink: ContextSink,
        redaction: Redaction | None = None,
        journal: Callable[[], EffectJournal] | None = None,
    ) -> None:
        """`journal` is called when the step first asks for an effect; without one, effects are not recorded."""
        self.run_id = run_id
        self.step = step
        self.attempt = attempt
        self.token = token
        self.workflow = workflow
        self.app = app
        self.redactor = Redactor(redaction)
        self._sink = sink
        self._journal = journal
        self._lock = threading.Lock()

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts of this step of this run: pass it to services that take such a key."""
        return f"{self.run_id}:{self.step}"

    @property
    def log(self) -> StepLog:
        """`ctx.log.info("charged", amount=990)`: lines that are kept with the run."""
        return StepLog(self)

    @property
    def cancelled(self) -> bool:
        """Whether this attempt should stop: run cancelled, lease lost, or out of time."""
        return self._reason is not None

    @property
    def cancel_reason(self) -> str | None:
        """Why it should stop, or None."""
        return self._reason

    @property
    def is_over(self) -> bool:
        """Whether the attempt has ended: a thread that it left behind may still ask."""
        return not self._open

    def cancel(self, reason: str) -> None:
        """Tell the step to stop. For the engine; the first reason stays."""
        if self._reason is None:
            self._reason = reason

    def heartbeat(self) -> None:
        """Say that the step is alive and learn whether it should stop.

        Raises:
            StepCancelled: the attempt should stop.
        """
        if self._reason is not None:
            raise StepCancelled(self._reason)
        self.last_heartbeat = time.monotonic()

    def emit(self, metric: str, value: float, **labels: str | int | float | bool) -> None:
        """Report a number, kept with the run: `ctx.emit("cost_usd", 0.042, model="small")`.

        Raises:
            PayloadError: not a finite number, a bad name or label, or more than 10,000 in one attempt.
        """
        record = MetricRecord(_check_metric_name(metric), _check_number(metric, value), self._labels(labels))
        with self._lock:
            if not self._open:
                return
            if self._metrics >= MAX_METRICS:
                raise PayloadError(
                    f"step {self.step!r} emitted more than {MAX_METRICS:,} metrics in one attempt",
                    hint="Sum them up in the step and emit the total.",
                )
            self._metrics += 1
            self._sink.metric(record)

    @overload
    def call(
        self, name: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def call(self, name: str, fn: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any: ...

    def call(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `fn(*args, **kwargs)` once for this run, and record what it returns: `ctx.call("charge", pay, 990)`.

        In an async step: `await ctx.call(...)`, whether `fn` is async or not (then it runs in a thread). The step
        goes on when the result is durable. An attempt after this one, on whatever worker, does not call `fn` again:
        it is given the recorded result. So does a replay.

        The result goes through JSON by the return annotation of `fn` (without one: plain JSON), so that the step
        gets the same value the first time as any other time. `fn` is called again only if it raised (that is recorded,
        and raised on), or if the process died before the result was durable: pass `ctx.idempotency_key` on to
        services that take one.

        Calls are told apart by name and by how many of that name came before them. Side by side (threads, `gather`),
        give each a name of its own: of several with one name, the order in which they are called decides.

        Args:
            name: 1 to 200 characters; it stands in the log.

        Raises:
            PayloadError: what `fn` returned cannot be stored, or the attempt asked for more than 10,000 effects.
            DefinitionError: values of the type that `fn` declares to return cannot be stored; it was not called.
            EffectMismatch: an earlier attempt recorded a call with other arguments in this place.
            InvalidArgument: not a name or a function, or called inside of the function of another `ctx.call`.
            StepCancelled: the attempt should stop, as with `heartbeat()`.
        """
        return self.effects.call(name, fn, args, kwargs)

    def now(self) -> datetime:
        """The time, in UTC; recorded: in later attempts and in a replay it is the same time.

        Raises: as `call`; so do `uuid` and `random`. None of the three waits for the database.
        """
        return self.effects.now()

    def uuid(self) -> UUID:
        """A new UUID (of the form of version 4), derived from run, step and count; recorded."""
        return self.effects.uuid()

    def random(self) -> float:
        """A number in [0, 1), derived from run, step and count; recorded."""
        return self.effects.random()

    def record_http(self, *, max_body: int = 256 * 1024) -> Recording:
        """`with ctx.record_http():` records the calls that httpx and requests make, each as an effect.

        An attempt after this one, and a replay, are given the recorded answers, as responses of that library. A call is
        told by its method, address and body; of several that are the same, the order decides. Those of this step alone
        are recorded, also in tasks and in `asyncio.to_thread`, but not in threads that the step starts by itself.
        Inside of `ctx.call` nothing else is recorded. For a whole step: `@step(record_http=True)`.

        Bodies of answers pass through the app's `Redaction`; headers such as Authorization and Cookie are never kept
        (the step itself gets the answer's cookies, the first time). An answer is read to its end before the step
        sees it.

        Args:
            max_body: bytes of an answer's body that are kept. A longer one is passed on as it comes, and only that
                it came is recorded: a later attempt makes the call again, and a replay cannot answer it.

        Raises: in the calls, as `call`; InvalidArgument if a client blocks the event loop of an async step.
        """
        from kairos.authoring.http_record import Recording

        return Recording(self.effects, max_body)

    @property
    def effects(self) -> Effects:
        """What records `call`, `now` and the others. For the engine."""
        found = self._effects
        if found is None:
            from kairos.authoring.effects import BasicJournal, Effects

            with self._lock:
                if self._effects is None:
                    self._effects = Effects(self, self._journal() if self._journal is not None else BasicJournal())
                found = self._effects
        return found

    async def settled(self) -> None:
        """Wait until every effect so far is durable. Raises StepCancelled if one cannot be."""
        if self._effects is not None:
            await self._effects.await_settled()

    @property
    def mismatch(self) -> EffectMismatch | None:
        """The effect that was not the recorded one, if there was such: the attempt has failed with it."""
        return None if self._effects is None else self._effects.mismatch

    def headers(self) -> dict[str, str]:
        """Headers for calls to other services: who calls, and a key that makes the call idempotent."""
        return {
            "X-Kairos-Run": self.run_id,
            "X-Kairos-Step": self.step,
            "X-Kairos-Attempt": str(self.attempt),
            "X-Kairos-Idempotency-Key": self.idempotency_key,
            "Idempotency-Key": self.idempotency_key,
        }

    def raised(self, error: BaseException) -> None:
        """Told what the step raised, before it is made data. Does nothing; an inline run keeps it."""

    def close(self) -> None:
        """End the attempt: report dropped lines; whatever a left-over thread says later is not taken."""
        if not self._lines:
            self._open = False  # nothing was said: the common case, without the lock
            return
        with self._lock:
            if self._open and self._dropped:
                self._sink.log(LogRecord("warning", f"{self._dropped:,} more lines dropped"))
            self._open = False

    def _write(self, level: str, message: object, fields: Mapping[str, Any]) -> None:
        with self._lock:
            if not self._open:
                return
            if self._lines >= MAX_LOG_LINES:
                self._dropped += 1
                return
            self._lines += 1
            self._sink.log(_line(level, message, fields, self.redactor))

    def _labels(self, labels: Mapping[str, Any]) -> dict[str, str]:
        return {shorten(name, _MAX_NAME, self.redactor): self._label(name, value) for name, value in labels.items()}

    def _label(self, name: str, value: object) -> str:
        if not isinstance(value, str | int | float):
            raise PayloadError(f"metric label {name!r} is a {type(value).__name__}, not a text or number")
        if self.redactor.hides(name):
            return PLACEHOLDER
        text = value if isinstance(value, str) else show(value, _MAX_NAME)
        return shorten(text, _MAX_NAME, self.redactor)

    def __repr__(self) -> str:
        return f"<StepContext {self.workflow}.{self.step} run={self.run_id} attempt={self.attempt}>"


class StepLog:
    """Writes log lines of a step: at most 1,000 in one attempt, each at most 8 KiB. Never raises."""

    __slots__ = ("_ctx",)

    def __init__(self, ctx: StepContext) -> None:
        self._ctx = ctx

    def debug(self, message: object, /, **fields: Any) -> None:
        """For whoever looks closely."""
        self._ctx._write("debug", message, fields)

    def info(self, message: object, /, **fields: Any) -> None:
        """What happened."""
        self._ctx._write("info", message, fields)

    def warning(self, message: object, /, **fields: Any) -> None:
        """What should not have happened, but does no harm."""
        self._ctx._write("warning", message, fields)

    def error(self, message: object, /, **fields: Any) -> None:
        """What went wrong."""
        self._ctx._write("error", message, fields)


def _line(level: str, message: object, fields: Mapping[str, Any], redactor: Redactor) -> LogRecord:
    text = shorten(message, MAX_LINE, redactor) if isinstance(message, str) else show(message, MAX_LINE, redactor)
    text = _cut_bytes(text, MAX_LINE)
    room = MAX_LINE - len(text.encode())
    kept: dict[str, Any] = {}
    left_out = 0
    for name, value in fields.items():
        name = shorten(name, _MAX_NAME, redactor)
        shown = PLACEHOLDER if redactor.hides(name) else _field(value, redactor)
        size = len(canonical.encode_trusted({name: shown}))
        if size > room:
            left_out += 1
            continue
        room -= size
        kept[name] = shown
    if left_out:
        text = f"{_cut_bytes(text, MAX_LINE - 40)} ({left_out} fields left out)"
    return LogRecord(level, text, kept)


def _field(value: Any, redactor: Redactor) -> Any:
    """Numbers and flags as they are, text redacted, all else as text."""
    if value is None or type(value) is bool:
        return value
    if type(value) is int and -(2**63) <= value < 2**63:
        return redactor.json(value)
    if type(value) is float and math.isfinite(value):
        return redactor.json(value)
    if type(value) is str:
        return shorten(value, MAX_LINE, redactor)
    return show(value, MAX_LINE // 4, redactor)


def _cut_bytes(text: str, limit: int) -> str:
    raw = text.encode()
    return text if len(raw) <= limit else raw[: limit - 3].decode("utf-8", "ignore") + "..."


def _check_metric_name(name: object) -> str:
    if not isinstance(name, str) or not name or len(name) > _MAX_NAME or clean(name, _MAX_NAME) != name:
        raise PayloadError(f"{show(name, 80)} cannot name a metric", hint=f"A text of 1 to {_MAX_NAME} characters.")
    return name


def _check_number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PayloadError(f"metric {name!r}: {show(value, 80)} is not a number")
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    if not finite or (isinstance(value, int) and not -(2**63) <= value < 2**63):
        raise PayloadError(f"metric {name!r}: {show(value, 80)} is not a finite number of at most 64 bits")
    return value
