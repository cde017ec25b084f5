"""The two state machines, as data. Code, SQL checks, documents and the UI all read these tables.

A step moves because of an event in the log (`step_done`, ...) or because of a consequence that the fold
derives from one (`upstream_done`). Anything that is not in a table raises `InvalidTransition`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from kairos.domain.names import nearest
from kairos.errors import InvalidArgument, InvalidTransition


class StepStatus(StrEnum):
    """Where a step of a run stands."""

    PENDING = "PENDING"
    """Waits for its upstream steps. In a run that has ended: it never became ready, so it never ran."""
    SCHEDULED = "SCHEDULED"
    """Ready: waits for a slot of a worker."""
    RUNNING = "RUNNING"
    """An attempt is under way, fenced by a token."""
    WAITING = "WAITING"
    """Parked inside the step: for a signal, a sleep, a child run."""
    DONE = "DONE"
    """Its output is committed and will never change."""
    FAILED = "FAILED"
    """The last attempt failed; the next one waits for its backoff to end."""
    DEAD = "DEAD"
    """The dead-letter state: attempts exhausted, or an error that must not be retried."""
    EXPIRED = "EXPIRED"
    """Its time to live closed before a worker took it."""
    SKIPPED = "SKIPPED"
    """Left out on purpose, by an event that says why."""
    CANCELLED = "CANCELLED"
    """Its run was cancelled."""

    @property
    def is_terminal(self) -> bool:
        """Whether the step moves no further by itself."""
        return self in _TERMINAL_STEPS


class RunStatus(StrEnum):
    """Where a run stands."""

    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended."""
        return self in _TERMINAL_RUNS


def read_run_status(given: str) -> RunStatus:
    """The status that a text in any letter case names.

    Raises:
        InvalidArgument: none; proposes the nearest and lists all.
    """
    try:
        return RunStatus(given.upper())
    except (ValueError, AttributeError):
        names = [status.value for status in RunStatus]
        raise InvalidArgument(
            f"status={given!r} is not a status of a run: {', '.join(names)}",
            hint=nearest(str(given).upper(), names),
        ) from None


_TERMINAL_STEPS = frozenset({"DONE", "DEAD", "EXPIRED", "SKIPPED", "CANCELLED"})
_TERMINAL_RUNS = frozenset({"DONE", "FAILED", "CANCELLED", "EXPIRED"})
ENDED = frozenset({RunStatus.DONE, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.EXPIRED})
"""The terminal statuses of a run."""

_S, _R = StepStatus, RunStatus

STEP_TRANSITIONS: Mapping[tuple[StepStatus, str], StepStatus] = {
    (_S.PENDING, "upstream_done"): _S.SCHEDULED,
    (_S.PENDING, "step_inherited"): _S.DONE,
    (_S.PENDING, "step_overridden"): _S.DONE,
    (_S.PENDING, "step_skipped"): _S.SKIPPED,
    (_S.PENDING, "step_cancelled"): _S.CANCELLED,
    (_S.SCHEDULED, "step_started"): _S.RUNNING,
    (_S.SCHEDULED, "step_inherited"): _S.DONE,
    (_S.SCHEDULED, "step_overridden"): _S.DONE,
    (_S.SCHEDULED, "step_expired"): _S.EXPIRED,
    (_S.SCHEDULED, "step_skipped"): _S.SKIPPED,
    (_S.SCHEDULED, "step_cancelled"): _S.CANCELLED,
    (_S.RUNNING, "step_done"): _S.DONE,
    (_S.RUNNING, "step_failed"): _S.FAILED,
    (_S.RUNNING, "step_waiting"): _S.WAITING,
    (_S.RUNNING, "lease_lost"): _S.SCHEDULED,
    (_S.RUNNING, "step_cancelled"): _S.CANCELLED,
    (_S.WAITING, "signal_received"): _S.SCHEDULED,
    (_S.WAITING, "timer_fired"): _S.SCHEDULED,
    (_S.WAITING, "step_cancelled"): _S.CANCELLED,
    (_S.FAILED, "timer_fired"): _S.SCHEDULED,
    (_S.FAILED, "step_requeued"): _S.SCHEDULED,
    (_S.FAILED, "step_dead"): _S.DEAD,
    (_S.FAILED, "step_cancelled"): _S.CANCELLED,
    (_S.DEAD, "step_requeued"): _S.SCHEDULED,
}
"""(from, what happened) -> to, for steps. `upstream_done` is derived by the fold, `step_inherited` is one step of a
`steps_inherited`; the rest are event kinds."""

RUN_TRANSITIONS: Mapping[tuple[RunStatus, str], RunStatus] = {
    (_R.SCHEDULED, "run_started"): _R.RUNNING,
    (_R.SCHEDULED, "run_expired"): _R.EXPIRED,
    (_R.SCHEDULED, "run_cancelled"): _R.CANCELLED,
    (_R.RUNNING, "run_done"): _R.DONE,
    (_R.RUNNING, "run_failed"): _R.FAILED,
    (_R.RUNNING, "run_cancelled"): _R.CANCELLED,
    (_R.RUNNING, "run_paused"): _R.PAUSED,
    (_R.PAUSED, "run_resumed"): _R.RUNNING,
    (_R.PAUSED, "run_cancelled"): _R.CANCELLED,
    (_R.FAILED, "run_retried"): _R.RUNNING,
}
"""(from, event kind) -> to, for runs. A run is born SCHEDULED by `run_scheduled`."""

_Status = TypeVar("_Status", StepStatus, RunStatus)

_STEP_MOVES = frozenset((a, b) for (a, _), b in STEP_TRANSITIONS.items())
_RUN_MOVES = frozenset((a, b) for (a, _), b in RUN_TRANSITIONS.items())


def can_transition(current: StepStatus | RunStatus, target: StepStatus | RunStatus) -> bool:
    """Whether any table row leads from `current` to `target` (both of one machine)."""
    if type(current) is not type(target):
        return False
    moves: frozenset[tuple[StepStatus | RunStatus, StepStatus | RunStatus]]
    moves = _STEP_MOVES if isinstance(current, StepStatus) else _RUN_MOVES
    return (current, target) in moves


def transition(current: _Status, target: _Status) -> _Status:
    """Return `target` if the table allows the move, else raise `InvalidTransition` with what is allowed."""
    if can_transition(current, target):
        return target
    moves = _STEP_MOVES if isinstance(current, StepStatus) else _RUN_MOVES
    allowed = sorted(str(b) for a, b in moves if a == current)
    raise InvalidTransition(
        f"{type(current).__name__} cannot go from {current} to {target}",
        hint=f"From {current} the table allows: {', '.join(allowed) or 'nothing, it is final'}.",
        current=current,
        target=target,
    )


def next_step_status(current: StepStatus, kind: str) -> StepStatus:
    """The status that event `kind` moves a step to. Raises `InvalidTransition` if there is no such row."""
    target = STEP_TRANSITIONS.get((current, kind))
    if target is None:
        raise InvalidTransition(f"a step that is {current} cannot take {kind}", current=current, kind=kind)
    return target


def next_run_status(current: RunStatus, kind: str) -> RunStatus:
    """The status that event `kind` moves a run to. Raises `InvalidTransition` if there is no such row."""
    target = RUN_TRANSITIONS.get((current, kind))
    if target is None:
        raise InvalidTransition(f"a run that is {current} cannot take {kind}", current=current, kind=kind)
    return target
