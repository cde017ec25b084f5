"""The tests' server, as the bench takes it."""

from __future__ import annotations

import pytest

from bench.server import Server
from tests.conftest import Server as Given


@pytest.fixture
def bench_server(server: Given) -> Server:
    """Makes databases on the server of the tests."""
    return Server(server.app, server.admin, 0)
