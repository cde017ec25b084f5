"""One event as one line: number, time since the run was scheduled, kind, step, and what matters of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, assert_never

from rich.text import Text

from kairos.cli import words
from kairos.cli.payloads import preview
from kairos.cli.terminal import one_line
from kairos.domain import events as e
from kairos.domain.duration import format_duration
from kairos.domain.events import Event, Recorded

_STYLES: Final = {
    "run_done": "green", "run_failed": "red", "run_cancelled": "magenta", "run_expired": "yellow",
    "run_cancel_requested": "magenta", "step_started": "cyan", "step_done": "green", "step_failed": "yellow",
    "step_dead": "red", "step_expired": "yellow", "step_cancelled": "magenta", "lease_lost": "red",
    "stale_write_rejected": "red", "log_emitted": "dim", "metric_emitted": "dim", "effect_recorded": "blue",
    "run_forked": "magenta", "steps_inherited": "green", "step_overridden": "magenta",
}  # fmt: skip
KIND_WIDTH: Final = max(len(kind) for kind in e.EVENT_TYPES)


def event_line(recorded: Recorded, began: datetime, step_width: int) -> Text:
    """The line; long ones are cut by whoever prints it."""
    event = recorded.event
    line = Text(f"{recorded.seq:>5}  {offset(recorded.at - began):>9}  ", "dim")
    line.append(f"{event.kind:<{KIND_WIDTH}}  ", _STYLES.get(event.kind, ""))
    step = getattr(event, "step", None)
    if step is not None:
        attempt = getattr(event, "attempt", None)
        tries = f"#{attempt}" if attempt is not None and attempt > 1 else ""
        line.append(one_line(step, step_width).ljust(step_width))
        line.append(f" {tries:<4}", "yellow")
    line.append(detail(event, recorded.at))
    line.rstrip()
    return line


def offset(length: timedelta) -> str:
    """`+8.604s`, `+12m 5s`: milliseconds as long as they fit, so that columns line up."""
    seconds = length.total_seconds()
    return f"+{seconds:.3f}s" if seconds < 600 else f"+{format_duration(length)}"


def detail(event: Event, at: datetime) -> Text:
    """What matters of an event, in a few words."""
    match event:
        case e.RunScheduled():
            return _scheduled(event)
        case e.RunStarted():
            return Text(f"taken by {one_line(event.worker)}")
        case e.RunDone():
            return Text("")
        case e.RunFailed() | e.RunExpired() | e.RunCancelled():
            return Text(one_line(event.reason))
        case e.RunCancelRequested():
            return Text(f"by {one_line(event.author)}: {one_line(event.reason)}")
        case e.StepStarted():
            where = f"on {one_line(event.worker)}" if event.worker else ""
            return Text(" ".join(filter(None, (where, "alone in a process" if event.isolated else ""))))
        case e.StepDone():
            line = Text(f"{_took(event.duration_us)}  ")
            return line.append(preview(event.output), "dim")
        case e.StepFailed():
            then = f"; next try in {words.took(event.retry_at - at)}" if event.retry_at else ""
            return Text(f"{_took(event.duration_us)}  {one_line(event.error.summary)}{then}")
        case e.StepDead() | e.StepExpired() | e.StepCancelled():
            return Text(one_line(event.reason))
        case e.TimerFired():
            return Text("its next try is due" if event.timer == "retry" else one_line(event.timer))
        case e.LeaseLost():
            return Text(lost_words(event))
        case e.StaleWriteRejected():
            return Text(f"late {one_line(event.what)} from {one_line(event.worker)}")
        case e.MetricEmitted():
            labels = " ".join(f"{one_line(k)}={one_line(v)}" for k, v in event.labels.items())
            return Text(f"{one_line(event.name)} = {event.value:g}  {labels}".rstrip())
        case e.LogEmitted():
            fields = " ".join(f"{one_line(k)}={one_line(v, 60)}" for k, v in event.fields.items())
            return Text(f"{one_line(event.level)}: {one_line(event.message)}  {fields}".rstrip())
        case e.EffectRecorded():
            return _effect(event)
        case e.RunForked():
            where = f"from {one_line(event.from_step)} of {event.parent} at #{event.parent_seq}"
            return Text(f"{where}: {one_line(event.reason)}" if event.reason else where)
        case e.StepsInherited():
            names = ", ".join(one_line(name) for name in list(event.outputs)[:8])
            return Text(f"{len(event.outputs)} from {event.run}: {names}{', ...' if len(event.outputs) > 8 else ''}")
        case e.StepOverridden():
            return Text("given by the author of the fork  ").append(preview(event.output), "dim")
        case _:
            assert_never(event)


def lost_words(event: e.LeaseLost) -> str:
    """Why an attempt ended with its worker."""
    lost = f"worker {one_line(event.worker)} is gone" if event.worker else "its worker is gone"
    reasons = {"worker_lost": lost, "crashed": "its process died", "released": "given back"}
    words_of = reasons.get(event.reason, one_line(event.reason))
    by = f" ({event.signal})" if event.signal else ""
    then = "; runs alone from now on" if event.suspect else ""
    return f"{words_of}{by}{then}"


def _effect(event: e.EffectRecorded) -> Text:
    name = one_line(event.name, 100)
    line = Text(f"{name if name.startswith(event.via) else f'{event.via} {name}'} #{event.ordinal}  ")
    if event.via in ("call", "http"):
        line.append(f"{_took(event.duration_us)}  ")
    if event.error is not None:
        return line.append(one_line(event.error.summary), "yellow")
    return line.append(preview(event.result), "dim") if event.result is not None else line


def _scheduled(event: e.RunScheduled) -> Text:
    parts = [one_line(event.workflow), f"queue {event.queue}"]
    if event.key is not None:
        parts.append(f"key {one_line(event.key, 60)}")
    line = Text("  ".join(parts) + "  ")
    return line.append(preview(event.input), "dim")


def _took(microseconds: int) -> str:
    return format_duration(timedelta(microseconds=microseconds))
