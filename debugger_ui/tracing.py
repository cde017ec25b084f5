"""A line trace as a page shows it: one position with its source, stack and locals; the hits of a line; its shape."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from debugger_ui.opened import OpenedTrace
from debugger_ui.sources import Pieces, paint
from kairos.errors import InvalidArgument, TraceError
from kairos.replay.trace.expressions import evaluate
from kairos.replay.trace.history import Trace
from kairos.replay.trace.layout import Kind
from kairos.replay.trace.values import Cut, Items, Object, Pairs, Text, Unbound, Value, children, left_out, render

MAX_LINES: Final = 4_000
"""Lines of one file that are shown."""
MAX_LOCALS: Final = 200
MAX_LEVELS: Final = 60
MAX_DEPTH: Final = 8
SHORT: Final = 160
HITS: Final = 50
"""Hits of a line that are listed at a time."""
_PLACE: Final = re.compile(r"(?P<file>.+):(?P<line>\d{1,9})(~(?P<hit>\d{1,9}))?")
_NUMBER: Final = re.compile(r"@(\d{1,9})")
_NAME: Final = re.compile(r"[^\W\d]\w*")
_WORDS: Final = {
    Kind.CALL: "called", Kind.LINE: "line", Kind.RETURN: "returns", Kind.SUSPEND: "yields", Kind.RESUME: "goes on",
    Kind.EXCEPTION: "raises", Kind.UNWIND: "left by an exception",
}  # fmt: skip
MOVES: Final = (
    "back", "step", "previous", "next", "rout", "out", "first", "last", "fail", "raised-before", "raised-after",
)  # fmt: skip
"""As the commands of `kairos trace` are called."""


@dataclass(frozen=True, slots=True)
class Part:
    """A recorded value, or a part of one. `text`: on one line; `missing`: how much of it was not recorded."""

    label: str
    text: str
    parts: tuple[Part, ...] = ()
    missing: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        facts: dict[str, Any] = {"text": self.text}
        if self.parts:
            facts["parts"] = {part.label: part.to_json() for part in self.parts}
        if self.missing:
            facts["not_recorded"] = self.missing
        return facts


@dataclass(frozen=True, slots=True)
class Local:
    """A local. `is_changed`: by the line before; `was`: what it was then, None if it is new."""

    name: str
    value: Part
    is_changed: bool = False
    was: str | None = None
    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """One frame of the stack, 0 the innermost."""

    index: int
    function: str
    place: str
    is_here: bool


@dataclass(frozen=True, slots=True)
class CodeLine:
    """One line of a recorded file. `hits`: how often it ran; `more`: how often beyond the record (-1: not known)."""

    number: int
    pieces: Pieces
    hits: int = 0
    more: int = 0
    is_gap: bool = False
    """Whether lines between the line before and this one were not recorded."""


@dataclass(frozen=True, slots=True)
class Stop:
    """One position.

    Attributes:
        position: from 0.
        place: as an address says it: `billing.py:88~3`, or `@38`.
        file, line: where the chosen frame is; `level` which one that is.
        hit: which one of the line's `hits` it is; 0 if it is no line. `elided`: those beyond the record.
        wrote: the line that did what changed, and what, in words.
        value: what was returned, yielded or raised.
    """

    position: int
    total: int
    place: str
    kind: Kind
    what: str
    function: str
    file: int
    label: str
    line: int
    level: int
    hit: int
    hits: int
    elided: int
    thread: str
    at_us: int
    value: Part | None
    locals: list[Local]
    hidden: int
    stack: list[Level]
    wrote: tuple[int, str] | None = None

    @property
    def is_bad(self) -> bool:
        """Whether an exception is under way."""
        return self.kind in (Kind.EXCEPTION, Kind.UNWIND)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; positions from 1, as everywhere outside."""
        return {
            "position": self.position + 1,
            "of": self.total,
            "line": self.place,
            "kind": self.kind.name.lower(),
            "function": self.function,
            "file": self.label,
            "line_number": self.line,
            "hit": self.hit or None,
            "hits": self.hits,
            "at_us": self.at_us,
            "value": None if self.value is None else self.value.to_json(),
            "locals": {local.name: local.value.to_json() for local in self.locals if not local.is_gone},
            "changed": [local.name for local in self.locals if local.is_changed],
            "stack": [{"function": level.function, "place": level.place} for level in self.stack],
        }


@dataclass(frozen=True, slots=True)
class Hit:
    """One time that a line ran. `value`: of the expression there; `problem`: why there is none."""

    number: int
    position: int
    place: str
    value: str
    problem: bool = False
    is_changed: bool = False
    is_here: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """The hits of a line: `HITS` of them from `start` (0 the first)."""

    file: int
    label: str
    line: int
    name: str
    total: int
    elided: int
    start: int
    rows: list[Hit] = field(default_factory=list)


