"""Named places where a test can make a process die, stop or raise. No-ops unless KAIROS_FAILPOINTS is set.

    KAIROS_FAILPOINTS="after_claim=kill;before_append=stop@3;after_append=exit"

`name=action` or `name=action@n`: the n-th time the place is passed (default: the first). Actions: `kill`
(SIGKILL to itself), `stop` (SIGSTOP), `exit` (os._exit), `raise` (OSError), `pause:SECONDS`.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

from kairos.errors import ConfigError

POINTS = frozenset(
    {
        "before_claim",
        "after_claim",
        "before_append",
        "after_append",
        "before_commit",
        "after_commit",
        "before_notify",
        "after_notify",
        "before_schedule_retry",
        "after_schedule_retry",
        "before_release",
        "after_release",
        "before_body",
        "after_body",
        "after_removal_begun",
        "before_removal",
        "after_removal",
        "before_drop",
        "after_drop",
        "before_sweep",
        "after_sweep",
    }
)
_ACTIONS = ("kill", "stop", "exit", "raise", "pause")


def parse(text: str) -> dict[str, tuple[str, int]]:
    """Read the setting. Raises ConfigError for an unknown point or action."""
    armed = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, _, action = part.partition("=")
        action, _, nth = action.partition("@")
        if name not in POINTS or action.split(":")[0] not in _ACTIONS or not (nth or "1").isdigit():
            raise ConfigError(
                f"KAIROS_FAILPOINTS: {part!r} is not `point=action[@n]`",
                hint=f"Points: {', '.join(sorted(POINTS))}. Actions: {', '.join(_ACTIONS)}.",
            )
        armed[name] = (action, int(nth or 1))
    return armed


_ARMED = parse(os.environ.get("KAIROS_FAILPOINTS", ""))
_PASSED: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Pass a named place."""
    if _ARMED and name in _ARMED:
        _trip(name)


def _trip(name: str) -> None:
    action, nth = _ARMED[name]
    _PASSED[name] += 1
    if _PASSED[name] != nth:
        return
    kind, _, argument = action.partition(":")
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif kind == "exit":
        os._exit(17)
    elif kind == "raise":
        raise OSError(f"failpoint {name}")
    else:
        time.sleep(float(argument or 1))
