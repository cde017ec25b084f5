"""The lines of `kairos replay`: what is replayed, under which guards, what came of each step, and of the whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Final

from rich.console import Console
from rich.text import Text

from kairos.cli import words
from kairos.cli.differences import print_differences
from kairos.cli.failures import short_path
from kairos.cli.terminal import one_line, print_line, print_wrapped, safe
from kairos.domain.duration import format_duration
from kairos.domain.error_info import ErrorInfo
from kairos.replay.facts import Ending
from kairos.replay.messages import Ended, Hello, Late, Leak, Loaded, Said
from kairos.replay.plan import GIVEN, Choice, Mode, PlannedStep
from kairos.replay.replayer import Listener
from kairos.replay.results import Code, RunResult, StepResult
from kairos.replay.verdicts import Verdict

INDENT: Final = 9
SLOW: Final = 2.0
"""Seconds after which it is said that a step still runs."""
_MAX_FRAMES: Final = 4
STOPPED_AT_IMPORT: Final = (
    "the guards refused something while the app was imported, and it went on; the verdicts say whether that matters"
)
_FEW: Final = 20
"""So many steps in a row that are not run have a line each."""

MODES: Final = {
    Mode.VERIFY: "verify (each step runs on its recorded input; effects come from the log; outputs are compared)",
    Mode.PROPAGATE: "propagate (each step gets what the steps above it return now; effects come from the log)",
    Mode.LIVE: "live (effects really happen; each step gets what the steps above it return now)",
}
_WORDS: Final = {
    Verdict.SAME: ("OK", "green"), Verdict.FIXED: ("OK", "green"), Verdict.NOT_RECORDED: ("OK", "green"),
    Verdict.APPROXIMATE: ("OK", "yellow"), Verdict.DIVERGED_OUTPUT: ("DIVERGED", "red"),
    Verdict.DIVERGED_EFFECTS: ("DIVERGED", "red"), Verdict.SAME_ERROR: ("FAIL", "yellow"),
    Verdict.NEW_ERROR: ("FAIL", "red"), Verdict.INTERRUPTED: ("FAIL", "red"), Verdict.CRASHED: ("FAIL", "red"),
    Verdict.BLOCKED: ("BLOCKED", "red"), Verdict.SERVED: ("SERVED", "dim"), Verdict.MISSING: ("MISSING", "yellow"),
    Verdict.NOT_COMPARED: ("MISSING", "red"),
}  # fmt: skip
_ENDINGS: Final = {
    Ending.OPEN: "that attempt had not ended", Ending.LOST: "that attempt was lost with its worker",
    Ending.CANCELLED: "that attempt was cancelled", Ending.FAILED: "that attempt failed", Ending.DONE: "",
}  # fmt: skip


class Lines(Listener):
    """Prints what happens, as it happens."""

    def __init__(self, console: Console, app: str) -> None:
        self.console, self.app = console, app
        self._began = time.monotonic()
        self._is_ready = False
        self._told_slow = False
        self._passed: list[StepResult] = []
        self._first = ""
        self._hinted: set[str] = set()

    def say(self, text: Text | str, style: str = "") -> None:
        """One line of the replay's own."""
        line = Text("[replay] ", "dim")
        line.append_text(text) if isinstance(text, Text) else line.append(safe(text), style or "default")
        print_wrapped(self.console, line, hanging=INDENT)

    def ready(self, hello: Hello, loaded: Loaded) -> None:
        """Which app, and what holds it back. Said once, however many children there are."""
        if self._is_ready:
            return
        self._is_ready = True
        is_free = not hello.layers
        self.say(f"app: {loaded.app} from {self.app}")
        self.say(f"isolation: {hello.isolation}", "bold red" if is_free else "")
        if loaded.leaks:
            self.noted(STOPPED_AT_IMPORT)
        self.leaks(loaded.leaks, "the import of the app")

    def code(self, code: Code) -> None:
        """Which steps are not what they were."""
        changes = {name: change for name, change in code.changes.items() if change not in ("new", "gone")}
        if changes:
            listed = ", ".join(f"{name} ({change})" for name, change in list(changes.items())[:8])
            more = f" and {len(changes) - 8} more" if len(changes) > 8 else ""
            self.say(Text("changed since the run: ", "yellow").append(safe(listed + more)))
        else:
            self.say("code: the code of the step functions is as it was")

    def sources(self, code: Code, steps: Iterable[str]) -> None:
        """The source of the changed steps, then and now."""
        styles = {"+": "green", "-": "red", "@": "cyan"}
        for name in steps:
            for line in code.source_diff(name):
                print_line(self.console, Text(" " * INDENT + safe(line), styles.get(line[:1], "")))

    def mode(self, choice: Choice) -> None:
        """What is done with effects and outputs."""
        text = MODES[choice.mode]
        if choice.fork_from is not None:
            live = choice.mode is Mode.LIVE
            text = (
                f"{'live' if live else 'propagate'}, forked from {choice.fork_from} (it and what follows run here, on "
                f"new outputs; nothing above it runs{'; effects really happen' if live else ', nothing is written'})"
            )
        self.say(f"mode: {text}", "bold red" if choice.mode is Mode.LIVE else "")

    def waiting(self, step: PlannedStep, number: int, total: int, seconds: float) -> None:
        """Said once, so that nobody takes a hung step for a hung replay."""
        if seconds >= SLOW and not self._told_slow:
            self._told_slow = True
            line = f"step {number}/{total}: {step.name}  still runs; Ctrl-C shows where it stands, and goes on"
            self.say(line, "dim")

    def said(self, said: Said) -> None:
        """A log line of the step's."""
        fields = "  ".join(f"{name}={one_line(value, 80)}" for name, value in said.fields.items())
        line = Text(" " * INDENT + f"{said.level}  ", "dim").append(one_line(said.text), "dim")
        print_line(self.console, line.append(f"  {fields}" if fields else "", "dim"))

    def noted(self, text: str) -> None:
        """A remark."""
        self.say(Text("note: ", "yellow").append(safe(text)))

    def ended(self, result: StepResult, total: int) -> None:
        """The line of a step, and what there is to say of it."""
        self._told_slow = False
        if not result.was_run and result.verdict is Verdict.SERVED:
            self._passed.append(result)
            return
        self._flush_served(total)
        self._step(result, total)

    def leaked(self, result: StepResult, total: int, late: Late) -> None:
        """Its line stands above; this one takes its place."""
        word, style = _WORDS[result.verdict]
        line = Text(f"step {result.number}/{total}: ").append(safe(result.name), "bold").append("  ")
        self.say(line.append(word, style).append(" (after its end, by a thread that it has left running)", style))
        self.leaks(late.leaks)

    def _flush_served(self, total: int) -> None:
        passed, self._passed = self._passed, []
        if len(passed) <= _FEW:
            for result in passed:
                self._step(result, total)
            return
        text = Text(f"steps {passed[0].number}-{passed[-1].number}/{total}: ")
        self.say(text.append("SERVED", "dim").append(f" (recorded output) {len(passed)} steps", "dim"))

    def _step(self, result: StepResult, total: int) -> None:
        word, style = _WORDS[result.verdict]
        line = Text(f"step {result.number}/{total}: ").append(safe(result.name), "bold").append("  ")
        line.append(word, style).append(f" ({safe(self._reason(result))})" if self._reason(result) else "", style)
        for extra in _extras(result):
            line.append(f"  {extra}", "dim")
        if result.has_diverged and not self._first:
            self._first = result.name
            line.append("  <- first divergence", "bold red")
        self.say(line)
        self._details(result)

    def _reason(self, result: StepResult) -> str:
        ended = result.ended
        if result.verdict is Verdict.SERVED:
            if result.why == GIVEN:
                return GIVEN
            return f"recorded output; {result.why}" if result.why not in ("", "as asked") else "recorded output"
        if ended is None or ended.outcome == "missing":
            return result.why
        took = format_duration(timedelta(microseconds=ended.duration_us))
        return ", ".join(filter(None, (took, _what(result))))

    def _details(self, result: StepResult) -> None:
        ended = result.ended
        if ended is None:
            return
        self.leaks(ended.leaks)
        if result.differences:
            print_differences(self.console, result.differences, indent=INDENT)
        for text in _remarks(result, ended):
            print_wrapped(self.console, Text(safe(text), "dim"), indent=INDENT, hanging=2)
        if ended.problem is not None and not ended.leaks:
            self._error(ended.problem.error, brief=result.verdict is Verdict.SAME_ERROR)

    def _error(self, error: ErrorInfo, *, brief: bool) -> None:
        frames = error.frames[-1:] if brief else error.frames[-_MAX_FRAMES:]
        for frame in frames:
            where = Text(" " * INDENT + f"{short_path(frame.file)}:{frame.line}", "cyan")
            self.console.print(where.append(f" in {one_line(frame.function)}", "default"), soft_wrap=True)
            if frame.code:
                print_line(self.console, Text(" " * (INDENT + 2) + one_line(frame.code.strip())))
        if not brief:
            for name, value in list(error.locals.items())[:12]:
                print_line(
                    self.console,
                    Text(" " * (INDENT + 2) + f"{one_line(name, 24)} = ", "dim").append(one_line(value, 200)),
                )
            for note in error.notes:
                print_wrapped(self.console, Text(f"note: {one_line(note, 500)}"), indent=INDENT, hanging=2)
        if error.hint:
            print_wrapped(
                self.console, Text.assemble(("hint: ", "cyan"), one_line(error.hint, 500)), indent=INDENT, hanging=2
            )

    def leaks(self, leaks: Iterable[Leak], who: str = "") -> None:
        """What was stopped, with the user's line and the ways out."""
        hints: dict[str, None] = {}
        for leak in leaks:
            where = f"{short_path(leak.file)}:{leak.line}" if leak.file else "(where is not known)"
            line = Text(" " * INDENT).append("leak ", "red").append(f"{where}", "cyan")
            line.append(f" in {one_line(leak.function)}" if leak.function else "")
            line.append(f": {one_line(leak.what)} {one_line(leak.target)}".rstrip())
            line.append(f" (in {who})" if who else "")
            print_line(self.console, line)
            hints[leak.hint] = None
        for hint in [hint for hint in hints if hint and hint not in self._hinted]:
            self._hinted.add(hint)
            print_wrapped(
                self.console, Text.assemble(("hint: ", "cyan"), one_line(hint, 500)), indent=INDENT, hanging=2
            )

    def finish(self, result: RunResult) -> None:
        """The last line."""
        self._flush_served(result.total)
        counts = ", ".join(f"{count} {verdict}" for verdict, count in result.counts.items()) or "nothing was run"
        took = format_duration(timedelta(seconds=time.monotonic() - self._began))
        style = {0: "green", 3: "bold red"}.get(result.exit_code, "red")
        ended = "ended early" if result.quit else "complete"
        line = Text(f"{ended}: ").append(counts, style)
        line.append(
            f"; {result.left} of {words.plural(result.total, 'step')} not run to the end" if result.left else "",
            "yellow",
        )
        self.say(line.append(f" ({took})", "dim"))


