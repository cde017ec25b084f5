"""Every setting of Kairos: one table of names, defaults and checks, read from the environment.

A malformed value is an error at start-up, never a surprise later. `kairos config` prints this table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from kairos.domain.duration import format_duration, parse_duration
from kairos.domain.names import check_name, nearest
from kairos.errors import ConfigError, KairosError


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. `default` is written as a user would write it."""

    env: str
    default: str
    parse: Callable[[str], Any]
    help: str
    is_secret: bool = False

    def explain(self) -> str:
        """What it is for, with an example: the hint for who has given it a wrong value."""
        example = f" For example {self.env}={self.default} (the default)." if self.default else ""
        return f"It means: {self.help}.{example}"


def _seconds(low: float, high: float) -> Callable[[str], float]:
    shortest = format_duration(timedelta(seconds=low)) if low else "0s"
    longest = format_duration(timedelta(seconds=high))

    def parse(text: str) -> float:
        try:
            value = parse_duration(float(text) if text.replace(".", "", 1).isdigit() else text).total_seconds()
        except KairosError:
            value = -1.0
        if not low <= value <= high:
            raise ValueError(f"must be a duration from {shortest} to {longest}")
        return value

    return parse


def _count(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text) if text.strip().isdecimal() else low - 1
        if not low <= value <= high:
            raise ValueError(f"must be a whole number from {low:,} to {high:,}")
        return value

    return parse


def _queues(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise ValueError("names no queue; write default, or default,payments")
    return tuple(check_name(name, "queue") for name in names)


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("must be 1 or 0, true or false, yes or no, on or off")


def _retention(text: str) -> timedelta | None:
    if text in ("", "forever"):
        return None
    value = parse_duration(text)
    if value < timedelta(hours=1):
        raise ValueError("must be at least 1h, or `forever`")
    return value


def _level(text: str) -> str:
    if text.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError("must be debug, info, warning or error")
    return text.upper()


def _url(text: str) -> str:
    if text and not text.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return text.rstrip("/")


def _failpoints(text: str) -> str:
    from kairos.store.failpoints import parse

    parse(text)
    return text


SETTINGS: Mapping[str, Setting] = {
    "database_url": Setting("KAIROS_DATABASE_URL", "", str, "Postgres to use; empty: the embedded one", True),
    "data_dir": Setting("KAIROS_DATA_DIR", ".kairos", Path, "where the embedded Postgres keeps its data"),
    "app": Setting("KAIROS_APP", "", str, "the app: module:attribute or file.py:attribute"),
    "queues": Setting("KAIROS_QUEUES", "default", _queues, "queues that a worker serves, separated by commas"),
    "concurrency": Setting("KAIROS_CONCURRENCY", "100", _count(1, 10_000), "steps that a worker process runs at once"),
    "processes": Setting("KAIROS_PROCESSES", "1", _count(1, 256), "worker processes that `kairos worker` starts"),
    "lease": Setting("KAIROS_LEASE", "15s", _seconds(1, 3600), "a silent worker is given up after this long"),
    "poll": Setting("KAIROS_POLL", "500ms", _seconds(0.01, 60), "longest pause between looks at the queue"),
    "notify": Setting("KAIROS_NOTIFY", "on", _flag, "wake workers by NOTIFY; off: polling alone"),
    "drain_timeout": Setting("KAIROS_DRAIN_TIMEOUT", "30s", _seconds(0, 86400), "what running steps get at shutdown"),
    "cancel_grace": Setting("KAIROS_CANCEL_GRACE", "10s", _seconds(0, 3600), "what running steps get at a cancel"),
    "log_level": Setting("KAIROS_LOG_LEVEL", "info", _level, "debug, info, warning or error"),
    "retention": Setting("KAIROS_RETENTION", "forever", _retention, "`kairos retention` removes runs this long after"),
    "ui_token": Setting("KAIROS_UI_TOKEN", "", str, "what a browser must show to open the debugger", True),
    "ui_url": Setting("KAIROS_UI_URL", "", _url, "where the debugger is reached: commands print links to it"),
    "embedded_grace": Setting(
        "KAIROS_EMBEDDED_GRACE", "10s", _seconds(0, 86400), "the embedded Postgres stops this long after its last user"
    ),
    "failpoints": Setting("KAIROS_FAILPOINTS", "", _failpoints, "for tests: where a process dies or stops"),
}


@dataclass(frozen=True, slots=True)
class Value:
    """A setting as it is now. `source` is `default` or `environment`."""

    name: str
    setting: Setting
    value: Any
    text: str
    source: str


def read_all(environ: Mapping[str, str] | None = None) -> dict[str, Value]:
    """Read every setting.

    Raises:
        ConfigError: a value is malformed, or an unknown KAIROS_* variable is set (most likely a typo).
    """
    env = os.environ if environ is None else environ
    known = {s.env for s in SETTINGS.values()} | _OTHERS
    for name in env:
        if name.startswith("KAIROS_") and name not in known:
            raise ConfigError(f"{name} is not a setting of Kairos", hint=nearest(name, known))
    return {name: _read(name, setting, env) for name, setting in SETTINGS.items()}


def read(name: str) -> Any:
    """The value of one setting. Raises ConfigError if it is malformed."""
    return _read(name, SETTINGS[name], os.environ).value


def _read(name: str, setting: Setting, env: Mapping[str, str]) -> Value:
    given = env.get(setting.env)
    text = setting.default if given is None else given
    try:
        value = setting.parse(text)
    except (ValueError, KairosError) as exc:
        why = exc.message if isinstance(exc, KairosError) else str(exc)
        shown = "***" if setting.is_secret else repr(text)
        raise ConfigError(f"{setting.env}={shown}: {why}", hint=setting.explain()) from None
    return Value(name, setting, value, text, "default" if given is None else "environment")


# Not settings of the product, but of its own machinery and tests: known, so that they are no typos.
_OTHERS = frozenset(
    {
        "KAIROS_EMBEDDED_NO_USERNS",
        "KAIROS_EMBEDDED_START_TIMEOUT",
        "KAIROS_SEED",
        "KAIROS_TEST_DATABASE_URL",
        "KAIROS_ISOLATED",
        "KAIROS_WORKER_CHILD",
        "KAIROS_LEDGER",
    }
)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker process is started with; durations in seconds."""

    queues: tuple[str, ...] = ("default",)
    concurrency: int = 100
    lease: float = 15.0
    poll: float = 0.5
    notify: bool = True
    drain_timeout: float = 30.0
    cancel_grace: float = 10.0

    @classmethod
    def from_settings(cls, **given: Any) -> WorkerOptions:
        """Take the settings of the environment, overridden by what is `given` and not None."""
        names = ("queues", "concurrency", "lease", "poll", "notify", "drain_timeout", "cancel_grace")
        values = {name: read(name) for name in names}
        return cls(**{**values, **{k: v for k, v in given.items() if v is not None}})
