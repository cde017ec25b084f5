"""What happened, in one sentence: the first thing that a page says about a run."""

from __future__ import annotations

from dataclasses import dataclass

from debugger_ui import words
from debugger_ui.attempts import attempts_of
from debugger_ui.histories import History
from debugger_ui.moments import failure_seq
from debugger_ui.ui import Ui
from kairos.client.facts import run_facts
from kairos.diagnosis import explain
from kairos.domain.states import RunStatus
from kairos.errors import KairosError


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence about a run.

    Attributes:
        tone: `good`, `bad`, `open` or `quiet`; `seq`: the moment that it speaks of; `hint`: what to do.
        detail: the error, when there is one.
    """

    tone: str
    sentence: str
    detail: str = ""
    seq: int | None = None
    step: str | None = None
    hint: str | None = None


async def verdict_of(ui: Ui, history: History) -> Verdict:
    """The sentence for a run as it is now."""
    state = history.state
    if history.broken is not None:
        seq, why = history.broken
        return Verdict("bad", f"The log cannot be folded from #{seq:,} on.", why, max(seq - 1, 0))
    if state.status is RunStatus.DONE:
        return _done(history)
    if state.status is RunStatus.FAILED:
        return _failed(history)
    if state.status.is_terminal:
        word = "was cancelled" if state.status is RunStatus.CANCELLED else "expired"
        asked = state.cancel_requested
        by = f" by {words.one_line(asked.author, 60)}" if asked is not None else ""
        return Verdict("bad", f"This run {word}{by}.", words.one_line(state.reason or ""), failure_seq(history))
    if history.is_fixed:
        sentence = "This run had not ended when it was exported."
        return Verdict("open", sentence, hint="What became of it since, the database knows that it comes from.")
    try:
        async with ui.reads.reader() as reader:
            reason = explain(await run_facts(reader, state))
    except KairosError:
        return Verdict("open", "This run goes on.")
    return Verdict("open", reason.sentence, hint=reason.hint)


def _done(history: History) -> Verdict:
    state = history.state
    failures = sum(step.failures for step in state.steps.values())
    losses = sum(step.losses for step in state.steps.values())
    length = words.took(state.finished_at - state.scheduled_at) if state.finished_at and state.scheduled_at else ""
    ran = sum(step.attempt > 0 for step in state.steps.values())
    inherited = len(state.steps) - ran
    parts = [f"{words.plural(ran, 'step')} ran in {length}"]
    if inherited:
        parts.append(f"{words.plural(inherited, 'step')} taken over from the run it was forked from")
    sentence = ", ".join(parts) + "."
    if not failures and not losses:
        return Verdict("good", sentence)
    troubles = [words.plural(n, noun) for n, noun in ((failures, "failed attempt"), (losses, "lost attempt")) if n]
    first = history.first_of("step_failed", "lease_lost")
    return Verdict("good", f"{sentence[:-1]}, after {' and '.join(troubles)}.", seq=first)


def _failed(history: History) -> Verdict:
    seq = failure_seq(history)
    entry = history.entries[seq - 1] if seq else None
    if entry is None or entry.step is None:
        return Verdict("bad", "This run failed.", words.one_line(history.state.reason or ""), seq)
    step = history.state.steps[entry.step]
    tries = len(attempts_of(history, entry.step))
    if step.error is not None and step.failures:
        how = "failed at its only attempt" if tries == 1 else f"failed, the last time at attempt {tries}"
        detail = step.error.summary
    elif step.status.value == "EXPIRED":
        how, detail = "expired before a worker took it", step.reason or ""
    else:
        how, detail = f"was given up after {words.plural(tries, 'attempt')}", step.reason or ""
    blocked = sum(s.status.value == "PENDING" for s in history.state.steps.values())
    rest = f" {words.plural(blocked, 'step')} never ran." if blocked else ""
    hint = step.error.hint if step.error is not None else None
    return Verdict("bad", f"{entry.step} {how}.{rest}", words.one_line(detail), seq, entry.step, hint)
