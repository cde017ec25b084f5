"""`kairos config`: every setting with its value, default and source."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.text import Text

from kairos import settings
from kairos.cli import exits
from kairos.cli.apps import NO_APP, AppChoice, choose_app
from kairos.cli.grid import Column, print_grid
from kairos.cli.terminal import one_line, out, print_json
from kairos.errors import ConfigError

HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting as it is in this environment; `error` says what is wrong with its value."""

    name: str
    env: str
    text: str
    default: str
    source: str
    help: str
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "name": self.name,
            "env": self.env,
            "value": self.text,
            "default": self.default,
            "source": self.source,
            "help": self.help,
            "error": self.error,
        }


def show_config(*, app: str | None, as_json: bool) -> int:
    """Print every setting; 1 if one of them is malformed."""
    entries = [_entry(name) for name in settings.SETTINGS]
    strangers = _strangers()
    choice, app_error = _app(app)
    is_wrong = any(entry.error for entry in entries) or bool(strangers) or app_error is not None
    if as_json:
        chosen = None if choice is None else {"spec": choice.spec, "source": choice.source}
        unknown = [{"env": name, "error": error} for name, error in strangers.items()]
        listed = [entry.to_json() for entry in entries]
        print_json({"settings": listed, "unknown": unknown, "app": chosen, "app_error": app_error})
    else:
        _print(out(), entries, strangers, choice, app_error)
    return exits.ERROR if is_wrong else exits.OK


def _entry(name: str) -> Entry:
    setting = settings.SETTINGS[name]
    given = os.environ.get(setting.env)
    text = setting.default if given is None else given
    error = None
    try:
        settings.read(name)
    except ConfigError as exc:
        error = exc.message
    shown = mask(text) if setting.is_secret and text else text
    source = "default" if given is None else "environment"
    return Entry(name, setting.env, shown, setting.default, source, setting.help, error)


def _strangers() -> dict[str, str]:
    """KAIROS_ variables that mean nothing: most likely typos."""
    known = {setting.env for setting in settings.SETTINGS.values()}
    found = {}
    for name in sorted(os.environ):
        if name.startswith("KAIROS_") and name not in known:
            try:
                settings.read_all({name: ""})
            except ConfigError as exc:
                found[name] = f"{exc.message}. {exc.hint}"
    return found


def _app(given: str | None) -> tuple[AppChoice | None, str | None]:
    try:
        return choose_app(given), None
    except ConfigError as exc:
        return None, exc.message


def mask(url: str) -> str:
    """Where a database is, without what gives access to it. Shows only parts that are surely harmless."""
    if "://" in url:
        try:
            parts = urlsplit(url)
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            return HIDDEN
        if "@" in parts.path or parts.hostname is None or parts.fragment:
            return HIDDEN
        user = f"{parts.username}{f':{HIDDEN}' if parts.password is not None else ''}@" if parts.username else ""
        return f"{parts.scheme}://{user}{parts.hostname}{port}{parts.path}"
    if "=" not in url:
        return HIDDEN
    shown = re.findall(r"\b(host|port|dbname|user)\s*=\s*([\w./-]+)", url)
    return " ".join([*(f"{k}={v}" for k, v in shown), HIDDEN])


def _print(
    console: Console, entries: list[Entry], strangers: dict[str, str], choice: AppChoice | None, app_error: str | None
) -> None:
    columns = [Column("SETTING"), Column("VALUE", most=48), Column("DEFAULT"), Column("SOURCE"), Column("")]
    rows = [
        [
            Text(entry.env, "bold" if entry.source != "default" else ""),
            Text(one_line(entry.text) or "-", "red" if entry.error else "bold" if entry.source != "default" else ""),
            Text(entry.default or "-", "dim"),
            Text(entry.source, "dim" if entry.source == "default" else "cyan"),
            Text(entry.help, "dim"),
        ]
        for entry in entries
    ]
    print_grid(console, columns, rows)
    console.print()
    if app_error is not None:
        console.print(Text.assemble(("app  ", "dim"), (one_line(app_error), "red")), soft_wrap=True)
    elif choice is None:
        console.print(Text.assemble(("app  ", "dim"), f"none is named. {NO_APP}"), soft_wrap=True)
    else:
        line = Text.assemble(("app  ", "dim"), one_line(choice.spec), (f"  from {choice.source}", "dim"))
        console.print(line, soft_wrap=True)
    for error in (*(entry.error for entry in entries if entry.error), *strangers.values()):
        console.print(Text.assemble(("error: ", "bold red"), one_line(error, 500)), soft_wrap=True)
