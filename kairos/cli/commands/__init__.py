"""The tree of commands: names, arguments, help. What they do stands in the modules of `kairos.cli`.

Nothing heavy is imported here: a command imports what does its work when it is called.
"""

from __future__ import annotations

from copy import copy
from typing import Annotated

import typer

from kairos import settings
from kairos.cli.commands import backtest, carry, check, forks, look, operate, replay, start, tracing
from kairos.cli.commands.grouped import group

app = group("Durable workflows on Postgres, with a time-travel debugger.", is_root=True)

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


def only(name: str) -> typer.Typer:
    """The tree with this command alone, if it has it: typer reads the signature of each command that it is given."""
    chosen = [c for c in app.registered_commands if c.callback is not None and (c.name or c.callback.__name__) == name]
    if not chosen:
        return app
    pruned = copy(app)
    pruned.registered_commands, pruned.registered_groups = chosen, []
    return pruned


start.register(app)
forks.register(app)
look.register(app)
carry.register(app)
replay.register(app)
tracing.register(app)
backtest.register(app)
check.register(app)
operate.register(app)
