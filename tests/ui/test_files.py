"""Bundles in the debugger: without a database, beside one, broken, dropped, hostile."""

from __future__ import annotations

import http.client
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

import kairos
from debugger_ui.current import CurrentCode
from debugger_ui.opened import MAX_FILES, Files
from kairos.replay.bundle import open_bundle, write_bundle
from kairos.replay.trace.history import Trace
from tests.cli.cli_support import ROOT, eventually
from tests.replay.trace.tracing_support import save
from tests.ui import bills
from tests.ui.filing import Filed, file_away
from tests.ui.shop import HOSTILE
from tests.ui.support import get, post, serving

PANES = ["summary", "input", "output", "error", "effects", "logs", "code", "event"]


@pytest.fixture(scope="module")
def filed(shop_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Filed:
    """Runs, and the files of them."""
    return file_away(shop_dsn, tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def alone(filed: Filed) -> Iterator[str]:
    """The address of a debugger of files, with no database."""
    files = Files(is_alone=True)
    for name in ("blank.kairos", "fork.kairos", "harm.kairos", "open.kairos", "good.kairos", "bad.kairos"):
        files.open_path(filed.path(name))
    files.open_path(filed.path("bad.ktrace"))
    with serving(None, files=files) as server:
        yield server.url


@pytest.fixture(scope="module")
def beside(filed: Filed) -> Iterator[str]:
    """The address of a debugger of the database, where files can be dropped."""
    with serving(filed.dsn) as server:
        yield server.url


def address_of(site: str, name: str) -> str:
    """Where a file is shown."""
    found = get(f"{site}/api/v1/files").json()["files"]
    return str(next(file["href"] for file in found if file["name"] == name))


def drop(site: str, path: Path, name: str | None = None, **more: Any) -> Any:
    return post(f"{site}/open", files={"file": (name or path.name, path.read_bytes())}, **more)


def test_a_bundle_is_shown_exactly_as_the_database_shows_its_run(filed: Filed, alone: str, beside: str) -> None:
    """Panes, states, events and values: the same bytes, with no database at hand."""
    for name in ("good", "fork", "harm"):
        run = f"/runs/{filed.runs[name]}"
        last = get(f"{beside}{run}/index.json").json()["seq"]
        steps = get(f"{beside}{run}/index.json").json()["graph"]["steps"]
        for at in {0, 1, last // 2, last - 1, last}:
            assert get(f"{alone}{run}/state.json?at={at}").text == get(f"{beside}{run}/state.json?at={at}").text
        for step in ["", *steps[:2], *steps[-1:]]:
            for pane in PANES:
                path = f"{run}/pane?at={last}&step={step}&pane={pane}"
                here, there = get(alone + path), get(beside + path)
                assert here.status_code == there.status_code == 200
                if name != "fork" or pane not in ("summary", "input"):  # links to a parent that is open here, or not
                    # The command for a replay names the file.
                    text = here.text.replace(f"{name}.kairos", filed.runs[name])
                    assert text == there.text, path
        for path in ("/events", "/state", "/value?seq=1&part=input&path="):
            assert get(f"{alone}/api/v1{run}{path}").json() == get(f"{beside}/api/v1{run}{path}").json()
        assert get(f"{alone}{run}/graph?at={last}").text == get(f"{beside}{run}/graph?at={last}").text


def test_a_bundle_says_that_it_is_one_and_that_it_was_verified(alone: str, filed: Filed) -> None:
    page = get(alone + address_of(alone, "good.kairos")).text
    assert "good.kairos" in page
    assert ">verified</span>" in page
    assert "nothing redacted" in page
    facts = get(f"{alone}/api/v1/runs/{filed.runs['good']}").json()
    assert facts["bundle"]["ok"]
    assert facts["id"] == filed.runs["good"]


def test_what_was_blanked_or_left_out_is_said_where_it_is_missing(alone: str, filed: Filed) -> None:
    """Opened first, so it has the run's own address; the whole bundle of the same run has another one."""
    blank, whole = address_of(alone, "blank.kairos"), address_of(alone, "bad.kairos")
    assert blank == f"/runs/{filed.runs['bad']}" != whole
    page = get(alone + blank).text
    assert "redacted: 4 events, 1 value left out" in page
    assert "[redacted]" in get(f"{alone}{blank}/pane?at=8&step=charge&pane=error").text
    gone = get(f"{alone}{blank}/pane?at=8&step=charge&pane=input").text
    assert "was left out of blank.kairos" in gone
    assert str(filed.folder) not in gone
    assert get(f"{alone}{whole}/state.json?at=8").json()["run_id"] == filed.runs["bad"], "its own id, not the address"
    assert filed.runs["bad"] in get(alone + whole).text


def test_what_a_file_cannot_do_is_absent_or_says_why(alone: str, filed: Filed) -> None:
    run = f"{alone}/runs/{filed.runs['open']}"
    page = get(run).text
    assert "had not ended when it was exported" in page
    assert "Cancel run" not in page
    for action in ("/fork", "/lineage", "/bundle"):
        assert f'{action}"' not in page
        assert get(run + action).status_code == 403
        assert "kairos import" in get(run + action).text
    for path in (f"{run}/cancel", f"{run}/fork", f"{alone}/api/v1/runs/{filed.runs['open']}/fork"):
        refused = post(path)
        assert refused.status_code == 403
        assert "kairos import" in refused.text
    assert get(f"{run}/live?after=0").status_code == 204, "nothing more will come"
    assert get(f"{run}/index.json").json()["grows"] is False
    for path in ("/", "/runs"):
        answer = get(alone + path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/open")
    missing = get(f"{alone}/runs/01a1ffff-0000-7000-8000-000000000000")
    assert missing.status_code == 404
    assert "no database" in missing.text
    assert get(f"{alone}/readyz").json() == {"status": "ok", "files": 7}


def test_a_part_of_an_id_finds_the_run_of_a_file(alone: str, filed: Filed) -> None:
    run = filed.runs["good"]
    for name in (run[-8:], run[:24]):
        answer = get(f"{alone}/runs/{name}?at=3")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run}?at=3")


def test_a_dropped_bundle_stands_beside_the_run_of_the_database(filed: Filed, beside: str) -> None:
    answer = drop(beside, filed.path("blank.kairos"))
    assert answer.status_code == 303
    place = answer.headers["location"]
    assert place != f"/runs/{filed.runs['bad']}"
    assert "left out" in get(f"{beside}{place}/pane?at=8&step=charge&pane=input").text
    own = get(f"{beside}/runs/{filed.runs['bad']}/pane?at=8&step=charge&pane=input").text
    assert "s5" in own
    assert "left out" not in own
    assert drop(beside, filed.path("blank.kairos"), "again.kairos").headers["location"] == place, "the same content"
    assert post(f"{beside}{place}/cancel").status_code == 403
    assert filed.runs["bad"] in get(beside + place).text
    listed = get(f"{beside}/open").text
    assert "blank.kairos" in listed
    key = next(f["key"] for f in get(f"{beside}/api/v1/files").json()["files"] if f["name"] == "blank.kairos")
    assert post(f"{beside}/open/{key}/close").status_code == 303
    assert get(beside + place).status_code == 404


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}], ids=str)
def test_another_site_cannot_drop_a_file_here(filed: Filed, beside: str, headers: dict[str, str]) -> None:
    assert drop(beside, filed.path("good.kairos"), headers=headers).status_code == 403


