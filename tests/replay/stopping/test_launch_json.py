"""The configuration for VS Code goes into a file that people have written by hand, and spoils nothing in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kairos.errors import BreakpointError
from kairos.replay.stopping.vscode import NAME, _changed, _check, configuration, read_launch, write_launch

LISTEN = ("127.0.0.1", 5678)
OURS = configuration(LISTEN)
COMMENTED = """\
{
    // Use IntelliSense, they said: "configurations": [
    "version": "0.2.0", /* not
    a version */
    "configurations": [
        {
            "name": "Python: // no comment",   // a comment
            "type": "debugpy",
            "request": "launch",
            "args": ["a, ]", "\\"configurations\\": [",],
        },
    ],
    "inputs": [],
}
"""


def launch(folder: Path, text: str | None = None) -> Path:
    """The file in this folder, with this text."""
    path = folder / ".vscode" / "launch.json"
    if text is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
    return path


def test_without_a_file_one_is_written(tmp_path: Path) -> None:
    said = write_launch(tmp_path, LISTEN)
    assert json.loads(launch(tmp_path).read_text()) == {"version": "0.2.0", "configurations": [OURS]}
    assert said == f"{launch(tmp_path)} written: start {NAME!r} in VS Code"


def test_what_is_there_is_kept_with_its_comments(tmp_path: Path) -> None:
    path = launch(tmp_path, COMMENTED)
    before = read_launch(COMMENTED)
    assert "changed" in write_launch(tmp_path, LISTEN)
    text = path.read_text()
    assert read_launch(text)["configurations"] == [OURS, *before["configurations"]]
    begin, _, rest = COMMENTED.partition('"configurations": [\n        {')
    assert text.startswith(begin)
    assert text.endswith(rest)


def test_writing_it_twice_changes_nothing(tmp_path: Path) -> None:
    path = launch(tmp_path, COMMENTED)
    write_launch(tmp_path, LISTEN)
    once = path.read_bytes()
    assert "already" in write_launch(tmp_path, LISTEN)
    assert path.read_bytes() == once


def test_another_port_is_put_into_the_configuration_that_is_there(tmp_path: Path) -> None:
    path = launch(tmp_path, COMMENTED)
    write_launch(tmp_path, LISTEN)
    text = path.read_text().replace('"justMyCode": true', '"justMyCode": false /* mine */')
    path.write_text(text)
    write_launch(tmp_path, ("127.0.0.2", 4000))
    assert path.read_text() == text.replace("5678", "4000").replace("127.0.0.1", "127.0.0.2")


@pytest.mark.parametrize(
    "text",
    [
        '{"configurations": []}',
        '{"configurations": [ // none yet\n]}',
        '{"configurations":[{"name":"x"},{"name":"y"}]}',
        '\ufeff{"version": "0.2.0", "configurations": [{"name": "ü 名"}]}',
        '{\r\n  "configurations": [\r\n    {"name": "x"}\r\n  ]\r\n}\r\n',
        '{"compounds": [{"configurations": ["x"]}], "configurations": []}',
        '{"a": "\\\\", "configurations": [{"b": "*/ /* //"}]}',
    ],
)
def test_many_ways_of_writing_the_file_are_understood(tmp_path: Path, text: str) -> None:
    path = launch(tmp_path, text)
    before = read_launch(text)
    write_launch(tmp_path, LISTEN)
    after = read_launch(path.read_bytes().decode())
    assert after == {**before, "configurations": [OURS, *before["configurations"]]}
    assert path.read_bytes().count(b"\r\n") == (path.read_bytes().count(b"\n") if "\r\n" in text else 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "{}",
        "not json",
        "[" * 100_000,
        '{"configurations": {}}',
        '{"configurations": [',
        '{"configurations": "["}',
        '{"configurations": [{"name": "Kairos: attach to replay"}]}',
        '{"configurations": [], "configurations": []}',
    ],
    ids=lambda text: text[:40],
)
def test_what_cannot_be_changed_safely_is_left_alone_with_the_text_to_paste(tmp_path: Path, text: str) -> None:
    path = launch(tmp_path, text)
    with pytest.raises(BreakpointError, match="was left alone") as caught:
        write_launch(tmp_path, LISTEN)
    assert path.read_text() == text
    hint = caught.value.hint or ""
    assert json.loads(hint[hint.index("{") :]) == OURS


def test_bytes_that_are_no_text_are_left_alone(tmp_path: Path) -> None:
    path = launch(tmp_path, "")
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(BreakpointError, match="was left alone"):
        write_launch(tmp_path, LISTEN)
    assert path.read_bytes() == b"\xff\xfe{}"


def test_a_linked_file_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text('{"configurations": []}')
    real.chmod(0o640)
    path = launch(tmp_path)
    path.parent.mkdir()
    path.symlink_to(real)
    write_launch(tmp_path, LISTEN)
    assert path.is_symlink()
    assert read_launch(real.read_text())["configurations"] == [OURS]
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == [".vscode", "real.json"]


def test_a_port_that_changes_each_time_cannot_be_written_down(tmp_path: Path) -> None:
    with pytest.raises(BreakpointError, match="needs a fixed port"):
        write_launch(tmp_path, ("127.0.0.1", 0))
    assert not launch(tmp_path).exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=3), st.lists(JSON, max_size=3), st.integers(0, 4))
def test_any_file_keeps_its_value(rest: dict[str, Any], configurations: list[Any], indent: int) -> None:
    text = json.dumps({**rest, "configurations": configurations}, indent=indent or None, ensure_ascii=False)
    after = _changed(text, OURS)
    _check(text, after, OURS)
    assert read_launch(after) == {**rest, "configurations": [OURS, *configurations]}
