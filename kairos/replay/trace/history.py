"""A trace as something to walk in: frames, locals and writes at any position, steps in both directions.

Pure over the recorded data. A position is the number of an event, from 0; where one *stops* are lines, returns
and exceptions. Every move returns the position to go to, or None where there is nothing in that direction.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import commonpath, dirname, isabs
from pathlib import Path

from kairos.errors import TraceError
from kairos.replay.trace.layout import MAX_BLOCK, NO_VALUE, PER_BLOCK, Function, Header, Kind
from kairos.replay.trace.reading import TraceFile
from kairos.replay.trace.values import Unbound, Value

STOPS = frozenset({Kind.LINE, Kind.RETURN, Kind.EXCEPTION})
_ENDS = frozenset({Kind.RETURN, Kind.UNWIND})


@dataclass(frozen=True)
class Level:
    """One frame of the stack at a position.

    Attributes:
        frame: its serial number.
        position: its last event up to there; for an outer frame, that is the call it waits for. Its locals are
            those seen then.
    """

    frame: int
    position: int


@dataclass(frozen=True)
class Event:
    """All of one position, for a reader that draws it.

    Attributes:
        file: number of the file, see `Header.files`.
        changed: the locals that differ from the frame's event before.
        value: what was returned, yielded or raised.
        at_us: the program's own time since the first event, in microseconds.
    """

    position: int
    kind: Kind
    function: str
    file: int
    line: int
    frame: int
    thread: int
    changed: dict[str, Value]
    value: Value
    at_us: int


@dataclass(frozen=True)
class Write:
    """A local got another value.

    Attributes:
        seen_at: the first position that has the value.
        done_at: the event of the same frame before, whose line did it; None: it came with the call.
    """

    name: str
    frame: int
    seen_at: int
    done_at: int | None
    value: Value


class Trace:
    """Walks over one trace file.

    Raises:
        TraceError: the file cannot be read, see `TraceFile`.
    """

    def __init__(self, file: TraceFile) -> None:
        self.file = file
        self.header: Header = file.header
        self._of_frame: dict[int, list[int]] = defaultdict(list)
        for position, frame in enumerate(file.frames):
            self._of_frame[frame].append(position)
        self._entries: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for at, frame, parent in file.entries:
            self._entries[frame].append((at, parent))

    @classmethod
    def open(cls, path: Path, *, most: int = MAX_BLOCK) -> Trace:
        """The trace in this file; `most` as for `TraceFile`."""
        return cls(TraceFile(path, most=most))

    def close(self) -> None:
        """Give the file back."""
        self.file.close()

    def __len__(self) -> int:
        return len(self.file)

    # What is there

    def kind(self, position: int) -> Kind:
        """What happened."""
        return Kind(self.file.kinds[position])

    def line(self, position: int) -> int:
        """The line of the source."""
        return self.file.lines[position]

    def function(self, position: int) -> Function:
        """The function that runs."""
        return self.header.functions[self.file.function_of[self.file.frames[position]]]

    def path(self, position: int) -> str:
        """The file of the source, as it was named where the trace was recorded."""
        return self.header.files[self.function(position).file]

    def value(self, position: int) -> Value | Unbound:
        """What was returned, yielded or raised there; `Unbound` if the event has none."""
        number = self.file.values[position]
        return Unbound() if number == NO_VALUE else self.file.value(number)

    def changed(self, position: int) -> dict[str, Value]:
        """The locals that the last line of this frame has changed, with `Unbound` for deleted ones."""
        flat = self.file.change(position)
        return {self.header.names[name]: self.file.value(v) for name, v in zip(flat[::2], flat[1::2], strict=True)}

    def event(self, position: int) -> Event:
        """All of one position."""
        file = self.file
        return Event(
            position, self.kind(position), self.function(position).name, self.function(position).file,
            file.lines[position], file.frames[position], file.threads[position], self.changed(position),
            self.value(position), (file.times[position] - file.times[0]) // 1_000,
        )  # fmt: skip

    def page(self, start: int, count: int) -> list[Event]:
        """Some events in their order."""
        return [self.event(position) for position in range(max(start, 0), min(start + count, len(self)))]

    # Frames and locals

    def locals_at(self, position: int, frame: int | None = None) -> dict[str, Value]:
        """The locals of a frame (by default the one that runs) as they were on arrival at `position`."""
        frame = self.file.frames[position] if frame is None else frame
        block = position // PER_BLOCK
        held = self._pairs(self.file.before(block, frame))
        own = self._of_frame[frame]
        for at in own[bisect_left(own, block * PER_BLOCK) : bisect_right(own, position)]:
            held.update(self._pairs(self.file.change(at)))
        found = {self.header.names[name]: self.file.value(number) for name, number in held.items()}
        return {name: value for name, value in found.items() if not isinstance(value, Unbound)}

    @staticmethod
    def _pairs(flat: list[int]) -> dict[int, int]:
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def stack(self, position: int) -> list[Level]:
        """Who called whom, innermost first."""
        levels, known, frame = [Level(self.file.frames[position], position)], set[int](), self.file.frames[position]
        while (entry := self._entry(frame, position)) is not None and entry[1] >= 0 and frame not in known:
            known.add(frame)
            position, frame = entry
            position = self._last_before(frame, position)
            levels.append(Level(frame, position))
        return levels

    def _entry(self, frame: int, position: int) -> tuple[int, int] | None:
        """Where the frame was called or resumed last, and by which frame."""
        entries = self._entries[frame]
        index = bisect_right(entries, (position, len(self.file.function_of))) - 1
        return entries[index] if index >= 0 else None

    def _last_before(self, frame: int, position: int) -> int:
        own = self._of_frame[frame]
        return own[max(bisect_left(own, position) - 1, 0)]

    # Steps

    def step(self, position: int) -> int | None:
        """Forwards to the next stop of this thread, into calls as well."""
        return self._along(range(position + 1, len(self)), self._stops_in_thread_of(position))

    def back(self, position: int) -> int | None:
        """Backwards to the last stop of this thread, into calls as well."""
        return self._along(range(position - 1, -1, -1), self._stops_in_thread_of(position))

    def next(self, position: int, frame: int | None = None) -> int | None:
        """Forwards to the next stop of this frame, over calls and awaits; to its caller's, where the frame ends."""
        frame = self.file.frames[position] if frame is None else frame
        for at in self._after(frame, position):
            if self.is_stop(at):
                return at
        return self.out(position, frame)

    def previous(self, position: int, frame: int | None = None) -> int | None:
        """Backwards to the last stop of this frame, over calls and awaits; to its caller's, where the frame begins."""
        frame = self.file.frames[position] if frame is None else frame
        for at in self._before(frame, position):
            if self.is_stop(at):
                return at
        return self.back_out(position, frame)

    def out(self, position: int, frame: int | None = None) -> int | None:
        """Forwards to the caller's first stop after this frame has ended (or was suspended for good)."""
        frame = self.file.frames[position] if frame is None else frame
        last = self._of_frame[frame][-1]
        parent = self._parent(frame, last)
        if parent is None:
            return self._along(range(last + 1, len(self)), self._stops_in_thread_of(last))
        for at in self._after(parent, last):
            if self.is_stop(at):
                return at
        return self.out(last, parent)

    def back_out(self, position: int, frame: int | None = None) -> int | None:
        """Backwards to the caller's line that called this frame (or resumed it last)."""
        frame = self.file.frames[position] if frame is None else frame
        entry = self._entry(frame, position)
        if entry is None or entry[1] < 0:
            first = self._of_frame[frame][0]
            return self._along(range(first - 1, -1, -1), self._stops_in_thread_of(first))
        for at in self._before(entry[1], entry[0]):
            if self.is_stop(at):
                return at
        return self.back_out(entry[0], entry[1])

    def _parent(self, frame: int, position: int) -> int | None:
        entry = self._entry(frame, position)
        return entry[1] if entry is not None and entry[1] >= 0 else None

    def is_stop(self, position: int) -> bool:
        """Whether one stops there: at lines, returns and exceptions."""
        return self.file.kinds[position] in STOPS

    def _after(self, frame: int, position: int) -> Sequence[int]:
        own = self._of_frame[frame]
        return own[bisect_right(own, position) :]

    def _before(self, frame: int, position: int) -> Iterator[int]:
        own = self._of_frame[frame]
        return (own[index] for index in range(bisect_left(own, position) - 1, -1, -1))

    def _stops_in_thread_of(self, position: int) -> Callable[[int], bool]:
        thread, threads, kinds = self.file.threads[position], self.file.threads, self.file.kinds
        return lambda at: threads[at] == thread and kinds[at] in STOPS

    @staticmethod
    def _along(way: range, wanted: Callable[[int], bool]) -> int | None:
        return next((at for at in way if wanted(at)), None)

    def before(self, position: int) -> int | None:
        """The event of the same frame before this one, a stop or not."""
        return next(iter(self._before(self.file.frames[position], position)), None)

    def run(self, position: int, wanted: Callable[[int], bool], *, backwards: bool = False) -> int | None:
        """On to the next position in this direction that is `wanted`: a breakpoint, an exception."""
        return self._along(range(position - 1, -1, -1) if backwards else range(position + 1, len(self)), wanted)

    # Searches

    @cached_property
    def first(self) -> int:
        """Where one begins: the first stop."""
        return next((at for at in range(len(self)) if self.is_stop(at)), 0)

    @cached_property
    def last(self) -> int:
        """The last stop."""
        return next((at for at in range(len(self) - 1, -1, -1) if self.is_stop(at)), len(self) - 1)

    @cached_property
    def failure(self) -> int | None:
        """Where the exception was raised that ended the outermost function; None if it returned."""
        roots = [at for at in range(len(self)) if self.file.kinds[at] in _ENDS and len(self.stack(at)) == 1]
        if not roots or self.kind(roots[-1]) is not Kind.UNWIND:
            return None
        return self.origin(roots[-1])

    def origin(self, position: int) -> int:
        """Follow an exception inwards: from where it arrives to where it was raised."""
        at = position
        while True:
            frame = self.file.frames[at]
            raised = next((p for p in self._before(frame, at + 1) if self.kind(p) is Kind.EXCEPTION), None)
            if raised is None:
                return at
            inner = self._before_in_thread(raised)
            if inner is None or self.kind(inner) is not Kind.UNWIND:
                return raised
            if self._parent(self.file.frames[inner], inner) != frame:
                return raised
            at = inner

    def _before_in_thread(self, position: int) -> int | None:
        thread = self.file.threads[position]
        return self.run(position, lambda at: self.file.threads[at] == thread, backwards=True)

    def is_raise(self, position: int) -> bool:
        """Whether an exception is raised there, and not only passes through."""
        return self.kind(position) is Kind.EXCEPTION and self.origin(position) == position

    @cached_property
    def _at_line(self) -> dict[tuple[int, int], list[int]]:
        found: dict[tuple[int, int], list[int]] = defaultdict(list)
        functions, files = self.file.function_of, [function.file for function in self.header.functions]
        for position, kind in enumerate(self.file.kinds):
            if kind == Kind.LINE:
                found[files[functions[self.file.frames[position]]], self.file.lines[position]].append(position)
        return found

    def hits(self, file: int, line: int) -> list[int]:
        """Every time that a line ran (as far as it was recorded)."""
        return self._at_line.get((file, line), [])

    def lines_hit(self, file: int) -> dict[int, int]:
        """How often each line of a file ran, for those that did."""
        return {line: len(found) for (at, line), found in sorted(self._at_line.items()) if at == file}

    def elided(self, file: int, line: int) -> int | None:
        """How often a line ran unrecorded: None, never; -1, it is not known how often."""
        counts = [
            e.hits for e in self.header.elided if e.line == line and self.header.functions[e.function].file == file
        ]
        return None if not counts else -1 if -1 in counts else sum(counts)

    def file_number(self, name: str) -> int:
        """The file that is meant: by number, path, or the end of its path.

        Raises:
            TraceError: none or several.
        """
        files = self.header.files
        found = [n for n, path in enumerate(files) if path == name or path.endswith("/" + name.lstrip("./"))]
        if len(found) == 1:
            return found[0]
        if found:
            raise TraceError(f"{name!r} is the name of {len(found)} files here", hint="Give more of its path.")
        raise TraceError(f"no recorded file is called {name!r}", hint=f"Recorded: {', '.join(files)}")

    @cached_property
    def _labels(self) -> list[str]:
        files = self.header.files
        shared = len(commonpath([dirname(path) for path in files])) if all(map(isabs, files)) else 0
        return [path[shared:].lstrip("/") for path in files]

    def label(self, file: int) -> str:
        """A short name of a file: its path below the folder that holds all recorded ones."""
        return self._labels[file]

    def writes(self, name: str, frame: int) -> Iterator[Write]:
        """Every change of a local of this frame, first to last."""
        if name not in self.header.names:
            return
        number, own, before = self.header.names.index(name), self._of_frame[frame], None
        for at in own:
            flat = self.file.change(at)
            if number in flat[::2]:
                value = self.file.value(flat[flat[::2].index(number) * 2 + 1])
                yield Write(name, frame, at, before, value)
            before = at

    def last_write(self, name: str, position: int, frame: int | None = None) -> Write | None:
        """The write that gave a local the value that it has at `position`."""
        frame = self.file.frames[position] if frame is None else frame
        if name not in self.header.names:
            return None
        number, own = self.header.names.index(name), self._of_frame[frame]
        for index in range(bisect_right(own, position) - 1, -1, -1):
            flat = self.file.change(own[index])
            if number in flat[::2]:
                value = self.file.value(flat[flat[::2].index(number) * 2 + 1])
                return Write(name, frame, own[index], own[index - 1] if index else None, value)
        return None

    # Source

    def source(self, file: int) -> dict[int, str]:
        """The recorded lines of a file, by number: those of the functions that ran."""
        lines: dict[int, str] = {}
        for function in sorted(self.header.functions, key=lambda f: -len(f.source)):
            if function.file == file:
                for number, text in enumerate(function.source.splitlines(), function.first_line):
                    lines.setdefault(number, text)
        return dict(sorted(lines.items()))
