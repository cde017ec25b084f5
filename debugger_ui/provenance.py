"""The answer to "where did this come from" and "who consumed this", as pages and programs show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from debugger_ui import values
from debugger_ui.focus import Focus, focus_on, looked_at, must_be, owner_of, pane_of, path_of, read_value_word
from debugger_ui.histories import History
from debugger_ui.moments import Moment
from debugger_ui.ui import Ui
from debugger_ui.words import one_line, plural
from kairos.domain import canonical, paths
from kairos.domain.holders import Holder
from kairos.domain.origin import Link, Origin, Place, Use, Verdict
from kairos.errors import InvalidArgument

MAX_GIVEN: Final = 30
_HEAD, _TAIL = 24, 6
_VIA: Final = {
    "call": "ctx.call",
    "now": "the clock, by ctx.now",
    "uuid": "ctx.uuid",
    "random": "ctx.random",
    "http": "an HTTP request",
}


@dataclass(frozen=True, slots=True)
class Stop:
    """One place, with the way there.

    Attributes:
        owner: `input`, a step, or an effect's name; `what`: the kind of value.
        path: as `--set` writes it (of an effect: within its value); `inside`: without the name of the value.
        query: of the address of the moment; `is_later`: it lies behind the playhead.
        within: the larger value that was copied as a whole; `ways`: of equal places, all of the same origin.
    """

    owner: str
    what: str
    path: str
    inside: str
    seq: int
    step: str | None
    attempt: int | None
    pane: str
    focus: Focus
    query: str
    is_later: bool
    within: str = ""
    ways: int = 1
    hidden: int = 0
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "seq": self.seq,
            "part": self.focus.part,
            "step": self.step,
            "attempt": self.attempt,
            "pointer": self.focus.path,
            "path": self.path,
            "within": self.within or None,
            "ways": self.ways,
            "later": self.is_later,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What the panel shows.

    Attributes:
        direction: `back` or `forward`; `verdict`: a word; `sentence`: the answer; `notes`: what to keep in mind.
        stops: the way back, or the uses; `others`: candidates, or other places where the value stands.
        given: what the step had been given, when that is all that is known.
        on: address and words of a link that leads on, into another run.
    """

    stop: Stop
    direction: str
    verdict: str
    sentence: str
    value: str = ""
    stops: list[Stop] = field(default_factory=list)
    others_title: str = ""
    others: list[Stop] = field(default_factory=list)
    given: list[Stop] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    on: tuple[str, str] | None = None
    more: int = 0

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "direction": self.direction,
            "at": self.stop.to_json(),
            "verdict": self.verdict,
            "sentence": self.sentence,
            "chain" if self.direction == "back" else "uses": [stop.to_json() for stop in self.stops],
            "candidates": [stop.to_json() for stop in self.others],
            "given": [stop.to_json() for stop in self.given],
            "notes": self.notes,
            "more": self.more,
        }


async def answer(ui: Ui, history: History, moment: Moment, focus: Focus, direction: str) -> Answer:
    """Where the value at `focus` came from (`back`), or who went on with it (`forward`).

    Raises:
        InvalidArgument: there is no such value, or nothing at that place.
    """
    focus = focus.within()
    ledger = await ui.origins.ledger(history)
    holder = must_be(ledger.holder(focus.seq, focus.part, focus.of or None), focus)
    keys = values.split(focus.path)
    tell = _Teller(history, moment)
    if direction == "forward":
        onward, unread = await ui.origins.forward(history, holder, keys)
        return tell.forward(onward, unread, await _shown(ui, onward.place))
    origin, unread = await ui.origins.back(history, holder, keys)
    return tell.back(origin, unread, await _shown(ui, origin.chain[0].place))


async def of_moment(ui: Ui, history: History, moment: Moment) -> tuple[Answer | None, str | None]:
    """The panel that belongs to the address of the run page; or what is wrong with what it asks. Never raises."""
    if not moment.origin:
        return None, None
    focus = read_value_word(moment.value, moment.path) if moment.value else None
    focus = focus or looked_at(history, moment.step, moment.pane, moment.path)
    if focus is None:
        return None, "This address does not say which value it means."
    try:
        return await answer(ui, history, moment, focus, moment.origin), None
    except InvalidArgument as exc:
        return None, exc.message


