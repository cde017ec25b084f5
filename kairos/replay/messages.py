"""What the two processes of a replay say to each other: one JSON document to a line, each way over a pipe of its own.

The parent knows the record and asks; the child has the user's code, and no database, and answers. One child replays
as many runs as it is asked to. Values travel as canonical bytes, and only those that are not in the record anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct, field

from kairos.domain.error_info import ErrorInfo
from kairos.replay.plan import PlannedStep

LIMIT = 512 * 1024 * 1024
"""Bytes of the longest line that is read."""


class Guards(Struct, frozen=True, kw_only=True):
    """What the child may not do, and what it may. None of it applies in live mode.

    Attributes:
        scratch: the one folder in which it may write, beside those of `writes`.
        network: (host, port), or (host, None) for every port.
        environment: variables that are let through by name.
    """

    scratch: str
    network: tuple[tuple[str, int | None], ...] = ()
    writes: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    strict: bool = False


class Setup(Struct, frozen=True, kw_only=True, tag="setup"):
    """The first thing that the child hears.

    Attributes:
        app: as `load_app` takes it.
        guards: None for none at all.
        timeout: seconds after which a step is stopped; None for never.
        probe: run a step whose output differs once more, to tell what differs each time.
        paced: before anything is printed here, wait for a `Go` to each step that has ended: then what both processes
            print comes in order.
        debugger, trace: options of those who stop in a step, or record it line by line; empty for neither.
    """

    app: str
    guards: Guards | None
    timeout: float | None = None
    probe: bool = True
    paced: bool = False
    debugger: Mapping[str, Any] = field(default_factory=dict)
    trace: Mapping[str, Any] = field(default_factory=dict)


class Describe(Struct, frozen=True, tag="describe"):
    """Ask for the workflow of this name."""

    workflow: str


class Replay(Struct, frozen=True, kw_only=True, tag="replay"):
    """Ask for the steps of one run.

    Attributes:
        bundle: the file with the record.
        flows: whether a step gets what the steps above it return now.
        live: whether effects really happen.
        input: the run's input, if it is not the recorded one.
        given: outputs that take the place of recorded ones.
        without: steps that have no output, whatever is recorded.
        secrets: reference of a `Secret` -> its value, as far as the machine of the developer knows it.
    """

    bundle: str
    workflow: str
    steps: tuple[PlannedStep, ...]
    flows: bool = False
    live: bool = False
    input: bytes | None = None
    given: Mapping[str, bytes] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)


class Check(Struct, frozen=True, kw_only=True, tag="check"):
    """Ask whether edited values have their types. Answered by `Checked`, with the values as they would be stored."""

    workflow: str
    input: bytes | None = None
    outputs: Mapping[str, bytes] = field(default_factory=dict)


class Go(Struct, frozen=True, tag="go"):
    """What was said is printed: go on."""


Request = Setup | Describe | Check | Replay | Go


class Leak(Struct, frozen=True, kw_only=True):
    """Something that would have left the process, and was stopped; as in `guard.Leak`."""

    kind: str
    what: str
    target: str = ""
    file: str = ""
    line: int = 0
    function: str = ""
    hint: str = ""
    at_import: bool = False


class Hello(Struct, frozen=True, kw_only=True, tag="hello"):
    """The child is there, and its guards are on. `layers`: guard -> what became of it."""

    isolation: str
    layers: Mapping[str, str] = field(default_factory=dict)
    pid: int = 0


class Loaded(Struct, frozen=True, kw_only=True, tag="loaded"):
    """The app is imported."""

    app: str
    workflows: tuple[str, ...]
    leaks: tuple[Leak, ...] = ()


class CannotLoad(Struct, frozen=True, kw_only=True, tag="cannot_load"):
    """The app, or the guards, cannot be had. `trace`: a traceback of the user's, else empty."""

    kind: str
    message: str
    hint: str | None = None
    trace: str = ""
    leaks: tuple[Leak, ...] = ()


class Described(Struct, frozen=True, kw_only=True, tag="described"):
    """The workflow as the app has it; `definition` is None if it has none of this name."""

    definition: dict[str, Any] | None
    fingerprint: str = ""
    ignore: tuple[str, ...] = ()


class Checked(Struct, frozen=True, kw_only=True, tag="checked"):
    """`problem`: why one of the values cannot be; else they are as they would be stored."""

    input: bytes | None = None
    outputs: Mapping[str, bytes] = field(default_factory=dict)
    problem: str = ""
    hint: str | None = None


class Began(Struct, frozen=True, tag="began"):
    """A step begins."""

    step: str


class Said(Struct, frozen=True, kw_only=True, tag="said"):
    """A step wrote a log line or a number."""

    step: str
    level: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class Noted(Struct, frozen=True, tag="noted"):
    """Something that the user should know."""

    text: str


class EffectUse(Struct, frozen=True, kw_only=True):
    """What a step did with the recorded effects.

    Attributes:
        missing: recorded in this very attempt, and not asked for.
        extra: asked for, and not recorded.
        mismatch: how an effect was asked for with other arguments, in words.
    """

    served: int = 0
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    mismatch: str = ""


class Problem(Struct, frozen=True, kw_only=True):
    """An `ErrorInfo` on its way."""

    data: dict[str, Any]

    @classmethod
    def of(cls, error: ErrorInfo) -> Problem:
        """Wrap it."""
        return cls(data=error.to_json())

    @property
    def error(self) -> ErrorInfo:
        """Unwrap it."""
        return ErrorInfo.from_json(self.data)


class Ended(Struct, frozen=True, kw_only=True, tag="ended"):
    """What came of a step.

    Attributes:
        outcome: `done`, `failed`, `interrupted`, `timeout` or `missing` (no input to run it with).
        same: whether its output has the very bytes of the recorded one; then `output` is None.
        again: what it returned when it was run once more.
        moved: whether an input differs from the recorded one, because a step above it changed.
        missing: of `missing`: the step above whose output there is not.
    """

    step: str
    outcome: str
    same: bool = False
    output: bytes | None = None
    size: int = 0
    again: bytes | None = None
    problem: Problem | None = None
    duration_us: int = 0
    moved: bool = False
    missing: str = ""
    effects: EffectUse = EffectUse()
    leaks: tuple[Leak, ...] = ()
    notes: tuple[str, ...] = ()


class Late(Struct, frozen=True, kw_only=True, tag="late"):
    """What a thread tried that a step has left running, after the step was told of; `run` may be one of before."""

    run: str
    step: str
    leaks: tuple[Leak, ...]


class Refused(Struct, frozen=True, kw_only=True, tag="refused"):
    """Nothing of it was run: it cannot be replayed as was asked for."""

    message: str
    hint: str | None = None


class Finished(Struct, frozen=True, tag="finished"):
    """All steps that were asked for have been seen to; `quit`: or the user wanted no more."""

    quit: bool = False


Answer = Hello | Loaded | CannotLoad | Described | Checked | Began | Said | Noted | Ended | Late | Refused | Finished

_encoder = msgspec.json.Encoder()
_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def line_of(message: Request | Answer) -> bytes:
    """One line."""
    return _encoder.encode(message) + b"\n"


def read_request(line: bytes) -> Request:
    """What the parent said. Raises msgspec.ValidationError or msgspec.DecodeError."""
    return _requests.decode(line)


def read_answer(line: bytes) -> Answer:
    """What the child said. Raises msgspec.ValidationError or msgspec.DecodeError."""
    return _answers.decode(line)
