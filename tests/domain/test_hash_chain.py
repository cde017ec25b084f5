"""The chain over a run's log: any change of any stored byte, of order or of length is found, and where."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace
from run_stories import MICROSECOND, NOON, RUN_ID, SECOND, Story, graph_of, spec

from kairos.domain import canonical
from kairos.domain.commands import EmitLog, EmitMetric, FailStep, RejectWrite, RequestCancel
from kairos.domain.error_info import ErrorInfo, Frame
from kairos.domain.payload import Payload
from kairos.domain.projection import project
from kairos.store import codec
from kairos.store.codec import Row, first_hash, link


def first_bad_seq(rows: list[Row], head: tuple[int, bytes], run_id: UUID = RUN_ID) -> int | None:
    """The place of the first row that is not what was appended there; `head` is the end as it was recorded."""
    previous = first_hash(run_id)
    for place, row in enumerate(rows, 1):
        due = link(previous, row.seq, row.kind, row.at, row.step, row.attempt, row.token, row.body)
        if row.seq != place or row.hash != due:
            return place
        previous = row.hash
    return None if (len(rows), previous) == head else len(rows) + 1


def rich_story() -> Story:
    """Inline payloads and blobs, errors, unicode, lost leases, evidence, a cancel: most kinds of rows."""
    graph = graph_of(a="", b="a", c="a", d=spec("d", "b c"), e="")
    labels = {"städte": "東京", "emoji": "🙂"}
    story = Story(graph, key="order-42", labels=labels, input=Payload.of(canonical.encode({"naïve": "\0"})))
    story.claim("wörker").start("a").wait(SECOND).finish("a", output=Payload.of(canonical.encode("x" * 2000)))
    story.start("b", "c", worker="helper", isolated=True)
    error = ErrorInfo(
        "shop.Declined", "no «funds»\n\u2028", (Frame("é.py", 1, "f", "raise"),), {"x": "'\\x00'"}, ("n",)
    )
    story.ask(EmitLog("b", *story.attempt("b"), "info", "50 %\n", {"rows": [1, 2.5, None], "é": {"k": "v"}}))
    story.ask(EmitMetric("b", *story.attempt("b"), "rows", -0.0, {"k": "v"}))
    story.ask(FailStep("b", *story.attempt("b"), error, duration_us=12, timed_out=True))
    late = story.attempt("c")
    story.lose("c", worker="helper", signal="SIGKILL", alone=True, suspect=True)
    story.ask(RejectWrite("c", *late, "helper", "step_done"))
    story.wait(10 * SECOND).start("b", "c").finish("b")
    story.ask(RequestCancel("ann", "größer"))
    story.finish("c")
    return story


STORY = rich_story()
HEAD = (len(STORY.rows), STORY.run.head_hash)
FIELDS = ["seq", "kind", "at", "step", "attempt", "token", "hash", "body"]


def test_the_story_has_what_is_to_be_guarded() -> None:
    kinds = {row.kind for row in STORY.rows}
    assert len(kinds) >= 13
    assert b"output_blob" in b"".join(row.body for row in STORY.rows)
    assert STORY.state.status == "CANCELLED"


def test_an_untouched_log_verifies_and_folds_to_what_was_recorded() -> None:
    assert first_bad_seq(STORY.rows, HEAD) is None
    assert project(RUN_ID, STORY.state.graph, map(codec.decode, STORY.rows)) == STORY.state


@pytest.mark.parametrize("place", range(1, HEAD[0] + 1))
def test_every_changed_byte_of_every_body_and_hash_is_found_in_its_place(place: int) -> None:
    row = STORY.rows[place - 1]
    for name in ("body", "hash"):
        raw = getattr(row, name)
        for i in range(len(raw)):
            for flip in (0x01, 0x20, 0x80):
                changed = raw[:i] + bytes([raw[i] ^ flip]) + raw[i + 1 :]
                _check_found(place, replace(row, **{name: changed}))
        for changed in (raw[:-1], raw[1:], raw + b" ", b" " + raw, raw + b"\n", b""):
            _check_found(place, replace(row, **{name: changed}))


@pytest.mark.parametrize("place", range(1, HEAD[0] + 1))
def test_every_changed_column_is_found_in_its_place(place: int) -> None:
    row = STORY.rows[place - 1]
    changes = [
        replace(row, at=row.at + MICROSECOND),
        replace(row, at=row.at - MICROSECOND),
        replace(row, at=row.at.replace(year=1969)),
        replace(row, seq=row.seq + 1),
        replace(row, seq=row.seq - 1),
        replace(row, kind=row.kind + "x"),
        replace(row, kind=row.kind[:-1]),
        replace(row, step="x"),
        replace(row, step=(row.step or "") + "\n"),
        replace(row, attempt=7),
        replace(row, token=7),
        replace(row, attempt=0),
        replace(row, token=0),
        replace(row, step=None),
        replace(row, attempt=None),
        replace(row, token=None),
        replace(row, attempt=row.token, token=row.attempt),
    ]
    for changed in changes:
        if changed != row:
            _check_found(place, changed)


def test_no_column_can_flow_into_its_neighbour() -> None:
    columns = [
        [1, 11],
        ["k", "k1"],
        [NOON, NOON + MICROSECOND],
        [None, "1", "11", "a"],
        [None, 0, 1, 11],
        [None, 0, 1, 11],
        [b"{}", b"1", b"11"],
    ]
    rows: list[Any] = list(product(*columns))
    assert len({link(b"", *row) for row in rows}) == len(rows)


REWRITES: dict[str, Callable[[list[Row]], list[Row]]] = {
    "the last row is cut off": lambda rows: rows[:-1],
    "the last five rows are cut off": lambda rows: rows[:-5],
    "all rows are gone": lambda rows: [],
    "the first row is gone": lambda rows: rows[1:],
    "a row in the middle is gone": lambda rows: rows[:6] + rows[7:],
    "a row in the middle is gone and the rest renumbered": lambda rows: (
        rows[:6] + [replace(row, seq=row.seq - 1) for row in rows[7:]]
    ),
    "two neighbours have changed places": lambda rows: [*rows[:6], rows[7], rows[6], *rows[8:]],
    "two neighbours have changed places and numbers": lambda rows: [
        *rows[:6],
        replace(rows[7], seq=rows[6].seq),
        replace(rows[6], seq=rows[7].seq),
        *rows[8:],
    ],
    "a row is there twice": lambda rows: [*rows[:6], rows[5], *rows[6:]],
    "a row is added at the end": lambda rows: [*rows, rows[-1]],
    "a row is added at the end with a good hash": lambda rows: [*rows, chained(rows[-1], rows[-1].hash, len(rows) + 1)],
    "the last row is written anew with a good hash": lambda rows: rechained(rows, len(rows)),
    "all from the middle on is written anew with good hashes": lambda rows: rechained(rows, 7),
    "the whole log is written anew with good hashes": lambda rows: rechained(rows, 1),
}


@pytest.mark.parametrize("name", REWRITES)
def test_a_log_that_was_rewritten_is_found(name: str) -> None:
    assert first_bad_seq(REWRITES[name](STORY.rows), HEAD) is not None


def test_a_log_cannot_be_passed_off_as_that_of_another_run() -> None:
    assert first_bad_seq(STORY.rows, HEAD, UUID(int=7)) == 1


def test_the_chain_does_not_depend_on_where_a_time_was_read() -> None:
    row = STORY.rows[3]
    elsewhere = replace(row, at=row.at.astimezone(ZoneInfo("Asia/Kathmandu")))
    assert first_bad_seq([*STORY.rows[:3], elsewhere, *STORY.rows[4:]], HEAD) is None


def test_the_hash_is_pinned() -> None:
    # Logs in databases of users carry it: a change here makes them all look forged.
    assert first_hash(RUN_ID).hex() == "5ca75f3fce2e1cc3a59824e8d36e3a17c4887356ed3c88ff5b66ff42b64fee5f"
    assert (
        link(first_hash(RUN_ID), 1, "run_started", NOON, None, None, None, b"{}").hex()
        == "9b4c897a018616db91727f08a5424960aa215e06d6aef7dc128e3e7f7ea9d082"
    )
    assert (
        link(b"\0" * 32, 2, "step_done", NOON, "a", 1, 2, b"{}").hex()
        == "3bbc5637080d3df2e764a441bf7a1fb1c5d9a0eef51cc64fcd77f255c0dddd04"
    )


def chained(row: Row, previous: bytes, seq: int) -> Row:
    digest = link(previous, seq, row.kind, row.at, row.step, row.attempt, row.token, row.body)
    return replace(row, seq=seq, hash=digest)


def rechained(rows: list[Row], place: int) -> list[Row]:
    """Change the body at `place` and mend every hash from there on."""
    done = rows[: place - 1]
    previous = done[-1].hash if done else first_hash(RUN_ID)
    for row in rows[place - 1 :]:
        body = row.body.replace(b'"', b'"!', 1) if row.seq == place else row.body
        done = [*done, chained(replace(row, body=body), previous, row.seq)]
        previous = done[-1].hash
    return done


def _check_found(place: int, changed: Row) -> None:
    assert first_bad_seq([*STORY.rows[: place - 1], changed, *STORY.rows[place:]], HEAD) == place, changed
