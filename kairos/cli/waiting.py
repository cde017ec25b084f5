"""Waits for a run from the command line, and says how it ended: output or error, and an exit code."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.text import Text

from kairos.cli import exits, words
from kairos.cli.failures import print_failure
from kairos.cli.live import follow, follow_in_lines, follow_on_terminal, follow_quietly
from kairos.cli.payloads import print_value, value_of
from kairos.cli.story import Story, begin_story
from kairos.cli.terminal import err, is_live, note, one_line, out, print_json, print_wrapped
from kairos.domain.documents import error_json, event_json
from kairos.domain.error_info import ErrorInfo
from kairos.domain.states import RunStatus
from kairos.store.reader import Reader, RunInfo


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, or (`is_timed_out`) that it had not when the time was up."""

    info: RunInfo
    output: Any = None
    error: ErrorInfo | None = None
    is_timed_out: bool = False

    @property
    def exit_code(self) -> int:
        """What the command exits with."""
        return exits.TIMED_OUT if self.is_timed_out else exits.BY_STATUS[self.info.status]

    def to_json(self) -> dict[str, Any]:
        """The run with its output or error."""
        error = None if self.error is None else error_json(self.error)
        return {"run": self.info.to_json(), "output": self.output, "error": error, "timed_out": self.is_timed_out}


async def wait_showing(reader: Reader, run_id: UUID, seconds: float | None, console: Console) -> Ending:
    """Show progress until the end: in place on a terminal, else in lines on `console`."""
    story = await begin_story(reader, run_id)
    if is_live():
        has_ended = await follow_on_terminal(reader, story, seconds)
    else:
        has_ended = await follow_in_lines(reader, story, seconds, console)
    return await _ending(reader, story, has_ended)


async def see_through(
    reader: Reader, run_id: UUID, seconds: float | None, timeout: str | None, *, what: str = "run"
) -> int:
    """Show progress until the end, then the output or why there is none; returns the exit code.

    `what` is how the run is called if the user leaves it alone with Ctrl-C; `timeout` is `seconds` as it was typed.
    """
    try:
        ending = await wait_showing(reader, run_id, seconds, err())
    except asyncio.CancelledError:
        note(f"the {what} goes on: kairos watch {words.short_id(run_id)}")
        raise
    if ending.exit_code == exits.OK:
        print_output(ending)
    else:
        print_trouble(ending, timeout)
    return ending.exit_code


async def wait_quietly(reader: Reader, run_id: UUID, seconds: float | None) -> Ending:
    """Print nothing until the end."""
    story = await begin_story(reader, run_id)
    return await _ending(reader, story, await follow_quietly(reader, story, seconds))


async def wait_in_json(reader: Reader, run_id: UUID, seconds: float | None) -> Ending:
    """One JSON document per event."""
    story = await begin_story(reader, run_id)

    def show(story: Story, fresh: int) -> None:
        for recorded in story.events[len(story.events) - fresh :]:
            print_json(event_json(recorded), lines=True)

    return await _ending(reader, story, await follow(reader, story, seconds, show))


async def _ending(reader: Reader, story: Story, has_ended: bool) -> Ending:
    if not has_ended:
        return Ending(await reader.run(story.info.id), is_timed_out=True)
    return await read_ending(reader, await reader.run(story.info.id))


async def read_ending(reader: Reader, info: RunInfo) -> Ending:
    """How an ended run ended."""
    finished = (await reader.finished([info]))[info.id]
    return Ending(info, output_value(finished.outputs) if info.status is RunStatus.DONE else None, finished.error)


def output_value(outputs: Any) -> Any:
    """The run's output as `Run.output` gives it: the one sink's, or a dict of the sinks'."""
    values = {name: value_of(raw) for name, raw in outputs.items()}
    return next(iter(values.values())) if len(values) == 1 else values


def print_output(ending: Ending) -> None:
    """The output of a DONE run on standard output, alone, so that it can be piped."""
    if is_live():
        out().print()
    print_value(out(), ending.output, indent=0, max_lines=None)


def print_trouble(ending: Ending, timeout: str | None) -> None:
    """Why there is no output, on standard error."""
    info, console = ending.info, err()
    short = words.short_id(info.id)
    if ending.is_timed_out:
        console.print(Text.assemble("still ", words.status_text(info.status), f" after {timeout}; it goes on"))
        console.print(f"kairos why {short}   kairos watch {short}", style="dim")
        return
    if ending.error is not None and info.failed_steps:
        console.print()
        print_failure(console, info.failed_steps[0], "is dead", ending.error)
        console.print()
    line = Text.assemble(words.status_text(info.status), "  ", (str(info.id), "bold"))
    print_wrapped(console, line.append(f"  {one_line(info.reason)}" if info.reason else ""))
    console.print(f"kairos show {short}", style="dim")
