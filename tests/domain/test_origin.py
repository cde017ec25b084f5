"""Origins of values: what was planted is found again, and what may have come from several places says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_stories import NOON, graph_of, scheduled

from kairos.domain import canonical
from kairos.domain.events import (
    EffectRecorded,
    Event,
    Recorded,
    RunDone,
    RunForked,
    StepDone,
    StepOverridden,
    StepsInherited,
    StepStarted,
)
from kairos.domain.graph import StepSpec
from kairos.domain.holders import Holder, Ledger
from kairos.domain.origin import Place, Verdict, trace_back, trace_forward
from kairos.domain.payload import Payload
from kairos.domain.searching import find_in, folded, needle_of
from kairos.domain.subtrees import TELLING, Subtrees, most_places, said_by
from kairos.errors import InvalidArgument

PARENT = "01890a5d-ac96-774b-bcce-000000000001"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


class Told:
    """A run as its events are added; values are looked up by step."""

    def __init__(self, **needs: str) -> None:
        specs = {name: StepSpec(name=name, needs={up: up for up in ups.split()}) for name, ups in needs.items()}
        self.graph = graph_of(**specs)
        self.ledger = Ledger(self.graph)
        self.seq = 0
        self.values: dict[Holder, Any] = {}
        self.unread: set[Holder] = set()

    def add(self, event: Event) -> list[Holder]:
        self.seq += 1
        before = len(self.ledger.holders)
        self.ledger.take(self.seq, Recorded(self.seq, NOON + timedelta(seconds=self.seq), event))
        added = self.ledger.holders[before:]
        for holder in added:
            raw = holder.payload.data
            self.values[holder] = None if raw is None else canonical.decode(raw)
        return added

    def begin(self, value: Any) -> Holder:
        return self.add(scheduled(self.graph, input=packed(value)))[0]

    def done(self, step: str, value: Any, attempt: int = 1) -> Holder:
        return self.add(StepDone(step=step, attempt=attempt, token=attempt, output=packed(value)))[0]

    def effect(self, step: str, result: Any, asked: Any = None, name: str = "call", ordinal: int = 1) -> list[Holder]:
        arguments = None if asked is None else packed(asked)
        return self.add(
            EffectRecorded(
                step=step, attempt=1, token=1, name=name, ordinal=ordinal, via="call", arguments=arguments,
                result=packed(result),
            )
        )  # fmt: skip

    def index(self, holder: Holder) -> Subtrees | None:
        return None if holder in self.unread else Subtrees(self.values[holder])

    def back(self, holder: Holder, *path: str | int) -> Any:
        return trace_back(self.ledger, self.index, Place(holder, path))

    def forward(self, holder: Holder, *path: str | int) -> Any:
        return trace_forward(self.ledger, self.index, Place(holder, path))


def packed(value: Any) -> Payload:
    return Payload.of(canonical.encode(value))


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    yield path, value
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield from places(item, (*path, key))


# -- subtrees --------------------------------------------------------------------------------------------------


@given(JSON)
def test_every_place_of_a_value_is_numbered_and_found_again(value: Any) -> None:
    value = canonical.decode(canonical.encode(value))
    trees = Subtrees(value)
    there = list(places(value))
    assert len(trees) == len(there) <= most_places(canonical.encode(value))
    for path, item in there:
        node = trees.at(path)
        assert node is not None
        assert trees.path(node) == path
        assert trees.at([str(key) for key in path]) == node
        assert trees.hashes[node] == Subtrees(item).hashes[0]
        name = path[-1] if path and isinstance(path[-1], str) else None
        if trees.said[node] >= TELLING:
            assert node in list(trees.find(trees.hashes[node]))
        elif name is not None:
            assert node in list(trees.find(trees.hashes[node], name))
    assert trees.at(("no such", "place")) is None


@given(JSON, JSON)
def test_different_values_have_different_numbers(one: Any, other: Any) -> None:
    is_same = Subtrees(one).hashes[0] == Subtrees(other).hashes[0]

    def plain(value: Any) -> str:
        return json.dumps(value, sort_keys=True, default=str)

    def as_numbers(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: as_numbers(v) for k, v in value.items()}
        if isinstance(value, list):
            return [as_numbers(v) for v in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    assert is_same == (plain(as_numbers(one)) == plain(as_numbers(other)))


@pytest.mark.parametrize(
    ("one", "other"), [(True, 1), (False, 0), (-1, -2), (2**61, 1), ("1", 1), (None, "null"), ([], {}), ([[]], [])]
)
def test_what_python_takes_for_equal_is_told_apart(one: Any, other: Any) -> None:
    assert Subtrees(one).hashes[0] != Subtrees(other).hashes[0]


@pytest.mark.parametrize(
    "value", [None, True, 0, 7, -1, 999, 1000, 2_000_000, "", "EUR", "xxxxxxxxxx", 0.5, "[redacted]"]
)
def test_what_stands_everywhere_says_little(value: Any) -> None:
    assert said_by(value) < TELLING


@pytest.mark.parametrize("value", ["ada@example.com", "01890a5d", 4999, 19.99, "Ünïcödé", 1763727676])
def test_what_can_be_recognised_says_much(value: Any) -> None:
    assert said_by(value) >= TELLING


# -- back ------------------------------------------------------------------------------------------------------


def test_a_value_is_followed_through_steps_back_to_the_effect_that_answered_it() -> None:
    told = Told(fetch="", charge="fetch", ship="charge")
    told.begin({"id": "order-774411"})
    _, result = told.effect("fetch", {"rows": [{"email": "ada@example.com"}]}, {"url": "/users"}, "GET /users")
    fetch = told.done("fetch", {"rows": [{"email": "x"}, {"email": "ada@example.com"}]})
    charge = told.done("charge", {"user": {"email": "ada@example.com"}})
    ship = told.done("ship", {"to": "ada@example.com", "label": "sent-2231"})
    found = told.back(ship, "to")
    assert found.verdict is Verdict.EFFECT
    assert [(link.place.holder, link.place.path) for link in found.chain] == [
        (ship, ("to",)),
        (charge, ("user", "email")),
        (fetch, ("rows", 1, "email")),
        (result, ("rows", 0, "email")),
    ]
    assert told.back(ship, "label").verdict is Verdict.PRODUCED


def test_an_answer_that_repeats_what_was_asked_is_traced_to_what_was_asked() -> None:
    told = Told(fetch="")
    begin = told.begin({"customer": "cus_8815aa"})
    asked, result = told.effect("fetch", {"id": "cus_8815aa", "name": "Ada Lovelace"}, {"id": "cus_8815aa"})
    fetch = told.done("fetch", {"customer": "cus_8815aa", "name": "Ada Lovelace"})
    found = told.back(fetch, "customer")
    assert (found.verdict, found.root) == (Verdict.INPUT, Place(begin, ("customer",)))
    assert found.chain[0].ways == 2
    assert told.back(result, "id").chain[1].place == Place(asked, ("id",))
    assert told.back(fetch, "name").verdict is Verdict.EFFECT


def test_several_origins_are_all_told_the_likeliest_first() -> None:
    told = Told(a="", b="a")
    begin = told.begin({"billing": {"email": "ada@example.com"}, "contact": "ada@example.com"})
    a = told.done("a", {"email": "ada@example.com", "made": "here-1234"})
    found = told.back(a, "email")
    assert found.verdict is Verdict.AMBIGUOUS
    assert found.candidates == (Place(begin, ("billing", "email")), Place(begin, ("contact",)))
    b = told.done("b", {"to": "ada@example.com"})
    assert told.back(b, "to").verdict is Verdict.AMBIGUOUS


def test_a_value_inside_of_a_copied_one_came_with_it() -> None:
    told = Told(a="", b="a")
    begin = told.begin({"order": {"express": True, "qty": 1, "sku": "SKU-99812"}, "spare": {"sku": "SKU-99812"}})
    a = told.done("a", {"kept": {"express": True, "qty": 1, "sku": "SKU-99812"}, "ok": True})
    found = told.back(a, "kept", "express")
    assert (found.verdict, found.root) == (Verdict.INPUT, Place(begin, ("order", "express")))
    assert found.chain[0].within == ("kept",)
    found = told.back(a, "kept", "sku")
    assert found.root == Place(begin, ("order", "sku")), "what it is inside of tells the two apart"


@pytest.mark.parametrize("value", [True, 0, "", 7, None, "EUR", [], {}])
def test_what_says_little_is_answered_by_the_wiring_alone(value: Any) -> None:
    told = Told(a="", b="a")
    begin = told.begin({"flag": value, "id": "order-5511"})
    a = told.done("a", {"n": "made-77881"})
    b = told.done("b", {"flag": value, "k": "made-77882"})
    found = told.back(b, "flag")
    assert found.verdict is Verdict.COMMON
    assert found.given == (a, begin)
    assert found.candidates == (Place(begin, ("flag",)),), "the same under the same name: a hint"


def test_a_value_that_its_step_was_not_given_is_its_own_and_other_places_are_named() -> None:
    told = Told(a="", b="a", c="b")
    told.begin({})
    a = told.done("a", {"secret": "token-4471-x"})
    told.done("b", {"n": 1})
    c = told.done("c", {"found": "token-4471-x"})
    found = told.back(c, "found")
    assert found.verdict is Verdict.PRODUCED
    assert found.elsewhere == (Place(a, ("secret",)),)


def test_what_could_not_be_read_is_said() -> None:
    told = Told(a="", b="a")
    told.begin({})
    a = told.done("a", {"x": "value-5512"})
    b = told.done("b", {"x": "value-5512"})
    told.unread.add(a)
    assert told.back(b, "x").unread == (a,)
    told.unread.add(b)
    assert told.back(b, "x").verdict is Verdict.UNREAD


def test_what_was_blanked_says_so() -> None:
    told = Told(a="")
    told.begin({"card": "[redacted]"})
    a = told.done("a", {"card": "[redacted]"})
    assert told.back(a, "card").verdict is Verdict.BLANKED


def test_an_attempt_that_failed_gives_its_effects_to_the_next_and_only_the_last_answer_counts() -> None:
    told = Told(a="")
    told.begin({})
    told.effect("a", "old-answer-1", name="rate")
    (new,) = told.effect("a", "new-answer-2", name="rate")
    a = told.done("a", {"old": "old-answer-1", "new": "new-answer-2"}, attempt=2)
    assert told.back(a, "new").root == Place(new)
    assert told.back(a, "old").verdict is Verdict.PRODUCED


def test_a_fork_tells_what_was_edited_taken_over_and_inherited() -> None:
    told = Told(a="", b="a", c="b")
    begin = told.begin({"amount": 4711, "id": "order-5511", "ship": {"to": "Bern 3011"}})
    edits = {"input.amount": 4711, "b.price": 19.99}
    told.add(RunForked(parent=PARENT, root=PARENT, parent_seq=9, from_step="c", author="ada", reason="", edits=edits))
    (inherited,) = told.add(StepsInherited(run=PARENT, outputs={"a": (4, 20, "ab" * 32, False)}))
    told.values[inherited] = {"stock": "shelf-2291"}
    (given_,) = told.add(StepOverridden(step="b", output=packed({"price": 19.99, "shelf": "shelf-2291"})))
    c = told.done("c", {"amount": 4711, "id": "order-5511", "price": 19.99, "shelf": "shelf-2291"})
    assert (told.back(c, "amount").verdict, told.back(c, "amount").edit) == (Verdict.EDITED, "input.amount")
    assert told.back(begin).verdict is Verdict.EDITED, "something inside of it was edited"
    assert told.back(c, "id").verdict is Verdict.PARENT
    assert told.back(begin, "ship").verdict is Verdict.PARENT
    assert (told.back(c, "price").verdict, told.back(c, "price").edit) == (Verdict.EDITED, "b.price")
    assert told.back(c, "shelf").root == Place(given_, ("shelf",))
    assert told.back(inherited, "stock").verdict is Verdict.INHERITED
    assert inherited.run == (PARENT, 4)


def test_nothing_at_a_path_is_an_error() -> None:
    told = Told(a="")
    begin = told.begin({"x": [1]})
    for path in (("y",), ("x", 1), ("x", "0", "z"), ("x", "-1")):
        with pytest.raises(InvalidArgument, match="nothing at this path"):
            told.back(begin, *path)
        with pytest.raises(InvalidArgument, match="nothing at this path"):
            told.forward(begin, *path)


def test_a_pipeline_of_2000_steps_and_a_fan_in_of_500_are_followed() -> None:
    names = [f"s{i:04d}" for i in range(2_000)]
    told = Told(**{name: names[i - 1] if i else "" for i, name in enumerate(names)})
    begin = told.begin({"id": "campaign-88121"})
    for name in names:
        last = told.done(name, {"id": "campaign-88121", "by": f"worker-{name}"})
    held = {h: told.index(h) for h in told.values}
    found = trace_back(told.ledger, held.get, Place(last, ("id",)))
    assert (len(found.chain), found.root) == (2_001, Place(begin, ("id",)))
    wide = Told(**{f"send{i}": "" for i in range(500)}, report=" ".join(f"send{i}" for i in range(500)))
    begin = wide.begin({"id": "campaign-88121"})
    for i in range(500):
        wide.done(f"send{i}", {"id": "campaign-88121", "to": f"address-{i:05d}"})
    report = wide.done("report", {"id": "campaign-88121", "last": "address-00499"})
    held = {h: wide.index(h) for h in wide.values}
    found = trace_back(wide.ledger, held.get, Place(report, ("id",)))
    assert (found.verdict, found.root, found.chain[0].ways) == (Verdict.INPUT, Place(begin, ("id",)), 501)
    onward = trace_forward(wide.ledger, held.get, Place(begin, ("id",)))
    assert (len(onward.uses), onward.more) == (200, 301)


@given(st.integers(0, 2**32))
def test_planted_values_are_traced_to_where_they_were_planted(seed: int) -> None:
    dice = Random(seed)
    names = [f"s{i}" for i in range(dice.randint(2, 7))]
    told = Told(**{name: " ".join(dice.sample(names[:i], dice.randint(0, min(i, 3)))) for i, name in enumerate(names)})
    planted: dict[str, set[tuple[Holder, tuple[str | int, ...]]]] = {}
    fresh = 0

    def new() -> str:
        nonlocal fresh
        fresh += 1
        return f"{dice.getrandbits(48):012x}-{fresh}"

    def register(holder: Holder) -> None:
        for path, value in places(told.values[holder]):
            if isinstance(value, str) and value and value not in planted:
                planted[value] = {(holder, path)}

    def document(seen: list[str]) -> dict[str, Any]:
        old = dice.sample(seen, min(len(seen), dice.randint(0, 3)))
        return {
            "made": new(),
            "list": [*old[:1], new(), dice.choice([0, True, "", None])],
            "in": {"x": old[1:], "y": new()},
        }

    def texts(value: Any) -> list[str]:
        return [item for _, item in places(value) if isinstance(item, str) and item]

    register(told.begin(document([])))
    for name in names:
        needs = [told.ledger.outputs[up] for up in told.graph.steps[name].needs]
        near = [told.values[h] for h in needs] + [told.values[told.ledger.input]]  # type: ignore[index]
        seen = [text for value in near for text in texts(value)]
        if dice.random() < 0.5:
            for holder in told.effect(name, document([]), {"q": dice.choice(seen)}):
                register(holder)
                seen += texts(told.values[holder])
        told.add(StepStarted(step=name, attempt=1, token=1, input_hash="0" * 16))
        register(told.done(name, document(seen)))
    checked = 0
    for holder, value in told.values.items():
        for path, item in places(value):
            if isinstance(item, str) and item:
                found = told.back(holder, *path)
                assert found.verdict is not Verdict.AMBIGUOUS
                assert (found.root.holder, found.root.path) in planted[item]
                checked += 1
    assert checked > 5
    # What is told backwards is told forwards.
    for item, ((holder, path),) in planted.items():
        there = {(u.place.holder, u.place.path) for u in told.forward(holder, *path).uses if u.place}
        for other, value in told.values.items():
            for there_path, there_item in places(value):
                is_use = (other, there_path) in there
                if there_item == item and other is not holder and other.part != "result":
                    assert is_use
                assert not is_use or there_item == item


# -- forward ---------------------------------------------------------------------------------------------------


def test_consumers_are_told_with_where_they_kept_it_and_who_has_not_begun() -> None:
    told = Told(a="", b="a", c="a", d="b", e="a")
    told.begin({})
    a = told.done("a", {"id": "order-5511"})
    told.add(StepStarted(step="b", attempt=1, token=1, input_hash="0" * 16))
    asked, _ = told.effect("b", {"ok": True}, {"reference": "order-5511"}, "POST /charges")
    b = told.done("b", {"ref": ["order-5511"]})
    told.add(StepStarted(step="c", attempt=1, token=1, input_hash="0" * 16))
    c = told.done("c", {"n": 1})
    d = told.done("d", {"done": "order-5511"})
    told.add(RunDone(outputs={"a": a.seq, "c": c.seq}))
    onward = told.forward(a, "id")
    assert [(use.step, use.place and use.place.holder, use.depth) for use in onward.uses] == [
        ("b", asked, 0),
        ("b", b, 0),
        ("c", None, 0),
        ("d", d, 1),
        ("e", None, 0),
    ]
    assert onward.uses[2].seq == c.seq - 1, "it was given it, and kept nothing of it"
    assert onward.uses[4].seq is None
    assert onward.uses[3].via == Place(b, ("ref", 0))
    assert onward.returned == told.seq


def test_what_says_little_is_followed_by_the_wiring_alone() -> None:
    told = Told(a="", b="a")
    told.begin({})
    a = told.done("a", {"ok": True})
    told.done("b", {"ok": True})
    onward = told.forward(a, "ok")
    assert onward.is_common
    assert [use.step for use in onward.uses] == ["b"]
    assert [use.place for use in onward.uses] == [None]


# -- search ----------------------------------------------------------------------------------------------------


@given(JSON, st.text(min_size=1, max_size=5))
def test_a_text_is_found_where_a_key_or_a_value_holds_it(value: Any, text: str) -> None:
    raw = canonical.encode(value)
    value = canonical.decode(raw)
    expected = set()
    for path, item in places(value):
        if path and isinstance(path[-1], str) and text.casefold() in path[-1].casefold():
            expected.add((path, True))
        if not isinstance(item, dict | list):
            shown = item if isinstance(item, str) else canonical.encode(item).decode()
            if text.casefold() in shown.casefold():
                expected.add((path, False))
    found = list(find_in(value, text))
    assert {(hit.path, hit.in_key) for hit in found} == expected
    assert len(found) == len(expected)
    if expected:
        assert needle_of(text) in folded(raw), "what is skipped unread holds nothing"
    for hit in found:
        assert text.casefold() in hit.found.casefold()


def test_excerpts_are_cut_around_what_was_found() -> None:
    (hit,) = find_in(["a" * 500 + "Straße" + "b" * 500], "STRASSE")
    assert (hit.found, hit.path) == ("Straße", (0,))
    assert hit.before == "…" + "a" * 30
    assert hit.after == "b" * 70 + "…"


def test_no_depth_is_too_deep_to_be_searched() -> None:
    value: Any = "needle"
    for _ in range(5_000):
        value = [value]
    (hit,) = find_in(value, "needle")
    assert len(hit.path) == 5_000
