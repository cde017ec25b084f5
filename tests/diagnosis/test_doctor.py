"""Each ailment, made up alone: its finding, its severity; and a healthy system, about which all is well."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kairos.diagnosis import Finding, PoolerFacts, ServerFacts, SystemFacts, Waiting, WorkerHealth, examine
from tests.diagnosis.test_why import DEAD, OTHER, VERSION, worker
from tests.domain.run_stories import NOON, SECOND

SERVER = ServerFacts(180006, True, "on", True, "kairos", False, False)
ALIVE = WorkerHealth(worker(), "1.0", holds=1)
HEALTHY = SystemFacts(
    now=NOON,
    kairos="1.0",
    schema=2,
    server=SERVER,
    pooler=PoolerFacts(True, True, True),
    workers=[ALIVE],
    waiting=[Waiting("story", "default", VERSION, 3, NOON - SECOND)],
    versions={VERSION: "story", OTHER: "story"},
    statuses={"DONE": 1200, "RUNNING": 1},
    partitioned_until=NOON + timedelta(hours=2),
)


def ailing(**more: Any) -> list[Finding]:
    return [finding for finding in examine(replace(HEALTHY, **more)) if finding.severity != "ok"]


def server(**more: Any) -> dict[str, Any]:
    return {"server": replace(SERVER, **more)}


def health(**more: Any) -> dict[str, Any]:
    return {"workers": [replace(ALIVE, **more)]}


def waiting(**more: Any) -> dict[str, Any]:
    return {"waiting": [replace(HEALTHY.waiting[0], **more)]}


def test_a_healthy_system_is_well_in_every_respect() -> None:
    assert ailing() == []
    assert [finding.title for finding in examine(HEALTHY)] == [
        "PostgreSQL 18.6, schema version 2",
        "commits are durable (fsync, synchronous_commit)",
        "role 'kairos' may add events, not change them",
        "sessions are kept; NOTIFY arrives",
        "no transaction is open for long",
        "1 worker is alive and well; 1 of 10 slots in use",
        "live workers agree on the version of each workflow",
        "3 tasks waiting, all of them served",
        "every run that goes on has a task (1,200 done, 1 running)",
        "the log has partitions until 2026-03-01 14:00 UTC",
    ]


CASES: list[tuple[str, str, dict[str, Any], str]] = [
    ("server", "error", server(version=130012), "PostgreSQL 13 is too old"),
    ("standby", "error", server(is_standby=True), "standby"),
    ("fsync", "error", server(fsync=False), "fsync is off"),
    ("synchronous_commit", "error", server(synchronous_commit="off"), "synchronous_commit is off"),
    ("full_page_writes", "warning", server(full_page_writes=False), "full_page_writes is off"),
    ("rights", "warning", server(may_change_events=True), "role 'kairos' has the right to change events"),
    ("transaction_pooling", "error", {"pooler": PoolerFacts(False, False, False)}, "reach different backends"),
    ("transaction_pooling", "error", {"pooler": PoolerFacts(True, False, True)}, "its settings are lost"),
    ("notify", "warning", {"pooler": PoolerFacts(True, True, False)}, "NOTIFY does not arrive"),
    ("long_transaction", "warning", {"transactions": [(7, "psql", "idle in transaction", 75.0)]}, "backend 7 (psql"),
    ("without_task", "error", {"without_task": ["a", "b", "c", "d"]}, "4 runs go on but have no task"),
    ("loop_lag", "warning", health(loop_lag=1.0), "lags by 1.0s"),
    ("stale_writes", "warning", health(stale_writes=2), "2 late writes refused"),
    ("kairos_version", "warning", health(version="0.9"), "runs Kairos 0.9, this is 1.0"),
    ("abandoned", "warning", health(abandoned=({"step": "a", "for": 90.0, "at": "x.py:3 a"},)), "still runs 1m 30s"),
    ("worker_draining", "warning", health(fact=worker(state="draining", is_live=False)), "is draining: 1 step"),
    ("unserved_no_queue", "error", waiting(queue="mail"), "3 tasks of 'story' in queue 'mail' wait for a worker"),
    ("unserved_no_version", "error", waiting(fingerprint=OTHER), "no live one has version eeeeeeee"),
    ("backlog", "warning", waiting(oldest=NOON - timedelta(minutes=5)), "the oldest for 5m"),
]


@pytest.mark.parametrize(("code", "severity", "change", "words"), CASES, ids=[f"{c[0]}: {c[3]}" for c in CASES])
def test_an_ailment_is_found(code: str, severity: str, change: dict[str, Any], words: str) -> None:
    found = next(finding for finding in ailing(**change) if finding.code == code)
    assert found.severity == severity
    assert words in found.title
    assert found.to_json().keys() == {"code", "severity", "title", "hint", "facts"}


def test_dead_workers_are_news_for_an_hour() -> None:
    def dead(ago: timedelta, holds: int = 0) -> list[str]:
        fact = replace(DEAD, beat_at=NOON - ago)
        health = WorkerHealth(fact, "1.0", holds, signal="SIGKILL")
        return [finding.code for finding in ailing(workers=[ALIVE, health])]

    assert dead(timedelta(minutes=59)) == ["worker_dead"]
    assert dead(timedelta(hours=1)) == []
    assert dead(timedelta(days=1), holds=1) == ["worker_dead"]


def test_a_silent_worker_is_noticed_when_its_lease_is_over() -> None:
    late = worker(lease_until=NOON, beat_at=NOON - 15 * SECOND, is_live=False)
    found = ailing(workers=[ALIVE, WorkerHealth(late, "1.0", 0)])
    assert [finding.code for finding in found] == ["worker_silent"]


def test_two_versions_at_work_are_drift() -> None:
    other = WorkerHealth(worker("w2", fingerprints=frozenset({OTHER})), "1.0", 0)
    found = ailing(workers=[ALIVE, other])
    assert [finding.code for finding in found] == ["version_drift"]
    assert found[0].title == "live workers have 2 versions of 'story': eeeeeeee on w2 and ffffffff on w1"


def test_no_worker_is_fine_as_long_as_nothing_waits() -> None:
    assert ailing(workers=[], waiting=[]) == []
    assert [finding.code for finding in ailing(workers=[])] == ["unserved_no_worker"]


def test_the_end_of_the_partitions_is_announced_while_there_is_time() -> None:
    assert ailing(partitioned_until=None) == []
    [soon] = ailing(partitioned_until=NOON + timedelta(hours=2) - SECOND)
    assert (soon.code, soon.severity) == ("partitions", "warning")
    assert soon.title == "the partitions of the log end in 1h 59m; runs after that go to the default one (0 bytes)"
    [late] = ailing(partitioned_until=NOON - timedelta(days=3), default_bytes=81920)
    assert late.title.startswith("the partitions of the log ended 3d ago; runs after that go to the default one (81,9")
