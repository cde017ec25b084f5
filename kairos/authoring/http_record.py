"""Records the HTTP calls of a step: each is an effect, told apart by method, address and body.

Knows what a call and its answer are; how a client library makes them is the business of `http_hooks`.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Iterable
from contextvars import ContextVar, Token
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from kairos.authoring.effect_values import stored
from kairos.authoring.effects import HTTP, MAX_NAME, Effect, EffectJournal, Effects, is_in_loop, is_same
from kairos.authoring.redaction import PLACEHOLDER, Redactor
from kairos.domain import canonical
from kairos.domain.events import EffectRecorded
from kairos.domain.payload import Payload
from kairos.errors import InvalidArgument

if TYPE_CHECKING:
    from types import TracebackType

MAX_BODY: Final = 256 * 1024
"""Bytes of an answer's body, unpacked, that are kept unless told otherwise."""
_UNPACKED = frozenset({"content-encoding", "transfer-encoding", "content-length"})
_BOUNDARY = re.compile(rb'boundary="?([^";,\s]+)')

RECORDER: ContextVar[HttpRecorder | None] = ContextVar("kairos_http_recorder", default=None)
"""Who records the HTTP calls that are made here."""


class Answer(Struct, frozen=True, kw_only=True):
    """What a server said. `body` is unpacked; None if it is longer than what is kept (then `headers` are as sent)."""

    status: int
    reason: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes | None


class Call(Protocol):
    """One request of a client library."""

    library: str
    method: str
    url: str
    headers: list[tuple[str, str]]
    body: bytes | None
    """None if it is a stream, which cannot be looked at without using it up."""

    def build(self, answer: Answer, live: Any) -> Any:
        """A response of the library. `live`: the one that came over the network; None if from the record."""


class BlockingCall(Call, Protocol):
    """A request of a client that blocks."""

    def send(self) -> Any:
        """Make it."""

    def read(self, live: Any, limit: int) -> tuple[Answer, Any]:
        """The answer, and the response to hand on if its body is longer than `limit`."""


class AsyncCall(Call, Protocol):
    """A request of a client that is awaited."""

    async def send(self) -> Any:
        """Make it."""

    async def read(self, live: Any, limit: int) -> tuple[Answer, Any]:
        """As `BlockingCall.read`."""


class Places:
    """Which recorded call answers which: by address and body first, then by order."""

    def __init__(self, journal: EffectJournal) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, dict[int, EffectRecorded]] = {}
        self._taken: dict[str, set[int]] = {}
        self._count: dict[str, int] = {}
        for recorded in journal.recorded():
            if recorded.via == "http":
                self._known.setdefault(recorded.name, {})[recorded.ordinal] = recorded

    def take(self, name: str, arguments: Payload) -> tuple[Effect, EffectRecorded | None]:
        """The effect that a call is, and the recorded one that stands in its place although it is another.

        The place is that of the recorded call with this body: the nth for the nth call, if it is the same, else the
        first that is left; for a body that was not recorded, a new place.
        """
        with self._lock:
            nth = self._count[name] = self._count.get(name, 0) + 1
            known, taken = self._known.get(name, {}), self._taken.setdefault(name, set())
            asked = Effect(via="http", name=name, ordinal=nth, arguments=arguments)
            left = [ordinal for ordinal in (nth, *known) if ordinal in known and ordinal not in taken]
            same = next((ordinal for ordinal in left if is_same(asked, known[ordinal])), None)
            if same is None and nth in left:
                return asked, known[nth]
            ordinal = same or (nth if nth not in known and nth not in taken else max(*known, *taken) + 1)
            taken.add(ordinal)
            return replace(asked, ordinal=ordinal), None


