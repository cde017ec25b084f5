"""A run that fans out. Apart from the other workflows: not each worker needs its definition."""

from __future__ import annotations

import kairos
from bench.flows import fan_of

WIDTH = 1000

app = kairos.App("bench-wide")
fan = fan_of(WIDTH, app)
