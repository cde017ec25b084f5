"""`kairos run` and `kairos cancel`: start a run, wait for it, stop it.

What prints is imported after the start: the worker has the run by then, and nobody waits for the imports.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kairos.cli import exits
from kairos.cli.apps import choose_app, find_source
from kairos.cli.database import connected
from kairos.cli.filters import read_duration, read_labels
from kairos.cli.terminal import err, is_live, out, print_json, safe
from kairos.cli.usage import UsageError
from kairos.client import AsyncRun
from kairos.client.starting import check_text
from kairos.domain import canonical
from kairos.domain.names import check_name
from kairos.errors import DefinitionError, PayloadError
from kairos.store.reader import Reader

if TYPE_CHECKING:
    from kairos.authoring import Workflow


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What was typed; nothing of it is checked yet."""

    workflow: str
    input: str | None
    key: str | None
    labels: tuple[str, ...]
    queue: str | None
    priority: int | None
    ttl: str | None


def start_run(
    request: StartRequest, *, app: str | None, url: str | None, wait: bool, timeout: str | None, as_json: bool
) -> int:
    """Start, and with `wait` follow to the end."""
    value = read_input(request.input)
    labels = read_labels(request.labels)
    _check_names(request)
    seconds = None if timeout is None else read_duration(timeout, "--timeout").total_seconds()
    ttl = None if request.ttl is None else read_duration(request.ttl, "--ttl")
    if timeout is not None and not wait:
        raise UsageError("--timeout says how long --wait waits", hint="Add --wait.")
    target = _target(request.workflow, app)

    async def work() -> int:
        async with connected(url, may_create=True) as (client, reader):
            given = value if request.input is not None else await _default_input(target, reader)
            run = await client.start(
                target, given, key=request.key, labels=labels or None, queue=request.queue,
                priority=request.priority, ttl=ttl,
            )  # fmt: skip
            await run.refresh()
            if not wait:
                _print_started(run, as_json)
                return exits.OK
            from kairos.cli.waiting import see_through, wait_quietly

            if as_json:
                ending = await wait_quietly(reader, run.info.id, seconds)
                print_json(ending.to_json())
                return ending.exit_code
            _announce(run)
            return await see_through(reader, run.info.id, seconds, timeout)

    return asyncio.run(work())


def _check_names(request: StartRequest) -> None:
    """As the client checks them, but before a database is opened."""
    try:
        if request.queue is not None:
            check_name(request.queue, "queue")
        if request.key is not None:
            check_text(request.key, "the key")
    except (DefinitionError, PayloadError) as exc:
        raise UsageError(exc.message, hint=exc.hint) from None


def _target(name: str, app: str | None) -> Workflow | str:
    """The workflow of the app if there is one, else its name, for the version that workers announced last."""
    choice = choose_app(app)
    if choice is None:
        return name
    find_source(choice)
    from kairos.authoring.loading import load_app

    loaded = load_app(choice.spec)
    if name not in loaded.workflows and app is None:
        return name  # the app was not named on this command line; the database may know the workflow
    return loaded.get(name)


async def _default_input(target: Workflow | str, reader: Reader) -> Any:
    """What no `--input` means: an empty object if the workflow takes an object that has only optional fields."""
    if not isinstance(target, str):
        schema = target.definition.schemas.get("")
    else:
        rows = await reader.session.execute("latest_definition", {"workflow": target})
        schema = canonical.decode(bytes(rows[0][1]))["schemas"].get("") if rows else None
    is_object = isinstance(schema, dict) and schema.get("type") == "object" and not schema.get("required")
    return {} if is_object else None


def read_input(text: str | None) -> Any:
    """The value of `--input`. Raises UsageError, with the place of the mistake."""
    if text is None:
        return None
    where = "--input"
    if text == "-":
        where, text = "standard input", sys.stdin.read()
    elif text.startswith("@"):
        where = text[1:]
        try:
            text = Path(where).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise UsageError(f"--input: {where} cannot be read: {exc}") from exc
    try:
        return json.loads(text)
    except ValueError as exc:
        raise UsageError(
            f"{where} is not JSON: {exc}",
            hint='Write it as \'{"name": "value"}\' (in single quotes), as @file.json, or as - for standard input.',
        ) from None


def _announce(run: AsyncRun) -> None:
    from rich.text import Text

    text = Text.assemble(safe(run.info.workflow), ("  ", ""), (run.id, "bold"))
    (out() if is_live() else err()).print(text)


def _print_started(run: AsyncRun, as_json: bool) -> None:
    if as_json:
        print_json({"run": run.info.to_json()})
        return
    from rich.text import Text

    from kairos.cli import words

    text = Text.assemble(safe(run.info.workflow), "  ", (run.id, "bold"), "  ", words.status_text(run.status))
    console = out()
    console.print(text, soft_wrap=True)
    if console.is_terminal:
        console.print(f"kairos watch {words.short_id(run.id)}", style="dim")


def cancel_run(name: str, reason: str, *, url: str | None, as_json: bool) -> int:
    """Ask for a run to stop, and say what that means for it."""

    async def work() -> int:
        async with connected(url) as (client, _):
            run = await client.get_run(name)
            was = run.status
            await client.cancel(run.info.id, reason)
            await run.refresh()
            if as_json:
                print_json({"run": run.info.to_json(), "was": was.value})
            else:
                _print_cancelled(run, was.is_terminal)
            return exits.OK

    return asyncio.run(work())


def _print_cancelled(run: AsyncRun, had_ended: bool) -> None:
    from rich.text import Text

    from kairos.cli import words

    line = Text.assemble((words.short_id(run.id), "bold"), "  ", words.status_text(run.status), "  ")
    if had_ended:
        line.append("it had ended already; nothing was changed", "dim")
    elif run.status.is_terminal:
        line.append("stopped")
    else:
        line.append("nothing new starts; running steps have been told and get KAIROS_CANCEL_GRACE to end")
    out().print(line)
