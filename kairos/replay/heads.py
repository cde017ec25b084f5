"""The head of a run as its log tells it: for runs that stand in no database."""

from __future__ import annotations

from kairos.domain.events import RunFailed
from kairos.replay.record import RunRecord
from kairos.store.reader import RunInfo


def info_of(record: RunRecord) -> RunInfo:
    """The run as its head row would tell it. How often it was claimed, a log does not say: once is assumed."""
    state = record.state
    assert state.scheduled_at is not None
    assert state.at is not None
    last = record.history[-1].event
    failed = last.steps if isinstance(last, RunFailed) else ()
    return RunInfo(
        id=record.run_id,
        workflow=state.workflow,
        status=state.status,
        created_at=state.scheduled_at,
        updated_at=state.at,
        ended_at=state.at if state.status.is_terminal else None,
        queue=state.queue,
        priority=state.priority,
        key=state.key,
        labels=state.labels,
        fingerprint=record.fingerprint,
        seq=state.seq,
        claims=1,
        reason=state.reason,
        failed_steps=failed,
        outputs=dict(state.outputs) or None,
    )
