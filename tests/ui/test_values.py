"""Where values come from, search in values, paths: against runs of known flows, by the real engine."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from debugger_ui import values
from kairos.domain.editing import read_edits
from tests.ui.flows import AMBIGUOUS, DEEP, TRUTH, flowing
from tests.ui.shop import GATES, open_gate
from tests.ui.support import Told, get, serving
from tests.ui.test_browser import at_seq, look, open_run, settled, until
from tests.ui.test_pages import Tags


@pytest.fixture(scope="module")
def flow(shop_dsn: str) -> Iterator[Told]:
    """Runs through which values of known origin flow."""
    with flowing(shop_dsn) as told:
        yield told


@pytest.fixture(scope="module")
def place(flow: Told) -> Iterator[str]:
    """A debugger that shows them."""
    with serving(flow.dsn) as server:
        yield server.url


@pytest.fixture(scope="module")
def log(place: str, flow: Told) -> list[dict[str, Any]]:
    """The events of the flow."""
    return get(f"{place}/api/v1/runs/{flow.runs['flow']}/events").json()["events"]


@pytest.fixture(scope="module")
def api(place: str, flow: Told) -> Iterator[httpx.Client]:
    """Many questions about the flow over one connection."""
    with httpx.Client(base_url=f"{place}/api/v1/runs/{flow.runs['flow']}/", trust_env=False, timeout=20) as client:
        yield client


def held(api: httpx.Client, log: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Every value of the flow: event, part, value."""
    for event in log:
        for part in values.PARTS:
            if event.get(part) is not None and event["kind"] != "steps_inherited":
                yield event, part, api.get("value", params={"seq": event["seq"], "part": part}).json()["value"]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, path + values.pointer([key]))
    else:
        yield path, value


def seq_of(log: list[dict[str, Any]], kind: str, step: str) -> int:
    return next(e["seq"] for e in log if e["kind"] == kind and e.get("step") == step)


def text_of(url: str, **query: Any) -> str:
    return " ".join(Tags(get(url, params=query or None).text).text.split())


# -- origin ----------------------------------------------------------------------------------------------------


def test_every_unique_value_is_traced_right_and_ambiguous_ones_say_so(
    api: httpx.Client, log: list[dict[str, Any]]
) -> None:
    by_seq = {event["seq"]: event for event in log}
    traced, twins, lengths, times = set(), 0, [], []
    for event, part, value in held(api, log):
        for path, leaf in leaves(value):
            is_twin = leaf in AMBIGUOUS and event["kind"] == "step_done"
            if leaf not in TRUTH.made and not is_twin:
                continue
            begin = time.perf_counter()
            found = api.get("origin", params={"seq": event["seq"], "part": part, "path": path}).json()
            times.append(time.perf_counter() - begin)
            if is_twin:
                assert found["verdict"] == "ambiguous", (event["step"], path)
                roots = {c["path"].split("[")[0] for c in found["candidates"]}
                assert roots >= {"input.twins.here", "input.twins.there"}
                twins += 1
                continue
            verdict, step, effect = TRUTH.made[leaf]
            root = found["chain"][-1]
            assert (found["verdict"], root["step"]) == (verdict, step), (event, path, found)
            assert by_seq[root["seq"]].get("name") == effect
            assert root["seq"] <= event["seq"]
            there = api.get("value", params={"seq": root["seq"], "part": root["part"], "path": root["pointer"]}).json()[
                "value"
            ]
            assert there == leaf
            traced.add(leaf)
            lengths.append(len(found["chain"]))
    assert len(traced) >= 200
    assert twins >= 2
    assert max(lengths) >= 4, "some came through three steps"
    assert statistics.quantiles(times, n=20)[-1] < 0.15, "the budget is 20 ms on an idle machine, without HTTP"


def test_a_part_of_a_copied_value_and_a_common_value_are_told_apart(
    place: str, flow: Told, log: list[dict[str, Any]]
) -> None:
    base, bill = f"{place}/runs/{flow.runs['flow']}", seq_of(log, "step_done", "bill")
    vip = text_of(f"{base}/origin", seq=bill, part="output", path="/customer/vip")
    assert "The run was started with it" in vip
    assert "copied with bill.customer" in vip
    flag = text_of(f"{base}/origin", seq=bill, part="output", path="/flag")
    assert "too little to be recognised" in flag
    assert "bill was given" in flag
    assert "price output #" in flag


