"""Events to rows and back: canonical bodies, the hash chain, and upcasting of old versions.

A row is (seq, kind, at, step, attempt, token, hash, body). The hash of an event covers all of it:

    hash = sha256(previous hash + header + body)
    header = "seq \\n kind \\n at in microseconds since 1970 \\n step \\n attempt \\n token \\n"   (no spaces)

where absent fields are empty. The chain of a run begins with sha256("kairos run " + run id), so no event
can be moved to another run. What is hashed are the very bytes that are stored; nothing is ever re-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any, assert_never
from uuid import UUID

from msgspec import Struct

from kairos.domain import canonical, events
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import EVENT_TYPES, Event, Recorded
from kairos.domain.payload import Payload
from kairos.errors import HistoryError

_UNIX = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

UPCASTERS: Mapping[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""(kind, version) -> how to turn a body of that version into one of the next. Version 1 carries no mark;
later ones have `"v": n`. Old events live for ever, so entries are never removed."""


_PAYLOADS = {
    "run_scheduled": ("input",),
    "step_done": ("output",),
    "step_overridden": ("output",),
    "effect_recorded": ("arguments", "result"),
}


_DONE_WITH_BLOB = re.compile(rb'\{"duration_us":\d+,"output_blob":\{"sha256":"([0-9a-f]{64})","size":(\d+)\}\}')
_DONE_INLINE = re.compile(rb'\{"duration_us":\d+,"output":')


class Row(Struct, frozen=True, gc=False):
    """One event as stored."""

    seq: int
    kind: str
    at: datetime
    step: str | None
    attempt: int | None
    token: int | None
    hash: bytes
    body: bytes


@lru_cache(maxsize=256)
def micros_of(at: datetime) -> int:
    """Microseconds since 1970. Kept for a while: all events of a flush share one `at`."""
    return (at - _UNIX) // _MICROSECOND


def moment_of(micros: int) -> datetime:
    """The inverse of `micros_of`."""
    return _UNIX + timedelta(microseconds=micros)


def first_hash(run_id: UUID) -> bytes:
    """What the chain of a run begins with."""
    return sha256(b"kairos run " + run_id.bytes).digest()


def link(previous: bytes, seq: int, kind: str, at: datetime, step: str | None, attempt: int | None,
         token: int | None, body: bytes) -> bytes:  # fmt: skip
    """The hash of an event that follows one with hash `previous`."""
    a = "" if attempt is None else attempt
    t = "" if token is None else token
    header = f"{seq}\n{kind}\n{micros_of(at)}\n{step or ''}\n{a}\n{t}\n".encode()
    return sha256(b"%b%b%b" % (previous, header, body)).digest()


def encode(event: Event, seq: int, at: datetime, previous: bytes) -> Row:
    """Build the row of an event that follows one with hash `previous`."""
    kind, body = event.kind, encode_body(event)
    step: str | None
    attempt: int | None
    token: int | None
    if type(event) is events.StepDone or type(event) is events.StepStarted:
        step, attempt, token = event.step, event.attempt, event.token
    else:
        step, attempt, token = (getattr(event, name, None) for name in ("step", "attempt", "token"))
    return Row(seq, kind, at, step, attempt, token, link(previous, seq, kind, at, step, attempt, token, body), body)


def encode_body(event: Event) -> bytes:
    """The canonical body: what the columns do not hold. Keys sorted, empty parts left out."""
    # The two kinds that every step writes are put together by hand: their keys are sorted as written.
    if type(event) is events.StepDone:
        output = event.output
        if output.inline is not None:
            return b'{"duration_us":%d,"output":%b}' % (event.duration_us, output.inline)
        head = b'{"duration_us":%d,"output_blob":{"sha256":"%b","size":%d}}'
        return head % (event.duration_us, (output.sha256 or "").encode(), output.size)
    if type(event) is events.StepStarted and event.worker is None and not event.isolated:
        return b'{"input_hash":"%b"}' % event.input_hash.encode()
    return canonical.encode_trusted(_body(event))


