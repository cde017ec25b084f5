"""`kairos retention` and `kairos keep`."""

from __future__ import annotations

import psycopg
import pytest

from kairos.cli import exits
from tests.cli.cli_support import Kairos
from tests.cli.conftest import Told
from tests.conftest import Server, TestDatabase


@pytest.fixture
def as_owner(in_shop: Kairos, told_database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> Kairos:
    """Commands on the shop by the role that owns the log, as if nobody had made partitions yet."""
    with psycopg.connect(told_database.admin_dsn, autocommit=True) as conn:
        for (name,) in conn.execute("select tableoid::regclass::text from kairos.event group by 1").fetchall():
            # The runs are of the present: moved into the default partition, they count by their end alone.
            conn.execute(f"alter table kairos.event detach partition {name}")
            conn.execute(f"insert into kairos.event_default select * from {name}")
    monkeypatch.setenv("KAIROS_DATABASE_URL", told_database.admin_dsn)
    return in_shop


def test_without_a_setting_nothing_is_removed_and_the_command_says_so(as_owner: Kairos) -> None:
    done = as_owner("retention")
    assert done.code == 0
    assert done.lines[0] == "Nothing is removed: KAIROS_RETENTION is `forever`. Set it, or pass --older-than."
    assert len(as_owner("runs", "--json").json["runs"]) == 3


def test_a_dry_run_lists_what_would_go(as_owner: Kairos) -> None:
    done = as_owner("retention", "--older-than", "0s", "--dry-run")
    assert done.lines[-1] == "would remove 2 runs and the payloads that only they refer to"
    assert "1 go on" in done.out
    assert "delete rows" in done.out
    assert len(as_owner("runs", "--json").json["runs"]) == 3


def test_runs_that_ended_go_and_what_was_done_is_said(as_owner: Kairos, shop_told: Told) -> None:
    assert as_owner("keep", shop_told.runs["order"], "--reason", "audit").code == 0
    done = as_owner("retention", "--older-than", "0s", "--json").json
    assert (done["removed_runs"], done["dropped_partitions"], done["dry_run"]) == (1, 0, False)
    (stretch,) = (s for s in done["stretches"] if s["runs"])
    assert (stretch["removable"], stretch["held"], stretch["going_on"], stretch["action"]) == (1, 1, 1, "delete")
    gone = as_owner("show", shop_told.runs["failure"])
    assert gone.code == exits.NO_SUCH_RUN
    assert "removed by retention on" in gone.err
    assert as_owner("verify", "--all").code == 0
    assert as_owner("keep", shop_told.runs["order"], "--release", "--json").json["kept"] is False
    assert "removed 1 run " in as_owner("retention", "--older-than", "0s").out


def test_the_setting_is_the_default(as_owner: Kairos) -> None:
    done = as_owner("retention", "--json", env={"KAIROS_RETENTION": "30d"}).json
    assert (done["removed_runs"], done["stretches"][0]["recent"]) == (0, 2)
    wrong = as_owner("retention", env={"KAIROS_RETENTION": "5m"})
    assert wrong.code == exits.ERROR
    assert "must be at least 1h" in wrong.err


def test_whoever_may_not_remove_is_told_who_may(in_shop: Kairos, server: Server) -> None:
    if server.admin == server.app:
        pytest.skip("this server has one role for everything")
    done = in_shop("retention", "--older-than", "0s")
    assert done.code == exits.ERROR
    assert "it does not own the log" in done.err
    assert "kairos migrate" in done.err