def test_the_uses_of_a_value_obey_the_playhead(place: str, flow: Told, log: list[dict[str, Any]]) -> None:
    url = f"{place}/api/v1/runs/{flow.runs['flow']}/origin"
    asked = {"seq": 1, "part": "input", "path": "/customer/email", "dir": "forward"}
    bill, ship = seq_of(log, "step_done", "bill"), seq_of(log, "step_done", "ship")
    found = get(url, params={**asked, "at": bill}).json()
    assert [(use["step"], use["pointer"], use["later"]) for use in found["uses"]] == [
        ("bill", "/customer/email", False),
        ("ship", "/to", True),
    ]
    assert "1 of them by" in found["sentence"]
    page = Tags(get(f"{place}/runs/{flow.runs['flow']}/origin", params={**asked, "at": bill}).text)
    assert [a.get("class") for tag, a in page.tags if tag == "li" and "future" in (a.get("class") or "")] == ["future"]
    early = get(url, params={"seq": ship, "part": "output", "path": "/to", "at": bill}).json()
    assert f"At #{bill} this value is not there yet." in early["notes"]


def test_a_fork_leads_on_into_the_run_where_a_value_was_made(place: str, flow: Told) -> None:
    run, parent = flow.runs["fork"], flow.runs["flow"]
    log = get(f"{place}/api/v1/runs/{run}/events").json()["events"]
    bill = seq_of(log, "step_done", "bill")
    edited = text_of(f"{place}/runs/{run}/origin", seq=bill, part="output", path="/customer/email")
    assert "Edited by" in edited
    assert "input.customer.email" in edited
    taken = get(f"{place}/runs/{run}/origin", params={"seq": bill, "part": "output", "path": "/customer/id"})
    assert "Taken over, as it was" in taken.text
    inherited = next(e["seq"] for e in log if e["kind"] == "steps_inherited")
    page = get(
        f"{place}/runs/{run}/origin", params={"seq": inherited, "part": "output", "of": "fetch", "path": "/made/0/id"}
    )
    assert "was taken over from run" in page.text
    (on,) = [str(a["href"]) for tag, a in Tags(page.text).tags if tag == "a" and a.get("class") == "on"]
    assert on.startswith(f"/runs/{parent}?")
    assert "fetch produced it" in text_of(place + on)
    both = get(
        f"{place}/api/v1/runs/{run}/origin",
        params={"seq": inherited, "part": "output", "of": "price", "dir": "forward"},
    ).json()
    assert "bill" in {use["step"] for use in both["uses"]}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("seq=x&part=input", "seq is not"),
        ("seq=1&part=output", "holds no output"),
        ("seq=999999&part=input", "holds no input"),
        ("seq=1&part=__class__", "must be one of"),
        ("seq=1&part=input&path=/nothing", "nothing at this path"),
        ("seq=1&part=input&path=nothing", "not a JSON pointer"),
        ("seq=1&part=input&dir=sideways", "back or forward"),
        ("seq=1&part=event&path=/kind", "holds no event"),
    ],
)
def test_what_has_no_origin_is_said(place: str, flow: Told, query: str, says: str) -> None:
    answer = get(f"{place}/api/v1/runs/{flow.runs['flow']}/origin?{query}")
    assert answer.status_code == 400
    assert says in answer.json()["detail"]


def test_an_address_with_a_broken_place_still_opens(place: str, flow: Told) -> None:
    for query in ("value=1.input&path=/nothing", "value=nonsense&path=/x", "value=9.output&path=x", "path=/a"):
        answer = get(f"{place}/runs/{flow.runs['flow']}?origin=back&{query}")
        assert answer.status_code == 200, query


