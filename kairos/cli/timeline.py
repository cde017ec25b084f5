"""Steps as bars on one scale of time: when each attempt ran, failed, was lost, or waited for the next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from rich.text import Text

from kairos.cli import words
from kairos.cli.story import Attempt, Story
from kairos.domain.duration import format_duration

# Shape first, colour second: the bars can be read without any.
_MARKS: Final = {
    "done": ("█", "green"),
    "running": ("█", "cyan"),
    "failed": ("▒", "yellow"),
    "lost": ("░", "red"),
    "cancelled": ("▚", "magenta"),
}
_PLAIN: Final = {"done": "#", "running": "=", "failed": "x", "lost": "?", "cancelled": "/"}
WAITED: Final = "·"
LEGEND: Final = "█ ran  ▒ failed  ░ lost with its worker  ▚ cancelled  · waited"


@dataclass(frozen=True, slots=True)
class Scale:
    """A stretch of time on a number of columns."""

    begin: datetime
    end: datetime
    width: int

    @classmethod
    def of(cls, story: Story, width: int, now: datetime) -> Scale | None:
        """From the first attempt to the end, or None if nothing has started."""
        starts = [tries[0].began for tries in story.attempts.values() if tries]
        if not starts:
            return None
        end = story.state.finished_at or max(now, story.state.at or now)
        begin = min(starts)
        return cls(begin, max(end, begin + timedelta(milliseconds=1)), width)

    def column(self, at: datetime) -> float:
        """Where a moment stands, from 0 to `width`."""
        share = (at - self.begin) / (self.end - self.begin)
        return min(max(share, 0.0), 1.0) * self.width

    def cells(self, begin: datetime, end: datetime) -> range:
        """The columns of a stretch: at least one."""
        first = min(int(self.column(begin)), self.width - 1)
        return range(first, max(round(self.column(end)), first + 1))

    def heading(self) -> Text:
        """`0s           2.1s           4.2s`, spread over the columns."""
        total = self.end - self.begin
        right = format_duration(total)
        middle = format_duration(total / 2)
        if self.width < 30:
            return Text(f"0{right:>{self.width - 1}}")
        half = self.width // 2
        return Text(f"0{middle:>{half - 1 + len(middle) // 2}}{right:>{self.width - half - len(middle) // 2}}")


def bar(story: Story, step: str, scale: Scale) -> Text:
    """The bar of one step."""
    tries = story.attempts.get(step, [])
    is_plain = not words.has_shapes()
    cells: list[tuple[str, str]] = [(" ", "")] * scale.width
    if not tries:
        return Text("")
    ready = story.became_ready(step)
    waits = [(ready, tries[0].began)] if ready is not None else []
    waits += [(a.ended, b.began) for a, b in pairwise(tries) if a.ended is not None]
    state = story.state.steps[step]
    if state.retry_at is not None and tries[-1].ended is not None:
        waits.append((tries[-1].ended, scale.end))
    for begin, end in waits:
        for i in range(int(scale.column(begin)), int(scale.column(end))):
            cells[i] = ("." if is_plain else WAITED, "dim")
    for attempt in tries:
        for i in scale.cells(attempt.began, attempt.ended or scale.end):
            cells[i] = _mark(attempt, is_plain)
    text = Text()
    for mark, style in cells:
        text.append(mark, style)
    text.rstrip()
    return text


def _mark(attempt: Attempt, is_plain: bool) -> tuple[str, str]:
    mark, style = _MARKS[attempt.outcome]
    return (_PLAIN[attempt.outcome] if is_plain else mark), style
