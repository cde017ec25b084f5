"""The two state machines, restated by hand; then proof that every other pair is refused."""

from __future__ import annotations

from itertools import product

import pytest
from readable_tables import rows

from kairos.domain.events import EVENT_TYPES
from kairos.domain.states import (
    RUN_TRANSITIONS,
    STEP_TRANSITIONS,
    RunStatus,
    StepStatus,
    can_transition,
    next_run_status,
    next_step_status,
    transition,
)
from kairos.errors import InvalidTransition

STEP_TABLE = """
    from       what happened    to
    PENDING    upstream_done    SCHEDULED
    PENDING    step_inherited   DONE
    PENDING    step_overridden  DONE
    PENDING    step_skipped     SKIPPED
    PENDING    step_cancelled   CANCELLED
    SCHEDULED  step_started     RUNNING
    SCHEDULED  step_inherited   DONE
    SCHEDULED  step_overridden  DONE
    SCHEDULED  step_expired     EXPIRED
    SCHEDULED  step_skipped     SKIPPED
    SCHEDULED  step_cancelled   CANCELLED
    RUNNING    step_done        DONE
    RUNNING    step_failed      FAILED
    RUNNING    step_waiting     WAITING
    RUNNING    lease_lost       SCHEDULED
    RUNNING    step_cancelled   CANCELLED
    WAITING    signal_received  SCHEDULED
    WAITING    timer_fired      SCHEDULED
    WAITING    step_cancelled   CANCELLED
    FAILED     timer_fired      SCHEDULED
    FAILED     step_requeued    SCHEDULED
    FAILED     step_dead        DEAD
    FAILED     step_cancelled   CANCELLED
    DEAD       step_requeued    SCHEDULED
"""

RUN_TABLE = """
    from       what happened  to
    SCHEDULED  run_started    RUNNING
    SCHEDULED  run_expired    EXPIRED
    SCHEDULED  run_cancelled  CANCELLED
    RUNNING    run_done       DONE
    RUNNING    run_failed     FAILED
    RUNNING    run_cancelled  CANCELLED
    RUNNING    run_paused     PAUSED
    PAUSED     run_resumed    RUNNING
    PAUSED     run_cancelled  CANCELLED
    FAILED     run_retried    RUNNING
"""

ENDS = """
    machine  status     has ended
    step     PENDING    no
    step     SCHEDULED  no
    step     RUNNING    no
    step     WAITING    no
    step     DONE       yes
    step     FAILED     no
    step     DEAD       yes
    step     EXPIRED    yes
    step     SKIPPED    yes
    step     CANCELLED  yes
    run      SCHEDULED  no
    run      RUNNING    no
    run      PAUSED     no
    run      DONE       yes
    run      FAILED     yes
    run      CANCELLED  yes
    run      EXPIRED    yes
"""

STEP_ROWS = {(a, what): b for a, what, b in rows(STEP_TABLE)}
RUN_ROWS = {(a, what): b for a, what, b in rows(RUN_TABLE)}
STEP_MOVES = {(a, b) for (a, _), b in STEP_ROWS.items()}
RUN_MOVES = {(a, b) for (a, _), b in RUN_ROWS.items()}

# Every word that either machine or the log knows: what one takes, the other must refuse too.
KINDS = sorted({*EVENT_TYPES, *(kind for _, kind in STEP_ROWS), *(kind for _, kind in RUN_ROWS), "no_such_event", ""})


def test_the_tables_of_the_code_are_the_tables_of_this_page() -> None:
    assert {(a.value, what): b.value for (a, what), b in STEP_TRANSITIONS.items()} == STEP_ROWS
    assert {(a.value, what): b.value for (a, what), b in RUN_TRANSITIONS.items()} == RUN_ROWS


def test_a_status_is_written_as_it_is_named() -> None:
    for status in (*StepStatus, *RunStatus):
        assert str(status) == status.value == status.name


@pytest.mark.parametrize(("machine", "status", "has_ended"), rows(ENDS))
def test_which_statuses_are_final(machine: str, status: str, has_ended: str) -> None:
    kind = StepStatus if machine == "step" else RunStatus
    assert kind(status).is_terminal == (has_ended == "yes")


def test_the_table_of_final_statuses_leaves_none_out() -> None:
    listed = {(machine, status) for machine, status, _ in rows(ENDS)}
    assert listed == {("step", s.value) for s in StepStatus} | {("run", s.value) for s in RunStatus}


def test_only_a_requeue_and_a_retry_lead_out_of_a_final_status() -> None:
    assert {what for (a, what) in STEP_ROWS if StepStatus(a).is_terminal} == {"step_requeued"}
    assert {what for (a, what) in RUN_ROWS if RunStatus(a).is_terminal} == {"run_retried"}


@pytest.mark.parametrize(("before", "after"), list(product(StepStatus, StepStatus)))
def test_a_step_moves_from_one_status_to_another_only_if_the_table_says_so(
    before: StepStatus, after: StepStatus
) -> None:
    _check_move(before, after, (before.value, after.value) in STEP_MOVES)


@pytest.mark.parametrize(("before", "after"), list(product(RunStatus, RunStatus)))
def test_a_run_moves_from_one_status_to_another_only_if_the_table_says_so(before: RunStatus, after: RunStatus) -> None:
    _check_move(before, after, (before.value, after.value) in RUN_MOVES)


@pytest.mark.parametrize(("step", "run"), list(product(StepStatus, RunStatus)))
def test_no_move_leads_from_one_machine_to_the_other(step: StepStatus, run: RunStatus) -> None:
    assert not can_transition(step, run)
    assert not can_transition(run, step)
    with pytest.raises(InvalidTransition):
        transition(step, run)  # type: ignore[type-var]


@pytest.mark.parametrize(("before", "kind"), list(product(StepStatus, KINDS)))
def test_a_step_takes_an_event_only_if_the_table_says_so(before: StepStatus, kind: str) -> None:
    after = STEP_ROWS.get((before.value, kind))
    if after is not None:
        assert next_step_status(before, kind) is StepStatus(after)
        return
    with pytest.raises(InvalidTransition) as caught:
        next_step_status(before, kind)
    assert caught.value.facts == {"current": before, "kind": kind}


@pytest.mark.parametrize(("before", "kind"), list(product(RunStatus, KINDS)))
def test_a_run_takes_an_event_only_if_the_table_says_so(before: RunStatus, kind: str) -> None:
    after = RUN_ROWS.get((before.value, kind))
    if after is not None:
        assert next_run_status(before, kind) is RunStatus(after)
        return
    with pytest.raises(InvalidTransition) as caught:
        next_run_status(before, kind)
    assert caught.value.facts == {"current": before, "kind": kind}


def test_a_refusal_says_what_would_have_been_allowed() -> None:
    with pytest.raises(InvalidTransition, match="from FAILED to RUNNING") as caught:
        transition(StepStatus.FAILED, StepStatus.RUNNING)
    assert "CANCELLED, DEAD, SCHEDULED" in str(caught.value.hint)
    with pytest.raises(InvalidTransition) as caught:
        transition(RunStatus.DONE, RunStatus.RUNNING)
    assert "nothing, it is final" in str(caught.value.hint)


def _check_move(before: StepStatus | RunStatus, after: StepStatus | RunStatus, allowed: bool) -> None:
    assert can_transition(before, after) == allowed
    if allowed:
        assert transition(before, after) is after  # type: ignore[type-var]
        return
    with pytest.raises(InvalidTransition) as caught:
        transition(before, after)  # type: ignore[type-var]
    assert caught.value.facts == {"current": before, "target": after}