def test_a_value_whose_bytes_are_gone_is_said_and_hides_no_other(
    place: str, flow: Told, log: list[dict[str, Any]]
) -> None:
    from debugger_ui.shelf import GONE, Shelf
    from kairos.domain.payload import Payload

    class Lost:
        def reader(self) -> Any:
            raise AssertionError("nothing is asked for what is at hand")

    import asyncio

    here = Payload.of(b'{"a":"value-1234"}')
    shelf = Shelf(Lost())  # type: ignore[arg-type]
    found = asyncio.run(shelf.trees([here]))
    assert not isinstance(found[here.digest], str)

    async def gone() -> Any:
        from debugger_ui.reads import Reads

        reads = Reads(flow.dsn)
        reads.open()
        try:
            lost = Payload.blob("ab" * 32, 5_000)
            return lost, await Shelf(reads).trees([lost, here])
        finally:
            await reads.close()

    lost, found = asyncio.run(gone())
    assert found[lost.digest] == GONE
    assert not isinstance(found[here.digest], str)


# -- long, deep and odd values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/list/99999", "large.list[99999]"),
        ('/a key/x.y/1/q"u', 'large["a key"]["x.y"][1]["q\\"u"]'),
        ("/0", "large.0"),
        ("/deep" + "/in/0" * (DEEP // 2) + "/in", "large.deep" + ".in[0]" * (DEEP // 2) + ".in"),
    ],
)
def test_places_in_long_deep_and_odd_values_have_an_origin_a_path_and_an_address(
    place: str, flow: Told, path: str, written: str
) -> None:
    run = flow.runs["large"]
    seq = get(f"{place}/api/v1/runs/{run}").json()["seq"] - 1
    found = get(f"{place}/api/v1/runs/{run}/origin", params={"seq": seq, "part": "output", "path": path}).json()
    assert found["at"]["path"] == written
    (edit,) = read_edits({written: 1}, {}, ["large"])
    assert values.pointer(edit.keys) == path, "a fork reads the path as the same place"
    page = get(
        f"{place}/runs/{run}", params={"step": "large", "pane": "output", "value": f"{seq}.output", "path": path}
    )
    assert page.status_code == 200
    chosen = [a for tag, a in Tags(page.text).tags if tag == "li" and a.get("class") == "chosen"]
    if path.count("/") < values.MAX_WAY:
        assert [a["data-path"] for a in chosen] == [path]


def test_a_tree_of_depth_500_is_made_and_opened(place: str) -> None:
    deep: Any = "bottom"
    for _ in range(500):
        deep = [deep]
    node = values.tree(deep, toward="/0" * 500)
    assert node.children is not None
    assert values.walk(deep, "/0" * 500) == "bottom"


def test_values_over_the_caps_are_said_and_downloaded(place: str, flow: Told) -> None:
    run = flow.runs["heavy"]
    seq = get(f"{place}/api/v1/runs/{run}").json()["seq"] - 1
    assert "too long for a page" in text_of(f"{place}/runs/{run}", step="heavy", pane="output")
    found = get(f"{place}/api/v1/runs/{run}/origin", params={"seq": seq, "part": "output", "path": "/id"}).json()
    assert found["verdict"] == "unread"
    assert "too long to be looked through" in found["sentence"]
    hits = get(f"{place}/api/v1/runs/{run}/search", params={"q": "heavy-id"}).json()
    assert (hits["count"], [u["seq"] for u in hits["unread"]]) == (0, [seq])
    assert "too long to be looked through" in text_of(f"{place}/runs/{run}", q="heavy-id")


# -- search ----------------------------------------------------------------------------------------------------


def test_search_finds_keys_and_values_wherever_they_stand(place: str, flow: Told, log: list[dict[str, Any]]) -> None:
    url = f"{place}/api/v1/runs/{flow.runs['flow']}/search"

    def found(q: str, **more: Any) -> list[tuple[Any, ...]]:
        hits = get(url, params={"q": q, **more}).json()["hits"]
        return [(h["seq"], h["step"], h["in"], h["path"], h["key"]) for h in hits]

    failed, logged = seq_of(log, "step_failed", "enrich"), seq_of(log, "log_emitted", "pack")
    everywhere = found("ADA@example")
    assert everywhere[0] == (1, None, "input", "input.customer.email", False)
    assert (failed, "enrich", "error", "message", False) in everywhere
    assert (seq_of(log, "step_done", "ship"), "ship", "output", "ship.to", False) in everywhere
    assert found("visible-mark") == [(logged, "pack", "log", "fields.mark", False)]
    assert found("vip")[0] == (1, None, "input", "input.customer.vip", True), "names count too"
    assert found("customer", after=failed)[0][0] > failed
    assert found("no such thing") == []
    assert found('":') == [], "punctuation between names and values is no text"
    assert found("   ") == []
    about = [hit for hit in found("about") if hit[2].startswith("ask_")]
    assert about, "effects are searched"
    assert get(url, params={"q": "x" * 300}).status_code == 400
    assert get(url, params={"q": "x", "limit": 0}).status_code == 400


