"""The list of runs: filters in the address, newest first, page by page in both directions, news in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from debugger_ui.reads import Reads, is_too_slow
from debugger_ui.ui import Ui, ui_of
from debugger_ui.wanted import NAMES, Wanted, address, read_wanted
from kairos.domain.matching import read_input_query
from kairos.domain.states import RunStatus
from kairos.errors import AmbiguousRun, InvalidArgument, KairosError, RunNotFound
from kairos.store.lists import RunFilter
from kairos.store.reader import RunInfo
from kairos.store.searching import Found, search_inputs

PAGE: Final = 50
MOST_NEWS: Final = 100
MAX_SHOWN: Final = 200
"""Rows about which one page may ask for news."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One page, newest first.

    Attributes:
        older, newer: the id that the next page in that direction begins at; None if there is none.
        search: how far the inputs were searched, if they were.
    """

    infos: Sequence[RunInfo] = ()
    older: UUID | None = None
    newer: UUID | None = None
    search: Found | None = None


async def list_page(reads: Reads, wanted: Wanted, limit: int) -> Listed:
    """The page that is wanted. Raises DatabaseUnavailable; `is_too_slow` says if it just took too long."""
    if wanted.input is not None:
        async with reads.aside() as reader:
            found = await search_inputs(reader, wanted.input, wanted.filter, before=wanted.before, limit=limit)
        newer = found.runs[0].id if found.runs and wanted.before else None
        return Listed(found.runs, found.following, newer, found)
    # What is not filtered is found by the primary key alone.
    async with reads.aside() if wanted.is_narrow else reads.reader() as reader:
        infos = await reader.select_runs(wanted.filter, before=wanted.before, after=wanted.after, limit=limit + 1)
        has_more = len(infos) > limit
        if wanted.after is not None and not has_more:
            # The top is reached: the first page, whole.
            infos = await reader.select_runs(wanted.filter, limit=limit + 1)
            return Listed(infos[:limit], infos[limit - 1].id if len(infos) > limit else None)
    if wanted.after is not None:
        kept = infos[-limit:]
        return Listed(kept, kept[-1].id, kept[0].id)
    kept = infos[:limit]
    newer = kept[0].id if kept and wanted.before is not None else None
    return Listed(kept, kept[-1].id if has_more else None, newer)


async def listing(request: Request) -> Response:
    """The page."""
    ui = ui_of(request)
    problem: KairosError | None = None
    listed, wanted, status = Listed(), Wanted(), 200
    try:
        text = request.query_params.get("q", "").strip()
        if text:
            meant = await resolve(ui, text, request.query_params)
            if isinstance(meant, str):
                return RedirectResponse(meant, 303)
            listed = Listed(meant)
        else:
            wanted = read_wanted(request.query_params)
            listed = await list_page(ui.reads, wanted, PAGE)
    except InvalidArgument as exc:
        problem, status = exc, 400
    except KairosError as exc:
        if not is_too_slow(exc):
            raise
        problem, status = _slow(exc), 503
    facts: dict[str, Any] = {
        "wanted": wanted,
        "listed": listed,
        "problem": problem,
        "text": text,
        "statuses": list(RunStatus),
        "given": _as_written(request.query_params) if problem else wanted.given,
    }
    return ui.page(request, "runs.html", status=status, **facts)


async def news(request: Request) -> Response:
    """What became of the runs that a page shows (`ids`: id:seq, by commas), and how many are newer than `top`.

    Only rows that have changed come back.
    """
    ui = ui_of(request)
    wanted = read_wanted(request.query_params)
    shown = _shown(request.query_params.get("ids", ""))
    top = request.query_params.get("top")
    newer = 0
    async with ui.reads.reader() as reader:
        heads = await reader.heads(shown)
        moved = [run_id for run_id, (seq, _) in heads.items() if seq != shown[run_id]]
        infos = await reader.runs(moved) if moved else {}
        if top and wanted.input is None:
            newer = len(await reader.select_runs(wanted.filter, after=_uuid(top), limit=MOST_NEWS + 1))
    gone = [run_id for run_id in shown if run_id not in heads]
    facts: dict[str, Any] = {"infos": [infos[run_id] for run_id in shown if run_id in infos], "gone": gone}
    return ui.page(request, "runs_news.html", newer=min(newer, MOST_NEWS), has_more=newer > MOST_NEWS, **facts)


async def resolve(ui: Ui, text: str, query: Mapping[str, str]) -> str | list[RunInfo]:
    """What a search means: the address of the run or list, or the runs whose ids it fits."""
    given = {name: query[name] for name in NAMES if query.get(name)}
    if "=" not in text:
        try:
            return f"/runs/{await ui.histories.find(text)}"
        except AmbiguousRun as exc:
            async with ui.reads.reader() as reader:
                infos = await reader.runs(exc.facts["ids"])
            return [infos[run_id] for run_id in sorted(infos, reverse=True)]
        except RunNotFound as exc:
            if "removed_at" in exc.facts:
                return f"/runs/{text}"
        async with ui.reads.aside() as reader:
            if "\0" not in text and await reader.select_runs(RunFilter(key=text), limit=1):
                return address("/runs", given, key=text)
    read_input_query(text)
    return address("/runs", given, input=text)


def _slow(error: KairosError) -> KairosError:
    return InvalidArgument(
        "The database gave up: looking through all runs for this takes too long.",
        hint="Narrow it by a workflow, or by since=2h, and ask again.",
    )


def _as_written(query: Mapping[str, str]) -> dict[str, str]:
    return {name: query[name] for name in NAMES if query.get(name)}


def _shown(text: str) -> dict[UUID, int]:
    shown: dict[UUID, int] = {}
    for part in text.split(",")[:MAX_SHOWN] if text else ():
        run_id, _, seq = part.partition(":")
        if not (seq.isascii() and seq.isdecimal() and len(seq) < 10):
            raise InvalidArgument(f"ids: {part[:60]!r} is not ID:SEQ")
        shown[_uuid(run_id)] = int(seq)
    return shown


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidArgument(f"{text[:60]!r} is not the id of a run") from None
