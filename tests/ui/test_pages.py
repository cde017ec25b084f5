"""The pages as HTML, without a browser: they answer, say what is the matter, and show everything as text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from debugger_ui.words import EXAMPLE
from tests.ui.shop import HOSTILE
from tests.ui.support import Told, get, post, serving

PANES = ["summary", "input", "output", "error", "effects", "logs", "code", "event"]


class Tags(HTMLParser):
    """Every tag and attribute of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def every_page(told: Told) -> list[str]:
    runs = told.runs.values()
    steps = {"harm": "harm", "values": "harm", "failed": "charge", "done": "charge", "fan": "send_7", "fork": "charge"}
    paths = ["/", "/?span=1h", "/?span=7d", "/runs", "/runs?status=failed", "/runs?unrepaired=yes", "/workflows"]
    paths += [
        "/runs?input=alert",
        "/runs?error=script",
        "/runs?group=a%7C%3Cimg%3E&version=%3Cb%3E",
        "/runs?key=%3Cimg%3E",
    ]
    paths += [f"/workflows/{name}" for name in ("harm", "fulfil-order?step=charge", "newsletter?version=%3Cimg%3E")]
    paths += ["/runs?status=done,failed&workflow=x", "/login"]
    paths += [f"/runs/{run}{query}" for run in runs for query in ("", "?at=0", "?at=1", "?view=graph", "?pane=event")]
    for name, step in steps.items():
        run = told.runs[name]
        paths += [f"/runs/{run}?step={step}&pane={pane}" for pane in PANES]
        paths += [f"/runs/{run}?pane={pane}" for pane in PANES]
        paths += [f"/runs/{run}/pane?at=3&step={step}", f"/runs/{run}?mark=1&pane=diff", f"/runs/{run}/head"]
        paths += [f"/runs/{run}/value?seq=1&part=input", f"/runs/{run}/graph"]
        paths += [
            f"/runs/{run}/origin?seq=1&part=input&dir={way}&path={path}"
            for way in ("back", "forward")
            for path in ("", "/text/0")
            if name in ("harm", "values") or not path
        ]
        paths += [f"/runs/{run}?q={text}" for text in ("a", "%3C", "%22", "alert(1)")] + [
            f"/runs/{run}/search?q=alert(1)"
        ]
        paths += [f"/runs/{run}/fork?from={step}", f"/runs/{run}/lineage", f"/compare?a={told.runs['done']}&b={run}"]
    paths += [f"/compare?a={told.runs['values']}&b={told.runs['harm']}", "/compare"]
    return paths


def test_every_page_answers_and_nothing_of_a_run_becomes_markup(site: str, told: Told) -> None:
    harmless = {"hx-get", "hx-target", "hx-swap", "hx-trigger", "hx-ext", "hx-sync"}
    for path in every_page(told):
        answer = get(site + path)
        assert answer.status_code in (200, 303), path
        page = Tags(answer.text)
        for tag, attributes in page.tags:
            assert tag not in ("img", "iframe", "object", "embed", "base"), path
            assert tag != "script" or (attributes.get("src") or "").startswith("/static/"), path
            for name, value in attributes.items():
                assert not name.startswith("on"), (path, name)
                assert name != "style", path
                assert not name.startswith("hx-") or name in harmless, (path, name)
                if name in ("href", "src", "action", "hx-get"):
                    assert re.match(r"[/?#]", value or "")
                    assert not (value or "").startswith("//"), (path, value)


@pytest.mark.parametrize("query", ["?step=harm&pane=logs", "?pane=input", "?step=harm&pane=error", ""])
def test_hostile_texts_are_shown_as_they_are(site: str, told: Told, query: str) -> None:
    text = Tags(get(f"{site}/runs/{told.runs['harm']}{query}").text).text
    assert HOSTILE[1] in text
    assert "49$" not in text


def test_the_page_says_what_happened(site: str, told: Told) -> None:
    page = Tags(get(f"{site}/runs/{told.runs['failed']}").text)
    text = " ".join(page.text.split())
    assert "charge failed, the last time at attempt 3. 1 step never ran. ConnectionError: card declined" in text
    assert "raise ConnectionError" in text
    assert ("title", {}) in page.tags
    done = " ".join(Tags(get(f"{site}/runs/{told.runs['done']}").text).text.split())
    assert re.search(r"3 steps ran in \S+, after 1 failed attempt", done)
    waiting = " ".join(Tags(get(f"{site}/runs/{told.runs['waiting']}").text).text.split())
    assert "It waits for a worker: no live one serves queue 'nobody'" in waiting


