"""Declares the commands that run recorded runs again: replay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kairos.cli.commands import options as o


def replay(
    run: Annotated[
        str, typer.Argument(metavar="RUN|FILE", help="Beginning or end of a run's id, `last`, or a bundle file.")
    ],
    *,
    mode: Annotated[
        str, typer.Option(metavar="verify|propagate|live", help="What each step gets, and whether effects happen.")
    ] = "verify",
    serve: Annotated[
        list[str] | None, typer.Option(metavar="STEP", help="Do not run it, take its recorded output; repeatable.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="STEP", help="Run nothing after this step.")] = None,
    only: Annotated[str | None, typer.Option(metavar="STEP", help="Run nothing but this step.")] = None,
    attempt: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Replay this attempt; default: each step's last.")
    ] = None,
    fork_from: Annotated[
        str | None, typer.Option(metavar="STEP", help="Run this step and what follows, on new outputs; nothing above.")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH=VALUE", help="With --fork-from: change the input, or an output above; repeatable."),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP=JSON|@FILE", help="With --fork-from: take this for the step's output; repeatable."),
    ] = None,
    submit: Annotated[
        bool, typer.Option("--submit", help="With --fork-from: start that fork on the server, if all went well here.")
    ] = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="With --submit: kept in the fork's history.")] = "",
    break_at: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP[:LINE|:+N]", help="Stop in pdb, inside the step's function; repeatable."),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            "--if", metavar="EXPR", help="With --break-at: only where this is true; one for all, or one each."
        ),
    ] = None,
    break_on: Annotated[
        list[str] | None,
        typer.Option(metavar="fail|diverge", help="Stop where a step raises, or differs from its record; repeatable."),
    ] = None,
    post_mortem: Annotated[
        bool, typer.Option("--post-mortem", help="Run the failed step to its exception, and stand there.")
    ] = False,
    debugger: Annotated[
        str, typer.Option(metavar="pdb|debugpy", help="Where it stops: this terminal, or an editor that attaches.")
    ] = "pdb",
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where debugpy waits, on this machine; default 127.0.0.1:5678, 0: any."),
    ] = None,
    write_vscode: Annotated[
        bool, typer.Option("--write-vscode", help="Put what VS Code needs to attach into .vscode/launch.json.")
    ] = False,
    timeout: Annotated[
        str | None, typer.Option(metavar="30s", help="Stop a step after this long. Default: never; Ctrl-C does.")
    ] = None,
    allow_network: Annotated[
        list[str] | None, typer.Option(metavar="HOST[:PORT]", help="A destination that may be reached; repeatable.")
    ] = None,
    allow_writes: Annotated[
        list[str] | None, typer.Option(metavar="DIR", help="A folder that may be written to; repeatable.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A variable that your code gets to see; repeatable.")
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Differences there do not count: items[*].id, **.at; repeatable."),
    ] = None,
    show_code: Annotated[bool, typer.Option("--show-code", help="Show how the source of steps has changed.")] = False,
    require_isolation: Annotated[
        str | None, typer.Option(metavar="strict", help="Refuse to run where a guard cannot be had.")
    ] = None,
    trace: Annotated[
        str | None, typer.Option(metavar="STEP", help="Record this step line by line, then step through it backwards.")
    ] = None,
    trace_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --trace: keep what was recorded; see `kairos trace`.")
    ] = None,
    trace_into: Annotated[
        list[str] | None, typer.Option(metavar="PKG", help="With --trace: record this package too; repeatable.")
    ] = None,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="With --trace-out: step through it as well; implied without.")
    ] = False,
    dap: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="With --trace: serve it to an IDE, which steps back."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before live mode.")] = False,
    app: o.AppSpec = None,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """Run a recorded run again, here, with your code.

    Each step's function runs on its recorded input; effects are answered from the log, and what would leave the
    process is stopped. Nothing is written. Exit code: 0 same or fixed, 1 diverged or failed anew, 2 usage, 3 stopped
    by a guard, 4 no such run, or unreadable.
    """
    from kairos.cli.replay_request import Request
    from kairos.cli.replaying import replay_run
    from kairos.cli.stopping import Stopping
    from kairos.cli.tracing import looking_back

    back = looking_back(trace, out=trace_out, into=trace_into or (), reverse=reverse, port=dap, as_json=json)
    request = Request(
        run=run,
        mode=mode,
        serve=tuple(serve or ()),
        until=until,
        only=only,
        attempt=attempt,
        fork_from=fork_from,
        set=tuple(set or ()),
        output=tuple(output or ()),
        submit=submit,
        reason=reason,
        stops=Stopping(
            break_at=tuple(break_at or ()),
            conditions=tuple(condition or ()),
            break_on=tuple(break_on or ()),
            post_mortem=post_mortem,
            debugger=debugger,
            listen=listen,
            write_vscode=write_vscode,
        ),
        timeout=timeout,
        allow_network=tuple(allow_network or ()),
        allow_writes=tuple(allow_writes or ()),
        env=tuple(env or ()),
        ignore=tuple(ignore or ()),
        show_code=show_code,
        isolation=require_isolation,
        yes=yes,
        app=app,
        url=database_url,
        as_json=json,
        trace={} if back is None else {"step": back.step, "into": tuple(trace_into or ())},
        looking_back=back,
    )
    return replay_run(request)


def register(app: typer.Typer) -> None:
    """Add these commands to the tree."""
    for command in (replay,):
        app.command(rich_help_panel=o.REPLAYING)(command)
