"""`kairos worker`: the supervisor in this process, worker children below it."""

from __future__ import annotations

import asyncio
from typing import Any

from kairos import settings
from kairos.cli.apps import require_app
from kairos.cli.usage import UsageError
from kairos.database import Database
from kairos.engine import logs
from kairos.engine.logs import LogFormat
from kairos.engine.processes import Plan, Supervisor
from kairos.errors import KairosError
from kairos.settings import WorkerOptions


def work(*, app: str | None, processes: int | None, given: dict[str, Any], log_format: str, url: str | None) -> int:
    """Run worker processes until told to stop."""
    choice = require_app(app)
    form = check_format(log_format)
    level = settings.read("log_level")
    options = worker_options(**given)
    logs.configure(form, level)
    with Database(url).require_schema() as database:
        plan = Plan(
            choice.spec,
            database.dsn,
            options,
            processes or settings.read("processes"),
            log_format=form,
            log_level=level,
            hold_fd=database.hold_fd,
        )
        return asyncio.run(_supervise(plan))


async def _supervise(plan: Plan) -> int:
    return await Supervisor(plan).run()


def worker_options(**given: Any) -> WorkerOptions:
    """Options as typed on a command line, checked as the settings of the same names are.

    Raises:
        UsageError: one is malformed; the message names the option.
    """
    values: dict[str, Any] = {}
    for name, text in given.items():
        if text is None:
            continue
        setting = settings.SETTINGS[name]
        try:
            values[name] = setting.parse(str(text))
        except (ValueError, KairosError) as exc:
            why = getattr(exc, "message", str(exc))
            raise UsageError(f"--{name.replace('_', '-')}={text}: {why}", hint=f"It means: {setting.help}.") from None
    return WorkerOptions.from_settings(**values)


def check_format(text: str) -> LogFormat:
    """`text` or `json`. Raises UsageError."""
    if text == "json":
        return "json"
    if text == "text":
        return "text"
    raise UsageError(f"--log-format={text}: must be text or json")