async def _shown(ui: Ui, place: Place) -> str:
    """The value on one line."""
    payload = place.holder.payload
    if payload.size > values.MAX_TREE:
        return ""
    raw = (await ui.shelf.read([payload])).get(payload.digest)
    return "" if raw is None else values.summary(values.walk(canonical.decode(raw), values.pointer(place.path)))


@dataclass(frozen=True, slots=True)
class _Teller:
    history: History
    moment: Moment

    def stop(self, place: Place, **more: Any) -> Stop:
        holder = place.holder
        focus = focus_on(holder, place.path)
        query = self.moment.query(
            at=holder.seq,
            step=holder.step,
            attempt=holder.attempt if holder.effect else None,
            pane=pane_of(holder),
            value=focus.value,
            path=focus.path,
        )
        return Stop(
            owner_of(holder),
            _what(holder),
            path_of(holder, place.path),
            paths.text_of(place.path),
            holder.seq,
            holder.step,
            holder.attempt,
            pane_of(holder),
            focus,
            query,
            holder.seq > self.moment.at,
            **more,
        )

    def link(self, link: Link) -> Stop:
        within = "" if link.within is None else path_of(link.place.holder, link.within) or "the whole value"
        return self.stop(link.place, within=within, ways=link.ways)

    def back(self, origin: Origin, unread: dict[Holder, str], shown: str) -> Answer:
        chain = [self.link(link) for link in origin.chain]
        if len(chain) > _HEAD + _TAIL:
            gap = len(chain) - _HEAD - _TAIL
            rest = chain[-_TAIL:]
            chain = [*chain[:_HEAD], self.link(origin.chain[-_TAIL - 1]), *rest]
            chain[_HEAD] = _hiding(chain[_HEAD], gap)
        others = origin.candidates or origin.elsewhere
        titles = {
            Verdict.AMBIGUOUS: "It may have come from",
            Verdict.COMMON: "The same stands there under the same name, which is no proof",
            Verdict.PRODUCED: "The same stood before in, without being handed on",
        }
        is_wiring = origin.verdict is Verdict.COMMON
        return Answer(
            chain[0],
            "back",
            origin.verdict.value,
            self._said(origin, unread),
            shown,
            chain,
            titles.get(origin.verdict, "") if others else "",
            [self.stop(place) for place in others],
            [self.stop(Place(h)) for h in origin.given[:MAX_GIVEN]] if is_wiring else [],
            self._notes(origin, unread),
            self._on(origin),
            origin.more,
        )

    def _said(self, origin: Origin, unread: dict[Holder, str]) -> str:
        holder = origin.root.holder
        forked = self.history.state.forked
        match origin.verdict:
            case Verdict.INPUT:
                return "The run was started with it."
            case Verdict.EFFECT:
                entry = self.history.entries[holder.seq - 1]
                event: Any = entry.recorded.event if entry.recorded else None
                return (
                    f"{owner_of(holder)} answered it: asked by {holder.step} through {_VIA.get(event.via, event.via)}."
                )
            case Verdict.EDITED:
                author = one_line(forked.author, 60) if forked else "the author"
                return f"Edited by {author} when this run was forked: {one_line(origin.edit or '', 80)}."
            case Verdict.PARENT:
                return "Taken over, as it was, from the run that this one is a fork of."
            case Verdict.INHERITED:
                run = holder.run[0][-8:] if holder.run else ""
                return f"{holder.step} did not run here: it was taken over from run {run}, where it was made."
            case Verdict.PRODUCED if origin.unread:
                return f"Not found in what {holder.step} was given, as far as that could be read."
            case Verdict.PRODUCED:
                return f"{holder.step} produced it: it stands in nothing that the step was given."
            case Verdict.COMMON:
                return "This value says too little to be recognised elsewhere. Known is only what its step was given."
            case Verdict.AMBIGUOUS:
                count = len(origin.candidates) + origin.more
                return f"Ambiguous: {plural(count, 'place')} that {holder.step} was given hold the same."
            case Verdict.BLANKED:
                return "It was blanked before it was stored, so nothing can be told about it."
            case Verdict.UNREAD:
                return f"The value cannot be looked through: {unread.get(holder, 'it is gone')}."

    def _notes(self, origin: Origin, unread: dict[Holder, str]) -> list[str]:
        notes = []
        if origin.is_weak:
            notes.append("It is short: that the same stands elsewhere may be chance.")
        if origin.unread:
            names = ", ".join(f"{owner_of(h)} (#{h.seq:,}: {unread.get(h, 'gone')})" for h in origin.unread[:5])
            rest = len(origin.unread) - 5
            notes.append(f"Not looked through: {names}{f' and {rest} more' if rest > 0 else ''}.")
        if origin.chain[0].place.holder.seq > self.moment.at:
            notes.append(f"At #{self.moment.at:,} this value is not there yet.")
        return notes

    def _on(self, origin: Origin) -> tuple[str, str] | None:
        place, forked = origin.root, self.history.state.forked
        holder = place.holder
        if origin.verdict is Verdict.INHERITED and holder.run is not None:
            run, seq = holder.run
            there = Moment(seq, holder.step, pane="output", value=f"{seq}.output", path=values.pointer(place.path))
            return f"/runs/{run}{there.query(origin='back')}", "Trace it on there"
        if origin.verdict is not Verdict.PARENT or forked is None:
            return None
        path = values.pointer(place.path)
        if holder.step is None:
            there = Moment(1, None, pane="input", value="1.input", path=path)
        else:
            there = Moment(forked.parent_seq, holder.step, pane="output", path=path)
        return f"/runs/{forked.parent}{there.query(origin='back')}", "Show it there"

    def forward(self, onward: Any, unread: dict[Holder, str], shown: str) -> Answer:
        uses: list[Use] = list(onward.uses)
        found = [use for use in uses if use.place is not None]
        kept = len({use.step for use in found if use.seq is not None and use.seq <= self.moment.at})
        later = sum(use.seq is None or use.seq > self.moment.at for use in uses)
        stops = [self._use(use, onward.place) for use in uses]
        notes = []
        if onward.is_weak:
            notes.append("It is short: that the same stands elsewhere may be chance.")
        if onward.unread:
            notes.append(f"Not looked through: {plural(len(onward.unread), 'value')}.")
        if onward.returned is not None:
            word = " will be" if onward.returned > self.moment.at else " is"
            notes.append(f"It{word} part of the output of the run, #{onward.returned:,}.")
        if later and uses:
            notes.append(f"{plural(later, 'use')} of these lie behind the playhead at #{self.moment.at:,}.")
        if not uses:
            sentence = self._unused(onward.place.holder)
        elif onward.is_common:
            sentence = "This value says too little to be recognised elsewhere. These steps were given it."
        elif not found:
            sentence = "It was handed on, and is not found again in what was made of it."
        else:
            sentence = (
                f"Found again in {plural(len({u.step for u in found}), 'step')}, {kept} of them by #{self.moment.at:,}."
            )
        verdict = "common" if onward.is_common else "found" if found else "given" if uses else "unused"
        return Answer(
            self.stop(onward.place), "forward", verdict, sentence, shown, stops, notes=notes, more=onward.more
        )

    @staticmethod
    def _unused(holder: Holder) -> str:
        if holder.part == "arguments":
            return f"It was sent to {owner_of(holder)}, and is not found in the answer."
        if holder.step is None or holder.effect is not None:
            return "It is not found in anything that the run has made so far."
        return f"No step takes the output of {holder.step}."

    def _use(self, use: Use, asked: Place) -> Stop:
        if use.place is not None:
            via = ""
            if use.via is not None and use.via != asked:
                via = f"from {path_of(use.via.holder, use.via.path) or owner_of(use.via.holder)}"
            return self.stop(use.place, note=via)
        at = use.seq or self.moment.at
        query = self.moment.query(at=at, step=use.step, attempt=None, pane="input", value="", path="")
        note = "was given it, and kept nothing of it" if use.seq is not None else "will be given it: it has not begun"
        focus = Focus(at, "input")
        is_later = use.seq is None or use.seq > self.moment.at
        return Stop(use.step, "given", "", "", use.seq or 0, use.step, None, "input", focus, query, is_later, note=note)


def _hiding(stop: Stop, count: int) -> Stop:
    return Stop(
        stop.owner, stop.what, stop.path, stop.inside, stop.seq, stop.step, stop.attempt, stop.pane, stop.focus,
        stop.query, stop.is_later, hidden=count,
    )  # fmt: skip


def _what(holder: Holder) -> str:
    if holder.effect is not None:
        asked = "asked with" if holder.part == "arguments" else "answer"
        return f"{asked}, effect of {holder.step}"
    if holder.step is None:
        return "of the run"
    return {"steps_inherited": "output, inherited", "step_overridden": "output, given by the fork"}.get(
        holder.kind, "output"
    )