def _body(event: Event) -> dict[str, Any]:
    match event:
        case events.RunScheduled():
            body: dict[str, Any] = {
                "workflow": event.workflow,
                "fingerprint": event.fingerprint,
                "queue": event.queue,
                "priority": event.priority,
                "trigger": event.trigger,
                **_payload("input", event.input),
            }
            extra = {"key": event.key, "labels": dict(event.labels) or None, "expires_at": _stamp(event.expires_at)}
            return body | {k: v for k, v in extra.items() if v is not None}
        case events.RunStarted():
            return {"worker": event.worker, "epoch": event.epoch}
        case events.RunDone():
            return {"outputs": dict(event.outputs)}
        case events.RunFailed():
            return {"steps": list(event.steps), "reason": event.reason}
        case events.RunExpired() | events.RunCancelled():
            return {"reason": event.reason}
        case events.RunCancelRequested():
            return {"author": event.author, "reason": event.reason}
        case events.StepStarted():
            body = {"input_hash": event.input_hash}
            if event.worker is not None:
                body["worker"] = event.worker
            if event.isolated:
                body["isolated"] = True
            return body
        case events.StepDone():
            return {"duration_us": event.duration_us, **_payload("output", event.output)}
        case events.StepFailed():
            body = {"duration_us": event.duration_us, "error": event.error.to_json()}
            if event.retry_at is not None:
                body["retry_at"] = _stamp(event.retry_at)
            if event.timed_out:
                body["timed_out"] = True
            return body
        case events.StepDead() | events.StepExpired() | events.StepCancelled():
            return {"reason": event.reason}
        case events.TimerFired():
            return {"timer": event.timer}
        case events.LeaseLost():
            body = {"reason": event.reason, "worker": event.worker, "signal": event.signal}
            body = {k: v for k, v in body.items() if v is not None}
            flags = {"alone": event.alone, "suspect": event.suspect}
            return body | {k: True for k, v in flags.items() if v}
        case events.StaleWriteRejected():
            return {"worker": event.worker, "what": event.what}
        case events.MetricEmitted():
            body = {"name": event.name, "value": event.value}
            return body | ({"labels": dict(event.labels)} if event.labels else {})
        case events.LogEmitted():
            body = {"level": event.level, "message": event.message}
            return body | ({"fields": dict(event.fields)} if event.fields else {})
        case events.EffectRecorded():
            body = {"name": event.name, "ordinal": event.ordinal, "via": event.via, "duration_us": event.duration_us}
            for name, payload in (("arguments", event.arguments), ("result", event.result)):
                if payload is not None:
                    body |= _payload(name, payload)
            return body | ({"error": event.error.to_json()} if event.error is not None else {})
        case events.RunForked():
            body = {
                "parent": event.parent,
                "root": event.root,
                "parent_seq": event.parent_seq,
                "from_step": event.from_step,
                "author": event.author,
                "reason": event.reason,
            }
            return body | ({"edits": dict(event.edits)} if event.edits else {})
        case events.StepsInherited():
            return {"run": event.run, "outputs": {name: list(entry) for name, entry in event.outputs.items()}}
        case events.StepOverridden():
            return _payload("output", event.output)
        case _:
            assert_never(event)


def decode(row: Row) -> Recorded:
    """Read a row back.

    Raises:
        HistoryError: an unknown kind (a newer Kairos wrote it?) or an unreadable body.
    """
    if row.kind not in EVENT_TYPES:
        raise HistoryError(
            f"seq {row.seq} is a {row.kind!r}, which this version of Kairos does not know",
            hint="Upgrade Kairos: a newer version wrote this run.",
        )
    try:
        data = canonical.decode(row.body)
        version = data.get("v", 1)
        while (row.kind, version) in UPCASTERS:
            data = UPCASTERS[row.kind, version](data)
            version += 1
        data.pop("v", None)
        return Recorded(row.seq, row.at, _event(row, data))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as exc:
        raise HistoryError(f"seq {row.seq} ({row.kind}) cannot be read: {exc!r}", seq=row.seq) from exc


def output_of_done(row: Row) -> tuple[int, str, bool]:
    """Of a `step_done`: size and sha256 of its output, and whether it is a blob. As `decode` finds them, but quicker.

    Raises:
        HistoryError: an unreadable body.
    """
    body = row.body
    named = _DONE_WITH_BLOB.fullmatch(body)
    if named is not None:
        return int(named[2]), named[1].decode(), True
    inline = _DONE_INLINE.match(body)
    # A later version is marked at the end of the body, behind the output.
    if inline is not None and b'"v":' not in body[-12:]:
        raw = body[inline.end() : -1]
        return len(raw), sha256(raw).hexdigest(), False
    event = decode(row).event
    if not isinstance(event, events.StepDone):
        raise HistoryError(f"seq {row.seq} is a {row.kind}, not a step_done", seq=row.seq)
    return event.output.size, event.output.digest, event.output.sha256 is not None


def _event(row: Row, data: dict[str, Any]) -> Event:
    for name in _PAYLOADS.get(row.kind, ()):
        if name in data:
            raw = canonical.encode_trusted(data[name])
            data[name] = Payload(raw, None, len(raw), raw)  # inline as it was stored, whatever the limit is today
        elif f"{name}_blob" in data:
            blob = data.pop(f"{name}_blob")
            data[name] = Payload.blob(blob["sha256"], blob["size"])
    for name in ("retry_at", "expires_at"):
        if name in data:
            data[name] = _UNIX + timedelta(microseconds=data[name])
    if "error" in data:
        data["error"] = ErrorInfo.from_json(data["error"])
    if row.kind == "step_failed":
        data.setdefault("retry_at", None)
    if row.kind == "run_failed":
        data["steps"] = tuple(data["steps"])
    if row.kind == "steps_inherited":
        data["outputs"] = {name: tuple(entry) for name, entry in data["outputs"].items()}
    kind = EVENT_TYPES[row.kind]
    fields = kind.__struct_fields__
    for name, value in (("step", row.step), ("attempt", row.attempt), ("token", row.token)):
        if name in fields:
            data[name] = value
    return kind(**data)


def _payload(name: str, payload: Payload) -> dict[str, Any]:
    if payload.inline is not None:
        return {name: canonical.fragment(payload.inline)}
    return {f"{name}_blob": {"sha256": payload.sha256, "size": payload.size}}


def _stamp(at: datetime | None) -> int | None:
    return None if at is None else (at - _UNIX) // _MICROSECOND
