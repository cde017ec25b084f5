"""A run in one file: what is written, what is refused, what a flipped byte or a cut does."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kairos.authoring.redaction import Redaction
from kairos.domain import canonical
from kairos.domain.events import LogEmitted, StepDone
from kairos.errors import BundleError, HistoryError
from kairos.replay.bundle import CAPS, export_bundle, open_bundle, verify_bundle, write_bundle
from kairos.replay.bundle.container import seal_of
from kairos.replay.bundle.erasing import Eraser, any_of
from kairos.replay.bundle.layout import SEAL_SIZE
from kairos.replay.record import RunRecord
from kairos.store.connect import Session
from kairos.store.drive import OpenRun
from kairos.store.reader import Reader
from tests.conftest import TestDatabase

RecordOf = Callable[[str], RunRecord]
CARD = "4111-1111-1111-1111"


def sealed(raw: bytes) -> bytes:
    """The bytes of a bundle with a seal that fits them, as a forger would make it."""
    return raw[:-SEAL_SIZE] + seal_of(BytesIO(raw), len(raw) - SEAL_SIZE)


def repacked(path: Path, change: Callable[[dict[str, bytes]], Any]) -> Path:
    """A bundle of which some entries were changed, packed and sealed anew. Its manifest is as it was."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in entries.items():
            archive.writestr(name, raw)
        archive.comment = b"." * SEAL_SIZE
    other = path.with_name("repacked.kairos")
    other.write_bytes(sealed(made.getvalue()))
    return other


def forged(path: Path, change: Callable[[dict[str, bytes], dict[str, Any]], Any]) -> Path:
    """As `repacked`, with digests and sizes in the manifest that fit."""
    from hashlib import sha256

    def forge(entries: dict[str, bytes]) -> None:
        manifest = json.loads(entries["manifest.json"])
        change(entries, manifest)
        for name, raw in entries.items():
            if name != "manifest.json":
                manifest["entries"][name] = {"size": len(raw), "sha256": sha256(raw).hexdigest()}
        entries["manifest.json"] = json.dumps(manifest).encode()

    return repacked(path, forge)


def content(record: RunRecord) -> tuple[Any, ...]:
    """What must not differ between two records of one run."""
    return record.run_id, list(record.rows), record.definition, dict(record.blobs), record.redactions


def problem_of(path: Path) -> tuple[str | None, str]:
    report = verify_bundle(path)
    assert not report.is_whole
    with pytest.raises(BundleError):
        open_bundle(path)
    return report.code, report.problem or ""


@pytest.mark.parametrize("title", ["good", "bad"])
def test_a_run_comes_back_as_it_was(record_of: RecordOf, tmp_path: Path, title: str) -> None:
    record = record_of(title)
    written = write_bundle(record, tmp_path / "run.kairos")
    opened = open_bundle(written.path)
    assert content(opened) == content(record)
    assert opened.state == record.state
    assert opened.source == str(tmp_path / "run.kairos")
    assert (written.events, written.values, written.size) == (len(record.rows), 1, written.path.stat().st_size)
    for recorded in opened.history:
        if isinstance(recorded.event, StepDone):
            assert opened.bytes_of(recorded.event.output) == record.bytes_of(recorded.event.output)
    report = verify_bundle(written.path)
    assert (report.is_whole, report.events, report.values) == (True, len(record.rows), 1)


def test_the_same_run_gives_the_same_bytes(
    told: tuple[TestDatabase, dict[str, UUID]], record_of: RecordOf, tmp_path: Path
) -> None:
    first = write_bundle(record_of("good"), tmp_path / "a.kairos").path.read_bytes()

    async def export() -> None:
        session = Session(told[0].dsn, "kairos tests")
        await export_bundle(Reader(session), told[1]["good"], tmp_path / "b.kairos")
        await session.close()

    asyncio.run(export())
    assert (tmp_path / "b.kairos").read_bytes() == first
    assert write_bundle(open_bundle(tmp_path / "b.kairos"), tmp_path / "c.kairos").path.read_bytes() == first


