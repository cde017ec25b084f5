"""Standing in what a step raised: in the user's last frame, whatever was raised and wherever."""

from __future__ import annotations

import re

import pytest

from tests.replay.stopping.conftest import DIVISION, Drive, line_of
from tests.replay.stopping.terminal import ROOT

FAILED = 1
CASES = {
    "divide": ("divides", "amount", "0", "ZeroDivisionError"),
    "divide_later": ("divides later", "amount", "0", "ZeroDivisionError"),
    "in_library": ("json raises", "text", "'{A1'", "JSONDecodeError"),
    "chained": ("the outer", "price", "-1", "LookupError: no price -1"),
    "grouped": ("the member", "number", "1", "ExceptionGroup"),
    "deep": ("deeper", "level > 900", "True", "RecursionError"),
    "imports": ("imports it", "source", "'broken_module'", "SyntaxError"),
}


@pytest.mark.parametrize("step", CASES)
@pytest.mark.parametrize("options", [{"post_mortem": True}, {"break_on": ["fail"]}], ids=["post-mortem", "break-on"])
def test_it_stands_in_the_users_last_frame(drive: Drive, step: str, options: dict[str, object]) -> None:
    comment, expression, value, error = CASES[step]
    (drive.folder / "broken_module.py").write_text("def broken(:\n")
    done = drive.piped(f"p {expression}\nw\nc\n", step, **options, env={"PYTHONPATH": f"{drive.folder}:{ROOT}"})
    assert re.search(rf"\[replay\] {step}, attempt 2, of run \S+ \(fulfil\), raised \S*{error}", done.stdout)
    assert re.search(rf"^> \S+shop.py\({line_of(comment)}\)", done.stdout, re.MULTILINE), done.stdout
    assert f"(kairos) {value}\n" in done.stdout
    assert f"step {step}  FAIL" in done.stdout
    assert "driver.py" not in done.stdout
    assert (done.returncode, done.stderr) == (FAILED, "")


def test_a_syntax_error_says_where_it_is(drive: Drive) -> None:
    (drive.folder / "broken_module.py").write_text("ok = 1\ndef broken(:\n")
    done = drive.piped("q\n", "imports", post_mortem=True, env={"PYTHONPATH": f"{drive.folder}:{ROOT}"})
    assert re.search(r"in \S+broken_module.py, line 2", done.stdout)


def test_causes_and_members_can_be_visited(drive: Drive) -> None:
    done = drive.piped("exceptions\nexceptions 1\nw\nexceptions 9\nexceptions x\nq\n", "chained", post_mortem=True)
    assert "  caused by ValueError: invalid literal" in done.stdout
    assert "exceptions N goes there" in done.stdout
    assert re.search(r">  0  LookupError: no price -1\n   1  caused by ValueError", done.stdout)
    assert re.search(rf"> \S+shop.py\({line_of('the cause')}\)chained\(\)", done.stdout)
    assert done.stdout.count("*** there is none of that number; 0 to 1") == 2
    done = drive.piped("exceptions\nexceptions 2\np number\nexceptions 0\nq\n", "grouped", post_mortem=True)
    assert re.search(
        r"   0  ExceptionGroup: .*\n>  1  in the group ValueError: member 1\n   2  in the group", done.stdout
    )
    assert "(kairos) 2\n" in done.stdout


def test_the_same_error_is_told_from_another_one(drive: Drive) -> None:
    done = drive.piped("rec\nc\n", "divide", post_mortem=True, record={"divide": {"error": DIVISION}})
    assert "the same error as recorded" in done.stdout
    assert '  File "/then/shop.py", line 12, in divide\n    return order.cents // amount\n' in done.stdout
    other = {"type": "builtins.KeyError", "message": "'rate'"}
    done = drive.piped("c\n", "divide", post_mortem=True, record={"divide": {"error": other}})
    assert "another error than recorded: KeyError: 'rate'" in done.stdout
    done = drive.piped("c\n", "divide", break_on=["fail"], record={"divide": {"output": 3}})
    assert "a new error: the record has an output" in done.stdout


def test_a_failure_that_does_not_come_again_shows_what_was_kept_of_it(drive: Drive) -> None:
    done = drive.piped("", "settle", post_mortem=True, record={"settle": {"error": DIVISION}})
    assert done.stdout.splitlines() == [
        "[replay] settle, attempt 2, of run 0190f3a2-0000-7000-8000-000000000001 (fulfil): not reproduced. "
        "It returned; the record has this failure:",
        '  File "/then/shop.py", line 12, in divide',
        "    return order.cents // amount",
        "ZeroDivisionError: integer division or modulo by zero",
        "its locals, as recorded:",
        "  amount = 0",
        "  password = [redacted]",
        "[replay] step settle  OK 'A1'",
    ]
    assert done.returncode == FAILED


def test_the_step_goes_on_failing_after_the_prompt(drive: Drive) -> None:
    done = drive.piped("n\n", "divide", "settle", break_on=["fail"])
    assert "step divide  FAIL ZeroDivisionError\n[replay] step settle  OK" in done.stdout


def test_quitting_there_ends_the_replay(drive: Drive) -> None:
    done = drive.piped("q\n", "divide", "settle", break_on=["fail"])
    assert done.stdout.endswith(
        "(kairos) [replay] step divide  FAIL ZeroDivisionError\n[replay] ended by the debugger\n"
    )
    assert (done.returncode, done.stderr) == (40, "")
