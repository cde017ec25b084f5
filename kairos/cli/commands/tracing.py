"""Declares the command that opens a recorded trace: trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kairos.cli.commands import options as o


def trace(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .ktrace file.", show_default=False)],
    *,
    dap: Annotated[
        int | None,
        typer.Option(
            "--dap", metavar="PORT", min=0, max=65535, help="Serve it to an IDE on this port; 0: any free one."
        ),
    ] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="Plain text.")] = False,
    json: o.Json = False,
) -> int:
    """Step backwards and forwards through a recorded step."""
    from kairos.cli.tracing import open_trace

    return open_trace(file, port=dap, color=not no_color, as_json=json)


def register(app: typer.Typer) -> None:
    """Add these commands to the tree."""
    app.command(rich_help_panel=o.LOOKING)(trace)
