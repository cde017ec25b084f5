"""Commands that are printed to be typed next: what was named for this one by option is named for them too."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Final

_IN_URL: Final = re.compile(r"^([a-z]+://[^/@:]*):[^/@]*@")
_IN_QUERY: Final = re.compile(r"([?&])password=[^&]*&?")
_AS_WORD: Final = re.compile(r"(?:^|(?<=\s))password\s*=\s*(?:'(?:[^'\\]|\\.)*'|\S+)\s*")


def command(*words: str, app: str | None = None, url: str | None = None, **options: Iterable[str]) -> str:
    """`kairos WORDS`, quoted for a shell.

    Args:
        app, url: as they were given by `--app` and `--database-url`; None: they were not, so they are not needed.
        options: repeatable options with their values, `allow_writes=("/tmp",)`.
    """
    return shlex.join(
        ["kairos", *words, *_options({"app": app, "database-url": url and without_password(url)}, options)]
    )


def without_password(url: str) -> str:
    """What connects to the same database once the password comes from elsewhere, such as PGPASSWORD or ~/.pgpass."""
    if "://" in url:
        return _IN_QUERY.sub(r"\1", _IN_URL.sub(r"\1@", url)).rstrip("?&")
    return _AS_WORD.sub("", url).strip()


def _options(single: Mapping[str, str | None], repeated: Mapping[str, Iterable[str]]) -> Iterable[str]:
    for name, values in repeated.items():
        for value in values:
            yield from (f"--{name.replace('_', '-')}", value)
    for name, only in single.items():
        if only:
            yield from (f"--{name}", only)
