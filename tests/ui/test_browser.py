"""The run page in a real browser: keys, links, history, live runs, every width, both themes, no errors."""

from __future__ import annotations

import re
import threading
import time
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from tests.cli.cli_support import eventually
from tests.ui.shop import GATES, open_gate
from tests.ui.support import Told, get


def look(page: Any) -> dict[str, str]:
    """What the address says."""
    return {name: values[0] for name, values in parse_qs(urlparse(page.url).query).items()}


def here(page: Any) -> int:
    """The playhead, as shown."""
    return int(re.sub(r"\D", "", page.locator("#here").inner_text()))


def open_run(page: Any, site: str, run: str, query: str = "") -> None:
    page.goto(f"{site}/runs/{run}{query}")
    page.wait_for_selector("main[data-ready]")


def until(page: Any, expression: str, timeout: float = 15.0) -> None:
    """Wait until something is true in the page. From outside: its policy lets nobody evaluate a text inside."""
    deadline = time.monotonic() + timeout
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"not within {timeout}s: {expression}"
        page.wait_for_timeout(20)


def at_seq(page: Any, seq: int) -> None:
    """Wait until the playhead is shown there."""
    until(page, f"document.getElementById('here').textContent.replaceAll(',', '') === '#{seq}'")


def beyond(page: Any, seq: int) -> None:
    """Wait until the playhead is shown behind there."""
    until(page, f"Number(document.getElementById('here').textContent.slice(1).replaceAll(',', '')) > {seq}")


def settled(page: Any, at: int) -> None:
    """Wait until the inspector shows this moment."""
    page.wait_for_selector(f"#subject[data-at='{at}']")


@pytest.fixture
def failed(site: str, told: Told) -> dict[str, Any]:
    """The failed run: its events, and where things happen."""
    run = told.runs["failed"]
    events = get(f"{site}/api/v1/runs/{run}/events").json()["events"]
    return {"id": run, "events": events, "last": len(events)}


def seqs(failed: dict[str, Any], *kinds: str, step: str | None = None) -> list[int]:
    return [e["seq"] for e in failed["events"] if e["kind"] in kinds and (step is None or e.get("step") == step)]


def test_a_failed_run_opens_at_its_failure(page: Any, site: str, failed: dict[str, Any]) -> None:
    open_run(page, site, failed["id"])
    assert here(page) == seqs(failed, "step_dead")[0]
    assert page.locator(".subject h2").inner_text() == "charge"
    assert page.locator(".error .message").inner_text() == "card declined"
    assert page.locator(".row.here .kind").inner_text() == "step dead"


def test_every_key_that_moves_goes_where_it_says(page: Any, site: str, failed: dict[str, Any]) -> None:
    open_run(page, site, failed["id"], "?at=5&step=charge")
    last = failed["last"]
    bounds = seqs(failed, "step_started", "step_done", "step_failed", "step_dead")
    own = [e["seq"] for e in failed["events"] if e.get("step") == "charge"]
    bad = seqs(failed, "step_failed", "step_dead", "run_failed")
    for key, expected in (
        ("ArrowRight", 6),
        ("ArrowLeft", 5),
        ("End", last),
        ("ArrowRight", last),
        ("Home", 1),
        ("ArrowLeft", 0),
        ("Shift+ArrowRight", bounds[0]),
        ("Shift+ArrowRight", bounds[1]),
        ("Shift+ArrowLeft", bounds[0]),
        ("]", bad[0]),
        ("]", bad[1]),
        ("[", bad[0]),
        ("Alt+ArrowRight", own[own.index(bad[0]) + 1]),
        ("Alt+ArrowLeft", bad[0]),
    ):
        page.keyboard.press(key)
        at_seq(page, expected)
    settled(page, bad[0])
    assert page.locator(".subject h2").inner_text() == "charge", "keys move the playhead and leave the choice alone"


