"""Records what runs: one event per call, line, return, yield and exception, with the locals that changed.

Only the names that the executed line touches are looked at again, and what holds the same objects; everything
is looked at when a frame is entered or left, when other recorded code ran in between, and at every 64th line.
Values are held by their snapshots alone: an object lives as long as it would without the recorder.
"""

from __future__ import annotations

import os
import threading
import weakref
from array import array
from dataclasses import dataclass, field
from time import perf_counter_ns
from types import CodeType, FrameType
from typing import Final

from kairos.replay.trace.capture import Limits, Snapshots
from kairos.replay.trace.layout import NO_VALUE, Kind
from kairos.replay.trace.touching import Touched, touched

KEYFRAME: Final = 64
_OWNERS: Final = 5_000
_LIGHT: Final = 24
"""A frame whose locals show no more objects than this is looked at whole whenever other recorded code ran."""
_REMEMBERED: Final = 50_000
_NOTHING: Final = object()
_ENTRIES: Final = (Kind.CALL, Kind.RESUME)
_UNSEEN: Final = ("__class__", "__classdict__")


@dataclass
class Events:
    """The events of a trace in columns, as they came.

    Attributes:
        kinds, lines, times: what, on which line, and when: nanoseconds of the program's own time.
        frames: serial numbers; each execution of a function has its own, a generator keeps its one.
        threads: numbers of threads.
        values: what was returned, yielded or raised, as the number of a snapshot; `NO_VALUE` if nothing.
        changes: per event the locals that changed since the last event of that frame: name, snapshot, name, ...
        entries: (position, frame, parent frame or -1): who a frame was called or resumed by.
    """

    kinds: array[int] = field(default_factory=lambda: array("B"))
    lines: array[int] = field(default_factory=lambda: array("I"))
    times: array[int] = field(default_factory=lambda: array("q"))
    frames: array[int] = field(default_factory=lambda: array("I"))
    threads: array[int] = field(default_factory=lambda: array("H"))
    values: array[int] = field(default_factory=lambda: array("i"))
    changes: list[tuple[int, ...]] = field(default_factory=list)
    entries: list[tuple[int, int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.changes)


class _Frame:
    """What is known of one execution of a function."""

    __slots__ = (
        "code", "count", "ids", "is_entered", "line", "mark", "owners", "raised", "raising", "seen", "serial",
        "touched", "weight",
    )  # fmt: skip

    def __init__(self, serial: int, code: CodeType, lines: dict[int, Touched]) -> None:
        self.serial = serial
        self.code = code
        self.touched = lines
        self.line: int | None = None
        self.count = 0
        self.seen: dict[str, tuple[object, int]] = {}
        self.ids: dict[str, tuple[int, ...]] = {}
        self.owners: dict[int, set[str]] = {}
        self.raising = False
        self.raised = NO_VALUE
        self.is_entered = False
        self.weight = 0
        self.mark = 0


class Tape:
    """Takes the events of a backend. Safe in any thread; never raises into the code that is recorded.

    Attributes:
        events: what was recorded.
        functions: the code of each recorded function; `function_of` gives its number for each frame serial.
        elided: (id of code, line) -> times that the line ran unrecorded; -1: that is not known.
        own_ns: time spent here.
        trouble: why recording ended early, if it did.
    """

    def __init__(self, snapshots: Snapshots, limits: Limits) -> None:
        self.events = Events()
        self.snapshots = snapshots
        self.functions: list[CodeType] = []
        self.function_of: array[int] = array("I")
        self.names: list[str] = []
        self.threads: list[str] = []
        self.elided: dict[tuple[int, int], int] = {}
        self.own_ns = 0
        self.is_full = False
        self.trouble: str | None = None
        self._limits = limits
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._frames: dict[int, _Frame] = {}
        # By id: a code object is hashed from all that it consists of, each time.
        self._hits: dict[tuple[int, int], int] = {}
        self._capped: set[int] = set()
        self._known: dict[int, tuple[int, dict[int, Touched]]] = {}
        self._name_numbers: dict[str, int] = {}
        self._thread_numbers: dict[int, int] = {}
        self._last: dict[int, _Frame] = {}
        self._changed: list[int] = []
        self._changed_before = 0
        _TAPES.add(self)

    def is_known(self, frame: FrameType) -> bool:
        """Whether this execution has events already."""
        state = self._frames.get(id(frame))
        return state is not None and state.code is frame.f_code

    def state_of(self, frame: FrameType) -> _Frame | None:
        """What is known of this execution, if it has events."""
        state = self._frames.get(id(frame))
        return state if state is not None and state.code is frame.f_code else None

    def take(self, kind: Kind, frame: FrameType, value: object = _NOTHING) -> bool:
        """Record one event. False: this line, call or yield shall not be reported again."""
        begun = perf_counter_ns()
        if self.trouble is not None:
            return False
        try:
            with self._lock:
                return self._take(kind, frame, value, begun)
        except (RecursionError, MemoryError):
            # The user's code is about to meet the same limit, by itself.
            return True
        except Exception as exc:
            self.trouble = f"{type(exc).__name__}: {exc}"
            return False
        finally:
            self.own_ns += perf_counter_ns() - begun

    def _take(self, kind: Kind, frame: FrameType, value: object, now: int) -> bool:
        code, line, key = frame.f_code, frame.f_lineno or 0, id(frame)
        state = self._frames.get(key)
        if state is not None and (state.code is not code or kind is Kind.CALL):
            # Left behind by a generator that was dropped without an event.
            state = None
        if not self._is_wanted(kind, code, line, state):
            return False
        if state is None:
            state = self._frames[key] = self._enter(code)
        ident = threading.get_ident()
        thread = self._thread_numbers[ident] if ident in self._thread_numbers else self._new_thread(ident)
        is_entry = kind in _ENTRIES or not state.is_entered
        parent = self._parent(frame) if is_entry else -1
        try:
            changes = self._changes(state, frame, kind, self._last.get(ident) is state)
            number = self._value(state, kind, value)
        except BaseException:
            # Some of the changes are lost: all locals are told anew by the next event.
            state.seen.clear()
            state.line = None
            raise
        # From here on nothing can fail: an event is recorded whole or not at all.
        events, self._last[ident] = self.events, state
        if is_entry:
            events.entries.append((len(events.changes), state.serial, parent))
            state.is_entered = True
        state.line, state.mark = line, self._changed_before + len(self._changed)
        if kind is Kind.RETURN or kind is Kind.UNWIND:
            del self._frames[key]
        events.kinds.append(kind)
        events.lines.append(line)
        events.times.append(now - self.own_ns)
        events.frames.append(state.serial)
        events.threads.append(thread)
        events.values.append(number)
        events.changes.append(changes)
        return True

    def _changes(self, state: _Frame, frame: FrameType, kind: Kind, is_same: bool) -> tuple[int, ...]:
        state.count += 1
        lines = state.touched.get(state.line) if state.line is not None else None
        is_keyframe = kind is not Kind.LINE or not state.count % KEYFRAME or id(state.code) in self._capped
        if is_keyframe or lines is None or not (is_same or self._is_followed(state)):
            return self._look_at_all(state, frame)
        return self._look(state, frame, lines)

    def _is_wanted(self, kind: Kind, code: CodeType, line: int, state: _Frame | None) -> bool:
        room = self._limits.events - len(self.events)
        if room <= 0:
            self.is_full = True
            if kind in (Kind.CALL, Kind.LINE, Kind.RESUME, Kind.SUSPEND) or -room >= self._limits.events // 10:
                return False
        if kind is Kind.RETURN or kind is Kind.UNWIND:
            return state is not None
        # Lines count from 1: all else is counted under numbers below that.
        at = (id(code), line if kind is Kind.LINE else -line - 10 if kind is Kind.EXCEPTION else -kind)
        hits = self._hits[at] = self._hits.get(at, 0) + 1
        if hits <= self._limits.hits:
            return True
        self._capped.add(id(code))
        self._function(code)
        if kind is Kind.LINE:
            self.elided.setdefault(at, -1)
        return False

    def number_of(self, code: int) -> int:
        """The number of the function with this id of its code."""
        return self._known[code][0]

    def _function(self, code: CodeType) -> tuple[int, dict[int, Touched]]:
        known = self._known.get(id(code))
        if known is None:
            known = self._known[id(code)] = (len(self.functions), touched(code))
            self.functions.append(code)
        return known

    def _enter(self, code: CodeType) -> _Frame:
        known = self._function(code)
        self.function_of.append(known[0])
        return _Frame(len(self.function_of) - 1, code, known[1])

    def _parent(self, frame: FrameType) -> int:
        outer = frame.f_back
        while outer is not None:
            state = self._frames.get(id(outer))
            if state is not None and state.code is outer.f_code:
                return state.serial
            outer = outer.f_back
        return -1

    def _value(self, state: _Frame, kind: Kind, value: object) -> int:
        if value is _NOTHING:
            return state.raised if kind is Kind.UNWIND else NO_VALUE
        if kind is Kind.RETURN and self.snapshots.hides(state.code.co_name):
            return self.snapshots.hidden
        number = self.snapshots.take(value)
        if kind is Kind.EXCEPTION:
            state.raised = number
        return number

    def note_raised(self, state: _Frame, exc: BaseException) -> None:
        """Remember an exception that is no event of its own, for the unwinding that it may lead to."""
        with self._lock:
            state.raised = self.snapshots.take(exc)

    def _is_followed(self, state: _Frame) -> bool:
        """Whether it is known what other frames have changed meanwhile, and looking at all would cost much more."""
        return state.weight > _LIGHT and state.mark >= self._changed_before

    def _log(self, ids: set[int]) -> None:
        """Remember that these objects were changed, or hold one that was: for the frames that hold them too."""
        if len(self._changed) > _REMEMBERED:
            self._changed_before += len(self._changed)
            self._changed.clear()
        self._changed += ids

    def _look_at_all(self, state: _Frame, frame: FrameType) -> tuple[int, ...]:
        found, changes = frame.f_locals, list[int]()
        if len(state.owners) > _OWNERS:
            state.owners.clear()
            state.ids.clear()
        for name in [name for name in state.seen if name not in found]:
            self._forget(state, name, changes)
        for name, value in found.items():
            old = state.seen.get(name)
            if old is None or old[0] is not value:
                before = state.ids.get(name, ())
                if self._keep(state, name, value, old, changes) and before[:1] == (id(value),):
                    self._log({*before, *state.ids.get(name, ())})
        state.weight = sum(map(len, state.ids.values()))
        return tuple(changes)

    def _look(self, state: _Frame, frame: FrameType, line: Touched) -> tuple[int, ...]:
        found, changes, touched_ids = frame.f_locals, list[int](), set[int]()
        for name in line.names:
            value = found.get(name, _NOTHING)
            old = state.seen.get(name)
            if value is _NOTHING:
                if old is not None:
                    self._forget(state, name, changes)
            elif old is None or old[0] is not value:
                before = state.ids.get(name, ())
                if self._keep(state, name, value, old, changes) and before:
                    after = state.ids.get(name, ())
                    if after[:1] == before[:1] or name in line.both:
                        # The object itself was changed: so was what else holds it, or parts of it.
                        touched_ids.update(before, after)
        if touched_ids:
            self._log(touched_ids)
        touched_ids.update(self._changed[state.mark - self._changed_before :])
        again = {name for i in touched_ids for name in state.owners.get(i, ())} if touched_ids else set()
        for name in again.difference(line.names):
            value = found.get(name, _NOTHING)
            if value is not _NOTHING:
                self._keep(state, name, value, state.seen.get(name), changes)
        return tuple(changes)

    def _keep(
        self, state: _Frame, name: str, value: object, old: tuple[object, int] | None, changes: list[int]
    ) -> bool:
        """Look at one local; whether it shows something else than before."""
        if name in _UNSEEN or name[:1] == "." or (name[:2] == "__" and name[-2:] == "__"):
            return False
        shots = self.snapshots
        if shots.hides(name):
            number = shots.hidden
            shots.seen = []
        else:
            number = shots.take(value)
        kind = type(value)
        is_atom = kind is int or kind is float or kind is bool or value is None or (kind is str and len(value) < 1_000)  # type: ignore[arg-type]
        state.seen[name] = (value if is_atom else _NOTHING, number)
        if old is not None and old[1] == number and name not in state.ids:
            return False
        if shots.seen:
            ids = (id(value), *shots.seen)
            if state.ids.get(name) != ids:
                state.ids[name] = ids
                for i in ids:
                    state.owners.setdefault(i, set()).add(name)
        elif name in state.ids:
            del state.ids[name]
        if old is not None and old[1] == number:
            return False
        changes += (self._name(name), number)
        return True

    def _forget(self, state: _Frame, name: str, changes: list[int]) -> None:
        del state.seen[name]
        state.ids.pop(name, None)
        changes += (self._name(name), self.snapshots.unbound)

    def _name(self, name: str) -> int:
        number = self._name_numbers.get(name)
        if number is None:
            number = self._name_numbers[name] = len(self.names)
            self.names.append(name)
        return number

    def _new_thread(self, ident: int) -> int:
        names = [thread.name for thread in threading.enumerate() if thread.ident == ident]
        self._thread_numbers[ident] = number = len(self.threads)
        self.threads.append(names[0] if names else f"thread {ident}")
        return number

    def _stop_in_child(self) -> None:
        self._lock = threading.Lock()
        self.trouble = "this is a forked process"


_TAPES: Final[weakref.WeakSet[Tape]] = weakref.WeakSet()


def _after_fork() -> None:
    for tape in _TAPES:
        tape._stop_in_child()


os.register_at_fork(after_in_child=_after_fork)
