"""Acting in a real browser: fork from the run page to a finished child, the replay command, compare, lineage."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ui.repair import repairing
from tests.ui.support import Told, serving
from tests.ui.test_browser import look, open_run, until


@pytest.fixture(scope="module")
def shop(shop_dsn: str) -> Iterator[Told]:
    with repairing(shop_dsn) as told:
        yield told


@pytest.fixture(scope="module")
def site(shop: Told) -> Iterator[str]:
    with serving(shop.dsn) as server:
        yield server.url


def planned(page: Any, text: str) -> None:
    """Wait until the plan's command ends so."""
    until(page, f"(document.getElementById('fork-line')?.textContent ?? '').endsWith({json.dumps(text)})")


def test_a_failed_run_is_forked_from_its_page_to_a_finished_child(page: Any, site: str, shop: Told) -> None:
    open_run(page, site, shop.runs["bad"])
    page.keyboard.press("f")
    page.wait_for_selector("dialog#fork[open] #fork-form")
    assert page.locator("#fork-from").input_value() == "charge"
    nodes = page.locator(".fork-graph a.node")
    words = dict(
        zip(*(nodes.locator(f"> text{part}").all_text_contents() for part in (":not(.word)", ".word")), strict=True)
    )
    assert words == {
        "reserve": "reused",
        "weigh": "reused",
        "pack": "reused",
        "charge": "fork point",
        "ship": "will run",
    }
    page.locator("#target-input summary").click()
    page.locator("[name='v0/parts']").fill("5")
    planned(page, "--set input.parts=5")
    page.locator("#fork-reason").fill("no division by zero")
    planned(page, "--reason 'no division by zero'")
    assert page.locator("[name='v0/parts']").input_value() == "5"
    page.locator("button", has_text="Start the fork").click()
    page.wait_for_selector("#status .chip:has-text('done')", timeout=20_000)
    assert "fork of" in page.locator(".head .facts").inner_text()
    assert look(page)["step"] == "charge"
    child = re.search(r"/runs/([0-9a-f-]{36})", page.url)
    assert child is not None
    assert shop.client.result(child[1]) == "packed in A for 20"


def test_the_step_that_is_chosen_is_the_one_to_go_on_from(page: Any, site: str, shop: Told) -> None:
    open_run(page, site, shop.runs["bad"], "?at=17&step=ship&view=graph")
    page.keyboard.press("f")
    page.wait_for_selector("#fork-form")
    assert page.locator("#fork-from").input_value() == "ship"
    page.locator(".fork-graph a[data-from=pack]").click()
    planned(page, "--from pack")
    assert page.locator("#fork-from").input_value() == "pack"
    assert page.locator(".fork-graph a[data-from=pack] .word").text_content() == "fork point"
    assert page.locator(".fork-graph a[data-from=ship] .word").text_content() == "will run"
    assert page.locator(".fork-graph a[data-from=charge] .word").text_content() == "will run"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("End")
    assert look(page)["step"] == "ship", "keys do not reach the page behind the dialog"
    page.keyboard.press("Escape")
    until(page, "!document.getElementById('fork').open")
    page.keyboard.press("f")
    page.wait_for_selector("#fork-form")
    assert page.locator("#fork-from").input_value() == "ship"


def test_what_is_wrong_is_marked_while_one_types_and_nothing_typed_is_lost(page: Any, site: str, shop: Told) -> None:
    page.allowed.append("422")
    page.goto(f"{site}/runs/{shop.runs['bad']}/fork")
    page.locator("#target-input summary").click()
    page.locator("[name='v0/address/country']").fill("Germany")
    page.wait_for_selector(".field.wrong [name='v0/address/country']")
    assert page.locator("#fork-line").count() == 0
    page.locator("[name='v0/order_id']").click()
    page.keyboard.press("End")
    for letter in "-2345":
        page.keyboard.press(letter)
        page.wait_for_timeout(90)
    page.locator("[name='v0/parts']").fill("7")
    page.wait_for_timeout(700)
    assert page.locator("[name='v0/order_id']").input_value() == "o-1-2345"
    assert page.locator("[name='v0/parts']").input_value() == "7"
    page.locator("#target-input summary").click()
    page.locator("button", has_text="Start the fork").click()
    until(page, "document.activeElement?.name === 'v0/address/country'")
    page.keyboard.press("Control+a")
    page.keyboard.type("FR")
    planned(page, "--set input.parts=7")
    page.locator(".switch button", has_text="JSON").first.click()
    page.wait_for_selector("#j0")
    assert '"country": "FR"' in page.locator("#j0").input_value()
    assert page.locator("#target-input").get_attribute("open") is not None


def test_a_step_is_given_its_output_by_hand(page: Any, site: str, shop: Told) -> None:
    page.goto(f"{site}/runs/{shop.runs['bad']}/fork?from=ship")
    page.locator("#fork-add").select_option("charge")
    page.locator("button", has_text="Change").click()
    area = page.locator("#target-charge textarea")
    area.fill('{"each": 3}')
    planned(page, "--output 'charge={\"each\": 3}'")
    assert page.locator(".fork-graph .b-given .word").text_content() == "given"
    page.locator("#target-charge button", has_text="let it run").click()
    planned(page, "--from ship")
    assert page.locator("#target-charge").count() == 0


