"""`kairos version`."""

from __future__ import annotations

import sys

from kairos import __version__
from kairos.cli import exits
from kairos.cli.terminal import print_json


def show_version(*, as_json: bool) -> int:
    """Print the version of Kairos, and of the Python that runs it."""
    python = ".".join(map(str, sys.version_info[:3]))
    if as_json:
        print_json({"kairos": __version__, "python": python})
    else:
        sys.stdout.write(f"kairos {__version__} (Python {python})\n")
    return exits.OK
