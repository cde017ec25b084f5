"""Forking a run from its page, its lineage, its bundle, and the same by the JSON API: without a browser."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from kairos.cli.forking import read_set
from kairos.replay.bundle import open_bundle, verify_bundle
from tests.ui.repair import repairing
from tests.ui.support import Told, get, post, serving


@pytest.fixture(scope="module")
def shop(shop_dsn: str) -> Iterator[Told]:
    with repairing(shop_dsn) as told:
        yield told


@pytest.fixture(scope="module")
def site(shop: Told) -> Iterator[str]:
    with serving(shop.dsn) as server:
        yield server.url


class Form(HTMLParser):
    """What a browser would send of the fork form, and the texts beside its fields."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sent: dict[str, str] = {}
        self.wrong: dict[str, str] = {}
        self.text = ""
        self._area = self._select = self._error = ""
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        name = found.get("name", "")
        if tag == "input" and name and (found.get("type") != "checkbox" or "checked" in found):
            self.sent[name] = found.get("value", "")
        elif tag == "textarea":
            self._area, self.sent[name] = name, ""
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and ("selected" in found or self._select not in self.sent):
            self.sent[self._select] = found.get("value", "")
        elif "field-error" in found.get("class", ""):
            self._error = found.get("id", "-")

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._area = ""
        elif tag == "select":
            self._select = ""
        elif tag == "p":
            self._error = ""

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"
        if self._area:
            # The line end behind the tag is not part of the text.
            self.sent[self._area] += data.removeprefix("\n") if not self.sent[self._area] else data
        if self._error:
            self.wrong[self._error] = self.wrong.get(self._error, "") + data


def form(site: str, run: str, query: str = "") -> Form:
    answer = get(f"{site}/runs/{run}/fork{query}")
    assert answer.status_code == 200
    return Form(answer.text)


def command(html: str) -> list[str]:
    from html import unescape

    found = re.search(r'<code id="fork-line">(.*?)</code>', html, re.S)
    assert found is not None
    return shlex.split(unescape(found[1]))


def test_the_form_begins_at_the_failure_with_the_data_that_was_there(site: str, shop: Told) -> None:
    found = form(site, shop.runs["bad"])
    assert found.sent["from"] == "charge"
    assert found.sent["v0/parts"] == "0"
    assert found.sent["v0/speed"] == '"slow"'
    assert found.sent["v0/address/city"] == "Berlin"
    assert found.sent["n0/coupon"] == "1"
    assert [found.sent[f"t{i}"] for i in range(3)] == ["input", "reserve", "weigh"]
    assert "3 reused 0 given 2 will run" in found.text
    assert "Validators written in Python are not known here" in found.text


def test_planning_writes_nothing(site: str, shop: Told) -> None:
    run = shop.runs["bad"]
    before = len(shop.client.list(limit=1000))
    found = form(site, run)
    planned = post(f"{site}/runs/{run}/fork", data={**found.sent, "v0/parts": "5", "do": "plan"})
    assert planned.status_code == 200
    assert command(planned.text) == ["kairos", "fork", run, "--from", "charge", "--set", "input.parts=5"]
    assert "The reused steps ran with the input as it was." in Form(planned.text).text
    assert len(shop.client.list(limit=1000)) == before


def test_a_fork_is_started_once_however_often_the_form_is_sent(site: str, shop: Told) -> None:
    run = shop.runs["bad"]
    sent = {**form(site, run).sent, "v0/parts": "5", "reason": "no parts <b>", "view": "graph", "do": "fork"}
    first, again = post(f"{site}/runs/{run}/fork", data=sent), post(f"{site}/runs/{run}/fork", data=sent)
    assert first.status_code == again.status_code == 303
    assert first.headers["location"] == again.headers["location"]
    fork_id, query = re.fullmatch(r"/runs/([0-9a-f-]{36})\?(.*)", first.headers["location"]).groups()  # type: ignore[union-attr]
    assert query == "at=live&step=charge&view=graph"
    assert shop.client.result(fork_id, timeout=30) == "packed in A for 20"
    forked = shop.client.state(fork_id).forked
    assert (forked.parent, forked.reason, dict(forked.edits)) == (run, "no parts <b>", {"input.parts": 5})
    other = post(f"{site}/runs/{run}/fork", data={**sent, "v0/parts": "10"})
    assert other.headers["location"] != first.headers["location"], "a changed form is another fork"


