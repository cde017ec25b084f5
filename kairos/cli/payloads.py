"""Values of runs as text: a preview on one line, or in full, indented and bounded."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.text import Text

from kairos.cli import words
from kairos.cli.terminal import one_line, safe, to_json
from kairos.domain import canonical
from kairos.domain.payload import Payload

PREVIEW: Final = 100
MAX_LINES: Final = 40


def preview(payload: Payload, limit: int = PREVIEW) -> str:
    """The beginning of a value, or its size if its bytes are not at hand."""
    raw = payload.data or payload.inline
    if raw is None:
        return f"({words.size(payload.size)})"
    text = raw[: limit * 6].decode("utf-8", "replace")
    return one_line(text, limit)


def print_value(console: Console, value: Any, *, indent: int = 2, max_lines: int | None = MAX_LINES) -> None:
    """Print a value as indented JSON; text alone as it is. `max_lines=None`: however long."""
    text = safe(value) if isinstance(value, str) else to_json(value)
    lines = text.split("\n")
    for line in lines[:max_lines]:
        console.print(Text(" " * indent + line), soft_wrap=True)
    if max_lines is not None and len(lines) > max_lines:
        console.print(" " * indent + f"... {len(lines) - max_lines:,} more lines; --json shows all", style="dim")


def value_of(raw: bytes) -> Any:
    """Stored bytes as a plain value."""
    return canonical.decode(raw)
