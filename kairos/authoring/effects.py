"""What a step asks of the world, once: calls, the time, ids, random numbers. Recorded, and answered from the record.

Knows nothing of where records are kept: that is the business of an `EffectJournal`. A worker, an isolated child, an
inline run and a replay each have one of their own.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import Future
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, TypeVar
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from kairos.authoring.context import StepCancelled
from kairos.authoring.display import clean, show
from kairos.authoring.effect_values import arguments_of, returns_of
from kairos.authoring.failure import describe_error
from kairos.authoring.threads import Threads
from kairos.authoring.values import ValueType
from kairos.domain import canonical
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import EffectRecorded
from kairos.domain.payload import Payload
from kairos.errors import EffectMismatch, InvalidArgument, PayloadError

if TYPE_CHECKING:
    from kairos.authoring.context import StepContext
    from kairos.authoring.http_record import Places

T = TypeVar("T")

MAX_EFFECTS = 10_000
"""Most effects of one attempt, those that are answered from the record included."""
MAX_NAME = 200
HTTP: Final = "http "
"""What the names of recorded HTTP calls begin with."""
_OWN_NAMES = frozenset({"now", "uuid", "random"})
_SHOWN = 300
_NOTHING = "no arguments"

INSIDE: ContextVar[str | None] = ContextVar("kairos_inside_effect", default=None)
"""The name of the effect whose function runs here: there, nothing else is recorded."""
_THREADS = Threads("kairos-effect")


class Effect(Struct, frozen=True, kw_only=True, gc=False):
    """An effect as its step asks for it and, once it has a `result` or an `error`, as it happened.

    Fields as in the event `EffectRecorded`; the result of a fresh one holds its bytes (`data`).
    """

    via: str
    name: str
    ordinal: int
    arguments: Payload | None = None
    result: Payload | None = None
    error: ErrorInfo | None = None
    duration_us: int = 0


class EffectJournal(Protocol):
    """Keeps the effects of one attempt. Called from any thread, that of the event loop included: must not block."""

    def recall(self, asked: Effect) -> EffectRecorded | None:
        """The recorded effect of this name and ordinal, if it has a result; None: it is to happen now.

        Asked once for each effect before it happens. Whatever this raises, the step gets.
        """

    def recorded(self) -> Collection[EffectRecorded]:
        """All that can be recalled, in the order in which it was recorded."""

    def fetch(self, payload: Payload) -> Future[bytes]:
        """The bytes of a recalled payload that does not hold them."""

    def record(self, effect: Effect) -> None:
        """Take an effect that has just happened, well or badly. Durable once a later `settle` says so."""

    def settle(self) -> Future[None]:
        """Done when everything recorded so far is durable.

        Fails with StepCancelled if that cannot come to be: the attempt is over, or its fence void.
        """


class BasicJournal:
    """Recalls what earlier attempts recorded, and forgets what this one does."""

    def __init__(self, earlier: Mapping[tuple[str, int], EffectRecorded] | None = None) -> None:
        self._earlier = dict(earlier or {})

    def recall(self, asked: Effect) -> EffectRecorded | None:
        """By name and ordinal."""
        return self._earlier.get((asked.name, asked.ordinal))

    def recorded(self) -> Collection[EffectRecorded]:
        """What earlier attempts recorded."""
        return self._earlier.values()

    def fetch(self, payload: Payload) -> Future[bytes]:
        """Never asked: in one process, payloads hold their bytes."""
        raise LookupError(payload.digest)

    def record(self, effect: Effect) -> None:
        """Forget it."""

    def settle(self) -> Future[None]:
        """At once."""
        return SETTLED


def done(value: T) -> Future[T]:
    """A future that has its result."""
    future: Future[T] = Future()
    future.set_result(value)
    return future


SETTLED: Final[Future[None]] = done(None)


class _Last(Struct, gc=False):
    """The last effect of a name: a call that failed and is repeated as it was keeps its place."""

    ordinal: int
    arguments: str | None
    has_failed: bool = False


class Effects:
    """The effects of one attempt: numbers them, answers from the journal, lets the rest happen. Thread-safe.

    Attributes:
        mismatch: the first `EffectMismatch`. The attempt has failed with it, whatever the step makes of it.
    """

    def __init__(self, ctx: StepContext, journal: EffectJournal) -> None:
        self.ctx, self.journal = ctx, journal
        self.mismatch: EffectMismatch | None = None
        self._lock = threading.Lock()
        self._last: dict[str, _Last] = {}
        self._count = 0
        self._places: Places | None = None

    # -- calls -------------------------------------------------------------------------------------------

    def call(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `StepContext.call`."""
        _check_name(name)
        if not callable(fn):
            raise InvalidArgument(f"effect {name!r}: {show(fn, 80)} is not a function", hint=_PASS_FUNCTION)
        returns = returns_of(fn, f"effect {name!r}")
        asked = self.ask("call", name, arguments_of(args, kwargs, self.ctx.redactor))
        if is_in_loop():
            return self._call_later(asked, fn, args, kwargs, returns)
        return self._call_now(asked, fn, args, kwargs, returns)

    def _call_now(self, asked: Effect, fn: Any, args: Any, kwargs: Any, returns: ValueType) -> Any:
        recorded = self.journal.recall(asked)
        if recorded is not None:
            self._check(asked, recorded, lambda payload: self.bytes_of(payload))
            return self._read(asked, returns, self.bytes_of(recorded.result))
        self.wait()
        began, token = time.perf_counter_ns(), INSIDE.set(asked.name)
        try:
            value = fn(*args, **kwargs)
            if inspect.isawaitable(value):
                raise _not_awaited(asked, value)
            result = self._write(asked, returns, value)
        except Exception as exc:
            self.failed(asked, exc, began)
            raise
        finally:
            _leave(token)
        self.happened(asked, result, began)
        self.wait()
        return self._read(asked, returns, _data(result))

    async def _call_later(self, asked: Effect, fn: Any, args: Any, kwargs: Any, returns: ValueType) -> Any:
        recorded = self.journal.recall(asked)
        if recorded is not None:
            await self._acheck(asked, recorded)
            return self._read(asked, returns, await self.abytes_of(recorded.result))
        await self.await_settled()
        began, token = time.perf_counter_ns(), INSIDE.set(asked.name)
        try:
            if inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None)):  # noqa: B004
                value = await fn(*args, **kwargs)
            else:
                # It may block, and then it must not hold up the event loop of the worker.
                value = await _THREADS.submit(lambda: fn(*args, **kwargs)).future
                if inspect.isawaitable(value):
                    value = await value
            result = self._write(asked, returns, value)
        except Exception as exc:
            self.failed(asked, exc, began)
            raise
        finally:
            _leave(token)
        self.happened(asked, result, began)
        await self.await_settled()
        return self._read(asked, returns, _data(result))

    # -- the clock and the dice --------------------------------------------------------------------------

    def now(self) -> datetime:
        """See `StepContext.now`."""
        return datetime.fromisoformat(self._draw("now", lambda ordinal: datetime.now(UTC).isoformat()))

    def uuid(self) -> UUID:
        """See `StepContext.uuid`."""
        return UUID(self._draw("uuid", lambda ordinal: str(UUID(bytes=self._seed("uuid", ordinal)[:16], version=4))))

    def random(self) -> float:
        """See `StepContext.random`."""

        def draw(ordinal: int) -> float:
            return (int.from_bytes(self._seed("random", ordinal)[:8]) >> 11) / (1 << 53)

        return float(self._draw("random", draw))

    def _draw(self, via: str, make: Callable[[int], Any]) -> Any:
        asked = self.ask(via, via, None)
        recorded = self.journal.recall(asked)
        if recorded is not None and recorded.result is not None:
            self._check(asked, recorded, lambda payload: b"")
            return canonical.decode(recorded.result.data or b"null")
        value = make(asked.ordinal)
        self.journal.record(replace(asked, result=Payload.of(canonical.encode(value))))
        return value

    def _seed(self, via: str, ordinal: int) -> bytes:
        # Not of the attempt: a retry draws the same, even if the first draw was never recorded.
        ctx = self.ctx
        return sha256(f"{ctx.run_id}\n{ctx.step}\n{via}\n{ordinal}".encode()).digest()

    # -- what recorders share ----------------------------------------------------------------------------

    def ask(self, via: str, name: str, arguments: Payload | None, ordinal: int | None = None) -> Effect:
        """Number an effect that is about to be asked for.

        Raises:
            StepCancelled: the attempt should stop.
            EffectMismatch: an earlier one did not match; nothing more may happen.
            InvalidArgument: asked for inside of another effect.
            PayloadError: there are too many.
        """
        self.ctx.heartbeat()
        if self.ctx.is_over:
            raise StepCancelled("this attempt is over")
        outer = INSIDE.get()
        if outer is not None:
            raise InvalidArgument(f"effect {name!r} is asked for inside of effect {outer!r}", hint=_NESTED)
        digest = None if arguments is None else arguments.digest
        with self._lock:
            if self.mismatch is not None:
                raise self.mismatch
            self._count += 1
            if self._count > MAX_EFFECTS:
                raise PayloadError(
                    f"step {self.ctx.step!r} asked for more than {MAX_EFFECTS:,} effects in one attempt",
                    hint="Do more in each ctx.call, or spread the work over several steps.",
                )
            last = self._last.get(name)
            if ordinal is None:
                is_repeat = last is not None and last.has_failed and last.arguments == digest
                ordinal = (last.ordinal if last is not None else 0) + (not is_repeat)
            self._last[name] = _Last(ordinal, digest)
        return Effect(via=via, name=name, ordinal=ordinal, arguments=arguments)

    def happened(self, asked: Effect, result: Payload, began: int) -> None:
        """Record that it went well; `began` is of `time.perf_counter_ns`."""
        self.journal.record(replace(asked, result=result, duration_us=_micros(began)))

    def failed(self, asked: Effect, exc: Exception, began: int) -> None:
        """Record what it raised."""
        with self._lock:
            last = self._last[asked.name]
            if last.ordinal == asked.ordinal:
                last.has_failed = True
        error = describe_error(exc, self.ctx.redactor)
        self.journal.record(replace(asked, error=error, duration_us=_micros(began)))

    def places(self, make: Callable[[EffectJournal], Places]) -> Places:
        """Which recorded HTTP calls have been answered with; made once."""
        with self._lock:
            if self._places is None:
                self._places = make(self.journal)
            return self._places

    def wait(self) -> None:
        """Wait, in a thread that may block, until all that was recorded is durable."""
        self._heed(self.journal.settle())

    async def await_settled(self) -> None:
        """The same in a coroutine."""
        future = self.journal.settle()
        await _done(future)
        self._heed(future)

    def _heed(self, future: Future[None]) -> None:
        try:
            future.result()
        except StepCancelled as exc:
            self.ctx.cancel(str(exc))
            raise

    # -- answers from the record -------------------------------------------------------------------------

    def _check(self, asked: Effect, recorded: EffectRecorded, fetch: Callable[[Payload], bytes]) -> None:
        if not is_same(asked, recorded):
            self.refuse(asked, recorded, b"" if recorded.arguments is None else fetch(recorded.arguments))

    async def _acheck(self, asked: Effect, recorded: EffectRecorded) -> None:
        if not is_same(asked, recorded):
            self.refuse(asked, recorded, await self.abytes_of(recorded.arguments))

    def refuse(self, asked: Effect, recorded: EffectRecorded, before: bytes) -> NoReturn:
        """Raise EffectMismatch: the record and the step differ. `before` are the recorded arguments."""
        what = f"effect {asked.name!r} #{asked.ordinal}"
        old, new = _shown(before), _shown(_data(asked.arguments))
        how = f"recorded with {old or _NOTHING}, asked for with {new or _NOTHING}"
        if asked.via != recorded.via:
            how = f"recorded as {recorded.via}, asked for as {asked.via}"
        raise self.mismatched(f"{what} is not the one that was recorded: {how}", asked=asked, old=old, new=new)

    def mismatched(self, message: str, *, asked: Effect, old: str, new: str) -> EffectMismatch:
        """The error to raise, kept so that the step cannot make light of it."""
        error = EffectMismatch(message, effect=asked.name, ordinal=asked.ordinal, old=old, new=new)
        self.mismatch = self.mismatch or error
        return error

    def _read(self, asked: Effect, returns: ValueType, raw: bytes) -> Any:
        return returns.decode(raw, f"the recorded result of effect {asked.name!r}", self.ctx.redactor)

    def _write(self, asked: Effect, returns: ValueType, value: Any) -> Payload:
        return returns.encode(value, f"effect {asked.name!r} returned a value that", self.ctx.redactor)

    def bytes_of(self, payload: Payload | None) -> bytes:
        """The bytes of a recalled payload; waits for those that must be fetched."""
        if payload is None or payload.data is not None:
            return _data(payload)
        return self.journal.fetch(payload).result()

    async def abytes_of(self, payload: Payload | None) -> bytes:
        """The same in a coroutine."""
        if payload is None or payload.data is not None:
            return _data(payload)
        future = self.journal.fetch(payload)
        await _done(future)
        return future.result()


