"""The source files of the package as syntax trees, for the tests that read code instead of running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "kairos"
DEBUGGER = ROOT / "debugger_ui"


@dataclass(frozen=True)
class Source:
    """One file: `module` is its dotted name, `unit` the package or top module of Kairos that it belongs to;
    all of the debugger is one unit."""

    path: Path

    @cached_property
    def module(self) -> str:
        parts = list(self.path.relative_to(ROOT).with_suffix("").parts)
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def unit(self) -> str:
        parts = self.module.split(".")
        return parts[1] if parts[0] == "kairos" and len(parts) > 1 else parts[0]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text("utf-8"), str(self.path))

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))


def sources() -> list[Source]:
    """Every Python file of the two packages."""
    return [Source(path) for package in (PACKAGE, DEBUGGER) for path in sorted(package.rglob("*.py"))]


def is_module(name: str) -> bool:
    """Whether a dotted name is a module of Kairos (and not something inside one)."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported: `from a import b` gives `a.b`."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (f"{node.module}." if node.module else "")
            yield from ((node.lineno, f"{prefix}{alias.name}") for alias in node.names)


def uses(source: Source, bound: str) -> Iterator[tuple[int, str]]:
    """Line and name of every `bound.x` in a file."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == bound:
            yield node.lineno, f"{bound}.{node.attr}"
