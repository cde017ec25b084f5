"""Fixtures of the debugger's tests: runs by the real engine, a server of its own, one Chromium for all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.conftest import Server
from tests.ui.shop import tell
from tests.ui.support import Told, chromium, serving

# The generator of random histories that the tests of the rules use.
sys.path.append(str(Path(__file__).resolve().parents[1] / "domain"))


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of whoever runs the tests must not matter."""
    for name in os.environ:
        if name.startswith("KAIROS_") and name not in ("KAIROS_TEST_DATABASE_URL", "KAIROS_SEED"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def shop_dsn(server: Server, template: str) -> str:
    """A database for the runs of these tests."""
    name = f"kairos_ui_{os.getpid()}"
    with psycopg.connect(server.admin, autocommit=True) as conn:
        conn.execute(f"drop database if exists {name} with (force)")
        conn.execute(f"create database {name} template {template}")
    return make_conninfo(server.app, dbname=name)


@pytest.fixture(scope="module")
def told(shop_dsn: str) -> Iterator[Told]:
    """Runs of many kinds, and a worker that goes on. Its threads roll dice, which hypothesis would mind elsewhere."""
    with tell(shop_dsn) as told:
        yield told


@pytest.fixture(scope="module")
def site(told: Told) -> Iterator[str]:
    """The address of a debugger that shows them."""
    with serving(told.dsn) as server:
        yield server.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, or another one of this machine.

    Not for the whole session: as long as it is there, an event loop runs in this thread, and no other can.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of its own. Errors in its console, of scripts or of the content policy, fail the test."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.allowed = []
    yield page
    context.close()
    rest = [text for text in said if not any(part in text for part in page.allowed)]
    assert not rest, rest
