"""Declares the commands that check: verify, diff, doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from kairos.cli.commands import options as o


def verify(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN|FILE]", help="One run, or one bundle; default: all runs.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every run of the database.")] = False,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """Prove that histories are whole.

    Checks numbering, hash chain, rules, stored state, payloads and tasks. Exit code 0 if all is whole, else 1.
    A bundle (`kairos export`) is checked offline, without a database.
    """
    from kairos.cli.sources import is_file

    if run is not None and not every and is_file(run):
        from kairos.cli.verifying import verify_file

        return verify_file(run, as_json=json)
    from kairos.cli.verifying import verify_runs

    return verify_runs(None if every else run, url=database_url, as_json=json)


def diff(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="A run, or a bundle.")],
    run_b: Annotated[str | None, typer.Argument(metavar="[RUN_B]", help="Another one.", show_default=False)] = None,
    *,
    last_good: Annotated[
        bool, typer.Option("--last-good", help="Compare with the last run of the same workflow that is DONE.")
    ] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Does not count: created_at, items[*].id, **.trace_id. May be repeated."),
    ] = None,
    code: Annotated[bool, typer.Option("--code", help="Show how the source of each step changed.")] = False,
    all_steps: Annotated[bool, typer.Option("--all", help="Every step, however many there are.")] = False,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """Compare two runs, step by step, and name the first that differs.

    Status, times, inputs, outputs, errors, effects and code, aligned by step name. Exit code 0 if they are the same
    (times, attempts and code aside), else 1.
    """
    from kairos.cli.diffing import diff as compare

    return compare(
        run_a,
        run_b,
        last_good=last_good,
        ignore=ignore or [],
        code=code,
        all_steps=all_steps,
        url=database_url,
        as_json=json,
    )


def doctor(*, database_url: o.Url = None, json: o.Json = False) -> int:
    """Look for what is wrong, or soon will be.

    Examines server, schema, rights, connection, workers, versions, queues and runs. Exit code 1 if there is an error.
    """
    from kairos.cli.consulting import consult

    return consult(url=database_url, as_json=json)


def register(app: typer.Typer) -> None:
    """Add these commands to the tree."""
    for command in (verify, diff, doctor):
        app.command(rich_help_panel=o.CHECKING)(command)
