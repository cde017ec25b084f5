"""What the prompts of one replay share, whatever thread they stand in: the current step, one prompt at a time, quit."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from kairos.replay.stopping.facts import Facts


class DebuggerQuit(SystemExit):
    """Whoever sits at the debugger has ended the replay.

    A SystemExit: a step's `except Exception` does not swallow it, and asyncio lets it through in silence.
    """

    ends_replay = True


@dataclass(eq=False)
class Session:
    """One replay under a debugger.

    Attributes:
        make_facts: what is known of the step that runs now; None between steps.
        greeted: the step has had its banner.
        prompting: ident of the thread that stands at the prompt; `last_thread`: name of the one that did last.
        quit: asked for; nothing runs any more after it.
        alone: the input has ended, and it was no terminal: nobody can answer, so nothing stops any more.
    """

    out: IO[str]
    make_facts: Callable[[], Facts] | None = None
    greeted: bool = False
    prompting: int | None = None
    last_thread: str = "MainThread"
    quit: bool = False
    alone: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def facts(self) -> Facts | None:
        """The step that runs now; None between steps."""
        return None if self.make_facts is None else self.make_facts()

    def say(self, text: str) -> None:
        """One line to the terminal."""
        self.out.write(printable(text, self.out) + "\n")
        self.out.flush()


def printable(text: str, out: IO[str] | None = None) -> str:
    """Without anything that a terminal would obey or cannot show."""
    clean = "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
    encoding = getattr(out or sys.stdout, "encoding", None) or "utf-8"
    return clean.encode(encoding, "backslashreplace").decode(encoding)