def test_every_key_that_looks_does_what_it_says(page: Any, site: str, failed: dict[str, Any]) -> None:
    open_run(page, site, failed["id"], f"?at={failed['last']}")
    keyboard = page.keyboard
    keyboard.press("j")
    page.wait_for_selector(".subject h2:text('reserve')")
    keyboard.press("j")
    page.wait_for_selector(".subject h2:text('charge')")
    keyboard.press("k")
    page.wait_for_selector(".subject h2:text('reserve')")
    keyboard.press("2")
    page.wait_for_selector(".tabs [aria-current]:text('Input')")
    assert look(page)["pane"] == "input"
    keyboard.press("Backspace")
    page.wait_for_selector(".subject h2:text('Run')")
    page.keyboard.press("[")
    keyboard.press("Enter")
    page.wait_for_selector(".subject h2:text('charge')")
    keyboard.press("g")
    page.wait_for_selector("svg.graph")
    assert page.locator("#lanes").is_hidden()
    keyboard.press("g")
    assert page.locator("#lanes").is_visible()
    for key in ("w", "w", "a", "d", "s", "0"):
        keyboard.press(key)
    keyboard.press("?")
    assert page.locator("#help").is_visible()
    shown = page.locator("#help kbd").all_inner_texts()
    assert len(shown) == page.evaluate(
        "async () => (await import(document.querySelector('script[src$=\"run.js\"]').src.replace('run.js', 'keys.js')))"
        ".KEYS.flatMap(([, rows]) => rows).length"
    )
    keyboard.press("ArrowLeft")
    keyboard.press("Escape")
    assert page.locator("#help").is_hidden()


def test_every_key_of_the_table_has_an_action(page: Any, site: str, failed: dict[str, Any]) -> None:
    open_run(page, site, failed["id"])
    missing = page.evaluate(
        """async () => {
            const at = document.querySelector('script[src$="run.js"]').src;
            const { KEYS } = await import(at.replace('run.js', 'keys.js'));
            const text = await (await fetch(at)).text();
            return KEYS.flatMap(([, rows]) => rows).map((row) => row[2])
                .filter((name) => !new RegExp(`^  ${name}(:|,)`, 'm').test(text));
        }"""
    )
    assert missing == []


def test_a_mark_and_the_playhead_are_compared(page: Any, site: str, failed: dict[str, Any]) -> None:
    open_run(page, site, failed["id"], "?at=2")
    page.keyboard.press("m")
    page.keyboard.press("End")
    page.keyboard.press("c")
    page.wait_for_selector("table.diff")
    rows = [" ".join(text.split()) for text in page.locator("table.diff tbody tr").all_inner_texts()]
    assert any(row.startswith("reserve") and "done" in row for row in rows)
    assert any(row.startswith("charge") and row.endswith("0 → 3") for row in rows)
    assert look(page)["mark"] == "2"


def test_playing_runs_through_the_events_and_stops_at_the_end(page: Any, site: str, failed: dict[str, Any]) -> None:
    open_run(page, site, failed["id"], "?at=1")
    for _ in range(3):
        page.keyboard.press(">")
    assert page.locator("[data-do=speed]").inner_text() == "max"
    page.keyboard.press(" ")
    at_seq(page, failed["last"])
    page.wait_for_selector("[data-do=play][aria-label=Play]")


def test_what_is_typed_moves_nothing(page: Any, site: str, failed: dict[str, Any]) -> None:
    open_run(page, site, failed["id"], "?at=5")
    page.keyboard.press("e")
    page.keyboard.type("jk?wm0 charge")
    assert here(page) == 5
    assert page.locator("[data-filter] input").input_value() == "jk?wm0 charge"
    assert page.locator("#events.nothing").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("#events.nothing").count() == 0


def test_scrubbing_obeys_the_filter(page: Any, site: str, failed: dict[str, Any]) -> None:
    open_run(page, site, failed["id"], "?at=1")
    page.locator("[data-filter] input").fill("step failed")
    page.locator("#events").focus()
    wanted = seqs(failed, "step_failed")
    for seq in wanted:
        page.keyboard.press("ArrowRight")
        at_seq(page, seq)
    assert page.locator("#events-count").inner_text() == f"{len(wanted)} of {failed['last']}"
    until(page, "new URLSearchParams(location.search).get('filter') === 'step failed'")


