"""`kairos trace`: steps through a recorded trace in the terminal, or serves it to an IDE."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kairos.cli import exits
from kairos.cli.repeating import command
from kairos.cli.terminal import err, out, print_json, safe
from kairos.cli.usage import UsageError
from kairos.domain.names import nearest
from kairos.errors import InvalidArgument, TraceError

if TYPE_CHECKING:
    from rich.console import Console

    from kairos.replay.trace.history import Trace
    from kairos.replay.trace.stepper import Line, Stepper

_STYLES: Final = {
    "": "", "dim": "dim", "here": "bold cyan", "name": "bold", "changed": "green", "bad": "red",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LookingBack:
    """What becomes of the step that a replay records.

    Attributes:
        step: the step.
        out: keep the trace there; a file that is there is replaced. None: it is gone afterwards.
        reverse: step through it; without `out` that is done in any case.
        port: serve it to an IDE instead.
    """

    step: str
    out: Path | None = None
    reverse: bool = False
    port: int | None = None
    color: bool = True

    def check(self, steps: Sequence[str]) -> None:
        """Raises InvalidArgument if there is no such step."""
        if self.step not in steps:
            raise InvalidArgument(f"there is no step {self.step!r} to trace", hint=nearest(self.step, steps))

    def keep(self, file: Path) -> Path:
        """Move the trace out of the folder of the replay. Raises TraceError if that cannot be."""
        if self.out is None:
            folder = Path(tempfile.mkdtemp(prefix="kairos-trace-"))
            return Path(shutil.move(file, folder / file.name))
        try:
            return Path(shutil.move(file, self.out))
        except OSError as exc:
            raise TraceError(f"the trace cannot be written to {self.out}: {exc.strerror}") from exc

    def look(self, trace: Path, say: Callable[[str], None]) -> None:
        """Step through it, serve it, or say how to."""
        if self.out is not None:
            say(f"trace: {trace} ({trace.stat().st_size:,} bytes); open it with: {command('trace', str(trace))}")
        try:
            if self.out is None or self.reverse or self.port is not None:
                open_trace(trace, port=self.port, color=self.color)
        finally:
            if self.out is None:
                shutil.rmtree(trace.parent, ignore_errors=True)


def looking_back(
    step: str | None, *, out: Path | None, into: Sequence[str], reverse: bool, port: int | None, as_json: bool
) -> LookingBack | None:
    """What `--trace` and its companions ask for. Raises UsageError if they do not go together, or mean nothing."""
    if step is None:
        if out or into or reverse or port is not None:
            raise UsageError("what is to be recorded?", hint="Name the step: --trace STEP.")
        return None
    if as_json and (out is None or reverse or port is not None):
        raise UsageError("--json prints one document", hint="Say where the trace goes: --trace-out FILE.")
    if out is not None and not out.absolute().parent.is_dir():
        raise UsageError(f"--trace-out {out}: it cannot be written, there is no such folder")
    if into:
        from kairos.replay.trace.scope import Scope

        try:
            Scope(into)
        except InvalidArgument as exc:
            raise UsageError(exc.message, hint=exc.hint) from None
    return LookingBack(step=step, out=out, reverse=reverse, port=port)


def open_trace(path: Path, *, port: int | None = None, color: bool = True, as_json: bool = False) -> int:
    """Walk over the trace in a file: at a prompt, or with `port` for a DAP client.

    Raises:
        TraceError: the file cannot be read.
    """
    from kairos.replay.trace.history import Trace

    trace = Trace.open(path)
    try:
        if as_json:
            print_json(describe(trace))
            return exits.OK
        return serve_trace(trace, port) if port is not None else step_through(trace, color=color)
    finally:
        trace.close()


def describe(trace: Trace) -> dict[str, object]:
    """The facts of a trace, for `--json`."""
    header, about = trace.header, trace.header.about
    return {
        "run": about.run,
        "workflow": about.workflow,
        "step": about.step,
        "attempt": about.attempt,
        "events": len(trace),
        "slower": round(header.slower, 2),
        "python": header.python,
        "recorded_at": header.recorded_at,
        "complete": not header.is_full and header.trouble is None,
        "files": header.files,
        "functions": [function.name for function in header.functions],
        "threads": header.threads,
        "failed_at": None if trace.failure is None else trace.failure + 1,
    }


def step_through(trace: Trace, *, color: bool = True) -> int:
    """The prompt: reads commands until `quit` or the end of the input."""
    from kairos.replay.trace.stepper import Stepper

    stepper, console = Stepper(trace), out()
    console.no_color = console.no_color or not color
    _print(console, stepper.begin())
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        _complete_with(stepper)
    while not stepper.is_over:
        try:
            text = _read(stepper.prompt, console, is_terminal)
            if text is None:
                break
            _print(console, stepper.answer(text))
        except KeyboardInterrupt:
            # Gives up the line or a long answer, not the session.
            if not is_terminal:
                raise
            console.print()
    return exits.OK


def serve_trace(trace: Trace, port: int) -> int:
    """Let one IDE after the other debug the trace, until interrupted."""
    from kairos.replay.trace.dap.server import Server

    with Server(trace, port) as server:
        err().print(f"DAP server on {server.address}; attach with this in launch.json:", soft_wrap=True)
        err().print(server.configuration, soft_wrap=True)
        err().print("Ctrl-C ends it", style="dim")
        server.serve()
    return exits.OK


def _read(prompt: str, console: Console, is_terminal: bool) -> str | None:
    """One line of input; None at its end."""
    if not is_terminal:
        line = sys.stdin.readline()
        if line:
            # What was typed cannot be seen in a transcript of piped commands otherwise.
            console.print(f"{prompt}{safe(line.rstrip())}", style="dim", soft_wrap=True)
        return line or None
    try:
        return input(prompt)
    except EOFError:
        console.print()
        return None


def _complete_with(stepper: Stepper) -> None:
    try:
        import readline
    except ImportError:
        return

    def complete(start: str, index: int) -> str | None:
        found = stepper.complete(start)
        return found[index] if index < len(found) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")


def _print(console: Console, lines: list[Line]) -> None:
    from rich.text import Text

    for line in lines:
        pieces = [(safe(text).replace("\n", " "), _STYLES[style]) for text, style in line]
        console.print(Text.assemble(*pieces), soft_wrap=True)
