"""Source code as recorded with a run's version, in coloured pieces; never as ready HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kairos.domain.error_info import ErrorInfo

_CLASSES: Final = (
    ("Token.Comment", "comment"),
    ("Token.Literal.String", "string"),
    ("Token.Literal.Number", "number"),
    ("Token.Keyword", "keyword"),
    ("Token.Name.Function", "name"),
    ("Token.Name.Class", "name"),
    ("Token.Name.Decorator", "decorator"),
    ("Token.Name.Builtin", "builtin"),
)
MAX_SOURCE: Final = 200_000


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its number within the recorded source, and (class, text) pieces. `is_crash`: the error rose here."""

    number: int
    pieces: list[tuple[str, str]]
    is_crash: bool = False


def lines_of(source: str, error: ErrorInfo | None, function: str) -> list[Line]:
    """The lines of a step's source; the one that the error came from is marked."""
    from pygments.lexers.python import PythonLexer

    text = source[:MAX_SOURCE]
    crash = _crash_line(text, error, function)
    rows: list[list[tuple[str, str]]] = [[]]
    for token, piece in PythonLexer(stripnl=False, ensurenl=False).get_tokens(text):
        kind = next((css for prefix, css in _CLASSES if str(token).startswith(prefix)), "")
        for index, part in enumerate(piece.split("\n")):
            if index:
                rows.append([])
            if part:
                rows[-1].append((kind, part))
    while rows and not rows[-1]:
        rows.pop()
    return [Line(i, pieces, i == crash) for i, pieces in enumerate(rows, 1)]


def _crash_line(source: str, error: ErrorInfo | None, function: str) -> int | None:
    """The line of `source` that a frame of the traceback shows. By its text: where the file was, nobody knows here."""
    if error is None:
        return None
    lines = [line.strip() for line in source.splitlines()]
    for frame in reversed(error.frames):
        code = frame.code.strip()
        if frame.function.rpartition(".")[2] == function and code and lines.count(code) == 1:
            return lines.index(code) + 1
    return None
