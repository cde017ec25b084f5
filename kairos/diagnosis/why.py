"""Why a run does not go on: one sentence for the run, and one for each step that has not ended."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from kairos.diagnosis.facts import Reason, RunFacts, TaskFact, WorkerFact
from kairos.diagnosis.phrases import ago, listed, named, span, until
from kairos.diagnosis.serving import unserved
from kairos.domain.duration import format_duration
from kairos.domain.projection import RunState, StepState
from kairos.domain.states import RunStatus, StepStatus


def explain(facts: RunFacts) -> Reason:
    """Why the run stands where it stands."""
    state = facts.state
    if state.status.is_terminal:
        return _ended(state, facts.now)
    if facts.imported is not None:
        return Reason(
            "imported",
            f"It was imported from {facts.imported} and is kept as it was, {state.status}: no worker takes it up.",
            hint=f"`kairos fork {state.run_id} --from STEP` continues it as a run of this place.",
        )
    task = facts.task()
    if task is None:
        return Reason(
            "no_task",
            f"It is {state.status} but has no task, so no worker will ever look at it: this must not happen.",
            hint="`kairos verify` and `kairos doctor` show how many runs are like this; please report it.",
        )
    if state.status is RunStatus.PAUSED:
        return Reason("paused", "It is paused until somebody resumes it.")
    if state.cancel_requested is not None:
        return _cancelling(facts, task)
    if task.worker is None:
        return _after_loss(facts, task, _unclaimed(facts, task))
    if not task.is_leased:
        return _orphaned(facts, task)
    return _held(facts, task)


def explain_steps(facts: RunFacts, most: int = 50) -> list[Reason]:
    """Why each step that has not ended stands where it stands, those nearest to running first."""
    if facts.state.status.is_terminal:
        return []
    steps = [(name, step) for name, step in facts.state.steps.items() if not step.status.is_terminal]
    order = list(_ORDER)
    steps.sort(key=lambda item: order.index(item[1].status))
    return [_step(facts, name, step) for name, step in steps[:most]]


_ORDER = (
    StepStatus.RUNNING,
    StepStatus.FAILED,
    StepStatus.SCHEDULED,
    StepStatus.WAITING,
    StepStatus.PENDING,
)


# -- the run -------------------------------------------------------------------------------------------------


def _ended(state: RunState, now: datetime) -> Reason:
    when = ago(state.finished_at, now)
    match state.status:
        case RunStatus.DONE:
            took = span(state.started_at, state.finished_at)
            return Reason("done", f"It waits for nothing: it was done {when}{f', after {took}' if took else ''}.")
        case RunStatus.FAILED:
            return Reason("failed", f"It failed {when}: {state.reason}.")
        case RunStatus.CANCELLED:
            by = f" by {state.cancel_requested.author}" if state.cancel_requested else ""
            return Reason("cancelled", f"It was cancelled{by} {when}: {state.reason}.")
        case _:
            return Reason("expired", f"It expired {when}: {state.reason}.")


def _cancelling(facts: RunFacts, task: TaskFact) -> Reason:
    asked = facts.state.cancel_requested
    assert asked is not None
    running = facts.state.steps_in(StepStatus.RUNNING)
    who = f"Its cancellation was asked for by {asked.author} ({asked.reason})"
    if task.worker is not None and not task.is_leased:
        return Reason("cancelling", f"{who}; its worker {task.worker} is gone, and the next one that looks ends it.")
    if task.worker is None and not running:
        return Reason("cancelling", f"{who}; the next worker that looks ends it.")
    what = f"{listed(running)} to stop, or for the grace time to end"
    return Reason("cancelling", f"{who}; it waits for {what}.", hint="KAIROS_CANCEL_GRACE is that time.")


def _unclaimed(facts: RunFacts, task: TaskFact) -> Reason:
    state = facts.state
    if task.expires_at is not None and task.expires_at <= facts.now and state.status is RunStatus.SCHEDULED:
        when = ago(task.expires_at, facts.now)
        sentence = f"Its time to live closed {when}; the next worker that looks records it as EXPIRED."
        return Reason("expired", sentence)
    if task.ready_at > facts.now:
        return _parked(facts, task)
    reason = unserved(facts.workers, task.queue, task.fingerprint, state.workflow, facts.versions)
    if reason is not None:
        return replace(reason, sentence=f"It waits for a worker: {reason.sentence}.")
    able = [w for w in facts.workers if w.serves(task.queue, task.fingerprint)]
    slots = sum(max(w.concurrency - w.running, 0) for w in able)
    if slots:
        return Reason("claim", f"It waits to be taken by {named(able)}, which should happen at once.")
    behind = f"; {facts.waiting} tasks wait in queue {task.queue!r}" if facts.waiting > 1 else ""
    return Reason(
        "slots",
        f"It waits for a free slot: {named(able)} {'is' if len(able) == 1 else 'are'} full{behind}.",
        hint="Raise --concurrency or --processes, or start more workers.",
    )


def _after_loss(facts: RunFacts, task: TaskFact, reason: Reason) -> Reason:
    """Say that a worker died with it, as long as nobody has settled what it was running."""
    running = facts.state.steps_in(StepStatus.RUNNING)
    if not running or task.lost_by is None:
        return reason
    was = f"{_death(task)} while it was running {listed(running)}"
    return replace(reason, sentence=f"{reason.sentence} {was}.")


def _death(task: TaskFact) -> str:
    return f"Worker {task.lost_by} {f'died ({task.killed_by})' if task.killed_by else 'was lost'}"


def _parked(facts: RunFacts, task: TaskFact) -> Reason:
    for name in facts.state.steps_in(StepStatus.FAILED):
        step = facts.state.steps[name]
        if step.retry_at is not None and step.retry_at >= facts.now:
            return _backoff(facts, name, step)
    when = until(task.ready_at, facts.now)
    return Reason("timer", f"It is not due before {when}.", task.ready_at)


def _orphaned(facts: RunFacts, task: TaskFact) -> Reason:
    able = [w for w in facts.workers if w.serves(task.queue, task.fingerprint)]
    if able:
        sentence = f"Its worker {task.worker} is dead; {named(able)} will take it within seconds."
        return Reason("dead_worker", sentence, task.lease_until)
    inner = unserved(facts.workers, task.queue, task.fingerprint, facts.state.workflow, facts.versions)
    why = inner.sentence if inner else "none can take over"
    hint = inner.hint if inner else "Start one with `kairos worker`."
    return Reason("dead_worker", f"Its worker {task.worker} is dead, and it waits for another: {why}.", hint=hint)


def _held(facts: RunFacts, task: TaskFact) -> Reason:
    owner = next((w for w in facts.workers if w.name == task.worker), None)
    if owner is not None and (silent := _silence(owner, facts.now)) is not None:
        return silent
    state = facts.state
    running = state.steps_in(StepStatus.RUNNING)
    if running:
        longest = min((state.steps[n].started_at or facts.now for n in running), default=facts.now)
        since = format_duration(max(facts.now - longest, timedelta()))
        return Reason("running", f"It is running: {listed(running)} on worker {task.worker}, for {since}.")
    for status in (StepStatus.FAILED, StepStatus.SCHEDULED, StepStatus.WAITING):
        for name in state.steps_in(status):
            return _step(facts, name, state.steps[name], is_run=True)
    return Reason("held", f"Worker {task.worker} holds it and is about to go on.")


def _silence(owner: WorkerFact, now: datetime) -> Reason | None:
    """A worker beats three times per lease; one that missed a beat by far may be dead or frozen."""
    lease = owner.lease_until - owner.beat_at
    quiet = now - owner.beat_at
    if quiet < lease * 0.6:
        return None
    then = until(owner.lease_until, now)
    sentence = (
        f"Worker {owner.name} holds it but has been silent for {format_duration(quiet)}; "
        f"if it stays silent, its lease ends at {then}, and another worker takes over."
    )
    return Reason("silent_worker", sentence, owner.lease_until)


# -- steps -----------------------------------------------------------------------------------------------------


def _step(facts: RunFacts, name: str, step: StepState, *, is_run: bool = False) -> Reason:
    state = facts.state
    subject = f"Step {name}"
    match step.status:
        case StepStatus.RUNNING:
            kind, sentence, hint = "running", _running(facts, name, step), None
        case StepStatus.FAILED:
            found = _backoff(facts, name, step)
            return found if is_run else Reason(found.kind, found.sentence, found.until, name, step.status)
        case StepStatus.SCHEDULED:
            kind, sentence, hint = _ready(facts, name, step)
        case StepStatus.PENDING:
            missing = [up for up in state.graph.steps[name].upstream if not state.steps[up].done_seq]
            kind, sentence, hint = "upstream", f"{subject} waits for {listed(missing)}.", None
        case _:
            kind, sentence, hint = "waiting", f"{subject} waits inside its function.", None
    return Reason(kind, sentence, None, "" if is_run else name, "" if is_run else step.status.value, hint)


def _running(facts: RunFacts, name: str, step: StepState) -> str:
    since = format_duration(max(facts.now - (step.started_at or facts.now), timedelta()))
    task = facts.task()
    if step.worker is None and task is not None and task.worker is None and task.lost_by is not None:
        return f"{_death(task)} while it was running step {name}; whoever takes the run tries it again."
    worker = step.worker or (task.worker if task else None) or facts.state.worker
    return f"Step {name} is running on worker {worker}, attempt {step.attempt}, for {since}."


def _backoff(facts: RunFacts, name: str, step: StepState) -> Reason:
    policy = facts.state.graph.steps[name].retry
    error = step.error.summary if step.error else "an error"
    retry_at = step.retry_at or facts.now
    tries = f"attempt {step.failures + 1}" + (f" of {policy.attempts}" if policy.attempts else "")
    if retry_at <= facts.now:
        return Reason("due", f"Step {name} is due for {tries}, after {error}.", retry_at)
    sentence = f"Step {name} waits until {until(retry_at, facts.now)} for {tries}, after {error}."
    return Reason("backoff", sentence, retry_at)


def _ready(facts: RunFacts, name: str, step: StepState) -> tuple[str, str, str | None]:
    state, offered = facts.state, facts.task(name)
    queue = state.graph.steps[name].queue or state.queue
    if offered is not None and offered.worker is not None and offered.is_leased:
        return "claimed", f"Step {name} has been taken by worker {offered.worker}.", None
    if offered is not None and offered.worker is not None:
        return "dead_worker", f"Step {name} was taken by worker {offered.worker}, which is dead.", None
    found = unserved(facts.workers, queue, state.fingerprint, state.workflow, facts.versions)
    if found is not None:
        return found.kind, f"Step {name} is ready and waits for a worker: {found.sentence}.", found.hint
    owner = facts.task()
    if offered is None and owner is not None and owner.worker is not None:
        return "slots", f"Step {name} is ready and waits for a free slot of worker {owner.worker}.", None
    return "slots", f"Step {name} is ready and waits for a free slot in queue {queue!r}.", None
