"""Who is answered: hosts, tokens, other sites, sizes; and what every answer carries."""

from __future__ import annotations

import hashlib
import re
import socket
from pathlib import Path

import pytest

from debugger_ui.guards import Access, host_name, local_path
from debugger_ui.serving import Address, open_socket
from kairos.errors import ConfigError
from tests.ui.support import Told, get, post, serving

STATIC = Path(__file__).resolve().parents[2] / "debugger_ui" / "static"
TEMPLATES = STATIC.parent / "templates"
TOKEN = "a-long-random-text"
PAGES = ["/", "/runs", "/runs/{done}", "/runs/{failed}?view=graph", "/healthz", "/readyz", "/api/v1/runs", "/nowhere"]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.nip.io", "localhost.evil.example", "", "0.0.0.0", "10.0.0.1"]
)
def test_other_hosts_are_refused_even_on_loopback(site: str, host: str) -> None:
    answer = get(f"{site}/runs", headers={"Host": host})
    assert answer.status_code == (421 if host else 400) or answer.status_code == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8484", "[::1]:80", "LOCALHOST:1"])
def test_this_machine_is_known_by_all_its_names(site: str, host: str) -> None:
    assert get(f"{site}/healthz", headers={"Host": host}).status_code == 200


def test_a_host_that_was_named_is_answered(told: Told) -> None:
    with serving(told.dsn, hosts=("kairos.example",)) as server:
        assert get(f"{server.url}/healthz", headers={"Host": "kairos.example:443"}).status_code == 200
        assert get(f"{server.url}/healthz", headers={"Host": "other.example"}).status_code == 421


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_no_other_machine_is_let_in_without_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="KAIROS_UI_TOKEN"):
        Address(host).access()
    access = Address(host, token=TOKEN).access()
    assert access.knows("10.1.2.3:8484")
    assert not access.knows("rebound.example")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_loopback_needs_no_token(host: str) -> None:
    assert Address(host).access() == Access(frozenset({host}), False, None)


