"""Arguments that many commands share, said once."""

from __future__ import annotations

from typing import Annotated

import typer

Run = Annotated[str, typer.Argument(metavar="RUN", help="Beginning or end of a run's id, or `last`.")]
RunOrFile = Annotated[
    str, typer.Argument(metavar="RUN|FILE", help="Beginning or end of a run's id, or `last`; or a bundle.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Url = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="Postgres to use; better by KAIROS_DATABASE_URL, which `ps` does not show.",
        show_default=False,
    ),
]
AppSpec = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:APP",
        help="The app, as module:name or file.py:name. Default: KAIROS_APP, else [tool.kairos] in pyproject.toml.",
        show_default=False,
    ),
]
LogFormat = Annotated[str, typer.Option("--log-format", metavar="text|json", help="How the log is written.")]

RUNNING = "Run things"
LOOKING = "Look at runs"
REPLAYING = "Go back"
CHECKING = "Check"
CARRYING = "Carry runs from place to place"
OPERATING = "Operate"