def test_every_pane_is_as_of_the_playhead(site: str, told: Told) -> None:
    run = told.runs["failed"]
    events = get(f"{site}/api/v1/runs/{run}/events").json()["events"]
    seqs = {(e["kind"], e.get("attempt")): e["seq"] for e in events if e.get("step") == "charge"}
    first = seqs["step_started", 1]

    def pane(at: int, name: str, **more: Any) -> str:
        answer = get(f"{site}/runs/{run}/pane", params={"at": at, "step": "charge", "pane": name, **more})
        return " ".join(Tags(answer.text).text.split())

    assert f"It starts at #{first}" in pane(first - 1, "summary")
    assert f"It fails at #{seqs['step_failed', 1]}" in pane(first, "error")
    assert "ConnectionError" in pane(seqs["step_failed", 1], "error")
    assert "attempt 2" in pane(first, "summary"), "later attempts are shown, as something to come"
    assert "charging" not in pane(first, "logs")
    assert "charging" in pane(seqs["log_emitted", 1], "logs")
    assert "never produced an output" in pane(first, "output")
    reserve = next(e["seq"] for e in events if e["kind"] == "step_done")
    assert f"not produced it yet at #{reserve - 1}" in pane(reserve - 1, "input")
    assert "warehouse" in pane(reserve, "input")


def test_the_json_state_is_the_state_of_that_moment(site: str, told: Told) -> None:
    run = told.runs["failed"]
    last = get(f"{site}/api/v1/runs/{run}").json()["seq"]
    for at in range(last + 1):
        found = get(f"{site}/runs/{run}/state.json?at={at}").json()
        told_state = told.client.state(run, at=at)
        assert found["seq"] == at
        assert {n: s["status"] for n, s in found["steps"].items()} == {
            n: s.status.value for n, s in told_state.steps.items()
        }
    assert get(f"{site}/runs/{run}/state.json?at={last + 1}").status_code == 400


def test_a_part_of_an_id_leads_to_the_run(site: str, told: Told) -> None:
    run = told.runs["done"]
    answer = get(f"{site}/runs/{run[-12:]}?at=3")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run}?at=3")
    assert get(f"{site}/runs", params={"q": run[-12:]}).headers["location"] == f"/runs/{run}"


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/runs/01890a5d-ac96-774b-bcce-b302099a8057", 404, "No such run"),
        ("/runs/xyz", 404, "not the id of a run"),
        ("/nowhere", 404, "no page at this address"),
        ("/runs?status=lost", 400, "not a status"),
        ("/runs?label=x", 400, "NAME=VALUE"),
        ("/runs?since=yesterdayish", 400, "is not a time"),
        ("/runs?before=1", 400, "is not the id of a run"),
        ("/runs?after=1", 400, "is not the id of a run"),
        ("/runs?status=done&unrepaired=yes", 400, "no run that is done has an error or needs a repair"),
        ("/runs?workflow=%00", 400, "NUL character"),
        ("/runs?input=" + 500 * "x", 400, "1 to 400 characters"),
        ("/runs?until=99999999d", 400, "is not a time"),
        ("/runs/news?ids=x", 400, "is not ID:SEQ"),
        ("/runs/news?top=x", 400, "is not the id of a run"),
        ("/workflows/ghost", 404, "no workflow 'ghost' has been registered here"),
        ("/api/v1/workflows/fulfil-ordre", 404, "Did you mean 'fulfil-order'?"),
        ("/api/v1/dashboard?span=1y", 400, "must be one of 1h, 24h, 7d"),
        ("/runs/{done}/value?seq=1&part=__class__", 400, "has no __class__"),
        ("/runs/{done}/value?seq=1&part=input&path=/nothing", 400, "there is nothing at"),
        ("/runs/{done}/value?seq=999&part=input", 400, "no event 999"),
        ("/runs/{done}/value?seq=x&part=input", 400, "seq is not"),
        ("/runs/{done}/state.json?at=x", 400, "is not a number"),
        ("/runs/{done}/live?after=x", 400, "is not the number"),
        ("/api/v1/runs?limit=0", 400, "from 1 to 1,000"),
        ("/api/v1/runs/{done}/state?at=99999", 400, "the last event is"),
    ],
)
def test_what_cannot_be_shown_is_said(site: str, told: Told, path: str, status: int, says: str) -> None:
    answer = get(site + path.format(**told.runs))
    assert answer.status_code == status
    assert says in re.sub(r"\s+", " ", Tags(answer.text).text + answer.text)


