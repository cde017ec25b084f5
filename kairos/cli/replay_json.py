"""A replay as one JSON document."""

from __future__ import annotations

from typing import Any

from msgspec import to_builtins

from kairos.domain.documents import error_json, payload_value
from kairos.domain.payload import Payload
from kairos.replay.facts import Attempt
from kairos.replay.plan import Choice
from kairos.replay.record import RunRecord
from kairos.replay.replayer import Replayer
from kairos.replay.results import Code, RunResult, StepResult


def document(result: RunResult, record: RunRecord, choice: Choice, replayer: Replayer, code: Code) -> dict[str, Any]:
    """All that is known of it."""
    hello, loaded = replayer.hello, replayer.loaded
    return {
        "run": result.run_id,
        "workflow": result.workflow,
        "fingerprint": record.fingerprint,
        "source": record.source,
        "events": len(record.rows),
        "mode": choice.mode.value,
        "fork_from": choice.fork_from,
        "app": None if loaded is None else loaded.app,
        "isolation": None if hello is None else {"line": hello.isolation, "layers": dict(hello.layers)},
        "notes": list(result.plan.notes),
        "code_changes": dict(code.changes),
        "steps": [_step(step, record, code) for step in result.steps],
        "leaks": to_builtins(result.leaks),
        "counts": {verdict.value: count for verdict, count in result.counts.items()},
        "first_divergence": result.first_divergence.name if result.first_divergence else None,
        "complete": not result.quit,
        "not_run": result.left,
        "exit_code": result.exit_code,
    }


def _step(step: StepResult, record: RunRecord, code: Code) -> dict[str, Any]:
    ended = step.ended
    data: dict[str, Any] = {
        "step": step.name,
        "number": step.number,
        "action": step.planned.action.value,
        "verdict": step.verdict.value,
        "why": step.why or None,
        "code": step.code or None,
        "recorded": None if step.recorded is None else _recorded(step.recorded, record),
    }
    if ended is None or ended.outcome == "missing":
        return data
    return data | {
        "attempt": step.planned.attempt,
        "outcome": ended.outcome,
        "duration_us": ended.duration_us,
        "same_bytes": ended.same,
        "output": payload_value(Payload.of(ended.output)) if ended.output is not None else None,
        "error": None if ended.problem is None else error_json(ended.problem.error),
        "differences": None if step.differences is None else step.differences.to_json(),
        "new_input": ended.moved,
        "effects": to_builtins(ended.effects),
        "leaks": to_builtins(ended.leaks),
        "notes": list(ended.notes),
        "source_diff": list(code.source_diff(step.name)),
    }


def _recorded(attempt: Attempt, record: RunRecord) -> dict[str, Any]:
    output = attempt.output
    return {
        "attempt": attempt.number,
        "ending": attempt.ending.value,
        "duration_us": attempt.duration_us,
        "output": None if output is None else payload_value(output, record.bytes_of(output)),
        "error": None if attempt.error is None else error_json(attempt.error),
        "reason": attempt.reason or None,
        "effects": len(attempt.effects),
    }
