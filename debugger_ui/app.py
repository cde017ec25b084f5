"""The routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route

from debugger_ui.guards import Access
from debugger_ui.opened import Files
from debugger_ui.pages import (
    acting,
    api,
    assets,
    bundles,
    comparing,
    dashboard,
    files_api,
    forking,
    health,
    lineage,
    live,
    opening,
    origin,
    panes,
    problems,
    run,
    runs,
    search,
    traces,
    workflows,
)
from debugger_ui.reads import Reads
from debugger_ui.ui import Ui

if TYPE_CHECKING:
    from debugger_ui.current import CurrentCode

ROUTES = (
    Route("/", dashboard.dashboard),
    Route("/runs", runs.listing),
    Route("/runs/news", runs.news),
    Route("/runs/{run}", run.page),
    Route("/runs/{run}/head", run.head),
    Route("/runs/{run}/index.json", run.index),
    Route("/runs/{run}/state.json", run.state),
    Route("/runs/{run}/graph", run.graph),
    Route("/runs/{run}/pane", panes.pane),
    Route("/runs/{run}/value", panes.value),
    Route("/runs/{run}/download", panes.download),
    Route("/runs/{run}/origin", origin.page),
    Route("/runs/{run}/search", search.page),
    Route("/runs/{run}/live", live.stream),
    Route("/runs/{run}/lineage", lineage.lineage),
    Route("/runs/{run}/bundle", bundles.bundle),
    Route("/compare", comparing.compare),
    Route("/runs/{run}/fork", forking.fork, methods=["GET", "POST"]),
    Route("/runs/{run}/cancel", acting.cancel, methods=["POST"]),
    Route("/open", opening.listing),
    Route("/open", opening.drop, methods=["POST"]),
    Route("/open/{key}/close", opening.close, methods=["POST"]),
    Route("/traces/{trace}", traces.page),
    Route("/traces/{trace}/moment", traces.moment),
    Route("/traces/{trace}/source", traces.source),
    Route("/traces/{trace}/hits", traces.hits),
    Route("/login", health.login, methods=["GET", "POST"]),
    Route("/healthz", health.healthz),
    Route("/readyz", health.readyz),
    Route("/machine.json", run.machine_json),
    Route("/static/{version}/{name:path}", assets.asset),
    Route("/workflows", workflows.listing),
    Route("/workflows/{name}", workflows.page),
    Route("/api/v1/dashboard", dashboard.api),
    Route("/api/v1/workflows", workflows.api_list),
    Route("/api/v1/workflows/{name}", workflows.api),
    *api.ROUTES,
    *files_api.ROUTES,
)


def build(
    reads: Reads,
    access: Access,
    *,
    url: str,
    may_act: bool,
    files: Files | None = None,
    app: CurrentCode | None = None,
) -> Starlette:
    """The application.

    Args:
        url: where it is reached.
        may_act: whether it offers what changes something.
        files: bundles and traces that are open from the beginning.
        app: the app at hand, which recorded code is held against.
    """
    ui = Ui(reads, access, url, may_act, files or Files(is_alone=not reads.has_database), app)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        reads.open()
        if ui.app is not None:
            ui.app.start()
        try:
            yield
        finally:
            await ui.close()

    built = Starlette(
        routes=list(ROUTES),
        lifespan=lifespan,
        middleware=[Middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5)],
        exception_handlers=problems.HANDLERS,
    )
    built.router.redirect_slashes = False
    built.state.ui = ui
    return built
