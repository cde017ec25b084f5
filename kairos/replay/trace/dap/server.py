"""Serves a trace on a loopback port, to one client after the other."""

from __future__ import annotations

import json
import socket
from itertools import count
from types import TracebackType
from typing import Final

from kairos.errors import KairosError
from kairos.replay.trace.dap.session import Session
from kairos.replay.trace.dap.wire import ProtocolError, read_message, write_message
from kairos.replay.trace.history import Trace

_HOST: Final = "127.0.0.1"


class Server:
    """A DAP server over one trace. Listens from `__enter__` on, on the loopback interface and nowhere else.

    Args:
        port: 0 takes any free one; `port` tells which.

    Raises:
        KairosError: the port is taken.
    """

    def __init__(self, trace: Trace, port: int = 0) -> None:
        self._trace = trace
        self.port = port
        self._listener: socket.socket | None = None

    def __enter__(self) -> Server:
        try:
            self._listener = socket.create_server((_HOST, self.port))
        except OSError as exc:
            raise KairosError(
                f"port {self.port} cannot be listened on: {exc.strerror}", hint="Port 0 takes any free one."
            ) from exc
        self.port = self._listener.getsockname()[1]
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._listener is not None:
            self._listener.close()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{_HOST}:{self.port}"

    @property
    def configuration(self) -> str:
        """What stands in `launch.json` of VS Code to attach."""
        connect = {"host": _HOST, "port": self.port}
        return json.dumps(
            {"name": "Kairos trace", "type": "debugpy", "request": "attach", "connect": connect}, indent=2
        )

    def serve(self, clients: int | None = None) -> None:
        """Serve so many clients, by default without end."""
        assert self._listener is not None
        for _ in count() if clients is None else range(clients):
            connection, _ = self._listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    self._talk(connection)
                except (ProtocolError, OSError):
                    # Not a client, or one that has gone: the next may be one.
                    continue

    def _talk(self, connection: socket.socket) -> None:
        session, numbers = Session(self._trace), count(1)
        with connection.makefile("rb") as incoming, connection.makefile("wb") as outgoing:
            while not session.is_over and (request := read_message(incoming)) is not None:
                for message in session.handle(request):
                    write_message(outgoing, {"seq": next(numbers), **message})
