"""How messages of the Debug Adapter Protocol travel: a header with the length, then JSON."""

from __future__ import annotations

import json
from typing import IO, Any, Final

MAX_MESSAGE: Final = 10_000_000
_MAX_HEADER: Final = 200
_ALLOWED: Final = (b"content-length", b"content-type")


class ProtocolError(Exception):
    """What arrived is not the protocol; the connection is of no more use."""


def read_message(stream: IO[bytes]) -> Any:
    """The next message; None at the end of the stream, `{}` for one that is no JSON.

    Raises:
        ProtocolError: no header, an unknown one (a browser sends such), a length that makes no sense.
    """
    length = None
    while line := stream.readline(_MAX_HEADER):
        if line in (b"\r\n", b"\n"):
            if length is None:
                raise ProtocolError("a message without Content-Length")
            return _body(stream, length)
        name, _, value = line.partition(b":")
        if not line.endswith(b"\n") or name.strip().lower() not in _ALLOWED:
            raise ProtocolError(f"not a header of the protocol: {line[:60]!r}")
        if name.strip().lower() == b"content-length":
            length = _length(value)
    return None


def _length(text: bytes) -> int:
    if not text.strip().isdigit() or len(text) > 20 or int(text) > MAX_MESSAGE:
        raise ProtocolError(f"a message of length {text[:60]!r}")
    return int(text)


def _body(stream: IO[bytes], length: int) -> Any:
    raw = stream.read(length)
    if len(raw) < length:
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return {}


def write_message(stream: IO[bytes], message: dict[str, Any]) -> None:
    """Send a message at once."""
    raw = json.dumps(message, separators=(",", ":")).encode()
    stream.write(b"Content-Length: %d\r\n\r\n%b" % (len(raw), raw))
    stream.flush()
