"""Keeps what the child prints and what the parent prints about it in order, at no cost for steps that print nothing."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from typing import Any

from kairos.replay.channel import Channel


class Turns:
    """Counts what was told to the parent, and what of that it has printed."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._behind = 0
        self._lock = threading.Lock()

    def told(self) -> None:
        """Something was sent that the parent prints, and answers with `Go`."""
        self._behind += 1

    def catch_up(self) -> None:
        """Wait until the parent has printed all that it was told."""
        if not self._behind:
            return
        with self._lock:
            while self._behind:
                self._behind = self._behind - 1 if self._channel.receive() is not None else 0


class _InTurn(io.TextIOWrapper):
    """Standard output, or standard error, of user code."""

    turns: Turns

    def write(self, text: str) -> int:
        """Write when it is this process's turn."""
        self.turns.catch_up()
        return super().write(text)


def speak_in_turn(turns: Turns) -> None:
    """From now on what is printed here comes after what the parent was told before."""
    for name in ("stdout", "stderr"):
        old: Any = getattr(sys, name)
        with contextlib.suppress(Exception):  # one that is closed, or not there
            facts = old.encoding, old.errors, old.line_buffering, old.write_through
            encoding, errors, line_buffering, write_through = facts
            new = _InTurn(
                old.detach(), encoding, errors, line_buffering=line_buffering, write_through=write_through
            )  # fmt: skip
            new.turns = turns
            setattr(sys, name, new)
            setattr(sys, f"__{name}__", new)


def flush() -> None:
    """Print what a step has printed so far; a stream that it closed is let be."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
