"""Whether the input of a run is one that is looked for: `customer=42`, `order.lines[0].sku=A7`, or a text in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kairos.domain import canonical
from kairos.domain.editing import INPUT, Key, read_keys
from kairos.errors import InvalidArgument

MAX_TEXT = 400


@dataclass(frozen=True, slots=True)
class InputQuery:
    """What is looked for.

    Attributes:
        text: as it was written.
        keys: the way to the value that must be equal; None if `wanted` may stand anywhere, in any letter case.
    """

    text: str
    keys: tuple[Key, ...] | None
    wanted: str

    @property
    def means(self) -> str:
        """In words."""
        if self.keys is None:
            return f"whose input holds {self.wanted!r}"
        return f"whose input has {self.text.partition('=')[0]} = {self.wanted}"

    def takes(self, raw: bytes) -> bool:
        """Whether an input, as canonical JSON, is meant."""
        if self.keys is None:
            written = canonical.encode(self.wanted).decode()[1:-1].casefold()
            return written in raw.decode("utf-8", "replace").casefold()
        return any(_equal(value, self.wanted) for value in _reach(canonical.decode(raw), self.keys))


def read_input_query(text: str) -> InputQuery:
    """Read `PATH=VALUE` (with or without `input.` before it), or a text.

    Raises:
        InvalidArgument: it is empty or too long.
    """
    text = text.strip()
    if not text or len(text) > MAX_TEXT:
        raise InvalidArgument(
            f"a text of 1 to {MAX_TEXT} characters can be looked for in inputs", hint="For example customer=42."
        )
    path, sep, wanted = text.partition("=")
    path = path.strip().removeprefix(f"{INPUT}.") if path.strip() != INPUT else ""
    if sep:
        try:
            keys = read_keys(path if not path or path.startswith("[") else f".{path}")
        except InvalidArgument:
            pass
        else:
            return InputQuery(text, keys, wanted.strip())
    return InputQuery(text, None, text)


def _reach(value: Any, keys: Sequence[Key]) -> list[Any]:
    """What stands there. A name inside a list means that of any of its items."""
    found = [value]
    for key in keys:
        further: list[Any] = []
        for item in found:
            if isinstance(key, int):
                further += [item[key]] if isinstance(item, list) and key < len(item) else []
            elif isinstance(item, list):
                further += [inner[key] for inner in item if isinstance(inner, dict) and key in inner]
            elif isinstance(item, dict) and key in item:
                further.append(item[key])
        found = further
    return found


def _equal(value: Any, wanted: str) -> bool:
    if value == wanted:
        return True
    try:
        meant = canonical.decode(wanted.encode())
    except ValueError:
        return False
    return bool(value == meant) and isinstance(value, bool) == isinstance(meant, bool)
