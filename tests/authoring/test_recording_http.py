"""HTTP calls of httpx and requests: recorded where a step asks for it, and answered from the record."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import requests
from authoring_support import attempt, error_of, new_workflow, output_of
from test_effects import Notebook, ctx_with

import kairos
from kairos import testing
from kairos.authoring import StepContext
from kairos.authoring.http_record import MAX_BODY
from kairos.domain import canonical
from kairos.domain.events import EffectRecorded
from kairos.errors import DefinitionError, EffectMismatch


class Handler(BaseHTTPRequestHandler):
    """Counts what it is asked; says what the path says."""

    protocol_version = "HTTP/1.1"
    hits: Counter[str] = Counter()

    def do_GET(self) -> None:
        sent = self.received()
        Handler.hits[f"{self.command} {self.path}"] += 1
        number = Handler.hits[f"{self.command} {self.path}"]
        path = self.path.partition("?")[0]
        if path == "/redirect":
            self.say(302, b"", Location="/json")
        elif path == "/big":
            self.say(200, b"x" * (MAX_BODY + 1))
        elif path == "/binary":
            self.say(200, b"\x00\xff\xfe")
        elif path == "/gzip":
            self.say(200, gzip.compress(b"packed " * 100), Content_Encoding="gzip")
        elif path == "/login":
            self.say(200, b"in", Set_Cookie="session=s3cret-cookie; Path=/")
        elif path == "/whoami":
            self.say(200, (self.headers.get("Cookie") or "nobody").encode())
        elif path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (b"one ", b"two ", b"three"):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        elif path == "/fails":
            self.say(503, b"not now")
        else:
            body = {
                "n": number,
                "path": path if path == "/login2" else self.path,
                "sent": sent.decode("utf-8", "replace"),
                "card": "4111",
            }
            self.say(200, json.dumps(body).encode(), Content_Type="application/json")

    do_POST = do_PUT = do_HEAD = do_GET

    def received(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(autouse=True)
def _afresh() -> None:
    Handler.hits.clear()


def by_httpx(ctx: StepContext, method: str, url: str, **more: Any) -> Any:
    with ctx.record_http(), httpx.Client(follow_redirects=True, trust_env=False) as client:
        return client.request(method, url, **more)


def by_requests(ctx: StepContext, method: str, url: str, **more: Any) -> Any:
    if "content" in more:
        more["data"] = more.pop("content")
    with ctx.record_http(), requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, **more)


def by_async_httpx(ctx: StepContext, method: str, url: str, **more: Any) -> Any:
    async def ask() -> Any:
        with ctx.record_http():
            async with httpx.AsyncClient(follow_redirects=True, trust_env=False) as client:
                return await client.request(method, url, **more)

    return asyncio.run(ask())


Ask = Callable[..., Any]
CLIENTS = pytest.mark.parametrize("ask", [by_httpx, by_requests, by_async_httpx], ids=lambda ask: ask.__name__)


def values(notebook: Notebook) -> list[dict[str, Any]]:
    return [canonical.decode(e.result.data or b"") for e in notebook.kept if e.result]


@CLIENTS
def test_a_retry_is_given_the_recorded_answer_as_a_response_of_the_library(ask: Ask, server: str) -> None:
    first = Notebook(slow=True)
    live = ask(ctx_with(first), "POST", f"{server}/pay?x=1", content=b'{"amount":990}')
    again = ask(ctx_with(Notebook(first), attempt=2), "POST", f"{server}/pay?x=1", content=b'{"amount":990}')
    assert Handler.hits == {"POST /pay?x=1": 1}
    assert type(live) is type(again)
    assert live.json() == again.json() == {"n": 1, "path": "/pay?x=1", "sent": '{"amount":990}', "card": "4111"}
    for response in (live, again):
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        assert response.headers["content-length"] == str(len(response.content))
        assert str(response.url) == f"{server}/pay?x=1"
        assert response.request.method == "POST"
        response.raise_for_status()
    (effect,) = first.kept
    assert (effect.via, effect.name, effect.ordinal) == ("http", f"http POST {server}/pay?x=1", 1)
    assert effect.duration_us > 0


@CLIENTS
@pytest.mark.parametrize("path", ["/binary", "/gzip", "/stream", "/fails", "/redirect", "/json?q=%C3%A9"])
def test_every_kind_of_answer_comes_back_as_it_was(ask: Ask, path: str, server: str) -> None:
    first, second = Notebook(), Notebook()
    live = ask(ctx_with(first), "GET", server + path)
    second = Notebook(first)
    again = ask(ctx_with(second, attempt=2), "GET", server + path)
    assert sum(Handler.hits.values()) == len(first.kept) == (2 if path == "/redirect" else 1)
    assert (live.status_code, live.content, str(live.url)) == (again.status_code, again.content, str(again.url))
    assert dict(live.headers) == dict(again.headers)
    assert len(live.history) == len(again.history) == (path == "/redirect")
    assert second.kept == []


@CLIENTS
def test_a_head_keeps_the_length_that_it_tells(ask: Ask, server: str) -> None:
    first = Notebook()
    live = ask(ctx_with(first), "HEAD", f"{server}/big")
    again = ask(ctx_with(Notebook(first), attempt=2), "HEAD", f"{server}/big")
    assert live.headers["content-length"] == again.headers["content-length"] == str(MAX_BODY + 1)
    assert again.content == b""


@CLIENTS
def test_an_answer_that_is_too_long_is_passed_on_whole_and_asked_for_again(ask: Ask, server: str) -> None:
    first, second = Notebook(), Notebook()
    assert ask(ctx_with(first), "GET", f"{server}/big").content == b"x" * (MAX_BODY + 1)
    assert values(first)[0]["too_long"] is True
    assert "body" not in values(first)[0]
    second = Notebook(first)
    assert len(ask(ctx_with(second, attempt=2), "GET", f"{server}/big").content) == MAX_BODY + 1
    assert Handler.hits == {"GET /big": 2}
    assert [e.ordinal for e in second.kept] == [1]


def test_more_may_be_kept_if_one_says_so(server: str) -> None:
    ctx = ctx_with(notebook := Notebook())
    with ctx.record_http(max_body=MAX_BODY + 1), requests.Session() as session:
        session.trust_env = False
        assert len(session.get(f"{server}/big").content) == MAX_BODY + 1
    assert len(values(notebook)[0]["body"]) == MAX_BODY + 1


def test_answers_are_read_in_pieces_as_ever(server: str) -> None:
    def body(ctx: StepContext, path: str) -> list[Any]:
        with ctx.record_http(), httpx.Client(trust_env=False) as client, requests.Session() as session:
            session.trust_env = False
            with client.stream("GET", server + path) as response:
                pieces = b"".join(response.iter_bytes())
            with client.stream("GET", server + path) as response:
                raw = b"".join(response.iter_raw())
            with session.get(server + path, stream=True) as got:
                parts = b"".join(got.iter_content(10))
            with session.get(server + path, stream=True) as got:
                lines = list(got.iter_lines())
        return [pieces, raw, parts, lines]

    for path, expected in (("/stream", b"one two three"), ("/gzip", b"packed " * 100), ("/big", b"x" * (MAX_BODY + 1))):
        first = Notebook()
        made = body(ctx_with(first), path)
        assert made == [expected, expected, expected, [expected]]
        assert body(ctx_with(Notebook(first), attempt=2), path) == made


async def _stream(ctx: StepContext, url: str) -> bytes:
    with ctx.record_http():
        async with httpx.AsyncClient(trust_env=False) as client, client.stream("GET", url) as response:
            return b"".join([piece async for piece in response.aiter_bytes()])


def test_async_streams_too(server: str) -> None:
    for path, expected in (("/stream", b"one two three"), ("/big", b"x" * (MAX_BODY + 1))):
        first = Notebook()
        assert asyncio.run(_stream(ctx_with(first), server + path)) == expected
        assert asyncio.run(_stream(ctx_with(Notebook(first), attempt=2), server + path)) == expected


@CLIENTS
def test_secrets_are_not_kept(ask: Ask, server: str) -> None:
    ctx = ctx_with(notebook := Notebook())
    ctx.redactor.adopt(kairos.Redaction(fields=["card"]))
    ctx.redactor.reveal("hunter22")
    headers = {
        "Authorization": "Bearer aaaaaaaaaa", "Cookie": "c=bbbbbbbbbb", "Proxy-Authorization": "cccccccccc",
        "X-Api-Key": "dddddddddd", "X-Plain": "seen hunter22",
    }  # fmt: skip
    response = ask(ctx, "POST", f"{server}/login2?token=eeeeeeeeee", content=b'{"p":"hunter22"}', headers=headers)
    assert response.json()["card"] == "[redacted]", "the step gets what is recorded"
    ask(ctx, "GET", f"{server}/login")
    raw = b"".join((p.data or b"") for e in notebook.kept for p in (e.arguments, e.result) if p is not None)
    raw += "".join(e.name for e in notebook.kept).encode()
    for secret in (b"aaaa", b"bbbb", b"cccc", b"dddd", b"eeee", b"hunter22", b"4111", b"s3cret-cookie"):
        assert secret not in raw
    assert b"seen [redacted]" in raw


def test_a_session_stays_logged_in(server: str) -> None:
    ctx = ctx_with(Notebook())
    with ctx.record_http(), requests.Session() as session, httpx.Client(trust_env=False) as client:
        session.trust_env = False
        session.get(f"{server}/login")
        client.get(f"{server}/login")
        assert session.get(f"{server}/whoami").text == client.get(f"{server}/whoami").text == "session=s3cret-cookie"


@CLIENTS
def test_a_connection_that_fails_is_recorded_and_tried_again(ask: Ask, server: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        notebook = Notebook()
        with pytest.raises((httpx.ConnectError, requests.ConnectionError)):
            ask(ctx_with(notebook), "GET", url)
        assert [(e.name, e.error.type.partition(".")[0]) for e in notebook.kept if e.error] == [
            (f"http GET {url}", "httpx" if ask is not by_requests else "requests")
        ]


@CLIENTS
def test_another_body_in_the_place_of_a_recorded_one_is_a_mismatch_that_names_it(ask: Ask, server: str) -> None:
    first = Notebook()
    ask(ctx_with(first), "POST", f"{server}/pay", content=b'{"id":"a"}')
    with pytest.raises(EffectMismatch) as caught:
        ask(ctx_with(Notebook(first), attempt=2), "POST", f"{server}/pay", content=b'{"id":"b"}')
    error: Any = caught.value
    assert f"POST {server}/pay, call 1 of it" in error.message
    assert (error.old, error.new) == ('"{\\"id\\":\\"a\\"}"', '"{\\"id\\":\\"b\\"}"')
    assert Handler.hits == {"POST /pay": 1}


def test_what_was_not_reached_before_is_asked_for_and_the_rest_is_not(server: str) -> None:
    def body(ctx: StepContext, ids: list[int], order: list[int]) -> dict[int, int]:
        with ctx.record_http(), httpx.Client(trust_env=False) as client:
            return {i: client.post(f"{server}/pay", content=str(ids[i])).json()["n"] for i in order}

    first = Notebook()
    assert body(ctx_with(first), [10, 11, 10, 12], [0, 1, 2]) == {0: 1, 1: 2, 2: 3}
    second = Notebook(first)
    assert body(ctx_with(second, attempt=2), [10, 11, 10, 12, 13], [0, 1, 2, 3, 4]) == {0: 1, 1: 2, 2: 3, 3: 4, 4: 5}
    assert [e.ordinal for e in second.kept] == [4, 5]
    third = Notebook(second)
    assert body(ctx_with(third, attempt=3), [10, 11, 10, 12, 13], [0, 1, 2, 3, 4])[4] == 5
    assert third.kept == []


def test_calls_side_by_side_are_told_by_their_bodies(server: str) -> None:
    async def body(ctx: StepContext, order: list[int]) -> dict[str, int]:
        with ctx.record_http():
            async with httpx.AsyncClient(trust_env=False) as client:
                found = await asyncio.gather(*(client.post(f"{server}/pay", content=str(i)) for i in order))
        return {r.json()["sent"]: r.json()["n"] for r in found}

    first = Notebook()
    made = asyncio.run(body(ctx_with(first), [1, 2, 3, 4, 5]))
    second = Notebook(first)
    assert asyncio.run(body(ctx_with(second, attempt=2), [5, 4, 3, 2, 1])) == made
    assert second.kept == []
    assert Handler.hits == {"POST /pay": 5}


def test_only_the_step_that_asked_is_recorded(server: str) -> None:
    workflow = new_workflow()

    @workflow.step(record_http=True)
    async def recorded(ctx: StepContext) -> list[int]:
        async with httpx.AsyncClient(trust_env=False) as client:
            own = [(await client.get(f"{server}/{ctx.run_id}/{n}")).status_code for n in range(5)]
        aside = await asyncio.to_thread(lambda: httpx.get(f"{server}/{ctx.run_id}/aside", trust_env=False))
        return [*own, aside.status_code]

    @workflow.step
    async def not_recorded(ctx: StepContext) -> int:
        async with httpx.AsyncClient(trust_env=False) as client:
            return sum([(await client.get(f"{server}/other/{n}")).status_code for n in range(5)])

    async def main() -> list[Notebook]:
        from kairos.authoring.executor import run_attempt
        from kairos.authoring.threads import Threads

        books, work = [], []
        for n in range(5):
            book = Notebook()
            books.append(book)
            ctx = ctx_with(book, step="recorded")
            ctx.run_id = f"run-{n}"
            threads = Threads("test")
            work.append(run_attempt(recorded, ctx, b"null", {}, threads=threads, timeout=None))
            other = ctx_with(Notebook(), step="not_recorded")
            work.append(run_attempt(not_recorded, other, b"null", {}, threads=threads, timeout=None))
        for outcome in await asyncio.gather(*work):
            output_of(outcome)
        return books

    for n, book in enumerate(asyncio.run(main())):
        paths = [e.name.rpartition(server)[2] for e in book.kept]
        assert paths == [f"/run-{n}/{i}" for i in (0, 1, 2, 3, 4, "aside")]


def test_a_sync_step_is_recorded_whole_and_nothing_after_it(server: str) -> None:
    workflow = new_workflow()

    @workflow.step(record_http=True)
    def fetch(ctx: StepContext) -> int:
        with requests.Session() as session:
            session.trust_env = False
            number = session.get(f"{server}/json").json()["n"]
        ctx.call("inside", lambda: httpx.get(f"{server}/inside", trust_env=False).status_code)
        return int(number)

    notebook = Notebook()
    assert output_of(attempt(fetch, ctx=ctx_with(notebook, step="fetch"))) == 1
    assert [e.via for e in notebook.kept] == ["http", "call"], "inside of a call, the call alone is recorded"
    httpx.get(f"{server}/json", trust_env=False)
    assert len(notebook.kept) == 2


def test_a_blocking_client_on_the_event_loop_is_refused(server: str) -> None:
    workflow = new_workflow()

    @workflow.step(record_http=True)
    async def blocks(ctx: StepContext) -> int:
        return httpx.get(f"{server}/json", trust_env=False).status_code

    error = error_of(attempt(blocks, ctx=ctx_with(Notebook(), step="blocks")))
    assert "httpx blocks the event loop" in error.message
    assert "AsyncClient" in (error.hint or "")
    assert not Handler.hits


def test_uploads_are_told_apart_without_what_is_random_in_them(server: str) -> None:
    def body(ctx: StepContext, text: bytes) -> int:
        with ctx.record_http(), requests.Session() as session:
            session.trust_env = False
            return int(session.post(f"{server}/up", files={"f": ("n.txt", text)}).json()["n"])

    first = Notebook()
    assert body(ctx_with(first), b"same") == 1
    assert body(ctx_with(Notebook(first), attempt=2), b"same") == 1
    with pytest.raises(EffectMismatch):
        body(ctx_with(Notebook(first), attempt=2), b"other")


@CLIENTS
def test_a_body_that_is_a_stream_is_sent_and_told_by_its_order(ask: Ask, server: str) -> None:
    def pieces() -> Any:
        yield b"a"

    async def apieces() -> Any:
        yield b"a"

    make = apieces if ask is by_async_httpx else pieces
    first = Notebook()
    assert (
        ask(ctx_with(first), "POST", f"{server}/up", content=make(), headers={"Connection": "close"}).status_code == 200
    )
    assert ask(ctx_with(Notebook(first), attempt=2), "POST", f"{server}/up", content=make()).status_code == 200
    assert sum(Handler.hits.values()) == 1


def test_a_library_that_is_imported_later_is_recorded_too_and_none_is_imported_for_it(server: str) -> None:
    code = f"""
