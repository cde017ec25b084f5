"""Declares the commands that show runs: ui, runs, show, events, state, watch, why, workflows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kairos.cli.commands import options as o


def runs(
    *,
    workflow: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this workflow.")] = None,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", "-s", metavar="STATUS", help="failed, running, ...; may be repeated."),
    ] = None,
    key: Annotated[str | None, typer.Option(metavar="TEXT", help="Only the runs with this idempotency key.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this queue.")] = None,
    version: Annotated[
        str | None, typer.Option(metavar="ID", help="Only runs of this version: its whole fingerprint.")
    ] = None,
    step: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs that failed at this step.")] = None,
    error: Annotated[str | None, typer.Option(metavar="TEXT", help="Part of the error that ended the run.")] = None,
    group: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The error's fingerprint: 'workflow|step|type'.")
    ] = None,
    unrepaired: Annotated[
        bool, typer.Option("--unrepaired", help="Failed or expired, and no fork of it is done.")
    ] = False,
    input: Annotated[
        str | None,
        typer.Option("--input", metavar="PATH=VALUE|TEXT", help="Given this: reads the newest 5,000 runs at most."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="2h|TIME", help="Created at or after: 2h ago, or ISO 8601.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="2h|TIME", help="Created before.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=1000, help="Runs per page, at most 1000.")
    ] = 20,
    before: Annotated[str | None, typer.Option(metavar="RUN", help="The next page: runs older than this one.")] = None,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """List runs, newest first."""
    from kairos.cli.listing import Request, list_runs

    wanted = Request(
        workflow=workflow, statuses=tuple(status or ()), key=key, labels=tuple(label or ()), queue=queue,
        version=version, step=step, error=error, group=group, unrepaired=unrepaired, input=input, since=since,
        until=until, before=before, limit=limit,
    )  # fmt: skip
    return list_runs(wanted, url=database_url, as_json=json)


def show(
    run: o.RunOrFile,
    *,
    all_steps: Annotated[bool, typer.Option("--all", help="Every step, however many there are.")] = False,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """One run on one page: steps, attempts, timeline, error, output."""
    from kairos.cli.showing import show_run

    return show_run(run, url=database_url, as_json=json, all_steps=all_steps)


def events(
    run: o.RunOrFile,
    *,
    after: Annotated[int, typer.Option(metavar="SEQ", min=0, help="Only events after this number.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    step: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only events of this step; may be repeated.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="Only this kind, such as step_failed; may be repeated.")
    ] = None,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """The history of a run, event by event."""
    from kairos.cli.history import EventFilter, show_events

    wanted = EventFilter(after, frozenset(step or ()), frozenset(kind or ()))
    return show_events(run, wanted, follow=follow, url=database_url, as_json=json)


def state(
    run: o.RunOrFile,
    *,
    at: Annotated[int | None, typer.Option(metavar="SEQ", min=0, help="After this event; default: now.")] = None,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """The run as it stood after event SEQ."""
    from kairos.cli.past import show_state

    return show_state(run, at=at, url=database_url, as_json=json)


def watch(
    run: o.Run,
    *,
    timeout: Annotated[str | None, typer.Option(metavar="30s", help="Give up after this; exit code 124.")] = None,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """Follow a run live, to its end.

    Exit code: 0 done, 10 failed, 11 cancelled, 12 expired, 124 still going on after --timeout.
    """
    from kairos.cli.watching import watch_run

    return watch_run(run, timeout=timeout, url=database_url, as_json=json)


def why(run: o.Run, *, database_url: o.Url = None, json: o.Json = False) -> int:
    """Say what a run waits for, in one sentence."""
    from kairos.cli.reasons import tell_why

    return tell_why(run, url=database_url, as_json=json)


def workflows(*, database_url: o.Url = None, json: o.Json = False) -> int:
    """Registered workflows, who serves them, what waits."""
    from kairos.cli.registry import list_workflows

    return list_workflows(url=database_url, as_json=json)


def ui(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Open at this run: a part of its id, or `last`.")
    ] = None,
    *,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", metavar="FILE", help="Open a bundle, without a database; may be repeated."),
    ] = None,
    trace: Annotated[
        list[Path] | None,
        typer.Option("--trace", metavar="FILE", help="Open a line trace (.ktrace); may be repeated."),
    ] = None,
    app: Annotated[
        str | None,
        typer.Option(
            "--app",
            metavar="MODULE:APP",
            help="Hold recorded code against this app. It is imported in a guarded child process.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; others than loopback need KAIROS_UI_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, max=65535, help="Default: the first free one from 8484; 0: any.", show_default=False
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Answer for this host name too; may be repeated."),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Offer nothing that changes something.")] = False,
    database_url: o.Url = None,
) -> int:
    """The time-travel debugger in the browser.

    With --file or --trace no database is opened, unless a RUN or --database-url is given as well. Bundles come from
    `kairos export`, traces from `kairos replay RUN --trace STEP --trace-out FILE`.
    """
    from kairos.cli.debugger import serve_ui

    return serve_ui(
        run,
        files=(*(file or ()), *(trace or ())),
        app=app,
        host=host,
        port=port,
        allow_hosts=tuple(allow_host or ()),
        opens=open_,
        read_only=read_only,
        url=database_url,
    )


def register(app: typer.Typer) -> None:
    """Add these commands to the tree."""
    for command in (ui, runs, show, watch, why, events, state, workflows):
        app.command(rich_help_panel=o.LOOKING)(command)
