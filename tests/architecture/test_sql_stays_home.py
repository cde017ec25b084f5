"""SQL stands in kairos/store/sql, in migrations and in kairos/embedded, and nowhere else; and it is well kept."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_files import PACKAGE, Source, sources

from kairos.store import queries

AT_HOME = ("embedded",)
"""Units of the package that may hold SQL of their own: the embedded server is set up before there is a schema."""

# Keywords in one case throughout, as SQL is written; a sentence that begins with "Select ..." is no statement.
STATEMENTS = [
    r"select\b.+(\bfrom\b|\(|::|\*|^select\s+\d)",
    r"select\s+(\d+|[\w.]+)\s*$",
    r"insert\s+into\b",
    r"update\s+[\w.\"{}]+(\s+\w+)?\s+set\b",
    r"delete\s+from\b",
    r"truncate\s+(table\s+)?[\w.\"{}]+\s*$",
    r"with\s+(recursive\s+)?\w+\s*(\(.*\))?\s+as\s+(not\s+|materialized\s*)*\(",
    r"(create|alter|drop)\s+(or\s+replace\s+|temp\w*\s+|unlogged\s+|unique\s+|if\s+)*"
    r"(table|schema|index|function|trigger|role|user|database|extension|type|view|sequence|system)\b",
    r"(un)?listen\s+[\w.\"{}*]+\s*$",
    r"notify\s+[\w.\"{}]+\s*(,.*)?$",
    r"(grant|revoke)\b.+\b(to|from|on)\b",
    r"set\s+((local|session)\s+)?[\w.]+\s*(=|\bto\b)\s*\S+\s*$",
    r"(begin|commit|rollback|start\s+transaction|savepoint\s+\w+|deallocate\s+\w+|discard\s+all)\s*$",
    r"lock\s+table\b",
    r"copy\s+[\w.\"{}(]+.*\b(from|to)\s+(stdin|stdout)\b",
    r"(vacuum|analyze|reindex)\s+(\(.*\)\s*)?(table\s+|index\s+)?[\w.\"{}]+\s*$",
    r"explain\s+(\(.*\)\s*|analyze\s+)?(select|insert|update|delete|with)\b",
    r"(prepare|execute)\s+\w+\s*(\(|as\b)",
]
PARAMETER = re.compile(r"%\((\w+)\)([sbt])(::[a-z_]+( precision)?(\[\])?)?")
FILES = sources()
SQL_FILES = sorted((PACKAGE / "store" / "sql").glob("*.sql"))

# Of these, every statement is looked at; the queries count as used only when all that may use them is there.
USERS = ["engine", "client", "cli", "diagnosis"]


def looks_like_sql(text: str) -> bool:
    body = " ".join(text.split()).rstrip(";").strip()
    word = re.match(r"[A-Za-z]+", body)
    if word is None or word.group() not in (word.group().lower(), word.group().upper()):
        return False
    return any(re.match(pattern, body.lower()) for pattern in STATEMENTS)


def literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every string that is a value: not a docstring; what an f-string fills in is shown as `{}`."""
    skip: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skip.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            skip.update(id(part) for part in ast.walk(node) if part is not node)
    for node in ast.walk(tree):
        if id(node) in skip:
            continue
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def named_queries(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The names in `query("x")` and `session.execute("x", ...)`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        first, function = node.args[0], node.func
        is_query = isinstance(function, ast.Name) and function.id == "query"
        is_execute = isinstance(function, ast.Attribute) and function.attr == "execute"
        if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
            continue
        if is_query or (is_execute and re.fullmatch(r"[a-z]+(_[a-z]+)+", first.value)):
            yield node.lineno, first.value


@pytest.mark.parametrize("source", [f for f in FILES if f.unit not in AT_HOME], ids=str)
def test_no_statement_is_written_in_python(source: Source) -> None:
    found = [
        f"{source}:{line}: SQL outside of store/sql: {t[:80]!r}"
        for line, t in literals(source.tree)
        if looks_like_sql(t)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("source", FILES, ids=str)
def test_every_query_that_is_named_exists(source: Source) -> None:
    known = queries.load_all()
    found = [
        f"{source}:{line}: there is no query {name!r}" for line, name in named_queries(source.tree) if name not in known
    ]
    assert not found, "\n".join(found)


def test_every_query_is_used() -> None:
    missing = [unit for unit in USERS if not any(source.unit == unit for source in FILES)]
    assert not missing, f"these users of queries are not where they are looked for: {', '.join(missing)}"
    used = {text for source in FILES for _, text in literals(source.tree)}
    unused = sorted(queries.load_all().keys() - used)
    assert not unused, f"no code names these queries: {', '.join(unused)}"


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.name)
def test_every_parameter_is_cast_wherever_it_stands(path: Path) -> None:
    found = [
        f"{path.name}: {name}: %({match[1]}){match[2]} has no ::type"
        for name, statement in queries.parse(path.read_text("utf-8"), path.name).items()
        for match in PARAMETER.finditer(statement)
        if not match[3]
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.name)
def test_every_parameter_has_one_type_per_query(path: Path) -> None:
    for name, statement in queries.parse(path.read_text("utf-8"), path.name).items():
        types: dict[str, set[str]] = {}
        for match in PARAMETER.finditer(statement):
            types.setdefault(match[1], set()).add(f"{match[2]}{match[3]}")
        assert all(len(kinds) == 1 for kinds in types.values()), f"{path.name}: {name}: {types}"


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.name)
def test_no_percent_sign_or_brace_is_left_to_chance(path: Path) -> None:
    for name, statement in queries.parse(path.read_text("utf-8"), path.name).items():
        rest = PARAMETER.sub("", statement).replace("%%", "")
        assert "%" not in rest, f"{path.name}: {name}: a bare % is taken for a parameter"
        rest = re.sub(r"\{(role|channel|name|low|high)\}", "", rest)  # identifiers and bounds, quoted by psycopg.sql
        assert "{" not in rest, f"{path.name}: {name}: something is to be formatted in"


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.name)
def test_a_query_is_named_by_what_it_does_and_is_lower_case(path: Path) -> None:
    for name, statement in queries.parse(path.read_text("utf-8"), path.name).items():
        assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", name)
        outside = re.sub(r"'[^']*'", "", statement)
        shouted = re.findall(r"\b(SELECT|FROM|WHERE|INSERT|UPDATE|DELETE|WITH|JOIN|ORDER|LIMIT)\b", outside)
        assert not shouted, f"{path.name}: {name}: {shouted}"


