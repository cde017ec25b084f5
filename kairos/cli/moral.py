"""What `kairos demo` says afterwards: what was lost, what was not, and what to try next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.failures import short_path
from kairos.cli.showing import print_steps
from kairos.cli.story import Story
from kairos.cli.terminal import one_line
from kairos.cli.waiting import Ending, print_trouble
from kairos.domain.states import RunStatus
from kairos.errors import KairosError
from kairos.store.reader import Reader
from kairos.store.verify import Verifier


@dataclass(slots=True)
class Crash:
    """The kill, for the telling afterwards; `healed`: when another worker had taken over."""

    pid: int
    running: list[str]
    done: int
    at: float
    healed: float | None = None


def example(name: str) -> Path:
    """An example's file: in a wheel it lies inside the package, in a checkout beside it.

    Raises:
        KairosError: neither place has it.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "examples", package.parent / "examples"):
        if (folder / name).is_file():
            return folder / name
    raise KairosError(f"the example {name} is missing", hint="Reinstall Kairos: the package is incomplete.")


def obituary(crash: Crash) -> Text:
    names = ", ".join(crash.running)
    return Text.assemble(("  kill -9   ", "bold red"), f"worker {crash.pid}, while it was running {names}")


async def conclude(
    console: Console, reader: Reader, story: Story, ending: Ending, crash: Crash | None, patience: float
) -> int:
    """Tell it; 0 when the run ended well and its history is whole."""
    console.print()
    if ending.info.status is not RunStatus.DONE:
        print_trouble(ending, f"{patience:.0f}s")
        return exits.ERROR
    console.print(Text.assemble("What happened, attempt by attempt:"), style="bold")
    print_steps(console, story, None)
    console.print()
    _tell_recovery(console, story, crash)
    report = await Verifier(reader.session).one(story.info.id)
    whole = ("whole", "green") if report.is_clean else ("NOT WHOLE", "bold red")
    console.print(
        Text.assemble(("  history   ", "dim"), f"{report.events} events, hash chain and stored state: ", whole)
    )
    console.print(Text.assemble(("  result    ", "dim"), one_line(ending.output["summary"])))
    longest = ending.output["longest"][0]
    what = f"{longest['name']} in {longest['file']}, {longest['lines']} lines"
    console.print(Text.assemble(("  longest   ", "dim"), one_line(what)))
    _tell_next(console, story)
    return exits.OK if report.is_clean and crash is not None else exits.ERROR


def _tell_recovery(console: Console, story: Story, crash: Crash | None) -> None:
    if crash is None:
        console.print("  The run was over before its worker could be killed; try again.", style="yellow")
        return
    lost = story.lost()
    again = [tries[-1] for tries in story.attempts.values() if any(a.outcome == "lost" for a in tries)]
    console.print(Text.assemble(("  killed    ", "dim"), f"one worker; {crash.done} steps were done and stayed done"))
    names = ", ".join(sorted({attempt.step for attempt in lost}))
    console.print(Text.assemble(("  lost      ", "dim"), f"{words.plural(len(lost), 'attempt')}: {names}"))
    after = f"{crash.healed - crash.at:.1f}s later" if crash.healed else "later"
    alone = ", each alone in a process" if again and all(a.isolated for a in again) else ""
    text = f"{after} a new worker took over; {words.plural(len(again), 'step')} ran again{alone}"
    console.print(Text.assemble(("  recovered ", "dim"), text))
    failed = [a for tries in story.attempts.values() for a in tries if a.outcome == "failed"]
    if failed:
        text = f"{failed[0].step} failed once, on purpose, and was retried"
        console.print(Text.assemble(("  retried   ", "dim"), text))


def _tell_next(console: Console, story: Story) -> None:
    short = words.short_id(story.info.id)
    lost = story.lost()
    seq = next((r.seq for r in story.events if r.event.kind == "lease_lost"), 2) if lost else 2
    steps = (
        (f"kairos show {short}", "the run on one page"),
        (f"kairos events {short}", "every fact, in order"),
        (f"kairos state {short} --at {seq - 1}", "the moment before the crash was noticed"),
        (f"kairos dev --app {short_path(str(example('orders.py')))}:app", "your own: start from this example"),
    )
    console.print()
    console.print("Try next", style="bold")
    width = max(len(command) for command, _ in steps)
    for command, what in steps:
        console.print(Text.assemble("  ", (command.ljust(width), "cyan"), (f"  {what}", "dim")))
