"""A stored value: canonical bytes kept inline in its event, or in a blob named by their hash."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256

INLINE_MAX = 1024
"""Payloads up to this many bytes live in their event; longer ones in a blob (2 kB rows halve the rate)."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A value as canonical JSON bytes, `size` bytes long.

    `inline` holds the bytes of a short value. A long one has `sha256` (64 hex digits) instead, and `data`
    if this process happens to hold the bytes.
    """

    inline: bytes | None
    sha256: str | None
    size: int
    data: bytes | None = field(default=None, compare=False, repr=False)

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

    @property
    def digest(self) -> str:
        """sha256 of the bytes, in hex; inline or not."""
        return self.sha256 or sha256(self.inline or b"").hexdigest()

    def with_data(self, raw: bytes) -> Payload:
        """The same payload, holding its bytes."""
        return Payload(self.inline, self.sha256, self.size, raw)


NULL = Payload.of(b"null")
