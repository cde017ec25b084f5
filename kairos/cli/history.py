"""`kairos events`: the history of a run, event by event."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from rich.console import Console

from kairos.cli import exits
from kairos.cli.database import reading
from kairos.cli.lines import event_line
from kairos.cli.live import follow, step_width
from kairos.cli.offline import open_story
from kairos.cli.sources import is_file
from kairos.cli.story import Story, begin_story, catch_up
from kairos.cli.terminal import out, print_json, print_line
from kairos.cli.usage import UsageError
from kairos.domain.documents import event_json
from kairos.domain.events import EVENT_TYPES, Recorded
from kairos.domain.names import nearest
from kairos.store.reader import Reader


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events to show; an empty set means all."""

    after: int
    steps: frozenset[str]
    kinds: frozenset[str]

    def takes(self, recorded: Recorded) -> bool:
        """Whether to show this one."""
        event = recorded.event
        return (
            recorded.seq > self.after
            and (not self.kinds or event.kind in self.kinds)
            and (not self.steps or getattr(event, "step", None) in self.steps)
        )

    def check(self, story: Story) -> None:
        """Raise UsageError for a kind or step that cannot occur: an empty list would look like an answer."""
        for kind in self.kinds - EVENT_TYPES.keys():
            raise UsageError(f"--kind {kind!r}: there is no such kind of event", hint=nearest(kind, EVENT_TYPES))
        for step in self.steps - story.state.graph.steps.keys():
            names = story.state.graph.steps
            raise UsageError(f"--step {step!r}: the run has no such step", hint=nearest(step, names))


def show_events(name: str, wanted: EventFilter, *, follow: bool, url: str | None, as_json: bool) -> int:
    """Print the events, of a run or of a bundle; with `follow` until the run ends."""
    if is_file(name):
        if follow:
            raise UsageError("--follow: nothing more happens in a file", hint="Leave it out.")
        _, story = open_story(name)
        wanted.check(story)
        _show(story, wanted, as_json)
        return exits.OK

    async def work() -> int:
        async with reading(url) as reader:
            story = await begin_story(reader, await reader.find(name))
            wanted.check(story)
            if follow:
                await _follow(reader, story, wanted, as_json)
                return exits.OK
            await catch_up(reader, story)
            _show(story, wanted, as_json)
            return exits.OK

    return asyncio.run(work())


def _show(story: Story, wanted: EventFilter, as_json: bool) -> None:
    chosen = [recorded for recorded in story.events if wanted.takes(recorded)]
    if as_json:
        print_json([event_json(recorded) for recorded in chosen])
    else:
        _print(out(), story, chosen)


async def _follow(reader: Reader, story: Story, wanted: EventFilter, as_json: bool) -> None:
    console = out()

    def show(story: Story, fresh: int) -> None:
        chosen = [r for r in story.events[len(story.events) - fresh :] if wanted.takes(r)]
        if as_json:
            for recorded in chosen:
                print_json(event_json(recorded), lines=True)
        else:
            _print(console, story, chosen)
            console.file.flush()

    await follow(reader, story, None, show)


def _print(console: Console, story: Story, chosen: list[Recorded]) -> None:
    width = step_width(story)
    for recorded in chosen:
        print_line(console, event_line(recorded, story.events[0].at, width))
