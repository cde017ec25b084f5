"""`kairos migrate` and `kairos embedded`: the database itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.text import Text

from kairos import embedded, settings
from kairos.cli import exits
from kairos.cli.grid import Column, print_grid
from kairos.cli.terminal import out, print_json, safe
from kairos.database import Database
from kairos.errors import KairosError
from kairos.store.connect import check_dsn
from kairos.store.migrate import migrate


def migrate_schema(*, grant_to: str | None, url: str | None, as_json: bool) -> int:
    """Apply what is missing and say what it was."""
    with Database(url) as database:  # an embedded one is migrated by being opened
        applied = migrate(check_dsn(database.admin_dsn), grant_to=grant_to, retention=settings.read("retention"))
    if as_json:
        listed = [{"version": m.version, "name": m.name, "checksum": m.checksum} for m in applied]
        print_json({"applied": listed, "granted_to": grant_to})
        return exits.OK
    console = out()
    for migration in applied:
        console.print(Text.assemble(("applied  ", "green"), migration.name))
    if not applied:
        console.print("The schema is up to date.")
    if grant_to is not None:
        console.print(Text.assemble(("granted  ", "green"), f"what workers and clients need, to {safe(grant_to)}"))
    return exits.OK


def embedded_status(*, as_json: bool) -> int:
    """Print what is known about the embedded server of this folder."""
    status = embedded.status(_folder())
    facts: dict[str, Any] = {
        "running": status.running,
        "version": status.version,
        "pid": status.postmaster_pid,
        "supervisor_pid": status.supervisor_pid,
        "users": status.users,
        "data_dir": str(status.data_dir),
        "socket_dir": None if status.socket_dir is None else str(status.socket_dir),
        "log": str(status.log_path),
    }
    if as_json:
        print_json(facts)
        return exits.OK
    console = out()
    if status.version is None:
        console.print(f"There is none in {status.data_dir} yet. It is made when it is first needed.", soft_wrap=True)
        return exits.OK
    state = ("running", "green") if status.running else ("stopped", "yellow")
    rows = [[Text("PostgreSQL", "dim"), Text.assemble(f"{status.version}  ", state)]]
    if status.running:
        users = "not known" if status.users is None else str(status.users)
        rows.append([Text("used by", "dim"), Text(f"{users} process{'' if status.users == 1 else 'es'}")])
        rows.append(
            [Text("pid", "dim"), Text(f"{status.postmaster_pid}, supervisor {status.supervisor_pid or 'gone'}")]
        )
    rows.append([Text("data", "dim"), Text(safe(status.data_dir))])
    rows.append([Text("log", "dim"), Text(safe(status.log_path))])
    print_grid(console, [Column(""), Column("")], rows, has_head=False)
    return exits.OK


def stop_embedded(*, force: bool, as_json: bool) -> int:
    """Stop the server; fine if it does not run."""
    try:
        was_running = embedded.stop(_folder(), force=force)
    except KairosError as exc:
        if exc.hint and not force:
            exc.hint = "Stop the workers and commands that use it, or pass --force: they lose their connections."
        raise
    if as_json:
        print_json({"stopped": was_running})
    else:
        out().print("stopped" if was_running else "It was not running.")
    return exits.OK


def _folder() -> Path:
    folder: Path = settings.read("data_dir")
    return folder.resolve()
