"""The audit hook: Python tells of each attempt before it is made, with the user's line still on the stack.

Owns: which audit events are attempts to leave the process. The interpreter keeps a hook for ever: nothing takes it off.
Does not see: code in other languages that asks the kernel itself; that is what Landlock and seccomp are for.
"""

from __future__ import annotations

import _posixsubprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from kairos.replay.guard.attempts import ATTEMPTS, Attempt, Surroundings
from kairos.replay.guard.leaks import (
    Finding,
    Leak,
    Ledger,
    Place,
    RefusedAtImport,
    RefusedAtPrompt,
    ReplayBlocked,
    find_place,
)

Hook = Callable[[str, tuple[Any, ...]], None]

_HINTS: Final = {
    "network": "Let the step record it: ctx.call(NAME, FN, ...), or ctx.record_http() for httpx and requests. "
    "Or let it happen: --allow-network HOST:PORT.",
    "write": "Let the step record it: ctx.call(NAME, FN, ...). Files for a moment belong into tempfile's folder. "
    "Or let it happen: --allow-writes DIR.",
    "process": "Let the step record it: ctx.call(NAME, FN, ...). A replay starts no other programs.",
    "signal": "Let the step record it: ctx.call(NAME, FN, ...). A replay sends no signals to other processes.",
}


_HINTS_AT_IMPORT: Final = {
    "network": "Do it in a step, where ctx.call records it. Or let it happen: --allow-network HOST:PORT.",
    "write": "Do it in a step, where ctx.call records it. Or let it happen: --allow-writes DIR.",
    "process": "Do it in a step, where ctx.call records it. A replay starts no other programs.",
    "signal": "Do it in a step, where ctx.call records it. A replay sends no signals to other processes.",
}


def hint_for(kind: str, *, at_import: bool = False) -> str:
    """What to do about a leak of this kind; in code that runs at import there is no `ctx`."""
    return (_HINTS_AT_IMPORT if at_import else _HINTS)[kind]


def install(ledger: Ledger, around: Surroundings) -> None:
    """From now on, for the rest of this process, attempts to leave it are stopped and written to `ledger`."""
    sys.addaudithook(_hook(ledger, around))
    _tell_of_spawned_processes()


def _tell_of_spawned_processes() -> None:
    """`multiprocessing` starts its programs below `subprocess`, where Python tells nobody of it."""
    start = _posixsubprocess.fork_exec

    def fork_exec(*args: Any) -> int:
        sys.audit("subprocess.Popen", None, args[0], None, None)
        return start(*args)

    _posixsubprocess.fork_exec = fork_exec


def _hook(ledger: Ledger, around: Surroundings) -> Hook:
    attempts = ATTEMPTS
    busy = threading.local()

    def hook(event: str, args: tuple[Any, ...]) -> None:
        judge = attempts.get(event)
        # `busy`: what the guard itself does to judge an attempt is no attempt.
        if judge is None or getattr(busy, "on", False):
            return
        busy.on = True
        try:
            attempt = judge(around, args, sys._getframe(1))
            refusal = None if attempt is None else _refuse(ledger, around, attempt, sys._getframe(1))
        finally:
            busy.on = False
        if refusal is not None:
            raise refusal

    return hook


def _refuse(ledger: Ledger, around: Surroundings, attempt: Attempt, frame: FrameType) -> BaseException | None:
    found = find_place(frame)
    if found.at_prompt:
        return RefusedAtPrompt(_leak(attempt, found))
    if found.importing and _let_through(attempt, around):
        return None
    leak = ledger.note(_leak(attempt, found))
    return RefusedAtImport(leak) if found.importing else ReplayBlocked(leak)


def _let_through(attempt: Attempt, around: Surroundings) -> bool:
    """As the import of urllib3, which makes a socket to see whether there is IPv6; it knows the kernel's refusal."""
    return attempt.at_import == "allowed" or (attempt.at_import == "kernel" and around.kernel_refuses_sockets)


def _leak(attempt: Attempt, found: Finding) -> Leak:
    at = found.place or Place("", 0, "")
    return Leak(
        attempt.kind, attempt.what, attempt.target, at.file, at.line, at.function,
        hint=hint_for(attempt.kind, at_import=found.importing), at_import=found.importing,
    )  # fmt: skip
