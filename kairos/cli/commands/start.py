"""Declares the commands that make things run: demo, dev, run, cancel, worker."""

from __future__ import annotations

from typing import Annotated

import typer

from kairos.cli.commands import options as o


def demo(*, database_url: o.Url = None) -> int:
    """Run a workflow, kill its worker, see it recover. Half a minute."""
    from kairos.cli.demo import run_demo

    return run_demo(url=database_url)


def dev(
    *,
    app: o.AppSpec = None,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=10_000, help="Steps at once. Default: KAIROS_CONCURRENCY.")
    ] = None,
    queues: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Queues to serve; default: all that the app uses.", show_default=False),
    ] = None,
    ui: Annotated[bool, typer.Option("--ui/--no-ui", help="Run the debugger beside the worker.")] = True,
    database_url: o.Url = None,
) -> int:
    """Database, worker and debugger in one terminal; reloads when you save."""
    from kairos.cli.development import develop

    return develop(app=app, concurrency=concurrency, queues=queues, url=database_url, with_ui=ui)


def run(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="Name of a workflow or job.")],
    *,
    input: Annotated[
        str | None,
        typer.Option("--input", "-i", metavar="JSON|@FILE|-", help="The input: JSON, @file, or - for standard input."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end and print the output.")] = False,
    timeout: Annotated[
        str | None, typer.Option(metavar="30s", help="With --wait: how long at most; exit code 124 after that.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Idempotency key: the same key is the same run.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="Another queue than the workflow's.")] = None,
    priority: Annotated[int | None, typer.Option(metavar="1-10", min=1, max=10, help="Higher goes first.")] = None,
    ttl: Annotated[str | None, typer.Option(metavar="1h", help="How long it may wait for a worker.")] = None,
    app: o.AppSpec = None,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """Start a run of a workflow or job.

    With an app its definition and types are used; without one, the version that workers announced last.
    """
    from kairos.cli.starting import StartRequest, start_run

    request = StartRequest(workflow, input, key, tuple(label or ()), queue, priority, ttl)
    return start_run(request, app=app, url=database_url, wait=wait, timeout=timeout, as_json=json)


def cancel(
    run: o.Run,
    *,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Kept in the run's history.")
    ] = "cancelled from the command line",
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """Stop a run: nothing new starts, running steps are told."""
    from kairos.cli.starting import cancel_run

    return cancel_run(run, reason, url=database_url, as_json=json)


def worker(
    *,
    app: o.AppSpec = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes", "-p", metavar="N", min=1, max=256, help="Processes. Default: KAIROS_PROCESSES, else 1."
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            "-c",
            metavar="N",
            min=1,
            max=10_000,
            help="Steps at once in each process. Default: KAIROS_CONCURRENCY, else 100.",
        ),
    ] = None,
    queues: Annotated[
        str | None,
        typer.Option("--queues", "-q", metavar="A,B", help="Queues to serve. Default: KAIROS_QUEUES, else default."),
    ] = None,
    lease: Annotated[
        str | None, typer.Option(metavar="15s", help="A silent worker is given up after this. Default: KAIROS_LEASE.")
    ] = None,
    drain_timeout: Annotated[
        str | None,
        typer.Option(metavar="30s", help="What running steps get at the end. Default: KAIROS_DRAIN_TIMEOUT."),
    ] = None,
    log_format: o.LogFormat = "text",
    database_url: o.Url = None,
) -> int:
    """Run the app's workflows until stopped.

    Ctrl-C (or SIGTERM) lets running steps end and gives the rest back; a second one stops at once. A worker process
    that dies is replaced, and its work goes on without waiting for its lease.
    """
    from kairos.cli.workers import work

    given = {"queues": queues, "concurrency": concurrency, "lease": lease, "drain_timeout": drain_timeout}
    return work(app=app, processes=processes, given=given, log_format=log_format, url=database_url)


def register(app: typer.Typer) -> None:
    """Add these commands to the tree."""
    for command in (demo, dev, worker, run, cancel):
        app.command(rich_help_panel=o.RUNNING)(command)