def test_a_script_is_told_where_to_go(site: str, shop: Told) -> None:
    run = shop.runs["bad"]
    sent = {**form(site, run).sent, "v0/parts": "2", "do": "fork"}
    answer = post(f"{site}/runs/{run}/fork", data=sent, headers={"HX-Request": "true"})
    assert answer.status_code == 204
    assert answer.headers["hx-redirect"].startswith("/runs/")


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"v0/parts": "-1"}, "v0%2Fparts-wrong", "-1 is less than the minimum of 0"),
        ({"v0/parts": "many"}, "v0%2Fparts-wrong", "a whole number is needed"),
        ({"v0/address/country": "Germany"}, "v0%2Faddress%2Fcountry-wrong", "does not match"),
        ({"v0/lines": "[1]"}, "v0%2Flines-wrong", "0: 1 is not of type 'string'"),
        ({"v0/lines": "["}, "v0%2Flines-wrong", "not JSON"),
        ({"v1/shelf": "x"}, "v1%2Fshelf-wrong", "a whole number is needed"),
        ({"m0": "json", "j0": "{"}, "j0-wrong", "not JSON"),
        ({"m0": "json", "j0": '{"parts": 1}'}, "j0-wrong", "'order_id' is a required property"),
        ({"sets": "reserve.warehous=B"}, "-", "Did you mean 'warehouse'?"),
        ({"sets": "nothing"}, "-", "is not PATH=VALUE"),
        ({"sets": "charge.each=5"}, "-", "'charge' is not done"),
        ({"sets": "input.parts=x"}, "-", "'x' is not of type 'integer'"),
        ({"from": "chrage"}, "fork-from-wrong", "Did you mean 'charge'?"),
        ({"version": "ffff"}, "fork-version-wrong", "means no version of workflow 'refund'"),
    ],
)
def test_what_is_wrong_stands_at_its_field_and_nothing_starts(
    site: str, shop: Told, changes: dict[str, str], field: str, said: str
) -> None:
    run = shop.runs["bad"]
    before = len(shop.client.list(limit=1000))
    answer = post(f"{site}/runs/{run}/fork", data={**form(site, run).sent, **changes, "do": "fork"})
    assert answer.status_code == 422
    found = Form(answer.text)
    assert said in found.wrong.get(field, "") or said in " ".join(found.wrong.values())
    for name, text in changes.items():
        assert found.sent[name].strip() == text, "what was typed is kept"
    assert len(shop.client.list(limit=1000)) == before


def test_data_is_turned_between_fields_and_json_without_a_script(site: str, shop: Told) -> None:
    run = shop.runs["bad"]
    sent = {**form(site, run).sent, "v0/parts": "3"}
    as_json = Form(post(f"{site}/runs/{run}/fork", data={**sent, "do": "json:input"}).text)
    assert json.loads(as_json.sent["j0"])["parts"] == 3
    as_json.sent["j0"] = as_json.sent["j0"].replace('"parts": 3', '"parts": 6')
    back = Form(post(f"{site}/runs/{run}/fork", data={**as_json.sent, "do": "fields:input"}).text)
    assert back.sent["v0/parts"] == "6"
    assert back.sent["m0"] == "fields"


def test_the_output_of_a_step_is_given_and_the_step_does_not_run(site: str, shop: Told) -> None:
    run = shop.runs["bad"]
    sent = {**form(site, run, "?from=ship").sent, "do": "add", "add": "charge"}
    added = Form(post(f"{site}/runs/{run}/fork", data=sent).text)
    number = next(name[1:] for name, value in added.sent.items() if value == "charge" and re.fullmatch(r"t\d+", name))
    given = {**added.sent, f"m{number}": "json", f"j{number}": '{"each": 7}', "do": "plan"}
    planned = post(f"{site}/runs/{run}/fork", data=given)
    assert "3 reused 1 given 1 will run" in Form(planned.text).text
    assert command(planned.text)[-2:] == ["--output", 'charge={"each": 7}']
    started = post(f"{site}/runs/{run}/fork", data={**given, "do": "fork"})
    fork_id = started.headers["location"].split("/")[2].partition("?")[0]
    assert shop.client.result(fork_id, timeout=30) == "packed in A for 7"


