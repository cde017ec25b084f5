"""Randomized tests of the rules: the same cases on every run, without a clock that could fail a slow machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None, database=None, max_examples=60, print_blob=True)
settings.load_profile("steady")
