"""What may be asked of a run. `decide` answers each with events or with a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kairos.domain.error_info import ErrorInfo
from kairos.domain.payload import Payload


@dataclass(frozen=True, slots=True)
class ClaimRun:
    """`worker` has become the owner; `epoch` is the number of that claim."""

    worker: str
    epoch: int


@dataclass(frozen=True, slots=True)
class StartStep:
    """Begin an attempt of a ready step; its token is the next of the run, and larger than `above`: bodies of
    earlier owners may have begun under tokens that were never recorded. `worker` is None for the owner."""

    step: str
    input_hash: str = ""
    worker: str | None = None
    isolated: bool = False
    above: int = 0


@dataclass(frozen=True, slots=True)
class FireRetry:
    """The backoff of a failed step is over: it is ready again, for whoever may run it."""

    step: str


@dataclass(frozen=True, slots=True)
class FinishStep:
    """The attempt returned `output`."""

    step: str
    attempt: int
    token: int
    output: Payload
    duration_us: int = 0


@dataclass(frozen=True, slots=True)
class FailStep:
    """The attempt raised. `roll` in [0, 1) is the dice for the jitter of the backoff."""

    step: str
    attempt: int
    token: int
    error: ErrorInfo
    retryable: bool = True
    roll: float = 0.5
    duration_us: int = 0
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class LoseLease:
    """The attempt's worker is gone, frozen, or gave it back (see `LeaseLost`)."""

    step: str
    token: int
    reason: str
    worker: str | None = None
    signal: str | None = None
    alone: bool = False
    suspect: bool = False


@dataclass(frozen=True, slots=True)
class StopStep:
    """The body has stopped because the run is being cancelled."""

    step: str
    attempt: int
    token: int


@dataclass(frozen=True, slots=True)
class RequestCancel:
    """Somebody asks for the run to stop."""

    author: str
    reason: str


@dataclass(frozen=True, slots=True)
class FinishCancel:
    """The grace for running bodies is over: revoke their fences and end the run."""


@dataclass(frozen=True, slots=True)
class Expire:
    """Close what has outlived its time to live."""


@dataclass(frozen=True, slots=True)
class RejectWrite:
    """Keep a record of a late write that was refused."""

    step: str
    attempt: int
    token: int
    worker: str
    what: str


@dataclass(frozen=True, slots=True)
class EmitLog:
    """A running step writes a log line."""

    step: str
    attempt: int
    token: int
    level: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EmitMetric:
    """A running step reports a number."""

    step: str
    attempt: int
    token: int
    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


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
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a command was refused. `stale`: the asker's token or attempt is no longer the current one."""

    reason: str
    stale: bool = False
