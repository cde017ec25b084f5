"""The main job: a census of real source code, run durably, against an independent count."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

from tests.conftest import TestDatabase
from tests.engine.harness import of_kind, working

import kairos

ROOT = Path(__file__).resolve().parents[2]


def _census() -> ModuleType:
    spec = importlib.util.spec_from_file_location("census", ROOT / "examples" / "census.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["census"] = module
    spec.loader.exec_module(module)
    return module


def test_the_census_counts_what_an_independent_walk_counts(database: TestDatabase) -> None:
    census = _census()
    root = Path(sysconfig.get_paths()["stdlib"]) / "email"
    files = [p for p in root.rglob("*.py") if not census.SKIPPED.intersection(p.relative_to(root).parts)]
    trees = [ast.parse(p.read_text("utf-8")) for p in files]
    functions = [n for t in trees for n in ast.walk(t) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    longest = max((n.end_lineno or 0) - n.lineno + 1 for n in functions)

    async def main() -> None:
        async with working(census.app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            run = await client.start(census.census, census.Request(root=str(root)))
            report = await run.result(60)
            assert f"{len(files)} modules" in report.summary
            assert f"{len(functions):,} functions" in report.summary
            assert report.longest[0].lines == longest
            failed = await of_kind(client, run, "step_failed")
            assert [f.step for f in failed] == ["symbols"]  # type: ignore[union-attr]

    asyncio.run(main())


def test_a_census_of_nothing_fails_with_the_reason(database: TestDatabase) -> None:
    census = _census()

    async def main() -> None:
        async with working(census.app, database.dsn), kairos.AsyncClient(database.dsn) as client:
            run = await client.start(census.census, {"root": "/nowhere/at/all"})
            await run.wait(30)
            state = await client.state(run.id)
            error = state.steps["discover"].error
            assert error is not None
            assert "is not a folder" in error.message

    asyncio.run(main())
