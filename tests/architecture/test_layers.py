"""Who may import whom: one direction, errors <- domain <- authoring <- store <- engine <- client, worker, cli."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from source_files import PACKAGE, Source, imports, is_module, sources, uses

CORE = ["errors", "usercode", "domain", "authoring", "store", "settings", "engine"]
LAYERS: dict[str, list[str]] = {
    "errors": [],
    "usercode": [],
    "domain": ["errors"],
    "authoring": ["errors", "usercode", "domain"],
    "diagnosis": ["errors", "domain"],
    "store": ["errors", "domain", "authoring"],
    "settings": ["errors", "domain", "store.failpoints"],
    "engine": ["errors", "usercode", "domain", "authoring", "store", "settings"],
    "replay": ["errors", "usercode", "domain", "authoring", "store", "settings", "engine.lifeline"],
    "embedded": ["errors"],
    "database": ["errors", "domain", "store", "settings", "embedded"],
    "client": [*CORE, "database", "diagnosis"],
    "worker": [*CORE, "database"],
    "debugger_ui": [
        "errors",
        "domain",
        "settings",
        "diagnosis",
        "client",
        "replay",
        "store.reader",
        "store.aggregates",
        "store.lists",
        "store.searching",
        "store.connect",
        "store.codec",
        "store.forks",
        "store.history",
        "store.listener",
        "store.proof",
        "store.trouble",
    ],
    "cli": [*CORE, "database", "embedded", "client", "worker", "diagnosis", "replay", "debugger_ui"],
    "testing": [*CORE, "database", "embedded", "client", "worker", "diagnosis", "replay"],
    "kairos": [*CORE, "database", "client", "worker"],
}
"""Unit of the package -> units (or single modules) that it may import, beside itself. The debugger reads through the
reader and acts through the client."""

DOORS: dict[str, list[str]] = {
    "networkx": ["domain.graph"],
    "orjson": ["domain.canonical"],
    "psycopg": ["store", "embedded", "testing", "client", "engine", "debugger_ui"],
    "psycopg_pool": ["store"],
    "pydantic": ["authoring", "settings"],
    "pydantic_core": ["authoring", "settings"],
    "typer": ["cli"],
    "rich": ["cli"],
    "deepdiff": ["replay.compare"],
    "watchfiles": ["cli", "engine", "worker"],
    "jsonschema": ["client.edited"],
    "starlette": ["debugger_ui"],
    "uvicorn": ["debugger_ui.serving"],
    "jinja2": ["debugger_ui.ui"],
    "markupsafe": [],
    "sse_starlette": ["debugger_ui.pages.live"],
    "pygments": ["debugger_ui.sources"],
    "httpx": [],  # hooked if the user has imported it, never imported
    "requests": [],
    "debugpy": ["replay.stopping.attaching"],
    "pydevd": ["replay.stopping.vendored"],
    "_pydevd_bundle": ["replay.stopping.vendored"],
    "_pydev_bundle": ["replay.stopping.vendored"],
}
"""Third-party package -> where it may be imported. Any other place does without it."""

AS_TYPE_ONLY = {"psycopg": ["client", "engine", "debugger_ui"]}
"""Where a package may be named (in annotations, `except`, `raise`, `isinstance`, `row_factory=`), but not used."""

FILES = sources()


def within(name: str, places: list[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def complaints(source: Source) -> Iterator[str]:
    for line, name in imports(source):
        if name.startswith("."):
            yield f"{source}:{line}: relative imports are not used here: {name}"
            continue
        top, _, rest = name.partition(".")
        if top == "debugger_ui":
            if "debugger_ui" not in (source.unit, *LAYERS.get(source.unit, [])):
                yield f"{source}:{line}: {source.module} may not import {name}"
        elif top == "kairos":
            if not rest:
                # The bare package: to find files by it is harmless, to reach through it is not.
                names = [(n, used) for n, used in uses(source, "kairos") if not used.startswith("kairos.__")]
                yield from (c for n, used in names if (c := _complain(source, n, used)))
            elif not rest.startswith("__") and (complaint := _complain(source, line, name)):
                yield complaint
        elif top in DOORS and not within(source.module.removeprefix("kairos."), DOORS[top]):
            yield f"{source}:{line}: {source.module} may not import {top}; only {', '.join(DOORS[top])} may"
    for top, places in AS_TYPE_ONLY.items():
        if source.unit in places:
            yield from _used_as_more_than_type(source, top)


def _complain(source: Source, line: int, name: str) -> str | None:
    target = name if is_module(name) else name.rpartition(".")[0]
    inner = target.removeprefix("kairos.")
    if inner == "kairos" or within(inner, [source.unit]) or within(inner, LAYERS.get(source.unit, [])):
        if target == "kairos" and source.unit not in ("kairos", "cli", "testing"):
            return f"{source}:{line}: {source.module} may not import {name}: import it from where it is defined"
        return None
    return f"{source}:{line}: {source.module} may not import {target}"


def _used_as_more_than_type(source: Source, package: str) -> Iterator[str]:
    bound: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            bound |= {a.asname or a.name.partition(".")[0] for a in node.names if a.name.split(".")[0] == package}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            bound |= {a.asname or a.name for a in node.names}
    harmless = {id(inner) for node in ast.walk(source.tree) for part in _type_places(node) for inner in ast.walk(part)}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name) and node.id in bound and id(node) not in harmless:
            yield f"{source}:{node.lineno}: {source.module} may name {package} as a type only, not use {node.id}"


def _type_places(node: ast.AST) -> list[ast.AST]:
    found: list[ast.AST | None] = []
    if isinstance(node, ast.arg | ast.AnnAssign):
        found = [node.annotation]
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        found = [node.returns]
    elif isinstance(node, ast.ExceptHandler):
        found = [node.type]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "cast"):
        found = list(node.args)
    elif isinstance(node, ast.Raise):
        found = [node.exc]
    elif isinstance(node, ast.keyword) and node.arg == "row_factory":
        found = [node.value]
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp):
        found = [node.value]  # an alias of a type
    elif isinstance(node, ast.match_case):
        found = [node.pattern]
    return [part for part in found if part is not None]


@pytest.mark.parametrize("source", FILES, ids=str)
def test_a_file_imports_only_what_its_layer_may(source: Source) -> None:
    found = list(complaints(source))
    assert not found, "\n".join(found)


def test_every_part_of_the_package_has_its_place() -> None:
    unknown = {source.unit for source in FILES} - LAYERS.keys() - {"__main__"}
    assert not unknown, f"say in LAYERS what may be imported by {sorted(unknown)}"


def test_nobody_imports_the_command_line() -> None:
    assert not [unit for unit, allowed in LAYERS.items() if within("cli", allowed) and unit != "cli"]


def test_the_layers_have_one_direction() -> None:
    done: set[str] = set()
    left = dict(LAYERS)
    while left:
        free = [unit for unit, needs in left.items() if {need.partition(".")[0] for need in needs} <= done]
        assert free, f"a cycle among {sorted(left)}"
        done.update(free)
        for unit in free:
            del left[unit]


def check(text: str, module: str) -> list[str]:
    """What would be said of a file of this name with this text."""
    source = Source(PACKAGE / f"{module}.py")
    source.__dict__["tree"] = ast.parse(text)
    return [complaint.partition(": ")[2] for complaint in complaints(source)]


WRONG = [
    ("domain/x", "from kairos.store.history import flush", "kairos.domain.x may not import kairos.store.history"),
    ("domain/x", "from kairos.store import history", "kairos.domain.x may not import kairos.store.history"),
    ("domain/x", "import kairos.store.history", "kairos.domain.x may not import kairos.store.history"),
    ("domain/x", "from kairos import store", "kairos.domain.x may not import kairos.store"),
    ("domain/x", "import kairos\nkairos.store.flush()", "kairos.domain.x may not import kairos.store"),
    ("domain/x", "def f():\n    from kairos.engine import owner", "kairos.domain.x may not import kairos.engine.owner"),
    ("domain/x", "from . import events", "relative imports are not used here: .events"),
    ("domain/x", "import networkx as nx", "kairos.domain.x may not import networkx; only domain.graph may"),
    ("domain/x", "from kairos import Retry", "kairos.domain.x may not import kairos.Retry: import it from where"),
    ("authoring/x", "from kairos.store import codec", "kairos.authoring.x may not import kairos.store.codec"),
    ("store/x", "from pydantic import BaseModel", "kairos.store.x may not import pydantic"),
    ("store/x", "from kairos.engine.owner import Owner", "kairos.store.x may not import kairos.engine.owner"),
    ("embedded/x", "from kairos.domain import names", "kairos.embedded.x may not import kairos.domain.names"),
    ("client/x", "from kairos.cli import main", "kairos.client.x may not import kairos.cli"),
    ("testing", "import kairos.cli", "kairos.testing may not import kairos.cli"),
    ("settings", "from kairos.store.history import flush", "kairos.settings may not import kairos.store.history"),
    ("client/x", "import psycopg\npsycopg.connect()", "kairos.client.x may name psycopg as a type only"),
    ("engine/x", "from psycopg import sql\ny = sql.SQL('')", "kairos.engine.x may name psycopg as a type only"),
    ("authoring/x", "import psycopg", "kairos.authoring.x may not import psycopg"),
    ("domain/x", "import typer", "kairos.domain.x may not import typer; only cli may"),
]


@pytest.mark.parametrize(("file", "text", "complaint"), WRONG, ids=[text for _, text, _ in WRONG])
def test_a_wrong_import_is_noticed(file: str, text: str, complaint: str) -> None:
    found = check(text, file)
    assert len(found) == 1
    assert found[0].startswith(complaint)


RIGHT = [
    ("domain/x", "from kairos.errors import KairosError\nimport json\nfrom kairos.domain import canonical"),
    ("domain/graph", "import networkx as nx"),
    ("embedded/x", "import kairos\nprint(kairos.__file__)"),
    ("engine/x", "from kairos import __version__"),
    ("settings", "from kairos.store.failpoints import parse"),
    ("store/x", "import psycopg\npsycopg.connect()"),
    ("client/x", "from psycopg import Connection\ndef f(c: Connection) -> Connection: ..."),
    ("engine/x", "import psycopg\ntry: ...\nexcept psycopg.Error as exc: isinstance(exc, psycopg.DataError)"),
    ("cli/x", "import kairos\nfrom kairos import client\nfrom kairos.cli import y"),
]


@pytest.mark.parametrize(("file", "text"), RIGHT, ids=[text for _, text in RIGHT])
def test_a_right_import_is_let_be(file: str, text: str) -> None:
    assert check(text, file) == []
