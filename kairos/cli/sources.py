"""RUN or FILE: where a command reads a run from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from kairos.replay.bundle import open_bundle
from kairos.replay.reading import read_record
from kairos.replay.record import RunRecord

SUFFIX: Final = ".kairos"


def is_file(name: str) -> bool:
    """Whether what was typed names a bundle: an id of a run has neither a dot nor a slash."""
    return name.endswith(SUFFIX) or os.sep in name or "." in name


async def read_run(name: str, url: str | None) -> RunRecord:
    """The run that was named, out of a bundle (no database is opened then) or of the database."""
    if is_file(name):
        return open_bundle(Path(name))
    from kairos.cli.database import reading

    async with reading(url) as reader:
        return await read_record(reader, await reader.find(name))
