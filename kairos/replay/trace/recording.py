"""The recorder as others use it: a context manager around the call of a step, and a file afterwards."""

from __future__ import annotations

import inspect
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter_ns
from types import CodeType, TracebackType

from kairos.authoring.redaction import Redactor
from kairos.errors import TraceError
from kairos.replay.trace.backends import choose
from kairos.replay.trace.blanking import Blanking
from kairos.replay.trace.capture import Limits, Snapshots
from kairos.replay.trace.layout import About, Elided, Function, Header
from kairos.replay.trace.recorder import Tape
from kairos.replay.trace.scope import Scope
from kairos.replay.trace.writing import write


@dataclass(frozen=True)
class Summary:
    """What a recording came to.

    Attributes:
        events: how many were recorded.
        overhead: how much longer the code took for being recorded, in words; see `Header.slower`.
        size: bytes of the file.
        is_full: the limit of events was reached; later lines are missing.
        elided: lines that ran more often than they were recorded.
        trouble: why recording ended early, if it did.
    """

    events: int
    overhead: str
    size: int
    is_full: bool
    elided: int
    trouble: str | None

    def __str__(self) -> str:
        notes = f"recorded {self.events:,} events, {self.overhead}"
        if self.elided:
            notes += f"; {self.elided} line{'s' * (self.elided > 1)} ran on unrecorded"
        if self.is_full:
            notes += "; the limit of events was reached"
        return notes + (f"; recording ended early: {self.trouble}" if self.trouble else "")


class Recorder:
    """Records the user's code that runs in its block, in all threads. Once.

    Args:
        into: packages that are recorded beside the user's own files.
        redactor: the rules of the attempt; by default the built-in ones. Read once more when the trace is saved.
        limits: how much is kept.

    Raises:
        InvalidArgument: a package of `into` cannot be found.
    """

    def __init__(
        self, *, into: Sequence[str] = (), redactor: Redactor | None = None, limits: Limits | None = None
    ) -> None:
        self._limits = limits or Limits()
        self._redactor = redactor or Redactor()
        scope = Scope(into)
        self._snapshots = Snapshots(scope, self._redactor, self._limits)
        self._tape = Tape(self._snapshots, self._limits)
        self._backend = choose(self._tape, scope)
        self._wall_ns = 0

    def __enter__(self) -> Recorder:
        self._begun = perf_counter_ns()
        self._backend.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._wall_ns = perf_counter_ns() - self._begun
        self._backend.stop()

    def __len__(self) -> int:
        return len(self._tape.events)

    @property
    def least_slower(self) -> float:
        """How many times longer the code took at least for being recorded, by the recorder's own clock."""
        return self._wall_ns / max(self._wall_ns - self._tape.own_ns, 1)

    def save(self, path: Path, about: About, *, plain_ns: int | None = None) -> Summary:
        """Write the trace.

        Args:
            plain_ns: what the same call takes without the recorder, if that was measured.

        Raises:
            TraceError: nothing was recorded.
        """
        tape = self._tape
        if not tape.events.entries:
            raise TraceError(
                "nothing was recorded: no line of the user's own files ran",
                hint="Code of installed packages is recorded with --trace-into PACKAGE.",
            )
        header = self._header(about, plain_ns)
        blank = Blanking(self._redactor, self._limits)
        values = [blank(raw) for raw in self._snapshots.values]
        size = write(path, header, tape.events, tape.function_of, values)
        is_full = tape.is_full or self._snapshots.is_full
        return Summary(len(tape.events), header.overhead, size, is_full, len(header.elided), tape.trouble)

    def _header(self, about: About, plain_ns: int | None) -> Header:
        tape = self._tape
        files = list(dict.fromkeys(code.co_filename for code in tape.functions))
        return Header(
            about=about,
            python=platform.python_version(),
            backend="sys.monitoring" if sys.version_info >= (3, 12) else "sys.settrace",
            recorded_at=datetime.now(UTC).isoformat(timespec="seconds"),
            wall_ns=self._wall_ns,
            plain_ns=plain_ns,
            own_ns=min(tape.own_ns, self._wall_ns),
            files=files,
            functions=[self._function(code, files.index(code.co_filename)) for code in tape.functions],
            names=tape.names,
            threads=tape.threads,
            elided=[Elided(tape.number_of(code), line, hits) for (code, line), hits in tape.elided.items()],
            is_full=tape.is_full or self._snapshots.is_full,
            trouble=tape.trouble,
        )

    def _function(self, code: CodeType, file: int) -> Function:
        try:
            lines, first = inspect.getsourcelines(code)
        except (OSError, SyntaxError, IndexError, TypeError):
            lines, first = [], code.co_firstlineno
        # A module's own code has no line of its own: it begins at the first.
        # Code is no data; but a secret that was revealed may have been written into it.
        return Function(code.co_qualname, file, max(first, 1), str(self._redactor.json("".join(lines))))