def test_what_is_no_file_of_ours_is_explained_without_a_trace_of_the_server(filed: Filed, beside: str) -> None:
    whole = filed.path("good.kairos").read_bytes()
    trace = filed.path("good.ktrace").read_bytes()
    for raw, said in (
        (b"", "does not begin like one"),
        (b"MZ\x90" * 100, "not a bundle"),
        (whole[:-50], "its end is missing"),
        (whole[:900] + b"\x00" + whole[901:], "was changed"),
        (trace[:-10], "cut short"),
        (trace[:300] + bytes([trace[300] ^ 0x55]) + trace[301:], "damaged"),
    ):
        answer = post(f"{beside}/open", files={"file": ("../../<b>x</b>.kairos", raw)})
        assert answer.status_code == 422, said
        assert said in answer.text
        assert "kairos-ui-" not in answer.text
        assert "<b>x</b>" not in answer.text
    assert post(f"{beside}/open", data={"file": "no file"}).status_code == 422
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert post(f"{beside}/open", content=b"junk", headers=form).status_code == 422


def test_a_file_that_is_too_large_is_not_even_read(beside: str) -> None:
    connection = http.client.HTTPConnection(beside.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/open")
    connection.putheader("Content-Length", "64200000")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_dropped_files_are_bounded_private_and_removed_at_the_end(filed: Filed, tmp_path: Path) -> None:
    files = Files()
    files.open_path(filed.path("good.kairos"))
    opened = []
    for number in range(MAX_FILES + 3):
        path = tmp_path / f"{number}.kairos"
        write_bundle(open_bundle(filed.path("fork.kairos")), path, redact=kairos.Redaction(fields=[f"field{number}"]))
        with path.open("rb") as source:
            opened.append(files.take(path.name, source))
    assert opened[0].path.parent.parent != tmp_path
    folder = opened[0].path.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(files.all) == MAX_FILES + 1, "what the command line opened does not count, and stays"
    assert len(list(folder.iterdir())) == MAX_FILES
    assert files.run(opened[0].href.rpartition("/")[2]) is None, "the oldest went"
    files.close_all()
    assert not folder.exists()
    assert filed.path("good.kairos").exists()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda whole: None, "there is no file"),
        (lambda whole: b"not a bundle", "does not begin like one"),
        (lambda whole: whole[:-9], "its end is missing"),
        (lambda whole: b"KTRACE\x01\nxx", "cut short"),
    ],
    ids=["missing", "junk", "truncated", "trace"],
)
def test_a_file_that_cannot_be_opened_ends_the_command_with_4(
    filed: Filed, tmp_path: Path, made: Any, said: str
) -> None:
    path, raw = tmp_path / "run.kairos", made(filed.path("good.kairos").read_bytes())
    if raw is not None:
        path.write_bytes(raw)
    done = subprocess.run(
        [sys.executable, "-m", "kairos.cli", "ui", "--file", str(path), "--port", "0"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 4
    assert said in done.stderr


def test_the_command_serves_files_with_no_database_at_all(filed: Filed) -> None:
    command = [sys.executable, "-m", "kairos.cli", "ui", "--port", "0", "--file", str(filed.path("bad.kairos"))]
    env = {**os.environ, "KAIROS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    child = subprocess.Popen(
        [*command, "--trace", str(filed.path("bad.ktrace"))], cwd=ROOT, stderr=subprocess.PIPE, text=True, env=env
    )
    try:
        assert child.stderr is not None
        lines: list[str] = []
        while not any("database" in line for line in lines):
            lines.append(child.stderr.readline())
            assert lines[-1], lines
        told = "".join(lines)
        assert "none: files alone" in told
        url = next(line.split()[-1] for line in lines if "debugger" in line)
        assert url.endswith("/open")
        assert "bad.kairos" in get(url).text
        assert "Step through it" in get(url.replace("/open", f"/runs/{filed.runs['bad']}?step=charge&pane=code")).text
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0
        child.stderr.close()


def test_a_trace_is_read_by_programs_block_by_block(alone: str, filed: Filed) -> None:
    key = address_of(alone, "bad.ktrace").rpartition("/")[2]
    about = get(f"{alone}/api/v1/traces/{key}").json()
    assert (about["run"], about["step"], about["attempt"]) == (filed.runs["bad"], "charge", 1)
    events: list[Any] = []
    following: int | None = 1
    while following:
        block = get(f"{alone}/api/v1/traces/{key}/events?from={following}&n=25").json()
        events += block["events"]
        following = block["next"]
    assert [event["position"] for event in events] == list(range(1, about["events"] + 1))
    same = get(f"{alone}/api/v1/runs/{filed.runs['bad']}/trace/charge/1?n=1024").json()
    assert same["events"] == events
    assert get(f"{alone}/api/v1/runs/{filed.runs['bad']}/trace/charge/7").status_code == 404
    failed = get(f"{alone}/api/v1/traces/{key}/moment").json()
    assert (failed["position"], failed["value"]["text"]) == (about["failed_at"], "KeyError('XXX')")
    back = get(f"{alone}/api/v1/traces/{key}/moment?line={failed['line']}&move=back&times=2").json()
    assert back["position"] < failed["position"]
    assert back["locals"]
    for wrong in ("moment?line=nothing.py:1", "moment?at=9999", "moment?move=up", "events?from=0", "moment?write=x"):
        assert get(f"{alone}/api/v1/traces/{key}/{wrong}").status_code == 400, wrong
    for path in get(f"{alone}/api/v1/openapi.json").json()["paths"]:
        if "{trace}" in path:
            assert get(alone + path.replace("{trace}", key)).status_code == 200
    assert get(f"{alone}/api/v1/traces/nothing").status_code == 404


# -- code: what has changed since


def test_code_that_differs_from_the_app_at_hand_is_told_line_by_line(filed: Filed, tmp_path: Path) -> None:
    app = tmp_path / "bills.py"
    text = Path(bills.__file__).read_text()
    app.write_text(text.replace("total += amount", "total += amount + 1"))
    files = Files(is_alone=True)
    run = files.open_path(filed.path("bad.kairos")).href
    with serving(None, files=files, code=CurrentCode(f"{app}:app", app)) as server:
        pane = f"{server.url}{run}/pane?at=8&pane=code&step="
        changed = get(pane + "charge").text
        assert "Code changed since." in changed
        assert "amount + <span" in changed.replace("&#43;", "+")
        assert "has the same code" in get(pane + "fetch").text
        app.write_text(text.replace("def ship(charge: dict)", "def send(charge: dict)"))
        os.utime(app, (1, 2_000_000_000))
        assert "has the same code" in get(pane + "charge").text, "the file was read again"
        assert "no longer has this step" in get(pane + "ship").text
        app.write_text("import nothing_of_this_name")
        os.utime(app, (1, 2_000_000_100))
        assert "nothing_of_this_name" in get(pane + "charge").text


def test_a_newer_version_in_the_database_is_told(filed: Filed, beside: str) -> None:
    def version(text: str) -> Any:
        app = kairos.App("versions")
        flow = app.workflow("versioned", input=dict)
        scope: dict[str, Any] = {"flow": flow}
        path = filed.folder / f"v_{len(text)}.py"
        path.write_text(f"def work(input: dict) -> str:\n    return {text!r}\n")
        exec(compile(path.read_text(), str(path), "exec"), scope)
        flow.step(scope["work"])
        return flow

    with kairos.Client(filed.dsn) as client:
        old = client.start(version("one"), {}).id
        assert "Code changed" not in get(f"{beside}/runs/{old}/pane?pane=code&step=work").text
        client.start(version("three"), {})
    pane = get(f"{beside}/runs/{old}/pane?pane=code&step=work").text
    assert "registered later, has other code" in pane
    assert "three" in pane


def test_no_code_is_imported_when_no_app_is_named(beside: str, filed: Filed) -> None:
    code = "import debugger_ui.serving, sys; print('debugger_ui.current' in sys.modules, 'tests' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]


# -- in the browser


def ready(page: Any) -> None:
    page.wait_for_selector("main[data-ready]")


def test_a_bundle_is_dropped_scrubbed_and_shared(page: Any, filed: Filed, beside: str) -> None:
    page.goto(f"{beside}/open")
    page.set_input_files("#file", str(filed.path("bad.kairos")))
    page.wait_for_url("**/runs/**")
    ready(page)
    assert page.locator(".subject h2").inner_text() == "charge"
    page.keyboard.press("Home")
    page.wait_for_selector("#subject[data-at='1']")
    page.keyboard.press("End")
    page.wait_for_selector("#subject[data-at='8']")
    assert page.locator("[data-do=follow]").is_hidden()
    text = page.locator("#inspector").inner_text()
    page.wait_for_url("**at=8**")
    page.reload()
    ready(page)
    assert page.locator("#inspector").inner_text() == text


def test_a_hostile_bundle_and_a_hostile_trace_do_no_harm(page: Any, filed: Filed, beside: str, tmp_path: Path) -> None:
    from kairos.replay.trace.layout import About

    def harm(text: list[str]) -> None:
        held = {piece: piece for piece in text}
        raise ValueError(held[text[0]] + text[1])

    trace = tmp_path / "harm.ktrace"
    save(trace, harm, HOSTILE, about=About(HOSTILE[0], HOSTILE[1], HOSTILE[3], 1))
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    bundle = address = None
    for path, name in ((filed.path("harm.kairos"), HOSTILE[1] + ".kairos"), (trace, HOSTILE[0] + ".ktrace")):
        page.goto(f"{beside}/open")
        page.set_input_files("#file", {"name": name, "mimeType": "x/x", "buffer": path.read_bytes()})
        page.wait_for_url(lambda url: "/open" not in url)
        bundle, address = address, page.url
    assert bundle is not None
    for pane in PANES:
        page.goto(f"{bundle}?at=15&step=harm&pane={pane}")
        ready(page)
    page.goto(address)
    for _ in range(4):
        page.keyboard.press(",")
        page.wait_for_timeout(60)
    page.click("a.count >> nth=0")
    page.wait_for_selector(".probe li")
    page.fill(".probe [name=name]", HOSTILE[0])
    page.keyboard.press("Enter")
    page.wait_for_selector(".probe .dim:has-text('expression')")
    page.goto(f"{beside}/open")
    assert page.locator("script:not([src])").count() == 0
    assert not dialogs


def test_files_are_accessible_in_both_themes_and_fit_every_width(page: Any, alone: str, filed: Filed) -> None:
    from axe_playwright_python.sync_playwright import Axe

    places = [
        "/open",
        f"{address_of(alone, 'blank.kairos')}?at=8&step=charge&pane=code",
        f"{address_of(alone, 'blank.kairos')}?at=8&step=charge&pane=code&line=here",
        f"{address_of(alone, 'bad.ktrace')}?line=@40",
        f"{address_of(alone, 'bad.ktrace')}/hits?at=40&probe=bills.py:27",
    ]
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for place in places:
            page.set_viewport_size({"width": 1440, "height": 900})
            page.goto(alone + place)
            page.wait_for_timeout(150)
            found = Axe().run(page).response["violations"]
            assert not found, (scheme, place, json.dumps([(v["id"], v["nodes"][0]["html"][:200]) for v in found]))
            for width in (320, 390, 768, 1920):
                page.set_viewport_size({"width": width, "height": 800})
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, (place, width, wide)


def test_a_trace_names_its_run_and_the_run_offers_its_trace(page: Any, filed: Filed, beside: str) -> None:
    assert drop(beside, filed.path("bad.ktrace")).status_code == 303
    run = f"{beside}/runs/{filed.runs['bad']}"
    page.goto(f"{run}?at=8&step=charge&pane=code")
    ready(page)
    page.wait_for_selector("text=Step through it line by line")
    page.keyboard.press(".")
    page.wait_for_selector("#pane .stop")
    trace = Trace.open(filed.path("bad.ktrace"))
    failure = trace.failure
    assert failure is not None
    assert page.locator("#pane .stop").get_attribute("data-at") == str(failure + 1)
    expected = failure
    for key, move in (
        (",", trace.back),
        (",", trace.back),
        ("<", trace.previous),
        ("<", trace.previous),
        (".", trace.step),
    ):
        expected = move(expected) or expected
        page.keyboard.press(key)
        page.wait_for_selector(f"#pane .stop[data-at='{expected + 1}']")
    place = page.locator("#pane .stop").get_attribute("data-place")
    page.wait_for_url(lambda url: parse_qs(urlparse(url).query).get("line") == [place])
    text = page.locator("#pane .trace-code, #pane .trace-side").all_inner_texts()
    page.reload()
    ready(page)
    page.wait_for_selector(f"#pane .stop[data-at='{expected + 1}']")
    assert page.locator("#pane .trace-code, #pane .trace-side").all_inner_texts() == text
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#subject[data-at='7']")
    assert page.locator("#pane .stop").get_attribute("data-at") == str(expected + 1), (
        "the playhead leaves the line alone"
    )
    page.click("text=Source of the run")
    page.wait_for_selector("#pane .crash")
    page.go_back()
    page.wait_for_selector(f"#pane .stop[data-at='{expected + 1}']")
    page.click("#pane >> text=Whole page")
    page.wait_for_url("**/traces/**")
    page.click("text=run " + filed.runs["bad"][-8:])
    ready(page)
    assert page.locator(".subject h2").inner_text() == "charge"
    trace.close()


def test_the_page_of_a_trace_steps_scrubs_probes_and_finds_writes(page: Any, filed: Filed, alone: str) -> None:
    trace = Trace.open(filed.path("bad.ktrace"))
    page.goto(alone + address_of(alone, "bad.ktrace"))

    def at(position: int | None) -> None:
        page.wait_for_selector(f".stop[data-at='{(position or 0) + 1}']")
        here = page.locator(".traced li.now")
        assert here.count() == 1
        assert here.get_attribute("data-line") == str(trace.line(position or 0))

    at(trace.failure)
    for key, expected in (
        ("Home", trace.first),
        ("End", trace.last),
        ("[", trace.failure),
        ("Alt+Comma", trace.back_out(trace.failure or 0)),
        ("Shift+Comma", trace.previous(trace.back_out(trace.failure or 0) or 0)),
    ):
        page.keyboard.press(key)
        at(expected)
    page.locator("[data-slide]").fill("30")
    at(29)
    page.wait_for_url(lambda url: "line=" in url)
    page.locator("[data-slide]").press("ArrowLeft")
    at(28)
    total = trace.hits(0, next(line for line, text in trace.source(0).items() if "total += " in text))[3]
    page.goto(f"{alone}{address_of(alone, 'bad.ktrace')}?at={total + 1}")
    at(total)
    page.click("[data-write='amount']")
    write = trace.last_write("amount", total)
    assert write is not None
    at(write.done_at)
    page.click("li[data-line='29'] a.count")
    page.fill(".probe [name=name]", "total > 40")
    page.keyboard.press("Enter")
    page.wait_for_selector(".probe li:nth-child(4) .v:text('True')")
    assert page.locator(".probe .v").all_inner_texts() == ["False", "False", "False", "True", "True", "True"]
    page.click(".probe li:nth-child(2) a")
    at(trace.hits(0, 29)[1])
    page.wait_for_url(lambda url: parse_qs(urlparse(url).query).get("line") == ["bills.py:29~2"])
    page.go_back()
    at(write.done_at)
    page.keyboard.press("Escape")
    assert page.locator(".probe").count() == 0
    inside = next(i for i in range(len(trace)) if trace.function(i).name == "rate_of" and trace.is_stop(i))
    page.goto(f"{alone}{address_of(alone, 'bad.ktrace')}?line=@{inside + 1}")
    page.click(".calls li:nth-child(2) a")
    page.wait_for_selector(".stop[data-level='1'] .locals >> text=fetch")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    trace.close()


def test_a_dropped_trace_needs_no_script(browser: Any, filed: Filed, alone: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(alone + address_of(alone, "bad.ktrace"))
    trace = Trace.open(filed.path("bad.ktrace"))
    at = trace.failure
    assert at is not None
    for label, move in (
        ("Back one line", trace.back),
        ("Back, over calls", trace.previous),
        ("On one line", trace.step),
    ):
        at = move(at) or at
        page.click(f"[aria-label='{label}']")
        assert page.locator(".stop").get_attribute("data-at") == str(at + 1)
        assert page.locator("li.now code").first.inner_text().strip()
    page.click("a.count >> nth=0")
    assert page.locator(".probe li").count() > 0
    page.click(".probe li a >> nth=0")
    assert "~1" in page.url or "%7E1" in page.url
    context.close()
    trace.close()


def test_every_file_is_gone_when_the_debugger_ends(filed: Filed) -> None:
    files = Files()
    with serving(filed.dsn, files=files) as server:
        drop(server.url, filed.path("good.ktrace"))
        (opened,) = files.all
        assert opened.path.exists()
    eventually(lambda: not opened.path.exists())
