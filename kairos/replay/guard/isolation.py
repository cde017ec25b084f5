"""Puts the layers up, and says which of them are in force."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from kairos.errors import GuardUnavailable
from kairos.replay.guard import audit, environment, landlock, metadata, seccomp
from kairos.replay.guard.attempts import Surroundings
from kairos.replay.guard.leaks import Ledger
from kairos.replay.guard.policy import Policy, show_destination
from kairos.replay.guard.reach import Reach

State = Literal["on", "absent", "off"]
_WORDS: Final[dict[State, str]] = {"on": "yes", "absent": "absent", "off": "off"}


@dataclass(frozen=True)
class Layer:
    """One layer: `absent` when this system cannot have it, `off` when the user did not want it; `detail` says more."""

    name: str
    state: State
    detail: str = ""
    partial: bool = False
    """In force, but something that the policy asks for is beyond this system."""

    def __str__(self) -> str:
        word = _WORDS[self.state]
        if not self.detail:
            return f"{self.name} {word}"
        return f"{self.name} {word} ({self.detail})" if self.state == "on" else f"{self.name} {word}: {self.detail}"


@dataclass(frozen=True)
class Isolation:
    """What holds the replay back, in the order of `policy.LAYERS`, and what it may reach all the same."""

    layers: tuple[Layer, ...]
    allowed: tuple[str, ...] = ()

    def line(self) -> str:
        """`env yes, audit yes, landlock yes (ABI 5), seccomp yes`, and what is allowed, in one line."""
        text = ", ".join(map(str, self.layers))
        return f"{text}; allowed: {', '.join(self.allowed)}" if self.allowed else text

    def missing(self) -> list[Layer]:
        """The layers that are not in force, or not wholly."""
        return [layer for layer in self.layers if layer.state != "on" or layer.partial]


def enter(policy: Policy, ledger: Ledger) -> tuple[Isolation, Surroundings]:
    """Put this process under `policy`, for good. To be called on the main thread, before user code is imported.

    Raises:
        GuardUnavailable: the policy is strict, and a layer is missing.
    """
    sys.dont_write_bytecode = True
    reach = Reach(policy)
    env = _put_up("env", policy, lambda: _environment(policy))
    sockets = _put_up("seccomp", policy, lambda: _seccomp(policy))
    files = _put_up("landlock", policy, lambda: _landlock(policy, signals=sockets.state != "on"))
    around = Surroundings(reach, sockets.state == "on", files.state == "on")
    hook = _put_up("audit", policy, lambda: _audit(ledger, around))
    isolation = Isolation((env, hook, files, sockets), _allowed(policy))
    if policy.strict and (missing := isolation.missing()):
        raise GuardUnavailable(
            f"the replay cannot be isolated as strictly as asked: {', '.join(map(str, missing))}",
            hint="Run it on Linux 6.7 or later outside of containers that forbid Landlock and seccomp, "
            "or without --require-isolation strict.",
            missing=[layer.name for layer in missing],
        )
    return isolation, around


def _put_up(name: str, policy: Policy, start: Callable[[], Layer]) -> Layer:
    if name in policy.off:
        return Layer(name, "off", policy.why_off)
    try:
        return start()
    except OSError as exc:
        return Layer(name, "absent", exc.strerror or str(exc))


def _environment(policy: Policy) -> Layer:
    if os.environ.get(environment.MARK) != "1":
        return Layer("env", "absent", "this process has the whole environment")
    if secrets := environment.left_over(os.environ, policy.keep_environment):
        return Layer("env", "absent", f"{', '.join(secrets)} is set")
    return Layer("env", "on", f"and {', '.join(policy.keep_environment)}" if policy.keep_environment else "")


def _audit(ledger: Ledger, around: Surroundings) -> Layer:
    audit.install(ledger, around)
    return Layer("audit", "on")


def _landlock(policy: Policy, *, signals: bool) -> Layer:
    version = landlock.abi()
    others = threading.active_count() - 1
    landlock.restrict(version, policy, signals=signals)
    notes = [f"ABI {version}"]
    if gap := landlock.gap(version, policy):
        notes.append(gap)
    if others:
        notes.append(f"but for {others} thread{'s' if others > 1 else ''} that ran before")
    return Layer("landlock", "on", ", ".join(notes), partial=gap is not None)


def _seccomp(policy: Policy) -> Layer:
    pass_ = metadata.draw_pass()
    seccomp.restrict(network=bool(policy.allow_network), pass_=pass_)
    metadata.take_over(seccomp.find_machine().numbers, pass_)
    return Layer("seccomp", "on", "TCP and UDP let through" if policy.allow_network else "")


def _allowed(policy: Policy) -> tuple[str, ...]:
    return (
        *(f"network {show_destination(destination)}" for destination in policy.allow_network),
        *(f"writes {path}" for path in policy.allow_writes),
    )
