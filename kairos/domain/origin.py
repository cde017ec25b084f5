"""Where a value of a run came from, and who went on with it: told by equality along the declared wiring.

Nobody records the flow of data inside a step. What is recorded is what a step was given (outputs of the steps it
needs, the input of the run, results of its effects) and what it made of it. A value that stands in both was handed
through; one that stands in none of what the step was given was produced there. The rules:

- A value is looked for in what its step was given, and from where it is found, again, back to where it first stood.
- One that says little (`true`, 0, a short word) is no evidence by itself. It is traced as a part of a larger value
  that was copied as a whole; otherwise only the wiring is told.
- Several places that lead to the same origin are one answer; places that lead to several are told as ambiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Final

from kairos.domain.editing import read_edits
from kairos.domain.events import RunForked
from kairos.domain.holders import Holder, Ledger
from kairos.domain.subtrees import CERTAIN, TELLING, Key, Subtrees
from kairos.errors import InvalidArgument, KairosError

Index = Callable[[Holder], Subtrees | None]
"""The places of a value; None when it cannot be read, or is too long to be indexed."""

MOST_PLACES: Final = 2_500
"""Equal places that are looked at for one value."""
MOST_VISITS: Final = 10_000
"""Places that are looked at for one question."""
MOST_USES: Final = 200
_ELSEWHERE: Final = 5
_HINTS: Final = 3


class Verdict(StrEnum):
    """Where the way back ends."""

    INPUT = "input"
    """The run was started with it."""
    EFFECT = "effect"
    """The world answered it."""
    EDITED = "edited"
    """The author of the fork gave it."""
    PARENT = "parent"
    """Taken over, as it was, from the run that was forked."""
    INHERITED = "inherited"
    """The step was taken over from another run."""
    PRODUCED = "produced"
    """The step made it: it stands in nothing that the step was given."""
    COMMON = "common"
    """It says too little to be recognised; only the wiring is known."""
    AMBIGUOUS = "ambiguous"
    """Several places hold it, and they lead to different origins."""
    BLANKED = "blanked"
    """It was blanked before it was stored."""
    UNREAD = "unread"
    """The value cannot be read, or is too long to be looked through."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place inside a value of the run."""

    holder: Holder
    path: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """One station on the way back.

    Attributes:
        within: path of the larger value, here, that was copied as a whole from the next station; None if the value
            itself was recognised there.
        ways: number of equal places it can have come from; all lead to the same origin.
    """

    place: Place
    within: tuple[Key, ...] | None = None
    ways: int = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """The answer to "where did this come from".

    Attributes:
        chain: from the place asked about to the one where it ends.
        candidates: the places it may have come from, when that is AMBIGUOUS, likeliest first; when it is COMMON,
            those where the same stands under the same name.
        more: how many further candidates there are.
        given: what the code at the last station had been given.
        elsewhere: places where a PRODUCED value stood before in steps that did not hand it on.
        unread: what should have been looked through and could not.
        is_weak: the value is so short that the same elsewhere may be chance.
        edit: the path that was edited, when EDITED.
    """

    verdict: Verdict
    chain: tuple[Link, ...]
    candidates: tuple[Place, ...] = ()
    more: int = 0
    given: tuple[Holder, ...] = ()
    elsewhere: tuple[Place, ...] = ()
    unread: tuple[Holder, ...] = ()
    is_weak: bool = False
    edit: str | None = None

    @property
    def root(self) -> Place:
        """Where the way back ends."""
        return self.chain[-1].place


@dataclass(frozen=True, slots=True)
class Use:
    """A step that was given the value. `place`: where it stands in what the step made; `via`: from where it got there.

    `place` is None for a step in whose values it is not found again; `seq` then is where the step first began, None
    if it has not.
    """

    step: str
    seq: int | None
    place: Place | None = None
    via: Place | None = None
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Onward:
    """The answer to "who consumed this".

    Attributes:
        uses: in order of the log, those that have not begun last.
        is_common: the value says too little to be recognised; `uses` is the wiring alone.
        returned: seq of the event that made it output of the run.
        more: how many further uses there are; `unread`: as for an `Origin`.
    """

    place: Place
    uses: tuple[Use, ...]
    is_common: bool = False
    is_weak: bool = False
    returned: int | None = None
    more: int = 0
    unread: tuple[Holder, ...] = ()


@dataclass(slots=True)
class _Hop:
    """One step back from a place, before it is known where that leads."""

    place: Place
    verdict: Verdict
    found: list[Place] = field(default_factory=list)
    within: tuple[Key, ...] | None = None
    edit: str | None = None
    onward: Place | None = None
    root: _Hop | None = None


