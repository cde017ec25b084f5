"""Lets a recorder see the calls that httpx and requests make, where a step has asked for that.

Installed once, when the first step asks, and neither library is imported for it: one that comes later is hooked
as it is imported. Everybody else's calls pass through after one look at a context variable.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

from kairos.authoring.effects import INSIDE
from kairos.authoring.http_record import RECORDER, Answer, HttpRecorder, unpacked

_CHUNK = 64 * 1024
_lock = threading.RLock()
_hooked: set[str] = set()


def install() -> None:
    """Hook what is imported, and look out for the rest."""
    if len(_hooked) == len(_HOOKS):
        return
    with _lock:
        for name in _HOOKS.keys() - _hooked:
            module = sys.modules.get(name)
            if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
                _hook(module)
        if len(_hooked) < len(_HOOKS) and _LOOKOUT not in sys.meta_path:
            sys.meta_path.insert(0, _LOOKOUT)


def _hook(module: ModuleType) -> None:
    with _lock:
        if module.__name__ not in _hooked:
            _HOOKS[module.__name__](module)
            _hooked.add(module.__name__)


def _here() -> HttpRecorder | None:
    """Who records here: nobody inside of an effect, which is recorded as a whole."""
    recorder = RECORDER.get()
    return recorder if recorder is not None and INSIDE.get() is None else None


# -- httpx ---------------------------------------------------------------------------------------------------


def _hook_httpx(httpx: Any) -> None:
    send, asend = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request

    @functools.wraps(send)
    def handle_request(self: Any, request: Any) -> Any:
        recorder = _here()
        if recorder is None:
            return send(self, request)
        return recorder.exchange(_HttpxCall(httpx, request, lambda: send(self, request)))

    @functools.wraps(asend)
    async def handle_async_request(self: Any, request: Any) -> Any:
        recorder = _here()
        if recorder is None:
            return await asend(self, request)
        return await recorder.aexchange(_AsyncHttpxCall(httpx, request, lambda: asend(self, request)))

    httpx.HTTPTransport.handle_request = handle_request
    httpx.AsyncHTTPTransport.handle_async_request = handle_async_request
    # A stream that begins with what was read of it already. Its bases must be httpx's own.
    _STREAMS[False] = type("Resumed", (_Resumed, httpx.SyncByteStream), {})
    _STREAMS[True] = type("AsyncResumed", (_AsyncResumed, httpx.AsyncByteStream), {})


_STREAMS: dict[bool, Any] = {}


class _HttpxFacts:
    library = "httpx"

    def __init__(self, httpx: Any, request: Any, send: Callable[[], Any]) -> None:
        self._httpx, self._request, self.send = httpx, request, send
        self.method, self.url = request.method, str(request.url)
        self.headers = _texts(request.headers.raw)
        try:
            self.body: bytes | None = request.content
        except httpx.RequestNotRead:
            self.body = None

    def build(self, answer: Answer, live: Any) -> Any:
        """An `httpx.Response` whose body was read already, but not looked at."""
        assert answer.body is not None
        extensions = {"http_version": answer.version.encode(), "reason_phrase": answer.reason.encode("utf-8")}
        headers = [(k.encode(), v.encode("utf-8")) for k, v in unpacked(answer.headers, answer.body)]
        stream = self._httpx.ByteStream(answer.body)
        return self._httpx.Response(answer.status, headers=headers, stream=stream, extensions=extensions)

    def _answer(self, live: Any, raw: bytes | None, limit: int) -> Answer:
        body = None
        if raw is not None:
            # Unpacked by httpx itself, which knows what can be.
            unpacked_body = self._httpx.Response(live.status_code, headers=live.headers, content=raw).content
            body = unpacked_body if len(unpacked_body) <= limit else None
        version = live.extensions.get("http_version", b"HTTP/1.1").decode("ascii", "replace")
        headers = _texts(live.headers.raw)
        return Answer(
            status=live.status_code, reason=live.reason_phrase, version=version, headers=headers, body=body
        )  # fmt: skip


class _HttpxCall(_HttpxFacts):
    def read(self, live: Any, limit: int) -> tuple[Answer, Any]:
        """As much of the body as is kept."""
        chunks, rest = [], iter(live.stream)
        for chunk in rest:
            chunks.append(chunk)
            if sum(map(len, chunks)) > limit:
                break
        else:
            live.stream.close()
            raw = b"".join(chunks)
            answer = self._answer(live, raw, limit)
            live.stream = self._httpx.ByteStream(raw)
            return answer, live
        live.stream = _STREAMS[False](chunks, rest, live.stream)
        return self._answer(live, None, limit), live


class _AsyncHttpxCall(_HttpxFacts):
    async def read(self, live: Any, limit: int) -> tuple[Answer, Any]:
        """As much of the body as is kept."""
        chunks, rest = [], aiter(live.stream)
        async for chunk in rest:
            chunks.append(chunk)
            if sum(map(len, chunks)) > limit:
                break
        else:
            await live.stream.aclose()
            raw = b"".join(chunks)
            answer = self._answer(live, raw, limit)
            live.stream = self._httpx.ByteStream(raw)
            return answer, live
        live.stream = _STREAMS[True](chunks, rest, live.stream)
        return self._answer(live, None, limit), live


class _Resumed:
    def __init__(self, chunks: list[bytes], rest: Iterable[bytes], stream: Any) -> None:
        self._chunks, self._rest, self._stream = chunks, rest, stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        yield from self._rest

    def close(self) -> None:
        self._stream.close()


class _AsyncResumed:
    def __init__(self, chunks: list[bytes], rest: Any, stream: Any) -> None:
        self._chunks, self._rest, self._stream = chunks, rest, stream

    async def __aiter__(self) -> Any:
        for chunk in self._chunks:
            yield chunk
        async for chunk in self._rest:
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _texts(raw: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), _text(value)) for name, value in raw]


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


# -- requests ------------------------------------------------------------------------------------------------


def _hook_requests(adapters: Any) -> None:
    send = adapters.HTTPAdapter.send

    @functools.wraps(send)
    def hooked(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = _here()
        if recorder is None:
            return send(self, request, *args, **kwargs)
        return recorder.exchange(_RequestsCall(self, request, lambda: send(self, request, *args, **kwargs)))

    adapters.HTTPAdapter.send = hooked


class _RequestsCall:
    library = "requests"

    def __init__(self, adapter: Any, request: Any, send: Callable[[], Any]) -> None:
        self._adapter, self._request, self.send = adapter, request, send
        self.method, self.url = str(request.method), str(request.url)
        self.headers = [(_any_text(k), _any_text(v)) for k, v in request.headers.items()]
        body = request.body
        self.body: bytes | None = b"" if body is None else body.encode() if isinstance(body, str) else body
        if not isinstance(self.body, bytes):
            self.body = None

    def read(self, live: Any, limit: int) -> tuple[Answer, Any]:
        """As much of the body as is kept."""
        raw = live.raw
        body = b""
        while len(body) <= limit and (chunk := raw.read(min(_CHUNK, limit + 1), decode_content=True)):
            body += chunk
        is_short = len(body) <= limit
        version = {9: "HTTP/0.9", 10: "HTTP/1.0", 11: "HTTP/1.1", 20: "HTTP/2"}.get(getattr(raw, "version", 11), "")
        answer = Answer(
            status=live.status_code,
            reason=live.reason or "",
            version=version or "HTTP/1.1",
            headers=[(str(k), str(v)) for k, v in raw.headers.items()],
            body=body if is_short else None,
        )
        if is_short:
            raw.release_conn()
        else:
            live.raw = _ResumedRaw(body, raw)
        return answer, live

    def build(self, answer: Answer, live: Any) -> Any:
        """A `requests.Response`, made by the adapter as it makes all of them."""
        import io

        assert answer.body is not None
        urllib3 = sys.modules["urllib3"]
        raw = urllib3.HTTPResponse(
            body=io.BytesIO(answer.body),
            headers=unpacked(answer.headers, answer.body),
            status=answer.status,
            reason=answer.reason,
            version={"HTTP/1.0": 10, "HTTP/2": 20}.get(answer.version, 11),
            request_method=self.method,
            preload_content=False,
            decode_content=False,
        )
        # Of a live answer: from there requests takes the cookies.
        raw._original_response = getattr(live.raw, "_original_response", None) if live is not None else None
        return self._adapter.build_response(self._request, raw)


class _ResumedRaw:
    """A urllib3 response of which some was read already."""

    def __init__(self, begun: bytes, raw: Any) -> None:
        self._begun, self._raw = begun, raw

    def stream(self, amount: int = _CHUNK, decode_content: bool | None = None) -> Iterator[bytes]:
        """The body in pieces, from its begin."""
        begun, self._begun = self._begun, b""
        yield begun
        yield from self._raw.stream(amount, decode_content=True)

    def read(self, amount: int | None = None, decode_content: bool | None = None) -> bytes:
        """As a file."""
        if amount is None:
            begun, self._begun = self._begun, b""
            return begun + bytes(self._raw.read(decode_content=True))
        if not self._begun:
            return bytes(self._raw.read(amount, decode_content=True))
        given, self._begun = self._begun[:amount], self._begun[amount:]
        return given

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _any_text(value: Any) -> str:
    return _text(value) if isinstance(value, bytes) else str(value)


_HOOKS: dict[str, Callable[[Any], None]] = {"httpx": _hook_httpx, "requests.adapters": _hook_requests}


# -- those that are imported later ---------------------------------------------------------------------------


class _Lookout(importlib.abc.MetaPathFinder):
    """Finds nothing by itself: lets the others find, and has a hook run after the module."""

    def __init__(self) -> None:
        self._asking = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's own spec, with a loader that hooks."""
        if fullname not in _HOOKS or fullname in _hooked or getattr(self._asking, "now", False):
            return None
        self._asking.now = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking.now = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Hooking(spec.loader)
        return spec


class _Hooking(importlib.abc.Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """As the loader does."""
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """As the loader does; then hook."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader  # for whoever asks where it came from
        self._loader.exec_module(module)
        _hook(module)


_LOOKOUT = _Lookout()