def _what(result: StepResult) -> str:
    ended, then = result.ended, result.recorded
    assert ended is not None
    error = "" if ended.problem is None else one_line(ended.problem.error.summary, 120)
    match result.verdict:
        case Verdict.SAME if result.differences is None:
            return "diff: 0 bytes"
        case Verdict.SAME | Verdict.DIVERGED_OUTPUT if result.differences is not None:
            return _diff(result)
        case Verdict.APPROXIMATE:
            return "approximate: it differs each time it runs, by a clock or dice that are not recorded"
        case Verdict.FIXED:
            was = then.error.summary if then is not None and then.error is not None else "an error"
            return f"fixed; it was {one_line(was, 120)}"
        case Verdict.NOT_RECORDED:
            return "not recorded; " + (_ENDINGS[then.ending] if then is not None else "it had not started")
        case Verdict.SAME_ERROR if ended.outcome == "crashed":
            return f"the process died as it did then: {result.why}"
        case Verdict.SAME_ERROR:
            return f"the same error: {error}"
        case Verdict.NEW_ERROR:
            return f"a new error: {error}"
        case Verdict.INTERRUPTED:
            return "stopped by --timeout" if ended.outcome == "timeout" else "interrupted"
        case Verdict.CRASHED:
            return f"the process died: {result.why}"
        case Verdict.DIVERGED_EFFECTS:
            return "effects" if result.differences is None else f"effects, {_diff(result)}"
        case _:
            return ""


