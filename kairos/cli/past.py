"""`kairos state`: a run as it stood after one of its events."""

from __future__ import annotations

import asyncio
from datetime import datetime

from rich.console import Console
from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.database import reading
from kairos.cli.grid import Column, print_grid
from kairos.cli.lines import event_line
from kairos.cli.live import pick, step_width
from kairos.cli.offline import open_story
from kairos.cli.payloads import preview
from kairos.cli.sources import is_file
from kairos.cli.story import Story, read_story
from kairos.cli.terminal import one_line, out, print_json, print_line
from kairos.cli.usage import UsageError
from kairos.domain.documents import state_json
from kairos.domain.projection import StepState
from kairos.domain.states import StepStatus

MAX_STEPS = 60


def show_state(name: str, *, at: int | None, url: str | None, as_json: bool) -> int:
    """Fold the events of a run or of a bundle up to `at` and print what they say."""
    if is_file(name):
        _, story = open_story(name, at)
        _show(story, name, at, as_json)
        return exits.OK

    async def work() -> int:
        async with reading(url) as reader:
            run_id = await reader.find(name)
            story = await read_story(reader, run_id, at)
            _show(story, words.short_id(run_id), at, as_json)
            return exits.OK

    return asyncio.run(work())


def _show(story: Story, name: str, at: int | None, as_json: bool) -> None:
    if at is not None and at > story.state.seq:
        raise UsageError(
            f"--at {at}: the run has {words.plural(story.state.seq, 'event')} so far",
            hint=f"`kairos events {name}` lists them.",
        )
    if as_json:
        print_json(state_json(story.state))
    else:
        _print(out(), story)


def _print(console: Console, story: Story) -> None:
    state = story.state
    short = words.short_id(story.info.id)
    if not state.seq:
        console.print(f"{short} before its first event: nothing has happened yet")
        return
    head = Text.assemble((one_line(state.workflow), "bold"), " ", (short, "dim"), "  ")
    head.append_text(words.status_text(state.status)).append(f"  after event {state.seq} of {story.info.seq}")
    console.print(head)
    print_line(console, event_line(story.events[-1], story.events[0].at, step_width(story)))
    console.print()
    columns = [Column("STEP", most=28), Column("STATUS", least=11), Column("TRIES", is_right=True), Column("")]
    names = pick(story, MAX_STEPS)
    rows = []
    for name in names:
        step = state.steps[name]
        tries = Text(str(step.attempt or ""), "yellow" if step.attempt > 1 else "")
        rows.append([Text(one_line(name)), words.status_text(step.status), tries, about(story, name, step)])
    print_grid(console, columns, rows)
    if len(state.steps) > len(names):
        console.print(f"and {len(state.steps) - len(names):,} more steps; --json shows all", style="dim")
    _print_neighbours(console, short, state.seq, story.info.seq)


def _print_neighbours(console: Console, short: str, seq: int, last: int) -> None:
    """Forwards and back: this command is a slider."""
    steps = []
    if seq > 1:
        steps.append(f"back: kairos state {short} --at {seq - 1}")
    if seq < last:
        steps.append(f"on: kairos state {short} --at {seq + 1}")
    if steps:
        console.print("\n" + "   ".join(steps), style="dim")


def about(story: Story, name: str, step: StepState) -> Text:
    """What is to be said of a step at that moment."""
    state, at = story.state, story.state.at
    if at is None:
        return Text("")
    match step.status:
        case StepStatus.PENDING:
            missing = [up for up in state.graph.steps[name].upstream if not state.steps[up].done_seq]
            return Text(f"waits for {listed(missing)}", "dim")
        case StepStatus.SCHEDULED:
            return Text(f"ready for {_since(step.scheduled_at, at)}", "dim")
        case StepStatus.RUNNING:
            return Text(f"for {_since(step.started_at, at)}, fence {step.token}")
        case StepStatus.DONE if step.started_at is None and step.output is not None:
            origin = step.output.origin
            where = f"inherited from {words.short_id(origin[0])} #{origin[1]}  " if origin else "given  "
            return Text(where).append(preview(step.output), "dim")
        case StepStatus.DONE:
            length = words.took(words.span(step.started_at, step.finished_at))
            return Text(f"{length}  ").append(preview(step.output) if step.output else "", "dim")
        case StepStatus.FAILED:
            next_try = f"next try {words.ago(step.retry_at, at)}: " if step.retry_at else ""
            return Text(next_try + one_line(step.error.summary if step.error else ""))
        case _:
            return Text(one_line(step.reason or ""))


def listed(names: list[str], most: int = 4) -> str:
    """`a, b and 3 more`."""
    shown = [one_line(name, 40) for name in names[:most]]
    rest = len(names) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {rest} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1] if shown else "")))


def _since(begin: datetime | None, at: datetime) -> str:
    return words.took(words.span(begin, at))
