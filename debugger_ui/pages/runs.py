"""The list of runs: filters in the address, newest first, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from debugger_ui import words
from debugger_ui.reads import Reads
from debugger_ui.ui import ui_of
from kairos.domain.duration import parse_duration
from kairos.domain.states import RunStatus, read_run_status
from kairos.errors import AmbiguousRun, InvalidArgument, KairosError, RunNotFound
from kairos.store.reader import RunInfo

PAGE: Final = 50
FILTERS: Final = ("q", "status", "workflow", "key", "label", "since", "until")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the address filters by."""

    given: Mapping[str, str]
    statuses: tuple[RunStatus, ...] = ()
    workflow: str | None = None
    key: str | None = None
    labels: Mapping[str, str] | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_narrow(self) -> bool:
        """Whether anything is filtered."""
        return bool(self.given)

    def query(self, **changes: str | None) -> str:
        """The address with something changed; None takes it away."""
        facts = {name: value for name, value in {**self.given, **changes}.items() if value}
        return "/runs" + (f"?{urlencode(facts)}" if facts else "")

    def toggled(self, status: RunStatus) -> str:
        """The address with one status more, or less."""
        kept = [s for s in self.statuses if s is not status]
        chosen = kept if len(kept) < len(self.statuses) else [*kept, status]
        return self.query(status=",".join(s.value.lower() for s in chosen))


def read_filters(query: Mapping[str, str]) -> Wanted:
    """The filters of an address. Raises InvalidArgument."""
    given = {name: query[name].strip() for name in FILTERS if query.get(name, "").strip()}
    statuses = tuple(read_run_status(part.strip()) for part in given.get("status", "").split(",") if part.strip())
    name, sep, value = given.get("label", "").partition("=")
    if given.get("label") and not (sep and name and value):
        raise InvalidArgument(f"label={given['label'][:60]!r} is not NAME=VALUE")
    return Wanted(
        given,
        tuple(dict.fromkeys(statuses)),
        given.get("workflow"),
        given.get("key"),
        {name: value} if sep else None,
        _moment(given, "since"),
        _moment(given, "until"),
    )


async def list_page(reads: Reads, wanted: Wanted, before: UUID | None, limit: int) -> tuple[list[RunInfo], UUID | None]:
    """One page, and the id that the next one begins after."""
    async with reads.reader() as reader:
        infos = await reader.list_runs(
            workflow=wanted.workflow,
            statuses=[status.value for status in wanted.statuses] or None,
            key=wanted.key,
            labels=wanted.labels,
            since=wanted.since,
            until=wanted.until,
            before=before,
            limit=limit + 1,
        )
    return infos[:limit], infos[limit - 1].id if len(infos) > limit else None


async def listing(request: Request) -> Response:
    """The page; a fragment of it when a script asks for news."""
    ui = ui_of(request)
    problem: KairosError | None = None
    infos: list[RunInfo] = []
    following: UUID | None = None
    wanted = Wanted({})
    try:
        wanted = read_filters(request.query_params)
        if "q" in wanted.given:
            found = await _search(request, wanted.given["q"])
            if found is not None:
                return found
            wanted = read_filters({**wanted.given, "q": "", "key": wanted.given["q"]})
        infos, following = await list_page(ui.reads, wanted, before_of(request.query_params), PAGE)
    except InvalidArgument as exc:
        problem = exc
    facts: dict[str, Any] = {
        "wanted": wanted,
        "infos": infos,
        "following": following,
        "problem": problem,
        "statuses": list(RunStatus),
        "is_first": not request.query_params.get("before"),
    }
    name = "runs_rows.html" if request.headers.get("hx-request") else "runs.html"
    return ui.page(request, name, status=400 if problem else 200, **facts)


async def _search(request: Request, text: str) -> Response | None:
    """To the run that a part of an id means, if it means one; None: the text may be a key."""
    try:
        run_id = await ui_of(request).histories.find(text)
    except (RunNotFound, AmbiguousRun):
        return None
    return RedirectResponse(f"/runs/{run_id}", 303)


def before_of(query: Mapping[str, str]) -> UUID | None:
    """The id that a page begins after. Raises InvalidArgument."""
    text = query.get("before", "")
    try:
        return UUID(text) if text else None
    except ValueError:
        raise InvalidArgument(f"before={text[:60]!r} is not the id of a run") from None


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
        return words.now() - parse_duration(text, what=name)
    except (KairosError, OverflowError):
        raise InvalidArgument(
            f"{name}={text[:60]!r} is not a time", hint="Write 30m, 2h, 7d, or 2026-07-17 12:00 (UTC)."
        ) from None


def length_of(info: RunInfo, now: datetime) -> timedelta | None:
    """How long a run took, or has been going on."""
    return None if info.status is RunStatus.SCHEDULED else max((info.ended_at or now) - info.created_at, timedelta())
