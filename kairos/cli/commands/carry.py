"""Declares the commands that carry runs from place to place: export, import."""

from __future__ import annotations

from typing import Annotated

import typer

from kairos.cli.commands import options as o


def export(
    run: o.Run,
    *,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Default: WORKFLOW-ID.kairos, here.", show_default=False),
    ] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="Blank this field wherever it stands, and its values elsewhere; `*` is wild, /.../ is a pattern. "
            "May be repeated.",
        ),
    ] = None,
    no_payloads: Annotated[
        bool, typer.Option("--no-payloads", help="Blank every input, output, effect, error text and log line.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """Write a run to one file: events, values, definition with sources.

    The file is readable by you alone, and by every machine with Kairos: `kairos replay FILE`, `kairos show FILE`.
    """
    from kairos.cli.exporting import export_run

    return export_run(
        run,
        output=output,
        redact=redact or [],
        payloads=not no_payloads,
        force=force,
        url=database_url,
        as_json=json,
    )


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A bundle that `kairos export` wrote.")],
    *,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """Take the run of a bundle into this database, as evidence.

    It keeps its id and can be looked at, compared, replayed and forked; no worker takes it up. Its history is
    checked first.
    """
    from kairos.cli.importing import import_file

    return import_file(file, url=database_url, as_json=json)


def register(app: typer.Typer) -> None:
    """Add these commands to the tree."""
    app.command(rich_help_panel=o.CARRYING)(export)
    app.command("import", rich_help_panel=o.CARRYING)(import_)
