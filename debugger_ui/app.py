"""The routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route

from debugger_ui.guards import Access
from debugger_ui.pages import acting, api, assets, dashboard, health, live, panes, problems, run, runs
from debugger_ui.reads import Reads
from debugger_ui.ui import Ui

ROUTES = (
    Route("/", dashboard.dashboard),
    Route("/runs", runs.listing),
    Route("/runs/{run}", run.page),
    Route("/runs/{run}/head", run.head),
    Route("/runs/{run}/index.json", run.index),
    Route("/runs/{run}/state.json", run.state),
    Route("/runs/{run}/graph", run.graph),
    Route("/runs/{run}/pane", panes.pane),
    Route("/runs/{run}/value", panes.value),
    Route("/runs/{run}/download", panes.download),
    Route("/runs/{run}/live", live.stream),
    Route("/runs/{run}/cancel", acting.cancel, methods=["POST"]),
    Route("/login", health.login, methods=["GET", "POST"]),
    Route("/healthz", health.healthz),
    Route("/readyz", health.readyz),
    Route("/machine.json", run.machine_json),
    Route("/static/{version}/{name:path}", assets.asset),
    *api.ROUTES,
)


def build(reads: Reads, access: Access, *, url: str, may_act: bool) -> Starlette:
    """The application. `url`: where it is reached; `may_act`: whether it offers what changes something."""
    ui = Ui(reads, access, url, may_act)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        reads.open()
        try:
            yield
        finally:
            await ui.close()

    app = Starlette(
        routes=list(ROUTES),
        lifespan=lifespan,
        middleware=[Middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5)],
        exception_handlers=problems.HANDLERS,
    )
    app.router.redirect_slashes = False
    app.state.ui = ui
    return app
