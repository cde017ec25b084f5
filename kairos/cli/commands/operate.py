"""Declares the commands for whoever operates Kairos: migrate, retention, keep, config, embedded, version."""

from __future__ import annotations

from typing import Annotated

import typer

from kairos.cli.commands import options as o
from kairos.cli.commands.grouped import group


def migrate(
    *,
    grant_to: Annotated[
        str | None,
        typer.Option(metavar="ROLE", help="A role for workers and clients: it gets what they need, and no more."),
    ] = None,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """Bring the database schema up to date."""
    from kairos.cli.operating import migrate_schema

    return migrate_schema(grant_to=grant_to, url=database_url, as_json=json)


def retention(
    *,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="30d",
            help="Remove runs that ended longer ago than this. Default: KAIROS_RETENTION; without it nothing goes.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """Remove runs that ended long ago, and make room for new ones.

    Makes partitions of the log for the time to come, and drops those whose time is over. Run it daily.
    """
    from kairos.cli.retaining import remove_runs

    return remove_runs(older_than=older_than, is_dry=dry_run, url=database_url, as_json=json)


def keep(
    run: o.Run,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; for whoever finds it later.")] = "",
    release: Annotated[bool, typer.Option("--release", help="Keep it no longer.")] = False,
    database_url: o.Url = None,
    json: o.Json = False,
) -> int:
    """Have retention leave a run alone, for ever."""
    from kairos.cli.retaining import keep_run

    return keep_run(run, reason=reason, release=release, url=database_url, as_json=json)


def config(*, app: o.AppSpec = None, json: o.Json = False) -> int:
    """Every setting: value, default, where it comes from."""
    from kairos.cli.configuration import show_config

    return show_config(app=app, as_json=json)


def version(*, json: o.Json = False) -> int:
    """The version of Kairos."""
    from kairos.cli.release import show_version

    return show_version(as_json=json)


embedded = group("The embedded Postgres of this folder: status, stop.")


@embedded.command()
def status(*, json: o.Json = False) -> int:
    """Whether it runs, who uses it, where its data and log are."""
    from kairos.cli.operating import embedded_status

    return embedded_status(as_json=json)


@embedded.command()
def stop(
    *,
    force: Annotated[bool, typer.Option("--force", help="Even while others use it.")] = False,
    json: o.Json = False,
) -> int:
    """Stop it. It starts again when it is next needed."""
    from kairos.cli.operating import stop_embedded

    return stop_embedded(force=force, as_json=json)


def register(app: typer.Typer) -> None:
    """Add these commands to the tree."""
    for command in (migrate, retention, keep, config, version):
        app.command(rich_help_panel=o.OPERATING)(command)
    app.add_typer(embedded, name="embedded", rich_help_panel=o.OPERATING)
