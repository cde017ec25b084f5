"""Differences of two values on the terminal: one line per path, long values cut around the place where they differ."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.text import Text

from kairos.cli import words
from kairos.cli.terminal import columns, one_line, to_json
from kairos.replay.compare import MISSING, Difference, Differences

MAX_LISTED: Final = 20
MAX_VALUE: Final = 60
"""Characters of a value on one line; of a longer one, those around the first that differs."""
_HUGE: Final = 100_000
_MARKS: Final = {"changed": ("~", "yellow"), "added": ("+", "green"), "removed": ("-", "red"), "type": ("≠", "magenta")}


def print_differences(console: Console, differences: Differences, *, indent: int = 0, limit: int = MAX_LISTED) -> None:
    """One line each: `~ items[3].price  120 → 130`. What is beyond `limit` is counted."""
    width = columns(console)
    most = MAX_VALUE if width is None else max((width - indent - 30) // 2, 20)
    for item in differences[:limit]:
        console.print(Text(" " * indent).append_text(difference_line(item, most)), soft_wrap=True)
    hidden = differences.total - min(limit, len(differences))
    if hidden > 0:
        console.print(" " * indent + f"and {words.plural(hidden, 'more difference')}; --json lists them", style="dim")


def difference_line(item: Difference, most: int = MAX_VALUE) -> Text:
    """One difference on one line; values of at most so many characters."""
    mark, style = _MARKS[item.kind]
    line = Text.assemble(
        (mark if words.has_shapes() else item.kind, style), " ", (one_line(item.path or "(all)", 120), "bold")
    )
    old, new = _excerpts(item.old, item.new, most)
    line.append("  ")
    if item.old is not MISSING:
        line.append(old, "red" if item.kind != "removed" else "red strike")
    if item.old is not MISSING and item.new is not MISSING:
        line.append(" → " if words.has_shapes() else " -> ", "dim")
    if item.new is not MISSING:
        line.append(new, "green")
    if item.kind == "type":
        line.append(f"  ({_type(item.old)}, now {_type(item.new)})", "dim")
    return line


def differences_json(differences: Differences) -> dict[str, Any]:
    """As plain JSON: total, bytes, and each difference with path, kind, old and new."""
    return differences.to_json()


def _excerpts(old: Any, new: Any, most: int) -> tuple[str, str]:
    first, second = _text(old), _text(new)
    place = 0
    if len(first) > most and len(second) > most:
        place = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0)
    return _cut(first, place, most), _cut(second, place, most)


def _text(value: Any) -> str:
    if isinstance(value, str) and len(value) > _HUGE:
        return f'"{value}"'  # the escapes of a text that is never shown whole
    return "" if value is MISSING else to_json(value, indent=None)


def _cut(text: str, place: int, most: int) -> str:
    if len(text) <= most:
        return one_line(text, most)
    begin = max(min(place - most // 3, len(text) - most), 0)
    shown = text[begin : begin + most]
    size = f" ({words.size(len(text))})"
    return f"{'…' if begin else ''}{one_line(shown, most)}{'…' if begin + most < len(text) else ''}{size}"


def _type(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
