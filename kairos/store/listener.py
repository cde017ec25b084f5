"""Listens for NOTIFY on a connection of its own. A hint only: whoever uses it polls as well."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import psycopg
from psycopg import sql

from kairos.store.connect import backoff, is_transient, open_async
from kairos.store.queries import query

log = logging.getLogger("kairos.listener")

PING_EVERY = 15.0
"""Seconds of silence after which the connection is tested: a half-open socket raises no error by itself."""


async def listen(
    dsn: str, name: str, channels: Sequence[str], on_notice: Callable[[str, str], None], on_ready: Callable[[], None]
) -> None:
    """Call `on_notice(channel, payload)` until cancelled; reconnect for ever.

    `on_ready` is called after each (re)connect, when LISTEN is in force: what came before it was missed, so
    the caller looks again then.
    """
    tries = 0
    while True:
        conn = None
        try:
            conn = await open_async(dsn, name)
            for channel in channels:
                await conn.execute(sql.SQL(query("listen")).format(channel=sql.Identifier(channel)))
            tries = 0
            on_ready()
            while True:
                async for notice in conn.notifies(timeout=PING_EVERY):
                    on_notice(notice.channel, notice.payload)
                await asyncio.wait_for(conn.execute(query("ping")), 5)
        except (psycopg.Error, OSError, TimeoutError) as exc:
            if isinstance(exc, psycopg.Error) and not is_transient(exc):
                raise
            tries += 1
            log.info("listener_reconnects tries=%s: %s", tries, str(exc).splitlines()[0] if str(exc) else repr(exc))
            await asyncio.sleep(backoff(tries))
        finally:
            if conn is not None:
                await conn.close()
