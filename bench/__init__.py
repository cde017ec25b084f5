"""Measures Kairos on the embedded Postgres, everything durable: `make bench`. See docs/performance.md.

`__main__` reads the flags; `plan` lists what can be measured; `kairos_work`, `long_work`, `limits` and `peers`
measure; `meter` counts CPU, commits and WAL; `report` prints, compares and writes.
"""