def test_search_is_paged_and_long_texts_are_cut(place: str, flow: Told) -> None:
    url = f"{place}/api/v1/runs/{flow.runs['large']}/search"
    (hit,) = get(url, params={"q": "needle-at-the-end"}).json()["hits"]
    assert (len(hit["before"]), hit["found"]) == (31, "needle-at-the-end")
    first = get(url, params={"q": "99"}).json()
    assert (first["count"], first["capped"], len(first["hits"]), first["next"]) == (2_000, True, 100, 100)
    second = get(url, params={"q": "99", "offset": 100, "limit": 50}).json()
    assert (len(second["hits"]), second["next"]) == (50, 150)
    assert second["hits"][0] not in first["hits"]
    page = get(f"{place}/runs/{flow.runs['large']}/search", params={"q": "99"}).text
    assert "2,000+" in page
    assert "1,900 more" in page


def test_a_search_works_without_scripts(place: str, flow: Told) -> None:
    page = Tags(get(f"{place}/runs/{flow.runs['flow']}", params={"at": 30, "q": "ada@"}).text)
    hits = [a for tag, a in page.tags if tag == "a" and "hit" in (a.get("class") or "").split()]
    assert ["future" in str(a["class"]) for a in hits] == [int(str(a["data-at"])) > 30 for a in hits]
    assert "hits in" in page.text
    there = get(place + str(hits[-1]["href"]))
    assert there.status_code == 200
    assert any(tag == "li" and a.get("class") == "chosen" for tag, a in Tags(there.text).tags)


# -- in the browser --------------------------------------------------------------------------------------------


def test_a_click_on_a_value_tells_its_origin_and_back_is_the_previous_thought(
    page: Any, place: str, flow: Told, log: list[dict[str, Any]]
) -> None:
    ship = seq_of(log, "step_done", "ship")
    open_run(page, place, flow.runs["flow"], f"?at={ship}&step=ship&pane=output")
    page.locator(".tree a.v", has_text="ada@example.com").click()
    page.wait_for_selector("#trace .chain")
    assert page.locator("#trace .said").inner_text().startswith("The run was started with it")
    assert page.locator("#trace .chain .owner").all_inner_texts() == ["ship", "bill", "input"]
    assert {n: v for n, v in look(page).items() if n in ("value", "path", "origin")} == {
        "value": f"{ship}.output",
        "path": "/to",
        "origin": "back",
    }
    assert page.locator(".tree li.chosen").get_attribute("data-path") == "/to"
    before = page.locator("#trace").inner_text()
    page.reload()
    page.wait_for_selector("main[data-ready]")
    assert page.locator("#trace").inner_text() == before, "the address means the same place"
    page.locator("#trace .chain a.place").nth(1).click()
    at_seq(page, seq_of(log, "step_done", "bill"))
    page.wait_for_selector(".subject h2:text('bill')")
    page.wait_for_selector(".tree li.chosen[data-path='/customer/email']")
    until(page, "document.querySelectorAll('#trace .chain li').length === 2")
    page.go_back()
    at_seq(page, ship)
    until(page, "document.querySelectorAll('#trace .chain li').length === 3")
    page.keyboard.press("Shift+V")
    page.wait_for_selector("#trace [data-trace=forward][aria-current]")
    assert "part of the output of the run" in page.locator("#trace").inner_text()
    page.keyboard.press("Escape")
    until(page, "document.getElementById('trace').hidden")
    assert "origin" not in look(page)