def test_the_replay_command_of_this_moment_is_shown_and_copied(page: Any, site: str, shop: Told) -> None:
    run = shop.runs["bad"]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_run(page, site, run)
    page.keyboard.press("r")
    wanted = f"kairos replay {run} --break-at charge --attempt 1"
    assert page.locator("#replay-menu code").inner_text() == wanted
    assert page.evaluate("navigator.clipboard.readText()") == wanted
    page.keyboard.press("Escape")
    assert page.locator("#replay-menu code").is_hidden()
    page.keyboard.press("Backspace")
    page.wait_for_selector(".subject h2:text('Run')")
    assert page.locator("[data-replay]").get_attribute("data-copy") == f"kairos replay {run}"


def test_the_way_leads_from_a_run_to_its_comparison_and_its_lineage(page: Any, site: str, shop: Told) -> None:
    fork = shop.client.fork(shop.runs["bad"], from_step="charge", set={"input.parts": 2}).wait(30)
    open_run(page, site, shop.runs["bad"])
    page.locator("#compare-menu summary").click()
    page.locator("a", has_text="with the last good run").click()
    page.wait_for_selector(".step-diff.first")
    assert page.locator(".step-diff.first .name").inner_text().startswith("charge")
    assert page.locator("#caused .step-diff").first.is_hidden()
    page.locator("#caused > summary").click()
    assert page.locator("#caused .step-diff").first.is_visible()
    open_run(page, site, fork.id)
    page.locator("#compare-menu summary").click()
    page.locator("a", has_text="with its parent").click()
    page.wait_for_selector(".step-diff.first")
    assert "B is a fork of A from charge" in page.locator("main").inner_text()
    page.locator("a", has_text="Lineage").click()
    page.wait_for_selector(".lineage li.chosen")
    assert fork.id[-8:] in page.locator(".lineage li.chosen").inner_text()
    page.locator(".lineage a.row").first.click()
    page.wait_for_selector("main[data-ready]")


def paths(shop: Told) -> list[str]:
    runs = shop.runs
    return [
        f"/runs/{runs['bad']}/fork",
        f"/runs/{runs['secret']}/fork",
        f"/runs/{runs['bad']}/lineage",
        f"/runs/{runs['good']}/lineage",
        f"/compare?a=last-good&b={runs['bad']}",
        "/compare",
        "/compare?a=x&b=y",
    ]


@pytest.mark.parametrize("scheme", ["dark", pytest.param("light", marks=pytest.mark.slow)])
def test_every_page_that_acts_is_accessible(browser: Any, site: str, shop: Told, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    found = []
    for path in [*paths(shop), f"/runs/{shop.runs['bad']}"]:
        page.goto(site + path)
        page.wait_for_load_state("networkidle")
        for summary in page.locator("main details:not([open]) > summary").all():
            if summary.is_visible():
                summary.click()
        if "fork" in path or "lineage" in path or "compare" in path:
            rules = Axe().run(page).response["violations"]
        else:
            page.keyboard.press("Escape")
            page.keyboard.press("f")
            page.wait_for_selector("#fork-form")
            rules = Axe().run(page).response["violations"]
        found += [(path, r["id"], [node["html"][:160] for node in r["nodes"]][:4]) for r in rules]
    context.close()
    assert found == [], "\n".join(map(str, found))


@pytest.mark.parametrize("width", [320, 1920, *(pytest.param(w, marks=pytest.mark.slow) for w in (390, 768))])
def test_nothing_that_acts_is_cut_off_at_any_width(page: Any, site: str, shop: Told, width: int) -> None:
    page.allowed += ["404"]
    page.set_viewport_size({"width": width, "height": 800})
    for path in [*paths(shop), f"/runs/{shop.runs['bad']}"]:
        page.goto(site + path)
        page.wait_for_load_state("networkidle")
        for summary in page.locator("main details:not([open]) > summary").all():
            if summary.is_visible():
                summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_a_run_is_forked_without_scripts(browser: Any, site: str, shop: Told) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(f"{site}/runs/{shop.runs['bad']}")
    page.locator(".actions a", has_text="Fork").click()
    page.locator("#target-input summary").click()
    page.locator("[name='v0/parts']").fill("many")
    page.locator("button", has_text="Check").last.click()
    assert "a whole number is needed" in page.locator(".field.wrong .field-error").inner_text()
    page.locator("[name='v0/parts']").fill("4")
    page.locator(".fork-end button", has_text="Check").click()
    assert page.locator("#fork-line").inner_text().endswith("--set input.parts=4")
    page.locator("button", has_text="Start the fork").click()
    assert page.locator(".subject h2").inner_text() == "charge"
    assert "fork of" in page.locator(".head .facts").inner_text()
    context.close()