def test_edits_that_only_the_app_could_make_are_refused_with_the_way(site: str, shop: Told) -> None:
    found = form(site, shop.runs["secret"])
    assert "redacts what is stored" in found.text
    assert "kairos fork --app MODULE:APP" in found.text
    assert not any(name.startswith(("v0", "j0")) for name in found.sent)
    by_path = post(f"{site}/runs/{shop.runs['secret']}/fork", data={**found.sent, "sets": "input.n=2", "do": "fork"})
    assert by_path.status_code == 422
    assert "cannot be edited without its app" in Form(by_path.text).text
    plain = post(f"{site}/runs/{shop.runs['secret']}/fork", data={**found.sent, "do": "fork"})
    assert plain.status_code == 303


def test_a_debugger_that_only_looks_offers_no_fork_and_says_why(shop: Told) -> None:
    run = shop.runs["bad"]
    with serving(shop.dsn, may_act=False) as server:
        assert "/fork" not in get(f"{server.url}/runs/{run}").text
        for answer in (
            get(f"{server.url}/runs/{run}/fork"),
            post(f"{server.url}/runs/{run}/fork", data={"from": "charge", "do": "fork"}),
            post(f"{server.url}/api/v1/runs/{run}/fork", json={"from_step": "charge"}),
            post(f"{server.url}/api/v1/runs/{run}/cancel"),
        ):
            assert answer.status_code == 403
            assert "--read-only" in answer.text


@pytest.mark.parametrize("path", ["/runs/{run}/fork", "/api/v1/runs/{run}/fork", "/api/v1/runs/{run}/cancel"])
def test_other_sites_start_nothing(site: str, shop: Told, path: str) -> None:
    before = len(shop.client.list(limit=1000))
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        answer = post(site + path.format(run=shop.runs["bad"]), json={"from_step": "charge"}, headers=headers)
        assert answer.status_code == 403
    assert len(shop.client.list(limit=1000)) == before


# -- the same for programs


