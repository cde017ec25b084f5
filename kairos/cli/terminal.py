"""What goes to standard output and standard error, and how user data is kept from harming a terminal.

Everything that users decide (names, payloads, error texts, labels) passes through `safe`: control characters
become escapes. Consoles are opened without markup, so `[bold]` in a payload is five characters and no style.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_COLUMNS: Final = "COLUMNS"
PIPED_WIDTH: Final = 120
"""Columns when the output is not a terminal and COLUMNS is not set."""

# C0 without newline and tab, DEL, C1, and what reorders text or breaks lines behind the reader's back.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_UNSAFE_JSON: Final = re.compile(
    "[\x7f-\x9f\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def safe(text: object) -> str:
    """Text that may be printed: `\\x1b` and its like are shown, not obeyed. Newlines and tabs stay."""
    return _UNSAFE.sub(lambda m: m[0].encode("unicode_escape", "backslashreplace").decode(), str(text))


def one_line(text: object, limit: int = 200) -> str:
    """As `safe`, on one line of at most `limit` characters."""
    line = safe(text).replace("\t", " ").replace("\n", " \u23ce ")
    return line if len(line) <= limit else line[: limit - 1] + "\u2026"


def out() -> Console:
    """The console of standard output."""
    return _console(sys.stdout)


def err() -> Console:
    """The console of standard error."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    width = None if stream.isatty() or _COLUMNS in os.environ else PIPED_WIDTH
    return Quiet(file=stream, markup=False, highlight=False, emoji=False, width=width)


def columns(console: Console) -> int | None:
    """Where lines end: at the width of a terminal, or at COLUMNS; None elsewhere, where lines stay whole for grep."""
    return console.width if console.is_terminal or _COLUMNS in os.environ else None


def is_live() -> bool:
    """Whether standard output is a terminal that can be redrawn in place."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def print_json(document: object, *, lines: bool = False) -> None:
    """Write one JSON document; with `lines`, on one line and at once (for streams)."""
    sys.stdout.write(to_json(document, indent=None if lines else 2) + "\n")
    if lines:
        sys.stdout.flush()


def to_json(document: object, *, indent: int | None = 2) -> str:
    """JSON that keeps its letters but escapes what a terminal would obey."""
    text = json.dumps(document, indent=indent, ensure_ascii=False, default=_plain)
    return _UNSAFE_JSON.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)


def print_line(console: Console, line: Text) -> None:
    """One line: cut with an ellipsis where lines end, left whole elsewhere."""
    if columns(console) is not None:
        console.print(line, no_wrap=True, overflow="ellipsis")
    else:
        console.print(line, soft_wrap=True)


def print_wrapped(console: Console, text: Text, *, indent: int = 0, hanging: int = 0) -> None:
    """A text that is to be read whole: broken between words where lines end, left as it is elsewhere.

    Args:
        indent: spaces before each line.
        hanging: further ones, before all but the first.
    """
    from rich.text import Text

    width = columns(console)
    for paragraph in text.split(allow_blank=True):
        breaks = [] if width is None else _breaks(paragraph.plain, max(width - indent - hanging, 20))
        for line in paragraph.divide(breaks):
            line.rstrip()
            console.print(Text(" " * indent).append_text(line), soft_wrap=True)
            indent, hanging = indent + hanging, 0


def _breaks(text: str, width: int) -> list[int]:
    """Where lines begin. A word longer than a line (an id, a path) is left whole: half of one is of no use."""
    from rich.cells import cell_len

    breaks, filled = [], 0
    for word in re.finditer(r"\s*\S+\s*", text):
        if filled and filled + cell_len(word[0].rstrip()) > width:
            breaks.append(word.start())
            filled = 0
        filled += cell_len(word[0])
    return breaks


def note(text: str) -> None:
    """A remark on standard error, dim on a terminal."""
    err().print(safe(text), style="dim", soft_wrap=True)


def print_error(message: str, hint: str | None, *, as_json: bool, kind: str = "Error", **facts: object) -> None:
    """Say what went wrong and what to do: on standard error, or as a JSON document on standard output."""
    if as_json:
        error = {"type": kind, "message": message, "hint": hint, **{k: v for k, v in facts.items() if v is not None}}
        print_json({"error": error})
        return
    from rich.text import Text

    console = err()
    print_wrapped(console, Text.assemble(("error: ", "bold red"), safe(message)))
    if hint:
        print_wrapped(console, Text.assemble(("hint: ", "bold cyan"), safe(hint)))
