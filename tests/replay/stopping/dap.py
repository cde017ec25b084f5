"""A small Debug Adapter Protocol client, enough to do by program what an editor does."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any


class DapClient:
    """One connection. Requests are answered in order; events are kept until somebody waits for them."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._socket = socket.create_connection((host, port), timeout=20)
        self._buffer = b""
        self._seq = 0
        self.events: list[dict[str, Any]] = []
        self._answers: dict[int, dict[str, Any]] = {}

    def attach(self) -> None:
        """Initialize, attach, be configured."""
        self.ask("initialize", adapterID="debugpy", clientID="test", linesStartAt1=True, pathFormat="path")
        attaching = self._send("attach", justMyCode=True, subProcess=False)
        self.event("initialized")
        self.ask("setExceptionBreakpoints", filters=[])
        self.ask("configurationDone")
        self._answer(attaching)

    def answer(self, command: str, **arguments: Any) -> dict[str, Any]:
        """A request; returns its answer, whether it succeeded or not."""
        return self._answer(self._send(command, **arguments))

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """A request; returns the body of its answer."""
        answer = self.answer(command, **arguments)
        assert answer["success"], answer
        body: dict[str, Any] = answer.get("body", {})
        return body

    def event(self, name: str, wanted: Callable[[dict[str, Any]], bool] = lambda body: True) -> dict[str, Any]:
        """Wait for an event of this name; returns its body."""
        deadline = time.monotonic() + 20
        while True:
            for event in self.events:
                if event["event"] == name and wanted(event.get("body", {})):
                    self.events.remove(event)
                    body: dict[str, Any] = event.get("body", {})
                    return body
            assert time.monotonic() < deadline, (name, self.events)
            self._receive()

    def stopped_or_ended(self) -> Stop | None:
        """Wait until it stops; None if it ends instead."""
        while True:
            for event in self.events:
                if event["event"] in ("stopped", "terminated"):
                    self.events.remove(event)
                    return Stop(self, event["body"]) if event["event"] == "stopped" else None
            self._receive()

    def stopped(self) -> Stop:
        """Wait until it stops."""
        return Stop(self, self.event("stopped"))

    def disconnect(self) -> None:
        """Leave; the program goes on."""
        self.ask("disconnect", terminateDebuggee=False)
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _send(self, command: str, **arguments: Any) -> int:
        self._seq += 1
        text = json.dumps({"seq": self._seq, "type": "request", "command": command, "arguments": arguments}).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(text), text))
        return self._seq

    def _answer(self, seq: int) -> dict[str, Any]:
        while seq not in self._answers:
            self._receive()
        return self._answers.pop(seq)

    def _receive(self) -> None:
        while b"\r\n\r\n" not in self._buffer:
            self._read()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        length = int(head.partition(b":")[2])
        while len(self._buffer) < length:
            self._read()
        message = json.loads(self._buffer[:length])
        self._buffer = self._buffer[length:]
        if message["type"] == "response":
            self._answers[message["request_seq"]] = message
        elif message["type"] == "event":
            self.events.append(message)

    def _read(self) -> None:
        data = self._socket.recv(65536)
        assert data, "the debugger has hung up"
        self._buffer += data


class Stop:
    """A thread that stands still."""

    def __init__(self, client: DapClient, body: dict[str, Any]) -> None:
        self.client = client
        self.reason: str = body["reason"]
        self.text: str = body.get("text") or ""
        self.thread: int = body["threadId"]
        self.frames: list[dict[str, Any]] = client.ask("stackTrace", threadId=self.thread)["stackFrames"]

    @property
    def line(self) -> int:
        """Of the innermost frame."""
        line: int = self.frames[0]["line"]
        return line

    @property
    def function(self) -> str:
        """Of the innermost frame."""
        name: str = self.frames[0]["name"]
        return name.removesuffix(" (Current frame)")

    def locals(self) -> dict[str, str]:
        """Names and texts of the innermost frame."""
        scopes = self.client.ask("scopes", frameId=self.frames[0]["id"])["scopes"]
        found = self.client.ask("variables", variablesReference=scopes[0]["variablesReference"])["variables"]
        return {item["name"]: item["value"] for item in found}

    def go(self, command: str = "continue") -> None:
        """`continue`, `next`, `stepIn`, `stepOut`."""
        self.client.ask(command, threadId=self.thread)
