"""Settings read from the environment: what a wrong value is told."""

from __future__ import annotations

import pytest

from kairos import settings
from kairos.errors import ConfigError

WRONG = [
    ("KAIROS_LEASE", "soon", "must be a duration from 1s to 1h"),
    ("KAIROS_LEASE", "999ms", "must be a duration from 1s to 1h"),
    ("KAIROS_LEASE", "3601", "must be a duration from 1s to 1h"),
    ("KAIROS_LEASE", "", "must be a duration from 1s to 1h"),
    ("KAIROS_DRAIN_TIMEOUT", "-1s", "must be a duration from 0s to 1d"),
    ("KAIROS_CONCURRENCY", "many", "must be a whole number from 1 to 10,000"),
    ("KAIROS_CONCURRENCY", "0", "must be a whole number from 1 to 10,000"),
    ("KAIROS_CONCURRENCY", "1.5", "must be a whole number from 1 to 10,000"),
    ("KAIROS_QUEUES", " , ", "names no queue; write default, or default,payments"),
    ("KAIROS_QUEUES", "a b", "queue name 'a b' is not valid"),
    ("KAIROS_NOTIFY", "maybe", "must be 1 or 0, true or false, yes or no, on or off"),
    ("KAIROS_LOG_LEVEL", "loud", "must be debug, info, warning or error"),
]


@pytest.mark.parametrize(("name", "value", "accepted"), WRONG)
def test_a_wrong_setting_is_told_its_name_its_value_and_what_is_accepted(name: str, value: str, accepted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.read_all({name: value})
    assert caught.value.message == f"{name}={value!r}: {accepted}"
    setting = next(s for s in settings.SETTINGS.values() if s.env == name)
    assert caught.value.hint == f"It means: {setting.help}. For example {name}={setting.default} (the default)."


def test_both_ends_of_a_range_are_accepted() -> None:
    for text, seconds in (("1s", 1), ("3600", 3600), ("1h", 3600), ("1.5", 1.5)):
        assert settings.read_all({"KAIROS_LEASE": text})["lease"].value == seconds
    for text in ("1", "10000"):
        assert settings.read_all({"KAIROS_CONCURRENCY": text})["concurrency"].value == int(text)
    assert settings.read_all({"KAIROS_DRAIN_TIMEOUT": "0"})["drain_timeout"].value == 0


def test_every_default_is_valid() -> None:
    assert {value.source for value in settings.read_all({}).values()} == {"default"}


def test_a_misspelt_setting_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"KAIROS_LAESE is not a setting of Kairos\n.*'KAIROS_LEASE'"):
        settings.read_all({"KAIROS_LAESE": "1s"})
