"""The one word which a new supervisor says to the process that started it.

Owns: the format of that word, on both ends of the pipe.
Refuses: to be a channel for anything later; a supervisor has no other way of talking than its log.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from typing import Any

from kairos.errors import EmbeddedPostgresError


class Reporter:
    """The supervisor's end. Speaks once; later words are dropped."""

    def __init__(self, fd: int | None) -> None:
        """None when nobody listens."""
        self._fd = fd

    def ready(self) -> None:
        """The server accepts connections."""
        self._tell({"outcome": "ready"})

    def busy(self) -> None:
        """Another supervisor is there already."""
        self._tell({"outcome": "busy"})

    def failed(self, error: Exception) -> None:
        """The server cannot be started."""
        words: dict[str, object] = {"outcome": "failed", "message": f"the supervisor failed: {error!r}"}
        if isinstance(error, EmbeddedPostgresError):
            facts = {name: str(value) for name, value in error.facts.items()}
            words |= {"message": error.message, "hint": error.hint, "facts": facts}
        self._tell(words)

    def _tell(self, words: dict[str, object]) -> None:
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            os.write(self._fd, json.dumps(words).encode())
        os.close(self._fd)
        self._fd = None


def listen(fd: int, deadline: float) -> str | None:
    """How it went: `ready`, `busy`, or None when nothing was said until the deadline or the speaker's end.

    Raises the supervisor's error when it failed.
    """
    said = _read_all(fd, deadline)
    words: dict[str, Any] = json.loads(said) if said else {}
    if words.get("outcome") == "failed":
        raise EmbeddedPostgresError(words["message"], hint=words.get("hint"), **words.get("facts", {}))
    return words.get("outcome")


def _read_all(fd: int, deadline: float) -> bytes:
    said = b""
    while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not (part := os.read(fd, 65536)):
            break
        said += part
    return said
