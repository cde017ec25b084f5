"""`kairos show`, `events` and `state`: one run, looked at from three sides."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kairos.authoring.loading import load_app
from kairos.cli import exits
from tests.cli.cli_support import Kairos, working
from tests.cli.conftest import HOSTILE, Told
from tests.conftest import TestDatabase


@pytest.fixture
def order(shop_told: Told) -> str:
    """The id of an order that was retried once and is done."""
    return shop_told.runs["order"]


@pytest.fixture
def failure(shop_told: Told) -> str:
    """The id of a failed job."""
    return shop_told.runs["failure"]


# -- show -----------------------------------------------------------------------------------------------------


def test_show_tells_the_whole_story(in_shop: Kairos, order: str) -> None:
    page = in_shop("show", order).out
    assert page.startswith(f"fulfil  {order}\n✓ DONE in ")
    assert 'input  {"cents": 100, "order_id": "7"}' in page
    assert re.search(r"^reserve  ✓ DONE +1 ", page, re.MULTILINE)
    assert re.search(r"^charge   ✓ DONE +2 +\S+ .*▒", page, re.MULTILINE)
    assert "█ ran  ▒ failed" in page
    assert '{"text": "7 from A: 100"}' in page
    assert f"kairos events {order[-8:]}" in page


EFFECTS = """
import kairos
app = kairos.App("effects")
tries = []

def rate(country: str) -> dict:
    return {"rate": 21}

def flaky(to: str) -> str:
    tries.append(to)
    if len(tries) == 2:
        raise ConnectionError("no answer")
    return "sent"

@app.job(retry=kairos.Retry(attempts=3, base="10ms", jitter=0))
def bill(ctx: kairos.StepContext) -> str:
    ctx.now()
    ctx.call("tax", rate, "IT")
    return ctx.call("send", flaky, "ann") + ctx.call("send", flaky, "bob")
