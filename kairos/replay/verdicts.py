"""One word for what came of each step of a replay, and one for the whole of it. Does no I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kairos.domain.error_info import ErrorInfo
from kairos.replay.compare import Differences
from kairos.replay.facts import Attempt, Ending
from kairos.replay.messages import Ended


class Verdict(StrEnum):
    """What came of a step."""

    SAME = "same"
    """It returned then, and returns the same now; but for what the ignore rules name."""
    FIXED = "fixed"
    """It failed then, and returns now."""
    SAME_ERROR = "same-error"
    """It fails as it failed then: same type, same message; or it takes the process with it in the same way."""
    NOT_RECORDED = "not-recorded"
    """It had not ended then (it hung, crashed, waited or never started), and returns now."""
    APPROXIMATE = "approximate"
    """Its output differs only where it differs between two replays too: by a clock or dice that are not recorded."""
    DIVERGED_OUTPUT = "diverged:output"
    DIVERGED_EFFECTS = "diverged:effects"
    """An effect is asked for with other arguments, or is missing, or was not asked for then."""
    NEW_ERROR = "new-error"
    """It fails now, and did not then, or failed otherwise."""
    INTERRUPTED = "interrupted"
    """Ctrl-C, or `--timeout`, ended it: it hangs here too."""
    CRASHED = "crashed"
    """It took the process with it."""
    BLOCKED = "blocked"
    """It tried to leave the process, and a guard stopped that."""
    NOT_COMPARED = "not-compared"
    """It ended then, and cannot be run now, for what it reads is not known: nothing is proved of it."""
    SERVED = "served"
    """It was not run; its recorded output stands."""
    MISSING = "missing"
    """It could not be run, and had not ended then: there is nothing to compare."""


FINE: Final = frozenset(
    {
        Verdict.SAME, Verdict.FIXED, Verdict.SAME_ERROR, Verdict.NOT_RECORDED, Verdict.APPROXIMATE,
        Verdict.SERVED, Verdict.MISSING,
    }
)  # fmt: skip
"""The others are worth a non-zero exit code."""
DIVERGED: Final = frozenset(Verdict) - FINE - {Verdict.BLOCKED}

SAME_OR_FIXED, DIFFERENT, USAGE, STOPPED, UNREADABLE = 0, 1, 2, 3, 4
"""Exit codes, everywhere in replay."""


Compare = Callable[[bytes, bytes], Differences]


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on a step that was run; `differences` of its output, if there are two to compare."""

    verdict: Verdict
    differences: Differences | None = None


def judge(then: Attempt | None, recorded: bytes | None, now: Ended, compare: Compare) -> Judged:
    """Hold what a step does now against the attempt that is recorded.

    Args:
        then: None if the step never started.
        recorded: the bytes of its output then, if it had one.
    """
    if now.outcome == "missing":
        has_ended = then is not None and then.ending in (Ending.DONE, Ending.FAILED)
        return Judged(Verdict.NOT_COMPARED if has_ended else Verdict.MISSING)
    if any(not leak.at_import for leak in now.leaks):
        return Judged(Verdict.BLOCKED)
    judged = _judge_run(then, recorded, now, compare)
    # A module that a step imports may look around, and go on without an answer.
    return Judged(Verdict.BLOCKED) if now.leaks and judged.verdict is Verdict.NEW_ERROR else judged


def _judge_run(then: Attempt | None, recorded: bytes | None, now: Ended, compare: Compare) -> Judged:
    ending = Ending.OPEN if then is None else then.ending
    if now.effects.mismatch:
        return Judged(Verdict.DIVERGED_EFFECTS)
    if now.outcome != "done":
        return Judged(_judge_failure(then, now))
    if ending is Ending.FAILED:
        return Judged(Verdict.FIXED)
    if recorded is None:
        return Judged(Verdict.NOT_RECORDED)
    has_other_effects = bool(now.effects.missing or now.effects.extra)
    if now.same:
        return Judged(Verdict.DIVERGED_EFFECTS if has_other_effects else Verdict.SAME)
    output = now.output or b"null"
    differences = compare(recorded, output)
    if has_other_effects:
        return Judged(Verdict.DIVERGED_EFFECTS, differences)
    if not differences:
        return Judged(Verdict.SAME, differences)
    if now.again is not None and not differences.rest and differences.paths <= compare(output, now.again).paths:
        return Judged(Verdict.APPROXIMATE, differences)
    return Judged(Verdict.DIVERGED_OUTPUT, differences)


def _judge_failure(then: Attempt | None, now: Ended) -> Verdict:
    was_timeout = then is not None and then.timed_out
    if now.outcome == "crashed":
        return Verdict.SAME_ERROR if then is not None and is_same_death(then, now) else Verdict.CRASHED
    if now.outcome in ("interrupted", "timeout"):
        return Verdict.SAME_ERROR if was_timeout and now.outcome == "timeout" else Verdict.INTERRUPTED
    if then is None or then.error is None or now.problem is None:
        return Verdict.NEW_ERROR
    return Verdict.SAME_ERROR if is_same_error(then.error, now.problem.error) else Verdict.NEW_ERROR


_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{6,16}\b")


def is_same_error(then: ErrorInfo, now: ErrorInfo) -> bool:
    """Whether type and message are the same; addresses of objects in it do not count."""
    return then.type == now.type and _ADDRESS.sub("0x", then.message) == _ADDRESS.sub("0x", now.message)


def is_same_death(then: Attempt, now: Ended) -> bool:
    """Whether the process ended now as it ended then, by the same signal or exit code."""
    return bool(then.death) and now.notes[:1] in ((then.death,), (f"signal {then.death}",))


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """Of the whole: 0 same or fixed, 1 diverged or failed anew, 3 stopped by a guard."""
    found = set(verdicts)
    if Verdict.BLOCKED in found:
        return STOPPED
    return DIFFERENT if found & DIVERGED else SAME_OR_FIXED
