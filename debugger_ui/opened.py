"""Bundles and traces that were opened from files: by the command line in place, or dropped in a browser.

What was dropped is kept in a private temporary folder, bounded in number and size, and goes with the process. Nothing
in a file is ever run: a bundle is proved before it is shown, a trace is checked block by block.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import IO, Any, Final
from uuid import UUID

from debugger_ui import words
from debugger_ui.shapes import shape_of
from kairos.errors import BundleError, KairosError, TraceError
from kairos.replay.bundle import CAPS, BundleReport, Caps
from kairos.replay.bundle.opening import read_bundle
from kairos.replay.record import RunRecord
from kairos.replay.trace.history import Trace
from kairos.replay.trace.layout import MAGIC, MAX_BLOCK

MEBI: Final = 1024 * 1024
MAX_DROPPED: Final = 64_000_000
"""Bytes of one file that is dropped in a browser."""
DROPPED_CAPS: Final = Caps(entries=50_000, total=512 * MEBI, events=64 * MEBI)
DROPPED_BLOCK: Final = 16 * MEBI
MAX_FILES: Final = 12
MAX_BYTES: Final = 256 * MEBI
MAX_EVENTS: Final = 1_000_000
"""Of all dropped files together; what was dropped first goes first."""


class NotOpen(KairosError):
    """A file that is not open here (any more)."""


@dataclass(kw_only=True)
class OpenedFile:
    """A file that is open.

    Attributes:
        key: names it in addresses; made from its content, so that a link holds when the file is opened again.
        at: when the file was written, or dropped.
        is_dropped: it came from a browser, and lies in the temporary folder.
    """

    key: str
    name: str
    path: Path
    size: int
    at: datetime
    is_dropped: bool
    events: int
    href: str


@dataclass(kw_only=True)
class OpenedRun(OpenedFile):
    """A bundle.

    Attributes:
        address: the id of its run in addresses.
        inside: the debugger of this run, once somebody has looked.
    """

    record: RunRecord
    report: BundleReport
    address: UUID
    inside: Any = None

    @property
    def redacted(self) -> str:
        """What is not as it was recorded, in words; empty if all is."""
        found = self.record.redactions
        parts = [
            words.plural(len(items), noun) + verb
            for items, noun, verb in (
                (found.events, "event", ""),
                (found.blobs, "value", ""),
                (found.omitted, "value", " left out"),
            )
            if items
        ]
        return ", ".join(parts)


@dataclass(kw_only=True)
class OpenedTrace(OpenedFile):
    """A line trace. `coloured`: the source of its files, once it was shown; `shape`: see `shape_of`."""

    trace: Trace
    shape: tuple[str, list[int]]
    coloured: dict[int, list[Any]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """`bill · charge, attempt 2`."""
        about = self.trace.header.about
        name = " · ".join(part for part in (about.workflow, about.step) if part) or "a function"
        return words.one_line(f"{name}, attempt {about.attempt}" if about.attempt else name, 120)


class Files:
    """What is open.

    Args:
        is_alone: there is no database: a run is then shown under its own id.
    """

    def __init__(self, *, is_alone: bool = False) -> None:
        self.is_alone = is_alone
        self.runs: dict[UUID, OpenedRun] = {}
        self.traces: dict[str, OpenedTrace] = {}
        self._folder: Path | None = None
        self._taken = 0
        self._busy = Lock()

    @property
    def all(self) -> list[OpenedFile]:
        """Every file, the newest last."""
        return [*self.runs.values(), *self.traces.values()]

    def open_path(self, path: Path) -> OpenedFile:
        """Open a file where it lies.

        Raises:
            BundleError, TraceError: it is neither a bundle nor a trace, or broken.
        """
        with self._busy:
            return self._open(path, path.name, is_dropped=False)

    def take(self, name: str, source: IO[bytes]) -> OpenedFile:
        """Keep a copy of what was dropped in a browser, and open that. Blocks; raises as `open_path`."""
        label = words.one_line(name.replace("\\", "/").rpartition("/")[2], 80) or "file"
        with self._busy:
            path = self._room()
            try:
                with path.open("xb") as file:
                    shutil.copyfileobj(source, file, MEBI)
                opened = self._open(path, label, is_dropped=True)
            except (BundleError, TraceError) as exc:
                path.unlink(missing_ok=True)
                raise type(exc)(exc.message.replace(str(path), label), hint=exc.hint) from None
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            if opened.path != path:
                path.unlink(missing_ok=True)  # it was open before
            self._let_go(opened)
            return opened

    def run(self, name: str) -> OpenedRun | None:
        """The opened run with this address; without a database, also by a part of it, or `last`."""
        try:
            return self.runs.get(UUID(name))
        except ValueError:
            pass
        if not self.is_alone or not self.runs:
            return None
        text = name.strip().lower().replace("-", "")
        if text == "last":
            return list(self.runs.values())[-1]
        found = [run for run in self.runs.values() if len(text) >= 3 and _means(text, run.address)]
        return found[0] if len(found) == 1 else None

    def address_of(self, run_id: UUID) -> UUID | None:
        """Under which address a run of this id is open, if it is."""
        return next((address for address, run in self.runs.items() if run.record.run_id == run_id), None)

    def trace(self, key: str) -> OpenedTrace:
        """An open trace. Raises NotOpen."""
        found = self.traces.get(key)
        if found is None:
            raise NotOpen("this trace is not open here", hint="Open its file again: its address stays the same.")
        return found

    def traces_of(self, run_id: UUID, step: str, attempt: int | None = None) -> list[OpenedTrace]:
        """The traces that say that they are of this step; those of the attempt first, then the newest."""
        found = [
            opened
            for opened in reversed(self.traces.values())
            if opened.trace.header.about.run == str(run_id) and opened.trace.header.about.step == step
        ]
        return sorted(found, key=lambda opened: opened.trace.header.about.attempt != attempt)

    def close(self, key: str) -> None:
        """Let go of a file that was dropped. Those of the command line stay."""
        for opened in self.all:
            if opened.key == key and opened.is_dropped:
                self._forget(opened)

    def close_all(self) -> None:
        """Let go of everything, and remove the folder."""
        self.runs.clear()
        self.traces.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _room(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="kairos-ui-"))
        self._taken += 1
        return self._folder / str(self._taken)

    def _open(self, path: Path, name: str, *, is_dropped: bool) -> OpenedFile:
        path = path.absolute()
        opened = self._open_trace if _begins_like_a_trace(path) else self._open_bundle
        return opened(path, name, is_dropped)

    def _open_bundle(self, path: Path, name: str, is_dropped: bool) -> OpenedFile:
        report, record = read_bundle(path, caps=DROPPED_CAPS if is_dropped else CAPS)
        digest = _digest(path)
        known = next((run for run in self.runs.values() if run.key == digest[:16]), None)
        if known is not None:
            return known
        # Not under its own id where the database, or another file, may have a run of that id.
        derived = UUID(digest[:12] + "8" + digest[13:16] + "8" + digest[17:32])
        is_taken = record.run_id in self.runs
        address = record.run_id if self.is_alone and not is_taken else derived
        opened = OpenedRun(
            **_facts(path, name, digest, is_dropped), events=len(record.rows), href=f"/runs/{address}",
            record=replace(record, source=name), report=report, address=address,
        )  # fmt: skip
        self.runs[address] = opened
        return opened

    def _open_trace(self, path: Path, name: str, is_dropped: bool) -> OpenedFile:
        digest = _digest(path)
        known = self.traces.get(digest[:16])
        if known is not None:
            return known
        trace = Trace.open(path, most=DROPPED_BLOCK if is_dropped else MAX_BLOCK)
        # Whoever still reads while it is closed must not read another file under the same number.
        weakref.finalize(trace, trace.file.close)
        _ = trace.failure, trace.last, trace.lines_hit(0)
        opened = OpenedTrace(
            **_facts(path, name, digest, is_dropped),
            events=len(trace),
            href=f"/traces/{digest[:16]}",
            trace=trace,
            shape=shape_of(trace),
        )
        self.traces[opened.key] = opened
        return opened

    def _let_go(self, newest: OpenedFile) -> None:
        """Make room: what was dropped first goes first."""
        dropped = [opened for opened in self.all if opened.is_dropped]
        dropped.sort(key=lambda opened: opened.at)
        while dropped[0] is not newest and (
            len(dropped) > MAX_FILES
            or sum(opened.size for opened in dropped) > MAX_BYTES
            or sum(opened.events for opened in dropped) > MAX_EVENTS
        ):
            self._forget(dropped.pop(0))

    def _forget(self, opened: OpenedFile) -> None:
        if isinstance(opened, OpenedRun):
            self.runs.pop(opened.address, None)
        else:
            self.traces.pop(opened.key, None)
        if self._folder is not None and opened.path.parent == self._folder:
            opened.path.unlink(missing_ok=True)


def _facts(path: Path, name: str, digest: str, is_dropped: bool) -> dict[str, Any]:
    about = path.stat()
    at = datetime.now(UTC) if is_dropped else datetime.fromtimestamp(about.st_mtime, UTC)
    return {
        "key": digest[:16], "name": words.one_line(name, 80), "path": path, "size": about.st_size, "at": at,
        "is_dropped": is_dropped,
    }  # fmt: skip


def _begins_like_a_trace(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(6) == MAGIC[:6]
    except OSError:
        return path.suffix == ".ktrace"  # whoever opens it will say what is wrong


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _means(text: str, address: UUID) -> bool:
    return address.hex.startswith(text) or address.hex.endswith(text)