def test_the_api_plans_and_forks_with_the_key_that_it_is_given(site: str, shop: Told) -> None:
    url = f"{site}/api/v1/runs/{shop.runs['bad']}/fork"
    asked = {"from_step": "charge", "set": {"input.parts": 5}, "reason": "by a program"}
    dry = post(url, json={**asked, "dry_run": True})
    assert dry.status_code == 200
    assert dry.json()["plan"]["runs"] == {"charge": "the fork point", "ship": "downstream of charge"}
    assert dict([read_set(shlex.split(dry.json()["command"])[6])]) == {"input.parts": 5}
    first = post(url, json=asked, headers={"Idempotency-Key": "k-1"})
    again = post(url, json={**asked, "key": "k-1"})
    assert first.status_code == again.status_code == 201
    assert first.json()["run"]["id"] == again.json()["run"]["id"]
    assert first.headers["location"] == f"/api/v1/runs/{first.json()['run']['id']}"
    taken = post(url, json={**asked, "set": {"input.parts": 6}, "key": "k-1"})
    assert (taken.status_code, taken.json()["title"]) == (409, "This key is taken")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "from_step is missing"),
        ({"from_step": 5}, "from_step has the wrong type"),
        ({"from_step": "charge", "sets": {}}, "unknown field 'sets'"),
        ({"from_step": "charge", "dry_run": "yes"}, "dry_run has the wrong type"),
        ({"from_step": "nowhere"}, "there is no step 'nowhere'"),
        ({"from_step": "charge", "set": {"input.parts": -1}}, "does not have its type"),
        ({"from_step": "charge", "set": {"input.prts": 1}}, "leads nowhere"),
        ([1], "must be a JSON object"),
    ],
)
def test_the_api_says_what_does_not_fit(site: str, shop: Told, body: Any, said: str) -> None:
    answer = post(f"{site}/api/v1/runs/{shop.runs['bad']}/fork", json=body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    if said == "does not have its type":
        assert answer.json()["target"] == "input"
        assert answer.json()["errors"] == [{"keys": ["parts"], "message": "-1 is less than the minimum of 0"}]


def test_the_api_takes_json_and_nothing_else(site: str, shop: Told) -> None:
    url = f"{site}/api/v1/runs/{shop.runs['bad']}/fork"
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        assert post(url, content=b'{"from_step": "charge"}', headers=headers).status_code == 422
    for raw in (b"{", b"\xff", b"[" * 200_000):
        answer = post(url, content=raw, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
    assert get(url).status_code == 405


def test_the_api_cancels(site: str, shop: Told) -> None:
    queued = shop.client.start(shop.app.get("refund"), {"order_id": "o-9"}, queue="nobody-serves")
    for _ in range(2):
        answer = post(f"{site}/api/v1/runs/{queued.id}/cancel", json={"reason": "not needed"})
        assert answer.json() == {"id": queued.id, "status": "CANCELLED"}


def test_everything_new_is_in_the_description(site: str) -> None:
    paths = get(f"{site}/api/v1/openapi.json").json()["paths"]
    assert "post" in paths["/api/v1/runs/{run}/fork"]
    assert "post" in paths["/api/v1/runs/{run}/cancel"]
    assert "get" in paths["/api/v1/runs/{run}/lineage"]
    assert "get" in paths["/api/v1/compare"]


# -- lineage and bundle


def test_the_lineage_shows_the_tree_with_outcomes(site: str, shop: Told) -> None:
    parent = shop.client.start(shop.app.get("refund"), {"order_id": "o-2", "parts": 0}).wait(30)
    alone = Form(get(f"{site}/runs/{parent.id}/lineage").text).text
    assert "This run has no forks, and is none." in alone
    child = shop.client.fork(parent.id, from_step="charge", set={"input.parts": 5}, reason="<i>why</i>").wait(30)
    grandchild = shop.client.fork(child.id, from_step="ship", reason="again").wait(30)
    for run in (parent, child, grandchild):
        page = get(f"{site}/runs/{run.id}/lineage")
        text = Form(page.text).text
        assert page.text.partition('class="lineage"')[2].count("<circle") == 3
        assert len(re.findall(r'<path d="M\d+ \d+V', page.text)) == 2
        assert re.search(r"failed .* refund .* done .* from charge <i>why</i> .* done .* from ship again", text)
    found = get(f"{site}/api/v1/runs/{child.id}/lineage").json()
    assert [entry["id"] for entry in found["runs"]] == [parent.id, child.id, grandchild.id]
    assert found["runs"][2]["fork"]["from_step"] == "ship"
    assert found["root"] == parent.id
    head = Form(get(f"{site}/runs/{child.id}").text).text
    assert re.search(r"fork of \w{8} at #\d+, from charge", head)
    assert "1 fork " in head


def test_a_run_is_downloaded_as_a_bundle_that_proves_itself(site: str, shop: Told, tmp_path: Path) -> None:
    run = shop.runs["bad"]
    answer = get(f"{site}/runs/{run}/bundle")
    assert answer.headers["content-disposition"] == f'attachment; filename="refund-{run[-8:]}.kairos"'
    assert answer.headers["content-type"] == "application/octet-stream"
    path = tmp_path / "run.kairos"
    path.write_bytes(answer.content)
    assert verify_bundle(path).problem is None
    assert str(open_bundle(path).run_id) == run
    unknown = "00000000-0000-7000-8000-000000000000"
    assert get(f"{site}/runs/{unknown}/bundle").status_code == 404


def test_a_run_that_is_too_long_for_a_bundle_says_what_does_it(
    site: str, shop: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("debugger_ui.pages.bundles.MAX_BYTES", 10)
    answer = get(f"{site}/runs/{shop.runs['bad']}/bundle")
    assert answer.status_code == 400
    assert "kairos export" in answer.text
