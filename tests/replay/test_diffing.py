"""Two runs side by side: what differs, and which step is the cause."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from kairos.cli import exits
from kairos.domain import canonical
from kairos.domain.error_info import ErrorInfo
from kairos.domain.events import (
    EffectRecorded,
    Event,
    RunDone,
    RunFailed,
    RunForked,
    RunScheduled,
    RunStarted,
    StepDead,
    StepDone,
    StepFailed,
    StepsInherited,
    StepStarted,
)
from kairos.domain.fingerprint import Definition, fingerprint
from kairos.domain.graph import Graph, StepSpec
from kairos.domain.ignoring import Ignore
from kairos.domain.payload import Payload
from kairos.domain.projection import RunState
from kairos.replay.bundle import write_bundle
from kairos.replay.diffing import RunDiff, diff_runs
from kairos.replay.record import Redactions, RunRecord
from kairos.store.codec import first_hash
from kairos.store.drive import OpenRun
from tests.cli.cli_support import Kairos
from tests.conftest import TestDatabase

RecordOf = Callable[[str], RunRecord]
NOW = datetime(2026, 7, 1, tzinfo=UTC)


def payload(value: Any) -> Payload:
    return Payload.of(canonical.encode(value))


def recorded(
    outputs: Mapping[str, Any],
    *,
    given: Any = None,
    needs: Mapping[str, list[str]] | None = None,
    code: Mapping[str, str] | None = None,
    effects: Mapping[str, list[EffectRecorded]] | None = None,
    rules: list[str] | None = None,
) -> RunRecord:
    """A run whose steps returned these values; an exception is what the last one failed with. By default a chain."""
    names = list(outputs)
    chain = {name: names[i - 1 : i] for i, name in enumerate(names)} if needs is None else needs
    specs = {name: StepSpec(name=name, needs={up: up for up in chain.get(name, [])}) for name in names}
    source = {name: f"def {name}(): {(code or {}).get(name, '...')}" for name in names}
    defaults = {"replay_ignore": rules} if rules else {}
    definition = Definition(Graph.build("flow", specs), source, source, {}, defaults)
    pinned = fingerprint(definition)
    run_id = uuid4()
    run = OpenRun(RunState(run_id, definition.graph), first_hash(run_id))
    events: list[Event] = [
        RunScheduled(workflow="flow", fingerprint=pinned, input=payload(given), queue="q", priority=5),
        RunStarted(epoch=1, worker="w"),
    ]
    failed = None
    for token, (name, value) in enumerate(outputs.items(), 1):
        facts = {"step": name, "attempt": 1, "token": token}
        events.append(StepStarted(**facts, input_hash="0" * 16))  # type: ignore[arg-type]
        events += [replace_facts(effect, facts) for effect in (effects or {}).get(name, [])]
        if isinstance(value, Exception):
            error = ErrorInfo(type(value).__qualname__, str(value))
            events += [StepFailed(**facts, error=error, retry_at=None), StepDead(step=name, reason=str(value))]  # type: ignore[arg-type]
            failed = name
            break
        events.append(StepDone(**facts, output=payload(value), duration_us=1000 * token))  # type: ignore[arg-type]
    sinks = {name: i for i, event in enumerate(events, 1) if isinstance(event, StepDone) for name in [event.step]}
    if failed:
        events.append(RunFailed(steps=(failed,), reason="it failed"))
    else:
        events.append(RunDone(outputs={name: sinks[name] for name in definition.graph.sinks}))
    rows = [run.record(event, NOW + timedelta(seconds=i)) for i, event in enumerate(events)]
    blobs = {p.digest: p.data for e in events if isinstance(e, StepDone) and (p := e.output).sha256 and p.data}
    return RunRecord(run_id, pinned, definition, rows, blobs)


def replace_facts(effect: EffectRecorded, facts: Mapping[str, Any]) -> EffectRecorded:
    import msgspec

    return msgspec.structs.replace(effect, **facts)


def effect(name: str, result: Any, *, via: str = "call", arguments: Any = None, ordinal: int = 1) -> EffectRecorded:
    return EffectRecorded(
        step="", attempt=0, token=0, name=name, ordinal=ordinal, via=via,
        arguments=None if arguments is None else payload(arguments), result=payload(result),
    )  # fmt: skip


def what(found: RunDiff) -> dict[str, tuple[str, ...]]:
    return {step.name: step.what for step in found.steps if step.what}


BASE = {"a": {"n": 1}, "b": {"n": 2, "at": "x"}, "c": [1, 2, 3], "d": "end"}


def test_equal_runs_are_the_same() -> None:
    found = diff_runs(recorded(BASE), recorded(BASE))
    assert found.is_same
    assert found.first is None
    assert found.to_json()["same"] is True


def test_the_first_step_that_was_given_the_same_and_answers_otherwise_is_the_cause() -> None:
    found = diff_runs(recorded(BASE), recorded({**BASE, "b": {"n": 9, "at": "x"}, "c": [1, 3], "d": "other"}))
    assert what(found) == {"b": ("output",), "c": ("input", "output"), "d": ("input", "output")}
    assert found.first is not None
    assert (found.first.name, found.cause) == ("b", "step")
    assert found.first.output.paths == {"n"}
    assert found.steps[2].inputs["b"].paths == {"n"}
    assert not found.is_same


def test_the_order_is_that_of_the_graph_not_of_definition_or_time() -> None:
    needs = {"z": [], "a": ["z"], "m": ["a"]}
    old = {"m": 1, "a": 2, "z": 3}
    graph_order = {"z": 3, "a": 2, "m": 1}
    found = diff_runs(recorded(graph_order, needs=needs), recorded({"z": 3, "a": 5, "m": 9}, needs=needs))
    assert [step.name for step in found.steps] == ["z", "a", "m"]
    assert old.keys() == graph_order.keys()
    assert found.first is not None
    assert found.first.name == "a"


def test_other_input_of_the_run_is_named_as_the_cause() -> None:
    found = diff_runs(recorded(BASE, given={"x": 1}), recorded({**BASE, "a": {"n": 5}}, given={"x": 2}))
    assert found.cause == "input"
    assert found.input.paths == {"x"}
    assert found.first is not None
    assert found.first.name == "a"
    assert not diff_runs(recorded(BASE, given=1), recorded(BASE, given=2)).is_same


def test_a_failure_differs_in_status_and_error() -> None:
    found = diff_runs(recorded(BASE), recorded({"a": {"n": 1}, "b": ValueError("no"), "c": 1, "d": 2}))
    assert found.first is not None
    assert found.first.name == "b"
    assert found.first.what == ("status", "error")
    assert found.first.new is not None
    assert (found.first.new.status, found.first.new.error) == ("DEAD", "ValueError: no")


def test_two_failures_of_the_same_kind_are_the_same() -> None:
    failed = {"a": {"n": 1}, "b": ValueError("no"), "c": 1}
    assert diff_runs(recorded(failed), recorded(failed)).is_same
    other = diff_runs(recorded(failed), recorded({**failed, "b": ValueError("other")}))
    assert what(other) == {"b": ("error",)}


def test_steps_of_one_version_only_are_told() -> None:
    needs = {"a": [], "b": ["a"], "c": ["b"], "d": ["c"], "new": ["a"]}
    found = diff_runs(recorded(BASE), recorded({**BASE, "new": 1}, needs=needs))
    assert what(found) == {"new": ("step",)}
    assert found.steps[[s.name for s in found.steps].index("new")].old is None
    turned = diff_runs(recorded({"a": 1, "b": 2}), recorded({"b": 2, "a": 1}))
    assert sorted(step.name for step in turned.steps) == ["a", "b"]


def test_code_that_changed_is_told_and_is_no_difference_by_itself() -> None:
    found = diff_runs(recorded(BASE), recorded(BASE, code={"c": "pass"}))
    assert found.is_same
    assert {step.name: step.code for step in found.steps if step.code != "same"} == {"c": "code"}


def test_what_a_workflow_ignores_does_not_count() -> None:
    other = {**BASE, "b": {"n": 2, "at": "y"}}
    assert not diff_runs(recorded(BASE), recorded(other)).is_same
    assert diff_runs(recorded(BASE), recorded(other, rules=["at"])).is_same
    assert diff_runs(recorded(BASE), recorded(other), Ignore(["*t"])).is_same


def test_effects_are_compared_by_name_and_ordinal() -> None:
    def run(*effects: EffectRecorded) -> RunRecord:
        return recorded(BASE, effects={"b": list(effects)})

    found = diff_runs(
        run(effect("fetch", {"v": 1}), effect("now", 1, via="now"), effect("gone", 1)),
        run(effect("fetch", {"v": 2}), effect("now", 2, via="now"), effect("fresh", 1), effect("fetch", 1, ordinal=2)),
    )
    assert found.first is not None
    assert found.first.what == ("effects",)
    told = {(e.name, e.ordinal, e.kind) for e in found.first.effects}
    assert told == {("fetch", 1, "result"), ("gone", 1, "removed"), ("fresh", 1, "added"), ("fetch", 2, "added")}
    asked = diff_runs(run(effect("f", 1, arguments=[1])), run(effect("f", 1, arguments=[2])))
    assert asked.first is not None
    assert [e.kind for e in asked.first.effects] == ["arguments"]


def test_a_fork_did_not_ask_for_the_effects_of_the_steps_that_it_inherits() -> None:
    asked = EffectRecorded(step="a", attempt=1, token=1, name="rates", ordinal=1, via="call", result=payload(1))
    parent = recorded({"a": 1, "b": 2}, effects={"a": [asked]})
    entry = (4, 1, payload(1).digest, False)
    first = parent.history[0].event
    assert isinstance(first, RunScheduled)
    run = OpenRun(RunState(uuid4(), parent.definition.graph), first_hash(uuid4()))
    forked = RunForked(parent=str(parent.run_id), root="r", parent_seq=8, from_step="b", author="ann", reason="")
    rows = [run.record(e, NOW) for e in (first, forked, StepsInherited(run=str(parent.run_id), outputs={"a": entry}))]
    child = RunRecord(run.run_id, parent.fingerprint, parent.definition, rows, {payload(1).digest: b"1"})
    step = diff_runs(parent, child).steps[0]
    assert (step.new.given if step.new else "", step.effects, step.what) == ("inherited", (), ())


def test_values_that_are_not_at_hand_are_unknown_not_equal() -> None:
    old, new = recorded({"a": "x" * 5000, "b": 1}), recorded({"a": "y" * 5000, "b": 1})
    left_out = replace(new, blobs={}, redactions=Redactions(omitted=dict.fromkeys(new.blobs, 5000)))
    found = diff_runs(old, left_out)
    assert found.first is not None
    assert (found.first.name, found.first.unknown) == ("a", ("output",))
    same = replace(old, blobs={})
    assert diff_runs(old, same).is_same


def test_two_runs_of_300_steps_are_compared_within_a_second() -> None:
    rows = [{"id": i, "v": i} for i in range(50)]
    old = recorded({f"s{i}": {"i": i, "rows": rows} for i in range(300)})
    new = recorded({f"s{i}": {"i": i + i % 2, "rows": rows[1:] if i % 3 else rows} for i in range(300)})
    began = time.perf_counter()
    found = diff_runs(old, new)
    taken = time.perf_counter() - began
    assert len(found.steps) == 300
    assert taken < 3.0  # under 1 s here; the machine of the tests may be busy


# -- the command ----------------------------------------------------------------------------------------------


@pytest.fixture
def ids(told: tuple[TestDatabase, dict[str, UUID]]) -> dict[str, str]:
    return {title: str(run_id) for title, run_id in told[1].items()}


def test_diff_tells_two_runs_apart(kairos_there: Kairos, ids: dict[str, str]) -> None:
    done = kairos_there("diff", ids["good"], ids["other"])
    assert done.code == exits.ERROR
    assert done.lines[0].startswith("A  order ")
    assert "input  2 differences" in done.out
    assert "~ amount  12 → 13" in done.out
    assert "first divergence  the runs were given different input; reserve is the first step that differs" in done.out
    assert "  output  2 differences" in done.out


def test_diff_with_the_last_good_run(kairos_there: Kairos, ids: dict[str, str]) -> None:
    done = kairos_there("diff", ids["bad"], "--last-good", "--json")
    assert done.code == exits.ERROR
    assert (done.json["old"]["run_id"], done.json["new"]["run_id"]) == (ids["other"], ids["bad"])
    assert done.json["first_divergence"] == "reserve"
    assert [s["differs"] for s in done.json["steps"] if s["step"] == "charge"] == [["status", "error", "input"]]
    again = kairos_there("diff", ids["good"], "--last-good", "--json").json
    assert again["old"]["run_id"] == ids["other"]


def test_a_run_is_the_same_as_itself_and_as_its_bundle(
    kairos_there: Kairos, ids: dict[str, str], record_of: RecordOf, tmp_path: Path
) -> None:
    assert kairos_there("diff", ids["good"], ids["good"]).code == exits.OK
    path = str(write_bundle(record_of("good"), tmp_path / "good.kairos").path)
    done = kairos_there("diff", path, ids["good"])
    assert (done.code, done.lines[-1]) == (exits.OK, "✓ the same  input, outputs, errors and effects agree")
    offline = kairos_there("diff", path, path, env={"KAIROS_DATABASE_URL": "postgresql://127.0.0.1:1/x"})
    assert offline.code == exits.OK


def test_ignored_paths_do_not_count(kairos_there: Kairos, ids: dict[str, str]) -> None:
    rules = ("--ignore", "card", "--ignore", "amount", "--ignore", "paid_with", "--ignore", "charged")
    done = kairos_there("diff", ids["good"], ids["other"], *rules, "--json")
    assert done.json["first_divergence"] == "confirm"
    wrong = kairos_there("diff", ids["good"], ids["other"], "--ignore", "a..b")
    assert (wrong.code, wrong.out) == (exits.USAGE, "")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["last"], exits.USAGE),
        (["last", "last", "--last-good"], exits.USAGE),
        (["last", "0123abcd"], exits.NO_SUCH_RUN),
        (["nowhere.kairos", "last"], exits.NO_SUCH_RUN),
    ],
)
def test_what_cannot_be_compared_says_so(kairos_there: Kairos, arguments: list[str], code: int) -> None:
    done = kairos_there("diff", *arguments)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ")
