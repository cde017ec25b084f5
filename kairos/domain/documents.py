"""What `--json` prints: runs, events, states and errors as plain JSON. Keys are stable; times are ISO 8601, UTC."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import fields

from kairos.domain import canonical
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import EffectRecorded, Recorded, RunForked
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState, StepState


def event_json(recorded: Recorded) -> dict[str, Any]:
    """One event: seq, at, kind, and its facts. A long payload is named by its hash instead of its value."""
    event = recorded.event
    facts = {field.name: _plain(getattr(event, field.name)) for field in fields(event)}
    return {"seq": recorded.seq, "at": moment(recorded.at), "kind": event.kind, **facts}


def state_json(state: RunState) -> dict[str, Any]:
    """A state as folded: the run and each of its steps."""
    return {
        "run_id": str(state.run_id),
        "seq": state.seq,
        "at": moment(state.at),
        "workflow": state.workflow or state.graph.workflow,
        "status": state.status.value if state.seq else None,
        "fingerprint": state.fingerprint or None,
        "queue": state.queue or None,
        "priority": state.priority or None,
        "key": state.key,
        "labels": dict(state.labels),
        "scheduled_at": moment(state.scheduled_at),
        "started_at": moment(state.started_at),
        "finished_at": moment(state.finished_at),
        "expires_at": moment(state.expires_at),
        "worker": state.worker,
        "reason": state.reason,
        "forked": None if state.forked is None else fork_json(state.forked),
        "cancel_requested": None if state.cancel_requested is None else _plain_event(state.cancel_requested),
        "input": _plain(state.input),
        "steps": {name: step_json(step) for name, step in state.steps.items()},
    }


def step_json(step: StepState) -> dict[str, Any]:
    """Where one step stands."""
    return {
        "status": step.status.value,
        "attempts": step.attempt,
        "failures": step.failures,
        "losses": step.losses,
        "worker": step.worker,
        "scheduled_at": moment(step.scheduled_at),
        "started_at": moment(step.started_at),
        "finished_at": moment(step.finished_at),
        "retry_at": moment(step.retry_at),
        "reason": step.reason,
        "error": None if step.error is None else error_json(step.error),
        "output": None if step.output is None else _plain(step.output),
        "effects": [_effect(effect) for effect in (step.effects or {}).values()],
        "inherited": None if (origin := _origin(step)) is None else {"run": origin[0], "seq": origin[1]},
    }


def _effect(effect: EffectRecorded) -> dict[str, Any]:
    return {
        "name": effect.name,
        "ordinal": effect.ordinal,
        "via": effect.via,
        "attempt": effect.attempt,
        "arguments": None if effect.arguments is None else _plain(effect.arguments),
        "result": None if effect.result is None else _plain(effect.result),
        "seconds": round(effect.duration_us / 1e6, 6),
    }


def _origin(step: StepState) -> tuple[str, int] | None:
    return None if step.output is None else step.output.origin


def fork_json(forked: RunForked) -> dict[str, Any]:
    """What a run is a fork of."""
    return _plain_event(forked)


def error_json(error: ErrorInfo) -> dict[str, Any]:
    """An error with its frames as objects."""
    return {
        "type": error.type,
        "message": error.message,
        "frames": [{"file": f.file, "line": f.line, "function": f.function, "code": f.code} for f in error.frames],
        "locals": dict(error.locals),
        "notes": list(error.notes),
        "hint": error.hint,
    }


def moment(at: datetime | None) -> str | None:
    """ISO 8601 in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat()


def payload_value(payload: Payload, raw: bytes | None = None) -> Any:
    """The value; when its bytes are not at hand, `{"blob": sha256, "size": n}`, or for a short one that a fork
    inherited `{"sha256": ..., "size": n}`."""
    data = raw if raw is not None else (payload.data or payload.inline)
    if data is None:
        return {"blob" if payload.sha256 is not None else "sha256": payload.digest, "size": payload.size}
    return canonical.decode(data)


def _plain_event(event: Any) -> dict[str, Any]:
    return {field.name: _plain(getattr(event, field.name)) for field in fields(event)}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, Payload):
        return payload_value(value)
    if isinstance(value, ErrorInfo):
        return error_json(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value
