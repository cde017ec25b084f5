"""What all pages share: reads, runs in memory, templates, the client that acts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from debugger_ui import words
from debugger_ui.guards import Access
from debugger_ui.histories import Histories
from debugger_ui.reads import Reads
from debugger_ui.watching import Watcher
from kairos import __version__

if TYPE_CHECKING:
    from kairos.client import AsyncClient

FOLDER: Final = Path(__file__).parent


@dataclass
class Ui:
    """One debugger. `may_act`: whether it offers what changes something."""

    reads: Reads
    access: Access
    url: str
    may_act: bool

    def __post_init__(self) -> None:
        self.histories = Histories(self.reads)
        self.watcher = Watcher(self.reads)
        self.kept: dict[str, tuple[float, dict[str, Any]]] = {}
        self._client: AsyncClient | None = None
        self._opening = asyncio.Lock()

    @cached_property
    def version(self) -> str:
        """Changes with every file in `static`: their addresses hold it, so that browsers may keep them for ever."""
        digest = sha256(__version__.encode())
        for path in sorted((FOLDER / "static").rglob("*")):
            if path.is_file():
                digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()[:12]

    @cached_property
    def templates(self) -> Environment:
        """The templates. Everything is escaped; there is no way around it in a template."""
        found = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        found.globals.update(words=words, static=f"/static/{self.version}", kairos_version=__version__)
        found.filters.update(
            clock=words.clock,
            took=words.took,
            took_us=words.took_us,
            size=words.size,
            short=words.short_id,
            kind=words.kind_words,
            segment=lambda text: quote(str(text), safe=""),
        )
        return found

    def page(self, request: Request, name: str, *, status: int = 200, **facts: Any) -> Response:
        """A whole page, or a fragment of one."""
        html = self.templates.get_template(name).render(request=request, ui=self, now=words.now(), **facts)
        return HTMLResponse(html, status)

    async def client(self) -> AsyncClient:
        """The client through which everything acts; opened when it is first needed."""
        from kairos.client import AsyncClient

        async with self._opening:
            if self._client is None:
                self._client = await AsyncClient(self.reads.dsn, patience=5.0).open()
        return self._client

    async def close(self) -> None:
        """Let go of the database."""
        await self.watcher.close()
        if self._client is not None:
            await self._client.close()
        await self.reads.close()


def ui_of(request: Request) -> Ui:
    """The debugger that a request came to."""
    found: Ui = request.app.state.ui
    return found