def trace_back(ledger: Ledger, index: Index, place: Place) -> Origin:
    """Where the value at a place came from.

    Raises:
        InvalidArgument: there is nothing at the place.
    """
    hops = _resolve(ledger, index, place)
    links, here = [], hops[place]
    while here.onward is not None:
        links.append(Link(here.place, here.within, len(here.found)))
        here = hops[here.onward]
    holder = here.place.holder
    given = tuple(ledger.given(holder)) if here.verdict in (Verdict.PRODUCED, Verdict.COMMON, Verdict.AMBIGUOUS) else ()
    candidates = here.found
    if here.verdict is Verdict.COMMON:
        candidates = _namesakes(index, here.place, given)
    trees = index(place.holder)
    node = None if trees is None else trees.at(place.path)
    return Origin(
        here.verdict,
        (*links, Link(here.place)),
        tuple(candidates[:50]),
        len(candidates[50:]),
        given,
        tuple(_elsewhere(ledger, index, here.place)) if here.verdict is Verdict.PRODUCED else (),
        tuple(h for h in given if index(h) is None),
        trees is not None and node is not None and TELLING <= trees.said[node] < CERTAIN and bool(links),
        here.edit,
    )


def _resolve(ledger: Ledger, index: Index, place: Place) -> dict[Place, _Hop]:
    """Every place that the way back may touch, each with where it leads. By an own stack: pipelines may be long."""
    hops: dict[Place, _Hop] = {}
    stack = [place]
    while stack:
        here = hops.get(stack[-1])
        if here is None:
            here = hops[stack[-1]] = _hop(ledger, index, stack[-1])
            if len(hops) < MOST_VISITS:
                stack += [p for p in here.found if p not in hops]
            continue
        stack.pop()
        if here.root is None:
            _settle(here, hops)
    return hops


def _settle(here: _Hop, hops: Mapping[Place, _Hop]) -> None:
    roots = {id(root): root for p in here.found if (hop := hops.get(p)) is not None and (root := hop.root) is not None}
    is_whole = all(p in hops for p in here.found)
    if is_whole and len(roots) == 1 and len(here.found) < MOST_PLACES:
        (here.root,) = roots.values()
        here.onward = here.found[0]
        return
    if here.found:
        here.verdict = Verdict.AMBIGUOUS
    here.root = here


def _hop(ledger: Ledger, index: Index, place: Place) -> _Hop:
    holder = place.holder
    trees = index(holder)
    if trees is None:
        return _Hop(place, Verdict.UNREAD)
    node = trees.at(place.path)
    if node is None:
        raise InvalidArgument("there is nothing at this path in this value")
    if trees.is_blanked(node):
        return _Hop(place, Verdict.BLANKED)
    if holder.kind == "steps_inherited":
        return _Hop(place, Verdict.INHERITED)
    if holder.kind in ("run_scheduled", "step_overridden"):
        return _from_outside(ledger, place)
    found, within = _copies(trees, node, place.path, ledger.given(holder), index)
    if found:
        return _Hop(place, Verdict.PRODUCED, found, within)
    if holder.part == "result":
        return _Hop(place, Verdict.EFFECT)
    return _Hop(place, Verdict.PRODUCED if trees.said[node] >= TELLING else Verdict.COMMON)


def _from_outside(ledger: Ledger, place: Place) -> _Hop:
    if ledger.forked is None:
        return _Hop(place, Verdict.INPUT)
    edit = _edit_of(ledger.forked, place, ledger.graph.steps)
    return _Hop(place, Verdict.PARENT if edit is None else Verdict.EDITED, edit=edit)


def _edit_of(forked: RunForked, place: Place, steps: Iterable[str]) -> str | None:
    """The edit of a fork that put this value there: at the place, around it, or inside of it."""
    names = list(steps)
    path = tuple(map(str, place.path))
    for written, value in forked.edits.items():
        try:
            (edit,) = read_edits({written: value}, {}, names)
        except KairosError:
            continue
        keys = tuple(map(str, edit.keys))
        if edit.step == place.holder.step and keys[: len(path)] == path[: len(keys)]:
            return written
    return None


