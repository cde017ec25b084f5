"""Effects of a suspect, over the pipes between its worker and the child process in which it runs.

The child writes `{"effect": ...}` for what it records and `{"ask": n, ...}` where it must wait; the worker, which has
the journal, answers the latter with one line on the child's standard input: `{"answer": n, ...}`.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, BinaryIO

from kairos.authoring.context import StepCancelled
from kairos.authoring.effects import SETTLED, BasicJournal, Effect
from kairos.domain import canonical
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import EffectRecorded
from kairos.domain.payload import Payload
from kairos.errors import KairosError, PayloadError

if TYPE_CHECKING:
    from kairos.engine.journal import Journal


class Relay:
    """The worker's end: hands on what the child says about effects, and brings the answers back."""

    def __init__(self, journal: Callable[[], Journal], answers: asyncio.StreamWriter) -> None:
        self._journal, self._answers = journal, answers
        self._loop = asyncio.get_running_loop()

    def hear(self, message: dict[str, Any]) -> bool:
        """Take a line of the child's. Whether it was about effects."""
        if "effect" in message:
            self._journal().record(_effect_from_json(message["effect"]))
        elif "ask" in message:
            self._bring(message["ask"], self._future_of(message))
        else:
            return False
        return True

    def _future_of(self, message: dict[str, Any]) -> Future[Any]:
        if "blob" in message:
            return self._journal().fetch(Payload.blob(*message["blob"]))
        return self._journal().settle()

    def _bring(self, number: int, future: Future[Any]) -> None:
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._answer, number, done))

    def _answer(self, number: int, future: Future[Any]) -> None:
        answer: dict[str, Any] = {"answer": number}
        error = future.exception()
        if error is None:
            raw = future.result()
            answer["raw"] = None if raw is None else _text(raw)
        else:
            answer["error"] = error.message if isinstance(error, KairosError) else str(error)
            answer["hint"] = error.hint if isinstance(error, KairosError) else None
            answer["is_over"] = isinstance(error, StepCancelled)
        if not self._answers.is_closing():
            self._answers.write(canonical.encode_trusted(answer) + b"\n")


class PipeJournal(BasicJournal):
    """The child's end."""

    def __init__(
        self, send: Callable[[dict[str, Any]], None], answers: BinaryIO, earlier: Iterable[EffectRecorded]
    ) -> None:
        super().__init__({(effect.name, effect.ordinal): effect for effect in earlier})
        self._send, self._answers = send, answers
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._open: dict[int, Future[Any]] = {}
        self._settling: Future[None] = SETTLED
        self._is_news, self._closed = False, ""
        threading.Thread(target=self._listen, name="kairos-answers", daemon=True).start()

    def fetch(self, payload: Payload) -> Future[bytes]:
        """Have the worker read a blob."""
        with self._lock:
            return self._question({"blob": [payload.sha256, payload.size]})

    def record(self, effect: Effect) -> None:
        """Pass it to the worker."""
        with self._lock:
            self._is_news = True
            self._send({"effect": _effect_to_json(effect)})

    def settle(self) -> Future[None]:
        """Done when the worker says so."""
        with self._lock:
            if self._is_news:
                self._is_news, self._settling = False, self._question({})
            return self._settling

    def close(self, reason: str) -> None:
        """Nobody listens any more: who waits is stopped. Safe in a signal handler."""
        self._closed = reason
        for future in list(self._open.values()):
            _fail(future, StepCancelled(reason))

    def _question(self, message: dict[str, Any]) -> Future[Any]:
        future: Future[Any] = Future()
        number = next(self._numbers)
        self._open[number] = future
        self._send({**message, "ask": number})
        if self._closed:
            _fail(future, StepCancelled(self._closed))
        return future

    def _listen(self) -> None:
        for line in self._answers:
            answer = canonical.decode(line)
            future = self._open.pop(answer["answer"], None)
            if future is None:
                continue
            if "error" not in answer:
                if not future.done():
                    future.set_result(None if answer["raw"] is None else answer["raw"].encode())
            elif answer["is_over"]:
                _fail(future, StepCancelled(answer["error"]))
            else:
                _fail(future, PayloadError(answer["error"], hint=answer["hint"]))
        self.close("its worker is gone")


def _fail(future: Future[Any], error: BaseException) -> None:
    try:
        future.set_exception(error)
    except Exception:
        pass  # answered at this very moment


def _effect_to_json(effect: Effect) -> dict[str, Any]:
    return {
        "via": effect.via,
        "name": effect.name,
        "ordinal": effect.ordinal,
        "arguments": None if effect.arguments is None else _text(effect.arguments.data),
        "result": None if effect.result is None else _text(effect.result.data),
        "error": None if effect.error is None else effect.error.to_json(),
        "duration_us": effect.duration_us,
    }


def _effect_from_json(data: dict[str, Any]) -> Effect:
    for name in ("arguments", "result"):
        if data[name] is not None:
            data[name] = Payload.of(data[name].encode())
    if data["error"] is not None:
        data["error"] = ErrorInfo.from_json(data["error"])
    return Effect(**data)


def _text(raw: bytes | None) -> str:
    return (raw or b"null").decode()  # canonical JSON is UTF-8
