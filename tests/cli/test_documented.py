"""docs/cli.md names every command, exit code and kind of reason; its example commands can be parsed."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer

from kairos.cli import exits
from kairos.cli.commands import app
from tests.cli.cli_support import ROOT

PAGE = (ROOT / "docs" / "cli.md").read_text("utf-8")
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def examples() -> list[str]:
    """What stands after `$ ` in the code blocks, up to a pipe."""
    blocks = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    found = [re.search(r"\bkairos .*?(?= [|&]|$)", line) for line in lines]
    return [match[0] for match in found if match]


def test_every_command_is_described() -> None:
    for name, command in COMMANDS.items():
        names = [f"{name} {inner}" for inner in getattr(command, "commands", {})] or [name]
        for full in names:
            assert f"`kairos {full}" in PAGE, f"docs/cli.md does not describe {full}"
            assert any(line.startswith(f"kairos {name}") for line in examples())


@pytest.mark.parametrize("line", examples())
def test_every_example_can_be_parsed(line: str) -> None:
    name, *arguments = shlex.split(line)[1:]
    command = COMMANDS[name]
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    command.make_context(name, arguments)


def test_every_exit_code_is_named() -> None:
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    listed = re.search(r"\*\*Exit codes\*\*: (.*?)\n- ", PAGE, re.DOTALL)
    assert listed is not None
    named = {int(number) for number in re.findall(r"(?:^|· )(\d+)", listed[1].replace("\n ", ""))}
    assert named == codes - {exits.BROKEN_PIPE}


def test_every_kind_of_reason_is_named() -> None:
    sources = [path.read_text("utf-8") for path in (ROOT / "kairos" / "diagnosis").glob("*.py")]
    kinds = {kind for text in sources for kind in re.findall(r'Reason\(\s*"(\w+)"', text)}
    assert kinds
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in PAGE] == []