"""


def test_effects_are_counted_listed_and_told_in_json(on_database: Kairos, place: Path, database: TestDatabase) -> None:
    (place / "billing.py").write_text(EFFECTS)
    app = load_app(f"{place / 'billing.py'}:app")
    with working(app, database.dsn):
        on_database("run", "bill", "--app", "billing.py:app", "--wait")
    page = on_database("show", "last").out
    assert "effects  bill: now, tax, send x2; 1 failed, the last send: ConnectionError: no answer" in page
    lines = [line for line in on_database("events", "last", "--step", "bill").lines if "effect_recorded" in line]
    assert len(lines) == 5
    assert re.search(r'call tax #1  \S+  \{"rate":21\}$', lines[1])
    assert re.search(r'bill +now #1  "20', lines[0])
    assert "call send #2" in lines[3]
    assert "ConnectionError: no answer" in lines[3]
    effects = on_database("show", "last", "--json").json["steps"]["bill"]["effects"]
    assert [(e["via"], e["name"], e["ordinal"], e["attempt"]) for e in effects] == [
        ("now", "now", 1, 1), ("call", "tax", 1, 1), ("call", "send", 1, 1), ("call", "send", 2, 2),
    ]  # fmt: skip
    assert effects[1]["arguments"] == {"args": ["IT"]}
    assert effects[1]["result"] == {"rate": 21}


def test_show_has_every_attempt_in_json(in_shop: Kairos, order: str) -> None:
    page = in_shop("show", order, "--json").json
    assert page["run"]["status"] == "DONE"
    assert page["input"] == {"order_id": "7", "cents": 100}
    assert page["output"] == {"text": "7 from A: 100"}
    first, second = page["steps"]["charge"]["history"]
    assert (first["outcome"], first["error"]["type"]) == ("failed", "builtins.ConnectionError")
    assert (second["outcome"], second["error"]) == ("done", None)
    assert first["ended"] < second["began"]


def test_show_explains_a_failure_with_frames_and_locals(in_shop: Kairos, failure: str) -> None:
    page = in_shop("show", failure).out
    assert "✗ fail failed 1 of 1 tries" in page
    assert "ValueError: no money" in page
    assert re.search(r"flows\.py:\d+ in fail\n +raise ValueError\(text\)", page)
    assert "detail = {'text': 'no money'}" in page


def test_show_of_a_waiting_run_points_to_why(on_database: Kairos) -> None:
    on_database("run", "mail", "--app", "flows.py:app", "-i", '{"to": "x"}', "--key", "k", "-l", "a=b")
    page = on_database("show", "last").out
    assert "○ SCHEDULED" in page
    assert "key k  a=b" in page
    assert "kairos why" in page


def test_a_narrow_page_keeps_its_columns(in_shop: Kairos, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = in_shop("show", order).lines
    head = next(line for line in lines if line.startswith("STEP"))
    assert head.split()[:4] == ["STEP", "STATUS", "TRIES", "TOOK"]
    assert all(len(line) <= 60 for line in lines if "kairos" not in line)
    monkeypatch.setenv("COLUMNS", "40")
    assert "STEP     STATUS       TRIES     TOOK" in in_shop("show", order).lines


def test_errors_stay_within_the_columns_of_a_narrow_terminal(
    on_database: Kairos, database: TestDatabase, flows: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = " ".join(["the payment service did not answer"] * 6)
    with working(flows.app, database.dsn):
        on_database("run", "fail", "--app", "flows.py:app", "-i", json.dumps({"text": words}), "--wait")
    whole = on_database("show", "last").out
    assert f"  ValueError: {words}\n" in whole, "a pipe gets whole lines, for grep"
    monkeypatch.setenv("COLUMNS", "60")
    for command in ("events", "show", "why", "runs"):
        lines = on_database(command, *(["last"] if command != "runs" else [])).lines
        assert [line for line in lines if len(line) > 60 and not re.search("kairos|/", line)] == []
    assert on_database("show", "last").out.count("the payment service did not") >= 5, "an error is wrapped, not cut"
    assert any(line.endswith("\u2026") for line in on_database("events", "last").lines), "an event is cut"


def test_a_wide_run_is_cut_to_what_matters(on_database: Kairos, place: Any) -> None:
    (place / "wide.py").write_text(
        "import kairos\napp = kairos.App('wide')\nwf = app.workflow('wide')\n"
        "def body() -> int: return 1\n"
        "for n in range(80): wf.step(name=f's{n:02}')(body)\n"
    )
    on_database("run", "wide", "--app", "wide.py:app")
    assert "and 20 more steps; --all shows them" in on_database("show", "last").out
    assert "more steps" not in on_database("show", "last", "--all").out


# -- events ---------------------------------------------------------------------------------------------------


def test_events_are_numbered_lines(in_shop: Kairos, order: str) -> None:
    lines = in_shop("events", order).lines
    assert [int(line.split()[0]) for line in lines] == list(range(1, len(lines) + 1))
    kinds = [line.split()[2] for line in lines]
    assert kinds[0] == "run_scheduled"
    assert kinds[-1] == "run_done"
    assert any("log_emitted" in line and "info: charged  cents=100" in line for line in lines)
    assert any("metric_emitted" in line and "cents = 100" in line for line in lines)
    assert any("step_failed" in line and "ConnectionError: no answer; next try in 10ms" in line for line in lines)
    assert any("step_started" in line and "#2" in line for line in lines)


def test_events_in_json_have_stable_keys(in_shop: Kairos, order: str) -> None:
    events = in_shop("events", order, "--json").json
    assert events[0]["kind"] == "run_scheduled"
    assert events[0]["input"] == {"order_id": "7", "cents": 100}
    assert all({"seq", "at", "kind"} <= event.keys() for event in events)
    failed = next(event for event in events if event["kind"] == "step_failed")
    assert failed["error"]["message"] == "no answer"
    assert failed["error"]["frames"][-1]["function"] == "charge"


def test_events_are_filtered(in_shop: Kairos, order: str) -> None:
    only = in_shop("events", order, "--step", "charge", "--kind", "step_started", "--json").json
    assert [event["attempt"] for event in only] == [1, 2]
    late = in_shop("events", order, "--after", str(only[1]["seq"]), "--json").json
    assert late[0]["seq"] == only[1]["seq"] + 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--kind", "step_fialed"), "there is no such kind of event\nhint: Did you mean 'step_failed'?"),
        (("--step", "charg"), "the run has no such step\nhint: Did you mean 'charge'?"),
    ],
)
def test_a_filter_that_cannot_match_is_an_error(
    in_shop: Kairos, order: str, arguments: tuple[str, ...], complaint: str
) -> None:
    done = in_shop("events", order, *arguments)
    assert done.code == exits.USAGE
    assert complaint in done.err


def test_following_an_ended_run_ends_at_once(in_shop: Kairos, order: str) -> None:
    assert "run_done" in in_shop("events", order, "--follow").lines[-1]
    documents = [json.loads(line) for line in in_shop("events", order, "--follow", "--json").lines]
    assert documents[-1]["kind"] == "run_done"


# -- state ----------------------------------------------------------------------------------------------------


def test_state_is_the_run_as_it_was(in_shop: Kairos, order: str) -> None:
    events = in_shop("events", order, "--json").json
    failed = next(event["seq"] for event in events if event["kind"] == "step_failed")
    before = in_shop("state", order, "--at", str(failed - 1), "--json").json
    after = in_shop("state", order, "--at", str(failed), "--json").json
    assert (before["steps"]["charge"]["status"], after["steps"]["charge"]["status"]) == ("RUNNING", "FAILED")
    page = in_shop("state", order, "--at", str(failed)).out
    assert f"after event {failed} of {len(events)}" in page
    assert re.search(r"charge +↻ FAILED +1 +next try in|next try now", page)
    assert re.search(r"confirm +· PENDING +waits for charge", page)
    assert f"back: kairos state {order[-8:]} --at {failed - 1}" in page
    assert f"on: kairos state {order[-8:]} --at {failed + 1}" in page


def test_every_moment_can_be_looked_at(in_shop: Kairos, order: str) -> None:
    last = in_shop("show", order, "--json").json["run"]["seq"]
    for seq in range(last + 1):
        assert in_shop("state", order, "--at", str(seq)).code == 0
        assert in_shop("state", order, "--at", str(seq), "--json").json["seq"] == seq


def test_a_moment_that_has_not_come_is_an_error(in_shop: Kairos, order: str) -> None:
    done = in_shop("state", order, "--at", "999")
    assert done.code == exits.USAGE
    assert "events so far" in done.err


# -- what users write must not harm the terminal ----------------------------------------------------------------


@pytest.mark.parametrize("told_database", ["hostile_told"], indirect=True)
@pytest.mark.parametrize("json_too", [False, True])
@pytest.mark.parametrize("command", ["runs", "show last", "events last", "state last", "why last", "watch last"])
def test_control_characters_are_shown_not_obeyed(in_shop: Kairos, command: str, json_too: bool) -> None:
    done = in_shop(*command.split(), *(["--json"] if json_too else []))
    text = done.out + done.err
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2028]", text)
    assert "[bold]x[/bold]" in text
    assert "née 名前 👍" in text
    assert "\\x1b[31m" in text or "\\u001b[31m" in text


@pytest.mark.parametrize("told_database", ["hostile_told"], indirect=True)
def test_hostile_text_survives_json_unchanged(in_shop: Kairos) -> None:
    runs = in_shop("runs", "--json").json["runs"]
    done = next(run for run in runs if run["workflow"] == "echo")
    assert done["key"] == HOSTILE
    assert in_shop("show", done["id"], "--json").json["output"] == {HOSTILE: HOSTILE}
