"""A proxy between a client and Postgres that delays, swallows, resets, and loses replies.

It listens on 127.0.0.1 and talks to the server's unix socket. Losing the reply to a message that the server
has carried out is the only honest way to test what happens when a COMMIT's answer never comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_KEEP = 64


@dataclass(eq=False)
class Link:
    """One proxied connection. `app` is its application_name."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    app: str = ""
    is_black_hole: bool = False
    is_doomed: bool = False

    def cut(self) -> None:
        """Reset the client's side, at once and without a word; let the server find out in its own time."""
        sock = self.client.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.transport.abort()
        self.server.close()


@dataclass(eq=False)
class Rule:
    """Cut a connection after a message that contains `needle` has gone upstream.

    `is_answered`: wait until the server has answered, so that its work is certainly done, and throw the answer
    away; else cut at once, while the server may still be at it.
    """

    needle: bytes
    app: str
    times: int
    is_answered: bool
    chance: Callable[[], bool] = field(default=lambda: True)
    cuts: int = 0

    def applies(self, link: Link, data: bytes) -> bool:
        """Whether this message's answer is to be lost."""
        return self.cuts < self.times and self.app in link.app and self.needle in data and self.chance()


class ChaosProxy:
    """Runs in a thread of its own. Use as a context manager."""

    def __init__(self, dsn: str) -> None:
        given = conninfo_to_dict(dsn)
        self._upstream = f"{given['host']}/.s.PGSQL.{given.get('port', 5432)}"
        self._given = given
        self.links: list[Link] = []
        self.rules: list[Rule] = []
        self.delay = 0.0
        self.is_refusing = False
        self._port = 0
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="chaos proxy", daemon=True)

    @property
    def dsn(self) -> str:
        """The address for clients."""
        return make_conninfo("", **{**self._given, "host": "127.0.0.1", "port": self._port, "sslmode": "disable"})

    def lose_replies(
        self,
        needle: bytes,
        *,
        app: str = "",
        times: int = 1,
        is_answered: bool = True,
        chance: Callable[[], bool] = lambda: True,
    ) -> Rule:
        """Lose the answers to the next `times` messages with `needle` of connections named `app`."""
        rule = Rule(needle, app, times, is_answered, chance)
        self.rules.append(rule)
        return rule

    def swallow(self, app: str = "") -> int:
        """Make black holes of the present connections named `app`: nothing passes, nothing is closed."""
        found = [link for link in self.links if app in link.app]
        for link in found:
            link.is_black_hole = True
        return len(found)

    def reset(self, app: str = "") -> int:
        """Reset the present connections named `app`."""
        found = [link for link in self.links if app in link.app]
        for link in found:
            self._loop.call_soon_threadsafe(link.cut)
        return len(found)

    def count(self, app: str) -> int:
        """Open connections named `app` through which something still passes."""
        return sum(app in link.app and not link.is_black_hole for link in self.links)

    def __enter__(self) -> ChaosProxy:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    # -- on the loop -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for link in list(self.links):
            link.cut()
        while self.links:
            await asyncio.sleep(0.001)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.is_refusing:
                raise ConnectionRefusedError
            upstream, up = await asyncio.open_unix_connection(self._upstream)
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, up)
        self.links.append(link)
        pumps: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._upwards(link, reader)),
            asyncio.create_task(self._downwards(link, upstream)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            link.server.close()
            link.client.close()
            self.links.remove(link)

    async def _upwards(self, link: Link, reader: asyncio.StreamReader) -> None:
        recent = b""
        while data := await reader.read(65536):
            if not link.app and b"application_name\0" in data:
                link.app = data.split(b"application_name\0", 1)[1].split(b"\0", 1)[0].decode()
            if self.delay:
                await asyncio.sleep(self.delay)
            if link.is_black_hole:
                continue
            rule = next((r for r in self.rules if r.applies(link, recent + data)), None)
            recent = data[-_KEEP:]
            if rule is not None:
                rule.cuts += 1
                link.is_doomed = True
                recent = b""
            link.server.write(data)
            await link.server.drain()
            if rule is not None and not rule.is_answered:
                link.cut()
                return

    async def _downwards(self, link: Link, upstream: asyncio.StreamReader) -> None:
        while data := await upstream.read(65536):
            if link.is_doomed:
                link.cut()
                return
            if self.delay:
                await asyncio.sleep(self.delay)
            if not link.is_black_hole:
                link.client.write(data)
                await link.client.drain()
