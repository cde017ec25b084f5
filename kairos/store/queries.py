"""Loads the named queries of `sql/*.sql`. All SQL that runs in production stands in those files.

A query begins with `-- name: verb_noun`, an optional comment, then the statement. Parameters are
`%(name)s` or `%(name)b`, each with a cast; a test PREPAREs every query against a real server.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import LiteralString

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


def parse(text: str, source: str) -> dict[str, str]:
    """Split a file into its queries by name. Raises ValueError if it is malformed."""
    parts = _NAME.split(text)
    names, bodies = parts[1::2], parts[2::2]
    queries = {}
    for name, body in zip(names, bodies, strict=True):
        statement = "\n".join(line for line in body.splitlines() if not line.lstrip().startswith("--")).strip()
        if not statement or name in queries:
            raise ValueError(f"{source}: query {name!r} is empty or defined twice")
        queries[name] = statement.rstrip(";")
    return queries


@cache
def load_all() -> dict[str, str]:
    """Every query of the package by name; names are unique across files."""
    queries: dict[str, str] = {}
    for file in sorted(resources.files("kairos.store").joinpath("sql").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".sql"):
            for name, statement in parse(file.read_text("utf-8"), file.name).items():
                if name in queries:
                    raise ValueError(f"{file.name}: query {name!r} is defined in another file too")
                queries[name] = statement
    return queries


@cache
def query(name: str) -> LiteralString:
    """The text of one query. It comes from a file of ours, never from input: hence the cast."""
    return load_all()[name]
