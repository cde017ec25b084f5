"""Starts the child of a replay, and talks with it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from kairos.errors import ReplayError
from kairos.replay.messages import Answer, Request, line_of, read_answer

_LOOK: Final = 0.25
"""Seconds between two looks whether a silent child still lives."""
PATIENCE: Final = 3
"""The Ctrl-C, of those during one step, with which a child that does not react is killed."""


DISTURBED: Final = "it wrote into the descriptors of the replay itself, and was ended"
"""How a child died whose line to the replay carries what nobody can read."""


class Died(Struct, frozen=True):
    """The child ended without a word. `how`: `signal SIGSEGV`, `exit code 7`."""

    how: str


class Waiting(Struct, frozen=True):
    """The child has said nothing for a while; it lives. `seconds` since it last did."""

    seconds: float


class ChildProcess:
    """One child. Not for concurrent use.

    Args:
        environ: all of its environment.
        stdout: where what the user's code prints goes; None for standard output. `stderr` likewise.
        stdin: what it reads; None for standard input.
        folder: where it starts; None for the folder of this process.
        shielded: Ctrl-C is not its business; this process gets a KeyboardInterrupt, as ever.

    Until it is `ready`, Ctrl-C raises KeyboardInterrupt in this process, and the child is deaf to it.
    """

    def __init__(
        self, environ: Mapping[str, str], *, stdout: int | None = None, stderr: int | None = None,
        stdin: int | None = None, folder: str | None = None, shielded: bool = False, options: Sequence[str] = (),
        patience: int | None = PATIENCE,
    ) -> None:  # fmt: skip
        ask_read, self._ask = os.pipe()
        self._hear, say_write = os.pipe()
        command = [sys.executable, *options, "-m", "kairos.replay.child", str(ask_read), str(say_write)]
        self._is_ready = False
        # Blocked signals stay blocked over an exec: the child lets them in once it can take them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._popen = subprocess.Popen(
                [*command, str(os.getpid())],
                env=dict(environ),
                pass_fds=(ask_read, say_write),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=folder,
                start_new_session=shielded,
            )
        finally:
            os.close(ask_read)
            os.close(say_write)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._lines: deque[bytes] = deque()
        self._begun: list[bytes] = []
        self._interrupts = 0
        self._patience = patience
        self._hears_interrupts = _is_main() and not shielded
        self._before = signal.signal(signal.SIGINT, self._on_interrupt) if self._hears_interrupts else None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def ready(self) -> None:
        """It is going to replay: from now on Ctrl-C is for the step that runs."""
        self._is_ready = True

    def ask(self, request: Request) -> None:
        """Send a request. A child that is gone does not hear it: `answers` tells."""
        line = memoryview(line_of(request))
        with contextlib.suppress(BrokenPipeError):
            while line:
                line = line[os.write(self._ask, line) :]

    def answers(self) -> Iterator[Answer | Died | Waiting]:
        """What it says, as it says it; ends after `Died`."""
        silent = 0.0
        while True:
            line = self._line()
            if line:
                silent = 0.0
                self._interrupts = 0
                answer = _understood(line)
                if answer is None:
                    # Nothing that comes after it can be trusted to be whole either.
                    self._popen.kill()
                    self._popen.wait()
                    yield Died(DISTURBED)
                    return
                yield answer
            elif line is None:
                silent += _LOOK
                yield Waiting(silent)
            else:
                yield Died(self._how())
                return

    def close(self, *, at_once: bool = False) -> None:
        """Have it end, and wait for that."""
        os.close(self._ask)
        if at_once:
            self._popen.kill()
        try:
            self._popen.wait(2.0)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        os.close(self._hear)
        if self._hears_interrupts:
            signal.signal(signal.SIGINT, self._before)

    def _line(self) -> bytes | None:
        """The next line; empty if there will be none, None if there is none yet."""
        while not self._lines:
            if not select.select([self._hear], [], [], _LOOK)[0]:
                if self._popen.poll() is None:
                    return None
                if not select.select([self._hear], [], [], 0)[0]:
                    return b""
            more = os.read(self._hear, 1 << 20)
            if not more:
                return b""
            *whole, rest = more.split(b"\n")
            if whole:
                self._lines.append(b"".join((*self._begun, whole[0])))
                self._lines.extend(whole[1:])
                self._begun.clear()
            self._begun.append(rest)
        return self._lines.popleft() or b"\n"  # a line of nothing is not the end

    def _how(self) -> str:
        try:
            code = self._popen.wait(2.0)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            return "it closed its line to the replay"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _on_interrupt(self, number: int, frame: object) -> None:
        if not self._is_ready:
            raise KeyboardInterrupt
        # The terminal has told the child too: it ends the step, and this process goes on.
        self._interrupts += 1
        if self._patience is not None and self._interrupts >= self._patience:
            self._popen.kill()


def _understood(line: bytes) -> Answer | None:
    try:
        return read_answer(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def check_alive(answer: Answer | Died | Waiting) -> None:
    """Raise ReplayError if the child ended where it should have answered."""
    if isinstance(answer, Died):
        raise ReplayError(
            f"the process that runs your code ended before it was ready: {answer.how}",
            hint="Import the app by hand, as `python -c 'import MODULE'`, to see what ends the process.",
        )
