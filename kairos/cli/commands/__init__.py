"""The tree of commands: names, arguments, help. What they do stands in the modules of `kairos.cli`.

Nothing heavy is imported here: a command imports what does its work when it is called.
"""

from __future__ import annotations

from typing import Annotated

import typer

from kairos import settings
from kairos.cli.commands import check, look, operate, start

app = typer.Typer(
    name="kairos",
    help="Durable workflows on Postgres, with a time-travel debugger.",
    epilog="A run is named by any unique beginning or end of its id, or by `last`. Most commands take --json.",
    no_args_is_help=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# These work, or help, even when a setting is malformed.
_TOLERANT = ("config", "version")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """Durable workflows on Postgres, with a time-travel debugger."""
    if version:
        operate.version()
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit
    if context.invoked_subcommand not in _TOLERANT:
        settings.read_all()


start.register(app)
look.register(app)
check.register(app)
operate.register(app)