def test_a_token_guards_every_page_but_the_probes(told: Told) -> None:
    with serving(told.dsn, token=TOKEN) as server:
        for path in PAGES:
            answer = get(server.url + path.format(**told.runs))
            assert answer.status_code == (200 if path in ("/healthz", "/readyz") else 401), path
        live = f"{server.url}/runs/{told.runs['done']}/live?after=0"
        assert get(live).status_code == 401
        assert post(f"{server.url}/runs/{told.runs['done']}/cancel").status_code == 401
        for given in ("", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"):
            assert get(f"{server.url}/runs", headers={"Authorization": given}).status_code == 401
        assert get(f"{server.url}/runs", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_browser_is_asked_for_the_token_once(told: Told) -> None:
    with serving(told.dsn, token=TOKEN) as server:
        asked = get(f"{server.url}/runs?status=failed", headers={"Accept": "text/html"})
        assert asked.status_code == 303
        assert asked.headers["location"] == "/login?next=%2Fruns%3Fstatus%3Dfailed"
        form = get(server.url + asked.headers["location"])
        assert 'name="next" value="/runs?status=failed"' in form.text
        wrong = post(f"{server.url}/login", data={"token": "guess", "next": "/runs"})
        assert wrong.status_code == 403
        assert "set-cookie" not in wrong.headers
        right = post(f"{server.url}/login", data={"token": TOKEN, "next": "/runs?status=failed"})
        assert (right.status_code, right.headers["location"]) == (303, "/runs?status=failed")
        cookie = right.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert TOKEN not in cookie
        seen = get(f"{server.url}/runs", headers={"Cookie": cookie.partition(";")[0]})
        assert seen.status_code == 200


def test_a_link_with_the_token_opens_and_leaves_it_behind(told: Told) -> None:
    with serving(told.dsn, token=TOKEN) as server:
        opened = get(f"{server.url}/runs?status=failed&token={TOKEN}", headers={"Accept": "text/html"})
        assert (opened.status_code, opened.headers["location"]) == (303, "/runs?status=failed")
        assert get(f"{server.url}/runs?token=guess").status_code == 401


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/\\evil.example", "x", "", "/a\nb"])
def test_nobody_is_sent_elsewhere_after_the_token(path: str) -> None:
    assert local_path(path) == "/"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
    ids=str,
)
def test_another_site_changes_nothing(site: str, told: Told, headers: dict[str, str]) -> None:
    answer = post(f"{site}/runs/{told.runs['waiting']}/cancel", headers=headers)
    assert answer.status_code == 403
    assert told.client.get_run(told.runs["waiting"]).status == "SCHEDULED"


def test_looking_changes_nothing(site: str, told: Told) -> None:
    run = told.runs["waiting"]
    assert get(f"{site}/runs/{run}/cancel").status_code == 405
    before = told.client.get_run(run).info.seq
    for path in (f"/runs/{run}", f"/runs/{run}?at=live", f"/runs/{run}/pane?pane=diff&mark=1"):
        assert get(site + path).status_code == 200
    assert told.client.get_run(run).info.seq == before


def test_what_is_too_large_is_refused(site: str, told: Told) -> None:
    assert get(f"{site}/runs?q={'x' * 9000}").status_code == 414
    big = post(f"{site}/runs/{told.runs['waiting']}/cancel", data={"reason": "x" * 1_100_000})
    assert big.status_code == 413


@pytest.mark.parametrize("path", PAGES)
def test_every_answer_carries_the_content_policy(site: str, told: Told, path: str) -> None:
    headers = get(site + path.format(**told.runs)).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


@pytest.mark.parametrize("path", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd", "vendor", "nothing.js"])
def test_files_outside_of_the_static_ones_are_not_served(site: str, path: str) -> None:
    assert get(f"{site}/static/x/{path}").status_code == 404


def test_files_are_kept_for_ever_under_the_address_of_their_content(site: str) -> None:
    sheet = re.search(r'href="(/static/\w+/kairos\.css)"', get(f"{site}/runs").text)
    assert sheet is not None
    assert "immutable" in get(site + sheet[1]).headers["cache-control"]
    assert get(f"{site}/static/old/kairos.css").headers["cache-control"] == "no-cache"


def test_the_files_of_others_are_as_they_were_published() -> None:
    listed = dict(re.findall(r"^sha256 (\w+) (\S+)$", (STATIC / "vendor" / "VENDOR.txt").read_text(), re.M)[::1])
    found = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in (STATIC / "vendor").glob("*.js")}
    assert found == listed


def test_templates_cannot_switch_escaping_off_and_hold_no_inline_code() -> None:
    for path in TEMPLATES.glob("*.html"):
        text = path.read_text()
        assert "|safe" not in text.replace(" ", ""), path.name
        assert "autoescape" not in text, path.name
        assert not re.search(r"\son\w+=", text), path.name
        assert not re.search(r"\sstyle=", text), path.name
        assert "hx-on" not in text, path.name
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), path.name
    for path in STATIC.parent.rglob("*.py"):
        assert not re.search(r"\bMarkup\b|markupsafe", path.read_text()), path.name


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in [*TEMPLATES.glob("*.html"), *STATIC.glob("*.js"), *STATIC.glob("*.css")]:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text), path.name


def test_a_taken_port_is_an_error_with_a_hint_and_the_usual_one_moves_on() -> None:
    with open_socket(Address(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=str(port)) as caught:
            open_socket(Address(port=port))
        assert "--port 0" in (caught.value.hint or "")
    with open_socket(Address()) as first, open_socket(Address()) as second:
        assert first.getsockname()[1] != second.getsockname()[1]


def test_an_answer_does_not_wait_for_an_acknowledgement() -> None:
    with open_socket(Address(port=0)) as listening:
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("host", "name"),
    [("a.b:80", "a.b"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("A.B.", "a.b"), ("", ""), ("[", ""), (":80", "")],
)
def test_the_name_in_a_host_header(host: str, name: str) -> None:
    assert host_name(host) == name


def test_no_part_of_an_answer_waits_for_the_one_before_it() -> None:
    listening = open_socket(Address(port=0))
    try:
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            accepted.close()
    finally:
        listening.close()
