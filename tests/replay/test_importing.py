"""A run out of a file in a database: readable and provable there, and worked on by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

import kairos
from kairos.authoring.redaction import Redaction
from kairos.cli import exits
from kairos.domain.events import RunScheduled
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState
from kairos.errors import BundleError, Refused
from kairos.replay.bundle import open_bundle, write_bundle
from kairos.replay.importing import Imported, import_bundle
from kairos.replay.reading import read_record
from kairos.replay.record import RunRecord
from kairos.store.codec import first_hash
from kairos.store.connect import Session
from kairos.store.drive import OpenRun
from kairos.store.reader import Reader
from tests.cli.cli_support import Kairos, working
from tests.conftest import TestDatabase
from tests.replay.conftest import app

RecordOf = Callable[[str], RunRecord]


def bring(database: TestDatabase, path: Path) -> Imported:
    async def work() -> Imported:
        session = Session(database.dsn, "kairos tests")
        try:
            return await import_bundle(session, path)
        finally:
            await session.close()

    return asyncio.run(work())


def read(database: TestDatabase, run_id: UUID) -> RunRecord:
    async def work() -> RunRecord:
        session = Session(database.dsn, "kairos tests")
        try:
            return await read_record(Reader(session), run_id)
        finally:
            await session.close()

    return asyncio.run(work())


def part_of(record: RunRecord, count: int, path: Path) -> Path:
    """A bundle of the run as it was after so many events."""
    part = RunRecord(record.run_id, record.fingerprint, record.definition, record.rows[:count], record.blobs)
    kept = {digest: record.blobs[digest] for digest in part.referred}
    return write_bundle(replace(part, blobs=kept), path).path


@pytest.fixture
def here(run_kairos: Kairos, database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> Kairos:
    """Runs a command on the fresh database."""
    monkeypatch.setenv("KAIROS_DATABASE_URL", database.dsn)
    return run_kairos


@pytest.mark.parametrize("title", ["good", "bad"])
def test_an_imported_run_is_what_it_was(
    here: Kairos, database: TestDatabase, record_of: RecordOf, tmp_path: Path, title: str
) -> None:
    record = record_of(title)
    path = write_bundle(record, tmp_path / "run.kairos").path
    done = here("import", str(path))
    assert done.code == 0
    assert done.lines[0] == f"✓ imported  order {record.run_id}"
    found = read(database, record.run_id)
    assert (found.rows, found.blobs, found.definition) == (record.rows, record.blobs, record.definition)
    assert here("verify", "--all", "--json").json["problems"] == []
    assert here("diff", str(path), str(record.run_id)).code == 0
    assert str(record.run_id) in here("show", "last").out
    assert [row["id"] for row in here("runs", "--json").json["runs"]] == [str(record.run_id)]
    assert write_bundle(found, tmp_path / "again.kairos").path.read_bytes() == path.read_bytes()


def test_importing_again_changes_nothing(database: TestDatabase, record_of: RecordOf, tmp_path: Path) -> None:
    path = write_bundle(record_of("good"), tmp_path / "run.kairos").path
    shorter = part_of(record_of("good"), 5, tmp_path / "short.kairos")
    assert [bring(database, file).outcome for file in (path, path, shorter)] == ["imported", "known", "known"]
    assert database.fetch("select count(*) from kairos.imported_run") == [(1,)]


def test_a_run_that_is_at_home_is_known(told: tuple[TestDatabase, dict[str, UUID]], bundle: Path) -> None:
    assert bring(told[0], bundle).outcome == "known"
    assert told[0].fetch("select count(*) from kairos.imported_run") == [(0,)]


def test_a_run_that_had_not_ended_is_evidence(
    here: Kairos, database: TestDatabase, record_of: RecordOf, tmp_path: Path
) -> None:
    record = record_of("good")
    path = part_of(record, 5, tmp_path / "open.kairos")
    said = here("import", str(path))
    assert "no worker takes it up" in said.out
    run_id = str(record.run_id)
    assert database.fetch("select count(*) from kairos.task") == [(0,)]
    assert here("verify", run_id).code == 0
    assert here("why", run_id, "--json").json["kind"] == "imported"
    assert not [f for f in here("doctor", "--json").json["findings"] if "task" in f["code"]]
    with working(app, database.dsn), kairos.Client(database.dsn) as client:
        other = client.start(app.get("order"), {"card": "1", "amount": 1})
        other.wait(30)
        assert client.get_run(run_id).info.seq == 5
        with pytest.raises(Refused, match="was imported: it is evidence"):
            client.cancel(run_id, "no")
    assert "was imported" in here("cancel", run_id).err
    assert "so nothing more happens" in here("watch", run_id).err
    assert here("verify", "--all").code == 0


def test_a_longer_part_of_the_same_history_continues_it(
    database: TestDatabase, record_of: RecordOf, tmp_path: Path
) -> None:
    record = record_of("bad")
    outcomes = [bring(database, part_of(record, n, tmp_path / f"{n}.kairos")).outcome for n in (3, 7, len(record.rows))]
    assert outcomes == ["imported", "extended", "extended"]
    assert read(database, record.run_id).rows == record.rows
    assert database.fetch("select status from kairos.failure") == [("FAILED",)]


def test_another_history_is_refused(database: TestDatabase, record_of: RecordOf, tmp_path: Path) -> None:
    record = record_of("good")
    run = OpenRun(RunState(record.run_id, record.definition.graph), first_hash(record.run_id))
    first = record.history[0]
    assert isinstance(first.event, RunScheduled)
    other = msgspec.structs.replace(first.event, input=Payload.of(b'{"amount":99}'))
    rows = [run.record(other, first.at)]
    forged = RunRecord(record.run_id, record.fingerprint, record.definition, rows)
    bring(database, write_bundle(record, tmp_path / "a.kairos").path)
    path = write_bundle(forged, tmp_path / "b.kairos").path
    with pytest.raises(BundleError, match="is here with another history: event 1 differs"):
        bring(database, path)
    assert read(database, record.run_id).rows == record.rows


def test_what_cannot_be_proved_is_not_imported(
    here: Kairos, database: TestDatabase, record_of: RecordOf, tmp_path: Path
) -> None:
    path = write_bundle(record_of("good"), tmp_path / "r.kairos", redact=Redaction(fields=["card"])).path
    done = here("import", str(path))
    assert (done.code, done.out) == (exits.NO_SUCH_RUN, "")
    assert "was redacted" in done.err
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    assert here("import", str(path)).code == exits.NO_SUCH_RUN
    assert database.fetch("select count(*) from kairos.run") == [(0,)]


def test_a_fork_comes_after_its_parent(
    here: Kairos,
    told: tuple[TestDatabase, dict[str, UUID]],
    database: TestDatabase,
    record_of: RecordOf,
    tmp_path: Path,
) -> None:
    with kairos.Client(told[0].dsn) as client:
        fork = client.fork(str(told[1]["good"]), from_step="confirm", reason="again", author="me")
    record = read(told[0], UUID(str(fork.id)))
    path = write_bundle(record, tmp_path / "fork.kairos").path
    opened = open_bundle(path)
    output = opened.state.steps["reserve"].output
    short = opened.state.steps["charge"].output
    assert output is not None
    assert short is not None
    assert opened.bytes_of(output).startswith(b'{"card"')
    assert opened.bytes_of(short) == b'{"charged":12,"paid_with":"4111-1111-1111-1111"}'
    with pytest.raises(BundleError, match="is a fork of run"):
        bring(database, path)
    assert database.fetch("select count(*) from kairos.run") == [(0,)]
    bring(database, write_bundle(record_of("good"), tmp_path / "parent.kairos").path)
    assert bring(database, path).outcome == "imported"
    assert read(database, record.run_id).rows == record.rows
    assert here("verify", "--all", "--json").json["problems"] == []


def test_an_imported_run_can_be_forked_and_then_goes_on(
    database: TestDatabase, record_of: RecordOf, tmp_path: Path
) -> None:
    record = record_of("bad")
    bring(database, write_bundle(record, tmp_path / "run.kairos").path)
    with working(app, database.dsn), kairos.Client(database.dsn) as client:
        fork = client.fork(
            str(record.run_id), from_step="charge", set={"input.amount": 5}, reason="a sign", author="me"
        )
        assert fork.wait(30).status == "DONE"
    assert read(database, record.run_id).rows == record.rows


def aged(record: RunRecord, count: int) -> RunRecord:
    """The first events of a run as if they had happened ten years ago, under an id of that time."""
    age = timedelta(days=3650)
    first = record.history[0].at - age
    run_id = UUID(int=(int(first.timestamp() * 1000) << 80) | 7 << 76 | 2 << 62 | 1)
    run = OpenRun(RunState(run_id, record.definition.graph), first_hash(run_id))
    rows = [run.record(recorded.event, recorded.at - age) for recorded in record.history[:count]]
    return RunRecord(run_id, record.fingerprint, record.definition, rows, record.blobs)


def test_retention_lets_an_imported_run_go_once_it_is_released(
    here: Kairos, database: TestDatabase, record_of: RecordOf, tmp_path: Path
) -> None:
    record = aged(record_of("good"), 5)
    here("import", str(write_bundle(record, tmp_path / "old.kairos").path))
    retention = ("retention", "--older-than", "30d", "--json", "--database-url", database.admin_dsn)
    assert here(*retention).json["removed_runs"] == 0
    here("keep", str(record.run_id), "--release")
    assert here(*retention).json["removed_runs"] == 1
    assert database.fetch("select count(*) from kairos.imported_run") == [(0,)]


def test_a_bundle_is_looked_at_without_a_database(
    here: Kairos, record_of: RecordOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAIROS_DATABASE_URL", "postgresql://127.0.0.1:1/x")
    good = str(write_bundle(record_of("good"), tmp_path / "good.kairos").path)
    bad = str(write_bundle(record_of("bad"), tmp_path / "bad.kairos").path)
    page = here("show", good)
    assert page.code == 0
    assert "charged 12 né 名前" in page.out
    assert here("show", good, "--json").json["run"]["status"] == "DONE"
    assert "ValueError: a negative amount" in here("show", bad).out
    assert len(here("events", good, "--json").json) == len(record_of("good").rows)
    assert here("events", good, "--kind", "step_done").code == 0
    assert here("state", good, "--at", "5", "--json").json["seq"] == 5
    assert here("state", good, "--at", "99").code == exits.USAGE
    assert here("events", good, "--follow").code == exits.USAGE
    shape = str(write_bundle(record_of("good"), tmp_path / "shape.kairos", payloads=False).path)
    assert here("show", shape).code == 0
    still = str(part_of(record_of("good"), 5, tmp_path / "open.kairos"))
    assert "It was RUNNING when this file was written." in here("show", still).out
    for command in ("show", "events", "state"):
        missing = here(command, "nowhere.kairos")
        assert (missing.code, missing.out) == (exits.NO_SUCH_RUN, "")
