"""The capacity model is arithmetic over measured costs, and its parts are in proportion."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from bench.capacity import ASSUMED, BASELINE, Cost, Load, main, measured, need
from kairos.store.partitions import AHEAD

RUN, STEP = Cost(postgres=100, worker=300, wal=2000), Cost(postgres=50, worker=200, wal=1000)
LOAD = Load(runs_per_day=864_000, steps=10)  # ten runs a second


def baseline(five: float, ten: float) -> dict[str, object]:
    def case(value: float) -> dict[str, object]:
        return {"reps": [{"postgres us/step": value, "worker us/step": value, "WAL B/step": value}]}

    return {"w1-1": case(five), "w1-ten": case(ten)}


def test_the_costs_of_a_run_and_of_a_step_are_told_apart() -> None:
    # 5 steps: 100 + 5 x 40; 10 steps: 100 + 10 x 40.
    run, step = measured(baseline(five=60, ten=50))
    assert (run.postgres, step.postgres) == (100, 40)


def test_noise_never_gives_a_negative_cost() -> None:
    for five, ten in ((40, 80), (80, 20)):
        run, step = measured(baseline(five, ten))
        assert run.postgres == 0
        assert step.postgres == pytest.approx((5 * five + 10 * ten) / 15)


def test_cores_follow_from_the_peak_and_the_share_that_may_be_in_use() -> None:
    found = need(LOAD, RUN, STEP)
    assert found.runs_per_s == pytest.approx(30)
    assert found.steps_per_s == pytest.approx(300)
    assert found.postgres_cores == pytest.approx(30 * (100 + 10 * 50) / 1e6 / ASSUMED["busy"])
    assert found.wal_gb_per_day == pytest.approx(864_000 * (2000 + 10 * 1000) / 1e9)


def test_twice_the_runs_take_twice_of_everything_but_partitions() -> None:
    one, two = need(LOAD, RUN, STEP), need(replace(LOAD, runs_per_day=2 * LOAD.runs_per_day), RUN, STEP)
    for name in ("postgres_cores", "worker_cores", "wal_gb_per_day", "disk_gb_per_day", "disk_gb"):
        assert getattr(two, name) == pytest.approx(2 * getattr(one, name)), name
    assert two.partitions == one.partitions


def test_what_is_kept_for_thirty_days_lies_in_partitions_of_a_week() -> None:
    found = need(LOAD, RUN, STEP)
    assert (found.partition_days, found.partitions) == (7, 5 + 1 + AHEAD)
    assert found.disk_gb == pytest.approx(37 * found.disk_gb_per_day)


def test_what_is_kept_for_ever_grows_for_ever() -> None:
    found = need(replace(LOAD, retention=None), RUN, STEP)
    assert found.disk_gb is None
    assert found.partition_days == 90


def test_long_payloads_cost_disk_wal_and_a_blob_each() -> None:
    short, long = need(LOAD, RUN, STEP), need(replace(LOAD, payload=100_000), RUN, STEP)
    assert long.disk_gb_per_day > 100 * short.disk_gb_per_day
    assert long.wal_gb_per_day > 50 * short.wal_gb_per_day
    assert long.postgres_cores > short.postgres_cores


def test_a_day_of_retention_is_cut_into_hours() -> None:
    assert need(replace(LOAD, retention=timedelta(days=1)), RUN, STEP).partition_days == 0.25


def test_the_script_reads_the_saved_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs-per-day", "1e6", "--steps", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    run, step = measured(json.loads(BASELINE.read_text("utf-8")))
    assert found["steps_per_s"] == pytest.approx(1e6 * 5 * 3 / 86_400)
    assert found["postgres_cores"] > 0
    assert min(step.worker, step.wal, step.postgres) > 0
    assert min(run.worker, run.wal, run.postgres) >= 0
    main(["--runs-per-day", "1e6", "--retention", "forever"])
    assert "grows for ever" in capsys.readouterr().out
