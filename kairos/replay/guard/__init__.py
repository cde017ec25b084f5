"""Holds a replay back from everything outside its process: the network, other programs, the files of the user.

Four layers, each of which says whether it is in force. `env`: the child gets few variables and no credentials.
`audit`: Python reports each attempt, which is stopped with the user's own line. `landlock` and `seccomp`: the kernel
refuses what code in other languages tries, and what child processes try.

Owns: what leaves a process, and how it is stopped and reported. Refuses: to be taken off again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kairos.replay.guard import explain as _explaining
from kairos.replay.guard import isolation as _isolation
from kairos.replay.guard import threads
from kairos.replay.guard.attempts import Surroundings
from kairos.replay.guard.environment import scrub_environment
from kairos.replay.guard.isolation import Isolation, Layer
from kairos.replay.guard.leaks import Leak, Ledger, RefusedAtImport, ReplayBlocked
from kairos.replay.guard.policy import LAYERS, Destination, Policy, parse_destination, show_destination

__all__ = [
    "LAYERS",
    "Destination",
    "Isolation",
    "Layer",
    "Leak",
    "Policy",
    "RefusedAtImport",
    "ReplayBlocked",
    "begin_step",
    "enter",
    "explain_error",
    "leaks",
    "parse_destination",
    "scrub_environment",
    "show_destination",
]

_LEDGER = Ledger()
_AROUND: list[Surroundings] = []


def enter(policy: Policy) -> Isolation:
    """Put this process under `policy`, for good. To be called once, on the main thread, before user code is imported.

    Raises:
        GuardUnavailable: the policy is strict, and a layer is missing.
        RuntimeError: the process is under a policy already.
    """
    if _AROUND:
        raise RuntimeError("this process is guarded already")
    isolation, around = _isolation.enter(policy, _LEDGER)
    _AROUND.append(around)
    threads.follow(_LEDGER)
    threads.keep_quiet(lambda exc: explain_error(exc) is not None)
    return isolation


def begin_step(step: str, function: Callable[..., Any] | None = None) -> None:
    """From now on leaks belong to `step`, until another begins; those of threads that it starts, even then.

    `function` is where a leak is placed whose own line is not known.
    """
    _LEDGER.begin_step(step, function)


def leaks() -> list[Leak]:
    """What tried to leave the process so far, each once per deed and place, in order of time."""
    return _LEDGER.all()


def explain_error(exc: BaseException) -> Leak | None:
    """The leak that `exc`, which a step or an import raised, is the answer to; None when it is an error like others.

    To be asked for every exception: some attempts only the kernel sees (libpq: "Permission denied"), and are told by
    the error alone; of others only the traceback knows the user's line. The leak is in `leaks()` afterwards.
    """
    return _explaining.explain(exc, _LEDGER, _AROUND[0]) if _AROUND else None
