"""Which runs an address asks for, in the words of `kairos runs`, and the commands that ask for the same."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from debugger_ui import words
from kairos.domain.duration import parse_duration
from kairos.domain.matching import InputQuery, read_input_query
from kairos.domain.states import RunStatus, read_run_status
from kairos.errors import InvalidArgument, KairosError
from kairos.store.lists import BROKEN, RunFilter

NAMES: Final = (
    "status", "workflow", "version", "queue", "key", "label", "step", "error", "group", "unrepaired", "input",
    "since", "until",
)  # fmt: skip
_YES: Final = ("yes", "true", "1")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an address filters by.

    Attributes:
        given: the filters as written, by name.
        input: what inputs are searched for, if they are.
        before, after: where the page begins: older than the one run, or newer than the other.
    """

    given: Mapping[str, str] = field(default_factory=dict)
    filter: RunFilter = field(default_factory=RunFilter)
    input: InputQuery | None = None
    before: UUID | None = None
    after: UUID | None = None

    @property
    def is_narrow(self) -> bool:
        """Whether anything is filtered."""
        return bool(self.given)

    @property
    def is_first(self) -> bool:
        """Whether this is the page of the newest runs."""
        return self.before is None and self.after is None

    def query(self, **changes: object) -> str:
        """The address with something changed; None takes it away. It begins at the first page."""
        return address("/runs", self.given, **changes)

    def news(self) -> str:
        """The address that tells what became of the runs of this page, and how many newer ones there are."""
        return address("/runs/news", self.given)

    def toggled(self, status: RunStatus) -> str:
        """The address with one status more, or less."""
        chosen = self.filter.statuses
        kept = [s for s in chosen if s is not status]
        kept = kept if len(kept) < len(chosen) else [*kept, status]
        return self.query(status=",".join(s.value.lower() for s in kept))

    def command(self) -> str:
        """The line for a terminal that lists the same."""
        parts = ["kairos", "runs"]
        for name in NAMES:
            text = self.given.get(name)
            if name == "status":
                parts += [word for s in self.filter.statuses for word in ("--status", s.value.lower())]
            elif name == "unrepaired":
                parts += ["--unrepaired"] if text else []
            elif text:
                parts += [f"--{name}", text]
        return shlex.join(parts)

    def fork_command(self) -> str | None:
        """The line that says what a repair of all of them would be; None if `kairos fork --where` cannot say the same,
        or they are not broken."""
        if not self.filter.is_of_failures or self.filter.group or self.filter.version or self.filter.queue:
            return None
        statuses = [s for s in (self.filter.statuses or BROKEN) if s in BROKEN]
        if not statuses or self.input is not None:
            return None
        conditions = [f"status={','.join(s.value.lower() for s in statuses)}"]
        for name in ("workflow", "step", "error", "key", "label", "since", "until"):
            text = self.given.get(name)
            if text:
                shown = f"label.{text}" if name == "label" else f"{name}={text}"
                conditions.append(shlex.quote(shown))
        return shlex.join(["kairos", "fork", "--from", "failed", "--where", " ".join(conditions), "--dry-run"])


def address(path: str, given: Mapping[str, str], **changes: object) -> str:
    """A path with these parameters, some of them changed; None takes one away."""
    facts = {name: str(value) for name, value in {**given, **changes}.items() if value}
    return path + (f"?{urlencode(facts)}" if facts else "")


def read_wanted(query: Mapping[str, str]) -> Wanted:
    """The filters of an address. Raises InvalidArgument."""
    given = {name: query[name].strip() for name in NAMES if query.get(name, "").strip()}
    parts = (part.strip() for part in given.get("status", "").split(","))
    statuses = tuple(dict.fromkeys(read_run_status(part) for part in parts if part))
    if not statuses:
        given.pop("status", None)
    name, sep, value = given.get("label", "").partition("=")
    if given.get("label") and not (sep and name and value):
        raise InvalidArgument(f"label={given['label'][:60]!r} is not NAME=VALUE")
    if given.get("unrepaired", "yes").lower() not in _YES:
        given.pop("unrepaired")
    if any("\0" in text for text in given.values()):
        raise InvalidArgument("a filter holds a NUL character, which no run has")
    wanted = RunFilter(
        statuses,
        workflow=given.get("workflow"),
        version=given.get("version"),
        queue=given.get("queue"),
        key=given.get("key"),
        labels={name: value} if sep else None,
        since=_moment(given, "since"),
        until=_moment(given, "until"),
        step=given.get("step"),
        error=given.get("error"),
        group=given.get("group"),
        unrepaired="unrepaired" in given,
    )
    wanted.checked()
    asked = read_input_query(given["input"]) if "input" in given else None
    before, after = _run_id(query, "before"), _run_id(query, "after")
    return Wanted(given, wanted, asked, before, None if before else after)


def _run_id(query: Mapping[str, str], name: str) -> UUID | None:
    text = query.get(name, "")
    try:
        return UUID(text) if text else None
    except ValueError:
        raise InvalidArgument(f"{name}={text[:60]!r} is not the id of a run") from None


def _moment(given: Mapping[str, str], name: str) -> datetime | None:
    text = given.get(name)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError:
        pass
    try:
        return words.now() - parse_duration(text.removesuffix("ago").strip(), what=name)
    except (KairosError, OverflowError):
        raise InvalidArgument(
            f"{name}={text[:60]!r} is not a time", hint="Write 30m, 2h, 7d, or 2026-07-17 12:00 (UTC)."
        ) from None