def test_a_bundle_is_private_and_replaces_nothing_unasked(record_of: RecordOf, tmp_path: Path) -> None:
    record, path = record_of("good"), tmp_path / "run.kairos"
    write_bundle(record, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(BundleError, match="is there already"):
        write_bundle(record_of("bad"), path)
    assert open_bundle(path).run_id == record.run_id
    write_bundle(record_of("bad"), path, force=True)
    assert open_bundle(path).run_id != record.run_id
    assert os.listdir(tmp_path) == ["run.kairos"]


def test_a_file_made_meanwhile_is_not_replaced(
    record_of: RecordOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.kairos"
    monkeypatch.setattr(Path, "exists", lambda self: False)
    path.write_text("mine")
    with pytest.raises(BundleError, match="is there already"):
        write_bundle(record_of("good"), path)
    assert path.read_text() == "mine"
    assert os.listdir(tmp_path) == ["run.kairos"]


def test_what_cannot_be_written_leaves_nothing(record_of: RecordOf, tmp_path: Path) -> None:
    record = record_of("good")
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(record, tmp_path / "nowhere" / "run.kairos")
    lost = RunRecord(record.run_id, record.fingerprint, record.definition, record.rows)
    with pytest.raises(HistoryError, match="is not in database"):
        write_bundle(lost, tmp_path / "run.kairos")
    assert os.listdir(tmp_path) == []


def test_a_broken_history_is_not_exported(record_of: RecordOf, tmp_path: Path) -> None:
    record = record_of("good")
    rows = list(record.rows)
    rows[3] = msgspec.structs.replace(rows[3], at=rows[4].at.replace(microsecond=1))
    with pytest.raises(HistoryError, match="its history is not whole"):
        write_bundle(replace(record, rows=rows), tmp_path / "run.kairos")


# -- redaction ------------------------------------------------------------------------------------------------


def everything(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def test_a_redacted_field_is_nowhere_in_the_file(record_of: RecordOf, tmp_path: Path) -> None:
    path = write_bundle(record_of("good"), tmp_path / "run.kairos", redact=Redaction(fields=["card"])).path
    assert CARD.encode() not in everything(path)
    report = verify_bundle(path)
    assert report.is_whole, report.problem
    events = report.redactions.events
    assert events[1] == ("input.card", "labels.card")
    assert "error.message" in events[7]
    assert events[11] == ("output.paid_with",)
    assert list(report.redactions.blobs.values()) == [("card",)]
    record = open_bundle(path)
    outputs = {e.event.step: e.event.output for e in record.history if isinstance(e.event, StepDone)}
    assert json.loads(record.bytes_of(outputs["reserve"]))["card"] == "[redacted]"
    assert record.is_redacted(4, outputs["reserve"])
    assert record.is_redacted(11, outputs["charge"])
    assert not record.is_redacted(13, outputs["confirm"])


def test_a_pattern_is_blanked_and_not_told(record_of: RecordOf, tmp_path: Path) -> None:
    path = write_bundle(record_of("good"), tmp_path / "run.kairos", redact=Redaction(patterns=[r"4111-\d+"])).path
    assert b"4111-" not in everything(path)
    assert verify_bundle(path).is_whole


def test_without_payloads_only_the_shape_is_left(record_of: RecordOf, tmp_path: Path) -> None:
    path = write_bundle(record_of("good"), tmp_path / "run.kairos", payloads=False).path
    with zipfile.ZipFile(path) as archive:
        log = archive.read("events.ndjson").decode()
    assert CARD.encode() not in everything(path)
    assert b"key-good" not in everything(path)
    assert not [word for word in ("charging", "no answer for 4", "名前") if word in log]
    report = verify_bundle(path)
    assert report.is_whole, report.problem
    assert list(report.redactions.omitted.values()) == [3060]
    record = open_bundle(path)
    assert record.state.steps["charge"].failures == 1
    output = record.state.steps["reserve"].output
    assert output is not None
    with pytest.raises(HistoryError, match="was left out of"):
        record.bytes_of(output)


def test_a_redacted_bundle_can_be_redacted_further(record_of: RecordOf, tmp_path: Path) -> None:
    first = write_bundle(record_of("good"), tmp_path / "a.kairos", redact=Redaction(fields=["card"])).path
    second = write_bundle(open_bundle(first), tmp_path / "b.kairos", redact=Redaction(fields=["amount"])).path
    report = verify_bundle(second)
    assert report.is_whole, report.problem
    assert report.redactions.events[1] == ("input.card", "labels.card", "input.amount")


def test_a_change_cannot_pass_for_a_redaction(record_of: RecordOf, tmp_path: Path) -> None:
    path = write_bundle(record_of("good"), tmp_path / "run.kairos").path

    def change(entries: dict[str, bytes], manifest: dict[str, Any]) -> None:
        entries["events.ndjson"] = entries["events.ndjson"].replace(b'"charged":12', b'"charged":99')
        manifest["redaction"]["events"] = {"11": {"paths": ["output.charged"], "count": 1}}

    assert problem_of(forged(path, change)) == (
        "changed",
        f"{tmp_path}/repacked.kairos: event 11 is listed as redacted, but was changed where nothing is blanked",
    )


# -- what is refused ------------------------------------------------------------------------------------------


def test_a_changed_event_breaks_the_chain_however_well_it_is_sealed(bundle: Path) -> None:
    changed = forged(
        bundle,
        lambda entries, _: entries.update(
            {"events.ndjson": entries["events.ndjson"].replace(b'"amount":12', b'"amount":13', 1)}
        ),
    )
    code, message = problem_of(changed)
    assert code == "history"
    assert "event 1 (run_scheduled), or the one before it, was changed" in message
    assert verify_bundle(changed).seq == 1


def first_blob(entries: dict[str, bytes]) -> str:
    return next(name for name in entries if name.startswith("blobs/"))


FORGERIES: dict[str, tuple[str, Callable[[dict[str, bytes], dict[str, Any]], Any]]] = {
    "a changed value": ("changed", lambda e, m: e.update({first_blob(e): e[first_blob(e)].replace(b"s7", b"s8")})),
    "a missing value": ("missing", lambda e, m: (m["entries"].pop(first_blob(e)), e.pop(first_blob(e)))),
    "a value nobody refers to": ("foreign", lambda e, m: e.update({"blobs/" + "0" * 64: b"1"})),
    "a newer format": ("future", lambda e, m: m.update({"version": 2})),
    "another format": ("foreign", lambda e, m: m.update({"format": "zip"})),
    "an unknown fact": ("unreadable", lambda e, m: m.update({"extra": 1})),
    "a fact of another type": ("unreadable", lambda e, m: m.update({"events": "many"})),
    "a status that is none": ("history", lambda e, m: m["run"].update({"status": "FINE"})),
    "another status": ("history", lambda e, m: m["run"].update({"status": "FAILED"})),
    "another run": ("history", lambda e, m: m["run"].update({"id": str(UUID(int=1))})),
    "another length": ("missing", lambda e, m: m.update({"events": 3})),
    "a cut log": ("missing", lambda e, m: e.update({"events.ndjson": e["events.ndjson"].split(b"\n")[0] + b"\n"})),
    "a log without end": ("broken", lambda e, m: e.update({"events.ndjson": e["events.ndjson"][:-1]})),
    "no log": ("missing", lambda e, m: e.update({"events.ndjson": b""})),
    "an unknown kind": (
        "history",
        lambda e, m: e.update({"events.ndjson": e["events.ndjson"].replace(b'"timer_fired"', b'"timer_melted"')}),
    ),
    "a line that is no event": ("unreadable", lambda e, m: e.update({"events.ndjson": b'{"seq":1}\n' * m["events"]})),
    "a deep line": ("unreadable", lambda e, m: e.update({"events.ndjson": (b"[" * 9999 + b"\n") * m["events"]})),
    "a definition that is none": ("unreadable", lambda e, m: e.update({"definition.json": b"[1, 2]"})),
    "another definition": (
        "changed",
        lambda e, m: e.update({"definition.json": e["definition.json"].replace(b'_limit":3', b'_limit":4')}),
    ),
    "a redacted event that is not there": (
        "unreadable",
        lambda e, m: m["redaction"]["events"].update({"99": {"paths": ["x"], "count": 1}}),
    ),
    "a redacted value that is not there": (
        "unreadable",
        lambda e, m: m["redaction"]["blobs"].update({"f" * 64: {"paths": ["x"], "count": 1}}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_refused(bundle: Path, name: str) -> None:
    code, change = FORGERIES[name]
    found = problem_of(forged(bundle, change))
    assert found[0] == code, found


def test_a_blob_that_does_not_fit_the_manifest_is_refused(bundle: Path) -> None:
    assert problem_of(repacked(bundle, lambda e: e.update({first_blob(e): b"{}"})))[0] == "changed"


def with_entry(name: str, raw: bytes = b"1") -> Callable[[dict[str, bytes]], Any]:
    return lambda entries: entries.update({name: raw})


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "blobs/x", "code.py", "blobs/", "Manifest.json"])
def test_an_entry_that_no_bundle_has_is_refused(bundle: Path, name: str) -> None:
    assert problem_of(repacked(bundle, with_entry(name)))[0] in ("foreign", "broken")


def test_a_name_that_hides_another_is_refused(bundle: Path) -> None:
    path = repacked(bundle, with_entry("events.ndjson@.txt"))
    path.write_bytes(sealed(path.read_bytes().replace(b"ndjson@", b"ndjson\0")))
    assert problem_of(path)[0] == "foreign"
    path = repacked(bundle, with_entry("events.ndjsom"))
    path.write_bytes(sealed(path.read_bytes().replace(b"ndjsom", b"ndjson")))
    assert "two entries" in problem_of(path)[1]


def test_what_would_become_too_large_is_refused_before_it_is_unpacked(bundle: Path) -> None:
    bomb = repacked(bundle, with_entry("blobs/" + "0" * 64, b"\0" * 40_000_000))
    assert problem_of(bomb)[1].endswith("would become over 200 times larger than it is here")
    assert verify_bundle(bundle, caps=replace(CAPS, entries=3)).code == "too_large"
    assert verify_bundle(bundle, caps=replace(CAPS, total=5000)).code == "too_large"
    assert verify_bundle(bundle, caps=replace(CAPS, entry=500)).code == "too_large"
    assert verify_bundle(bundle, caps=replace(CAPS, events=500)).code == "too_large"


def test_a_value_that_packs_well_is_not_taken_for_an_attack(record_of: RecordOf, tmp_path: Path) -> None:
    from kairos.domain.payload import Payload

    record = record_of("good")
    state = record.state
    run = OpenRun(state.__class__(record.run_id, record.definition.graph), b"")
    from kairos.store.codec import first_hash

    run.head_hash = first_hash(record.run_id)
    value = Payload.of(b'"' + b"x" * 3_000_000 + b'"')
    rows = []
    for recorded in record.history:
        event = recorded.event
        if isinstance(event, StepDone) and event.step == "reserve":
            event = msgspec.structs.replace(event, output=value)
        rows.append(run.record(event, recorded.at))
    raw = value.data
    assert raw is not None
    big = RunRecord(record.run_id, record.fingerprint, record.definition, rows, {value.digest: raw})
    path = write_bundle(big, tmp_path / "big.kairos").path
    assert open_bundle(path).blobs[value.digest] == raw


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "foreign"),
        (b"PK\x03\x04", "foreign"),
        (b"hello", "foreign"),
        (b"PK\x05\x06" + b"\0" * 18, "foreign"),
        (os.urandom(4000), "foreign"),
    ],
    ids=["empty", "four bytes", "text", "an empty zip", "noise"],
)
def test_another_file_is_no_bundle(tmp_path: Path, raw: bytes, code: str) -> None:
    path = tmp_path / "x.kairos"
    path.write_bytes(raw)
    assert problem_of(path)[0] == code


def test_a_zip_of_something_else_is_no_bundle(tmp_path: Path, bundle: Path) -> None:
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "a")
    assert problem_of(other)[0] == "foreign"
    assert problem_of(repacked(bundle, lambda entries: entries.pop("manifest.json")))[0] == "foreign"
    with bundle.open("rb") as file:
        prefixed = b"#!/bin/sh\n" + file.read()
    other.write_bytes(sealed(prefixed))
    assert problem_of(other)[0] == "foreign"


