"""What may be asked of a run. `decide` answers each with events or with a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from kairos.domain.error_info import ErrorInfo
from kairos.domain.payload import Payload


class ClaimRun(Struct, frozen=True, gc=False):
    """`worker` has become the owner; `epoch` is the number of that claim."""

    worker: str
    epoch: int


class StartStep(Struct, frozen=True, gc=False):
    """Begin an attempt of a ready step; its token is the next of the run, and larger than `above`: bodies of
    earlier owners may have begun under tokens that were never recorded. `worker` is None for the owner."""

    step: str
    input_hash: str = ""
    worker: str | None = None
    isolated: bool = False
    above: int = 0


class FireRetry(Struct, frozen=True, gc=False):
    """The backoff of a failed step is over: it is ready again, for whoever may run it."""

    step: str


class FinishStep(Struct, frozen=True, gc=False):
    """The attempt returned `output`."""

    step: str
    attempt: int
    token: int
    output: Payload
    duration_us: int = 0


class FailStep(Struct, frozen=True, gc=False):
    """The attempt raised. `roll` in [0, 1) is the dice for the jitter of the backoff."""

    step: str
    attempt: int
    token: int
    error: ErrorInfo
    retryable: bool = True
    roll: float = 0.5
    duration_us: int = 0
    timed_out: bool = False


class LoseLease(Struct, frozen=True, gc=False):
    """The attempt's worker is gone, frozen, or gave it back (see `LeaseLost`)."""

    step: str
    token: int
    reason: str
    worker: str | None = None
    signal: str | None = None
    alone: bool = False
    suspect: bool = False


class StopStep(Struct, frozen=True, gc=False):
    """The body has stopped because the run is being cancelled."""

    step: str
    attempt: int
    token: int


class RequestCancel(Struct, frozen=True, gc=False):
    """Somebody asks for the run to stop."""

    author: str
    reason: str


class FinishCancel(Struct, frozen=True, gc=False):
    """The grace for running bodies is over: revoke their fences and end the run."""


class Expire(Struct, frozen=True, gc=False):
    """Close what has outlived its time to live."""


class RejectWrite(Struct, frozen=True, gc=False):
    """Keep a record of a late write that was refused."""

    step: str
    attempt: int
    token: int
    worker: str
    what: str


class EmitLog(Struct, frozen=True, gc=False):
    """A running step writes a log line."""

    step: str
    attempt: int
    token: int
    level: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class EmitMetric(Struct, frozen=True, gc=False):
    """A running step reports a number."""

    step: str
    attempt: int
    token: int
    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class RecordEffect(Struct, frozen=True, gc=False):
    """A running step has had an effect (see `EffectRecorded`)."""

    step: str
    attempt: int
    token: int
    name: str
    ordinal: int
    via: str
    arguments: Payload | None = None
    result: Payload | None = None
    error: ErrorInfo | None = None
    duration_us: int = 0


Command = (
    ClaimRun
    | StartStep
    | FireRetry
    | FinishStep
    | FailStep
    | LoseLease
    | StopStep
    | RequestCancel
    | FinishCancel
    | Expire
    | RejectWrite
    | EmitLog
    | EmitMetric
    | RecordEffect
)


class Refusal(Struct, frozen=True, gc=False):
    """Why a command was refused. `stale`: the asker's token or attempt is no longer the current one."""

    reason: str
    stale: bool = False
