"""What the tests of the debugger share: a server in a thread, a browser, plain requests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from debugger_ui.serving import Address, Server, open_socket

IS_REQUIRED = bool(os.environ.get("REQUIRE_BROWSER"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass
class Told:
    """A database in which something has happened: ids of runs by name."""

    dsn: str
    runs: dict[str, str] = field(default_factory=dict)
    client: Any = None
    app: Any = None


def chromium() -> str:
    """The browser of this machine. Without one the tests are left out, or fail if REQUIRE_BROWSER is set."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        reason = "these tests need a Chromium: `make browser` installs Debian's"
        if IS_REQUIRED:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


@contextlib.contextmanager
def serving(dsn: str | None, **address: Any) -> Iterator[Server]:
    """A debugger in a thread, for the length of the block."""
    more = {name: address.pop(name) for name in ("may_act", "files", "code") if name in address}
    place = Address(**{"port": 0, **address})
    listening = open_socket(place)
    server = Server(place, dsn, listening, **more)
    ready = threading.Event()
    server.on_ready = ready.set
    loop = asyncio.new_event_loop()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            loop.run_until_complete(server.run_until_told())
        except BaseException as exc:
            failures.append(exc)
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=work, name="test-debugger")
    thread.start()
    try:
        assert ready.wait(20)
        assert not failures, failures
        yield server
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(server.stop)
        thread.join(20)
        listening.close()
        assert not thread.is_alive()
        assert not failures, failures


def get(url: str, **more: Any) -> httpx.Response:
    """One request, not redirected."""
    with httpx.Client(trust_env=False, timeout=20) as client:
        return client.get(url, **more)


def post(url: str, **more: Any) -> httpx.Response:
    """One request that changes something."""
    with httpx.Client(trust_env=False, timeout=20) as client:
        return client.post(url, **more)
