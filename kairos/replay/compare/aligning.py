"""Which items of two lists belong together: equal ones by a longest common subsequence, the rest by likeness.

Without it one deletion at the beginning of a list makes every item differ from the one that took its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Final

from kairos.domain import canonical

Pair = tuple[int | None, int | None]
"""Positions of two items that belong together; None: the item has no other."""

BUDGET: Final = 2_000_000
"""Most pairs of equal items that are looked at; beyond that (thousands of equal ones) position decides."""
MAX_LIKENESS: Final = 2_500
"""Most pairs of unequal items of which the likeness is looked at."""
IDENTITIES: Final = ("id", "key", "uuid", "name", "sku", "code")
"""Fields by which two objects are recognised as the same one in two states, in this order."""


def align(old: Sequence[Any], new: Sequence[Any]) -> list[Pair]:
    """Pairs in order; items that are equal are left out of it."""
    first, last = _equal_ends(old, new)
    left, right = old[first : len(old) - last], new[first : len(new) - last]
    pairs: list[Pair] = []
    for i, j in _blocks(left, right):
        pairs += _pair_up(left, right, i, j)
    return [(None if i is None else i + first, None if j is None else j + first) for i, j in pairs]


def same(old: Any, new: Any) -> bool:
    """Whether two plain JSON values are the same: 1 and 1.0 are, 1 and true are not."""
    if isinstance(old, dict | list) or isinstance(new, dict | list):
        return type(old) is type(new) and _key(old) == _key(new)
    return bool(old == new) and (type(old) is type(new) or (is_number(old) and is_number(new)))


def is_number(value: Any) -> bool:
    """Whether it is a JSON number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal_ends(old: Sequence[Any], new: Sequence[Any]) -> tuple[int, int]:
    most = min(len(old), len(new))
    first = next((i for i in range(most) if not same(old[i], new[i])), most)
    last = next((i for i in range(most - first) if not same(old[-1 - i], new[-1 - i])), most - first)
    return first, last


def _blocks(left: Sequence[Any], right: Sequence[Any]) -> Iterator[tuple[range, range]]:
    """The stretches between equal items."""
    if not left or not right:
        yield range(len(left)), range(len(right))
        return
    a, b = [_key(item) for item in left], [_key(item) for item in right]
    often = Counter(b)
    if sum(often[key] for key in a) > BUDGET:
        unequal = [i for i in range(min(len(a), len(b))) if a[i] != b[i]]
        yield from ((range(i, i + 1), range(i, i + 1)) for i in unequal)
        yield range(len(b), len(a)), range(len(a), len(b))
        return
    for tag, i, i2, j, j2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag != "equal":
            yield range(i, i2), range(j, j2)


def _pair_up(left: Sequence[Any], right: Sequence[Any], old: range, new: range) -> list[Pair]:
    """Which of these belong together, all of them unequal; in order of their place."""
    found = dict(_by_identity(left, right, old, new))
    free_old = [i for i in old if i not in found]
    taken = set(found.values())
    free_new = [j for j in new if j not in taken]
    found |= _by_likeness(left, right, free_old, free_new)
    taken = set(found.values())
    pairs: list[Pair] = [(i, found.get(i)) for i in old]
    pairs += [(None, j) for j in new if j not in taken]
    return sorted(
        pairs, key=lambda pair: (pair[1] if pair[1] is not None else _place(pair[0], old, new), pair[0] is None)
    )


def _place(i: int | None, old: range, new: range) -> float:
    # An item that is gone stands before what came to its place.
    return new.start + (i or 0) - old.start - 0.5


def _by_identity(left: Sequence[Any], right: Sequence[Any], old: range, new: range) -> Iterable[tuple[int, int]]:
    for name in IDENTITIES:
        a, b = _named(left, old, name), _named(right, new, name)
        if len(a) == len(old) and len(b) == len(new) and a and b:
            return ((i, b[value]) for value, i in a.items() if value in b)
    return ()


def _named(items: Sequence[Any], places: range, name: str) -> Mapping[Any, int]:
    """Identity -> place, of the objects that have one of their own."""
    found: dict[Any, int] = {}
    for i in places:
        value = items[i].get(name) if isinstance(items[i], dict) else None
        if isinstance(value, str | int) and not isinstance(value, bool):
            found[value] = i
    return found


def _by_likeness(left: Sequence[Any], right: Sequence[Any], old: list[int], new: list[int]) -> dict[int, int]:
    """Those first that have most in common; if there are as many on both sides, or too many, by position."""
    if len(old) == len(new) or len(old) * len(new) > MAX_LIKENESS:
        return dict(zip(old, new, strict=False))
    scores = sorted(
        ((-_likeness(left[i], right[j]), abs(x - y), i, j) for x, i in enumerate(old) for y, j in enumerate(new))
    )
    found: dict[int, int] = {}
    taken: set[int] = set()
    for _, _, i, j in scores:
        if i not in found and j not in taken:
            found[i] = j
            taken.add(j)
    return found


def _likeness(old: Any, new: Any) -> float:
    """From 0 to 1."""
    if isinstance(old, dict) and isinstance(new, dict):
        equal = sum(1 for key, value in old.items() if key in new and same(value, new[key]))
        shared = len(old.keys() & new.keys())
        return (equal + shared) / (2 * (max(len(old), len(new)) or 1))
    if isinstance(old, str) and isinstance(new, str):
        return SequenceMatcher(None, old[:80], new[:80], autojunk=False).ratio()
    return 0.5 if type(old) is type(new) else 0.0


def _key(value: Any) -> Any:
    """Equal for equal values; of numbers and truth values the type tells them apart from each other."""
    if isinstance(value, dict | list):
        return canonical.encode_trusted(value)
    return (isinstance(value, bool), value)