def test_values_are_walked_and_asked_about_by_keyboard_alone(page: Any, place: str, flow: Told) -> None:
    open_run(page, place, flow.runs["flow"], "?at=1&pane=input")
    page.locator(".tree.root summary").first.focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("v")
    page.wait_for_selector("#trace .chain")
    assert page.locator("#trace .asked").inner_text() == "input.customer.id"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+V")
    until(page, "document.querySelector('#trace .asked').textContent === 'input.customer.email'")
    assert "Found again in" in page.locator("#trace .said").inner_text()
    stops = page.locator(".tree.root [tabindex='0']")
    assert stops.count() == 1, "a tree is one stop for Tab"
    page.keyboard.press("ArrowRight")
    at_seq(page, 2)
    page.wait_for_selector("#trace .chain")


def test_search_by_keys_steps_through_hits_and_marks_them(
    page: Any, place: str, flow: Told, log: list[dict[str, Any]]
) -> None:
    failed = seq_of(log, "step_failed", "enrich")
    open_run(page, place, flow.runs["flow"], "?at=2")
    page.keyboard.press("/")
    page.keyboard.type("ada@")
    page.wait_for_selector("#found [data-hit]")
    count = int(page.locator("#found .tally b").inner_text())
    assert page.locator("#found .hit.future").count() == count - 1
    page.keyboard.press("Enter")
    at_seq(page, failed)
    settled(page, failed)
    page.wait_for_selector(".tabs [aria-current]:text('Error')")
    page.locator("#found").click(position={"x": 5, "y": 5})
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Shift+N")
    at_seq(page, 1)
    page.wait_for_selector(".tree li.chosen[data-path='/customer/email']")
    for _ in range(count - 1):
        page.keyboard.press("n")
    at_seq(page, seq_of(log, "step_done", "ship"))
    page.wait_for_selector(".tree li.chosen[data-path='/to']")
    assert page.locator("#found .hit.here").count() == 1
    until(page, "new URLSearchParams(location.search).get('q') === 'ada@'")
    page.reload()
    page.wait_for_selector("main[data-ready]")
    assert int(page.locator("#found .tally b").inner_text()) == count
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert page.locator("#events").is_visible()
    until(page, "!location.search.includes('q=')")


def test_a_search_in_a_run_that_goes_on_finds_what_comes(page: Any, site: str, told: Told) -> None:
    GATES["search"] = threading.Event()
    run = told.client.start(told.app.get("gate"), {"gate": "search", "talk": True})
    open_run(page, site, run.id, "?q=still here&at=1")
    page.wait_for_selector("#found [data-hit]")
    first = page.locator("#found [data-hit]").first.get_attribute("href")
    count = page.locator("#found [data-hit]").count()
    until(page, f"document.querySelectorAll('#found [data-hit]').length > {count}")
    assert page.locator("#found [data-hit]").first.get_attribute("href") == first
    page.keyboard.press("n")
    page.wait_for_selector("#found .hit.here")
    open_gate("search")
    run.wait(30)


def test_the_path_that_is_copied_is_the_one_that_a_fork_takes(page: Any, place: str, flow: Told) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    run = flow.runs["large"]
    seq = get(f"{place}/api/v1/runs/{run}").json()["seq"] - 1
    for path, written in (
        ('/a key/x.y/1/q"u', 'large["a key"]["x.y"][1]["q\\"u"]'),
        ("/list/99999", "large.list[99999]"),
        ("/0", "large.0"),
    ):
        page.goto(f"{place}/runs/{run}?step=large&pane=output&value={seq}.output&path={path}")
        page.wait_for_selector("main[data-ready]")
        row = page.locator(".tree li.chosen")
        row.locator("a.v").hover()
        row.locator(".row-tools [data-tool=copy]").click()
        until(page, "document.querySelector('.row-tools .copied') !== null")
        assert page.evaluate("navigator.clipboard.readText()") == written


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_values_and_search_are_accessible_in_both_themes(page: Any, place: str, flow: Told, theme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme=theme)
    page.allowed = []
    run = flow.runs["flow"]
    for query in (
        "?at=30&pane=input&value=1.input&path=/customer/email&origin=forward&q=ada",
        "?step=bill&pane=effects",
    ):
        open_run(page, place, run, query)
        found = Axe().run(page).response["violations"]
        assert not found, found
    page.goto(f"{place}/runs/{run}/origin?seq=1&part=input&path=/twins/here/0&dir=forward")
    assert not Axe().run(page).response["violations"]
