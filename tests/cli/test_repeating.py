"""Commands that are printed to be typed."""

from __future__ import annotations

import shlex

import pytest

from kairos.cli.repeating import command, without_password


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("postgresql://me:s3:cr%40t@db:5432/shop?sslmode=require", "postgresql://me@db:5432/shop?sslmode=require"),
        ("postgresql://me@db/shop", "postgresql://me@db/shop"),
        ("postgresql://db:5432/shop?user=me&password=x", "postgresql://db:5432/shop?user=me"),
        ("postgresql:///shop?password=x&host=/tmp/a", "postgresql:///shop?host=/tmp/a"),
        ("host=db password='it\\'s a' user=me", "host=db user=me"),
        ("password=x dbname=shop", "dbname=shop"),
        ("dbname=shop application_name=passwords", "dbname=shop application_name=passwords"),
    ],
)
def test_a_password_is_not_printed(url: str, bare: str) -> None:
    assert without_password(url) == bare


def test_what_was_named_is_named_again_and_quoted() -> None:
    line = command("replay", "run 1.kairos", app="my app.py:app", allow_network=["h:1", "i"], env=())
    assert shlex.split(line) == [
        "kairos", "replay", "run 1.kairos", "--allow-network", "h:1", "--allow-network", "i", "--app", "my app.py:app"
    ]  # fmt: skip
