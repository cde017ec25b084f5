"""`kairos migrate`, `config`, `version`, `embedded`, and which app a command means."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from kairos import embedded
from kairos.cli import exits
from kairos.cli.configuration import mask
from tests.cli.cli_support import Kairos
from tests.conftest import Server, TestDatabase

# -- migrate --------------------------------------------------------------------------------------------------


@pytest.fixture
def empty(server: Server, database: TestDatabase) -> str:
    """The owner's address of a database without a schema."""
    with psycopg.connect(database.admin_dsn, autocommit=True) as conn:
        conn.execute("drop schema kairos cascade")
    return database.admin_dsn


def test_migrate_says_what_it_applied(run_kairos: Kairos, empty: str) -> None:
    env = {"KAIROS_DATABASE_URL": empty}
    first = run_kairos("migrate", env=env)
    assert first.code == 0
    assert first.lines[0] == "applied  0001_log"
    assert run_kairos("migrate", env=env).out == "The schema is up to date.\n"
    assert run_kairos("migrate", "--json", env=env).json == {"applied": [], "granted_to": None}
    assert run_kairos("runs", env=env).code == 0


def test_migrate_grants_a_role_what_it_needs(run_kairos: Kairos, empty: str, server: Server) -> None:
    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute("drop role if exists app_user")
        conn.execute("create role app_user login password 'pw'")
    done = run_kairos("migrate", "--grant-to", "app_user", env={"KAIROS_DATABASE_URL": empty})
    assert "granted  what workers and clients need, to app_user" in done.out
    with psycopg.connect(empty, autocommit=True) as conn:
        rows = conn.execute(
            "select has_table_privilege('app_user', 'kairos.event', 'insert'),"
            " has_table_privilege('app_user', 'kairos.event', 'update')"
        ).fetchone()
        conn.execute("drop owned by app_user")
        conn.execute("drop role app_user")
    assert rows == (True, False)


def test_migrate_for_a_role_that_is_missing_says_so(run_kairos: Kairos, empty: str) -> None:
    done = run_kairos("migrate", "--grant-to", "nobody_at_all", env={"KAIROS_DATABASE_URL": empty})
    assert done.code == exits.ERROR
    assert 'role "nobody_at_all" does not exist' in done.err
    assert "create role" in done.err


def test_migrate_by_a_role_without_rights_says_so(run_kairos: Kairos, empty: str, database: TestDatabase) -> None:
    if database.dsn == database.admin_dsn:
        pytest.skip("one role for all")
    done = run_kairos("migrate", env={"KAIROS_DATABASE_URL": database.dsn})
    assert done.code == exits.ERROR
    assert "permission denied" in done.err


def test_a_missing_database_is_a_clear_error(run_kairos: Kairos, database: TestDatabase) -> None:
    dsn = make_conninfo(database.dsn, dbname="nowhere")
    done = run_kairos("runs", env={"KAIROS_DATABASE_URL": dsn})
    assert done.code == exits.ERROR
    assert 'database "nowhere" does not exist' in done.err


# -- config ---------------------------------------------------------------------------------------------------


def test_config_tells_value_default_and_source(run_kairos: Kairos) -> None:
    done = run_kairos("config", "--json", env={"KAIROS_LEASE": "30s"})
    assert done.code == 0
    lease = next(s for s in done.json["settings"] if s["env"] == "KAIROS_LEASE")
    assert (lease["value"], lease["default"], lease["source"]) == ("30s", "15s", "environment")
    page = run_kairos("config", env={"KAIROS_LEASE": "30s"})
    line = next(line for line in page.lines if line.startswith("KAIROS_LEASE"))
    assert line.split()[:4] == ["KAIROS_LEASE", "30s", "15s", "environment"]


def test_config_shows_a_malformed_value_and_a_typo(run_kairos: Kairos) -> None:
    done = run_kairos("config", env={"KAIROS_POLL": "often", "KAIROS_CONCURENCY": "4"})
    assert done.code == exits.ERROR
    assert "KAIROS_POLL='often'" in done.out
    assert "KAIROS_CONCURENCY is not a setting of Kairos. Did you mean 'KAIROS_CONCURRENCY'?" in done.out


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:s3cret@db.example:5432/shop", "postgresql://ann:***@db.example:5432/shop"),
        ("postgresql://ann@db/shop", "postgresql://ann@db/shop"),
        ("postgresql://ann:s3cret@db/shop?sslpassword=s3cret", "postgresql://ann:***@db/shop"),
        ("postgresql://ann:s3c/ret@db/shop", "***"),
        ("postgresql://ann:s3c#ret@db/shop", "***"),
        ("postgresql://ann:s3c?ret@db/shop", "***"),
        ("host=db user=ann password=s3cret dbname=shop", "host=db user=ann dbname=shop ***"),
        ("s3cret", "***"),
    ],
)
def test_a_password_is_never_shown(run_kairos: Kairos, url: str, shown: str) -> None:
    assert mask(url) == shown
    for arguments in (("config",), ("config", "--json")):
        assert "s3c" not in run_kairos(*arguments, env={"KAIROS_DATABASE_URL": url}).out


