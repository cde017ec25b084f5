"""What the debugger in the browser costs: `python -m bench.debugger` (needs a Chromium: `make browser`).

Runs are written by a real worker; `kairos ui` is a process of its own, the browser is headless and 1,440 x 900. Prints
one JSON object; times in milliseconds.

`paint`    from the navigation to the first contentful paint, and until canvas, list and inspector are there
`scrub`    from a key, at any moment between two frames, to the end of the frame that shows it, 300 times;
           `scrub_work`: the part of that in which the page works
`pane`     one pane of the inspector over HTTP, at 100 moments
`live`     from the time in an event to the frame in which the page counts it
`viewers`  another page while 200 streams are open and half of them vanish
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Page, sync_playwright

import kairos
from bench import debugger_app
from bench.server import embedded_server
from kairos.engine.worker import Worker
from kairos.settings import WorkerOptions

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
VIEWERS: Final = 200
SCRUB: Final = """async () => {
  const out = [];
  const keys = ["ArrowLeft", "ArrowLeft", "ArrowLeft", "[", "ArrowLeft", "ArrowRight", "Home", "End", "k", "j"];
  const painted = () => new Promise((done) => requestAnimationFrame((begun) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => done(performance.now() - begun);
    channel.port2.postMessage(0);
  }));
  for (let i = 0; i < 300; i++) {
    await new Promise((done) => setTimeout(done, 20 + Math.random() * 20));
    const begun = performance.now();
    document.dispatchEvent(new KeyboardEvent("keydown", { key: keys[i % keys.length], bubbles: true }));
    const handled = performance.now() - begun;
    const frame = await painted();
    out.push([performance.now() - begun, handled + frame]);
  }
  return out;
}"""
WATCH: Final = """() => {
  window.seen = [];
  let last = -1;
  const look = () => {
    const now = Number(document.getElementById("last").textContent.replace(/\\D/g, ""));
    if (now !== last) { window.seen.push([now, Date.now()]); last = now; }
    requestAnimationFrame(look);
  };
  look();
}"""


def main() -> None:
    """Measure and print."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit("no Chromium: `make browser` installs Debian's")
    with embedded_server() as server, server.fresh() as place:
        runs = asyncio.run(_write(place.dsn))
        with _ui(place.dsn) as url:
            found: dict[str, Any] = {"wide": _http(url, runs["wide"]), "long": _http(url, runs["long"])}
            with sync_playwright() as driver:
                chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
                for name in ("wide", "long"):
                    page = chromium.new_page(viewport={"width": 1440, "height": 900})
                    found[name] |= _in_browser(page, f"{url}/runs/{runs[name]}")
                    page.close()
                found["live"] = _live(chromium.new_page(), url, place.dsn)
                chromium.close()
            found["viewers"] = asyncio.run(_viewers(url, place.dsn))
    print(json.dumps(found, indent=2))


async def _write(dsn: str) -> dict[str, str]:
    """A finished run of each kind."""
    async with kairos.AsyncClient(dsn) as client, _working(dsn):
        runs = {flow.name: await client.start(flow, {}) for flow in (debugger_app.wide, debugger_app.long)}
        for run in runs.values():
            await run.wait(300)
        return {name: run.id for name, run in runs.items()}


class _working:
    """A worker in this event loop."""

    def __init__(self, dsn: str) -> None:
        self._worker = Worker(debugger_app.app, dsn, WorkerOptions.from_settings(concurrency=200))

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._worker.run())
        await self._worker.ready.wait()

    async def __aexit__(self, *_: object) -> None:
        self._worker.stop()
        await self._task


