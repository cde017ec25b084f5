"""The commands of the terminal stepper: one line of input to some lines of output, over a trace.

Knows nothing of terminals: a line is a list of pieces, each a text and the name of its style.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from kairos.errors import TraceError
from kairos.replay.trace.breakpoints import Breakpoint, line_that_ran, run
from kairos.replay.trace.expressions import evaluate
from kairos.replay.trace.history import Level, Trace, Write
from kairos.replay.trace.layout import Kind
from kairos.replay.trace.values import Items, Object, Pairs, Unbound, Value, children, left_out, render, type_of

Line = list[tuple[str, str]]
"""Pieces of one line: text and style (`""`, `dim`, `here`, `name`, `changed`, `bad`)."""
_AROUND = 5
_SHOWN = 40
_WHEN = re.compile(r"(?P<name>\w+)(\s+changed)?")
_BREAK = re.compile(r"((?P<file>[^\s:]+):)?(?P<line>\d+)(\s+if\s+(?P<condition>.+))?")


@dataclass(frozen=True)
class _Command:
    names: tuple[str, ...]
    usage: str
    help: str
    run: Callable[[str], list[Line]]


class Stepper:
    """Walks over a trace by commands. Begins where the function failed, or at its last line.

    Attributes:
        position: where it stands.
        is_over: `quit` was given.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.position = trace.failure if trace.failure is not None else trace.last
        self.is_over = False
        self._level = 0
        self._breakpoints: list[Breakpoint] = []
        self._numbered = 0
        self._last = ""
        self._commands = self._table()
        self._by_name = {name: command for command in self._commands for name in command.names}

    @property
    def prompt(self) -> str:
        """What stands before the input."""
        return f"({self.position + 1:,}/{len(self.trace):,}) "

    def begin(self) -> list[Line]:
        """What is shown first."""
        header, about = self.trace.header, self.trace.header.about
        what = " ".join(part for part in (about.workflow, f"step {about.step}" if about.step else "") if part)
        attempt = f" attempt {about.attempt}" if about.attempt else ""
        lines = [[(f"trace of {what}{attempt}" if what else "trace", ""), (f"  {about.run}", "dim")]]
        lines.append([(f"{len(self.trace):,} events, {header.overhead}; `help` lists commands", "dim")])
        if header.trouble or header.is_full:
            lines.append(
                [(header.trouble or "the limit of events was reached: lines are missing before the end", "bad")]
            )
        return [*lines, *self._here()]

    def answer(self, text: str) -> list[Line]:
        """Obey one line of input. An empty one repeats the last command; a wrong one is explained."""
        text = text.strip() or self._last
        if not text:
            return self._here()
        name, _, rest = text.partition(" ")
        command = self._by_name.get(name)
        if command is None:
            near = difflib.get_close_matches(name, self._by_name, 1)
            return _complain(
                f"there is no command {name!r}", f"Did you mean `{near[0]}`?" if near else "`help` lists them."
            )
        self._last = text
        try:
            return command.run(rest.strip())
        except TraceError as exc:
            return _complain(exc.message, exc.hint)

    def complete(self, start: str) -> list[str]:
        """The commands and locals that begin so."""
        return sorted({n for n in (*self._by_name, *self._locals()) if n.startswith(start)})

    def _table(self) -> list[_Command]:
        trace = self.trace
        return [
            _Command(
                ("p", "prev", "previous"), "p", "back to the line before, over calls", self._moving(trace.previous)
            ),
            _Command(("n", "next"), "n", "on to the next line, over calls", self._moving(trace.next)),
            _Command(("s", "step"), "s", "on by one, into calls", self._moving(lambda at, _: trace.step(at))),
            _Command(("b", "back"), "b", "back by one, into calls", self._moving(lambda at, _: trace.back(at))),
            _Command(("out", "finish"), "out", "on to where this call has ended", self._moving(trace.out)),
            _Command(("rout", "rfinish"), "rout", "back to the line that called this", self._moving(trace.back_out)),
            _Command(("u", "up"), "u", "look at the caller's frame", lambda _: self._shift(1)),
            _Command(("d", "down"), "d", "look at the frame that was called", lambda _: self._shift(-1)),
            _Command(("goto", "g"), "goto N", "to position N (`first`, `last`, `fail`)", self._goto),
            _Command(
                ("c", "continue"), "c", "on to the next breakpoint or raised exception", lambda _: self._run(False)
            ),
            _Command(("rc", "rcontinue"), "rc", "back to the last one", lambda _: self._run(True)),
            _Command(("break",), "break [FILE:]LINE [if EXPR]", "stop there; without a line: show them", self._break),
            _Command(("clear",), "clear [N]", "remove breakpoint N, or all", self._clear),
            _Command(("print", "pp"), "print EXPR", "a value: names, attributes, items, comparisons", self._print),
            _Command(("locals", "a"), "locals", "all locals of this frame", lambda _: self._all_locals()),
            _Command(("when",), "when NAME changed", "each change of a local in this frame", self._when),
            _Command(("last",), "last NAME", "back to the line that gave NAME its value", self._last_write),
            _Command(("hits",), "hits [FILE:]LINE", "each time that a line ran", self._hits),
            _Command(("w", "where", "bt"), "where", "the stack", lambda _: self._where()),
            _Command(("l", "list"), "list [LINE]", "the source, with how often lines ran", self._list),
            _Command(("q", "quit", "exit"), "quit", "leave", self._quit),
            _Command(("h", "help", "?"), "help", "this", lambda _: self._help()),
        ]

    # Moving

    def _moving(self, move: Callable[[int, int], int | None]) -> Callable[[str], list[Line]]:
        def go(count: str) -> list[Line]:
            times = _number(count) if count else 1
            level, at = self._here_level(), self.position
            frame: int = level.frame
            for _ in range(min(times, len(self.trace))):
                to = move(at, frame)
                if to is None:
                    break
                at, frame = to, self.trace.file.frames[to]
            if at == self.position:
                return [[("there is nothing further in this direction", "dim")]]
            return self._go(at)

        return go

    def _go(self, position: int) -> list[Line]:
        self.position, self._level = position, 0
        return self._here()

    def _shift(self, by: int) -> list[Line]:
        levels = self.trace.stack(self.position)
        to = self._level + by
        if not 0 <= to < len(levels):
            return [[("this is the outermost frame" if by > 0 else "this is the innermost frame", "dim")]]
        self._level = to
        lines = self._here()
        if to:
            lines.insert(1, [("  its locals as they were when it made the call", "dim")])
        return lines

    def _goto(self, text: str) -> list[Line]:
        named = {"first": self.trace.first, "last": self.trace.last, "fail": self.trace.failure}
        if text in named:
            to = named[text]
            return [[("the function did not fail", "dim")]] if to is None else self._go(to)
        number = _number(text)
        if not 1 <= number <= len(self.trace):
            raise TraceError(f"positions are 1 to {len(self.trace):,}")
        return self._go(number - 1)

    def _run(self, backwards: bool) -> list[Line]:
        for found in self._breakpoints:
            found.failures.clear()
        to = run(self.trace, self.position, self._breakpoints, raises=True, backwards=backwards)
        notes: list[Line] = []
        for found in self._breakpoints:
            if found.failures:
                at, why = next(iter(found.failures.items()))
                notes.append([(f"breakpoint {found.number}: the condition failed {len(found.failures)} times, ", "bad"),
                              (f"first at {at + 1:,}: {why}", "bad")])  # fmt: skip
        if to is None:
            end = self.trace.first if backwards else self.trace.last
            notes.append([(f"no breakpoint or exception {'before' if backwards else 'after'} this: at the "
                           f"{'beginning' if backwards else 'end'}", "dim")])  # fmt: skip
            return [*notes, *self._go(end)]
        return [*notes, *self._go(to)]

    # Breakpoints

    def _break(self, text: str) -> list[Line]:
        if not text:
            return [self._describe(found) for found in self._breakpoints] or [[("there are no breakpoints", "dim")]]
        file, line, condition = self._place(text)
        ran = line_that_ran(self.trace, file, line)
        if ran is None:
            raise TraceError(
                f"line {line} of {self.trace.label(file)} did not run", hint="`list` shows which lines did."
            )
        self._numbered += 1
        found = Breakpoint(self._numbered, file, ran, condition)
        self._breakpoints.append(found)
        moved = [] if ran == line else [[(f"line {line} did not run; the next that did is {ran}", "dim")]]
        return [*moved, self._describe(found)]

    def _describe(self, found: Breakpoint) -> Line:
        hits = len(self.trace.hits(found.file, found.line))
        condition = f" if {found.condition}" if found.condition else ""
        path = self.trace.label(found.file)
        return [(f"breakpoint {found.number} at {path}:{found.line}{condition}", ""), (f"  {hits:,} hits", "dim")]

    def _clear(self, text: str) -> list[Line]:
        wanted = _number(text) if text else None
        kept = [found for found in self._breakpoints if wanted is not None and found.number != wanted]
        removed = len(self._breakpoints) - len(kept)
        self._breakpoints = kept
        return [[(f"{removed} removed", "dim")]]

    def _place(self, text: str) -> tuple[int, int, str | None]:
        match = _BREAK.fullmatch(text)
        if match is None:
            raise TraceError(f"{text!r} is no place", hint="LINE or FILE:LINE, then perhaps `if EXPR`.")
        here = self.trace.function(self._here_level().position).file
        file = here if match["file"] is None else self.trace.file_number(match["file"])
        return file, int(match["line"]), match["condition"]

    # Looking

    def _print(self, text: str) -> list[Line]:
        if not text:
            return self._all_locals()
        value = evaluate(text, self._locals())
        return _shown(value)

    def _all_locals(self) -> list[Line]:
        found = self._locals()
        return [_local(name, value) for name, value in found.items()] or [[("no locals", "dim")]]

    def _locals(self) -> dict[str, Value]:
        level = self._here_level()
        return self.trace.locals_at(self.position, level.frame)

    def _when(self, text: str) -> list[Line]:
        match = _WHEN.fullmatch(text)
        if match is None:
            raise TraceError("whose changes?", hint="`when NAME changed`")
        frame = self._here_level().frame
        writes = list(self.trace.writes(match["name"], frame))
        if not writes:
            raise TraceError(
                f"no local {match['name']!r} in this frame", hint=f"There are: {', '.join(self._locals())}."
            )
        before = [write for write in writes if write.seen_at <= self.position]
        mark = before[-1] if before else None
        start = max(writes.index(mark) - _SHOWN // 2, 0) if mark else 0
        lines = [self._write(write, write is mark) for write in writes[start : start + _SHOWN]]
        return [*lines, *_rest(len(writes), len(lines), "changes")]

    def _write(self, write: Write, is_last: bool) -> Line:
        by = "argument" if write.done_at is None else f"by line {self.trace.line(write.done_at)}"
        return [("->" if is_last else "  ", "here"), (f" {write.seen_at + 1:>8,}  ", "dim"), (f"{by:<14} ", ""),
                (f"{write.name} = ", "name"), (render(write.value, 160), "")]  # fmt: skip

    def _last_write(self, text: str) -> list[Line]:
        found = self.trace.last_write(text, self.position, self._here_level().frame)
        if found is None:
            raise TraceError(f"{text or 'it'!r} has not been given a value before here")
        if found.done_at is None:
            return [*self._go(found.seen_at), [(f"{text} came with the call", "dim")]]
        return [*self._go(found.done_at), [(f"this line made {text} = {render(found.value, 160)}", "changed")]]

    def _hits(self, text: str) -> list[Line]:
        file, line, _ = self._place(text)
        hits, elided = self.trace.hits(file, line), self.trace.elided(file, line)
        lines: list[Line] = []
        for at in hits[:_SHOWN]:
            found = ", ".join(f"{name}={render(value, 40)}" for name, value in self.trace.locals_at(at).items())
            lines.append(
                [("->" if at == self.position else "  ", "here"), (f" {at + 1:>8,}  ", "dim"), (found[:160], "")]
            )
        lines += _rest(len(hits), len(lines), "hits")
        if elided is not None:
            lines.append([(f"and {f'{elided:,} more' if elided > 0 else 'more'} that were not recorded", "bad")])
        return lines or [[(f"line {line} did not run", "dim")]]

    def _where(self) -> list[Line]:
        lines: list[Line] = []
        levels = self.trace.stack(self.position)
        for index, level in reversed(list(enumerate(levels))):
            function = self.trace.function(level.position)
            place = f"{self.trace.label(function.file)}:{self.trace.line(level.position)}"
            lines.append([("->" if index == self._level else "  ", "here"), (f" {function.name}", "name"),
                          (f"  {place}", "dim")])  # fmt: skip
        return lines

    def _list(self, text: str) -> list[Line]:
        level = self._here_level()
        middle = _number(text) if text else self.trace.line(level.position)
        return self._source(level, middle, 2 * _AROUND, counts=True)

    def _help(self) -> list[Line]:
        lines: list[Line] = [[(f"  {c.usage:<28}", "name"), (c.help, "")] for c in self._commands]
        return [*lines, [("An empty line repeats the last command; `n 5` moves five times.", "dim")]]

    def _quit(self, _: str) -> list[Line]:
        self.is_over = True
        return []

    def _here_level(self) -> Level:
        return self.trace.stack(self.position)[self._level]

    def _here(self) -> list[Line]:
        """Where it stands: function, source around the line, what happened, what changed."""
        trace, level = self.trace, self._here_level()
        function = trace.function(level.position)
        place = f"{trace.label(trace.function(level.position).file)}:{trace.line(level.position)}"
        thread = trace.file.threads[self.position]
        notes = f"  {trace.header.threads[thread]}" if thread else ""
        lines: list[Line] = [
            [(f"[{self.position + 1:,}/{len(trace):,}] ", "dim"), (function.name, "name"), (f"  {place}{notes}", "dim")]
        ]
        lines += self._source(level, trace.line(level.position), _AROUND)
        if self._level == 0:
            lines += self._happened()
            lines += [_local(name, value, "changed") for name, value in trace.changed(self.position).items()]
        return lines

    def _happened(self) -> list[Line]:
        words = {
            Kind.CALL: "called", Kind.RETURN: "returns", Kind.SUSPEND: "yields", Kind.RESUME: "goes on",
            Kind.EXCEPTION: "raises", Kind.UNWIND: "is left by",
        }  # fmt: skip
        kind, value = self.trace.kind(self.position), self.trace.value(self.position)
        if kind is Kind.LINE:
            return []
        if kind is Kind.EXCEPTION and not self.trace.is_raise(self.position):
            words[kind] = "meets"
        shown = "" if isinstance(value, Unbound) else f" {render(value, 300)}"
        return [[("  " + words[kind], "bad" if kind in (Kind.EXCEPTION, Kind.UNWIND) else "changed"), (shown, "")]]

    def _source(self, level: Level, middle: int, around: int, *, counts: bool = False) -> list[Line]:
        trace, file = self.trace, self.trace.function(level.position).file
        source = trace.source(file)
        hit = trace.lines_hit(file) if counts else {}
        here = trace.line(level.position)
        function = trace.function(level.position)
        end = function.first_line + len(function.source.splitlines())
        lines: list[Line] = []
        for number in range(max(middle - around, function.first_line), min(middle + around + 1, end)):
            if number in source:
                is_here = number == here
                count = f"{hit[number]:>7,}x" if number in hit else " " * 8 if counts else ""
                mark = "->" if is_here else "  "
                lines.append([(f"{number:>5} {count}{mark} ", "here" if is_here else "dim"),
                              (source[number].expandtabs(4), "here" if is_here else "")])  # fmt: skip
        return lines or [[("its source was not found when it was recorded", "dim")]]


def _local(name: str, value: Value, style: str = "name") -> Line:
    return [(f"  {name} = ", style), (render(value, 300), "")]


def _shown(value: Value) -> list[Line]:
    """A value on one line if it fits, else part by part; and what of it was not recorded."""
    lines: list[Line] = [[(render(value, 300), "")]]
    if isinstance(value, Items | Pairs | Object) and len(render(value, 121)) > 120:
        lines = [[(f"{type_of(value)} of {value.size:,}", "dim")]]
        lines += [[(f"  {label} ", "name"), (render(item, 200), "")] for label, item in children(value)]
    if missing := left_out(value):
        lines.append([(f"  {missing:,} more were not recorded", "bad")])
    return lines


def _rest(total: int, shown: int, what: str) -> list[Line]:
    return [[(f"  {total - shown:,} more {what}", "dim")]] if total > shown else []


def _number(text: str) -> int:
    try:
        return int(text.replace(",", "").replace("_", ""))
    except ValueError:
        raise TraceError(f"{text!r} is not a number") from None


def _complain(message: str, hint: str | None) -> list[Line]:
    lines: list[Line] = [[(message, "bad")]]
    return [*lines, [(f"hint: {hint}", "dim")]] if hint else lines
