"""An error as a block of text: message, the user's frames with their code, locals, notes, hint."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.text import Text

from kairos.cli.terminal import one_line, print_line, print_wrapped, safe
from kairos.domain.error_info import ErrorInfo, Frame

MAX_FRAMES = 8


def print_failure(console: Console, step: str, tries: str, error: ErrorInfo) -> None:
    """Print the block. The failing frame stands last, as in a Python traceback."""
    head = Text.assemble(("✗ " if not console.options.ascii_only else "", "red"), (one_line(step), "bold"), f" {tries}")
    console.print(head)
    print_wrapped(console, _message(error), indent=2, hanging=2)
    frames = error.frames
    if len(frames) > MAX_FRAMES:
        console.print(f"    ... {len(frames) - MAX_FRAMES} frames further out; --json shows all", style="dim")
    for frame in frames[-MAX_FRAMES:]:
        _print_frame(console, frame)
    if error.locals:
        width = min(max(len(name) for name in error.locals), 24)
        console.print("    where", style="dim")
        for name, value in error.locals.items():
            line = Text(f"      {one_line(name, 24).ljust(width)} = ", "dim").append(one_line(value, 400), "not dim")
            print_line(console, line)
    for note in error.notes:
        print_wrapped(console, Text(f"note: {one_line(note, 500)}"), indent=4, hanging=6)
    if error.hint:
        print_wrapped(console, Text.assemble(("hint: ", "cyan"), one_line(error.hint, 500)), indent=4, hanging=6)


def _message(error: ErrorInfo) -> Text:
    name = error.type.removeprefix("builtins.")
    text = Text().append(safe(name), "red")
    if error.message:
        body = safe(error.message.strip()).split("\n")
        text.append(": " + "\n".join(body[:20]))
        if len(body) > 20:
            text.append(f"\n... {len(body) - 20} more lines")
    return text


def _print_frame(console: Console, frame: Frame) -> None:
    where = Text(f"    {short_path(frame.file)}:{frame.line}", "cyan").append(
        f" in {one_line(frame.function)}", "default"
    )
    console.print(where, soft_wrap=True)
    if frame.code:
        print_line(console, Text(f"      {one_line(frame.code.strip())}"))


def short_path(file: str) -> str:
    """Relative to here if it is below, else as it is."""
    path = safe(file)
    here = str(Path.cwd()) + os.sep
    return path.removeprefix(here)
