"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it has opened is closed, what it has written is removed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Terminated(SystemExit):
    """The process was told to end. Its code is that of a process that the signal has killed, as shells have it."""


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """Within it, both signals raise `Terminated` on the main thread, unless they are ignored (`nohup`)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]

    def end(number: int, frame: FrameType | None) -> None:
        for each in numbers:  # once is enough: nothing must stop what is removed now
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(128 + number)

    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
