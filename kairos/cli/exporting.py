"""`kairos export`: one run into one file."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from rich.text import Text

from kairos.authoring.redaction import Redaction
from kairos.cli import exits, words
from kairos.cli.database import reading
from kairos.cli.repeating import command
from kairos.cli.sources import SUFFIX
from kairos.cli.terminal import out, print_json, safe
from kairos.cli.usage import UsageError
from kairos.errors import DefinitionError
from kairos.replay.bundle import Written, export_bundle


def export_run(
    name: str, *, output: str | None, redact: list[str], payloads: bool, force: bool, url: str | None, as_json: bool
) -> int:
    """Write the bundle and say what is in it."""
    rules = read_rules(redact)

    async def work() -> int:
        async with reading(url) as reader:
            info = await reader.run(await reader.find(name))
            path = _path(output, f"{info.workflow}-{words.short_id(info.id)}{SUFFIX}")
            began = time.monotonic()
            written = await export_bundle(reader, info.id, path, redact=rules, payloads=payloads, force=force)
            if as_json:
                print_json(document(written))
            else:
                _print(written, time.monotonic() - began)
            return exits.OK

    return asyncio.run(work())


def read_rules(given: list[str]) -> Redaction:
    """What `--redact` says: names of fields, and `/regular expressions/` between slashes.

    Raises:
        UsageError: an expression that cannot be one, an empty name.
    """
    patterns = [text[1:-1] for text in given if len(text) > 2 and text[0] == text[-1] == "/"]
    fields = [text for text in given if not (len(text) > 2 and text[0] == text[-1] == "/")]
    try:
        return Redaction(fields=fields, patterns=patterns)
    except DefinitionError as exc:
        message = exc.message.replace("Redaction(patterns=...)", "--redact").replace(
            "Redaction(fields=...)", "--redact"
        )
        raise UsageError(message, hint=exc.hint) from None


def document(written: Written) -> dict[str, Any]:
    """What was written, as JSON."""
    return {
        "file": str(written.path),
        "run_id": str(written.run_id),
        "workflow": written.workflow,
        "status": written.status,
        "bytes": written.size,
        "events": written.events,
        "values": written.values,
        "value_bytes": written.value_bytes,
        "redacted": written.redacted,
    }


def _path(output: str | None, name: str) -> Path:
    if output is None:
        return Path(name)
    if output in ("", "-"):
        raise UsageError("-o needs the name of a file: a bundle is sealed once it is whole, so it cannot be a stream")
    path = Path(output)
    return path / name if path.is_dir() else path


def _print(written: Written, seconds: float) -> None:
    console = out()
    mark = "✓ " if words.has_shapes() else ""
    head = Text.assemble(
        (f"{mark}exported", "green"), "  ", (safe(written.path), "bold"), "  ", words.size(written.size)
    )
    console.print(head, soft_wrap=True)
    facts = f"{written.workflow} {words.short_id(written.run_id)}, {written.status}: "
    facts += words.plural(written.events, "event")
    if written.values:
        facts += f", {words.plural(written.values, 'value')} of {words.size(written.value_bytes)}"
    facts += f", {written.redacted} redacted" if written.redacted else ""
    console.print(f"{safe(facts)}; mode 0600, {seconds:.2g}s", style="dim", soft_wrap=True)
    if console.is_terminal:
        nexts = (command(verb, str(written.path)) for verb in ("replay", "show"))
        console.print(safe("   ".join(nexts)), style="dim", soft_wrap=True)