def test_a_link_to_a_moment_shows_the_same_again(page: Any, site: str, failed: dict[str, Any]) -> None:
    open_run(page, site, failed["id"], "?at=5")
    page.locator("#lanes .row", has_text="charge").click()
    page.wait_for_selector(".subject h2:text('charge')")
    page.keyboard.press("]")
    page.keyboard.press("]")
    settled(page, seqs(failed, "step_failed")[1])
    page.locator(".tabs a", has_text="Error").click()
    page.wait_for_selector(".pane.p-error .message")
    until(page, f"location.search.includes('at={seqs(failed, 'step_failed')[1]}')")

    def shown() -> list[str]:
        return [page.locator(part).inner_text() for part in ("#inspector", "#here", "#what", "#clock", "#events")]

    before = shown()
    page.reload()
    page.wait_for_selector("main[data-ready]")
    page.wait_for_timeout(100)
    assert shown() == before


def test_back_is_the_previous_thought(page: Any, site: str, failed: dict[str, Any]) -> None:
    open_run(page, site, failed["id"], "?at=5")
    page.locator("#lanes .row", has_text="reserve").click()
    page.wait_for_selector(".subject h2:text('reserve')")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    until(page, "location.search.includes('at=7')")
    page.locator("#lanes .row", has_text="charge").click()
    page.wait_for_selector(".subject h2:text('charge')")
    page.go_back()
    page.wait_for_selector(".subject h2:text('reserve')")
    assert here(page) == 7
    page.go_back()
    page.wait_for_selector(".subject h2:text('Run')")
    assert here(page) == 5


def test_everything_shows_the_moment_of_the_playhead(page: Any, site: str, failed: dict[str, Any]) -> None:
    open_run(page, site, failed["id"], "?at=1&view=graph")
    page.wait_for_selector("svg.graph")
    started, done = seqs(failed, "step_started", step="reserve")[0], seqs(failed, "step_done", step="reserve")[0]
    for at, status in ((1, "scheduled"), (started, "running"), (done, "done"), (started, "running")):
        page.evaluate("document.querySelector('#events')")
        while here(page) != at:
            # One by one: a second press before the first is painted would go too far.
            now = here(page)
            page.keyboard.press("ArrowRight" if now < at else "ArrowLeft")
            at_seq(page, now + (1 if now < at else -1))
        page.wait_for_selector(f"a.node.s-{status}:has(title:text-is('reserve: {status}'))", state="attached")
        page.keyboard.press("g")
        page.wait_for_selector(f"#lanes .row.s-{status}:has-text('reserve')")
        page.keyboard.press("g")
    slider = page.locator("#minimap canvas")
    assert slider.get_attribute("aria-valuenow") == str(started)
    assert "reserve step started" in (slider.get_attribute("aria-valuetext") or "")