@contextmanager
def _ui(dsn: str) -> Iterator[str]:
    """`kairos ui` on a free port."""
    command = [sys.executable, "-m", "kairos.cli", "ui", "--port", "0"]
    process = subprocess.Popen(
        command, env={**os.environ, "KAIROS_DATABASE_URL": dsn, "NO_COLOR": "1"}, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if address := re.search(r"http://\S+:\d+", line):
                yield address[0]
                return
        raise RuntimeError("kairos ui did not start")
    finally:
        process.terminate()
        process.wait(10)
        process.stderr.close()


def _get(url: str, **headers: str) -> tuple[float, int]:
    begun = time.perf_counter()
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        size = len(answer.read())
    return (time.perf_counter() - begun) * 1e3, size


def _http(url: str, run: str) -> dict[str, Any]:
    base = f"{url}/runs/{run}"
    cold, length = _get(base)
    warm = [_get(base)[0] for _ in range(5)]
    index, size = _get(f"{base}/index.json", **{"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(f"{url}/api/v1/runs/{run}") as answer:
        events = json.load(answer)["seq"]
    kind = "item" if events < 50_000 else "part"
    panes = [_get(f"{base}/pane?at={events * n // 100}&step={kind}_{n % 100}")[0] for n in range(1, 100)]
    return {
        "events": events,
        "page": {"cold": round(cold, 1), "warm": round(statistics.median(warm), 1), "kb": round(length / 1e3)},
        "index": {"ms": round(index, 1), "gzipped_kb": round(size / 1e3, 1)},
        "pane": _spread(panes),
    }


def _in_browser(page: Page, url: str) -> dict[str, Any]:
    begun = time.perf_counter()
    page.goto(url)
    page.wait_for_selector("main[data-ready]", timeout=60_000)
    ready = (time.perf_counter() - begun) * 1e3
    first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null")
    times = page.evaluate(SCRUB)
    memory = page.evaluate("performance.memory ? performance.memory.usedJSHeapSize / 1e6 : null")
    return {
        "paint": {"first": first and round(first, 1), "ready": round(ready, 1)},
        "scrub": _spread([total for total, _ in times]),
        "scrub_work": _spread([worked for _, worked in times]),
        "heap_mb": memory and round(memory, 1),
    }


def _live(page: Page, url: str, dsn: str) -> dict[str, Any]:
    """How late 200 events are, one every 50 ms."""

    async def write(on_start: Callable[[str], None]) -> dict[int, float]:
        async with kairos.AsyncClient(dsn) as client, _working(dsn):
            run = await client.start(debugger_app.slow, {"lines": 200, "pause": 0.05})
            on_start(run.id)
            await run.wait(120)
            await asyncio.sleep(1)
            return {recorded.seq: recorded.at.timestamp() * 1e3 for recorded in await client.events(run.id)}

    import threading

    started: list[str] = []
    told = threading.Event()
    ats: dict[int, float] = {}

    def begin(run_id: str) -> None:
        started.append(run_id)
        told.set()

    writer = threading.Thread(target=lambda: ats.update(asyncio.run(write(begin))))
    writer.start()
    told.wait(30)
    page.goto(f"{url}/runs/{started[0]}")
    page.wait_for_selector("main[data-ready]")
    page.evaluate(WATCH)
    while writer.is_alive():
        page.wait_for_timeout(200)
    seen = page.evaluate("window.seen")
    late = []
    shown = seen[0][0]
    for last, at in seen[1:]:
        late += [at - ats[seq] for seq in range(shown + 1, last + 1) if seq in ats]
        shown = last
    return _spread(late)


async def _viewers(url: str, dsn: str) -> dict[str, Any]:
    """Another page while 200 streams of a run that goes on are open, and while half of them vanish."""
    host, _, port = url.removeprefix("http://").partition(":")

    async def view(run: str) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(f"GET /runs/{run}/live?after=0 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            while await reader.readline():
                pass
        finally:
            writer.close()

    async def pages(count: int) -> list[float]:
        return [(await asyncio.to_thread(_get, f"{url}/runs?limit=20"))[0] for _ in range(count)]

    async with kairos.AsyncClient(dsn) as client, _working(dsn):
        run = await client.start(debugger_app.slow, {"lines": 400, "pause": 0.02})
        alone = await pages(20)
        viewers = [asyncio.create_task(view(run.id)) for _ in range(VIEWERS)]
        await asyncio.sleep(1)
        beside = await pages(20)
        for viewer in viewers[: VIEWERS // 2]:
            viewer.cancel()
        vanishing = await pages(20)
        for viewer in viewers:
            viewer.cancel()
        await asyncio.gather(*viewers, return_exceptions=True)
        await run.cancel("measured")
    return {"alone": _spread(alone), "beside_200": _spread(beside), "while_half_vanish": _spread(vanishing)}


def _spread(values: list[float]) -> dict[str, float]:
    values = sorted(values)
    return {"p50": round(values[len(values) // 2], 1), "p95": round(values[int(len(values) * 0.95)], 1)}


if __name__ == "__main__":
    main()
