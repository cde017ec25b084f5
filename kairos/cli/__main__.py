"""`python -m kairos.cli` is `kairos`."""

from __future__ import annotations

from kairos.cli.entry import main

if __name__ == "__main__":
    main()
