"""One sentence for every way in which a run can stand still, from facts that are made up."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from kairos.diagnosis import Reason, RunFacts, TaskFact, WorkerFact, explain, explain_steps
from kairos.domain.commands import FinishCancel, RequestCancel
from tests.domain.run_stories import BOOM, NOON, SECOND, Story, graph_of, spec

VERSION = "f" * 32
OTHER = "e" * 32


def clock(at: datetime) -> str:
    return at.astimezone().strftime("%H:%M:%S")


def worker(name: str = "w1", **more: Any) -> WorkerFact:
    usual: dict[str, Any] = {
        "id": name,
        "name": name,
        "state": "live",
        "queues": ("default",),
        "fingerprints": frozenset({VERSION}),
        "beat_at": NOON - SECOND,
        "lease_until": NOON + 14 * SECOND,
        "is_live": True,
        "concurrency": 10,
        "running": 1,
    }
    return WorkerFact(**{**usual, **more})


DEAD = worker(state="dead", is_live=False, beat_at=NOON - 60 * SECOND, lease_until=NOON - 45 * SECOND)


def task(**more: Any) -> TaskFact:
    usual: dict[str, Any] = {
        "step": "",
        "queue": "default",
        "ready_at": NOON - SECOND,
        "expires_at": None,
        "fingerprint": VERSION,
        "worker": None,
        "worker_state": None,
        "lease_until": None,
        "is_leased": False,
    }
    return TaskFact(**{**usual, **more})


HELD = task(worker="w1", worker_state="live", lease_until=NOON + 14 * SECOND, is_leased=True)
ORPHANED = task(worker="w1", worker_state="dead", lease_until=NOON - 45 * SECOND)


def told(story: Story, tasks: list[TaskFact], workers: list[WorkerFact], **more: Any) -> Reason:
    now = more.pop("now", story.now)
    return explain(RunFacts(story.state, tasks, workers, now, {VERSION: "story", OTHER: "story"}, **more))


def a_run() -> Story:
    return Story(graph_of(a="", b="a"))


def a_started_run() -> Story:
    return a_run().claim().start("a")


def test_a_loss_that_nobody_has_settled_is_told_with_what_killed_the_worker() -> None:
    lost = task(lost_by="w1", killed_by="SIGKILL")
    reason = told(a_started_run(), [lost], [])
    assert reason.kind == "no_worker"
    assert reason.sentence.endswith("Worker w1 died (SIGKILL) while it was running a.")
    assert told(a_started_run(), [replace(lost, killed_by=None)], []).sentence.endswith(
        "Worker w1 was lost while it was running a."
    )
    story = a_started_run()
    step = explain_steps(RunFacts(story.state, [lost], [], story.now))[0]
    assert (
        step.sentence == "Worker w1 died (SIGKILL) while it was running step a; whoever takes the run tries it again."
    )


def test_a_loss_that_was_settled_is_history() -> None:
    story = a_started_run().lose("a")
    assert "w1" not in told(story, [task(lost_by="w1", killed_by="SIGKILL")], []).sentence


# -- before it starts -----------------------------------------------------------------------------------------


def test_no_worker_at_all() -> None:
    reason = told(a_run(), [task()], [DEAD])
    assert (reason.kind, reason.sentence) == ("no_worker", "It waits for a worker: none is running.")
    assert "kairos worker" in str(reason.hint)


def test_no_worker_for_the_queue() -> None:
    reason = told(a_run(), [task(queue="mail")], [worker(queues=("default", "slow"))])
    assert (reason.kind, reason.sentence) == (
        "no_queue",
        "It waits for a worker: no live one serves queue 'mail' (they serve default and slow).",
    )
    assert reason.hint == "Start one with `kairos worker --queues mail`."


def test_no_worker_for_the_version_names_those_there_are() -> None:
    reason = told(a_run(), [task()], [worker(fingerprints=frozenset({OTHER}))])
    assert reason.kind == "no_version"
    assert reason.sentence == "It waits for a worker: no live one has version ffffffff of 'story' (they have eeeeeeee)."


def test_no_worker_for_the_workflow() -> None:
    reason = told(a_run(), [task()], [worker(fingerprints=frozenset())])
    assert "no live one has 'story' at all" in reason.sentence
    assert "the app that has 'story'" in str(reason.hint)


def test_queue_and_version_never_in_one_worker() -> None:
    workers = [worker("w1", queues=("mail",), fingerprints=frozenset({OTHER})), worker("w2")]
    assert told(a_run(), [task(queue="mail")], workers).kind == "no_queue_and_version"


def test_every_worker_is_full() -> None:
    reason = told(a_run(), [task()], [worker(running=10)], waiting=7)
    assert (reason.kind, reason.sentence) == (
        "slots",
        "It waits for a free slot: worker w1 is full; 7 tasks wait in queue 'default'.",
    )


def test_about_to_be_taken() -> None:
    reason = told(a_run(), [task()], [worker("w1"), worker("w2")])
    assert (reason.kind, reason.sentence) == (
        "claim",
        "It waits to be taken by one of 2 workers, which should happen at once.",
    )


def test_not_due_yet() -> None:
    at = NOON + 12 * SECOND
    reason = told(a_run(), [task(ready_at=at)], [worker()])
    assert (reason.kind, reason.until) == ("timer", at)
    assert reason.sentence == f"It is not due before {clock(at)} (in 12s)."


@pytest.mark.parametrize(("past", "kind"), [(timedelta(microseconds=-1), "no_worker"), (timedelta(), "expired")])
def test_expired_is_told_from_the_very_moment_on(past: timedelta, kind: str) -> None:
    assert told(a_run(), [task(expires_at=NOON)], [], now=NOON + past).kind == kind


def test_a_run_without_a_task_is_a_scandal() -> None:
    reason = told(a_run(), [], [worker()])
    assert reason.kind == "no_task"
    assert "must not happen" in reason.sentence


# -- while it runs --------------------------------------------------------------------------------------------


def test_running_steps_are_named_with_their_worker() -> None:
    story = a_started_run().wait(3 * SECOND)
    reason = told(story, [HELD], [worker(beat_at=story.now - SECOND, lease_until=story.now + 14 * SECOND)])
    assert (reason.kind, reason.sentence) == ("running", "It is running: a on worker w1, for 3s.")


def test_many_running_steps_are_counted() -> None:
    story = Story(graph_of(a="", b="", c="", d="", e="", f="")).claim().start(*"abcdef")
    assert "a, b, c, d and 2 more on worker w1" in told(story, [HELD], [worker()]).sentence


def test_a_backoff_tells_when_and_after_what() -> None:
    story = a_started_run().fail("a")
    reason = told(story, [HELD], [worker()])
    assert (reason.kind, reason.until) == ("backoff", NOON + 10 * SECOND)
    assert reason.sentence == (
        f"Step a waits until {clock(NOON + 10 * SECOND)} (in 10s) for attempt 2 of 3, after ValueError: boom."
    )


def test_a_parked_run_tells_of_its_backoff_though_nobody_holds_it() -> None:
    story = a_started_run().fail("a")
    assert told(story, [task(ready_at=NOON + 10 * SECOND)], []).kind == "backoff"


def test_a_backoff_that_is_over_is_due() -> None:
    story = a_started_run().fail("a").wait(10 * SECOND)
    fresh = worker(beat_at=story.now, lease_until=story.now + 15 * SECOND)
    assert told(story, [HELD], [fresh]).sentence == "Step a is due for attempt 2 of 3, after ValueError: boom."


def test_a_ready_step_without_a_slot() -> None:
    story = a_run().claim()
    reason = told(story, [HELD], [worker()])
    assert (reason.kind, reason.sentence) == ("slots", "Step a is ready and waits for a free slot of worker w1.")


def test_a_ready_step_of_a_queue_that_nobody_serves() -> None:
    story = Story(graph_of(a=spec("a", queue="gpu"))).claim()
    reason = told(story, [HELD, task(step="a", queue="gpu")], [worker()])
    assert reason.kind == "no_queue"
    assert (
        reason.sentence
        == "Step a is ready and waits for a worker: no live one serves queue 'gpu' (they serve default)."
    )


def test_a_silent_worker_is_not_believed() -> None:
    silent = worker(beat_at=NOON - 10 * SECOND, lease_until=NOON + 5 * SECOND)
    reason = told(a_started_run(), [HELD], [silent])
    assert (reason.kind, reason.until) == ("silent_worker", NOON + 5 * SECOND)
    assert reason.sentence == (
        "Worker w1 holds it but has been silent for 10s; if it stays silent, "
        f"its lease ends at {clock(NOON + 5 * SECOND)} (in 5s), and another worker takes over."
    )


def test_a_dead_worker_with_an_heir() -> None:
    reason = told(a_started_run(), [ORPHANED], [DEAD, worker("w2")])
    assert (reason.kind, reason.sentence) == (
        "dead_worker",
        "Its worker w1 is dead; worker w2 will take it within seconds.",
    )


def test_a_dead_worker_without_an_heir() -> None:
    reason = told(a_started_run(), [ORPHANED], [DEAD])
    assert reason.sentence == "Its worker w1 is dead, and it waits for another: none is running."


def test_a_cancellation_waits_for_running_steps() -> None:
    story = a_started_run()
    story.ask(RequestCancel("ann", "too late"))
    reason = told(story, [HELD], [worker()])
    assert reason.kind == "cancelling"
    assert reason.sentence == (
        "Its cancellation was asked for by ann (too late); it waits for a to stop, or for the grace time to end."
    )


# -- when it has ended ----------------------------------------------------------------------------------------


def test_done() -> None:
    story = a_started_run().wait(2 * SECOND).finish("a").start("b").finish("b").wait(60 * SECOND)
    reason = told(story, [], [])
    assert (reason.kind, reason.sentence) == ("done", "It waits for nothing: it was done 1m ago, after 2s.")


def test_failed_names_the_dead_step() -> None:
    story = a_started_run().fail("a", retryable=False).wait(SECOND)
    reason = told(story, [], [])
    assert (reason.kind, reason.sentence) == (
        "failed",
        f"It failed 1s ago: a: {BOOM.summary} (not retryable).",
    )


def test_cancelled_names_who() -> None:
    story = a_started_run()
    story.ask(RequestCancel("ann", "too late"))
    story.ask(FinishCancel())
    assert told(story, [], []).sentence == "It was cancelled by ann 0us ago: too late."


# -- step by step ---------------------------------------------------------------------------------------------


def test_each_step_says_what_it_waits_for() -> None:
    story = Story(graph_of(a="", b="", c="a b", d="c")).claim().start("a", "b").fail("a")
    facts = RunFacts(story.state, [HELD], [worker()], NOON)
    assert [(r.step, r.status, r.kind) for r in explain_steps(facts)] == [
        ("b", "RUNNING", "running"),
        ("a", "FAILED", "backoff"),
        ("c", "PENDING", "upstream"),
        ("d", "PENDING", "upstream"),
    ]
    assert explain_steps(facts)[2].sentence == "Step c waits for a and b."


def test_steps_taken_by_other_workers_are_told() -> None:
    story = a_run().claim()
    tasks = [HELD, task(step="a", worker="w2", worker_state="live", is_leased=True)]
    facts = RunFacts(story.state, tasks, [worker(), worker("w2")], NOON)
    assert explain_steps(facts)[0].sentence == "Step a has been taken by worker w2."
    dead = replace(tasks[1], worker_state="dead", is_leased=False)
    facts = RunFacts(story.state, [HELD, dead], [worker()], NOON)
    assert explain_steps(facts)[0].kind == "dead_worker"


def test_an_ended_run_has_no_waiting_steps() -> None:
    story = a_started_run().fail("a", retryable=False)
    assert explain_steps(RunFacts(story.state, [], [], NOON)) == []


def test_a_reason_is_plain_json() -> None:
    story = a_started_run().fail("a")
    facts = RunFacts(story.state, [HELD], [worker()], NOON)
    assert explain(facts).to_json().keys() == {"kind", "sentence", "until", "hint"}
    assert explain_steps(facts)[0].to_json().keys() == {"kind", "sentence", "until", "hint", "step", "status"}