def begin(trace: Trace) -> int:
    """Where one begins: where the function failed, or at its last line."""
    return trace.failure if trace.failure is not None else trace.last


def place_of(trace: Trace, position: int) -> str:
    """How an address says a position: `billing.py:88~3` is the third hit of that line; `@38` is event 38."""
    if trace.kind(position) is not Kind.LINE:
        return f"@{position + 1}"
    file, line = trace.function(position).file, trace.line(position)
    hit = bisect_left(trace.hits(file, line), position) + 1
    return f"{trace.label(file)}:{line}~{hit}"


def read_place(trace: Trace, text: str) -> int:
    """The position that an address means; without a hit, the first one of the line.

    Raises:
        TraceError: there is no such file, line or hit.
    """
    if found := _NUMBER.fullmatch(text):
        return position_of(trace, int(found[1]))
    match = _PLACE.fullmatch(text)
    if match is None:
        raise TraceError(f"{text[:80]!r} is no place", hint="FILE:LINE~HIT or @EVENT, such as billing.py:88~3.")
    file, line = file_of(trace, match["file"]), int(match["line"])
    hits, wanted = trace.hits(file, line), int(match["hit"] or 1)
    if not hits:
        raise TraceError(f"line {line} of {trace.label(file)} did not run, or was not recorded")
    if not 1 <= wanted <= len(hits):
        raise TraceError(f"line {line} of {trace.label(file)} has {len(hits):,} recorded hits, and no hit {wanted:,}")
    return hits[wanted - 1]


def position_of(trace: Trace, number: int) -> int:
    """The position of event `number`, which counts from 1. Raises TraceError."""
    if not 1 <= number <= len(trace):
        raise TraceError(f"this trace has no event {number:,}: they are 1 to {len(trace):,}")
    return number - 1


def file_of(trace: Trace, name: str) -> int:
    """A file by its short name, path or the end of that. Raises TraceError."""
    labels = [trace.label(number) for number in range(len(trace.header.files))]
    return labels.index(name) if labels.count(name) == 1 else trace.file_number(name)


def move(trace: Trace, position: int, way: str, level: int = 0, times: int = 1) -> int:
    """Where a step leads; `position` itself at an end. Raises InvalidArgument if there is no such step."""
    ways: Mapping[str, Callable[[int, int], int | None]] = {
        "back": lambda at, _: trace.back(at),
        "step": lambda at, _: trace.step(at),
        "previous": trace.previous,
        "next": trace.next,
        "rout": trace.back_out,
        "out": trace.out,
        "first": lambda *_: trace.first,
        "last": lambda *_: trace.last,
        "fail": lambda *_: trace.failure,
        "raised-before": lambda at, _: trace.run(at, trace.is_raise, backwards=True),
        "raised-after": lambda at, _: trace.run(at, trace.is_raise),
    }
    if way not in ways:
        raise InvalidArgument(f"there is no move {way[:40]!r}", hint=f"There are: {', '.join(MOVES)}.")
    levels = trace.stack(position)
    frame = levels[min(level, len(levels) - 1)].frame
    for _ in range(times):
        to = ways[way](position, frame)
        if to is None or to == position:
            break
        position, frame = to, trace.file.frames[to]
    return position


def last_write(trace: Trace, position: int, name: str, level: int = 0) -> int:
    """Back to the line that gave a local its value; where it came with the call, to that. Raises TraceError."""
    levels = trace.stack(position)
    found = trace.last_write(name, position, levels[min(level, len(levels) - 1)].frame)
    if found is None:
        raise TraceError(f"{name[:80]!r} has not been given a value before here")
    return found.seen_at if found.done_at is None else found.done_at


def look(trace: Trace, position: int, level: int = 0) -> Stop:
    """All that a page shows of a position."""
    file = trace.file
    levels = trace.stack(position)
    level = min(level, len(levels) - 1)
    chosen = levels[level]
    function = trace.function(chosen.position)
    line = trace.line(chosen.position)
    is_line = level == 0 and trace.kind(position) is Kind.LINE
    hits = trace.hits(function.file, line)
    value = trace.value(position)
    found = _locals(trace, position, chosen.frame, is_inner=level == 0)
    threads = trace.header.threads
    return Stop(
        position, len(trace), place_of(trace, position), trace.kind(position), _what(trace, position), function.name,
        function.file, trace.label(function.file), line, level, bisect_left(hits, position) + 1 if is_line else 0,
        len(hits), trace.elided(function.file, line) or 0,
        threads[file.threads[position]] if len(threads) > 1 else "", (file.times[position] - file.times[0]) // 1_000,
        None if isinstance(value, Unbound) else part_of("", value), found[:MAX_LOCALS], len(found[MAX_LOCALS:]),
        [
            Level(i, trace.function(l.position).name, _spot(trace, l.position), i == level)
            for i, l in enumerate(levels[:MAX_LEVELS])
        ],
        _wrote(trace, position, found) if level == 0 else None,
    )  # fmt: skip