def _copies(
    trees: Subtrees, node: int, path: Sequence[Key], sources: Sequence[Holder], index: Index
) -> tuple[list[Place], tuple[Key, ...] | None]:
    """The places in `sources` from which this one can have been copied, likeliest first.

    One that says too little, or stands in several places, is looked for as a part of what it is inside of.
    """
    best: list[Place] = []
    within: tuple[Key, ...] | None = None
    depth, level = len(path), node
    while True:
        if trees.said[level] >= TELLING:
            found = list(islice(_equal(trees.hashes[level], sources, index), MOST_PLACES))
            if not found:
                break
            rest = tuple(path[depth:])
            best = [Place(p.holder, p.path + rest) for p in found]
            within = tuple(path[:depth]) if rest else None
            if len(found) == 1:
                break
        above = trees.parent(level)
        if above is None:
            break
        depth, level = depth - 1, above
    near = {holder: i for i, holder in enumerate(sources)}
    return sorted(best, key=lambda p: (-_alike(p.path, path), near[p.holder], len(p.path))), within


def _equal(wanted: int, sources: Iterable[Holder], index: Index) -> Iterator[Place]:
    for holder in sources:
        trees = index(holder)
        if trees is not None:
            for node in trees.find(wanted):
                yield Place(holder, trees.path(node))


def _alike(one: Sequence[Key], other: Sequence[Key]) -> int:
    """How many of the last names are the same."""
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if str(a) != str(b):
            break
        count += 1
    return count


def _namesakes(index: Index, place: Place, given: Iterable[Holder]) -> list[Place]:
    """Where the same stands under the same name: no proof, but worth a look."""
    own = index(place.holder)
    name = place.path[-1] if place.path else None
    node = None if own is None else own.at(place.path)
    if own is None or node is None or not isinstance(name, str):
        return []
    found = []
    for holder in given:
        trees = index(holder)
        if trees is not None:
            found += [Place(holder, trees.path(n)) for n in islice(trees.find(own.hashes[node], name), _HINTS)]
    return found


def _elsewhere(ledger: Ledger, index: Index, place: Place) -> list[Place]:
    trees = index(place.holder)
    node = None if trees is None else trees.at(place.path)
    if trees is None or node is None or trees.said[node] < TELLING:
        return []
    return list(islice(_equal(trees.hashes[node], ledger.earlier(place.holder), index), _ELSEWHERE))


def trace_forward(ledger: Ledger, index: Index, place: Place) -> Onward:
    """Who was given the value at a place, and where it stands in what they made.

    Raises:
        InvalidArgument: there is nothing at the place.
    """
    trees = index(place.holder)
    node = None if trees is None else trees.at(place.path)
    if trees is not None and node is None:
        raise InvalidArgument("there is nothing at this path in this value")
    said = trees.said[node] if trees is not None and node is not None else 0
    uses: list[Use] = []
    unread: dict[Holder, None] = {} if trees is not None else {place.holder: None}
    seen, queue = {place}, [(place, 0)]
    for here, depth in queue:
        for step, made in ledger.taken(here.holder):
            hits = [hit for target in made for hit in _found_in(here, target, index, unread)]
            for hit in hits:
                if hit not in seen and len(seen) < MOST_VISITS:
                    seen.add(hit)
                    queue.append((hit, depth + 1))
                    uses.append(Use(step, hit.holder.seq, hit, here, depth))
            if not hits and not depth and here.holder.step is not None and here.holder.is_output:
                uses.append(Use(step, ledger.began.get(step)))
    uses.sort(key=lambda use: (use.seq is None, use.seq or 0, use.depth))
    is_common = trees is not None and said < TELLING and not any(use.place for use in uses)
    owner = place.holder.step
    returned = ledger.returned.get(owner) if owner is not None and place.holder.is_output else None
    return Onward(
        place,
        tuple(uses[:MOST_USES]),
        is_common,
        TELLING <= said < CERTAIN,
        returned,
        len(uses[MOST_USES:]),
        tuple(unread),
    )


def _found_in(place: Place, target: Holder, index: Index, unread: dict[Holder, None]) -> list[Place]:
    """The places of `target` that hold what stands at `place`; told by what that is inside of if it says too little."""
    trees, others = index(place.holder), index(target)
    if others is None:
        unread[target] = None
    node = None if trees is None else trees.at(place.path)
    if trees is None or others is None or node is None:
        return []
    depth, level = len(place.path), node
    while trees.said[level] < TELLING:
        above = trees.parent(level)
        if above is None:
            return []
        depth, level = depth - 1, above
    rest = place.path[depth:]
    found = islice(others.find(trees.hashes[level]), MOST_PLACES)
    return [Place(target, others.path(n) + rest) for n in found]
