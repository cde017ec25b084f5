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
HUGE: Final = 200_000
"""Characters beyond which nobody reads the layout: it is left to the encoder, which is quicker."""


def preview(payload: Payload, limit: int = PREVIEW) -> str:
    """The beginning of a value, or its size if its bytes are not at hand."""
    raw = payload.data or payload.inline
    if raw is None:
        return f"({words.size(payload.size)})"
    text = raw[: limit * 6].decode("utf-8", "replace")
    return one_line(text, limit)


def print_value(console: Console, value: Any, *, indent: int = 2, max_lines: int | None = MAX_LINES) -> None:
    """Print a value as JSON, text alone as it is. `max_lines=None`: however long."""
    text = safe(value) if isinstance(value, str) else pretty(value, min(console.width, 110) - indent)
    lines = text.split("\n")
    for line in lines[:max_lines]:
        console.print(Text(" " * indent + line), soft_wrap=True)
    if max_lines is not None and len(lines) > max_lines:
        console.print(
            " " * indent + f"... {words.plural(len(lines) - max_lines, 'more line')}; --json shows all", style="dim"
        )


def pretty(value: Any, width: int, indent: int = 0) -> str:
    """JSON that breaks a line only where it would become too long: records stay on one line each."""
    flat = to_json(value, indent=None)
    if len(flat) > HUGE:
        return to_json(value)
    if len(flat) + indent <= width or not isinstance(value, dict | list) or not value:
        return flat
    inner = indent + 2
    if isinstance(value, dict):
        items = [f"{to_json(key, indent=None)}: {pretty(item, width, inner)}" for key, item in value.items()]
        opening, closing = "{", "}"
    else:
        items = [pretty(item, width, inner) for item in value]
        opening, closing = "[", "]"
    body = ",\n".join(" " * inner + item for item in items)
    return f"{opening}\n{body}\n{' ' * indent}{closing}"


def value_of(raw: bytes) -> Any:
    """Stored bytes as a plain value."""
    return canonical.decode(raw)
