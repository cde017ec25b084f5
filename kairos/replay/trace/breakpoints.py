"""Breakpoints over a trace: a line, and perhaps a condition over the values recorded there."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field

from kairos.errors import TraceError
from kairos.replay.trace.expressions import evaluate, parse, truth
from kairos.replay.trace.history import Trace


@dataclass
class Breakpoint:
    """A place to stop at.

    Attributes:
        number: what the user calls it.
        file, line: where; a line that ran.
        condition: what must be true there; None: always.
        failures: positions where the condition could not be evaluated, and why.
    """

    number: int
    file: int
    line: int
    condition: str | None = None
    failures: dict[int, str] = field(default_factory=dict)
    _tree: ast.expr | None = None

    def __post_init__(self) -> None:
        self._tree = None if self.condition is None else parse(self.condition)

    def is_met(self, trace: Trace, position: int) -> bool:
        """Whether to stop at this hit of the line."""
        if self._tree is None:
            return True
        try:
            return truth(evaluate(self._tree, trace.locals_at(position)))
        except TraceError as exc:
            self.failures[position] = exc.message
            return False


def line_that_ran(trace: Trace, file: int, line: int) -> int | None:
    """This line if it ran, or else the next one of its function that did; None if there is none."""
    hit = trace.lines_hit(file)
    if line in hit:
        return line
    spans = [
        (f.first_line, f.first_line + len(f.source.splitlines())) for f in trace.header.functions if f.file == file
    ]
    around = [span for span in spans if span[0] <= line < span[1]]
    end = min(around, key=lambda span: span[1] - span[0])[1] if around else line
    return next((at for at in sorted(hit) if line < at < end), None)


def run(
    trace: Trace, position: int, breakpoints: Iterable[Breakpoint], *, raises: bool = False, backwards: bool = False
) -> int | None:
    """On to the next hit of a breakpoint, or with `raises` of an exception that is raised; None at the end."""
    at_line: dict[int, list[Breakpoint]] = {}
    for breakpoint in breakpoints:
        for at in trace.hits(breakpoint.file, breakpoint.line):
            at_line.setdefault(at, []).append(breakpoint)

    def wanted(at: int) -> bool:
        return any(found.is_met(trace, at) for found in at_line.get(at, ())) or (raises and trace.is_raise(at))

    return trace.run(position, wanted, backwards=backwards)
