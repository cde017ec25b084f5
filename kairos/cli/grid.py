"""Aligned columns of text. The last column takes what is left of the line and is cut there on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from kairos.cli import terminal

GAP: Final = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        title: its heading, dim; may be empty.
        is_right: numbers and lengths of time stand on the right.
        most: longer cells are cut, with an ellipsis.
        least: width that it has even when its cells are shorter.
    """

    title: str | Text
    is_right: bool = False
    most: int | None = None
    least: int = 0


def grid(
    columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int | None, *, has_head: bool = True
) -> list[Text]:
    """The lines. `width`: of the terminal; None never cuts the last column."""
    heads = [c.title.copy() if isinstance(c.title, Text) else Text(c.title) for c in columns]
    for head in heads:
        head.stylize("dim")
    every = [heads, *rows] if has_head else list(rows)
    widths = [_width(column, [row[i] for row in every]) for i, column in enumerate(columns)]
    return [_line(row, columns, widths, width) for row in every]


def _width(column: Column, cells: Sequence[Text]) -> int:
    widest = max((cell_len(cell.plain) for cell in cells), default=0)
    return max(min(widest, column.most or widest), column.least)


def _line(row: Sequence[Text], columns: Sequence[Column], widths: Sequence[int], width: int | None) -> Text:
    line = Text()
    for i, (cell, column) in enumerate(zip(row, columns, strict=True)):
        is_last = i == len(columns) - 1
        text = cell.copy()
        if is_last:
            room = None if width is None else max(width - line.cell_len, 1)
            if room is not None and text.cell_len > room:
                text.truncate(room, overflow="ellipsis")
            if column.is_right:
                line.append(" " * max(widths[i] - text.cell_len, 0))
            line.append_text(text)
        else:
            if text.cell_len > widths[i]:
                text.truncate(widths[i], overflow="ellipsis")
            pad = " " * (widths[i] - text.cell_len)
            line.append(pad if column.is_right else "").append_text(text)
            line.append("" if column.is_right else pad).append(" " * GAP)
    line.rstrip()
    return line


def print_grid(
    console: Console, columns: Sequence[Column], rows: Sequence[Sequence[Text]], *, has_head: bool = True
) -> None:
    """Print the lines; the last column is cut where lines end and left whole elsewhere."""
    for line in grid(columns, rows, terminal.columns(console), has_head=has_head):
        console.print(line, soft_wrap=True)
