"""Looking for a text in the keys and values of JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from kairos.domain import canonical

BEFORE: Final = 30
AFTER: Final = 70
"""Characters of an excerpt before and after what was found."""
_SUMMARY: Final = 200

Key = str | int


@dataclass(frozen=True, slots=True)
class Hit:
    """One place that holds the text: in the name of a field (`in_key`), or in a value.

    Attributes:
        path: of the value; for a name, the place that has it.
        before, found, after: an excerpt of the text around it, cut, as it is written there.
    """

    path: tuple[Key, ...]
    in_key: bool
    before: str
    found: str
    after: str


def folded(raw: bytes) -> str:
    """Canonical bytes as text to look in; upper and lower case made equal."""
    return raw.decode("utf-8", "replace").casefold()


def needle_of(text: str) -> str:
    """What to look for in `folded` bytes: where it does not stand, no key and no value holds `text`."""
    return canonical.encode(text).decode()[1:-1].casefold()


def find_in(value: Any, text: str) -> Iterator[Hit]:
    """The keys and values inside of `value` that hold `text`, in order; upper and lower case are equal."""
    wanted = text.casefold()
    # An own stack, so that no depth is too deep.
    stack: list[tuple[Any, tuple[Key, ...], bool]] = [(value, (), False)]
    while stack:
        here, path, is_key = stack.pop()
        if is_key:
            hit = _hit(str(path[-1]), wanted, path, in_key=True)
            if hit is not None:
                yield Hit(path, True, hit.before, hit.found, f"{hit.after}: {_summary(here)}")
            continue
        if isinstance(here, dict):
            for name in reversed(list(here)):
                stack.append((here[name], (*path, name), False))
                stack.append((here[name], (*path, name), True))
        elif isinstance(here, list):
            stack.extend((here[i], (*path, i), False) for i in range(len(here) - 1, -1, -1))
        else:
            found = _hit(here if isinstance(here, str) else canonical.encode(here).decode(), wanted, path)
            if found is not None:
                yield found


def _hit(text: str, wanted: str, path: tuple[Key, ...], *, in_key: bool = False) -> Hit | None:
    start = text.casefold().find(wanted)
    if start < 0:
        return None
    start, end = _unfolded(text, start, start + len(wanted))
    before = ("…" if start > BEFORE else "") + text[max(start - BEFORE, 0) : start]
    after = text[end : end + AFTER] + ("…" if len(text) > end + AFTER else "")
    return Hit(path, in_key, before, text[start:end][:_SUMMARY], after)


def _unfolded(text: str, start: int, end: int) -> tuple[int, int]:
    """Where a part of the folded text stands in the text itself: some letters fold to several."""
    if text.isascii():
        return start, end
    at, first, last = 0, len(text), len(text)
    for i, letter in enumerate(text):
        width = len(letter.casefold())
        if at + width > start and first == len(text):
            first = i
        at += width
        if at >= end:
            last = i + 1
            break
    return first, last


def _summary(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{len(value):,}}}"
    if isinstance(value, list):
        return f"[{len(value):,}]"
    text = value if isinstance(value, str) else canonical.encode(value).decode()
    return text if len(text) <= AFTER else text[:AFTER] + "…"