class HttpRecorder:
    """Answers the calls of one attempt from its record, lets the others happen, and records these."""

    def __init__(self, effects: Effects, max_body: int) -> None:
        self._effects, self._max_body = effects, max_body

    def exchange(self, call: BlockingCall) -> Any:
        """The response to `call`."""
        if is_in_loop():
            raise InvalidArgument(
                f"{call.library} blocks the event loop, and a blocked loop cannot record what it does",
                hint="Use httpx.AsyncClient in an async step, or await asyncio.to_thread(...).",
            )
        effects = self._effects
        asked, recorded = self._ask(call)
        if recorded is not None:
            answer = _answer_of(effects.bytes_of(recorded.result))
            if answer.body is not None:
                return call.build(answer, None)
        effects.wait()
        began = time.perf_counter_ns()
        try:
            live = call.send()
            answer, passed_on = call.read(live, self._max_body)
        except Exception as exc:
            effects.failed(asked, exc, began)
            raise
        kept = self._keep(asked, call, answer, began)
        effects.wait()
        return passed_on if kept.body is None else call.build(_with_secrets(kept, answer), live)

    async def aexchange(self, call: AsyncCall) -> Any:
        """The same for a client that is awaited."""
        effects = self._effects
        asked, recorded = self._ask(call)
        if recorded is not None:
            answer = _answer_of(await effects.abytes_of(recorded.result))
            if answer.body is not None:
                return call.build(answer, None)
        await effects.await_settled()
        began = time.perf_counter_ns()
        try:
            live = await call.send()
            answer, passed_on = await call.read(live, self._max_body)
        except Exception as exc:
            effects.failed(asked, exc, began)
            raise
        kept = self._keep(asked, call, answer, began)
        await effects.await_settled()
        return passed_on if kept.body is None else call.build(_with_secrets(kept, answer), live)

    def _ask(self, call: Call) -> tuple[Effect, EffectRecorded | None]:
        redactor = self._effects.ctx.redactor
        url = redactor.text(call.url)
        name = _name(f"{HTTP}{call.method} {url}")
        arguments = stored({"method": call.method, "url": url, "body": _sent(call, redactor)}, redactor)
        place, other = self._effects.places(Places).take(name, arguments)
        if other is not None:
            raise self._mismatch(place, other)
        asked = self._effects.ask("http", name, arguments, place.ordinal)
        return asked, self._effects.journal.recall(asked)

    def _mismatch(self, asked: Effect, other: EffectRecorded) -> Exception:
        old, new = _brief(other.arguments), _brief(asked.arguments)
        text = (
            f"{asked.name.removeprefix(HTTP)}, call {asked.ordinal} of it, is not the one that was recorded: "
            f"the nearest was sent with {old}, this one with {new}"
        )
        return self._effects.mismatched(text, asked=asked, old=old, new=new)

    def _keep(self, asked: Effect, call: Call, answer: Answer, began: int) -> Answer:
        redactor = self._effects.ctx.redactor
        kept = replace(answer, headers=_headers(answer.headers, redactor), body=_redacted(answer.body, redactor))
        value = {
            "status": kept.status,
            "reason": kept.reason,
            "version": kept.version,
            "headers": kept.headers,
            "request_headers": _headers(call.headers, redactor),
            **_body_json(kept.body),
        }
        self._effects.happened(asked, Payload.of(canonical.encode_trusted(value)), began)
        return kept


class Recording:
    """What `ctx.record_http()` returns: within it, HTTP calls are recorded."""

    def __init__(self, effects: Effects, max_body: int) -> None:
        self._effects, self._max_body = effects, max_body
        self._token: Token[HttpRecorder | None] | None = None

    def __enter__(self) -> None:
        from kairos.authoring.http_hooks import install

        install()
        self._token = RECORDER.set(HttpRecorder(self._effects, self._max_body))

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            RECORDER.reset(self._token)


def _name(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 17]}~{sha256(text.encode()).hexdigest()[:16]}"


def _sent(call: Call, redactor: Redactor) -> Any:
    """The body of a request as it is compared: without what is another one each time."""
    body = call.body
    if body is None:
        return {"$type": "stream"}
    content_type = next((value for name, value in call.headers if name.lower() == "content-type"), "").encode()
    boundary = _BOUNDARY.search(content_type) if content_type.startswith(b"multipart/") else None
    if boundary is not None:
        body = body.replace(boundary[1], b"boundary")
    kept = _body_json(_redacted(body, redactor))
    return kept.get("body", kept)


def _redacted(body: bytes | None, redactor: Redactor) -> bytes | None:
    if not body or not redactor.is_active:
        return body
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return body
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return str(redactor.json(text)).encode()
    blanked = redactor.json(value)
    return body if blanked == value else json.dumps(blanked, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _headers(headers: Iterable[tuple[str, str]], redactor: Redactor) -> list[tuple[str, str]]:
    return [(name, PLACEHOLDER if redactor.hides(name) else redactor.text(value)) for name, value in headers]


def _with_secrets(kept: Answer, live: Answer) -> Answer:
    """What the step gets the first time: the body as recorded, and cookies too. Logins must work."""
    return replace(kept, headers=live.headers)


def unpacked(headers: Iterable[tuple[str, str]], body: bytes) -> list[tuple[str, str]]:
    """Headers for a body that is no longer packed as it was sent."""
    if not body:
        return list(headers)
    kept = [(name, value) for name, value in headers if name.lower() not in _UNPACKED]
    return [*kept, ("content-length", str(len(body)))]


def _body_json(body: bytes | None) -> dict[str, Any]:
    if body is None:
        return {"too_long": True}
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _answer_of(raw: bytes) -> Answer:
    data = canonical.decode(raw)
    body = base64.b64decode(data["base64"]) if "base64" in data else data.get("body", None)
    return Answer(
        status=data["status"],
        reason=data["reason"],
        version=data["version"],
        headers=[(name, value) for name, value in data["headers"]],
        body=body.encode() if isinstance(body, str) else body,
    )


def _brief(arguments: Payload | None) -> str:
    if arguments is None or arguments.data is None:
        return f"another body ({arguments.size if arguments is not None else 0:,} bytes)"
    data = canonical.decode(arguments.data)
    return json.dumps(data.get("body", data), ensure_ascii=False)[:300]
