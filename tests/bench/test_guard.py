"""The guard: quiet as things are, loud when group commit is lost."""

from __future__ import annotations

import pytest

from bench.guard import AT_LEAST, RUNS, Verdict, judge
from bench.plan import Options
from bench.server import Server


def test_the_engine_is_as_fast_as_this_machine_lets_it_be(bench_server: Server) -> None:
    verdict = judge(bench_server)
    assert verdict.is_good, f"{verdict}; `make bench` shows where: commits/step first, then worker us/step"


def test_one_commit_per_step_trips_the_guard(bench_server: Server) -> None:
    verdict = judge(bench_server, Options(runs=RUNS, runs_per_flush=1), attempts=1)
    assert not verdict.is_good, str(verdict)


@pytest.mark.parametrize(("steps", "is_good"), [(AT_LEAST * 1.01, True), (AT_LEAST * 0.99, False)])
def test_the_verdict_is_a_ratio_whatever_the_machine(steps: float, is_good: bool) -> None:
    for pace in (100.0, 100_000.0):
        assert Verdict(steps=steps * pace, rows=pace).is_good is is_good
