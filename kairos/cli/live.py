"""A run that moves: redrawn in place on a terminal, line by line elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rich.text import Text

from kairos.cli import words
from kairos.cli.grid import Column, grid
from kairos.cli.lines import event_line
from kairos.cli.story import Story, catch_up
from kairos.cli.terminal import one_line, out, print_line
from kairos.domain.states import StepStatus
from kairos.store.reader import Reader

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

POLL: Final = 0.1
SLOW_POLL: Final = 0.4
"""Seconds between looks, at first and once a run has been quiet for a while."""
STEP_WIDTH: Final = 28

_INTERESTING: Final = (
    StepStatus.RUNNING, StepStatus.FAILED, StepStatus.DEAD, StepStatus.WAITING, StepStatus.SCHEDULED,
    StepStatus.EXPIRED, StepStatus.CANCELLED, StepStatus.DONE, StepStatus.PENDING, StepStatus.SKIPPED,
)  # fmt: skip


async def follow(reader: Reader, story: Story, seconds: float | None, show: Callable[[Story, int], None]) -> bool:
    """Fold events in as they come, until the run has ended; False if the time was up before.

    `show` is called after each look with the story and the number of fresh events.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    quiet_since = time.monotonic()
    while True:
        fresh = len(await catch_up(reader, story))
        show(story, fresh)
        if story.state.status.is_terminal:
            return True
        now = time.monotonic()
        if fresh:
            quiet_since = now
        if deadline is not None and now >= deadline:
            return False
        pause = POLL if now - quiet_since < 10 else SLOW_POLL
        await asyncio.sleep(pause if deadline is None else min(pause, deadline - now))


async def follow_on_terminal(reader: Reader, story: Story, seconds: float | None) -> bool:
    """Redraw a table of the steps in place; leaves the last drawing behind."""
    from rich.live import Live

    console = out()
    with Live(console=console, auto_refresh=False, transient=False) as live:

        def show(story: Story, fresh: int) -> None:
            live.update(draw(story, console, datetime.now().astimezone()), refresh=True)

        return await follow(reader, story, seconds, show)


async def follow_in_lines(reader: Reader, story: Story, seconds: float | None, console: Console) -> bool:
    """One line per event, as `kairos events --follow` prints them."""

    def show(story: Story, fresh: int) -> None:
        print_fresh(console, story, fresh)

    return await follow(reader, story, seconds, show)


async def follow_quietly(reader: Reader, story: Story, seconds: float | None) -> bool:
    """Print nothing."""
    return await follow(reader, story, seconds, lambda story, fresh: None)


def print_fresh(console: Console, story: Story, fresh: int) -> None:
    """Lines for the last `fresh` events."""
    began = story.events[0].at if story.events else datetime.now().astimezone()
    width = step_width(story)
    for recorded in story.events[len(story.events) - fresh :]:
        print_line(console, event_line(recorded, began, width))
    if fresh:
        console.file.flush()


def step_width(story: Story) -> int:
    """Columns for the names of steps."""
    return min(max((len(name) for name in story.state.graph.steps), default=4), STEP_WIDTH)


def draw(story: Story, console: Console, now: datetime) -> RenderableType:
    """The run as it stands: header, as many steps as fit, a count of all."""
    from rich.console import Group

    room = max(console.height - 7, 5)
    names = pick(story, room)
    columns = [Column("", most=STEP_WIDTH), Column("", least=11), Column("", is_right=True, least=6), Column("")]
    lines = grid(columns, [_row(story, name, now) for name in names], console.width, has_head=False)
    return Group(header(story, now), Text(""), *lines, *_hidden(story, names), Text(""), progress(story, console))


def header(story: Story, now: datetime) -> Text:
    """`census 9f3a2c1b  ● RUNNING  3.2s`."""
    state = story.state
    begin = state.started_at or state.scheduled_at
    length = words.took(words.span(begin, state.finished_at or max(now, state.at or now)))
    return Text.assemble(
        (one_line(story.info.workflow, 60), "bold"), " ", (words.short_id(story.info.id), "dim"), "  ",
        words.status_text(state.status), "  ", length,
    )  # fmt: skip


def pick(story: Story, room: int) -> list[str]:
    """The steps to show, in order of definition: all, or those that matter most."""
    steps = story.state.steps or dict.fromkeys(story.state.graph.steps)
    if len(steps) <= room:
        return list(steps)
    rank = {status: i for i, status in enumerate(_INTERESTING)}
    order = sorted(story.state.steps, key=lambda n: rank[story.state.steps[n].status])
    chosen = set(order[:room])
    return [name for name in steps if name in chosen]


def _row(story: Story, name: str, now: datetime) -> tuple[Text, Text, Text, Text]:
    step = story.state.steps[name]
    tries = story.attempts.get(name, [])
    length = words.took(tries[-1].length(now)) if tries else ""
    note = ""
    if step.status is StepStatus.FAILED and step.retry_at is not None:
        note = f"try {step.attempt + 1} {words.ago(step.retry_at, now)}: {step.error.summary if step.error else ''}"
    elif step.status is StepStatus.DEAD and step.error is not None:
        note = step.error.summary
    elif step.attempt > 1:
        note = f"try {step.attempt}"
    return Text(one_line(name, STEP_WIDTH)), words.status_text(step.status), Text(length), Text(one_line(note), "dim")


def _hidden(story: Story, shown: list[str]) -> list[Text]:
    rest = len(story.state.graph.steps) - len(shown)
    return [Text(f"and {rest:,} more steps", "dim")] if rest else []


def progress(story: Story, console: Console) -> Text:
    """`━━━━━━━━╸────  7 of 11 done, 3 running`."""
    counts: dict[StepStatus, int] = {}
    for step in story.state.steps.values():
        counts[step.status] = counts.get(step.status, 0) + 1
    total = len(story.state.graph.steps)
    done = counts.pop(StepStatus.DONE, 0)
    rest = "".join(f", {count} {status.lower()}" for status, count in counts.items())
    width = min(30, max(console.width - 45, 10))
    filled = width * done // max(total, 1)
    full, empty = ("#", ".") if console.options.ascii_only else ("━", "─")
    return Text.assemble((full * filled, "green"), (empty * (width - filled), "dim"), f"  {done} of {total} done{rest}")