def test_dragging_on_the_map_moves_the_playhead(page: Any, site: str, failed: dict[str, Any]) -> None:
    open_run(page, site, failed["id"])
    box = page.locator("#minimap canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 3, box["y"] + 20, steps=6)
    page.mouse.up()
    until(page, "Number(document.getElementById('here').textContent.slice(1)) < 4")


def test_groups_open_in_the_timeline_and_in_the_graph(page: Any, site: str, told: Told) -> None:
    open_run(page, site, told.runs["fan"], "?at=1")
    group = page.locator("#lanes .row.group", has_text="send_*")
    assert group.count() == 1
    group.click()
    assert page.locator("#lanes .row.inside:visible").count() > 3
    page.keyboard.press("g")
    page.wait_for_selector("svg.graph a.node.group")
    page.locator("svg.graph a.node.group").click()
    until(page, "document.querySelectorAll('svg.graph a.node').length === 14")
    assert look(page)["open"] == "send_*"


def test_a_closed_value_opens_and_stays_open_over_a_move(page: Any, site: str, told: Told) -> None:
    last = get(f"{site}/api/v1/runs/{told.runs['done']}").json()["seq"]
    open_run(page, site, told.runs["done"], f"?at={last - 1}&step=reserve&pane=output")
    page.locator("summary", has_text="lines").click()
    page.wait_for_selector("text=s199")
    page.locator("a.more", has_text="100 more").click()
    page.wait_for_selector("text=s299")


def test_a_live_run_is_followed_and_a_pinned_page_stays(page: Any, site: str, told: Told) -> None:
    name = "browser"
    GATES[name] = threading.Event()
    run = told.client.start(told.app.get("gate"), {"gate": name, "talk": True})
    eventually(lambda: run.refresh().info.seq > 5)
    open_run(page, site, run.id)
    page.wait_for_selector("#stream.is-live")
    begin = here(page)
    beyond(page, begin + 5)
    page.keyboard.press("ArrowLeft")
    pinned = here(page)
    scroll = page.locator("#events").evaluate("(e) => e.scrollTop")
    page.wait_for_selector("[data-do=new]:visible")
    until(page, "parseInt(document.querySelector('[data-do=new]').textContent.slice(1)) > 5")
    assert here(page) == pinned
    assert abs(page.locator("#events").evaluate("(e) => e.scrollTop") - scroll) < 40
    page.locator("[data-do=new]").click()
    beyond(page, pinned + 3)
    open_gate(name)
    page.wait_for_selector("#status .chip:has-text('done')", timeout=15000)
    page.wait_for_selector("#stream.is-ended")
    assert here(page) == get(f"{site}/api/v1/runs/{run.id}").json()["seq"]


def test_seven_pages_of_runs_that_go_on_are_all_live(browser: Any, site: str, told: Told) -> None:
    name = "seven"
    GATES[name] = threading.Event()
    run = told.client.start(told.app.get("gate"), {"gate": name, "talk": True})
    eventually(lambda: run.refresh().info.seq > 5)
    context = browser.new_context()
    pages = [context.new_page() for _ in range(7)]
    for each in pages:
        open_run(each, site, run.id)
        each.wait_for_selector("#stream.is-live")
    for each in pages:
        beyond(each, here(each) + 3)
    open_gate(name)
    for each in pages:
        each.wait_for_selector("#status .chip:has-text('done')", timeout=15000)
    context.close()


def test_a_run_is_cancelled_with_the_mouse(page: Any, site: str, told: Told) -> None:
    run = told.client.start(told.app.get("unserved"), {"to": "z"})
    open_run(page, site, run.id)
    page.locator("summary", has_text="Cancel run").click()
    page.locator("[name=reason]").fill("clicked")
    page.locator("button", has_text="Cancel this run").click()
    page.wait_for_selector(".chip:has-text('cancelled')")
    assert run.refresh().status == "CANCELLED"


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1920])
def test_nothing_is_cut_off_at_any_width(page: Any, site: str, told: Told, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for path in ("/", "/runs", f"/runs/{told.runs['failed']}", f"/runs/{told.runs['harm']}?step=harm&pane=logs"):
        page.goto(site + path)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible(browser: Any, site: str, told: Told, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
    # The checker is a script that is put into the page; the page's own policy would keep it out.
    page = context.new_page()
    found = []
    for path in (
        "/",
        "/runs",
        f"/runs/{told.runs['failed']}",
        f"/runs/{told.runs['fan']}?view=graph&at=20",
        f"/runs/{told.runs['done']}?step=charge&pane=input",
        "/nowhere",
    ):
        page.goto(site + path)
        page.wait_for_load_state("networkidle")
        found += [
            (path, rule["id"], [node["html"][:160] for node in rule["nodes"]][:4])
            for rule in Axe().run(page).response["violations"]
        ]
    context.close()
    assert found == []


def test_pages_work_without_scripts(browser: Any, site: str, told: Told, failed: dict[str, Any]) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(f"{site}/runs/{failed['id']}")
    assert page.locator(".error .message").inner_text() == "card declined"
    page.locator("#events a.ev").nth(2).click()
    assert look(page)["at"] == "3"
    page.locator(".steps a", has_text="reserve").click()
    assert page.locator(".subject h2").inner_text() == "reserve"
    page.locator(".switch a", has_text="Graph").click()
    assert page.locator("svg.graph a.node").count() == 3
    page.locator("a[data-do=next]").click()
    assert look(page)["at"] == "4"
    context.close()


def test_hostile_runs_run_no_script(page: Any, site: str, told: Told) -> None:
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    for query in (
        "",
        "?step=harm&pane=logs",
        "?step=harm&pane=code",
        "?pane=input",
        "?view=graph",
        "?step=harm&pane=error",
    ):
        open_run(page, site, told.runs["harm"], query)
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(120)
    page.goto(f"{site}/runs")
    assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0
