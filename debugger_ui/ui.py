"""What all pages share: reads, runs in memory, templates, the client that acts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from debugger_ui import words
from debugger_ui.board import Board
from debugger_ui.bundles import BundleReads
from debugger_ui.comparing import Comparisons
from debugger_ui.guards import Access
from debugger_ui.histories import Histories
from debugger_ui.opened import Files, OpenedRun
from debugger_ui.origins import Origins
from debugger_ui.reads import Reads
from debugger_ui.searches import Searches
from debugger_ui.shelf import Shelf
from debugger_ui.watching import Watcher
from kairos import __version__
from kairos.errors import Refused

if TYPE_CHECKING:
    from debugger_ui.current import CurrentCode
    from kairos.client import AsyncClient

FOLDER: Final = Path(__file__).parent


@dataclass
class Ui:
    """One debugger, or the inside of one file that was opened in it.

    Attributes:
        may_act: whether it offers what changes something.
        files: bundles and traces that are open here.
        app: the app at hand, if one was named: what recorded code is held against.
        file: the bundle that this is the inside of; `outer` the debugger in which it was opened.
    """

    reads: Reads
    access: Access
    url: str
    may_act: bool
    files: Files = field(default_factory=Files)
    app: CurrentCode | None = None
    file: OpenedRun | None = None
    outer: Ui | None = None

    def __post_init__(self) -> None:
        self.histories = Histories(self.reads)
        self.watcher = Watcher(self.reads)
        self.board = Board(self.reads)
        self.shelf = Shelf(self.reads)
        self.origins = Origins(self.shelf)
        self.searches = Searches(self.shelf)
        self.comparisons = Comparisons()
        self.packing = asyncio.Semaphore(2)
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
        if self.outer is not None:
            return self.outer.templates
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

    @property
    def has_database(self) -> bool:
        """Whether there are other runs than those of files."""
        return self.reads.has_database

    def of_run(self, name: str) -> Ui:
        """Whom to ask about a run: this debugger, or the inside of the file that the run was opened from."""
        opened = self.files.run(name) if self.outer is None else None
        if opened is None:
            return self
        if opened.inside is None:
            reads = BundleReads(opened.record, opened.address)
            opened.inside = Ui(reads, self.access, self.url, False, self.files, self.app, opened, self)
        inside: Ui = opened.inside
        return inside

    def href_of(self, run_id: str) -> str | None:
        """Where another run can be looked at; None if it is neither in a database nor open."""
        outer = self.outer or self
        try:
            found = UUID(run_id)
        except ValueError:
            return None
        address = outer.files.address_of(found)
        if address is None and not outer.has_database:
            return None
        return f"/runs/{address or found}"

    async def client(self) -> AsyncClient:
        """The client through which everything acts; opened when it is first needed. Raises Refused in a file."""
        from kairos.client import AsyncClient

        if not self.has_database:
            raise Refused("a bundle is read only", hint="`kairos import FILE` takes the run into a database.")

        async with self._opening:
            if self._client is None:
                self._client = await AsyncClient(self.reads.dsn, patience=5.0).open()
        return self._client

    async def close(self) -> None:
        """Let go of the database and of the files."""
        await self.watcher.close()
        self.files.close_all()
        if self.app is not None:
            await self.app.close()
        await self.board.close()
        if self._client is not None:
            await self._client.close()
        await self.reads.close()


def ui_of(request: Request) -> Ui:
    """The debugger that a request came to; for one about a run of a file, the inside of that file."""
    found: Ui = request.app.state.ui
    name = request.path_params.get("run")
    return found if name is None else found.of_run(name)
