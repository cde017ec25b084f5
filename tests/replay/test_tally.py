"""What is counted of many replays, and how it is written for continuous integration."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kairos.replay.compare import compare
from kairos.replay.junit import junit
from kairos.replay.messages import Ended, Leak
from kairos.replay.plan import Action, Plan, PlannedStep
from kairos.replay.results import RunResult, StepResult
from kairos.replay.tally import Tally, Way
from kairos.replay.verdicts import Verdict

NOW = datetime(2026, 7, 17, 12, 0, tzinfo=UTC)


def run(run_id: str, *steps: StepResult) -> RunResult:
    return RunResult(run_id, "flow", Plan(tuple(step.planned for step in steps)), list(steps))


def step(name: str, verdict: Verdict, old: object = None, new: object = None, **ended: object) -> StepResult:
    planned = PlannedStep(name=name, action=Action.RUN)
    differences = compare(old, new) if verdict is Verdict.DIVERGED_OUTPUT else None
    end = Ended(step=name, outcome="done", **ended)  # type: ignore[arg-type]
    return StepResult(planned, 1, verdict, ended=end, differences=differences)


def test_items_of_a_list_that_differ_alike_are_one_way_and_one_run() -> None:
    tally = Tally("flow")
    old = {"items": [{"p": 1}, {"p": 2}], "a": [[1], [2]]}
    new = {"items": [{"p": 3}, {"p": 4}], "a": [[9], [9]]}
    for name in ("one", "two"):
        tally.add(run(name, step("s", Verdict.DIVERGED_OUTPUT, old, new)), 0.1)
    groups = tally.steps["s"].groups
    assert {(group.way.what, tuple(group.runs)) for group in groups.values()} == {
        ("items[*].p", ("one", "two")),
        ("a[*][*]", ("one", "two")),
    }
    assert groups[Way("changed", "items[*].p")].new == 3


CODES = [
    ([], 4), ([Verdict.SAME], 0), ([Verdict.FIXED, Verdict.SERVED], 0), ([Verdict.SAME, Verdict.DIVERGED_OUTPUT], 1),
    ([Verdict.NEW_ERROR], 1), ([Verdict.DIVERGED_OUTPUT, Verdict.BLOCKED], 3), ([None], 4), ([None, Verdict.SAME], 4),
    ([None, Verdict.CRASHED], 1),
]  # fmt: skip


@pytest.mark.parametrize(("verdicts", "code"), CODES)
def test_the_exit_code_is_that_of_the_worst(verdicts: list[Verdict | None], code: int) -> None:
    tally = Tally("flow")
    for number, verdict in enumerate(verdicts):
        if verdict is None:
            tally.add_unreadable(str(number), "gone")
        else:
            tally.add(run(str(number), step("s", verdict)), 0.1)
    assert tally.exit_code == code


def test_a_leak_is_a_way_by_its_place() -> None:
    tally = Tally("flow")
    leak = Leak(kind="network", what="reaches for", target="db:5432", file="/a.py", line=3)
    for name in "ab":
        tally.add(run(name, step("s", Verdict.BLOCKED, leaks=(leak,))), 0.1)
    (group,) = tally.steps["s"].ranked()
    assert (group.way, group.runs) == (Way("blocked", "/a.py:3: reaches for db:5432"), ["a", "b"])


VERDICTS = st.lists(st.sampled_from(Verdict), min_size=1, max_size=4)


@given(st.lists(st.one_of(VERDICTS, st.none()), max_size=8))
def test_each_run_is_counted_once(runs: list[list[Verdict] | None]) -> None:
    tally = Tally("flow")
    for number, verdicts in enumerate(runs):
        if verdicts is None:
            tally.add_unreadable(str(number), "gone")
        else:
            tally.add(run(str(number), *(step(f"s{i}", v, 1, 2) for i, v in enumerate(verdicts))), 0.1)
    assert len(tally.same) + len(tally.differing) + len(tally.unreadable) == len(tally.runs) == len(runs)
    assert (tally.exit_code == 0) == (len(tally.same) == len(runs) > 0)
    given_verdicts = Counter(v for verdicts in runs for v in verdicts or ())
    assert sum((step.verdicts for step in tally.steps.values()), Counter()) == given_verdicts
    root = ET.fromstring(junit(tally, NOW, 1.5))
    (suite,) = root
    assert int(suite.get("tests") or "") == len(runs) == len(suite)
    assert int(suite.get("failures") or "") == len(suite.findall("testcase/failure"))
    assert int(suite.get("errors") or "") == len(suite.findall("testcase/error"))


@given(st.text())
def test_any_text_can_stand_in_the_xml(text: str) -> None:
    tally = Tally(text)
    tally.add_unreadable("r", text)
    (suite,) = ET.fromstring(junit(tally, NOW, 0.0))
    assert suite.get("timestamp") == "2026-07-17T12:00:00"
    message = suite.find("testcase/error").get("message")  # type: ignore[union-attr]
    assert message is not None
    assert len(message) == len(text or "it cannot be read")


def test_no_value_of_production_stands_in_the_xml() -> None:
    tally = Tally("flow")
    tally.add(run("r", step("s", Verdict.DIVERGED_OUTPUT, {"card": "4111-1111"}, {"card": "4222-2222"})), 0.1)
    text = junit(tally, NOW, 0.1).decode()
    assert "s: changed card" in text
    assert "4111" not in text
    assert "4222" not in text
