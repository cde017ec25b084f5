"""Replays of runs whose app has changed since, or whose values have no order: what is proved, and what is not."""

from __future__ import annotations

import asyncio
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import kairos
from kairos.authoring.inline import InlineRun
from kairos.authoring.loading import load_app
from kairos.replay.bundle import write_bundle
from kairos.replay.record import RunRecord
from kairos.store.codec import Row, encode, first_hash
from tests.replay.replay_support import Replayed, replay

HEAD = "import kairos, os\napp = kairos.App('shop')\nflow = app.workflow('sum', input=dict)\n"
THEN = (
    HEAD
    + """
@flow.step
def price(input: dict) -> int: return input["n"] * 2
@flow.step
def total(price: int) -> int: return price + 1
@flow.step
def label(total: int) -> str: return f"EUR {total}"
"""
)
NOW = (
    HEAD
    + """
@flow.step
def price(input: dict) -> int: return input["n"] * 2
@flow.step
def tax(price: int) -> int: return 1
@flow.step
def total(price: int, tax: int) -> int: return price + tax
@flow.step
def label(total: int) -> str: return f"BROKEN {total}"
"""
)


def recorded(path: Path, source: str, given: Any = None) -> Path:
    """A bundle of a run of this app, beside it."""
    file = path / "app.py"
    file.write_text(source)
    (flow,) = load_app(f"{file}:app").workflows.values()
    run = InlineRun(flow, {"n": 3} if given is None else given)
    try:
        asyncio.run(run.finish())
    except kairos.KairosError:
        pass
    rows: list[Row] = []
    for event in run.history:
        rows.append(encode(event.event, event.seq, event.at, rows[-1].hash if rows else first_hash(run.state.run_id)))
    return write_bundle(
        RunRecord(run.state.run_id, flow.fingerprint, flow.definition, rows, {}), path / "run.kairos"
    ).path


def again(bundle: Path, *arguments: str, source: str | None = None) -> Replayed:
    """Replay it with another app."""
    if source is not None:
        (bundle.parent / "app.py").write_text(source)
    return replay(bundle.parent, str(bundle), "--app", "app.py:app", *arguments)


def test_a_step_below_one_that_reads_something_new_runs_on_what_was_recorded(tmp_path: Path) -> None:
    done = again(recorded(tmp_path, THEN), "--json", source=NOW)
    assert done.verdicts == {"price": "same", "total": "not-compared", "label": "diverged:output"}
    assert done.code == 1
    assert done.steps["total"]["why"] == (
        "it reads tax, which is new: the run has no output of it; --mode propagate goes on with what it returns now"
    )


def test_what_had_ended_and_cannot_be_compared_is_no_success(tmp_path: Path) -> None:
    bundle = recorded(tmp_path, THEN)
    fine = NOW.replace("BROKEN", "EUR")
    done = again(bundle, source=fine)
    assert "MISSING (it reads tax, which is new" in done.line("total")
    assert "OK" in done.line("label")
    assert "1 not-compared" in done.out
    assert done.code == 1
    assert again(bundle, "--mode", "propagate", "--json", source=fine).verdicts == {
        "price": "same", "tax": "not-recorded", "total": "same", "label": "same",
    }  # fmt: skip


def test_a_step_below_a_failed_one_is_told_how_it_can_be_run(tmp_path: Path) -> None:
    failing = THEN.replace("return price + 1", "raise ValueError(price)").replace(
        "@flow.step\ndef total", "@flow.step(retry=kairos.Retry(attempts=1))\ndef total"
    )
    done = again(recorded(tmp_path, failing), source=THEN)
    assert "OK (" in done.line("total")
    assert "fixed" in done.line("total")
    assert "MISSING (total failed then, and has no recorded output; --mode propagate" in " ".join(done.out.split())
    assert done.code == 0


SETS = """
from dataclasses import dataclass
import kairos

app = kairos.App("sets")
flow = app.workflow("sets", input=dict)

@dataclass
class Tags:
    names: set[str]
    order: list[str]

@flow.step
def make(input: dict) -> set[str]:
    return {f"tag{i}" for i in range(40)}

@flow.step
def keep(make: set[str]) -> Tags:
    return Tags(make, sorted(make, reverse=True))
"""


def test_sets_are_the_same_in_whatever_order_a_process_walks_them(tmp_path: Path) -> None:
    done = again(recorded(tmp_path, SETS), "--json")
    assert done.verdicts == {"make": "same", "keep": "same"}
    assert done.code == 0


def test_another_set_is_a_difference(tmp_path: Path) -> None:
    done = again(recorded(tmp_path, SETS), "--json", source=SETS.replace("range(40)", "range(1, 41)"))
    assert done.verdicts == {"make": "diverged:output", "keep": "same"}


CALLS = """
import urllib.request
import kairos

app = kairos.App("calls")
flow = app.workflow("calls", input=dict)

@flow.step(retry=kairos.Retry(attempts=1))
def ask(input: dict) -> str:
    return urllib.request.urlopen(input["url"]).read().decode()
"""


@pytest.fixture
def counted() -> Any:
    """A server whose answers differ, and how often it was asked."""
    asked: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked[self.path] += 1
            body = str(asked[self.path]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_allowed_to_happen_happens_once(tmp_path: Path, counted: tuple[int, Counter[str]]) -> None:
    port, asked = counted
    bundle = recorded(tmp_path, CALLS, {"url": f"http://127.0.0.1:{port}/pay"})
    assert asked["/pay"] == 1
    done = again(bundle, "--allow-network", f"127.0.0.1:{port}", "--json")
    assert asked["/pay"] == 2
    assert done.verdicts == {"ask": "diverged:output"}
