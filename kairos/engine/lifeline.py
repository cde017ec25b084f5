"""Ties a process to its parent: when the parent dies, however it dies, the kernel tells the child."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send signal `number` to this process when its parent dies (on Linux; elsewhere nothing happens).

    Args:
        parent: its process id, as the parent itself knows it.

    Raises:
        SystemExit: the parent has died already.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    # Asked for first, looked at second: a parent that dies in between is noticed by one or by the other.
    if os.getppid() != parent:
        sys.exit(1)
