"""The trace under a DAP client: a socket, the real command, packets split anywhere, requests that make no sense."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kairos.replay.trace.layout import About
from tests.replay.trace.test_walking import FIRST, IN_PRICE, ORDERS, bill
from tests.replay.trace.tracing_support import save

ROOT = Path(__file__).resolve().parents[3]
HERE = str(Path(__file__).with_name("test_walking.py"))


class Client:
    """A small debugger client: sends requests, keeps events, gives the answers."""

    def __init__(self, port: int, packet: int | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.incoming = self.socket.makefile("rb")
        self.events: list[Any] = []
        self._numbers = count(1)
        self._packet = packet

    def send(self, raw: bytes) -> None:
        """Bytes as they are, in small packets if the client was made so."""
        size = self._packet or max(len(raw), 1)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(raw), size):
            self.socket.sendall(raw[start : start + size])

    def post(self, command: str, **arguments: Any) -> int:
        """Send a request; its number."""
        number = next(self._numbers)
        body = json.dumps({"seq": number, "type": "request", "command": command, "arguments": arguments}).encode()
        self.send(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        return number

    def read(self) -> Any:
        """The next message; None at the end."""
        length = 0
        while (line := self.incoming.readline()).strip():
            length = int(line.split(b":")[1])
        return json.loads(self.incoming.read(length)) if line else None

    def ask(self, command: str, **arguments: Any) -> Any:
        """The whole answer to a request."""
        number = self.post(command, **arguments)
        while (message := self.read()) is not None:
            if message["type"] == "response" and message["request_seq"] == number:
                return message
            self.events.append(message)
        raise AssertionError("the server has gone")

    def body(self, command: str, **arguments: Any) -> Any:
        """The body of an answer that must be a success."""
        answer = self.ask(command, **arguments)
        assert answer["success"], answer
        return answer.get("body")

    def event(self, name: str) -> Any:
        """The next event of this name that was not asked for yet."""
        while True:
            for index, message in enumerate(self.events):
                if message["event"] == name:
                    return self.events.pop(index).get("body")
            message = self.read()
            assert message is not None, f"the server has gone without {name}"
            self.events.append(message)

    def attach(self, **arguments: Any) -> Any:
        """The usual greeting, up to the first stop."""
        capabilities = self.body("initialize", adapterID="test", linesStartAt1=True)
        self.event("initialized")
        self.body("attach", **arguments)
        self.body("configurationDone")
        self.event("stopped")
        return capabilities

    def move(self, command: str) -> tuple[str, int]:
        """Reason and line of the stop that a request leads to."""
        self.body(command, threadId=1)
        stopped = self.event("stopped")
        return stopped["reason"], self.top()["line"]

    def top(self) -> Any:
        """The innermost frame."""
        return self.body("stackTrace", threadId=1, startFrame=0, levels=1)["stackFrames"][0]

    def locals(self) -> dict[str, Any]:
        """The variables of the innermost frame, by name."""
        (scope,) = self.body("scopes", frameId=self.top()["id"])["scopes"]
        found = self.body("variables", variablesReference=scope["variablesReference"])["variables"]
        return {variable["name"]: variable for variable in found}

    def close(self) -> None:
        """Go without a word."""
        self.incoming.close()
        self.socket.close()


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "bill.ktrace"
    save(path, bill, ORDERS, about=About("0192", "fulfil", "bill", 2))
    return path


@pytest.fixture(scope="module")
def port(trace_file: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "kairos.cli", "trace", str(trace_file), "--dap", "0"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", said)
        assert found, said
        yield int(found[1])
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    client = Client(port)
    yield client
    client.close()


def test_an_ide_begins_at_the_failure_and_steps_backwards_to_its_cause(client: Client) -> None:
    assert client.attach()["supportsStepBack"] is True
    assert client.top()["line"] == FIRST + 5
    assert client.body("exceptionInfo", threadId=1)["exceptionId"] == "ValueError"
    assert client.move("stepBack") == ("step", FIRST + 5)
    assert client.move("stepBack") == ("step", FIRST + 4)
    assert client.locals()["amount"]["value"] == "-4"
    assert client.move("stepBack") == ("step", FIRST + 3)
    assert client.locals()["amount"]["value"] == "8"
    assert client.move("stepIn") == ("step", IN_PRICE + 1)
    assert client.move("next") == ("step", IN_PRICE + 2)
    assert client.move("stepOut") == ("step", FIRST + 4)


def test_breakpoints_are_met_forwards_and_backwards(client: Client) -> None:
    client.body("initialize")
    client.body("attach", stopAt="first")
    set_them = client.body(
        "setBreakpoints",
        source={"path": HERE},
        breakpoints=[{"line": FIRST + 6, "condition": "order['who'] == 'bob'"}, {"line": IN_PRICE + 4}, {"line": 1}],
    )["breakpoints"]
    assert [(b["verified"], b.get("line")) for b in set_them] == [
        (True, FIRST + 6), (True, IN_PRICE + 5), (False, None),
    ]  # fmt: skip
    client.body("configurationDone")
    client.event("stopped")
    assert client.move("continue") == ("breakpoint", IN_PRICE + 5)
    assert client.move("continue") == ("breakpoint", IN_PRICE + 5)
    assert client.move("continue") == ("breakpoint", FIRST + 6)
    assert client.locals()["order"]["value"].startswith("{'id': 2")
    assert client.move("reverseContinue") == ("breakpoint", IN_PRICE + 5)
    client.body("setBreakpoints", source={"path": HERE}, breakpoints=[])
    assert client.move("continue")[1] == FIRST + 5
    assert client.move("reverseContinue") == ("step", FIRST + 1)
    client.body("setExceptionBreakpoints", filters=["raised"])
    assert client.move("continue") == ("exception", FIRST + 5)
    assert client.move("restart") == ("entry", FIRST + 1)


def test_variables_open_level_by_level_and_expressions_look_into_them(client: Client) -> None:
    client.attach()
    orders = client.locals()["orders"]
    first = client.body("variables", variablesReference=orders["variablesReference"])["variables"][0]
    assert first["evaluateName"] == "orders[0]"
    inside = client.body("variables", variablesReference=first["variablesReference"])["variables"]
    assert [(v["name"], v["value"]) for v in inside][:2] == [("['id']", "1"), ("['who']", "'ann'")]
    for context in ("hover", "watch", "repl"):
        found = client.body("evaluate", expression="orders[1]['rows'][0]['price'] + 1", context=context)
        assert (found["result"], found["type"]) == ("8", "int")
    assert "amount = 10" in client.body("evaluate", expression="when amount changed", context="repl")["result"]
    refused = client.ask("evaluate", expression="nobody", context="watch")
    assert not refused["success"]
    assert refused["message"] == "there is no local variable 'nobody' here"


def test_the_console_can_jump_to_the_last_write(client: Client) -> None:
    client.attach()
    assert "this line made amount = -4" in client.body("evaluate", expression="last amount", context="repl")["result"]
    assert client.event("stopped")["reason"] == "goto"
    assert client.top()["line"] == FIRST + 3


def test_the_stack_threads_and_source_are_there(client: Client) -> None:
    client.attach(stopAt="first")
    assert client.body("threads")["threads"] == [{"id": 1, "name": "MainThread"}]
    client.body("setBreakpoints", source={"path": HERE}, lines=[IN_PRICE + 3])
    client.move("continue")
    stack = client.body("stackTrace", threadId=1)
    assert [(f["name"], f["line"]) for f in stack["stackFrames"]] == [("price", IN_PRICE + 3), ("bill", FIRST + 3)]
    assert stack["totalFrames"] == 2
    assert stack["stackFrames"][0]["source"] == {"name": "test_walking.py", "path": HERE}
    (scope,) = client.body("scopes", frameId=stack["stackFrames"][1]["id"])["scopes"]
    assert scope["name"] == "Locals (when it made the call)"
    content = client.body("source", source={"sourceReference": 1}, sourceReference=1)["content"].split("\n")
    assert content[FIRST + 2].strip() == "amount = price(order)"
    assert content[0] == ""


def test_requests_that_make_no_sense_are_answered_with_an_error(client: Client) -> None:
    client.attach()
    for command, arguments in (
        ("setVariable", {"name": "x"}),
        ("variables", {"variablesReference": 999_999}),
        ("variables", {}),
        ("variables", {"variablesReference": [1]}),
        ("scopes", {"frameId": -1}),
        ("stackTrace", {"threadId": 77}),
        ("stackTrace", {"threadId": 1, "levels": "many"}),
        ("source", {"sourceReference": 9}),
        ("setBreakpoints", {"breakpoints": [{"line": 1}]}),
        ("setBreakpoints", {"source": {"path": HERE}, "breakpoints": [{"line": "x"}]}),
        ("attach", {"stopAt": "moon"}),
        ("evaluate", {}),
    ):
        answer = client.ask(command, **arguments)
        assert answer["success"] is False, (command, answer)
        assert answer["message"]
        assert answer["body"]["error"]["format"]
    for raw in (
        b"[]",
        b"7",
        b"{}",
        b"not json",
        b'{"type":"request"}',
        b'{"type":"request","command":"threads","arguments":[]}',
    ):
        client.send(b"Content-Length: %d\r\n\r\n%b" % (len(raw), raw))
    assert client.body("threads")["threads"]


def test_messages_may_be_split_anywhere(port: int) -> None:
    client = Client(port, packet=1)
    client.attach()
    assert client.move("stepBack")[1] == FIRST + 5
    client.body("disconnect")
    assert client.event("terminated") is None
    assert client.read() is None
    client.close()


def test_clients_come_one_after_the_other_and_each_begins_anew(port: int) -> None:
    for _ in range(2):
        client = Client(port)
        client.attach()
        assert client.top()["line"] == FIRST + 5
        client.move("restart")
        client.body("terminate")
        client.close()
    gone = Client(port)
    gone.post("initialize")
    gone.close()
    again = Client(port)
    again.attach()
    again.close()


@pytest.mark.parametrize(
    "junk",
    [
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}",
        b"Content-Length: 99999999999\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: x\r\n\r\n",
        b"\r\n\r\n",
        b"A" * 10_000,
        b"",
    ],
    ids=range(7),
)
def test_what_is_not_the_protocol_is_hung_up_on(port: int, junk: bytes) -> None:
    client = Client(port)
    with contextlib.suppress(OSError):
        client.send(junk)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.incoming.read() == b""
    client.close()
    after = Client(port)
    assert after.body("initialize")["supportsStepBack"]
    after.close()


def test_it_listens_on_the_loopback_interface_alone(port: int) -> None:
    own = socket.gethostbyname(socket.gethostname())
    if own.startswith("127."):
        rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
        listening = [row.split()[1] for row in rows if row.split()[3] == "0A"]
        assert [address for address in listening if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]
        return
    with pytest.raises(OSError):
        socket.create_connection((own, port), timeout=2)


def test_a_port_that_is_taken_is_told(port: int, trace_file: Path) -> None:
    command = [sys.executable, "-m", "kairos.cli", "trace", str(trace_file), "--dap", str(port)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60
    )
    assert done.returncode == 1
    assert f"port {port} cannot be listened on" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_source_that_was_changed_since_is_served_as_it_was_recorded(tmp_path: Path) -> None:
    from kairos.replay.trace.dap.session import Session
    from kairos.replay.trace.history import Trace

    file = tmp_path / "job.py"
    file.write_text("def job():\n    a = 1\n    return a\n")
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    save(tmp_path / "t.ktrace", names["job"])
    file.write_text("# new\n\n\ndef job():\n    return 2\n")
    session = Session(Trace.open(tmp_path / "t.ktrace"))
    (answer,) = session.handle({"type": "request", "seq": 1, "command": "stackTrace", "arguments": {}})
    source = answer["body"]["stackFrames"][0]["source"]
    assert source["name"] == "job.py (as recorded)"
    (answer,) = session.handle({"type": "request", "seq": 2, "command": "source", "arguments": {"source": source}})
    assert answer["body"]["content"] == "def job():\n    a = 1\n    return a"
