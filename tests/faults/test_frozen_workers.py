"""A worker frozen past its lease and thawed: its late writes are refused and logged; it becomes useful again."""

from __future__ import annotations

from pathlib import Path

import pytest

import kairos
from tests.conftest import TestDatabase
from tests.faults import workload
from tests.faults.processes import Crew, Proc, until
from tests.faults.support import fetch, verdict


def freeze_outside_transactions(proc: Proc, database: TestDatabase) -> None:
    """Frozen within one, it would hold a row until `idle_in_transaction_session_timeout` (15 s) ends it."""

    def is_frozen_outside() -> bool:
        proc.freeze()
        if fetch(database.admin_dsn, "select 1 from pg_stat_activity where starts_with(state, 'idle in transaction')"):
            proc.thaw()
            return False
        return True

    until(is_frozen_outside, "it is frozen outside of a transaction")


class Scene:
    """A run in the hands of a worker that is frozen in the middle of its first step."""

    def __init__(self, crew: Crew, database: TestDatabase, client: kairos.Client, **settings: object) -> None:
        self.crew, self.database, self.client = crew, database, client
        self.gate = crew.folder / "gate"
        self.first = crew.start(lease="1s", **settings)
        self.run = client.start(workload.gated_pair, str(self.gate))
        until(lambda: crew.ledger.begins(self.run.id), "the body has begun")
        until(lambda: "step_started" in self.kinds(), "its start is recorded")
        self.first.freeze()

    def kinds(self) -> list[str]:
        """The kinds of the run's events."""
        return [recorded.event.kind for recorded in self.client.events(self.run.id)]

    def wait_lease_over(self) -> None:
        """Wait until the database considers the first worker's lease to be over."""
        query = "select count(*) from kairos.worker where pid = %s and lease_until > clock_timestamp()"
        until(lambda: fetch(self.database.admin_dsn, query, self.first.pid) == [(0,)], "the lease is over")

    def results(self) -> list[tuple[object, ...]]:
        """The recorded results, as stored."""
        return fetch(
            self.database.admin_dsn, "select seq, hash, body from kairos.event where kind in ('step_done', 'run_done')"
        )

    def wait_reborn(self) -> None:
        """Wait until the first worker works under a new name, and see that it is of use."""
        until(lambda: "worker_reborn" in self.first.text(), f"it is reborn:\n{self.first.text()}")
        assert "lease_lost" in self.first.text()
        is_live = "select count(*) from kairos.worker where pid = %s and state = 'live'"
        until(lambda: fetch(self.database.admin_dsn, is_live, self.first.pid) == [(1,)], "it is registered anew")

    def check_useful(self, other: Proc | None) -> None:
        """Leave the first worker alone with a new run."""
        if other is not None:
            other.kill()
        assert self.client.start(workload.diamond, 7).result(20) == workload.diamond_output(7)
        verdict(self.database.admin_dsn, self.crew.ledger)


def test_a_worker_thawed_after_another_has_finished_changes_nothing(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    scene = Scene(crew, database, client)
    scene.gate.touch()
    second = crew.start()
    scene.run.wait(30)
    before = scene.results()
    scene.first.thaw()
    scene.wait_reborn()
    until(lambda: "stale_write_rejected" in scene.first.text() or "run_dropped" in scene.first.text(), "it says so")
    assert scene.results() == before
    assert scene.kinds()[-1] == "run_done"
    scene.check_useful(second)


def test_a_worker_thawed_between_the_claim_and_the_end_of_another_is_refused(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    scene = Scene(crew, database, client)
    second = crew.start()
    until(lambda: len(crew.ledger.begins(scene.run.id, "waits")) == 2, "another has begun the step", 30)
    # Both bodies now see the gate; the thawed one ends under a token that is void.
    scene.first.thaw()
    scene.gate.touch()
    scene.run.wait(30)
    scene.wait_reborn()
    started = [e.event for e in client.events(scene.run.id) if e.event.kind == "step_started"]
    done = [e.event for e in client.events(scene.run.id) if e.event.kind == "step_done"]
    assert [e.step for e in done] == ["waits", "follows"]  # type: ignore[union-attr]
    assert done[0].token == started[1].token  # type: ignore[union-attr]
    scene.check_useful(second)


def test_a_worker_thawed_while_its_end_is_on_its_way_is_filtered_by_its_epoch(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    """Frozen at the last moment: the body has ended, its flush is built and not sent."""
    gate = crew.folder / "gate"
    first = crew.start(lease="1s", failpoints="before_append=stop@2")
    run = client.start(workload.gated_pair, str(gate))
    until(lambda: crew.ledger.begins(run.id), "the body has begun")
    until(lambda: "step_started" in [e.event.kind for e in client.events(run.id)], "its start is recorded")
    gate.touch()
    until(lambda: first.is_frozen, "it stopped before the flush of the body's end")
    second = crew.start()
    run.wait(30)
    before = fetch(database.admin_dsn, "select seq, hash, body from kairos.event where kind = 'step_done'")
    first.thaw()
    until(lambda: "stale_write_rejected" in first.text(), f"the late write is refused:\n{first.text()}")
    until(lambda: "worker_reborn" in first.text(), "it is reborn")
    assert fetch(database.admin_dsn, "select seq, hash, body from kairos.event where kind = 'step_done'") == before
    second.kill()
    assert client.start(workload.diamond, 7).result(20) == workload.diamond_output(7)
    verdict(database.admin_dsn, crew.ledger)


def test_a_worker_thawed_before_anybody_has_claimed_its_run_loses_nothing(
    crew: Crew, database: TestDatabase, client: kairos.Client
) -> None:
    scene = Scene(crew, database, client)
    scene.wait_lease_over()
    scene.first.thaw()
    scene.gate.touch()
    scene.run.wait(30)
    assert str(scene.run.status) == "DONE"
    scene.check_useful(None)


@pytest.mark.parametrize("what", ["owner", "helper"])
def test_a_frozen_party_of_a_shared_run_is_replaced(
    crew: Crew, database: TestDatabase, client: kairos.Client, what: str, tmp_path: Path
) -> None:
    """The owner holds one sibling, a helper the other; one of the two freezes, its replacement finishes."""
    gate = tmp_path / "gate"
    owner = crew.start(lease="1s")
    helper = crew.start(lease="1s", queues=workload.SIDE_QUEUE)
    run = client.start(workload.pair, str(gate))
    until(lambda: {e.step for e in crew.ledger.begins(run.id)} == {"left", "right"}, "both siblings have begun")
    frozen = owner if what == "owner" else helper
    step = "left" if what == "owner" else "right"
    freeze_outside_transactions(frozen, database)
    crew.start(queues="default" if what == "owner" else workload.SIDE_QUEUE)
    until(lambda: len(crew.ledger.begins(run.id, step)) == 2, "the step has begun elsewhere", 30)
    gate.touch()
    assert run.result(30) == "left+right"
    before = fetch(database.admin_dsn, "select seq, hash from kairos.event where kind = 'step_done'")
    frozen.thaw()
    until(lambda: "worker_reborn" in frozen.text(), "it is reborn")
    assert fetch(database.admin_dsn, "select seq, hash from kairos.event where kind = 'step_done'") == before
    assert client.start(workload.routed, "again").result(20) == "again"
    verdict(database.admin_dsn, crew.ledger)
