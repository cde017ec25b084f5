"""The stream of a run that goes on: nothing is missed, nothing comes twice, nobody who has gone costs anything."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from debugger_ui.timeline import KINDS
from tests.cli.cli_support import eventually
from tests.ui.shop import GATES, open_gate
from tests.ui.support import Told, get, serving


class Stream:
    """What comes over one stream."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.kinds: list[str] = []
        self.seqs: list[tuple[int, int]] = []
        self.arrived: dict[int, float] = {}
        self.names: list[str] = []
        self.status = 0
        self._client = httpx.Client(trust_env=False, timeout=20)
        self._url, self._headers = url, headers or {}
        self._stop = False
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        try:
            with self._client, self._client.stream("GET", self._url, headers=self._headers) as answer:
                self.status = answer.status_code
                name = ""
                for line in answer.iter_lines():
                    if self._stop:
                        return
                    if line.startswith("event: "):
                        name = line[7:]
                        self.names.append(name)
                    elif line.startswith("data: ") and name == "events":
                        self._take(json.loads(line[6:]))
        except httpx.HTTPError:
            pass

    def _take(self, columns: dict[str, Any]) -> None:
        self.seqs.append((columns["after"], columns["seq"]))
        self.kinds += [KINDS[k] for k in columns["kind"]]
        self.arrived[columns["seq"]] = time.time()

    def close(self) -> None:
        self._stop = True
        self.thread.join(20)

    @property
    def last(self) -> int:
        return self.seqs[-1][1] if self.seqs else 0

    def is_whole(self, after: int = 0) -> bool:
        """Whether each batch begins where the one before it ended."""
        return all(a == b for (a, _), b in zip(self.seqs, [after, *(s for _, s in self.seqs)], strict=False))


@pytest.fixture
def gate(told: Told, request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """A run that goes on until its gate is opened; it logs all the time."""
    name = request.node.name
    GATES[name] = threading.Event()
    run = told.client.start(told.app.get("gate"), {"gate": name, "talk": True})
    eventually(lambda: run.refresh().info.seq > 3)
    yield name, run
    open_gate(name)
    run.wait(30)


def test_a_stream_tells_everything_to_the_end(site: str, gate: tuple[str, Any], told: Told) -> None:
    name, run = gate
    stream = Stream(f"{site}/runs/{run.id}/live?after=0")
    eventually(lambda: stream.last > 10)
    open_gate(name)
    stream.thread.join(30)
    assert stream.names[-1] == "end"
    assert stream.is_whole()
    assert stream.kinds == [recorded.event.kind for recorded in told.client.events(run.id)]
    stream.close()


def test_who_comes_back_gets_the_rest_and_nothing_twice(site: str, gate: tuple[str, Any], told: Told) -> None:
    name, run = gate
    first = Stream(f"{site}/runs/{run.id}/live?after=0")
    eventually(lambda: first.last > 5)
    first.close()
    second = Stream(f"{site}/runs/{run.id}/live?after=0", {"Last-Event-ID": str(first.last)})
    eventually(lambda: second.last > first.last + 3)
    open_gate(name)
    second.thread.join(30)
    assert second.seqs[0][0] == first.last
    assert second.is_whole(first.last)
    assert first.kinds + second.kinds == [recorded.event.kind for recorded in told.client.events(run.id)]


def test_a_stream_goes_on_over_a_restart_of_the_server(told: Told, gate: tuple[str, Any]) -> None:
    name, run = gate
    with serving(told.dsn) as server:
        first = Stream(f"{server.url}/runs/{run.id}/live?after=0")
        eventually(lambda: first.last > 5)
        began = time.monotonic()
    assert time.monotonic() - began < 3, "open streams do not hold up the end"
    first.thread.join(20)
    assert "end" not in first.names, "the run goes on, so the browser must come back"
    with serving(told.dsn) as server:
        second = Stream(f"{server.url}/runs/{run.id}/live?after={first.last}")
        eventually(lambda: second.last > first.last + 3)
        open_gate(name)
        second.thread.join(30)
    assert first.kinds + second.kinds == [recorded.event.kind for recorded in told.client.events(run.id)]


def test_a_run_that_is_over_has_no_stream_and_one_that_is_behind_gets_the_rest(site: str, told: Told) -> None:
    run = told.runs["done"]
    last = get(f"{site}/api/v1/runs/{run}").json()["seq"]
    assert get(f"{site}/runs/{run}/live?after={last}").status_code == 204
    stream = Stream(f"{site}/runs/{run}/live?after={last - 2}")
    stream.thread.join(20)
    assert stream.seqs == [(last - 2, last)]
    assert stream.names == ["events", "end"]


def test_who_is_ahead_of_the_database_is_told_to_load_again(site: str, gate: tuple[str, Any]) -> None:
    stream = Stream(f"{site}/runs/{gate[1].id}/live?after=999999")
    stream.thread.join(20)
    assert stream.names == ["resync"]


def test_an_event_is_seen_soon_after_it_was_committed(site: str, gate: tuple[str, Any], told: Told) -> None:
    name, run = gate
    stream = Stream(f"{site}/runs/{run.id}/live?after=0")
    eventually(lambda: len(stream.seqs) > 12)
    open_gate(name)
    stream.thread.join(30)
    at = {recorded.seq: recorded.at.timestamp() for recorded in told.client.events(run.id)}
    late = sorted(when - at[seq] for seq, when in list(stream.arrived.items())[1:])
    # The time in an event is a little earlier than its commit; the budget of 300 ms is for an idle machine.
    assert late[len(late) // 2] < 0.9, late


async def view(url: str, run: str, seqs: list[tuple[int, int]]) -> None:
    """One viewer, as light as can be: reads the stream until it is cancelled or the stream ends."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET /runs/{run}/live?after=0 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b'data: {"after"'):
                columns = json.loads(line[6:])
                seqs.append((columns["after"], columns["seq"]))
    finally:
        writer.close()


def test_two_hundred_viewers_of_whom_half_vanish_cost_nothing(told: Told, gate: tuple[str, Any]) -> None:
    _, run = gate

    async def watch(url: str) -> list[list[tuple[int, int]]]:
        async def ask(path: str) -> httpx.Response:
            return await asyncio.to_thread(get, url + path)

        async def until_there_are(count: int) -> None:
            async with asyncio.timeout(60):
                while (await ask("/readyz")).json()["viewers"] != count:
                    await asyncio.sleep(0.05)

        seen: list[list[tuple[int, int]]] = [[] for _ in range(200)]
        viewers = [asyncio.create_task(view(url, run.id, seqs)) for seqs in seen]
        await until_there_are(200)
        for viewer in viewers[100:]:
            viewer.cancel()
        await until_there_are(100)
        last = seen[0][-1][1]
        async with asyncio.timeout(60):
            while not all(seqs[-1][1] > last for seqs in seen[:100]):
                await asyncio.sleep(0.05)
        assert (await ask("/runs?limit=5")).status_code == 200
        for viewer in viewers:
            viewer.cancel()
        await asyncio.gather(*viewers, return_exceptions=True)
        await until_there_are(0)
        return seen[:100]

    with serving(told.dsn) as server:
        for seqs in asyncio.run(watch(server.url)):
            assert [after for after, _ in seqs] == [0, *(seq for _, seq in seqs[:-1])]
