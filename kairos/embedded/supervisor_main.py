"""The supervisor as a light program of its own: `supervisor_main.py DATA_DIR [FD]`, run by path.

Owns: a bare `kairos` package, in which the modules are found but nothing else of Kairos is loaded. A
supervisor lives as long as the server does, and each cold start waits for it; the whole of Kairos would
cost it three times the memory and the most part of that wait.
Refuses: to do anything besides; `python -m kairos.embedded.supervisor DATA_DIR` does the same, slower.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType


def bare_packages() -> None:
    """Let `kairos` and `kairos.embedded` be importable without running what they import."""
    here = Path(__file__).resolve().parent
    for name, folder in (("kairos", here.parent), ("kairos.embedded", here)):
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package


if __name__ == "__main__":
    bare_packages()
    from kairos.embedded.supervisor import main

    sys.exit(main(sys.argv))
