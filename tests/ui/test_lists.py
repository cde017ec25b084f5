"""The list of runs, the counts and the workflows, without a browser: filters, pages, searches, and what they say."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

import kairos
from debugger_ui.board import Board, Wish
from debugger_ui.reads import Reads
from debugger_ui.words import EXAMPLE
from kairos.errors import DatabaseUnavailable
from tests.cli.cli_support import eventually, working
from tests.ui.support import Told, get, serving
from tests.ui.test_pages import Tags

Runs = list[str]


def listed(site: str, query: str) -> Runs:
    """Ids on the page."""
    return re.findall(r'id="r-([0-9a-f-]{36})"', get(f"{site}/runs{query}").text)


def by_api(site: str, query: str) -> dict[str, Any]:
    answer = get(f"{site}/api/v1/runs{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture(scope="module")
def many(told: Told) -> Iterator[Runs]:
    """Fifty-five runs more than a page holds, newest first."""
    runs = told.client.start_many(told.app.get("unserved"), [{"to": f"n{i}"} for i in range(120)])
    ids = sorted((run.id for run in runs), reverse=True)
    yield ids
    for run in ids:
        told.client.cancel(run, "no longer needed")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?queue=nobody", {"waiting"}),
        ("?step=charge", {"failed"}),
        ("?error=CARD", {"failed"}),
        ("?error=bounced&status=failed", {"fan"}),
        ("?error=%25", set()),
        ("?group=fulfil-order%7Ccharge%7Cbuiltins.ConnectionError", {"failed"}),
        ("?unrepaired=yes", {"fan", "harm"}),
        ("?unrepaired=yes&status=expired", set()),
        ("?unrepaired=no&key=order-1", {"done"}),
        ("?input=amount%3D5", {"done"}),
        ("?input=input.amount%3D7", {"failed", "fork"}),
        ("?input=AMOUNT&status=done", {"done", "fork"}),
        ("?input=declined%3Dfalse", {"fork"}),
        ("?input=nowhere", set()),
        ("?version=ghost", set()),
    ],
)
def test_a_filter_finds_what_it_says(site: str, told: Told, query: str, names: set[str]) -> None:
    ids = {told.runs[name] for name in names}
    assert set(listed(site, query)) == ids
    assert {run["id"] for run in by_api(site, query)["runs"]} == ids


def test_a_repair_of_a_repair_counts(site: str, told: Told) -> None:
    def unrepaired() -> set[str]:
        return set(listed(site, "?unrepaired=yes&workflow=newsletter"))

    first = told.client.start(told.app.get("newsletter"), {"fail": 3}).wait(60)
    second = told.client.fork(first.id, from_step="send_3", reason="again").wait(60)
    assert {first.id, second.id} <= unrepaired(), "a fork that failed repairs nothing"
    third = told.client.fork(second.id, from_step="plan", set={"input.fail": 99}, reason="at last").wait(60)
    assert third.status == "DONE"
    assert not {first.id, second.id} & unrepaired()


def test_pages_lead_back_and_forth_without_gap_or_repetition(site: str, told: Told, many: Runs) -> None:
    query = "workflow=unserved&limit=50"
    first = by_api(site, f"?{query}")
    whole = [run["id"] for run in by_api(site, "?workflow=unserved&limit=1000")["runs"]]
    assert set(many) <= set(whole)
    assert first["previous"] is None
    second = by_api(site, f"?{query}&before={first['next']}")
    third = by_api(site, f"?{query}&before={second['next']}")
    assert third["next"] is None
    assert [run["id"] for page in (first, second, third) for run in page["runs"]] == whole
    back = by_api(site, f"?{query}&after={third['previous']}")
    assert [run["id"] for run in back["runs"]] == [run["id"] for run in second["runs"]]
    assert (back["next"], back["previous"]) == (second["next"], second["previous"])
    top = by_api(site, f"?{query}&after={back['previous']}")
    assert [run["id"] for run in top["runs"]] == [run["id"] for run in first["runs"]]


def test_the_links_of_a_page_lead_to_the_next_and_back(site: str, many: Runs) -> None:
    def link(text: str, rel: str) -> str:
        found = re.search(rf'rel="{rel}" href="([^"]+)"', text)
        assert found, rel
        return found[1].replace("&amp;", "&")

    first = get(f"{site}/runs?workflow=unserved").text
    assert 'rel="prev"' not in first
    second = get(site + link(first, "next")).text
    assert "workflow=unserved" in link(second, "next")
    again = get(site + link(second, "prev")).text
    rows = re.compile(r'id="r-([0-9a-f-]{36})"')
    assert rows.findall(again) == rows.findall(first)


@pytest.mark.parametrize(
    ("text", "leads_to"),
    [
        ("order-1", "/runs?key=order-1"),
        ("amount=5", "/runs?input=amount%3D5"),
        ("declined", "/runs?input=declined"),
        ("<img src=x onerror=alert(1)>", "/runs?input=%3Cimg+src%3Dx+onerror%3Dalert%281%29%3E"),
    ],
)
def test_a_search_leads_to_a_list_that_can_be_shared(site: str, told: Told, text: str, leads_to: str) -> None:
    answer = get(f"{site}/runs", params={"q": text})
    assert (answer.status_code, answer.headers["location"]) == (303, leads_to)
    assert by_api(site, leads_to.removeprefix("/runs"))["runs"] == get(
        f"{site}/api/v1/runs", params={"q": text}
    ).json()["runs"]  # fmt: skip


def test_a_part_of_many_ids_lists_them(site: str, told: Told) -> None:
    start = told.runs["done"][:4]
    page = get(f"{site}/runs?q={start}")
    assert page.status_code == 200
    assert "whose id begins or ends with" in page.text
    assert all(run.startswith(start) for run in re.findall(r'id="r-([0-9a-f-]{36})"', page.text))
    assert [run["id"] for run in by_api(site, f"?q={told.runs['done']}")["runs"]] == [told.runs["done"]]


def test_a_search_says_how_far_it_looked(site: str, told: Told) -> None:
    text = " ".join(Tags(get(f"{site}/runs?input=amount%3D5&workflow=fulfil-order").text).text.split())
    assert re.search(r"1 run whose input has amount = 5, among the newest \d+ runs that fit the other filters", text)
    assert "there are no older ones" in text


def test_the_command_that_is_shown_lists_the_same(site: str, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAIROS_DATABASE_URL", told.dsn)
    for query in ("?status=failed&workflow=newsletter", "?unrepaired=yes", "?input=amount%3D5&since=1h", "?error=card"):
        page = get(f"{site}/runs{query}").text
        commands = [a["data-copy"] for tag, a in Tags(page).tags if tag == "code" and a.get("data-copy")]
        done = subprocess.run(
            [sys.executable, "-m", "kairos.cli", *shlex.split(str(commands[0]))[1:], "--json"],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert [run["id"] for run in json.loads(done.stdout)["runs"]] == listed(site, query), commands


def test_a_repair_of_all_is_offered_where_it_means_the_same(site: str, told: Told) -> None:
    def offered(query: str) -> list[str | None]:
        tags = Tags(get(f"{site}/runs{query}").text).tags
        return [a.get("data-copy") for tag, a in tags if tag == "code" and "kairos fork" in (a.get("data-copy") or "")]

    assert offered("?status=failed&workflow=newsletter") == [
        "kairos fork --from failed --where 'status=failed workflow=newsletter' --dry-run"
    ]
    assert offered("?status=done") == offered("?input=amount&unrepaired=yes") == offered("") == []


def test_news_tell_what_moved_and_how_many_are_new(site: str, told: Told) -> None:
    before = by_api(site, "?workflow=fulfil-order")["runs"]
    shown = ",".join(f"{run['id']}:{run['seq']}" for run in before)
    top = before[0]["id"]

    def news(**params: str) -> str:
        return get(f"{site}/runs/news", params={"workflow": "fulfil-order", "top": top, **params}).text

    assert 'data-newer="0"' in news(ids=shown)
    assert "<tr" not in news(ids=shown)
    run = told.client.start(told.app.get("fulfil-order"), {"amount": 1}).wait(60)
    assert 'data-newer="1"' in news(ids=shown)
    moved = news(ids=f"{shown},{run.id}:1")
    assert re.findall(r'id="r-([0-9a-f-]{36})"', moved) == [run.id]
    gone = "01890a5d-ac96-774b-bcce-b302099a8057"
    assert f'data-gone="{gone}"' in news(ids=f"{gone}:3")


def test_a_dashboard_says_the_same_to_programs(site: str, told: Told) -> None:
    board = get(f"{site}/api/v1/dashboard?span=1h").json()
    runs = by_api(site, "?since=1h&limit=1000")["runs"]
    assert {n: c for n, c in board["counts"].items() if c} == Counter(run["status"] for run in runs)
    assert sum(sum(v for k, v in bar.items() if k.isupper()) for bar in board["activity"]) == len(runs)
    failures = {group["group"]: group for group in board["failures"]}
    group = failures["fulfil-order|charge|builtins.ConnectionError"]
    assert (group["latest"], group["last_good"]) == (told.runs["failed"], told.runs["done"])
    assert any(worker["live"] and worker["concurrency"] for worker in board["workers"])
    waiting = [queue for queue in board["queues"] if queue["queue"] == "nobody"]
    assert waiting[0]["waiting"] >= 1
    assert not waiting[0]["served"]


def test_step_times_are_those_of_the_log(site: str, told: Told) -> None:
    facts = get(f"{site}/api/v1/workflows/harm").json()
    taken = []
    for run in by_api(site, "?workflow=harm&limit=1000")["runs"]:
        events = get(f"{site}/api/v1/runs/{run['id']}/events").json()["events"]
        began = {(e["step"], e["attempt"]): e["at"] for e in events if e["kind"] == "step_started"}
        ended = {(e["step"], e["attempt"]): e["at"] for e in events if e["kind"] == "step_done"}
        taken += [
            (datetime.fromisoformat(at) - datetime.fromisoformat(began[key])).total_seconds()
            for key, at in ended.items()
        ]
    assert [step["step"] for step in facts["steps"]] == ["harm"]
    recent = facts["steps"][0]["recent"]
    assert recent["count"] == len(taken)
    assert recent["p50"] == pytest.approx(statistics.median(taken), abs=1e-5)


def test_states_are_counted_by_the_fold(site: str, told: Told) -> None:
    facts = get(f"{site}/api/v1/workflows/newsletter").json()
    counts: Counter[str] = Counter()
    runs = by_api(site, "?workflow=newsletter&limit=1000")["runs"]
    for run in runs:
        counts.update(step.status.value for step in told.client.state(run["id"]).steps.values())
    assert facts["step_states"] == {"runs": len(runs), "counts": dict(counts)}
    version = facts["versions"][0]
    assert version["counts"] == Counter(run["status"] for run in runs)


def test_two_versions_are_compared_on_their_page(site: str, told: Told) -> None:
    app = kairos.App("shop")
    order = app.workflow("fulfil-order", input=dict)

    @order.step
    async def reserve(input: dict) -> dict:
        return {"warehouse": "B"}

    @order.step
    async def wrap(reserve: dict) -> str:
        return "<b>paper</b>"

    with working(app, told.dsn):
        pass
    old, new = (told.app.get("fulfil-order").fingerprint, order.fingerprint)
    answer = get(f"{site}/workflows/fulfil-order?version={new[:12]}&against={old[:12]}")
    text = " ".join(Tags(answer.text).text.split())
    assert f"From {old[:8]} to {new[:8]}" in text
    for words in ("1 added", "2 removed", "1 changed", "0 same"):
        assert words in text
    assert "<b>paper</b>" in text
    kinds = {
        a["href"]: a["class"] for tag, a in Tags(answer.text).tags if tag == "a" and "node" in (a.get("class") or "")
    }
    assert sum("v-removed" in str(kind) for kind in kinds.values()) == 2
    facts = get(f"{site}/api/v1/workflows/fulfil-order?version={new}&against={old}").json()
    assert {c["step"]: c["kind"] for c in facts["changes"]} == {
        "reserve": "changed", "wrap": "added", "charge": "removed", "ship": "removed",
    }  # fmt: skip
    newest = get(f"{site}/workflows/fulfil-order?version=zzz&step=wrap").text
    assert "No version begins with" in newest
    assert "paper" in newest, "the version that was registered last is shown"


def test_the_example_for_an_empty_database_works_as_it_stands(database: Any, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    pasted = subprocess.Popen(
        ["bash", "-ec", EXAMPLE.replace("kairos worker", "exec kairos worker")],
        cwd=tmp_path, env={**os.environ, "PATH": path, "KAIROS_DATABASE_URL": database.dsn},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        with kairos.Client(database.dsn) as client:
            eventually(lambda: [run for run in client.list() if run.status == "DONE"], timeout=60)
            assert client.list()[0].output == "Hello, Ada!"
    finally:
        os.killpg(pasted.pid, signal.SIGTERM)
        pasted.wait(30)


def test_counts_are_shared_and_made_once(told: Told) -> None:
    async def work() -> None:
        reads = Reads(told.dsn)
        reads.open()
        board, made = Board(reads), []

        async def count(reader: Any) -> int:
            made.append(1)
            await asyncio.sleep(0.05)
            return len(made)

        wish = {"a": Wish("count", count, 60)}
        found = await asyncio.gather(*(board.look(wish) for _ in range(20)))
        assert [parts["a"].value for parts in found if parts["a"]] == [1] * 20
        assert len(made) == 1
        await board.close()
        await reads.close()

    asyncio.run(work())


def test_a_count_that_takes_too_long_is_ended_and_keeps_nobody_waiting(told: Told) -> None:
    async def work() -> None:
        reads = Reads(told.dsn)
        reads.open()
        board = Board(reads)

        async def sleep(reader: Any) -> None:
            await reader.session.run(lambda conn: conn.execute("select pg_sleep(60)"))

        wish = {"slow": Wish("slow", sleep, 1)}
        began = asyncio.get_running_loop().time()
        assert await board.look(wish, patience=0.1) == {"slow": None}
        assert asyncio.get_running_loop().time() - began < 2
        part = (await board.look(wish, patience=20))["slow"]
        assert part is not None
        assert part.problem == "Counting took longer than 3 seconds."
        assert (await board.look(wish, patience=0))["slow"] is part, "it is not tried again at once"
        await board.close()
        await reads.close()

    asyncio.run(work())


def test_a_database_that_is_away_is_said_by_every_page() -> None:
    with serving("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1") as server:
        for path in ("/", "/workflows", "/workflows/x", "/api/v1/dashboard", "/runs?status=failed", "/runs/news"):
            answer = get(server.url + path)
            assert answer.status_code == 503, path
            assert "cannot be reached" in answer.text, path

    async def work() -> None:
        reads = Reads("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
        reads.open()
        with pytest.raises(DatabaseUnavailable):
            async with reads.aside() as reader:
                await reader.list_runs()
        await reads.close()

    asyncio.run(work())


def test_what_only_looks_cannot_write_aside_either(told: Told) -> None:
    async def work() -> None:
        reads = Reads(told.dsn)
        reads.open()
        async with reads.aside() as reader:
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                await reader.session.once(lambda conn: conn.execute("delete from kairos.task"))
        await reads.close()

    asyncio.run(work())
