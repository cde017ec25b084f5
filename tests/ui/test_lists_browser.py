"""The list of runs, the dashboard and the workflow pages in a real browser."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.cli.cli_support import eventually
from tests.ui.shop import GATES, open_gate
from tests.ui.support import Told
from tests.ui.test_browser import until

PATHS = (
    "/?span=1h",
    "/runs?status=failed,done&group=harm%7Charm%7Cbuiltins.ValueError",
    "/runs?input=amount&queue=default",
    "/runs?workflow=nothing",
    "/workflows",
    "/workflows/newsletter?open=send_*",
    "/workflows/fulfil-order?step=charge",
)


def test_new_runs_are_counted_and_rows_change_where_they_stand(page: Any, site: str, told: Told) -> None:
    GATES["list"] = threading.Event()
    running = told.client.start(told.app.get("gate"), {"gate": "list"})
    eventually(lambda: running.refresh().status == "RUNNING")
    page.goto(f"{site}/runs")
    top = page.locator("tbody tr").first
    assert top.get_attribute("id") == f"r-{running.id}"
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.getAttribute('href')") == f"/runs/{running.id}"
    told.client.start(told.app.get("harm"), {"text": ["x"]}).wait(60)
    told.client.start(told.app.get("harm"), {"text": ["y"]}).wait(60)
    page.wait_for_selector(".news:not([hidden]) a:text-is('2 new')")
    assert top.get_attribute("id") == f"r-{running.id}", "nothing is pushed away"
    assert "running" in top.inner_text()
    open_gate("list")
    page.wait_for_selector(f"#r-{running.id}.moved:has-text('done')")
    assert page.evaluate("document.activeElement.getAttribute('href')") == f"/runs/{running.id}", "it keeps the focus"
    page.keyboard.press("n")
    page.wait_for_selector(f"tbody tr:nth-child(3)#r-{running.id}")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_selector("main[data-ready]")
    page.go_back()
    page.wait_for_selector("table.runs")


def test_pages_are_turned_by_keys_and_typing_turns_none(page: Any, site: str, told: Told) -> None:
    runs = told.client.start_many(told.app.get("unserved"), [{"to": f"k{i}"} for i in range(60)])
    page.goto(f"{site}/runs?workflow=unserved")
    first = page.locator("tbody tr").first.get_attribute("id")
    page.keyboard.press("]")
    page.wait_for_url("**before=*")
    assert page.locator("tbody tr").first.get_attribute("id") != first
    page.keyboard.press("[")
    page.wait_for_url("**after=*")
    assert page.locator("tbody tr").first.get_attribute("id") == first
    page.keyboard.press("/")
    page.keyboard.type("]jkn")
    assert page.locator(".find input").input_value() == "]jkn"
    page.locator(".find input").fill("to=k7")
    page.keyboard.press("Enter")
    page.wait_for_selector(".searched")
    assert page.url.endswith("/runs?input=to%3Dk7")
    assert page.locator("tbody tr").count() == 1
    for run in runs:
        told.client.cancel(run.id, "no longer needed")


def test_an_empty_list_fills_by_itself(page: Any, site: str, told: Told) -> None:
    page.goto(f"{site}/runs?key=to-come")
    assert "No run matches" in page.locator("main").inner_text()
    told.client.start(told.app.get("harm"), {"text": ["z"]}, key="to-come").wait(60)
    page.wait_for_selector("tbody tr")


def test_the_dashboard_follows_what_happens(page: Any, site: str, told: Told) -> None:
    page.goto(f"{site}/")
    shown = "Number(document.querySelector('.counts .s-done b').textContent.replaceAll(',', ''))"
    before = page.evaluate(shown)
    told.client.start(told.app.get("harm"), {"text": ["w"]}).wait(60)
    until(page, f"{shown} > {before}", timeout=30)
    page.locator(".counts a.s-done").click()
    page.wait_for_selector("[aria-current=true]:has-text('done')")


def test_a_workflow_opens_its_steps_and_groups(page: Any, site: str, told: Told) -> None:
    page.goto(f"{site}/workflows")
    page.locator("a.row", has_text="newsletter").click()
    assert page.locator("nav [aria-current=true]").inner_text() == "Workflows"
    page.locator(".plan a.group").click()
    page.wait_for_url("**open=*")
    assert page.locator(".plan a.node").count() == 14
    page.locator(".plan a.node", has_text="send_7").click()
    page.wait_for_selector("#step h2:text-is('send_7')")
    assert "bounced" in page.locator("#step .source").inner_text()
    assert page.locator(".machine").count() == 2


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_these_pages_are_accessible(browser: Any, site: str, told: Told, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    found = []
    for path in PATHS:
        page.goto(site + path)
        page.wait_for_load_state("networkidle")
        violations = Axe().run(page).response["violations"]
        found += [(path, rule["id"], [node["html"][:160] for node in rule["nodes"]][:4]) for rule in violations]
    context.close()
    assert found == []


def test_nothing_of_these_pages_is_cut_off_at_any_width(page: Any, site: str, told: Told) -> None:
    for width in (320, 390, 768, 1440, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        for path in PATHS:
            page.goto(site + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (width, path)


def test_hostile_texts_in_lists_run_no_script(page: Any, site: str, told: Told) -> None:
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    for path in ("/", "/runs", "/runs?input=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E", "/workflows/harm?step=harm"):
        page.goto(site + path)
        page.wait_for_timeout(80)
        assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0
