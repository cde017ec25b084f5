"""The process: which address it binds, who may reach it, how it starts and stops."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import uvicorn

from debugger_ui.app import build
from debugger_ui.guards import Access, Guard, hosts_of
from debugger_ui.opened import Files
from debugger_ui.reads import NoReads, Reads
from debugger_ui.ui import Ui
from kairos.errors import ConfigError

if TYPE_CHECKING:
    from debugger_ui.current import CurrentCode

HOST: Final = "127.0.0.1"
PORT: Final = 8484
TRIES: Final = 10
"""Ports that are tried one after the other when none was asked for."""
STOP_WITHIN: Final = 3
"""Seconds that open streams get at shutdown."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, and who may ask there.

    Attributes:
        port: None means the first free one from 8484; 0 any free one.
        hosts: further names that requests may be addressed to.
    """

    host: str = HOST
    port: int | None = None
    hosts: tuple[str, ...] = ()
    token: str | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    def access(self) -> Access:
        """The rules for requests.

        Raises:
            ConfigError: others could reach it, and there is no token.
        """
        if not self.is_loopback and not self.token:
            raise ConfigError(
                f"--host {self.host} lets other machines in, and no token is set",
                hint="Set KAIROS_UI_TOKEN to a long random text, or leave --host away and use an SSH tunnel.",
            )
        return Access(hosts_of((self.host, *self.hosts)), not self.is_loopback, self.token)


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def open_socket(address: Address) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: the port is taken, or the address is not one of this machine.
    """
    ports: Sequence[int] = range(PORT, PORT + TRIES) if address.port is None else (address.port,)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    for port in ports:
        try:
            listening = socket.create_server((address.host.strip("[]"), port), family=family)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE and port != ports[-1]:
                continue
            taken = exc.errno == errno.EADDRINUSE
            hint = "Another `kairos ui` or `kairos dev` may run; --port 0 takes any free port." if taken else None
            raise ConfigError(f"cannot listen on {address.host}:{port}: {exc.strerror or exc}", hint=hint) from None
        # Connections inherit it. asyncio leaves it out for sockets made so, and each answer then waits 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    raise AssertionError("no port was tried")


def url_of(listening: socket.socket) -> str:
    """The address to type into a browser of this machine."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


class Server(uvicorn.Server):
    """A server that leaves the signals to whoever runs it, and says when it is ready."""

    def __init__(
        self,
        address: Address,
        dsn: str | None,
        listening: socket.socket,
        *,
        may_act: bool = True,
        files: Files | None = None,
        code: CurrentCode | None = None,
    ) -> None:
        """`dsn`: None for a debugger of `files` alone. `code`: the app that recorded code is held against."""
        reads = NoReads() if dsn is None else Reads(dsn)
        self.url = url_of(listening)
        self._listening = listening
        app = build(reads, address.access(), url=self.url, may_act=may_act and dsn is not None, files=files, app=code)
        self._ui: Ui = app.state.ui
        config = uvicorn.Config(
            Guard(app, address.access()),
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=STOP_WITHIN,
        )
        super().__init__(config)
        self.on_ready: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: `kairos dev` has a worker to drain first."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does it; then tell."""
        await super().startup(sockets)
        if self.started:
            self.on_ready()

    async def run_until_told(self) -> None:
        """Serve until `stop` is called, or the task is cancelled."""
        await self.serve([self._listening])

    def stop(self) -> None:
        """End: open streams are told, requests under way are answered."""
        self._ui.watcher.stop()
        self.should_exit = True
