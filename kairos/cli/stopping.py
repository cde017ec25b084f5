"""The options of `kairos replay` that stop in a step: read and checked before anything is started."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from kairos.cli.usage import UsageError
from kairos.errors import BreakpointError
from kairos.replay.facts import facts_of
from kairos.replay.plan import Choice
from kairos.replay.record import RunRecord
from kairos.replay.results import RunResult
from kairos.replay.stopping.breakpoints import StopOptions, check_steps, stop_options
from kairos.replay.stopping.vscode import write_launch
from kairos.replay.verdicts import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """What was typed."""

    break_at: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    break_on: tuple[str, ...] = ()
    post_mortem: bool = False
    debugger: str = "pdb"
    listen: str | None = None
    write_vscode: bool = False

    def options(self, ignore: tuple[str, ...] = ()) -> StopOptions:
        """As the child gets them. Raises UsageError."""
        if self.write_vscode and self.debugger != "debugpy":
            raise UsageError("--write-vscode is for an editor", hint="Add --debugger debugpy.")
        try:
            return stop_options(
                self.break_at,
                self.conditions,
                self.break_on,
                post_mortem=self.post_mortem,
                debugger=self.debugger,
                listen=self.listen,
                ignore=ignore,
            )
        except BreakpointError as exc:
            raise UsageError(exc.message, hint=exc.hint) from None


def prepare(stopping: Stopping, record: RunRecord, choice: Choice) -> tuple[Choice, str | None]:
    """Hold the options against the run that was read. Returns the choice, and what was done to launch.json.

    Raises:
        BreakpointError: no such step, a step that is not run, or a launch.json that cannot be changed.
        UsageError: nothing has failed that could be looked at.
    """
    options = stopping.options()
    if stopping.post_mortem and not (choice.only or choice.until or choice.fork_from):
        choice = replace(choice, only=_failed_step(record, choice.attempt))
    check_steps(options.breakpoints, record.definition.graph.steps)
    said = write_launch(Path.cwd(), options.listen) if stopping.write_vscode else None
    return choice, said


def code_after(result: RunResult, stopping: Stopping) -> int:
    """The exit code. A failure that was to be looked at and did not come again is a difference."""
    gone = stopping.post_mortem and any(step.verdict is Verdict.FIXED for step in result.steps)
    return max(result.exit_code, 1) if gone else result.exit_code


def _failed_step(record: RunRecord, attempt: int | None) -> str | None:
    """The step that failed; None if there are several, which are then all run."""
    facts = facts_of(record.history, record.definition.graph.steps)
    failed = []
    for name in record.definition.graph.steps:
        seen = facts.step(name).attempt(attempt)
        if seen is not None and seen.error is not None:
            failed.append(name)
    if not failed:
        raise UsageError(
            "--post-mortem looks at a failure, and no step of this run has failed",
            hint="With --attempt N an earlier attempt is looked at; --break-at STEP stops in a step that went well.",
        )
    return failed[0] if len(failed) == 1 else None