_PASS_FUNCTION = 'Pass the function and its arguments apart: ctx.call("charge", charge_card, order.id).'
_NESTED = "The outer one is recorded as a whole: what it does inside needs no record. Or call them one after the other."


def is_same(asked: Effect, recorded: EffectRecorded) -> bool:
    """Whether the record answers what is asked."""
    if asked.via != recorded.via:
        return False
    if asked.arguments is None or recorded.arguments is None:
        return asked.arguments is recorded.arguments
    return asked.arguments.digest == recorded.arguments.digest


def _leave(token: Token[str | None]) -> None:
    try:
        INSIDE.reset(token)
    except ValueError:
        pass  # a coroutine that was given up on ends in another context than it began in


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name or len(name) > MAX_NAME or clean(name, MAX_NAME) != name:
        hint = f'A text of 1 to {MAX_NAME} characters: ctx.call("charge", charge_card, order.id).'
        raise InvalidArgument(f"{show(name, 80)} cannot name an effect", hint=hint)
    if name in _OWN_NAMES or name.startswith(HTTP):
        raise InvalidArgument(f"{name!r} names effects of Kairos itself", hint="Choose another name.")


def _not_awaited(asked: Effect, value: Awaitable[Any]) -> InvalidArgument:
    close = getattr(value, "close", None)
    if callable(close):
        close()
    return InvalidArgument(
        f"effect {asked.name!r} returned a {type(value).__name__}, which nobody awaits",
        hint="An async function needs a step defined with `async def`, and `await ctx.call(...)`.",
    )


async def _done(future: Future[Any]) -> None:
    """Wait for a future without touching it: whoever else waits for it goes on waiting if this is cancelled."""
    if future.done():
        return
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def wake(_: object) -> None:
        try:
            loop.call_soon_threadsafe(tell)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    future.add_done_callback(wake)
    await waiter


def is_in_loop() -> bool:
    """Whether an event loop runs in this thread: then nothing here may block."""
    return asyncio._get_running_loop() is not None


def _data(payload: Payload | None) -> bytes:
    return payload.data if payload is not None and payload.data is not None else b"null"


def _shown(raw: bytes) -> str:
    text = raw.decode("utf-8", "backslashreplace")
    return clean(text, _SHOWN)


def _micros(began: int) -> int:
    return (time.perf_counter_ns() - began) // 1000
