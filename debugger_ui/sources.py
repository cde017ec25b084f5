"""Source code in coloured pieces, never as ready HTML; and where in it an error came from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kairos.domain.error_info import ErrorInfo, Frame

Pieces = list[tuple[str, str]]
"""(class, text) of one line."""

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
_DEF: Final = re.compile(r"^\s*(?:async\s+)?def\s+(\w+)", re.M)
_LIBRARY: Final = ("/site-packages/", "/dist-packages/", "/lib/python")


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its number, and (class, text) pieces. `is_crash`: the error rose here, or passed through."""

    number: int
    pieces: Pieces
    is_crash: bool = False


@dataclass(frozen=True, slots=True)
class Crash:
    """Where an error meets a source.

    Attributes:
        lines: numbers within the source, from 1; several if the same text stands on several lines.
        frame: the frame of the traceback that is there.
        inner: the frames below it, outermost first: what the line had called.
        first: the number that the source's first line has in its file; None if that is not sure.
    """

    lines: tuple[int, ...]
    frame: Frame
    inner: tuple[Frame, ...]
    first: int | None

    @property
    def is_sure(self) -> bool:
        """Whether it is this very line."""
        return len(self.lines) == 1


def paint(source: str) -> list[Pieces]:
    """The lines of a source in coloured pieces."""
    from pygments.lexers.python import PythonLexer

    rows: list[Pieces] = [[]]
    for token, piece in PythonLexer(stripnl=False, ensurenl=False).get_tokens(source[:MAX_SOURCE]):
        kind = next((css for prefix, css in _CLASSES if str(token).startswith(prefix)), "")
        for index, part in enumerate(piece.split("\n")):
            if index:
                rows.append([])
            if part:
                rows[-1].append((kind, part))
    while rows and not rows[-1]:
        rows.pop()
    return rows


def lines_of(source: str, crash: Crash | None = None) -> list[Line]:
    """The lines of a step's source, numbered as in their file where that is known; the crash is marked."""
    first = crash.first if crash is not None and crash.first is not None else 1
    marked = crash.lines if crash is not None else ()
    return [Line(first + i, pieces, i + 1 in marked) for i, pieces in enumerate(paint(source))]


def find_crash(source: str, error: ErrorInfo | None) -> Crash | None:
    """The innermost frame of an error that stands in this source, and on which line.

    By function and text: where in its file the source begins was not recorded. The same text on several lines is
    told apart by the other frames, if they can do that.
    """
    if error is None or not source:
        return None
    source = source[:MAX_SOURCE]
    names = {*_DEF.findall(source), "<lambda>", "<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"}
    lines = [line.strip() for line in source.splitlines()]
    spots = [(at, frame, _places(lines, frame)) for at, frame in enumerate(error.frames) if _name(frame) in names]
    found = [(at, frame, places) for at, frame, places in spots if places]
    if not found:
        return None
    at, frame, places = found[-1]
    firsts = {f.line - there[0] + 1 for _, f, there in found if len(there) == 1 and f.file == frame.file}
    if len(places) > 1 and len(firsts) == 1:
        (first,) = firsts
        places = tuple(place for place in places if first + place - 1 == frame.line) or places
    first_line = frame.line - places[0] + 1 if len(places) == 1 and frame.line >= places[0] else None
    return Crash(places, frame, error.frames[at + 1 :], first_line)


def raised_in(frames: Iterable[Frame]) -> Frame | None:
    """The frame whose locals were kept: the innermost of the user's own code."""
    known = list(frames)
    own = [frame for frame in known if not any(part in frame.file for part in _LIBRARY)]
    return own[-1] if own else known[-1] if known else None


def _places(lines: list[str], frame: Frame) -> tuple[int, ...]:
    code = frame.code.strip()
    return tuple(number for number, line in enumerate(lines, 1) if code and line == code)


def _name(frame: Frame) -> str:
    return frame.function.rpartition(".")[2]
