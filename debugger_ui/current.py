"""The app at hand: what recorded code is held against when `kairos ui --app` names one.

It is imported by a child process behind the guards of a replay, never by the debugger itself, and again when one of
its files has changed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

from kairos.domain.fingerprint import Definition
from kairos.errors import KairosError, WorkflowNotFound
from kairos.replay.replayer import Replayer, Settings

MAX_FILES: Final = 2_000
PATIENCE: Final = 20.0
"""Seconds for which the import may take."""


class CurrentCode:
    """The definitions of one app.

    Args:
        spec: as in `--app`.
        place: its file, or the folder of its package.
    """

    def __init__(self, spec: str, place: Path) -> None:
        self.spec, self.place = spec, place
        self.trouble: str | None = None
        self._known: dict[str, Definition] = {}
        self._seen: float | None = None
        self._busy = asyncio.Lock()
        self._early: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to import it, so that the first page need not wait."""
        self._early = asyncio.create_task(self._refresh())

    async def close(self) -> None:
        """Give up what is under way."""
        if self._early is not None:
            self._early.cancel()
            with suppress(asyncio.CancelledError):
                await self._early

    async def definition(self, workflow: str) -> Definition | None:
        """The workflow as the app has it now; None if it has none of this name, or cannot be imported (`trouble`)."""
        await self._refresh()
        return self._known.get(workflow)

    async def _refresh(self) -> None:
        async with self._busy:
            seen = await asyncio.to_thread(self._newest)
            if seen == self._seen:
                return
            self.trouble = None
            try:
                async with asyncio.timeout(PATIENCE):
                    self._known = await asyncio.to_thread(self._describe)
            except TimeoutError:
                self.trouble = f"{self.spec} took longer than {PATIENCE:g}s to import"
            except KairosError as exc:
                self.trouble = exc.message
            self._seen = seen

    def _describe(self) -> dict[str, Definition]:
        found: dict[str, Definition] = {}
        with Replayer(Settings(app=self.spec, paced=False, quiet=True, mute=True)) as replayer:
            replayer.start()
            for workflow in replayer.loaded.workflows if replayer.loaded else ():
                with suppress(WorkflowNotFound):
                    found[workflow] = Definition.from_json(replayer.describe(workflow).definition or {})
        return found

    def _newest(self) -> float:
        files = [self.place] if self.place.is_file() else sorted(self.place.rglob("*.py"))[:MAX_FILES]
        newest = 0.0
        for file in files:
            with suppress(OSError):
                newest = max(newest, file.stat().st_mtime)
        return newest + len(files)
