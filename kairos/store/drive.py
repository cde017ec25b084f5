"""Takes one run a step further in memory: asks the rules, records what they answer. Does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from msgspec import Struct, field
from msgspec.structs import replace

from kairos.domain.commands import Command, Refusal, StartStep
from kairos.domain.decisions import decide
from kairos.domain.events import Event, Recorded, StepStarted
from kairos.domain.projection import RunState, apply
from kairos.store import codec
from kairos.store.codec import Row


class OpenRun(Struct, gc=False):
    """A run in memory: its state, the end of its hash chain, and the epoch under which it is held."""

    state: RunState
    head_hash: bytes
    epoch: int = 0

    @property
    def run_id(self) -> UUID:
        """The run's id."""
        return self.state.run_id

    def record(self, event: Event, now: datetime) -> Row:
        """Append `event` in memory and return its row. Times never decrease within a run."""
        state = self.state
        at = now if state.at is None or now >= state.at else state.at
        row = codec.encode(event, state.seq + 1, at, self.head_hash)
        apply(state, Recorded(row.seq, at, event))
        self.head_hash = row.hash
        return row


class Drive(Struct, gc=False):
    """What came of driving a run: rows to append, the events in them, and what was refused."""

    rows: list[Row] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    refused: list[tuple[Command, Refusal]] = field(default_factory=list)

    @property
    def started(self) -> list[StepStarted]:
        """The attempts that began."""
        return [event for event in self.events if type(event) is StepStarted]


Scheduler = Callable[[RunState, datetime], Iterable[Command]]


def drive(run: OpenRun, commands: Iterable[Command], now: datetime, schedule: Scheduler | None = None) -> Drive:
    """Ask `commands`, then what `schedule` proposes; it is asked lazily, so it sees what was decided so far."""
    done = Drive()
    rows, events, state = done.rows, done.events, run.state
    for source in (commands, schedule):
        if source is None:
            continue
        for command in source(state, now) if callable(source) else source:
            if not state.token and type(command) is StartStep:
                command = replace(command, above=tokens_spent(run))
            answer = decide(state, command, now)
            if isinstance(answer, Refusal):
                done.refused.append((command, answer))
                continue
            for event in answer:
                rows.append(run.record(event, now))
                events.append(event)
    return done


def tokens_spent(run: OpenRun) -> int:
    """Tokens under which bodies may have begun without a trace: an owner begins root steps before its first
    flush, and each of the earlier owners may have died right then."""
    return max(run.epoch - 1, 0) * len(run.state.graph.roots)


def input_hash(state: RunState, step: str) -> str:
    """16 hex digits over what the step receives: the run's input and the outputs it needs, by parameter."""
    text = state.input.digest.encode()
    for parameter, above in state.graph.inputs[step]:
        output = state.steps[above].output
        # The bytes of a short value, the hash of a long or an inherited one: what its event holds too.
        value = b"" if output is None else output.digest.encode() if output.inline is None else output.inline
        text = b"%b\n%b=%b" % (text, parameter.encode(), value)
    return sha256(text).hexdigest()[:16]
