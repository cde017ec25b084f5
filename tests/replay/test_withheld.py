"""Variables that an error asks for and that a replay has not passed on."""

from __future__ import annotations

import pytest

from kairos.replay.withheld import asked_for, hint_of

HELD = ("SHOP_REGION", "SHOP_DB", "HOME_URL", "_", "region_of")


@pytest.mark.parametrize(
    ("error", "names"),
    [
        ("KeyError: 'SHOP_REGION'", ["SHOP_REGION"]),
        ("RuntimeError: set SHOP_DB and SHOP_REGION first", ["SHOP_DB", "SHOP_REGION"]),
        ("KeyError: 'SHOP_REGIONS'", []),
        ("KeyError: 'shop_region'", []),
        (
            "ValidationError: 1 validation error for Settings\nregion\n  Field required [type=missing, ...]",
            ["SHOP_REGION"],
        ),
        ("ValidationError: 1 validation error for Settings\nhome_url\n  Field required [type=missing]", ["HOME_URL"]),
        ("ValidationError: 1 validation error for Order\namount\n  Input should be a number", []),
        ("", []),
    ],
)
def test_an_error_names_what_it_misses(error: str, names: list[str]) -> None:
    assert asked_for(error, HELD) == names


def test_the_hint_names_the_option() -> None:
    assert "--env SHOP_DB --env SHOP_REGION" in hint_of("SHOP_DB, SHOP_REGION", HELD)
    assert hint_of("nothing", HELD) == ""
