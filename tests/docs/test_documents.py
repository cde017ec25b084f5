"""Documents cannot rot: generated pages are current, examples print what they say, README's code runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from kairos.domain.diagram import document

ROOT = Path(__file__).resolve().parents[2]


def test_the_published_state_tables_are_those_of_the_code() -> None:
    assert (ROOT / "docs" / "states.md").read_text("utf-8") == document(), "run `make docs`"


def _run(path: Path, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(path)], cwd=cwd, capture_output=True, text=True, timeout=100, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _expected(source: str) -> str:
    _, _, tail = source.partition("\n# Output:\n")
    return "".join(line.removeprefix("# ") + "\n" for line in tail.splitlines())


@pytest.mark.parametrize("name", ["orders.py", "invoices.py"])
def test_an_example_prints_what_it_says(name: str, tmp_path: Path) -> None:
    path = ROOT / "examples" / name
    expected = _expected(path.read_text("utf-8"))
    assert expected
    assert _run(path, tmp_path) == expected


def test_the_workflow_of_the_readme_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    shop = tmp_path / "shop.py"
    shop.write_text(blocks[0])
    out = _run(shop, tmp_path)
    assert re.fullmatch(r"charged 990 from A, key [0-9a-f-]{36}:charge\n", out)


@pytest.mark.parametrize(
    "name", ["README.md", "CHANGELOG.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]
)
def test_links_between_documents_lead_somewhere(name: str) -> None:
    path = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), f"{name} links to {target}, which is not there"


def test_a_decision_record_is_short() -> None:
    for path in (ROOT / "docs" / "decisions").glob("*.md"):
        assert len(path.read_text("utf-8").splitlines()) <= 40, path.name
        assert re.match(r"\d{4}-[a-z0-9-]+\.md", path.name)
