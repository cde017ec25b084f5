"""`kairos ui`: the debugger in the browser, for as long as the command runs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import webbrowser
from urllib.parse import urlencode

from rich.text import Text

from debugger_ui.serving import Address, Server, open_socket
from kairos import settings
from kairos.cli import exits
from kairos.cli.configuration import mask
from kairos.cli.database import PATIENCE, open_existing
from kairos.cli.failures import short_path
from kairos.cli.terminal import err
from kairos.database import Database
from kairos.store.connect import Session
from kairos.store.reader import Reader


def serve_ui(
    run: str | None,
    *,
    host: str,
    port: int | None,
    allow_hosts: tuple[str, ...],
    opens: bool,
    read_only: bool,
    url: str | None,
) -> int:
    """Serve until Ctrl-C."""
    address = Address(host, port, allow_hosts, settings.read("ui_token") or None)
    address.access()
    with open_existing(url) as database, contextlib.closing(open_socket(address)) as listening:
        path = "/" if run is None else asyncio.run(_path_of(database, run))
        server = Server(address, database.dsn, listening, may_act=not read_only)
        server.on_ready = lambda: _greet(server, database, address, path, opens)
        asyncio.run(_serve(server))
    return exits.OK


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


def _greet(server: Server, database: Database, address: Address, path: str, opens: bool) -> None:
    console = err()
    where = (
        f"embedded PostgreSQL in {short_path(str(settings.read('data_dir')))}"
        if database.is_embedded
        else mask(database.dsn)
    )
    console.print(Text.assemble(("kairos ui", "bold"), ("   Ctrl-C stops", "dim")))
    console.print(Text.assemble(("  debugger  ", "dim"), (server.url + path, "bold cyan")), soft_wrap=True)
    console.print(Text.assemble(("  database  ", "dim"), where), soft_wrap=True)
    if address.token:
        console.print(Text.assemble(("  access    ", "dim"), "asks for KAIROS_UI_TOKEN"))
    if opens:
        query = f"?{urlencode({'token': address.token})}" if address.token else ""
        webbrowser.open(server.url + path + query)
