"""What a replay may do to the world outside its process: nothing, but for what its user names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kairos.errors import InvalidArgument

Destination = tuple[str, int | None]
"""A host, by name or address, and a port; None stands for every port of it."""

LAYERS: Final = ("env", "audit", "landlock", "seccomp")


@dataclass(frozen=True)
class Policy:
    """The rules of one replay.

    `scratch` is an existing folder that user code may write to, as are the folders and files of `allow_writes`.
    `strict` refuses to go on where a layer is missing. `keep_environment` names variables that the user wants in the
    child whatever they look like. `off` names layers (see `LAYERS`) that are left off on purpose, `why_off` says why.
    """

    scratch: Path
    allow_network: tuple[Destination, ...] = ()
    allow_writes: tuple[Path, ...] = ()
    strict: bool = False
    keep_environment: tuple[str, ...] = ()
    off: frozenset[str] = frozenset()
    why_off: str = "by option"

    @property
    def any_port(self) -> bool:
        """Whether some host may be reached on every port."""
        return any(port is None for _, port in self.allow_network)


def parse_destination(text: str) -> Destination:
    """`HOST`, `HOST:PORT`, `[::1]:PORT` as a destination.

    Raises:
        InvalidArgument: there is no host, a wildcard, a URL, or a port outside of 1 to 65535.
    """
    host, port = _split(text.strip())
    if not host or any(sign in host for sign in "*/@ "):
        raise InvalidArgument(f"{text!r} is not a host that a replay can be allowed to reach", hint=_HINT)
    if port is None:
        return host.lower(), None
    if not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise InvalidArgument(f"{text!r} has no port between 1 and 65535", hint=_HINT)
    return host.lower(), int(port)


def show_destination(destination: Destination) -> str:
    """The reverse of `parse_destination`."""
    host, port = destination
    shown = f"[{host}]" if ":" in host and port is not None else host
    return shown if port is None else f"{shown}:{port}"


_HINT = "Give --allow-network HOST or HOST:PORT, once per host: --allow-network api.example.com:443."


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        return (host if closed and (not rest or rest.startswith(":")) else ""), rest[1:] or None if rest else None
    if text.count(":") > 1:  # an IPv6 address without a port
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None