def test_an_address_that_means_too_much_is_shown_with_a_notice(site: str, told: Told) -> None:
    text = get(f"{site}/runs/{told.runs['done']}?at=99999&step=ghost").text
    assert "There is no event 99,999" in text
    assert "no step &#39;ghost&#39;" in text


def test_long_values_are_shown_in_slices(site: str, told: Told) -> None:
    run = told.runs["done"]
    seq = next(e["seq"] for e in get(f"{site}/api/v1/runs/{run}/events").json()["events"] if e["kind"] == "step_done")
    pane = Tags(get(f"{site}/runs/{run}/pane?at=99&step=reserve&pane=output").text).text
    assert "[300]" in pane
    assert "s299" not in pane
    part = {"seq": seq, "part": "output", "path": "/lines"}
    fragment = {"HX-Request": "true"}
    first = get(f"{site}/runs/{run}/value", params=part, headers=fragment).text
    assert "s199" in first
    assert "s200" not in first
    assert "100 more" in first
    second = get(f"{site}/runs/{run}/value", params={**part, "offset": 200}, headers=fragment).text
    assert "s299" in second
    note = get(f"{site}/runs/{run}/value", params={**part, "path": "/note"}, headers=fragment).text
    assert "x" * 3000 in note
    whole = get(f"{site}/runs/{run}/download", params={"seq": seq, "part": "output"})
    assert len(json.loads(whole.content)["lines"]) == 300
    assert whole.headers["content-disposition"].startswith("attachment")
    assert whole.headers["content-type"] == "application/octet-stream"


def test_runs_are_listed_filtered_and_paged(site: str, told: Told) -> None:
    def ids(query: str) -> list[str]:
        return re.findall(r'id="r-([0-9a-f-]{36})"', get(f"{site}/runs{query}").text)

    assert set(told.runs.values()) <= set(ids(""))
    assert told.runs["failed"] in ids("?status=failed")
    assert told.runs["done"] not in ids("?status=failed")
    assert ids("?key=order-1") == [told.runs["done"]]
    assert ids("?label=customer%3D42") == [told.runs["done"]]
    assert told.runs["done"] in ids("?since=1h")
    assert ids("?until=1h") == []
    assert "No run matches" in get(f"{site}/runs?workflow=ghost").text
    everything = get(f"{site}/api/v1/runs?limit=1000").json()["runs"]
    seen, before = [], ""
    while True:
        answer = get(f"{site}/api/v1/runs?limit=2{before}").json()
        seen += [run["id"] for run in answer["runs"]]
        if answer["next"] is None:
            break
        before = f"&before={answer['next']}"
    assert seen == [run["id"] for run in everything]


def test_the_dashboard_counts_and_groups(site: str, told: Told) -> None:
    text = " ".join(Tags(get(f"{site}/").text).text.split())
    assert "fulfil-order · charge" in text
    assert "ConnectionError: card declined" in text
    assert "no worker serves version" in text
    assert re.search(r"at most \d+ runs in an hour", text)
    links = {a.get("href") for tag, a in Tags(get(f"{site}/").text).tags if tag == "a"}
    assert f"/runs/{told.runs['failed']}" in links
    assert f"/runs/{told.runs['done']}" in links, "the last good run before the failure"


def test_an_empty_database_says_what_to_do(database: Any) -> None:
    with serving(database.dsn) as server:
        for path in ("/", "/runs", "/workflows"):
            text = Tags(get(server.url + path).text).text
            assert "No runs yet." in text
            assert EXAMPLE in text
        assert get(f"{server.url}/runs/last").status_code == 404


