"""Results: medians, ratios that say what is better, files that are added to, tables in the document."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bench import __main__ as command
from bench.plan import Case, Options, select
from bench.report import (
    BEGIN,
    END,
    Result,
    Results,
    better,
    markdown,
    number,
    peer_table,
    ratios,
    table,
    write_document,
)

FACTS = {"at": "now"}
_FACTS_OF_A_MACHINE = dict.fromkeys(
    ("kairos", "commit", "python", "cpus", "cpu", "memory_gb", "system", "fdatasync_us"), "?"
) | {"postgres": {"server_version": "18"}}


def _case(key: str, main: str) -> Case:
    return Case(key, key.upper(), main, lambda server, options: {})


def _results(main: str, **reps: list[float]) -> Results:
    made = Results()
    for key, values in reps.items():
        for value in values:
            made.add(_case(key.replace("_", "-"), main), {main: value}, FACTS, Options())
    return made


BETTER = """
    metric     now    then   ratio
    steps/s    200    100    2
    steps/s    50     100    0.5
    p50 ms     5      10     2
    p50 ms     20     10     0.5
"""


@pytest.mark.parametrize("row", [line.rsplit(maxsplit=3) for line in BETTER.strip().splitlines()[1:]])
def test_above_one_is_better_for_rates_and_for_times(row: list[str]) -> None:
    metric, now, then, ratio = row
    assert better(float(now), float(then), metric.strip()) == float(ratio)


def test_nothing_is_better_than_what_was_not_measured() -> None:
    assert math.isnan(better(5, math.nan, "steps/s"))
    assert math.isnan(better(5, 0, "steps/s"))


def test_the_median_counts_and_the_spread_is_shown() -> None:
    shown = table(_results("steps/s", w1=[100, 900, 110]))
    assert "110 steps/s (100 - 900)" in shown


def test_a_baseline_adds_a_ratio_and_says_when_the_sizes_differ() -> None:
    now, then = _results("steps/s", w1=[200]), _results("steps/s", w1=[100])
    assert "x2.00 " in table(now, then)
    then.found["w1"].options["runs"] = 7
    assert "x2.00 (other sizes)" in table(now, then)


def test_saving_keeps_what_the_file_holds_of_other_cases(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "results.json"
    _results("steps/s", w1=[1], w4=[2]).save(path)
    _results("steps/s", w1=[3]).save(path)
    found = Results.load(path).found
    assert {key: result.reps for key, result in found.items()} == {"w1": [{"steps/s": 3}], "w4": [{"steps/s": 2}]}


def test_results_are_the_same_after_a_file(tmp_path: Path) -> None:
    made = _results("p50 ms", w2=[1.5, 2.5])
    made.save(tmp_path / "r.json")
    assert Results.load(tmp_path / "r.json").found == made.found


def test_a_family_is_chosen_by_its_beginning_and_a_case_by_its_key() -> None:
    cases = [_case(key, "steps/s") for key in ("w1-1", "w1-bulk-1", "w1-bulk-2", "w10", "w2")]
    assert [c.key for c in select(cases, "w1")] == ["w1-1", "w1-bulk-1", "w1-bulk-2"]
    assert [c.key for c in select(cases, "w2,w1-bulk-2, w2")] == ["w2", "w1-bulk-2"]


def test_a_case_that_does_not_exist_is_an_error_that_names_those_that_do() -> None:
    with pytest.raises(ValueError, match="--only w9: there is no such case; there are w1, w2"):
        select([_case("w1", "steps/s"), _case("w2", "p50 ms")], "w1,w9")


def test_a_peer_is_compared_with_kairos() -> None:
    results = Results(
        _results("steps/s", w1_1=[10_000], peer_absurd_w1=[1000]).found
        | _results("p50 ms", w2=[4], peer_absurd_w2=[8]).found
    )
    kairos, absurd = peer_table(results).splitlines()[2:]
    assert kairos == "| **Kairos** | **10,000** | **4.00** |"
    assert absurd == "| absurd | 1,000 (x10.0) | 8.00 (x2.00) |"


def test_ratios_tell_what_one_more_step_costs_and_leave_out_what_is_not_there() -> None:
    five = {"steps/s": 100.0, "WAL B/step": 1400.0, "worker us/step": 20.0, "postgres us/step": 10.0}
    ten = five | {"WAL B/step": 1200.0}
    results = Results()
    results.add(_case("w1-1", "steps/s"), five, FACTS, Options())
    assert ratios(results) == []
    results.add(_case("w1-ten", "steps/s"), ten, FACTS, Options())
    results.add(_case("limit-prototype", "steps/s"), {"steps/s": 400.0}, FACTS, Options())
    said = ratios(results)
    assert "one more step of W1 (ten by five), WAL B/step: 1,000" in said
    assert "W1, one by one, by the prototype (psycopg, as Kairos): 0.25" in said
    assert len(said) == 4


def test_the_page_says_when_its_cases_are_of_several_bench_runs() -> None:
    facts = {**_FACTS_OF_A_MACHINE, "at": "2026-01-01T00:00:00+00:00"}
    results = Results()
    results.add(_case("w1-1", "steps/s"), {"steps/s": 1.0}, facts, Options())
    assert "bench runs" not in markdown(results, {"Cases": ["w1-1"]})
    results.add(_case("w2", "p50 ms"), {"p50 ms": 1.0}, {**facts, "at": "2026-01-02T00:00:00+00:00"}, Options())
    assert "Of 2 bench runs, from 2026-01-01T00:00:00+00:00 to 2026-01-02" in markdown(results, {"Cases": ["w1-1"]})


def test_the_tables_replace_what_was_between_the_marks(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_document(path, "new")
    assert path.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    path.write_text("no marks")
    with pytest.raises(ValueError, match="has no marks"):
        write_document(path, "new")


NUMBERS = [(0.0, "0"), (0.00261, "0.0026"), (0.5, "0.50"), (15.72, "15.7"), (3763.4, "3,763"), (math.nan, "-")]


@pytest.mark.parametrize(("value", "text"), NUMBERS)
def test_numbers_have_the_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_the_document_shows_the_baseline() -> None:
    page = command.DOCUMENT.read_text("utf-8")
    measured = command.document(Results.load(command.BASELINE))
    assert f"{BEGIN}\n{measured}\n{END}" in page, "run `python -m bench --markdown`"


def test_no_two_cases_share_a_key() -> None:
    keys = [case.key for case in command.cases(Options())]
    assert len(keys) == len(set(keys))


def test_a_result_knows_metrics_that_only_some_repetitions_have() -> None:
    result = Result("W", "steps/s", FACTS, {}, [{"steps/s": 1.0}, {"steps/s": 3.0, "x": 5.0}])
    assert result.median() == 2.0
    assert result.median("x") == 5.0
    assert math.isnan(result.median("y"))
