"""`kairos runs`: filters, pages, and what a row tells."""

from __future__ import annotations

import json
import re
import shlex

import pytest

import kairos
from kairos.cli import exits
from tests.cli.cli_support import Kairos
from tests.cli.conftest import Told
from tests.conftest import TestDatabase


@pytest.fixture
def some_runs(shop_told: Told) -> list[str]:
    """Ids, oldest first: a done order with key and label, a failed job, a waiting one."""
    return list(shop_told.runs.values())


def ids(kairos: Kairos, *arguments: str) -> list[str]:
    return [run["id"] for run in kairos("runs", "--json", *arguments).json["runs"]]


def test_a_row_tells_status_age_and_what_went_wrong(in_shop: Kairos, some_runs: list[str]) -> None:
    lines = in_shop("runs").lines
    assert lines[0].split() == ["RUN", "WORKFLOW", "STATUS", "CREATED", "TOOK"]
    assert [line.split()[0] for line in lines[1:]] == some_runs[::-1]
    assert "○ SCHEDULED" in lines[1]
    assert "✗ FAILED" in lines[2]
    assert "fail: ValueError: no money" in lines[2]
    assert "✓ DONE" in lines[3]
    assert "key k-7  customer=42" in lines[3]


def test_lists_pages_and_the_client_give_the_same_reason(
    in_shop: Kairos, some_runs: list[str], told_database: TestDatabase
) -> None:
    reason = "fail: ValueError: no money (attempt 1 of 1)"
    assert reason in in_shop("runs").lines[2]
    listed = next(run for run in in_shop("runs", "--json").json["runs"] if run["id"] == some_runs[1])
    assert listed["reason"] == in_shop("show", some_runs[1], "--json").json["run"]["reason"] == reason
    assert reason in in_shop("why", some_runs[1]).out
    assert reason in in_shop("events", some_runs[1], "--kind", "run_failed").out
    with kairos.Client(told_database.dsn) as client:
        run = client.get_run(some_runs[1])
        assert run.info.reason == reason
        with pytest.raises(kairos.RunFailed, match=re.escape(reason)):
            _ = run.output
    assert in_shop("show", some_runs[1]).out.count("no money") == 4, "input, error, code and local; not once more"


def test_a_narrow_terminal_gets_short_ids_and_whole_lines(
    in_shop: Kairos, some_runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = in_shop("runs").lines
    assert all(len(line) <= 60 for line in lines)
    assert lines[1].split()[0] == some_runs[2][-8:]
    assert lines[2].endswith("\u2026")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("--workflow fulfil", [0]),
        ("--status failed", [1]),
        ("--status FAILED --status done", [1, 0]),
        ("-s cancelled", []),
        ("--key k-7", [0]),
        ("--label customer=42", [0]),
        ("--label customer=43", []),
        ("--since 1h", [2, 1, 0]),
        ("--since 2999-01-01", []),
        ("--until 1h", []),
        ("--until '2999-01-01 12:00'", [2, 1, 0]),
        ("--limit 1", [2]),
        ("--before {2}", [1, 0]),
        ("--before {1} --limit 5", [0]),
    ],
)
def test_filters_narrow_the_list(in_shop: Kairos, some_runs: list[str], filters: str, expected: list[int]) -> None:
    assert ids(in_shop, *shlex.split(filters.format(*some_runs))) == [some_runs[i] for i in expected]


def test_the_next_page_is_a_command_that_can_be_pasted(in_shop: Kairos, some_runs: list[str]) -> None:
    first = in_shop("runs", "-n", "1", "--since", "1h", "--json").json
    seen = [first["runs"][0]["id"]]
    while first["next"]:
        words = shlex.split(first["next"])
        assert words[:2] == ["kairos", "runs"]
        first = in_shop(*words[1:], "--json").json
        seen.append(first["runs"][0]["id"])
    assert seen == some_runs[::-1]
    assert "older: kairos runs --limit 2 --before" in in_shop("runs", "-n", "2").out


def test_an_empty_list_says_what_to_do(on_database: Kairos) -> None:
    assert "`kairos run WORKFLOW` starts one" in on_database("runs").out
    assert on_database("runs", "--json").json == {"runs": [], "next": None}


def test_an_empty_page_of_a_filter_is_not_an_empty_database(in_shop: Kairos, some_runs: list[str]) -> None:
    assert in_shop("runs", "--key", "other").out == "No runs match.\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--status fooled", "--status='fooled' is not a status of a run: SCHEDULED, RUNNING, PAUSED, DONE"),
        ("--since yesterday", "--since 'yesterday' is not a time"),
        ("--label customer", "--label 'customer' is not NAME=VALUE"),
        ("--limit 0", "--limit"),
        ("--limit 1001", "--limit"),
    ],
)
def test_a_wrong_filter_is_an_error_not_an_empty_list(in_shop: Kairos, arguments: str, complaint: str) -> None:
    done = in_shop("runs", *shlex.split(arguments))
    assert done.code == exits.USAGE
    assert done.out == ""
    assert complaint in done.err
    in_json = in_shop("runs", *shlex.split(arguments), "--json")
    assert (in_json.code, in_json.json["error"]["type"]) == (exits.USAGE, "UsageError")


def test_a_page_after_a_run_that_does_not_exist_is_an_error(in_shop: Kairos) -> None:
    done = in_shop("runs", "--before", "nobody")
    assert done.code == exits.NO_SUCH_RUN
    assert "'nobody' is not the id of a run" in done.err


def test_a_run_is_named_by_its_beginning_its_end_or_last(in_shop: Kairos, some_runs: list[str]) -> None:
    for name in (some_runs[2], some_runs[2][-8:], some_runs[2].upper(), "last", some_runs[2].replace("-", "")):
        assert in_shop("show", name, "--json").json["run"]["id"] == some_runs[2]


def test_an_ambiguous_name_lists_what_it_may_mean(in_shop: Kairos, some_runs: list[str]) -> None:
    done = in_shop("show", some_runs[0][:6])
    assert done.code == exits.NO_SUCH_RUN
    assert "matches several runs" in done.err
    assert some_runs[0] in done.err
    in_json = in_shop("show", some_runs[0][:6], "--json")
    assert json.loads(in_json.out)["error"]["type"] == "AmbiguousRun"
