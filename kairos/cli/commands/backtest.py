"""Declares the commands that hold recorded runs against today's code: backtest, pytest."""

from __future__ import annotations

from typing import Annotated

import typer

from kairos.cli.commands import options as o


def backtest(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow whose runs are replayed.")],
    *,
    last: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="The newest N runs. Default: 100, or all of --since.", show_default=False
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="7d|TIME", help="Created at or after: 7d ago, or ISO 8601.")
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status", "-s", metavar="STATUS", help="failed, done, ...; repeatable. Default: all that ended."
        ),
    ] = None,
    mode: Annotated[
        str, typer.Option(metavar="verify|propagate", help="What each step gets; as in replay.")
    ] = "verify",
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="Differences there do not count; repeatable.")
    ] = None,
    junit: Annotated[str | None, typer.Option(metavar="FILE", help="Write JUnit XML: a test case per run.")] = None,
    timeout: Annotated[str, typer.Option(metavar="60s", help="Stop a step that takes longer.")] = "60s",
    allow_network: Annotated[
        list[str] | None, typer.Option(metavar="HOST[:PORT]", help="Let steps reach it; repeatable.")
    ] = None,
    allow_writes: Annotated[
        list[str] | None, typer.Option(metavar="DIR", help="Let steps write there; repeatable.")
    ] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Pass this variable on; repeatable.")] = None,
    require_isolation: Annotated[
        str | None, typer.Option(metavar="strict", help="Refuse to run if a guard is not to be had.")
    ] = None,
    app: o.AppSpec = None,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """Replay many recorded runs with the code at hand: what would come out differently, step by step.

    Exit code: 0 all the same or fixed, 1 some diverged or failed anew, 2 usage, 3 stopped by a guard, 4 no run, or
    one that cannot be read.
    """
    from kairos.cli.backtesting import Request, run_backtest

    request = Request(
        workflow=workflow,
        last=last,
        since=since,
        status=tuple(status or ()),
        mode=mode,
        ignore=tuple(ignore or ()),
        junit=junit,
        timeout=timeout,
        allow_network=tuple(allow_network or ()),
        allow_writes=tuple(allow_writes or ()),
        env=tuple(env or ()),
        isolation=require_isolation,
        app=app,
        url=database_url,
        as_json=json,
    )
    return run_backtest(request)


def pin(
    run: Annotated[
        str, typer.Argument(metavar="RUN|FILE", help="Beginning or end of a run's id, `last`, or a bundle file.")
    ],
    *,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="DIR", help="Default: tests/ if there is one, else here."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="Differences there do not count; repeatable.")
    ] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Blank this field in the bundle, as in `kairos export`; repeatable."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    app: o.AppSpec = None,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """Write a regression test from a run: it pins what each step returned.

    The test is a file for pytest, with the recorded run in a bundle beside it; neither needs a database.
    """
    from kairos.cli.pinning import Request, pin_run

    request = Request(
        run=run,
        output=output,
        ignore=tuple(ignore or ()),
        redact=tuple(redact or ()),
        force=force,
        app=app,
        url=database_url,
        as_json=json,
    )
    return pin_run(request)


def register(app: typer.Typer) -> None:
    """Add these commands to the tree."""
    app.command(rich_help_panel=o.REPLAYING)(backtest)
    app.command("pytest", rich_help_panel=o.REPLAYING)(pin)
