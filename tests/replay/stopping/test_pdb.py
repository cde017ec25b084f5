"""pdb inside a replayed step: on a real terminal where that matters, with piped commands elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.replay.stopping.conftest import Drive, line_of

QUIT, FAILED, FINE = 40, 1, 0


def stops_at(output: str) -> list[tuple[int, str]]:
    """(line, function) of each prompt in shop.py."""
    return [(int(line), name) for line, name in re.findall(r"> \S*shop\.py\((\d+)\)(\w+)\(\)", output)]


def test_a_session_on_a_terminal(drive: Drive) -> None:
    terminal = drive.on_terminal("reserve", "charge", break_at=["charge"])
    terminal.says(r"\[replay\] step reserve  OK")
    terminal.says(r"\[replay\] stopped in charge, attempt 2, of run 0190f3a2-0000-7000-8000-000000000001 \(fulfil\)")
    terminal.says(r"order   = Order\(order_id='A1', cents=100, password=\[redacted\]\)")
    terminal.says(r"reserve = 'A1 from A'")
    terminal.says(r"n next, s step into, c continue, q quit")
    terminal.says(rf"> \S+shop.py\({line_of('first line of charge')}\)charge\(\)\n-> total = order.cents")
    terminal.asks("p order.order_id, reserve", r"\('A1', 'A1 from A'\)")
    terminal.asks("run", r"charge, attempt 2, of run 0190f3a2")
    terminal.asks("inp", r"order = {'order_id': 'A1'}\nreserve = 'A1 from A'")
    terminal.asks("inp reserve", r"reserve = 'A1 from A'")
    terminal.asks("inp nothing", r"\*\*\* no recorded input 'nothing'; there are: order, reserve")
    terminal.asks("rec", r"206")
    terminal.asks("fx", r"1  call    rate#1  -> 1\.5  \(1\.5 ms\)")
    terminal.asks("ddiff 206", r"no difference")
    terminal.asks("ddiff 207", r"206.*207")
    terminal.asks("ddiff 'x'", r"\*\*\* PayloadError")
    terminal.asks("ddiff nobody", r"\*\*\* NameError")
    terminal.asks("ddiff", r"\*\*\* ddiff needs an expression")
    terminal.asks("? fx", r"The effects that were recorded")
    terminal.asks("restart", r"\*\*\* a replay cannot be restarted")
    terminal.asks("n", r"-> await asyncio.sleep")
    terminal.asks("n", r"-> for part in range")
    terminal.asks("w", r"> \S+shop.py\(\d+\)charge\(\)")
    terminal.asks("c", r"\[replay\] step charge  OK 206")
    assert terminal.ends() == FINE
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize(
    ("step", "comment"),
    [("reserve", "first line of reserve"), ("charge", "first line of charge"), ("settle", "first line of settle")],
)
def test_it_stops_inside_the_function_whatever_wraps_it(drive: Drive, step: str, comment: str) -> None:
    steps = ["reserve", "charge"] if step == "charge" else [step]
    done = drive.piped("c\n", *steps, break_at=[step])
    assert stops_at(done.stdout) == [(line_of(comment), step)]
    assert done.returncode == FINE


def test_it_stops_in_a_thread_that_the_step_starts(drive: Drive) -> None:
    done = drive.piped(
        "p number\nc\n" * 3, "reserve", "charge", "spread", break_at=[f"spread:{line_of('in the thread')}"]
    )
    assert stops_at(done.stdout) == [(line_of("in the thread"), "work")] * 3
    assert {"0", "1", "2"} <= set(re.findall(r"^\(kairos\) (\d)$", done.stdout, re.MULTILINE))
    assert re.search(r"\[thread Thread-\d+ \(work\)\]", done.stdout)
    assert "OK [0, 1, 4]" in done.stdout
    assert (done.returncode, done.stderr) == (FINE, "")


def test_a_breakpoint_in_a_loop_is_hit_each_time(drive: Drive) -> None:
    done = drive.piped("p part\nc\n" * 3, "reserve", "charge", break_at=[f"charge:{line_of('in the loop')}"])
    assert stops_at(done.stdout) == [(line_of("in the loop"), "charge")] * 3
    assert re.findall(r"^\(kairos\) (\d)$", done.stdout, re.MULTILINE) == ["0", "1", "2"]
    assert done.stdout.count("[replay] stopped in charge") == 1


def test_a_condition_chooses_the_time(drive: Drive) -> None:
    place = f"charge:{line_of('in the loop')}"
    done = drive.piped("p part\nc\n", "reserve", "charge", break_at=[place], conditions=["part == 2"])
    assert stops_at(done.stdout) == [(line_of("in the loop"), "charge")]
    assert "(kairos) 2\n" in done.stdout


def test_a_condition_that_is_never_true_never_stops(drive: Drive) -> None:
    done = drive.piped("", "reserve", "charge", break_at=["charge"], conditions=["order.cents > 100"])
    assert (stops_at(done.stdout), done.returncode) == ([], FINE)


def test_a_condition_that_fails_stops_and_says_why(drive: Drive) -> None:
    done = drive.piped("c\n", "reserve", "charge", break_at=["charge"], conditions=["nobody > 1"])
    assert len(stops_at(done.stdout)) == 1
    assert "the condition 'nobody > 1' raised NameError: name 'nobody' is not defined" in done.stdout


def test_several_breakpoints_in_several_steps(drive: Drive) -> None:
    loop, helper = line_of("in the loop"), line_of("the line of the helper")
    done = drive.piped(
        "c\n" * 6, "reserve", "charge", break_at=["reserve", "charge", f"charge:{loop}", f"charge:{helper}"]
    )
    first, second = line_of("first line of reserve"), line_of("first line of charge")
    wanted = [(first, "reserve"), (second, "charge"), *[(loop, "charge")] * 3, (helper, "twice")]
    assert stops_at(done.stdout) == wanted
    assert f"--break-at charge:{helper}: line {helper} is in twice(), outside of charge" in done.stdout


def test_stepping_leaves_the_step_without_a_look_at_kairos(drive: Drive) -> None:
    done = drive.piped("n\nn\n" + "s\n" * 30, "reserve", "charge", "settle", break_at=["charge"])
    assert {name for _, name in stops_at(done.stdout)} >= {"charge", "twice"}
    assert "/kairos/" not in done.stdout
    assert "driver.py" not in done.stdout
    assert "OK 206" in done.stdout
    assert "step settle  OK" in done.stdout


def test_the_stack_begins_with_the_users_code(drive: Drive) -> None:
    done = drive.piped("w\nq\n", "reserve", "charge", break_at=[f"charge:{line_of('the line of the helper')}"])
    stack = re.findall(r"^(?:\(kairos\) )?[> ] (\S+)\(\d+\)(\w+)\(\)", done.stdout, re.MULTILINE)
    assert [name for _, name in stack] == ["twice", "charge", "twice"]


def test_quitting_ends_the_replay_without_a_traceback(drive: Drive) -> None:
    done = drive.piped("q\n", "careless", "settle", break_at=[f"careless:{line_of('in the try')}"])
    assert done.stdout.endswith("(kairos) [replay] ended by the debugger\n")
    assert (done.returncode, done.stderr) == (QUIT, "")


def test_quitting_in_a_thread_ends_the_replay(drive: Drive) -> None:
    done = drive.piped("q\n", "reserve", "charge", "spread", break_at=[f"spread:{line_of('in the thread')}"])
    assert done.stdout.endswith("(kairos) [replay] ended by the debugger\n")
    assert (done.returncode, done.stderr) == (QUIT, "")


def test_at_the_end_of_the_input_it_goes_on_and_stops_no_more(drive: Drive) -> None:
    done = drive.piped("", "reserve", "charge", "settle", break_at=["reserve", "charge"], break_on=["fail"])
    assert done.stdout.count("end of input: nobody is at the prompt; the replay goes on and stops no more") == 1
    assert done.stdout.count("[replay] stopped in") == 1
    assert "step charge  OK" in done.stdout
    assert "step settle  OK" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_at_the_prompt_asks_before_it_ends(drive: Drive) -> None:
    terminal = drive.on_terminal("reserve", break_at=["reserve"])
    terminal.says(r"\(kairos\) ")
    terminal.types("half a li", end="")
    terminal.presses_ctrl_c(r"Ctrl-C again, or q, ends the replay\n")
    terminal.asks("p 1 + 1", r"2\n")
    terminal.says(r"\(kairos\) ")
    terminal.presses_ctrl_c(r"Ctrl-C again, or q, ends the replay\n\(kairos\) ")
    terminal.presses_ctrl_c(r"ended by the debugger")
    assert terminal.ends() == QUIT
    assert "Traceback" not in terminal.text


def test_ctrl_c_opens_the_prompt_where_a_step_hangs(drive: Drive) -> None:
    terminal = drive.on_terminal("hang", break_at=["hang"])
    terminal.asks("c", r"it hangs")
    terminal.types("\x03", end="")
    terminal.says(r"interrupted here")
    terminal.asks("p count > 0", r"True")
    terminal.asks("n", r"shop.py")
    terminal.asks("c", r"it hangs")
    terminal.types("\x03", end="")
    terminal.asks("q", r"ended by the debugger")
    assert terminal.ends() == QUIT


def test_ctrl_c_shows_where_a_coroutine_waits(drive: Drive) -> None:
    terminal = drive.on_terminal("wait_forever", break_at=[f"wait_forever:{line_of('it waits here')}"])
    terminal.asks("c", r"it waits")
    terminal.types("\x03", end="")
    terminal.says(rf"shop.py\({line_of('it waits here')}\)wait_forever\(\)")
    terminal.asks("p label", r"'nobody answers'")
    terminal.asks("q", r"ended by the debugger")
    assert terminal.ends() == QUIT
    assert "Traceback" not in terminal.text


def test_breakpoint_in_the_code_opens_it_too(drive: Drive) -> None:
    done = drive.piped("p note\nrun\nn\np note\nc\n", "asks", "settle")
    assert "breakpoint() in the code" in done.stdout
    assert "(kairos) 'before'" in done.stdout
    assert "asks, attempt 2" in done.stdout
    assert "step asks  OK 'after'" in done.stdout
    assert (done.returncode, done.stderr) == (FINE, "")


def test_breakpoint_in_the_code_can_be_turned_off(drive: Drive) -> None:
    done = drive.piped("", "asks", env={"PYTHONBREAKPOINT": "0"})
    assert "(kairos)" not in done.stdout
    assert done.returncode == FINE


def test_a_breakpoint_set_at_the_prompt_holds_for_later_steps(drive: Drive) -> None:
    line = line_of("first line of settle")
    done = drive.piped(
        f"b {Path(__file__).parent / 'shop.py'}:{line}\nc\nc\n", "reserve", "settle", break_at=["reserve"]
    )
    assert stops_at(done.stdout)[-1] == (line, "settle")
    assert done.returncode == FINE


def test_the_prompt_is_seen_though_the_step_has_taken_stdout(drive: Drive) -> None:
    done = drive.piped("p 40 + 2\nc\n", "mute", break_at=[f"mute:{line_of('while stdout is taken')}"])
    assert "(kairos) 42\n" in done.stdout
    assert "step mute  OK 'not for the terminal\\n'" in done.stdout


def test_no_file_is_read_for_commands_and_none_is_written(drive: Drive) -> None:
    (drive.folder / ".pdbrc").write_text("!open('proof', 'w')\n")
    terminal = drive.on_terminal("reserve", break_at=["reserve"])
    terminal.asks("p 1", r"1")
    terminal.asks("c", r"OK")
    assert terminal.ends() == FINE
    assert sorted(path.name for path in drive.folder.iterdir()) == [".pdbrc", "job.json"]


def test_it_works_without_readline(drive: Drive) -> None:
    (drive.folder / "readline.py").write_text("raise ImportError('not built')\n")
    (drive.folder / "sitecustomize.py").write_text("import sys\nsys.modules['readline'] = None\n")
    from tests.replay.stopping.terminal import ROOT

    env = {"PYTHONPATH": f"{drive.folder}:{ROOT}"}
    done = drive.piped("p 40 + 2\nq\n", "reserve", break_at=["reserve"], env=env)
    assert "(kairos) 42\n" in done.stdout
    assert done.returncode == QUIT


def test_values_cannot_command_the_terminal(drive: Drive) -> None:
    done = drive.piped("rec\nc\n", "reserve", break_at=["reserve"], record={"reserve": {"output": "\x1b[2Jü名\u202e"}})
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "ü名" in done.stdout


def test_a_huge_recorded_value_is_cut_unless_all_is_asked_for(drive: Drive) -> None:
    record = {"reserve": {"output": ["x" * 90] * 2_000}}
    done = drive.piped("rec\nc\n", "reserve", break_at=["reserve"], record=record)
    assert len(done.stdout) < 10_000
    assert "more characters; say `all` after the command" in done.stdout
    done = drive.piped("rec all\nc\n", "reserve", break_at=["reserve"], record=record)
    assert done.stdout.count("x" * 90) == 2_000


def test_a_step_that_had_not_finished_has_nothing_to_compare_with(drive: Drive) -> None:
    done = drive.piped("rec\nddiff 1\nfx\nc\n", "settle", break_at=["settle"])
    assert "nothing: this attempt had not finished" in done.stdout
    assert "no output was recorded to compare with" in done.stdout
    assert "no effects were recorded in this attempt" in done.stdout


def test_a_difference_stops_where_the_step_returned(drive: Drive) -> None:
    record = {"reserve": {"output": "A1 from B"}}
    done = drive.piped("p where\nddiff where\nc\n", "reserve", "charge", break_on=["diverge"], record=record)
    assert re.search(
        r"reserve, attempt 2, of run \S+ \(fulfil\), has returned: 1 difference from the record", done.stdout
    )
    assert "(kairos) 'A'" in done.stdout
    assert stops_at(done.stdout) == [(line_of("first line of reserve") + 1, "reserve")]
    assert "step charge  OK" in done.stdout


def test_an_unknown_step_or_line_is_an_error_before_anything_runs(drive: Drive) -> None:
    done = drive.piped("", "reserve", break_at=["resreve"])
    assert "there is no step 'resreve'\n  hint: Did you mean 'reserve'?" in done.stdout
    assert done.returncode == 2
    done = drive.piped("", "reserve", break_at=["reserve:1"])
    assert "is outside of step 'reserve'" in done.stdout
    assert done.returncode == 2


@pytest.mark.parametrize(
    "typed",
    [
        "open('typed.txt', 'w')",
        "p open('typed.txt', 'w')",
        "ddiff open('typed.txt', 'w')",
        "!import os; os.mkdir('typed.txt')",
        "display open('typed.txt', 'w')",
    ],
)
def test_what_is_typed_that_a_guard_stops_is_answered_and_does_not_count(drive: Drive, typed: str) -> None:
    done = drive.piped(f"{typed}\nundisplay\nc\n", "reserve", break_at=["reserve"])
    assert "the guards stopped what was typed here: " in done.stdout
    assert "OK 'A1 from A'" in done.stdout
    assert "[leak]" not in done.stdout
    assert done.returncode == FINE
    assert not (drive.folder / "typed.txt").exists()


def test_a_condition_that_a_guard_stops_says_so_and_does_not_count(drive: Drive) -> None:
    done = drive.piped("c\n", "reserve", break_at=["reserve"], conditions=["open('typed.txt', 'w')"])
    assert "raised RefusedAtPrompt: the guards stopped what was typed here" in done.stdout
    assert done.returncode == FINE
