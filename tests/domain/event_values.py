"""Events of every kind with values of every sort, for what must hold of all of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from json_values import plain_scalars
from test_error_infos import error_infos

from kairos.domain import canonical, events
from kairos.domain.events import Event
from kairos.domain.payload import INLINE_MAX, Payload

texts = st.text(max_size=12)
step_names = st.sampled_from(["a", "charge", "x.y-z_9"])
microseconds = st.integers(-(10**15), 10**16).map(lambda n: timedelta(microseconds=n))  # 1938 to 2286
moments = (st.just(timedelta(0)) | microseconds).map(lambda since: datetime(1970, 1, 1, tzinfo=UTC) + since)
small_json = st.recursive(
    plain_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
blobs = st.integers(INLINE_MAX - 1, INLINE_MAX + 200).map(lambda n: "é" + "x" * (n - 4))
payloads = (small_json | blobs).map(lambda value: Payload.of(canonical.encode(value)))
labels = st.dictionaries(texts, texts, max_size=2)
numbers = st.integers(0, 2**31 - 1)
hashes = st.text("0123456789abcdef", min_size=16, max_size=16)

_attempts: dict[str, Any] = {"step": step_names, "attempt": numbers, "token": st.integers(0, 2**63 - 1)}
_BUILDS: dict[type[Event], st.SearchStrategy[Event]] = {
    events.RunScheduled: st.builds(
        events.RunScheduled,
        workflow=texts,
        fingerprint=hashes,
        input=payloads,
        queue=texts,
        priority=numbers,
        trigger=texts,
        key=st.none() | texts,
        labels=labels,
        expires_at=st.none() | moments,
    ),
    events.RunStarted: st.builds(events.RunStarted, epoch=numbers, worker=texts),
    events.RunDone: st.builds(events.RunDone, outputs=st.dictionaries(step_names, numbers)),
    events.RunFailed: st.builds(events.RunFailed, steps=st.lists(step_names).map(tuple), reason=texts),
    events.RunExpired: st.builds(events.RunExpired, reason=texts),
    events.RunCancelRequested: st.builds(events.RunCancelRequested, author=texts, reason=texts),
    events.RunCancelled: st.builds(events.RunCancelled, reason=texts),
    events.StepStarted: st.builds(
        events.StepStarted, **_attempts, input_hash=hashes, worker=st.none() | texts, isolated=st.booleans()
    ),
    events.StepDone: st.builds(events.StepDone, **_attempts, output=payloads, duration_us=numbers),
    events.StepFailed: st.builds(
        events.StepFailed,
        **_attempts,
        error=error_infos,
        retry_at=st.none() | moments,
        duration_us=numbers,
        timed_out=st.booleans(),
    ),
    events.StepDead: st.builds(events.StepDead, step=step_names, reason=texts),
    events.StepExpired: st.builds(events.StepExpired, step=step_names, reason=texts),
    events.StepCancelled: st.builds(events.StepCancelled, step=step_names, reason=texts),
    events.TimerFired: st.builds(events.TimerFired, step=step_names, timer=texts),
    events.LeaseLost: st.builds(
        events.LeaseLost,
        **_attempts,
        reason=texts,
        worker=st.none() | texts,
        signal=st.none() | texts,
        alone=st.booleans(),
        suspect=st.booleans(),
    ),
    events.StaleWriteRejected: st.builds(events.StaleWriteRejected, **_attempts, worker=texts, what=texts),
    events.MetricEmitted: st.builds(
        events.MetricEmitted,
        **_attempts,
        name=texts,
        value=st.floats(allow_nan=False, allow_infinity=False),
        labels=labels,
    ),
    events.EffectRecorded: st.builds(
        events.EffectRecorded,
        **_attempts,
        name=texts,
        ordinal=numbers,
        via=st.sampled_from(["call", "now", "uuid", "random", "http"]),
        arguments=st.none() | payloads,
        result=st.none() | payloads,
        error=st.none() | error_infos,
        duration_us=numbers,
    ),
    events.RunForked: st.builds(
        events.RunForked,
        parent=texts,
        root=texts,
        parent_seq=numbers,
        from_step=step_names,
        author=texts,
        reason=texts,
        edits=st.dictionaries(texts, small_json, max_size=3),
    ),
    events.StepsInherited: st.builds(
        events.StepsInherited,
        run=texts,
        outputs=st.dictionaries(step_names, st.tuples(numbers, numbers, hashes, st.booleans())),
    ),
    events.StepOverridden: st.builds(events.StepOverridden, step=step_names, output=payloads),
    events.LogEmitted: st.builds(
        events.LogEmitted,
        **_attempts,
        level=texts,
        message=texts,
        fields=st.dictionaries(texts, small_json, max_size=3),
    ),
}


def events_of(kind: type[Event]) -> st.SearchStrategy[Event]:
    """Events of one kind."""
    return _BUILDS[kind]


any_event = st.one_of(list(_BUILDS.values()))