import sys
from kairos import testing
ctx = testing.context(records=(records := testing.Records()))
with ctx.record_http():
    assert "httpx" not in sys.modules and "requests" not in sys.modules
    import httpx, requests
    httpx.get({server!r} + "/a", trust_env=False)
    requests.get({server!r} + "/b", proxies={{"http": None}})
print([e.name.rpartition("/")[2] for e in records.effects])
print(httpx.__spec__.loader, requests.adapters.__loader__ is not None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['a', 'b']\n")
    assert "SourceFileLoader" in done.stdout


def test_an_inline_run_and_its_retry(server: str) -> None:
    workflow = kairos.App("shop").workflow("w")

    @workflow.step(record_http=True, retry=kairos.Retry(attempts=2))
    def fetch(ctx: StepContext) -> int:
        number = int(httpx.get(f"{server}/json", trust_env=False).json()["n"])
        if ctx.attempt == 1:
            raise ConnectionError
        return number

    run = testing.run(workflow)
    assert run.output == 1
    assert [r.event.via for r in run.history if isinstance(r.event, EffectRecorded)] == ["http"]


def test_the_option_takes_true_and_false_alone() -> None:
    with pytest.raises(DefinitionError, match="record_http='yes'"):
        new_workflow().step(record_http="yes", name="x")(_afresh)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="record_http=1"):

        @kairos.App("a").job(record_http=1)  # type: ignore[arg-type]
        def job() -> None: ...
