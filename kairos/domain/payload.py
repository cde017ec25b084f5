"""A stored value: canonical bytes kept inline in its event, or in a blob named by their hash."""

from __future__ import annotations

from hashlib import sha256

from msgspec import Struct
from msgspec.structs import force_setattr

INLINE_MAX = 1024
"""Payloads up to this many bytes live in their event; longer ones in a blob (2 kB rows halve the rate)."""


class Payload(Struct, frozen=True, eq=False, gc=False):
    """A value as canonical JSON bytes, `size` bytes long.

    `inline` holds the bytes of a short value. A long one has `sha256` (64 hex digits) instead, and `data`
    if this process happens to hold the bytes. One that a fork inherited and that is short has neither: `origin` is
    the (run id, seq) of the event that holds it. Equal if they stand for the same bytes.
    """

    inline: bytes | None
    sha256: str | None
    size: int
    data: bytes | None = None
    _digest: str | None = None
    origin: tuple[str, int] | None = None

    @classmethod
    def of(cls, raw: bytes) -> Payload:
        """Wrap canonical bytes, choosing inline or blob by their length."""
        size = len(raw)
        if size <= INLINE_MAX:
            return cls(raw, None, size, raw)
        return cls(None, sha256(raw).hexdigest(), size, raw)

    @classmethod
    def blob(cls, digest: str, size: int) -> Payload:
        """Refer to bytes that are stored as a blob."""
        return cls(None, digest, size)

    @classmethod
    def inherited(cls, run: str, seq: int, size: int, digest: str, is_blob: bool) -> Payload:
        """Refer to the output that event `seq` of another run holds, itself or as a blob."""
        return cls(None, digest if is_blob else None, size, None, digest, (run, seq))

    @property
    def digest(self) -> str:
        """sha256 of the bytes, in hex; inline or not."""
        digest = self.sha256 or self._digest
        if digest is None:
            # Asked for once by each step that reads the value.
            digest = sha256(self.inline or b"").hexdigest()
            force_setattr(self, "_digest", digest)
        return digest

    def with_data(self, raw: bytes) -> Payload:
        """The same payload, holding its bytes."""
        return Payload(self.inline, self.sha256, self.size, raw, self._digest, self.origin)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Payload):
            return NotImplemented
        if self.origin is None and other.origin is None:
            return (self.inline, self.sha256, self.size) == (other.inline, other.sha256, other.size)
        return self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Payload(inline={self.inline!r}, sha256={self.sha256!r}, size={self.size})"


NULL = Payload.of(b"null")
