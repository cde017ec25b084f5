"""Real escapes against the real guards: nobody arrives, nothing changes, and each attempt is told with its line."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replay import escapes, harmless, refusals
from tests.replay.guard_world import Child, Outside, child

DEEDS = {**escapes.NETWORK, **escapes.WRITES, **escapes.OTHERS}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    world = Outside(tmp_path_factory.mktemp("w"))
    yield world
    world.close()


@pytest.fixture(scope="module")
def free(outside: Outside, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with child(outside, tmp_path_factory.mktemp("free"), guard=False) as process:
        yield process


@pytest.fixture(scope="module")
def guarded(outside: Outside, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with child(outside, tmp_path_factory.mktemp("guarded"), strict=True) as process:
        assert "error" not in process.hello, process.hello
        yield process


@pytest.mark.parametrize("deed", DEEDS)
def test_without_guards_an_escape_succeeds(free: Child, deed: str) -> None:
    done = free.do(deed)
    assert done["arrived"] if deed in escapes.NETWORK else done["changed"]
    assert done["leaks"] == []


@pytest.mark.parametrize("deed", DEEDS)
def test_an_escape_is_stopped_and_told_with_its_line(guarded: Child, deed: str) -> None:
    done = guarded.do(deed)
    assert (done["arrived"], done["changed"]) == (0, False)
    if deed in escapes.SILENT:
        return
    (leak,) = done["leaks"]
    assert Path(leak["file"]).name == "escapes.py"
    assert leak["function"].partition(".")[0] in (deed, *CALLED.get(deed, ()))
    lines, start = inspect.getsourcelines(getattr(escapes, leak["function"].partition(".")[0]))
    assert start < leak["line"] < start + len(lines)
    assert "ctx.call" in leak["hint"]
    assert (
        leak["text"] == f"{leak['file']}:{leak['line']} in {leak['function']}: {leak['what']} {leak['target']}".strip()
    )
    if leak["kind"] == "network":
        assert deed in escapes.NETWORK
        assert "--allow-network HOST:PORT" in leak["hint"]
    if deed in escapes.WRITES and leak["kind"] != "process":
        assert "--allow-writes DIR" in leak["hint"]


CALLED = {
    "in_a_thread": ["with_a_raw_socket"],
    "in_a_worker_of_asyncio": ["with_a_raw_socket"],
    "in_a_thread_that_ran_before": ["with_psycopg"],
}
"""Deeds that are done by another function."""


@pytest.mark.parametrize("deed", harmless.HARMLESS)
def test_what_stays_within_works_as_without_guards(guarded: Child, free: Child, deed: str) -> None:
    expected, done = free.do(deed), guarded.do(deed)
    assert "error" not in expected, expected
    assert done == expected


@pytest.mark.parametrize("deed", refusals.OWN)
def test_an_error_of_the_step_itself_is_no_leak_whatever_its_number(guarded: Child, free: Child, deed: str) -> None:
    expected, done = free.do(deed), guarded.do(deed)
    assert expected["error"]
    assert done == expected


@pytest.mark.parametrize("deed", refusals.KERNEL)
def test_what_only_the_kernel_refused_is_told_by_its_name(guarded: Child, free: Child, deed: str) -> None:
    assert "error" not in free.do(deed)
    (leak,) = guarded.do(deed)["leaks"]
    assert f"{leak['what']} {leak['target']}" == refusals.KERNEL[deed][1]
    assert (leak["function"], leak["layer"]) == (deed, "kernel")


def test_an_attempt_is_told_once_however_often_it_is_made(guarded: Child) -> None:
    first = guarded.do("with_retries_that_swallow")["leaks"]
    assert guarded.do("with_retries_that_swallow")["leaks"] == first
    assert len(first) == 1


def test_what_was_stopped_is_no_exception_that_a_retry_loop_catches(guarded: Child) -> None:
    done = guarded.do("with_retries_that_swallow")
    assert done["error"] == "ReplayBlocked"
    assert "reaches for 127.0.0.1:" in done["text"]
    assert "hint: Let the step record it" in done["text"]


def test_names_of_programs_are_told_without_their_arguments(guarded: Child) -> None:
    (leak,) = guarded.do("with_a_program")["leaks"]
    assert (leak["what"], leak["target"]) == ("starts the program", "touch")


def test_the_server_that_libpq_asked_for_is_told(guarded: Child, outside: Outside) -> None:
    (tcp,) = guarded.do("with_psycopg")["leaks"]
    (unix,) = guarded.do("with_psycopg_by_a_unix_socket")["leaks"]
    assert (tcp["layer"], tcp["target"]) == ("kernel", f"127.0.0.1:{outside.facts['tcp']}")
    assert (unix["layer"], unix["target"]) == ("kernel", f"unix:{outside.facts['unix']}")


def test_the_layers_are_named_in_one_line(guarded: Child) -> None:
    assert guarded.hello["line"].startswith("env yes, audit yes, landlock yes (ABI ")
    assert guarded.hello["line"].endswith("), seccomp yes")


def test_an_allowed_port_is_reached_and_another_is_not(outside: Outside, tmp_path: Path) -> None:
    tcp = outside.facts["tcp"]
    with child(outside, tmp_path, allow_network=[f"localhost:{tcp}"]) as process:
        assert process.hello["line"].endswith(
            f", seccomp yes (TCP and UDP let through); allowed: network localhost:{tcp}"
        )
        for deed in ("with_urllib_by_name", "with_urllib", "with_async_httpx", "with_psycopg"):
            done = process.do(deed)
            assert (done["arrived"], done["leaks"]) == (1, []), deed
        for deed in ("by_udp", "by_a_unix_socket", "by_half_of_a_pair", "with_a_subprocess", "open_for_writing"):
            done = process.do(deed)
            assert (done["arrived"], len(done["leaks"])) == (0, 1), deed
    with child(outside, tmp_path, allow_network=[f"localhost:{tcp % 60_000 + 1}"]) as process:
        for deed in ("with_urllib", "with_async_httpx", "with_psycopg", "with_a_raw_socket"):
            done = process.do(deed)
            assert (done["arrived"], len(done["leaks"])) == (0, 1), deed
            assert done["leaks"][0]["target"] == f"127.0.0.1:{tcp}"
        assert process.do("with_functions_found_at_import")["arrived"] == 0


def test_an_allowed_host_is_reached_on_every_port(outside: Outside, tmp_path: Path) -> None:
    with child(outside, tmp_path, allow_network=["127.0.0.1"]) as process:
        for deed in ("with_urllib", "with_psycopg", "by_udp"):
            done = process.do(deed)
            assert (done["arrived"], done["leaks"]) == (1, []), deed


def test_an_allowed_folder_is_written_to_and_another_is_not(outside: Outside, tmp_path: Path) -> None:
    outside.fresh_folder()
    with child(outside, tmp_path, allow_writes=[str(outside.folder)]) as process:
        assert process.hello["line"].endswith(f"; allowed: writes {outside.folder}")
    # The folder must be there for as long as the rule: `do` makes a new one, so the rule is for the one above.
    with child(outside, tmp_path, allow_writes=[str(outside.folder.parent)]) as process:
        for deed in ("open_for_writing", "rename", "move_into_the_scratch_folder", "write_to_sqlite", "unlink_in_c"):
            done = process.do(deed)
            assert (done["changed"], done["leaks"]) == (True, []), deed
        assert process.do("with_urllib")["arrived"] == 0


def test_a_thread_that_ran_before_makes_no_socket_either(outside: Outside, tmp_path: Path) -> None:
    with child(outside, tmp_path, old_thread=True) as process:
        assert "but for 1 thread that ran before" in process.hello["line"]
        done = process.do("in_a_thread_that_ran_before")
        assert done["arrived"] == 0
        assert [leak["function"] for leak in done["leaks"]] == ["with_psycopg"]


NO_KERNEL = [
    ({"no_kernel": True}, "landlock absent: this kernel has none, seccomp absent: this kernel has none"),
    ({"system": "darwin"}, "landlock absent: darwin has none, seccomp absent: darwin has none"),
]


@pytest.mark.parametrize(("job", "line"), NO_KERNEL, ids=["an old kernel", "another system"])
def test_without_the_kernel_the_audit_hook_alone_says_so_and_holds(
    outside: Outside, tmp_path: Path, job: dict[str, object], line: str
) -> None:
    with child(outside, tmp_path, **job) as process:
        assert process.hello["line"] == f"env yes, audit yes, {line}"
        native = {"in_a_thread_that_ran_before", "make_a_pipe", "write_a_history", *escapes.SILENT}
        native |= {name for name in escapes.WRITES if name.endswith(("_attached_database", "_by_vacuum"))}
        native |= escapes.OTHERS.keys() - {"limit_another_process"}
        for deed in (name for name in DEEDS if "psycopg" not in name and name not in native):
            done = process.do(deed)
            assert (done["arrived"], done["changed"], len(done["leaks"])) == (0, False, 1), deed
        (leak,) = process.do("with_a_raw_socket")["leaks"]
        assert leak["target"] == f"127.0.0.1:{outside.facts['tcp']}"
        done = process.do("use_temporary_files")
        assert "error" not in done


def test_strict_refuses_to_go_on_without_a_layer_and_names_it(outside: Outside, tmp_path: Path) -> None:
    with child(outside, tmp_path, strict=True, no_kernel=True) as process:
        assert process.hello["error"] == "GuardUnavailable"
        assert "landlock absent: this kernel has none, seccomp absent" in process.hello["line"]
        assert "hint: Run it on Linux 6.7 or later" in process.hello["line"]


def test_layers_that_are_left_off_say_so(outside: Outside, tmp_path: Path) -> None:
    with child(outside, tmp_path, off=["audit", "landlock", "seccomp"]) as process:
        assert process.hello["line"] == "env yes, audit off: by option, landlock off: by option, seccomp off: by option"
        assert process.do("with_urllib")["arrived"] == 1
        assert process.do("open_for_writing")["changed"]
