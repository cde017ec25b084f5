"""What is kept of an exception: enough to understand a failure months later, bounded and redacted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_MESSAGE = 8_192
MAX_FRAMES = 50
MAX_LOCALS = 40
MAX_LOCAL = 1_024


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a traceback, outermost first."""

    file: str
    line: int
    function: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception as data.

    Attributes:
        type: qualified name, e.g. `builtins.ValueError`.
        message: at most `MAX_MESSAGE` characters.
        frames: the user's part of the traceback, at most `MAX_FRAMES`, outermost first.
        locals: name -> repr in the frame that raised, at most `MAX_LOCALS` of `MAX_LOCAL` characters.
        notes: `add_note` texts and one line for each `__cause__` / `__context__`.
        hint: what to do next, when Kairos knows.
    """

    type: str
    message: str
    frames: tuple[Frame, ...] = ()
    locals: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    hint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; empty parts left out."""
        data: dict[str, Any] = {"type": self.type, "message": self.message}
        if self.frames:
            data["frames"] = [[f.file, f.line, f.function, f.code] for f in self.frames]
        if self.locals:
            data["locals"] = dict(self.locals)
        if self.notes:
            data["notes"] = list(self.notes)
        if self.hint:
            data["hint"] = self.hint
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ErrorInfo:
        """The inverse of `to_json`."""
        return cls(
            type=data["type"],
            message=data["message"],
            frames=tuple(Frame(*row) for row in data.get("frames", ())),
            locals=data.get("locals", {}),
            notes=tuple(data.get("notes", ())),
            hint=data.get("hint"),
        )

    @property
    def summary(self) -> str:
        """`ValueError: bad amount`, on one line, at most 200 characters."""
        first = next(iter(self.message.strip().splitlines()), "")
        name = self.type.removeprefix("builtins.")
        return f"{name}: {first}"[:200] if first else name
