"""A definition is named by its content: nothing else changes the name, and every change does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kairos.domain import canonical
from kairos.domain.fingerprint import Definition, fingerprint, step_fingerprints
from kairos.domain.graph import Graph, StepSpec
from kairos.domain.retry import Retry


def definition() -> Definition:
    steps = {
        "reserve": StepSpec(name="reserve"),
        "charge": StepSpec(
            name="charge",
            needs={"order": "reserve", "again": "reserve"},
            retry=Retry(attempts=5, retry_on=(OSError, ValueError), never_retry=KeyError),
            timeout=timedelta(seconds=30),
        ),
        "email": StepSpec(name="email", after=("reserve", "charge")),
    }
    return Definition(
        Graph.build("fulfil", steps),
        {name: f"def {name}(): ..." for name in steps},
        {name: f"hash of {name}" for name in steps},
        {"": {"type": "object"}, "reserve": {"type": "string", "title": "R"}, "charge": {"type": "null"}},
    )


def with_step(name: str, **changes: Any) -> Callable[[Definition], Definition]:
    def change(before: Definition) -> Definition:
        steps = {**before.graph.steps, name: replace(before.graph.steps[name], **changes)}
        return replace(before, graph=Graph.build(before.workflow, steps))

    return change


def with_schema(name: str, schema: Any) -> Callable[[Definition], Definition]:
    return lambda before: replace(before, schemas={**before.schemas, name: schema})


def with_code(name: str, code: str) -> Callable[[Definition], Definition]:
    return lambda before: replace(before, code={**before.code, name: code})


def retry(**changes: Any) -> dict[str, Retry]:
    usual: dict[str, Any] = {"attempts": 5, "retry_on": (OSError, ValueError), "never_retry": KeyError}
    return {"retry": Retry(**{**usual, **changes})}


def renamed(before: Definition) -> Definition:
    return replace(before, graph=Graph.build("fulfil-2", before.graph.steps))


def with_one_more_step(before: Definition) -> Definition:
    return replace(before, graph=Graph.build(before.workflow, {**before.graph.steps, "x": StepSpec(name="x")}))


def in_another_order(before: Definition) -> Definition:
    steps = dict(reversed(before.graph.steps.items()))
    return replace(before, graph=Graph.build(before.workflow, steps))


CHANGES: list[tuple[str, Callable[[Definition], Definition], set[str]]] = [
    ("the code of a step", with_code("charge", "other"), {"charge"}),
    ("an edge with data", with_step("charge", needs={"order": "reserve"}), {"charge"}),
    ("which parameter gets it", with_step("charge", needs={"order": "reserve", "twice": "reserve"}), {"charge"}),
    ("an edge of order", with_step("email", after=("reserve",)), {"email"}),
    ("attempts", with_step("charge", **retry(attempts=6)), {"charge"}),
    ("base", with_step("charge", **retry(base="2s")), {"charge"}),
    ("factor", with_step("charge", **retry(factor=3)), {"charge"}),
    ("cap", with_step("charge", **retry(cap="6m")), {"charge"}),
    ("jitter", with_step("charge", **retry(jitter=0)), {"charge"}),
    ("retry_on", with_step("charge", **retry(retry_on=OSError)), {"charge"}),
    ("never_retry", with_step("charge", **retry(never_retry=None)), {"charge"}),
    ("timeout", with_step("charge", timeout=None), {"charge"}),
    ("queue", with_step("charge", queue="mail"), {"charge"}),
    ("priority", with_step("charge", priority=9), {"charge"}),
    ("ttl", with_step("charge", ttl=timedelta(hours=1)), {"charge"}),
    ("crash limit", with_step("charge", crash_limit=1), {"charge"}),
    ("transactional", with_step("charge", transactional=True), {"charge"}),
    ("the schema of an output", with_schema("charge", {"type": "string"}), {"charge"}),
    ("a new schema", with_schema("email", {}), {"email"}),
    ("the schema of the input", with_schema("", {"type": "array"}), set()),
    ("the name of the workflow", renamed, set()),
    ("the order of steps", in_another_order, set()),
    ("one more step", with_one_more_step, {"x"}),
]


@pytest.mark.parametrize(("what", "change", "steps"), CHANGES, ids=[what for what, _, _ in CHANGES])
def test_any_change_gives_another_fingerprint_and_the_step_is_named(
    what: str, change: Callable[[Definition], Definition], steps: set[str]
) -> None:
    before, after = definition(), change(definition())
    assert fingerprint(before) != fingerprint(after)
    old, new = step_fingerprints(before), step_fingerprints(after)
    assert {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)} == steps


def test_every_change_gives_a_fingerprint_of_its_own() -> None:
    names = [fingerprint(definition()), *(fingerprint(change(definition())) for _, change, _ in CHANGES)]
    assert len(set(names)) == len(names)


def test_a_fingerprint_is_32_hex_digits() -> None:
    for name in (fingerprint(definition()), *step_fingerprints(definition()).values()):
        assert len(name) == 32
        int(name, 16)


def test_the_order_of_keys_is_irrelevant() -> None:
    before = definition()
    charge = replace(before.graph.steps["charge"], needs={"again": "reserve", "order": "reserve"})
    after = Definition(
        Graph.build(before.workflow, {**before.graph.steps, "charge": charge}),
        dict(reversed(before.sources.items())),
        dict(reversed(before.code.items())),
        {"charge": {"type": "null"}, "reserve": {"title": "R", "type": "string"}, "": {"type": "object"}},
    )
    assert fingerprint(after) == fingerprint(before)
    assert step_fingerprints(after) == step_fingerprints(before)


def test_a_definition_read_back_from_the_database_has_the_fingerprint_it_was_registered_with() -> None:
    before = definition()
    raw = canonical.encode_trusted(before.to_json())
    after = Definition.from_json(canonical.decode(raw))
    assert fingerprint(after) == fingerprint(before)
    assert step_fingerprints(after) == step_fingerprints(before)
    assert canonical.encode_trusted(after.to_json()) == raw


def test_a_source_counts_by_its_hash() -> None:
    before = definition()
    assert fingerprint(replace(before, sources={})) == fingerprint(before)


def test_a_fingerprint_is_the_same_in_every_process_and_version() -> None:
    # Runs in databases of users carry it: a change here orphans them.
    assert fingerprint(definition()) == "be9874bb2b1afb7e0f3ccc95ed724663"
