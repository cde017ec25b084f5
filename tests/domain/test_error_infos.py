"""What is kept of an exception, as data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kairos.domain import canonical
from kairos.domain.error_info import ErrorInfo, Frame

texts = st.text(max_size=20)
error_infos = st.builds(
    ErrorInfo,
    type=texts,
    message=texts,
    frames=st.lists(st.builds(Frame, texts, st.integers(0, 9999), texts, texts), max_size=2).map(tuple),
    locals=st.dictionaries(texts, texts, max_size=2),
    notes=st.lists(texts, max_size=2).map(tuple),
    hint=st.none() | st.text(min_size=1, max_size=20),
)


@given(error_infos)
def test_an_error_reads_back_as_it_was(error: ErrorInfo) -> None:
    assert ErrorInfo.from_json(canonical.decode(canonical.encode(error.to_json()))) == error


@pytest.mark.parametrize(
    ("kind", "message", "summary"),
    [
        ("builtins.ValueError", "bad amount", "ValueError: bad amount"),
        ("shop.Declined", "  no funds\nmore", "shop.Declined: no funds"),
        ("builtins.KeyError", "", "KeyError"),
        ("builtins.KeyError", " \n ", "KeyError"),
        ("builtins.OSError", "one\r\ntwo", "OSError: one"),
        ("builtins.OSError", "one\rtwo", "OSError: one"),
        ("builtins.ValueError", "x" * 500, "ValueError: " + "x" * 188),
    ],
)
def test_a_summary_is_one_line(kind: str, message: str, summary: str) -> None:
    assert ErrorInfo(kind, message).summary == summary


@given(error_infos)
def test_a_summary_is_never_longer_than_a_line(error: ErrorInfo) -> None:
    named = ErrorInfo("builtins.ValueError", error.message)
    assert len(named.summary) <= 200
    assert len(named.summary.splitlines()) == 1
