"""Two versions of a workflow: what came, went and changed, and why."""

from __future__ import annotations

import kairos
from debugger_ui.versions import both, compare_versions
from kairos.domain.fingerprint import Definition


def old() -> Definition:
    flow = kairos.App("a").workflow("flow", input=dict)

    @flow.step
    def fetch(input: dict) -> int:
        return 1

    @flow.step
    def gone(fetch: int) -> int:
        return fetch

    @flow.step
    def send(gone: int) -> int:
        return gone + 1

    @flow.step
    def patient(fetch: int) -> int:
        return fetch

    return flow.definition


def new() -> Definition:
    flow = kairos.App("a").workflow("flow", input=list)

    @flow.step
    def fetch(input: list) -> int:
        return 1

    @flow.step
    def fresh(fetch: int) -> int:
        return fetch

    @flow.step
    def send(fresh: int) -> str:
        return str(fresh + 2)

    @flow.step(retry=kairos.Retry(attempts=9))
    def patient(fetch: int) -> int:
        return fetch

    return flow.definition


def test_steps_that_came_went_and_changed_are_told_apart() -> None:
    changes = compare_versions(old(), new())
    assert dict(changes.kinds) == {
        "fetch": "changed", "fresh": "added", "send": "changed", "patient": "changed", "gone": "removed",
    }  # fmt: skip
    assert changes.input_changed
    by_name = {step.name: step for step in changes.steps}
    assert by_name["send"].what == ("code", "output type", "inputs")
    assert "retry" in by_name["patient"].what
    assert ("-", "    return gone + 1") in by_name["send"].lines
    assert ("+", "    return str(fresh + 2)") in by_name["send"].lines
    assert all(mark == "+" for mark, _ in by_name["fresh"].lines if mark != "@")
    assert all(mark == "-" for mark, _ in by_name["gone"].lines if mark != "@")


def test_a_version_does_not_differ_from_itself() -> None:
    changes = compare_versions(old(), old())
    assert changes.found == []
    assert not changes.input_changed
    assert changes.count("same") == 4


def test_the_picture_of_both_has_the_steps_of_both_and_no_circle() -> None:
    graph = both(old(), new())
    assert list(graph.steps) == ["fetch", "fresh", "send", "patient", "gone"]
    assert graph.to_networkx().number_of_edges() == 4