def test_a_database_that_is_away_is_said_and_asked_again() -> None:
    with serving("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1") as server:
        assert get(f"{server.url}/healthz").status_code == 200
        assert get(f"{server.url}/readyz").status_code == 503
        answer = get(f"{server.url}/runs")
        assert answer.status_code == 503
        assert "The database cannot be reached" in answer.text
        assert 'http-equiv="refresh"' in answer.text


def test_a_run_is_cancelled_from_its_page_once(site: str, told: Told) -> None:
    run = told.client.start(told.app.get("unserved"), {"to": "y"})
    page = get(f"{site}/runs/{run.id}").text
    assert f'action="/runs/{run.id}/cancel"' in page
    for _ in range(2):
        answer = post(f"{site}/runs/{run.id}/cancel", data={"reason": "not \n needed"})
        assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run.id}")
    assert run.refresh().status == "CANCELLED"
    asked = [e.event for e in told.client.events(run.id) if e.event.kind == "run_cancel_requested"]
    assert [event.reason for event in asked] == ["not needed"]
    assert "/cancel" not in get(f"{site}/runs/{run.id}").text


def test_a_debugger_that_only_looks_offers_nothing_else(told: Told) -> None:
    with serving(told.dsn, may_act=False) as server:
        run = told.runs["waiting"]
        assert "/cancel" not in get(f"{server.url}/runs/{run}").text
        assert post(f"{server.url}/runs/{run}/cancel").status_code == 403
        assert told.client.get_run(run).status == "SCHEDULED"


def test_the_api_is_described(site: str, told: Told) -> None:
    described = get(f"{site}/api/v1/openapi.json").json()
    run = told.runs["done"]
    value = "?seq=1&part=input"
    queries = {name: value for name in described["paths"] if name.endswith(("value", "origin"))}
    queries["/api/v1/compare"] = f"?a={run}&b={run}"
    for path in (path for path, verbs in described["paths"].items() if "get" in verbs):
        if "{trace}" in path or "{step}" in path:
            continue  # of a file: tests/ui/test_files.py
        address = path.replace("{run}", run).replace("{name}", "fulfil-order")
        assert get(site + address + queries.get(path, "")).status_code == 200, path
    problem = get(f"{site}/api/v1/runs/ghost")
    assert problem.headers["content-type"] == "application/problem+json"
    assert set(problem.json()) == {"status", "title", "detail", "hint"}


def test_the_index_is_not_sent_twice(site: str, told: Told) -> None:
    url = f"{site}/runs/{told.runs['done']}/index.json"
    first = get(url)
    again = get(url, headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


def test_a_fork_shows_where_it_comes_from_and_what_it_took_over(site: str, told: Told) -> None:
    run, parent = told.runs["fork"], told.runs["failed"]

    def text(query: str) -> str:
        return " ".join(Tags(get(f"{site}/runs/{run}{query}").text).text.split())

    page = text("")
    assert f"fork of {parent[-8:]} at #" in page
    assert "3 steps" not in page
    assert "2 steps ran in" in page
    assert "1 step taken over from the run it was forked from" in page
    assert "card <b>renewed</b>" in page
    assert "input.declined = false" in page
    assert f"It ran in run {parent[-8:]}" in text("?step=reserve")
    assert "warehouse" in text("?step=reserve&pane=output")
    assert "warehouse" in text("?step=charge&pane=input")
    assert "run forked" in text("?at=2")
    assert "1 step of" in text("?at=3")


def test_recorded_effects_are_shown_with_what_was_asked_and_answered(site: str, told: Told) -> None:
    page = Tags(get(f"{site}/runs/{told.runs['done']}?step=charge&pane=effects").text)
    text = " ".join(page.text.split())
    assert "rate call" in text
    assert "1.08" in text
    assert "recorded by attempt 1" in text, "the attempt that failed had asked already"
    opened = [
        a["href"]
        for tag, a in page.tags
        if tag == "a" and "/origin?" in (a.get("href") or "") and "part=result" in (a.get("href") or "")
    ]
    answered = get(site + str(opened[0])).text
    assert "1.08" in answered
    assert "rate answered it: asked by charge through ctx.call" in answered