def _diff(result: StepResult) -> str:
    differences = result.differences
    assert differences is not None
    ignored = f", {differences.ignored} ignored" if differences.ignored else ""
    return f"diff: {words.plural(differences.size, 'byte')}{ignored}"


def _extras(result: StepResult) -> Iterable[str]:
    ended = result.ended
    if ended is not None and ended.effects.served:
        yield f"{words.plural(ended.effects.served, 'effect')} served"
    if ended is not None and ended.moved:
        yield "new input"
    if result.was_run and result.code:
        yield result.code
    if result.recorded is not None and result.recorded.number > 1 and result.was_run:
        yield f"attempt {result.recorded.number}"


def _remarks(result: StepResult, ended: Ended) -> Iterator[str]:
    """What else there is to say of a step that was run."""
    use = ended.effects
    if use.mismatch:
        yield use.mismatch
    elif use.missing:
        yield f"effects that are recorded and were not asked for: {_some(use.missing)}"
    if use.extra and result.verdict is Verdict.DIVERGED_EFFECTS:
        yield f"effects that are not recorded: {_some(use.extra)}; they happened here, under the guards"
    if ended.outcome != "crashed":
        yield from ended.notes


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def next_lines(result: RunResult, choice: Choice, replay: Callable[..., str]) -> Iterable[str]:
    """What to type next, in view of what came out. `replay` writes the same command with other options."""
    if choice.mode is not Mode.VERIFY or choice.fork_from is not None:
        return
    first = result.first_divergence
    fixed = next((step for step in result.steps if step.verdict in (Verdict.FIXED, Verdict.NOT_RECORDED)), None)
    if fixed is not None and first is None:
        yield f"see it through with this code: {replay('--fork-from', fixed.name)}"
    elif choice.only is None and any(_reaches_further(step, result) for step in result.steps):
        yield f"how far the new outputs reach: {replay('--mode', 'propagate')}"


def _reaches_further(step: StepResult, result: RunResult) -> bool:
    """Whether a step returns something else than was handed to a step below it."""
    has_changed = step.differences is not None and step.verdict in (Verdict.DIVERGED_OUTPUT, Verdict.DIVERGED_EFFECTS)
    return has_changed and any(step.name in below.planned.reads for below in result.steps)
