"""Randomized tests of the rules: the same cases on every run, without a clock that could fail a slow machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None, database=None, max_examples=60, print_blob=True)
settings.load_profile("steady")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long versions out unless they are asked for by their mark."""
    if "slow" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("slow") and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="long: run with -m slow"))