SQL = [
    "select 1", "SELECT * FROM kairos.run", "select pg_notify('a', 'b')", "  select r.id\n  from kairos.run r",
    "insert into kairos.event values (1)", "update kairos.run set status = 'DONE'", "update {} set x = 1",
    "delete from kairos.task", "with w as (select 1) select * from w", "with w as materialized (\nselect 1)",
    "create table x (id int)", "CREATE UNIQUE INDEX i ON t (x)", "create or replace function f()", "alter role x",
    "drop schema kairos cascade", "listen kairos_run", "LISTEN {}", "notify kairos_run, 'x'", "unlisten *",
    "grant select on kairos.run to x", "set statement_timeout = 0", "SET LOCAL lock_timeout TO '1s'", "begin", "COMMIT",
    "truncate kairos.event", "lock table kairos.run", "copy kairos.event from stdin", "vacuum kairos.run",
    "explain select 1", "explain (analyze, buffers) update x set y = 1",
    "select true", "select version()", "select now()",
]  # fmt: skip
PROSE = [
    "select", "Select a run from the list", "begin again", "with an App", "update", "delete", "create", "listen",
    "Listen on this port", "the run is done", "set a limit", "commit 7 runs", "created", "selected 3 from 5", "start",
    "updated the run", "drop it", "alter", "grant", "run_scheduled", "update the code or set a timeout", "execute",
    "with open(...) as f", "prepare the step", "Create table of contents", "notify", "explain why a run waits",
    "analyze", "checkpoint",
]  # fmt: skip


@pytest.mark.parametrize("text", SQL)
def test_a_statement_is_recognised(text: str) -> None:
    assert looks_like_sql(text)


@pytest.mark.parametrize("text", PROSE)
def test_a_sentence_is_not_taken_for_a_statement(text: str) -> None:
    assert not looks_like_sql(text)


def test_statements_are_found_in_every_kind_of_string() -> None:
    text = (
        "'''select 1'''\nx = 'select 1'\ny = f'delete from {x}'\nz = ('insert into ' 'a')\ndef f(q='select 2'): 'doc'"
    )
    assert [t for _, t in literals(ast.parse(text)) if looks_like_sql(t)] == [
        "select 1",
        "delete from {}",
        "insert into a",
        "select 2",
    ]


def test_names_of_queries_are_found_where_they_are_used() -> None:
    text = "query('a_b')\nsession.execute('c_d', {})\nsession.execute(query('e'))\nconn.execute('select 1')"
    assert sorted(name for _, name in named_queries(ast.parse(text))) == ["a_b", "c_d", "e"]
