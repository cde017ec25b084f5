"""Events as rows: nothing is lost on the way to the log and back, and what cannot be read says so."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from event_values import any_event, events_of, moments, payloads, small_json
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from run_stories import BOOM, NOON, OUTPUT, RUN_ID, SECOND, graph_of, scheduled

from kairos.domain import canonical, payload
from kairos.domain.error_info import ErrorInfo, Frame
from kairos.domain.events import (
    EVENT_TYPES,
    EffectRecorded,
    Event,
    LeaseLost,
    LogEmitted,
    MetricEmitted,
    Recorded,
    RunCancelled,
    RunCancelRequested,
    RunDone,
    RunExpired,
    RunFailed,
    RunForked,
    RunStarted,
    StaleWriteRejected,
    StepCancelled,
    StepDead,
    StepDone,
    StepExpired,
    StepFailed,
    StepOverridden,
    StepsInherited,
    StepStarted,
    TimerFired,
)
from kairos.domain.payload import Payload
from kairos.errors import HistoryError
from kairos.store import codec
from kairos.store.codec import Row, first_hash

START = first_hash(RUN_ID)
WHO: dict[str, Any] = {"step": "a", "attempt": 2, "token": 3}
BLOB = Payload.of(b'"' + b"x" * 1023 + b'"')

# Old events live for ever: these bodies must read as they do today, and be written so, for good.
BODIES: list[tuple[Event, str]] = [
    (
        scheduled(graph_of(a="")),
        '{"fingerprint":"ffffffffffffffffffffffffffffffff","input":{},"priority":5,"queue":"default",'
        '"trigger":"client","workflow":"story"}',
    ),
    (
        scheduled(graph_of(a=""), key="k", labels={"b": "1", "a": "2"}, expires_at=NOON, input=BLOB),
        '{"expires_at":1772366400000000,"fingerprint":"ffffffffffffffffffffffffffffffff","input_blob":{"sha256":'
        '"bd752ecad52fb02540c855864234ec6479fba3cb8278ebe0e97b612c6b326600","size":1025},"key":"k","labels":'
        '{"a":"2","b":"1"},"priority":5,"queue":"default","trigger":"client","workflow":"story"}',
    ),
    (RunStarted(epoch=1, worker="w1"), '{"epoch":1,"worker":"w1"}'),
    (RunDone(outputs={"b": 9, "a": 4}), '{"outputs":{"a":4,"b":9}}'),
    (RunFailed(steps=("b", "a"), reason="x"), '{"reason":"x","steps":["b","a"]}'),
    (RunExpired(reason="x"), '{"reason":"x"}'),
    (RunCancelRequested(author="ann", reason="é"), '{"author":"ann","reason":"é"}'),
    (RunCancelled(reason=""), '{"reason":""}'),
    (StepStarted(**WHO, input_hash="00ff"), '{"input_hash":"00ff"}'),
    (
        StepStarted(**WHO, input_hash="00ff", worker="w2", isolated=True),
        '{"input_hash":"00ff","isolated":true,"worker":"w2"}',
    ),
    (StepDone(**WHO, output=OUTPUT, duration_us=7), '{"duration_us":7,"output":{"ok":true}}'),
    (
        StepDone(**WHO, output=BLOB),
        '{"duration_us":0,"output_blob":{"sha256":'
        '"bd752ecad52fb02540c855864234ec6479fba3cb8278ebe0e97b612c6b326600","size":1025}}',
    ),
    (
        StepFailed(**WHO, error=BOOM, retry_at=None),
        '{"duration_us":0,"error":{"message":"boom","type":"builtins.ValueError"}}',
    ),
    (
        StepFailed(
            **WHO,
            error=ErrorInfo("E", "m", (Frame("f.py", 3, "g", "x = 1"),), {"x": "1"}, ("note",), "do this"),
            retry_at=NOON + SECOND,
            duration_us=5,
            timed_out=True,
        ),
        '{"duration_us":5,"error":{"frames":[["f.py",3,"g","x = 1"]],"hint":"do this","locals":{"x":"1"},'
        '"message":"m","notes":["note"],"type":"E"},"retry_at":1772366401000000,"timed_out":true}',
    ),
    (StepDead(step="a", reason="x"), '{"reason":"x"}'),
    (StepExpired(step="a", reason="x"), '{"reason":"x"}'),
    (StepCancelled(step="a", reason="x"), '{"reason":"x"}'),
    (TimerFired(step="a", timer="retry"), '{"timer":"retry"}'),
    (LeaseLost(**WHO, reason="released"), '{"reason":"released"}'),
    (
        LeaseLost(**WHO, reason="crashed", worker="w1", signal="SIGKILL", alone=True, suspect=True),
        '{"alone":true,"reason":"crashed","signal":"SIGKILL","suspect":true,"worker":"w1"}',
    ),
    (StaleWriteRejected(**WHO, worker="w1", what="step_done"), '{"what":"step_done","worker":"w1"}'),
    (MetricEmitted(**WHO, name="n", value=1.5), '{"name":"n","value":1.5}'),
    (MetricEmitted(**WHO, name="n", value=1.5, labels={"k": "v"}), '{"labels":{"k":"v"},"name":"n","value":1.5}'),
    (LogEmitted(**WHO, level="info", message="m"), '{"level":"info","message":"m"}'),
    (
        EffectRecorded(**WHO, name="tax", ordinal=2, via="call", arguments=OUTPUT, result=BLOB, duration_us=9),
        '{"arguments":{"ok":true},"duration_us":9,"name":"tax","ordinal":2,"result_blob":{"sha256":'
        '"bd752ecad52fb02540c855864234ec6479fba3cb8278ebe0e97b612c6b326600","size":1025},"via":"call"}',
    ),
    (
        EffectRecorded(**WHO, name="tax", ordinal=1, via="http", error=BOOM),
        '{"duration_us":0,"error":{"message":"boom","type":"builtins.ValueError"},"name":"tax","ordinal":1,"via":"http"}',
    ),
    (
        RunForked(parent="p", root="r", parent_seq=7, from_step="a", author="ann", reason="x", edits={"input.n": 1}),
        '{"author":"ann","edits":{"input.n":1},"from_step":"a","parent":"p","parent_seq":7,"reason":"x","root":"r"}',
    ),
    (StepsInherited(run="p", outputs={"a": (3, 11, "00ff", False)}), '{"outputs":{"a":[3,11,"00ff",false]},"run":"p"}'),
    (StepOverridden(step="a", output=OUTPUT), '{"output":{"ok":true}}'),
    (
        LogEmitted(**WHO, level="info", message="m", fields={"n": [1, None]}),
        '{"fields":{"n":[1,null]},"level":"info","message":"m"}',
    ),
]


@pytest.mark.parametrize(("event", "body"), BODIES, ids=[event.kind for event, _ in BODIES])
def test_the_bodies_of_the_log_are_pinned(event: Event, body: str) -> None:
    row = codec.encode(event, 5, NOON, START)
    assert row.body.decode() == body
    assert (row.seq, row.kind, row.at) == (5, event.kind, NOON)
    assert codec.decode(row) == Recorded(5, NOON, event)


def test_a_body_of_every_kind_is_pinned() -> None:
    assert {event.kind for event, _ in BODIES} == EVENT_TYPES.keys()


@pytest.mark.parametrize("kind", list(EVENT_TYPES.values()), ids=list(EVENT_TYPES))
@given(data=st.data(), at=moments, seq=st.integers(1, 2**31 - 1))
@settings(max_examples=40)
def test_an_event_reads_back_as_it_was(kind: type[Event], data: Any, at: datetime, seq: int) -> None:
    event = data.draw(events_of(kind))
    row = codec.encode(event, seq, at, START)
    assert codec.decode(row) == Recorded(seq, at, event)
    assert canonical.encode(canonical.decode(row.body)) == row.body
    named = {"step", "attempt", "token"} & set(kind.__struct_fields__)
    assert {name for name in ("step", "attempt", "token") if getattr(row, name) is not None} == named


@given(any_event)
def test_reading_and_writing_again_gives_the_very_same_row(event: Event) -> None:
    row = codec.encode(event, 1, NOON, START)
    assert codec.encode(codec.decode(row).event, 1, NOON, START) == row


def test_what_is_empty_is_not_taken_for_absent() -> None:
    at_zero = datetime(1970, 1, 1, tzinfo=UTC)
    event = scheduled(graph_of(a=""), key="", expires_at=at_zero)
    back = codec.decode(codec.encode(event, 1, NOON, START)).event
    assert back == event


def test_a_value_that_was_stored_inline_stays_so_when_the_limit_is_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    row = codec.encode(StepDone(**WHO, output=Payload.of(b"[1,2,3]")), 1, NOON, START)
    monkeypatch.setattr(payload, "INLINE_MAX", 3)
    event = codec.decode(row).event
    assert isinstance(event, StepDone)
    assert event.output.inline == b"[1,2,3]"


def test_a_kind_that_is_not_known_asks_for_an_upgrade() -> None:
    row = replace(codec.encode(RunExpired(reason="x"), 4, NOON, START), kind="run_teleported")
    with pytest.raises(HistoryError, match="seq 4 is a 'run_teleported'") as caught:
        codec.decode(row)
    assert "newer version" in str(caught.value.hint)


UNREADABLE = [
    b"", b"{", b"null", b"[]", b'"x"', b"{}", b'{"reason":1,"more":2}', b"\xff", b'{"v":[1]}', b'{"output":1}',
    b'{"duration_us":0,"output_blob":7}', b'{"duration_us":0,"output_blob":{}}', b'{"error":7}',
    b'{"duration_us":0,"error":{"type":"E"}}', b'{"duration_us":0,"error":{"type":"E","message":"m","frames":[1]}}',
    b'{"duration_us":0,"error":{"type":"E","message":"m"},"retry_at":"noon"}',
    b'{"duration_us":0,"error":{"type":"E","message":"m"},"retry_at":1e300}',
    b'{"duration_us":0,"error":{"type":"E","message":"m"},"retry_at":9223372036854775807}',
    b'{"reason":"x","steps":7}',
]  # fmt: skip


@pytest.mark.parametrize("body", UNREADABLE, ids=lambda body: body.decode(errors="replace")[:60])
def test_a_body_that_cannot_be_read_is_an_error_of_ours(body: bytes) -> None:
    refused: dict[str, HistoryError] = {}
    for kind in EVENT_TYPES:
        try:
            codec.decode(Row(3, kind, NOON, "a", 1, 1, START, body))
        except HistoryError as exc:  # not every body is a bad one for every kind
            refused[kind] = exc
    assert refused
    assert all(exc.facts["seq"] == 3 and kind in exc.message for kind, exc in refused.items())


@given(st.sampled_from(sorted(EVENT_TYPES)), small_json.map(canonical.encode) | st.binary(max_size=30))
def test_no_body_whatever_raises_anything_else(kind: str, body: bytes) -> None:
    row = Row(3, kind, NOON, "a", 1, 1, START, body)
    try:
        codec.decode(row)
    except HistoryError:
        pass


def test_a_body_of_an_old_version_is_brought_up_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    upcasters = {
        ("run_expired", 1): lambda data: {"why": data["cause"]},
        ("run_expired", 2): lambda data: {"reason": f"{data['why']}!"},
    }
    monkeypatch.setattr(codec, "UPCASTERS", upcasters)
    for body in (b'{"cause":"late"}', b'{"v":2,"why":"late"}', b'{"reason":"late!","v":3}'):
        assert codec.decode(Row(1, "run_expired", NOON, None, None, None, START, body)).event == RunExpired(
            reason="late!"
        )


@given(payloads, st.integers(0, 10**9))
def test_where_an_output_stands_is_read_from_a_done_step_as_decoding_does(output: Payload, micros: int) -> None:
    done = StepDone(step="s", attempt=1, token=1, output=output, duration_us=micros)
    row = codec.encode(done, 4, NOON, b"")
    again = codec.decode(row).event
    assert isinstance(again, StepDone)
    expected = (again.output.size, again.output.digest, again.output.sha256 is not None)
    assert codec.output_of_done(row) == expected


@pytest.mark.parametrize("value", [{"v": 2}, [{"v": 2}], "v", {"a": {"v": 1}}, 5])
def test_an_output_that_looks_like_the_mark_of_a_version_is_read_too(value: Any) -> None:
    raw = canonical.encode(value)
    row = codec.encode(StepDone(step="s", attempt=1, token=1, output=Payload.of(raw)), 4, NOON, b"")
    assert codec.output_of_done(row) == (len(raw), sha256(raw).hexdigest(), False)