def test_an_encrypted_or_scattered_archive_is_refused(bundle: Path) -> None:
    raw = bytearray(bundle.read_bytes())
    end = len(raw) - SEAL_SIZE - 22
    raw[end + 4] = 1
    bundle.write_bytes(sealed(bytes(raw)))
    assert "several disks" in problem_of(bundle)[1]
    raw[end + 4] = 0
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    bundle.write_bytes(sealed(bytes(raw)))
    assert "encrypted" in problem_of(bundle)[1]


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.kairos")
    assert problem_of(tmp_path / "pipe.kairos")[0] == "no_file"
    assert problem_of(tmp_path)[0] == "no_file"
    assert problem_of(tmp_path / "none.kairos")[0] == "no_file"
    assert problem_of(tmp_path / "nul\0.kairos")[0] == "no_file"


def test_a_file_that_is_changed_while_it_is_in_use_gives_no_wrong_value(bundle: Path, tmp_path: Path) -> None:
    record = open_bundle(bundle)
    digest = next(iter(record.blobs))
    raw = bundle.read_bytes()
    bundle.write_bytes(raw[: len(raw) // 3] + bytes([raw[len(raw) // 3] ^ 1]) + raw[len(raw) // 3 + 1 :])
    damaged = 0
    for place in range(0, len(raw), 97):
        bundle.write_bytes(raw[:place] + bytes([raw[place] ^ 0x55]) + raw[place + 1 :])
        try:
            assert record.blobs[digest] == open_bundle_bytes(raw, tmp_path, digest)
        except BundleError:
            damaged += 1
    assert damaged
    bundle.unlink()
    with pytest.raises(BundleError):
        record.blobs[digest]


def open_bundle_bytes(raw: bytes, folder: Path, digest: str) -> bytes:
    path = folder / "copy.kairos"
    path.write_bytes(raw)
    return open_bundle(path).blobs[digest]


# -- damage ---------------------------------------------------------------------------------------------------

FUZZ = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(data=st.data())
def test_a_flipped_byte_is_always_noticed(bundle: Path, data: st.DataObject) -> None:
    raw = bundle.with_suffix(".whole")
    if not raw.exists():
        shutil.copy(bundle, raw)
    original = raw.read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    bits = data.draw(st.integers(1, 255))
    bundle.write_bytes(original[:place] + bytes([original[place] ^ bits]) + original[place + 1 :])
    problem_of(bundle)


@FUZZ
@given(data=st.data())
def test_a_truncated_file_is_always_noticed(bundle: Path, data: st.DataObject) -> None:
    raw = bundle.with_suffix(".whole")
    if not raw.exists():
        shutil.copy(bundle, raw)
    original = raw.read_bytes()
    bundle.write_bytes(original[: data.draw(st.integers(0, len(original) - 1))])
    problem_of(bundle)


@FUZZ
@given(data=st.data())
def test_a_flip_that_is_sealed_anew_is_refused_or_changes_nothing(bundle: Path, data: st.DataObject) -> None:
    raw = bundle.with_suffix(".whole")
    if not raw.exists():
        shutil.copy(bundle, raw)
    original = raw.read_bytes()
    place = data.draw(st.integers(0, len(original) - 1 - SEAL_SIZE))
    bits = data.draw(st.integers(1, 255))
    bundle.write_bytes(sealed(original[:place] + bytes([original[place] ^ bits]) + original[place + 1 :]))
    report = verify_bundle(bundle)
    if report.is_whole:
        shutil.copy(raw, raw.with_suffix(".kairos2"))
        assert content(open_bundle(bundle)) == content(open_bundle(raw.with_suffix(".kairos2")))


@FUZZ
@given(data=st.data())
def test_a_flip_inside_an_entry_is_never_accepted(bundle: Path, data: st.DataObject) -> None:
    def flip(entries: dict[str, bytes], manifest: dict[str, Any]) -> None:
        name = data.draw(st.sampled_from(["events.ndjson", "definition.json", first_blob(entries)]))
        raw = entries[name]
        place = data.draw(st.integers(0, len(raw) - 1))
        entries[name] = raw[:place] + bytes([raw[place] ^ data.draw(st.integers(1, 255))]) + raw[place + 1 :]

    whole = bundle.with_suffix(".whole")
    if not whole.exists():
        shutil.copy(bundle, whole)
    path = forged(whole, flip)
    if verify_bundle(path).is_whole:
        opened, known = open_bundle(path), open_bundle(whole)
        assert (opened.rows, dict(opened.blobs)) == (known.rows, dict(known.blobs))
        assert opened.definition.graph == known.definition.graph
        assert (opened.definition.code, opened.definition.schemas) == (known.definition.code, known.definition.schemas)
        assert opened.definition.sources == known.definition.sources


def test_a_source_that_did_not_run_is_refused(bundle: Path) -> None:
    def forge(entries: dict[str, bytes], manifest: dict[str, Any]) -> None:
        definition = json.loads(entries["definition.json"])
        step = next(iter(definition["sources"]))
        definition["sources"][step] += "    # and more\n"
        entries["definition.json"] = canonical.encode(definition)

    report = verify_bundle(forged(bundle, forge))
    assert report.code == "changed"
    assert "is not the one that ran" in (report.problem or "")


def test_a_log_line_keeps_its_letters(record_of: RecordOf, tmp_path: Path) -> None:
    record = open_bundle(write_bundle(record_of("good"), tmp_path / "run.kairos").path)
    assert [r.event.message for r in record.history if isinstance(r.event, LogEmitted)] == ["charging", "charging"]


@given(st.sets(st.text("ab|.*", min_size=1, max_size=40), min_size=1, max_size=12), st.text("ab|.*", max_size=80))
def test_any_of_many_texts_is_found_the_longest_first(values: set[str], text: str) -> None:
    expected, place = "", 0
    while place < len(text):
        found = max((value for value in values if text.startswith(value, place)), key=len, default="")
        expected += "#" if found else text[place]
        place += len(found) or 1
    assert any_of(values).sub("#", text) == expected


@pytest.mark.parametrize(
    ("text", "cleared"),
    [
        ("Card(cvc=123, n=4)", "Card(cvc=[redacted], n=4)"),
        ("{'total_cents': 301, 'n': 4}", "{'total_cents': [redacted], 'n': 4}"),
        ('{"cents":7}', '{"cents":[redacted]}'),
        ("cvc: 'a\\'b' more", "cvc: [redacted] more"),
        ("no cvc here: it is fine", "no cvc here: it is fine"),
        ("recents=3 accent: 4", "recents=[redacted] accent: 4"),
        ("cents=[1, 2]", "cents=[1, 2]"),
    ],
)
def test_a_short_value_is_blanked_where_its_name_stands_beside_it(text: str, cleared: str) -> None:
    eraser = Eraser(Redaction(fields=["*cents", "cvc"]))
    raw, paths = eraser.blob(canonical.encode({"note": text}))
    assert json.loads(raw)["note"] == cleared
    assert paths == ([] if cleared == text else ["note"])
