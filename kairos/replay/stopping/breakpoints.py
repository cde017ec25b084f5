"""What the command line asks for: where to stop, on what condition, in which debugger. Plain data, checked at once."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from kairos.domain.names import nearest
from kairos.errors import BreakpointError

Debugger = Literal["pdb", "debugpy"]
DEBUGGERS: Final = ("pdb", "debugpy")
BREAK_ON: Final = ("fail", "diverge")
DEFAULT_LISTEN: Final = ("127.0.0.1", 5678)
"""debugpy's own default, which the editors propose too."""
DEBUGPY_FLAGS: Final = ("-X", "frozen_modules=off")
"""For the interpreter of the process to be debugged: with frozen modules debugpy misses breakpoints, and warns."""
_PLACE = re.compile(r"(?P<step>[^:]*)(?::(?P<sign>\+?)(?P<line>[0-9]{1,9}))?", re.ASCII)


class Breakpoint(Struct, frozen=True):
    """Stop in `step`: on its first line, or on `line` of the file.

    `relative`: the line is counted from the `def` line instead. `condition`: stop only where this expression is true.
    """

    step: str
    line: int | None = None
    relative: bool = False
    condition: str | None = None

    def __str__(self) -> str:
        place = "" if self.line is None else f":{'+' if self.relative else ''}{self.line}"
        return f"{self.step}{place}" + (f" if {self.condition}" if self.condition else "")


class StopOptions(Struct, frozen=True, kw_only=True):
    """Everything about stopping. Without any of it a replay runs through.

    Attributes:
        break_on: of `fail` (a step raised) and `diverge` (its output or effects are not the recorded ones).
        post_mortem: the failing step is run to its exception, and looked at there.
        listen: where debugpy waits: a loopback host, and a port (0: any free one).
        ignore: rules for differences that do not count, beside those of the workflow.
    """

    breakpoints: tuple[Breakpoint, ...] = ()
    break_on: frozenset[Literal["fail", "diverge"]] = frozenset()
    post_mortem: bool = False
    debugger: Debugger = "pdb"
    listen: tuple[str, int] = DEFAULT_LISTEN
    ignore: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.breakpoints or self.break_on or self.post_mortem or self.debugger != "pdb")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StopOptions:
        """The inverse of `to_json`."""
        return msgspec.convert(data, cls)


def stop_options(
    break_at: Sequence[str] = (),
    conditions: Sequence[str] = (),
    break_on: Sequence[str] = (),
    *,
    post_mortem: bool = False,
    debugger: str = "pdb",
    listen: str | None = None,
    ignore: Sequence[str] = (),
) -> StopOptions:
    """The options as typed: `--break-at`, `--if`, `--break-on`, `--post-mortem`, `--debugger`, `--listen`.

    One condition holds for every breakpoint; several belong to the breakpoints in their order.

    Raises:
        BreakpointError: one of them means nothing.
    """
    if debugger not in DEBUGGERS:
        raise BreakpointError(f"--debugger {debugger!r} is not known", hint=nearest(debugger, DEBUGGERS))
    if listen is not None and debugger != "debugpy":
        raise BreakpointError("--listen is where debugpy waits", hint="Add --debugger debugpy.")
    for word in break_on:
        if word not in BREAK_ON:
            raise BreakpointError(f"--break-on {word!r} is not known", hint=nearest(word, BREAK_ON))
    return StopOptions(
        breakpoints=_paired(break_at, conditions),
        break_on=frozenset(break_on),  # type: ignore[arg-type]
        post_mortem=post_mortem,
        debugger=debugger,  # type: ignore[arg-type]
        listen=DEFAULT_LISTEN if listen is None else parse_listen(listen),
        ignore=tuple(ignore),
    )


def parse_breakpoint(text: str, condition: str | None = None) -> Breakpoint:
    """`STEP`, `STEP:LINE` (a line of the file) or `STEP:+N` (N lines below the `def` line).

    Raises:
        BreakpointError: it is none of these, or `condition` is not an expression.
    """
    match = _PLACE.fullmatch(text)
    if not match or not match["step"]:
        raise BreakpointError(
            f"--break-at {text!r} is not a place to stop at",
            hint="Write STEP, STEP:LINE (a line of the file), or STEP:+N (N lines below its def).",
        )
    if condition is not None:
        check_condition(condition)
    line = None if match["line"] is None else int(match["line"])
    return Breakpoint(match["step"], line, bool(match["sign"]), condition)


def check_condition(text: str) -> None:
    """Whether `text` is one Python expression.

    Raises:
        BreakpointError: it is not.
    """
    try:
        compile(text.strip(), "<--if>", "eval", dont_inherit=True)
    except SyntaxError as exc:
        where = f" (column {exc.offset})" if exc.offset else ""
        raise BreakpointError(
            f"--if {text!r} is not an expression: {exc.msg}{where}",
            hint="Write one Python expression over the names that the step sees, such as: cents > 1000",
        ) from None
    except (ValueError, OverflowError, MemoryError, RecursionError) as exc:
        raise BreakpointError(f"--if {text[:80]!r} cannot be compiled: {exc}") from None


def check_steps(breakpoints: Iterable[Breakpoint], steps: Iterable[str]) -> None:
    """Whether each breakpoint names one of `steps`.

    Raises:
        BreakpointError: one does not; the hint names the nearest step.
    """
    known = list(steps)
    for breakpoint in breakpoints:
        if breakpoint.step not in known:
            raise BreakpointError(
                f"--break-at {breakpoint}: there is no step {breakpoint.step!r}", hint=nearest(breakpoint.step, known)
            )


def parse_listen(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `:PORT` or `PORT`, on this machine only.

    Raises:
        BreakpointError: it is not that, or others could reach it.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or DEFAULT_LISTEN[0]
    if not re.fullmatch("[0-9]{1,5}", port, re.ASCII) or int(port) > 65_535:
        raise BreakpointError(
            f"--listen {text!r} is not HOST:PORT", hint="For example 127.0.0.1:5678, or 127.0.0.1:0 for any free port."
        )
    if not _is_loopback(host):
        raise BreakpointError(
            f"--listen {text!r}: whoever reaches a debugger can run any code, so it listens on this machine only",
            hint=f"Use 127.0.0.1:{port}; from elsewhere, forward the port: ssh -L {port}:127.0.0.1:{port} HOST",
        )
    return host, int(port)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _paired(break_at: Sequence[str], conditions: Sequence[str]) -> tuple[Breakpoint, ...]:
    if len(conditions) not in (0, 1, len(break_at)) or (conditions and not break_at):
        raise BreakpointError(
            f"{len(conditions)} --if for {len(break_at)} --break-at",
            hint="Give one --if for all breakpoints, or one for each, in the same order.",
        )
    if not conditions:
        return tuple(parse_breakpoint(text) for text in break_at)
    given = conditions if len(conditions) == len(break_at) else [*conditions] * len(break_at)
    return tuple(parse_breakpoint(text, condition) for text, condition in zip(break_at, given, strict=True))
