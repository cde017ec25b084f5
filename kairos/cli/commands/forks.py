"""Declares the commands that continue runs elsewhere: fork, lineage."""

from __future__ import annotations

from typing import Annotated

import typer

from kairos.cli.commands import options as o


def fork(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Beginning or end of a run's id, or `last`.", show_default=False),
    ] = None,
    *,
    from_step: Annotated[
        str,
        typer.Option("--from", metavar="STEP", help="Where to go on. With --where, `failed`: where each run failed."),
    ],
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Change the input or a step's output: input.amount=5, reserve.items[0].price=9.5; may be repeated.",
        ),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            metavar="STEP=JSON|@FILE",
            help="An output for a step, which then does not run; may be repeated.",
        ),
    ] = None,
    version: Annotated[
        str,
        typer.Option(metavar="latest|pinned|ID", help="The code to run: the latest, the run's own, or that version."),
    ] = "latest",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Kept in the fork's history.")] = "",
    key: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Idempotency key: the same fork with the same key is one run.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be reused and what would run.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end and print the output.")] = False,
    timeout: Annotated[
        str | None, typer.Option(metavar="30s", help="With --wait: how long at most; exit code 124 after that.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="'NAME=VALUE ...'", help="Fork many runs: 'workflow=fulfil status=failed step=charge since=2h'."
        ),
    ] = None,
    canary: Annotated[
        int, typer.Option(metavar="N", min=0, help="With --where: fork so many first, and wait for them.")
    ] = 1,
    rate: Annotated[
        str | None, typer.Option(metavar="10/s", help="With --where: at most so many forks a second (or /m, /h).")
    ] = None,
    stop_if_failed: Annotated[
        str, typer.Option(metavar="5%", help="With --where: stop when more than this share of the forks has failed.")
    ] = "5%",
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", metavar="N", min=1, help="With --where: at most so many runs, newest first."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --where: do not ask.")] = False,
    app: o.AppSpec = None,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """Start a new run that goes on where another one stood.

    What is done upstream is taken over by reference and does not run again; the other run does not change.
    """
    from kairos.cli.forking import Edits, fork_run

    edits = Edits(from_step, tuple(set or ()), tuple(output or ()), version, reason)
    if where is not None:
        from kairos.cli.bulk import BulkRequest, fork_many

        given = BulkRequest(
            run, where, canary, rate, stop_if_failed, limit, yes, dry_run, key, wait or timeout is not None
        )
        return fork_many(given, edits, app=app, url=database_url, as_json=json)
    return fork_run(
        run, edits, key=key, is_dry=dry_run, wait=wait, timeout=timeout, app=app, url=database_url, as_json=json
    )


def lineage(run: o.Run, *, database_url: o.Url = None, json: o.Json = False) -> int:
    """The tree of forks that a run belongs to, with outcomes."""
    from kairos.cli.lineage import show_lineage

    return show_lineage(run, url=database_url, as_json=json)


def register(app: typer.Typer) -> None:
    """Add these commands to the tree."""
    app.command(rich_help_panel=o.RUNNING)(fork)
    app.command(rich_help_panel=o.LOOKING)(lineage)
