"""A census of the Python standard library, as source code on this machine.

    kairos run census --app examples/census.py:app --wait

Finds every module, parses them in eight shards side by side, and reports on their size, their longest
functions and what imports what. One step fails once, on purpose, and is retried.
"""

from __future__ import annotations

import ast
import sysconfig
import threading
from collections import Counter
from pathlib import Path

from pydantic import BaseModel

import kairos

SHARDS = 8
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"}

# CPython 3.11 and 3.12 count the parser's recursion per interpreter: two threads that parse at the same moment
# can trip over each other ("AST constructor recursion depth mismatch").
PARSER = threading.Lock()

app = kairos.App("census")


class Request(BaseModel):
    """What to survey; by default the standard library of the Python that runs the worker."""

    root: str | None = None


class Listing(BaseModel):
    """The files, relative to `root`."""

    root: str
    files: list[str]


class Function(BaseModel):
    """One function definition."""

    name: str
    file: str
    line: int
    lines: int


class Shard(BaseModel):
    """What was found in one share of the files."""

    files: int
    lines: int
    classes: int
    functions: int
    unreadable: list[str]
    longest: list[Function]
    imports: dict[str, int]


class Symbols(BaseModel):
    """Totals over all shards."""

    files: int
    lines: int
    classes: int
    functions: int
    unreadable: list[str]
    imports: dict[str, int]


class Report(BaseModel):
    """The result."""

    root: str
    summary: str
    longest: list[Function]
    most_imported: dict[str, int]


census = app.workflow("census", input=Request)


@census.step
def discover(request: Request) -> Listing:
    """Find the source files."""
    root = Path(request.root or sysconfig.get_paths()["stdlib"]).resolve()
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder")
    found = (path.relative_to(root) for path in root.rglob("*.py"))
    files = sorted(str(path) for path in found if not SKIPPED.intersection(path.parts))
    return Listing(root=str(root), files=files)


def parse(discover: Listing, ctx: kairos.StepContext) -> Shard:
    """Parse every eighth file."""
    number = int(ctx.step.removeprefix("parse_"))
    shard = Shard(files=0, lines=0, classes=0, functions=0, unreadable=[], longest=[], imports={})
    imports: Counter[str] = Counter()
    for name in discover.files[number::SHARDS]:
        ctx.heartbeat()
        try:
            source = (Path(discover.root) / name).read_text("utf-8")
            with PARSER:
                tree = ast.parse(source)
        except (OSError, SyntaxError, ValueError) as problem:
            shard.unreadable.append(f"{name}: {type(problem).__name__}")
            continue
        shard.files += 1
        shard.lines += source.count("\n")
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                shard.classes += 1
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                shard.functions += 1
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                shard.longest.append(Function(name=node.name, file=name, line=node.lineno, lines=lines))
            elif isinstance(node, ast.Import):
                imports.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imports[node.module.partition(".")[0]] += 1
        shard.longest = longest_of(shard.longest)
    shard.imports = dict(imports)
    ctx.emit("files_parsed", shard.files)
    return shard


def longest_of(functions: list[Function]) -> list[Function]:
    """The ten longest, longest first; ties by place."""
    return sorted(functions, key=lambda f: (-f.lines, f.file, f.line))[:10]


shards = [census.step(name=f"parse_{number}")(parse) for number in range(SHARDS)]
_every_shard = {f"shard_{number}": shard for number, shard in enumerate(shards)}


@census.step(needs=_every_shard, retry=kairos.Retry(attempts=3, base="500ms", jitter=0))
def symbols(
    shard_0: Shard, shard_1: Shard, shard_2: Shard, shard_3: Shard,
    shard_4: Shard, shard_5: Shard, shard_6: Shard, shard_7: Shard,
    ctx: kairos.StepContext,
) -> Symbols:  # fmt: skip
    """Add the shards up. Its first attempt fails, to show a retry."""
    if ctx.attempt == 1:
        raise ConnectionError("the symbol index did not answer (this step fails once, on purpose)")
    parts = [shard_0, shard_1, shard_2, shard_3, shard_4, shard_5, shard_6, shard_7]
    imports: Counter[str] = Counter()
    for part in parts:
        imports.update(part.imports)
    return Symbols(
        files=sum(p.files for p in parts),
        lines=sum(p.lines for p in parts),
        classes=sum(p.classes for p in parts),
        functions=sum(p.functions for p in parts),
        unreadable=[name for p in parts for name in p.unreadable],
        imports=dict(sorted(imports.items(), key=lambda item: (-item[1], item[0]))),
    )


@census.step(needs=_every_shard)
def longest_functions(
    shard_0: Shard, shard_1: Shard, shard_2: Shard, shard_3: Shard,
    shard_4: Shard, shard_5: Shard, shard_6: Shard, shard_7: Shard,
) -> list[Function]:  # fmt: skip
    """The ten longest functions of all."""
    parts = [shard_0, shard_1, shard_2, shard_3, shard_4, shard_5, shard_6, shard_7]
    return longest_of([function for part in parts for function in part.longest])


@census.step
def report(discover: Listing, symbols: Symbols, longest_functions: list[Function]) -> Report:
    """Put it together."""
    summary = (
        f"{symbols.files:,} modules, {symbols.lines:,} lines, {symbols.classes:,} classes, "
        f"{symbols.functions:,} functions; {len(symbols.unreadable)} unreadable"
    )
    most = dict(list(symbols.imports.items())[:10])
    return Report(root=discover.root, summary=summary, longest=longest_functions, most_imported=most)


if __name__ == "__main__":
    result = census.run_inline(Request())
    print(result.summary)
    for function in result.longest[:3]:
        print(f"{function.lines:5} lines  {function.file}:{function.line}  {function.name}")
