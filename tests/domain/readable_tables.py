"""Reads the tables in which the rules are restated by hand: a heading line, then cells two spaces apart."""

from __future__ import annotations

import re


def rows(text: str) -> list[tuple[str, ...]]:
    """The rows of a table without its heading. A cell `-` stands for nothing."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    width = len(re.split(r"\s{2,}", lines[0]))
    table = [tuple(re.split(r"\s{2,}", line)) for line in lines[1:]]
    for row in table:
        assert len(row) == width, f"{row} has {len(row)} cells, the heading {width}"
    return table