def part_of(label: str, value: Value, depth: int = 0) -> Part:
    """A recorded value with what is in it."""
    inside = children(value) if depth < MAX_DEPTH and isinstance(value, Items | Pairs | Object) else []
    missing = left_out(value) if isinstance(value, Text | Items | Pairs | Object | Cut) else 0
    return Part(label, render(value, SHORT), tuple(part_of(name, item, depth + 1) for name, item in inside), missing)


def code_of(opened: OpenedTrace, file: int) -> list[CodeLine]:
    """The recorded lines of a file, with how often each ran."""
    if file not in opened.coloured:
        opened.coloured[file] = list(_code(opened.trace, file))
    return opened.coloured[file]


def probe(trace: Trace, position: int, place: tuple[int, int], name: str, start: int | None) -> Probe:
    """The hits of a line, around the one at `position` if it is one; with the value of `name`, or of all locals.

    Args:
        place: file and line.
        name: a name, or an expression over recorded values; empty: the locals that stand in the line.
        start: the first hit to list; None: so that the present one is among them.
    """
    file, line = place
    hits = trace.hits(file, line)
    here = bisect_left(hits, position)
    if start is None:
        start = max(min(here - HITS // 2, len(hits) - HITS), 0)
    found = Probe(file, trace.label(file), line, name, len(hits), trace.elided(file, line) or 0, start)
    before: str | None = None
    touched = _NAME.findall(trace.source(file).get(line, "")) if not name else []
    for number, at in enumerate(hits[start : start + HITS], start + 1):
        value, is_problem = _value_at(trace, at, name, touched)
        is_new = before is not None and value != before
        found.rows.append(Hit(number, at, place_of(trace, at), value, is_problem, is_new, at == position))
        before = value
    return found


def _what(trace: Trace, position: int) -> str:
    kind = trace.kind(position)
    is_passing = kind is Kind.EXCEPTION and not trace.is_raise(position)
    return "meets" if is_passing else _WORDS[kind]


def _spot(trace: Trace, position: int) -> str:
    return f"{trace.label(trace.function(position).file)}:{trace.line(position)}"


def _locals(trace: Trace, position: int, frame: int, *, is_inner: bool) -> list[Local]:
    held = trace.locals_at(position, frame)
    changed = trace.changed(position) if is_inner else {}
    before = trace.before(position) if changed else None
    earlier = trace.locals_at(before, frame) if before is not None else {}
    found = [
        Local(
            name, part_of("", value), name in changed, render(earlier[name], 60) if name in earlier else None
        )
        for name, value in held.items()
    ]  # fmt: skip
    gone = [
        Local(name, part_of("", value), True, render(earlier[name], 60), True)
        for name, value in changed.items()
        if name not in held and name in earlier
    ]
    return [*sorted(found, key=lambda local: not local.is_changed), *gone]


def _wrote(trace: Trace, position: int, found: Sequence[Local]) -> tuple[int, str] | None:
    changed = [local for local in found if local.is_changed]
    before = trace.before(position) if changed else None
    if before is None:
        return None
    return trace.line(before), ", ".join(f"{local.name} = {local.value.text}" for local in changed)[:120]


def _value_at(trace: Trace, position: int, name: str, touched: Sequence[str]) -> tuple[str, bool]:
    held = trace.locals_at(position)
    if not name:
        names = [key for key in dict.fromkeys(touched) if key in held] or list(held)
        return ", ".join(f"{key} = {render(held[key], 60)}" for key in names)[:SHORT], False
    try:
        return render(evaluate(name, held), SHORT), False
    except TraceError as exc:
        return exc.message, True
    except (ValueError, RecursionError):
        return "too large to be written", True


def _code(trace: Trace, file: int) -> Iterator[CodeLine]:
    source = dict(list(trace.source(file).items())[:MAX_LINES])
    hits = trace.lines_hit(file)
    for first, chunk in _chunks(source):
        rows = paint("\n".join(chunk))
        rows += [[] for _ in range(len(chunk) - len(rows))]
        for number, pieces in enumerate(rows[: len(chunk)], first):
            is_gap = number == first and first != min(source)
            yield CodeLine(number, pieces, hits.get(number, 0), trace.elided(file, number) or 0, is_gap)


def _chunks(source: Mapping[int, str]) -> Iterator[tuple[int, list[str]]]:
    first, chunk = 0, list[str]()
    for number, text in source.items():
        if chunk and number != first + len(chunk):
            yield first, chunk
            chunk = []
        if not chunk:
            first = number
        chunk.append(text.expandtabs(4))
    if chunk:
        yield first, chunk
