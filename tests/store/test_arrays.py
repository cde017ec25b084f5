"""The packed columns of a flush are, byte for byte, what psycopg itself would send; no server is needed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.adapt import PyFormat, Transformer
from psycopg.types.numeric import Int4, Int8

from kairos.store import arrays
from kairos.store.arrays import DUMPERS, Packed

STEADY = settings(derandomize=True, deadline=None, database=None, max_examples=60)
MIN4, MAX4, MIN8, MAX8 = -(2**31), 2**31 - 1, -(2**63), 2**63 - 1

TIMES = [
    datetime(2000, 1, 1, tzinfo=UTC),
    datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC),
    datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=UTC),
    datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    datetime(1883, 11, 18, 12, tzinfo=timezone(timedelta(hours=-4, minutes=-56))),
]
UUIDS = [UUID(int=0), UUID(int=2**128 - 1), UUID("01890a5d-ac96-774b-bcce-b302099a8057")]
TEXTS = ["", "a", "é", "東京", "🙂\n\t'\"\\{},", "null", "NULL", "x" * 10_000]
BYTES = [b"", b"\0", b"\xff\x00\\", bytes(range(256)), b"x" * 10_000]

Pack = Callable[[Sequence[Any]], Packed]
CASES: dict[str, tuple[Pack, Callable[[Any], Any], list[Any]]] = {
    "int4s": (arrays.int4s, Int4, [0, 1, -1, 7, MIN4, MAX4]),
    "int4s_or_null": (arrays.int4s_or_null, Int4, [0, 1, -1, 7, MIN4, MAX4]),
    "int8s_or_null": (arrays.int8s_or_null, Int8, [0, 1, -1, MIN4 - 1, MAX4 + 1, MIN8, MAX8]),
    "byteas": (arrays.byteas, bytes, BYTES),
    "texts": (arrays.texts, str, TEXTS),
    "texts_or_null": (arrays.texts_or_null, str, TEXTS),
    "uuids": (arrays.uuids, lambda v: v, UUIDS),
    "timestamps": (arrays.timestamps, lambda v: v, TIMES),
    "timestamps_or_null": (arrays.timestamps_or_null, lambda v: v, TIMES),
}
NULLABLE = [name for name in CASES if name.endswith("_or_null")]


def sent_by_psycopg(values: Sequence[Any], kind: Callable[[Any], Any]) -> tuple[int, bytes]:
    """Type and bytes of a list as psycopg dumps it in binary."""
    given = [None if value is None else kind(value) for value in values]
    dumper = Transformer().get_dumper(given, PyFormat.BINARY)
    return dumper.oid, bytes(dumper.dump(given) or b"")


def told_to_hold_nulls(raw: bytes) -> bytes:
    """The same array with its flag set: it may hold nulls, whether it does or not. Servers only check it is 0 or 1."""
    return raw[:4] + struct.pack(">i", 1) + raw[8:]


def check(name: str, values: Sequence[Any]) -> None:
    pack, kind, _ = CASES[name]
    packed = pack(values)
    oid, raw = sent_by_psycopg(values, kind)
    assert packed.array_oid == oid
    assert packed.data == (told_to_hold_nulls(raw) if name in NULLABLE else raw)


@pytest.mark.parametrize("name", CASES)
def test_a_column_is_packed_as_psycopg_would_do_it(name: str) -> None:
    values = CASES[name][2]
    check(name, values)
    check(name, tuple(values))
    check(name, values * 50)
    for value in values:
        check(name, [value])


@pytest.mark.parametrize("name", NULLABLE)
def test_nulls_may_stand_anywhere(name: str) -> None:
    values = CASES[name][2]
    check(name, [None, *values])
    check(name, [*values, None])
    check(name, [item for value in values for item in (None, value, None)])


@pytest.mark.parametrize("name", NULLABLE)
def test_a_column_of_nulls_only_keeps_its_type(name: str) -> None:
    packed = CASES[name][0]([None, None])
    assert packed.data == struct.pack(">iiIii", 1, 1, packed.element_oid, 2, 1) + b"\xff\xff\xff\xff" * 2


@pytest.mark.parametrize("name", CASES)
def test_an_empty_column_has_no_dimension(name: str) -> None:
    pack, kind, values = CASES[name]
    dumper = Transformer().get_dumper([kind(values[0])], PyFormat.BINARY)
    assert pack([]).data == bytes(dumper.dump([]) or b"")


@pytest.mark.parametrize("name", CASES)
def test_the_element_type_is_the_one_of_the_array_type(name: str) -> None:
    packed = CASES[name][0]([])
    info = psycopg.adapters.types.get(packed.element_oid)
    assert info is not None
    assert info.array_oid == packed.array_oid
    assert type(packed).__doc__ == f"{info.regtype.replace('timestamp with time zone', 'timestamptz')}[]"


def test_a_registered_column_is_sent_in_binary_as_it_is() -> None:
    adapters = psycopg.adapt.AdaptersMap(psycopg.adapters)
    for kind, dumper in DUMPERS:
        adapters.register_dumper(kind, dumper)

    class Context:
        connection = None

    Context.adapters = adapters  # type: ignore[attr-defined]
    for pack, _, values in CASES.values():
        packed = pack(values)
        for wanted in (PyFormat.AUTO, PyFormat.BINARY):
            found = Transformer(Context()).get_dumper(packed, wanted)  # type: ignore[arg-type]
            assert (found.oid, found.format) == (packed.array_oid, psycopg.pq.Format.BINARY)
            assert found.dump(packed) == packed.data


@pytest.mark.parametrize(
    ("pack", "value"),
    [
        (arrays.int4s, MAX4 + 1),
        (arrays.int4s, MIN4 - 1),
        (arrays.int4s_or_null, MAX4 + 1),
        (arrays.int8s_or_null, MAX8 + 1),
        (arrays.int8s_or_null, MIN8 - 1),
    ],
)
def test_a_number_that_does_not_fit_is_an_error_and_not_another_number(pack: Pack, value: int) -> None:
    with pytest.raises(struct.error):
        pack([1, value])


@pytest.mark.parametrize("pack", [arrays.texts, arrays.texts_or_null])
def test_half_a_surrogate_pair_is_an_error(pack: Pack) -> None:
    with pytest.raises(UnicodeEncodeError):
        pack(["\ud800"])


@STEADY
@given(
    st.lists(st.none() | st.integers(MIN4, MAX4), max_size=8).filter(lambda v: not v or any(x is not None for x in v))
)
def test_any_integers(values: list[int | None]) -> None:
    if values:
        check("int4s_or_null", values)
        check("int8s_or_null", values)
        check("int4s", [value for value in values if value is not None])


@STEADY
@given(st.lists(st.text(max_size=20), min_size=1, max_size=8), st.lists(st.binary(max_size=20), min_size=1, max_size=8))
def test_any_texts_and_bytes(texts: list[str], raws: list[bytes]) -> None:
    check("texts", texts)
    check("texts_or_null", [*texts, None])
    check("byteas", raws)


@STEADY
@given(
    st.lists(st.datetimes(timezones=st.just(UTC)), min_size=1, max_size=8),
    st.lists(st.uuids(), min_size=1, max_size=8),
)
def test_any_times_and_ids(times: list[datetime], ids: list[UUID]) -> None:
    check("timestamps", times)
    check("timestamps_or_null", [None, *times])
    check("uuids", ids)
