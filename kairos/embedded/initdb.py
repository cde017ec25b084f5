"""The making of a new cluster: all of it, or nothing.

Owns: `initdb`, the two roles, their passwords, and the rename that makes the result visible.
Refuses: to touch a cluster that exists. The caller holds `start.lock`; so do the programs started in
here, so that the next one never clears away what a dead maker's child is still writing.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Final

from kairos.embedded import files, folders, locate, logfile, paths, privileges
from kairos.embedded.paths import Layout
from kairos.embedded.privileges import Identity, Mode
from kairos.errors import EmbeddedPostgresError

ADMIN: Final = "kairos_admin"
ROLE: Final = "kairos"
DATABASE: Final = "kairos"

# Defaults, so they go to postgresql.conf, where an owner may tune them (ALTER SYSTEM). Nothing in here
# weakens durability: fsync, synchronous_commit and full_page_writes are on, and said aloud.
_SETTINGS: Final = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "200",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


def create(layout: Layout, start_lock: int) -> None:
    """Make the cluster of `layout`, and return when it is on disk."""
    if os.path.lexists(layout.cluster):
        raise EmbeddedPostgresError(
            f"there is {layout.cluster}, but no database in {layout.home}",
            hint="Bring the data back (is a disk not mounted?), or remove the data folder to begin anew.",
            data_dir=layout.data_dir,
        )
    identity = privileges.choose(None)
    folders.name_instance(layout)
    try:
        home = _place(layout, identity)
        if not (home / "pgdata" / "PG_VERSION").is_file():
            _build(home, identity, start_lock)
        _publish(layout, home)
    except OSError as error:
        raise EmbeddedPostgresError(
            f"the database in {layout.data_dir} could not be created: {error}",
            hint="Free some disk space or fix the permissions, then start again: nothing is half done.",
            data_dir=layout.data_dir,
        ) from error


def _place(layout: Layout, identity: Identity) -> Path:
    """Where the cluster is to be: in the data folder, or outside when the server could not get there."""
    if identity.can_reach(layout.data_dir.parent):
        if identity.mode is Mode.SWITCH:
            layout.data_dir.chmod(0o711)
        return layout.cluster
    return privileges.system_dir() / layout.name


def _build(home: Path, identity: Identity, start_lock: int) -> None:
    """Make everything in a draft folder, then rename the draft to `home`."""
    draft = home.with_name(f"{home.name}.new")
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(mode=0o700)
    if identity.mode is Mode.SWITCH:
        draft.chmod(0o711)
    for name in ("pgdata", "run"):
        (draft / name).mkdir(mode=0o700)
        identity.own(draft / name)
    passwords = {role: secrets.token_urlsafe(32) for role in (ADMIN, ROLE)}
    for role, password in passwords.items():
        files.write_private(draft / paths.password_name(role), password)
    _run_initdb(draft, identity, start_lock, passwords[ROLE])
    draft.rename(home)
    files.sync_folder(home.parent)


def _run_initdb(draft: Path, identity: Identity, start_lock: int, password: str) -> None:
    """Run `initdb`, create our role and database in single-user mode, and force all of it to disk."""
    programs = privileges.reachable(locate.binaries(), identity)
    initdb, pgdata = str(programs.initdb), str(draft / "pgdata")
    settings = [part for name, value in _SETTINGS.items() for part in ("--set", f"{name}={value}")]
    secret = draft / paths.password_name(ADMIN)
    # Another account may read it for as long as initdb runs.
    identity.own(secret)
    command = [initdb, "-D", pgdata, "--username", ADMIN, "--pwfile", str(secret), "--auth=scram-sha-256"]
    # The builtin provider sorts alike on every system, whatever its libc.
    command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    _run([*command, "--no-instructions", "--no-sync", *settings], identity, start_lock)
    os.chown(secret, os.geteuid(), os.getegid())
    single = [str(programs.postgres), "--single", "-j", "-D", pgdata, "-c", "exit_on_error=on"]
    # An error would otherwise print the statement, with the password in it.
    single += ["-c", "log_min_error_statement=panic", "postgres"]
    _run(single, identity, start_lock, _bootstrap_sql(password))
    _run([initdb, "-D", pgdata, "--sync-only"], identity, start_lock)


def _bootstrap_sql(password: str) -> str:
    # Single-user mode with -j ends a statement at a semicolon and an empty line. The password is made of
    # letters, digits, - and _ only, and comes in through stdin, so no process list shows it.
    statements = (
        f"CREATE ROLE {ROLE} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '{password}'",
        f"CREATE DATABASE {DATABASE} OWNER {ADMIN}",
    )
    return "".join(f"{statement};\n\n" for statement in statements)


def _run(argv: list[str], identity: Identity, start_lock: int, stdin: str = "") -> None:
    """Run one program to its end and raise what it said when that was not good."""
    done = subprocess.run(
        identity.wrap(argv),
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd="/",
        umask=0o077,
        pass_fds=(start_lock,),
        start_new_session=True,
        **identity.popen_options(),
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise EmbeddedPostgresError(
            f"{Path(argv[0]).name} failed, exit code {done.returncode}: {logfile.last_complaint(said)}",
            hint=logfile.advice(said, Path("the output")),
            command=argv[0],
            output=said,
        )


def _publish(layout: Layout, home: Path) -> None:
    """Let `cluster` in the data folder lead to `home`, when it is not there already."""
    if home == layout.cluster:
        return
    link = layout.data_dir / "cluster.new"
    link.unlink(missing_ok=True)
    link.symlink_to(home)
    link.rename(layout.cluster)
    files.sync_folder(layout.data_dir)
