"""What a step can ask and say: identity, logs, metrics, heartbeat."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
from authoring_support import RememberingSink, context

from kairos.authoring import StepCancelled
from kairos.authoring.context import MAX_LINE, LogRecord, MetricRecord
from kairos.domain import canonical
from kairos.errors import PayloadError


def kind(value: object) -> str:
    return type(value).__name__


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


def test_the_idempotency_key_is_the_same_for_all_attempts_of_a_step() -> None:
    first, second = context("charge", attempt=1), context("charge", attempt=2)
    assert first.idempotency_key == second.idempotency_key == f"{first.run_id}:charge"
    assert context("email").idempotency_key != first.idempotency_key


def test_headers_identify_the_attempt() -> None:
    ctx = context("charge", attempt=3)
    assert ctx.headers() == {
        "X-Kairos-Run": ctx.run_id,
        "X-Kairos-Step": "charge",
        "X-Kairos-Attempt": "3",
        "X-Kairos-Idempotency-Key": f"{ctx.run_id}:charge",
        "Idempotency-Key": f"{ctx.run_id}:charge",
    }


def test_a_heartbeat_is_recorded_until_the_attempt_should_stop() -> None:
    ctx = context()
    assert ctx.last_heartbeat == 0.0
    ctx.heartbeat()
    assert ctx.last_heartbeat > 0
    assert not ctx.cancelled
    ctx.cancel("lease lost")
    ctx.cancel("something else")
    assert ctx.cancelled
    assert ctx.cancel_reason == "lease lost"
    with pytest.raises(StepCancelled, match="lease lost"):
        ctx.heartbeat()


def test_a_broad_except_does_not_swallow_the_cancellation() -> None:
    assert not issubclass(StepCancelled, Exception)


def test_log_lines_keep_level_message_and_plain_fields() -> None:
    sink = RememberingSink()
    log = context(sink=sink).log
    log.debug("a")
    log.info("b", n=1, f=1.5, ok=True, none=None, text="x")
    log.warning("c", items=[1, "x"], of={"k": 1})
    log.error(ValueError("d"))
    assert sink.logs == [
        LogRecord("debug", "a"),
        LogRecord("info", "b", {"n": 1, "f": 1.5, "ok": True, "none": None, "text": "x"}),
        LogRecord("warning", "c", {"items": "[1, 'x']", "of": "{'k': 1}"}),
        LogRecord("error", "ValueError('d')"),
    ]


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, 2**70, 10**5000, "\0", "\ud800", b"\xff", Hostile(), lambda: 1, {1: {2}}, "x" * 10**6],
    ids=kind,
)
def test_no_field_or_message_can_break_a_log_line(value: Any) -> None:
    sink = RememberingSink()
    context(sink=sink).log.info(value, value=value, **{"nul\0": 1, "\ud800": 2})
    [line] = sink.logs
    assert "\0" not in line.message
    raw = canonical.encode({"message": line.message, "fields": dict(line.fields)})
    assert len(raw) <= MAX_LINE + 200


def test_a_long_line_is_cut_and_fields_without_room_are_counted() -> None:
    sink = RememberingSink()
    log = context(sink=sink).log
    log.info("x" * 20_000)
    log.info("é" * 8_000)
    log.info("short", a="y" * 5_000, b="z" * 5_000, c=1)
    long, accented, short = sink.logs
    assert len(long.message.encode()) <= MAX_LINE
    assert long.message.endswith("more)")
    assert len(accented.message.encode()) <= MAX_LINE
    assert short.message == "short (1 fields left out)"
    assert set(short.fields) == {"a", "c"}


def test_after_a_thousand_lines_the_rest_is_counted_once() -> None:
    sink = RememberingSink()
    ctx = context(sink=sink)
    for number in range(1_003):
        ctx.log.info(str(number))
    assert len(sink.logs) == 1_000
    ctx.close()
    ctx.close()
    assert sink.logs[1_000:] == [LogRecord("warning", "3 more lines dropped")]


def test_exactly_a_thousand_lines_are_all_kept() -> None:
    sink = RememberingSink()
    ctx = context(sink=sink)
    for _ in range(1_000):
        ctx.log.info("x")
    ctx.close()
    assert len(sink.logs) == 1_000


def test_nothing_is_taken_after_the_end() -> None:
    sink = RememberingSink()
    ctx = context(sink=sink)
    ctx.close()
    ctx.log.info("late")
    ctx.emit("late", 1)
    assert (sink.logs, sink.metrics) == ([], [])


def test_metrics_keep_their_number_and_labels_as_text() -> None:
    sink = RememberingSink()
    ctx = context(sink=sink)
    ctx.emit("cost_usd", 0.042, model="small", retry=1, cached=True)
    ctx.emit("tokens", 2**53)
    assert sink.metrics == [
        MetricRecord("cost_usd", 0.042, {"model": "small", "retry": "1", "cached": "True"}),
        MetricRecord("tokens", 2**53),
    ]


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 2**70, 10**5000, True, "5", None, 1j, Hostile()], ids=kind
)
def test_a_metric_needs_a_finite_number(value: Any) -> None:
    sink = RememberingSink()
    with pytest.raises(PayloadError, match="metric 'm'"):
        context(sink=sink).emit("m", value)
    assert sink.metrics == []


@pytest.mark.parametrize("name", ["", "x" * 201, "nul\0", "\ud800", 5, None])
def test_a_metric_needs_a_name(name: Any) -> None:
    with pytest.raises(PayloadError, match="cannot name a metric"):
        context().emit(name, 1)


@pytest.mark.parametrize("label", [None, [1], Hostile()])
def test_a_label_is_a_text_or_a_number(label: Any) -> None:
    with pytest.raises(PayloadError, match="metric label 'a'"):
        context().emit("m", 1, a=label)


def test_metrics_are_bounded_and_never_silently_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    from kairos.authoring import context as module

    monkeypatch.setattr(module, "MAX_METRICS", 3)
    ctx = context()
    for _ in range(3):
        ctx.emit("m", 1)
    with pytest.raises(PayloadError, match="more than 3 metrics in one attempt"):
        ctx.emit("m", 1)


def test_many_threads_may_write_at_once() -> None:
    sink = RememberingSink()
    ctx = context(sink=sink)

    def write() -> None:
        for _ in range(200):
            ctx.log.info("x")
            ctx.emit("m", 1)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ctx.close()
    assert len(sink.logs) == 1_001
    assert sink.logs[-1].message == "600 more lines dropped"
    assert len(sink.metrics) == 1_600
