"""`kairos ui`: the debugger in the browser, for as long as the command runs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from rich.text import Text

from debugger_ui.serving import Address, Server, open_socket
from kairos import settings
from kairos.cli import exits, words
from kairos.cli.apps import AppChoice, choose_app, find_source
from kairos.cli.configuration import mask
from kairos.cli.database import PATIENCE, open_existing
from kairos.cli.failures import short_path
from kairos.cli.terminal import err, one_line
from kairos.database import Database
from kairos.store.connect import Session
from kairos.store.reader import Reader

if TYPE_CHECKING:
    from debugger_ui.current import CurrentCode
    from debugger_ui.opened import Files


def serve_ui(
    run: str | None,
    *,
    files: Sequence[Path] = (),
    app: str | None = None,
    host: str,
    port: int | None,
    allow_hosts: tuple[str, ...],
    opens: bool,
    read_only: bool,
    url: str | None,
) -> int:
    """Serve until Ctrl-C. Raises BundleError or TraceError if one of `files` cannot be opened."""
    address = Address(host, port, allow_hosts, settings.read("ui_token") or None)
    address.access()
    code = None if app is None else _code_of(app)
    opened = _open_files(files, is_alone=run is None and url is None)
    with _database(url, opened) as database, contextlib.closing(open_socket(address)) as listening:
        path = "/" if run is None or database is None else asyncio.run(_path_of(database, run))
        if run is None and opened is not None:
            path = opened.all[0].href if len(opened.all) == 1 else "/open"
        dsn = None if database is None else database.dsn
        server = Server(address, dsn, listening, may_act=not read_only, files=opened, code=code)
        server.on_ready = lambda: _greet(server, database, address, path, opens, opened)
        asyncio.run(_serve(server))
    return exits.OK


def _open_files(paths: Sequence[Path], *, is_alone: bool) -> Files | None:
    if not paths:
        return None
    from debugger_ui.opened import Files

    files = Files(is_alone=is_alone)
    for path in paths:
        files.open_path(path)
    return files


@contextlib.contextmanager
def _database(url: str | None, files: Files | None) -> Iterator[Database | None]:
    """The database; None if there are files and nothing else was asked for."""
    if files is not None and files.is_alone:
        yield None
        return
    with open_existing(url) as database:
        yield database


def _code_of(spec: str) -> CurrentCode:
    from debugger_ui.current import CurrentCode

    choice = choose_app(spec) or AppChoice(spec, "--app")
    return CurrentCode(choice.spec, find_source(choice))


async def _serve(server: Server) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    await server.run_until_told()


async def _path_of(database: Database, run: str) -> str:
    session = Session(database.dsn, "kairos ui", patience=PATIENCE)
    try:
        return f"/runs/{await Reader(session).find(run)}"
    finally:
        await session.close()


def _greet(
    server: Server, database: Database | None, address: Address, path: str, opens: bool, files: Files | None
) -> None:
    console = err()
    console.print(Text.assemble(("kairos ui", "bold"), ("   Ctrl-C stops", "dim")))
    console.print(Text.assemble(("  debugger  ", "dim"), (server.url + path, "bold cyan")), soft_wrap=True)
    for opened in files.all if files is not None else ():
        what = f"{words.plural(opened.events, 'event')}, {words.size(opened.size)}"
        console.print(
            Text.assemble(("  file      ", "dim"), one_line(opened.name), (f"  {what}", "dim")), soft_wrap=True
        )
    console.print(Text.assemble(("  database  ", "dim"), _where(database)), soft_wrap=True)
    if address.token:
        console.print(Text.assemble(("  access    ", "dim"), "asks for KAIROS_UI_TOKEN"))
    if opens:
        query = f"?{urlencode({'token': address.token})}" if address.token else ""
        webbrowser.open(server.url + path + query)


def _where(database: Database | None) -> str:
    if database is None:
        return "none: files alone"
    if database.is_embedded:
        return f"embedded PostgreSQL in {short_path(str(settings.read('data_dir')))}"
    return mask(database.dsn)
