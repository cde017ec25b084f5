"""The lines of `kairos backtest`: what is replayed, how far it is, what would differ in each step and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from msgspec import to_builtins
from rich.console import Console
from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.differences import difference_line
from kairos.cli.grid import Column, grid
from kairos.cli.replay_lines import STOPPED_AT_IMPORT
from kairos.cli.replay_lines import Lines as ReplayLines
from kairos.cli.terminal import columns, one_line, print_wrapped, safe
from kairos.domain.duration import format_duration
from kairos.replay.compare import MISSING, Difference
from kairos.replay.messages import Hello, Leak, Loaded
from kairos.replay.plan import Choice, Mode
from kairos.replay.replayer import Listener, Replayer
from kairos.replay.tally import Group, StepTally, Tally
from kairos.replay.verdicts import DIVERGED, Verdict
from kairos.store.reader import RunInfo

INDENT: Final = 11
_MAX_GROUPS: Final = 8
_MAX_RUNS: Final = 4
_PLACES: Final = ("changed", "added", "removed", "type")
_MODES: Final = {
    Mode.VERIFY: "verify (each step runs on its recorded input; effects come from the log; outputs are compared)",
    Mode.PROPAGATE: "propagate (each step gets what the steps above it return now; effects come from the log)",
}
_STYLES: Final = {
    **dict.fromkeys(DIVERGED, "red"), Verdict.BLOCKED: "bold red", Verdict.FIXED: "green", Verdict.SAME: "green",
    Verdict.SERVED: "dim", Verdict.MISSING: "dim",
}  # fmt: skip


class Lines(Listener):
    """Prints what happens. `live` is the console of the progress bar."""

    def __init__(self, console: Console, live: Console, app: str) -> None:
        self.console, self.live, self.app = console, live, app
        self._told: set[str] = set()
        self._is_ready = False

    def say(self, text: Text | str, style: str = "") -> None:
        """One line of the backtest's own."""
        line = Text("[backtest] ", "dim")
        line.append_text(text) if isinstance(text, Text) else line.append(safe(text), style or "default")
        print_wrapped(self.console, line, hanging=INDENT)

    def ready(self, hello: Hello, loaded: Loaded) -> None:
        """Which app, and what holds it back. Said once, however many children there are."""
        if self._is_ready:
            return
        self._is_ready = True
        self.say(f"app: {loaded.app} from {self.app}")
        self.say(f"isolation: {hello.isolation}")
        if loaded.leaks:
            self.noted(STOPPED_AT_IMPORT)
        self.leaks(loaded.leaks, "the import of the app")

    def noted(self, text: str) -> None:
        """A remark, once."""
        if text not in self._told:
            self._told.add(text)
            self.say(Text("note: ", "yellow").append(safe(text)))

    def leaks(self, leaks: Iterable[Leak], who: str) -> None:
        """What was stopped outside of steps."""
        ReplayLines(self.console, self.app).leaks(leaks, who)

    def introduce(self, workflow: str, infos: Sequence[RunInfo], choice: Choice) -> None:
        """What is going to be replayed."""
        newest, oldest = words.clock(infos[0].created_at), words.clock(infos[-1].created_at)
        versions = len({info.fingerprint for info in infos})
        text = f"workflow {workflow}: {words.plural(len(infos), 'run')}, created {oldest} to {newest}"
        self.say(text + (f", by {versions} versions of its code" if versions > 1 else ""))
        self.say(f"mode: {_MODES[choice.mode]}")

    @contextmanager
    def progress(self, total: int) -> Iterator[Callable[[Tally], None]]:
        """A bar on a terminal; to be called after each run."""
        if not self.live.is_terminal:
            yield lambda _: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        shown = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        with Progress(*shown, console=self.live, transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda tally: bar.update(task, advance=1, description=_count_of(tally))

    def finish(self, tally: Tally, code: int, seconds: float, replay: Callable[..., str]) -> None:
        """The table of steps, how they differ, and the last line. `replay` writes the command for one of the runs."""
        for line in _table(tally, columns(self.console)):
            self.console.print(Text(" " * INDENT).append_text(line), soft_wrap=True)
        for step in tally.steps.values():
            if step.differing:
                self._step(step)
        self._unreadable(tally)
        took = format_duration(timedelta(seconds=seconds))
        style = {0: "green", 3: "bold red"}.get(code, "red")
        word = "interrupted" if code == exits.INTERRUPTED else "complete"
        self.say(Text(f"{word}: ").append(_count_of(tally), style).append(f" ({took})", "dim"))
        if tally.differing:
            first = tally.differing[0]
            self.say(Text("next: ", "cyan").append(safe(replay(first.run_id, next(iter(first.ways), None)))))

    def _step(self, step: StepTally) -> None:
        ran = sum(step.verdicts.values())
        head = Text(safe(step.name), "bold").append(f": {len(step.differing)} of {ran} would differ", "red")
        if step.changed:
            head.append(f"  (its code changed since {step.changed} of them)", "dim")
        self.say(head)
        groups = step.ranked()
        for group in groups[:_MAX_GROUPS]:
            self._group(group)
        if len(groups) > _MAX_GROUPS:
            more = words.plural(len(groups) - _MAX_GROUPS, "more way")
            self.console.print(" " * INDENT + f"and {more}; --json lists them", style="dim")

    def _group(self, group: Group) -> None:
        line = Text(" " * INDENT + f"{len(group.runs)}x  ", "bold")
        if group.way.kind in _PLACES:
            example = Difference(group.way.what, group.way.kind, group.old, group.new)  # type: ignore[arg-type]
            line.append_text(difference_line(example))
        else:
            line.append(f"{group.way.kind}: ", "red").append(one_line(group.way.what, 300))
        self.console.print(line, soft_wrap=True)
        shown = ", ".join(words.short_id(run) for run in group.runs[:_MAX_RUNS])
        more = f" and {len(group.runs) - _MAX_RUNS} more" if len(group.runs) > _MAX_RUNS else ""
        self.console.print(" " * (INDENT + 4) + f"in {shown}{more}", style="dim", soft_wrap=True)

    def _unreadable(self, tally: Tally) -> None:
        for run in tally.unreadable[:_MAX_RUNS]:
            self.say(Text("unreadable: ", "red").append(f"{words.short_id(run.run_id)}: {one_line(run.problem, 300)}"))
        if len(tally.unreadable) > _MAX_RUNS:
            self.say(f"unreadable: {len(tally.unreadable) - _MAX_RUNS} more", "red")


def _count_of(tally: Tally) -> str:
    parts = [f"{words.plural(len(tally.same), 'run')} same or fixed"]
    parts += [f"{len(tally.differing)} differ"] if tally.differing else []
    parts += [f"{len(tally.unreadable)} unreadable"] if tally.unreadable else []
    return ", ".join(parts)


def _table(tally: Tally, width: int | None) -> list[Text]:
    """A row per step, a column per verdict that was given."""
    given = [verdict for verdict in Verdict if any(step.verdicts[verdict] for step in tally.steps.values())]
    heads = [Column("STEP", most=40), *(Column(verdict.upper(), is_right=True) for verdict in given)]
    rows = [
        [Text(safe(step.name)), *(_number(step.verdicts[verdict], verdict) for verdict in given)]
        for step in tally.steps.values()
    ]
    return grid(heads, rows, None if width is None else width - INDENT) if rows else []


def _number(count: int, verdict: Verdict) -> Text:
    return Text(f"{count:,}" if count else "", _STYLES.get(verdict, "yellow"))


def document(
    tally: Tally, replayer: Replayer, choice: Choice, code: int, seconds: float, replay_seconds: float
) -> dict[str, Any]:
    """All that came of it, as JSON. `replay_seconds`: without the start, and the import of the app."""
    hello, loaded = replayer.hello, replayer.loaded
    return {
        "workflow": tally.workflow,
        "mode": choice.mode.value,
        "app": None if loaded is None else loaded.app,
        "isolation": None if hello is None else {"line": hello.isolation, "layers": dict(hello.layers)},
        "runs": len(tally.runs),
        "same": len(tally.same),
        "differing": [{"run": run.run_id, "steps": list(run.ways)} for run in tally.differing],
        "unreadable": [{"run": run.run_id, "problem": run.problem} for run in tally.unreadable],
        "steps": [_step_json(step) for step in tally.steps.values()],
        "leaks": [] if loaded is None else to_builtins(loaded.leaks),
        "seconds": round(seconds, 3),
        "replay_seconds": round(replay_seconds, 3),
        "exit_code": code,
    }


def _step_json(step: StepTally) -> dict[str, Any]:
    return {
        "step": step.name,
        "verdicts": {verdict.value: step.verdicts[verdict] for verdict in Verdict if step.verdicts[verdict]},
        "code_changed": step.changed,
        "differing": len(step.differing),
        "ways": [_group_json(group) for group in step.ranked()],
    }


def _group_json(group: Group) -> dict[str, Any]:
    is_place = group.way.kind in _PLACES
    example = {name: v for name, v in (("old", group.old), ("new", group.new)) if is_place and v is not MISSING}
    place = {"path": group.way.what} if is_place else {"text": group.way.what}
    return {"kind": group.way.kind, **place, "count": len(group.runs), "runs": group.runs, **example}
