"""Help without boxes: commands in groups, as plain aligned text. Loads nothing but typer."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

EPILOG = "RUN is any unique beginning or end of a run's id, or `last`. Most commands take --json."


class Grouped(TyperGroup):
    """Lists its commands under the headings that they were registered with, in order of registration."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in order of registration, not of the alphabet."""
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """One section per heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is None or command.hidden:
                continue
            heading = getattr(command, "rich_help_panel", None)
            title = heading if isinstance(heading, str) else "Commands"
            sections.setdefault(title, []).append((name, command.get_short_help_str(limit=72)))
        width = max((len(name) for rows in sections.values() for name, _ in rows), default=0)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows])


def group(help: str, *, is_root: bool = False) -> typer.Typer:
    """A group of commands in this style."""
    return typer.Typer(
        name="kairos" if is_root else None,
        cls=Grouped,
        help=help,
        epilog=EPILOG if is_root else None,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=not is_root,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