# -- the app --------------------------------------------------------------------------------------------------


def app_of(run_kairos: Kairos, *arguments: str, **env: str) -> dict[str, str]:
    found: dict[str, str] = run_kairos("config", "--json", *arguments, env=env).json["app"]
    return found


def test_the_app_is_named_by_option_environment_or_pyproject(
    run_kairos: Kairos, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app_of(run_kairos) is None
    (place / "pyproject.toml").write_text('[tool.kairos]\napp = "shop/flows.py:app"\n')
    below = place / "deep" / "down"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert app_of(run_kairos) == {"spec": f"{place}/shop/flows.py:app", "source": str(place / "pyproject.toml")}
    assert app_of(run_kairos, KAIROS_APP="shop:app") == {"spec": "shop:app", "source": "KAIROS_APP"}
    assert app_of(run_kairos, "--app", "x.py", KAIROS_APP="shop:app") == {"spec": f"{below}/x.py", "source": "--app"}


def test_the_nearest_pyproject_decides(run_kairos: Kairos, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "pyproject.toml").write_text('[tool.kairos]\napp = "outer:app"\n')
    (place / "inner").mkdir()
    (place / "inner" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    monkeypatch.chdir(place / "inner")
    assert app_of(run_kairos) is None


@pytest.mark.parametrize("text", ["[tool.kairos]\napp = 3\n", "[tool.kairos\n", '[tool.kairos]\napp = ""\n'])
def test_a_malformed_pyproject_is_an_error(run_kairos: Kairos, place: Path, text: str) -> None:
    (place / "pyproject.toml").write_text(text)
    done = run_kairos("worker")
    assert done.code == exits.ERROR
    assert "pyproject.toml" in done.err


def test_a_worker_without_an_app_says_how_to_name_one(run_kairos: Kairos) -> None:
    for command in ("worker", "dev"):
        done = run_kairos(command)
        assert done.code == exits.USAGE
        assert "Pass --app module:app" in done.err


# -- version and the embedded server --------------------------------------------------------------------------


def test_version(run_kairos: Kairos) -> None:
    from kairos import __version__

    assert run_kairos("version").out.startswith(f"kairos {__version__} (Python 3.")
    assert run_kairos("--version").out == run_kairos("version").out
    assert run_kairos("version", "--json").json["kairos"] == __version__


def test_the_embedded_server_is_not_made_by_looking(run_kairos: Kairos, place: Path) -> None:
    for command in ("runs", "doctor", "verify", "workflows"):
        done = run_kairos(command)
        assert done.code == exits.ERROR
        assert "there is no Kairos database here" in done.out + done.err
    assert "There is none in" in run_kairos("embedded", "status").out
    assert run_kairos("embedded", "stop").out == "It was not running.\n"
    assert not (place / ".kairos").exists()


def test_the_embedded_server_is_made_used_shown_and_stopped(run_kairos: Kairos, place: Path) -> None:
    env = {"KAIROS_DATA_DIR": str(place / "data"), "KAIROS_EMBEDDED_GRACE": "30s"}
    try:
        assert run_kairos("run", "mail", "--app", "flows.py:app", "-i", '{"to": "x"}', env=env).code == 0
        assert "SCHEDULED" in run_kairos("runs", env=env).out
        assert run_kairos("migrate", env=env).out == "The schema is up to date.\n"
        status = run_kairos("embedded", "status", "--json", env=env).json
        assert status["running"] is True
        assert status["data_dir"] == str(place / "data")
        assert "running" in run_kairos("embedded", "status", env=env).out
        with embedded.open(place / "data"):
            refused = run_kairos("embedded", "stop", env=env)
            assert refused.code == exits.ERROR
            assert "or pass --force" in refused.err
        assert run_kairos("embedded", "stop", "--json", env=env).json == {"stopped": True}
        assert "stopped" in run_kairos("embedded", "status", env=env).out
    finally:
        embedded.stop(place / "data", force=True)
