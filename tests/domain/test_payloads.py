"""Where a value is kept: in its event up to a limit, in a blob named by its hash beyond."""

from __future__ import annotations

from hashlib import sha256

import pytest

from kairos.domain import canonical
from kairos.domain.payload import INLINE_MAX, NULL, Payload


@pytest.mark.parametrize("size", [0, 1, INLINE_MAX - 1, INLINE_MAX])
def test_a_short_value_lives_in_its_event(size: int) -> None:
    raw = b"x" * size
    payload = Payload.of(raw)
    assert (payload.inline, payload.sha256, payload.size, payload.data) == (raw, None, size, raw)
    assert payload.digest == sha256(raw).hexdigest()


@pytest.mark.parametrize("size", [INLINE_MAX + 1, INLINE_MAX + 2, 1 << 20])
def test_a_longer_value_lives_in_a_blob(size: int) -> None:
    raw = b"x" * size
    payload = Payload.of(raw)
    assert (payload.inline, payload.sha256, payload.size, payload.data) == (None, sha256(raw).hexdigest(), size, raw)
    assert payload.digest == payload.sha256


def test_the_limit_is_in_bytes_and_not_in_characters() -> None:
    # 511 two-byte characters in quotes: exactly at the limit.
    assert Payload.of(canonical.encode("é" * 511)).inline is not None
    assert Payload.of(canonical.encode("é" * 511 + "e")).inline is None


def test_a_payload_is_the_same_whether_its_bytes_are_at_hand_or_not() -> None:
    raw = b"x" * (INLINE_MAX + 1)
    whole, reference = Payload.of(raw), Payload.blob(sha256(raw).hexdigest(), len(raw))
    assert whole == reference
    assert hash(whole) == hash(reference)
    assert reference.data is None
    assert reference.with_data(raw).data == raw


def test_bytes_at_hand_are_not_shown() -> None:
    assert "xxxx" not in repr(Payload.of(b"x" * (INLINE_MAX + 1)))


def test_nothing_is_stored_as_null() -> None:
    assert canonical.decode(NULL.inline or b"") is None
