"""The lane that fails when the engine has become slow: `make bench-guard`.

Compares W1 with the rate of bare inserts of the same machine at the same moment, so a slow or busy machine does not
trip it. Fails only far below what is usual: it is there for a lost group commit, not for ten per cent.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from bench import kairos_work, limits, processes
from bench.plan import Options
from bench.server import Server, embedded_server

AT_LEAST = 0.03
"""Steps per bare insert. Usual is 0.07 to 0.13; one commit per step is below 0.015."""
RUNS = 400
ATTEMPTS = 3


@dataclass(frozen=True)
class Verdict:
    """One comparison: steps of W1 and bare rows, both per second."""

    steps: float
    rows: float

    @property
    def ratio(self) -> float:
        """Steps per row."""
        return self.steps / self.rows

    @property
    def is_good(self) -> bool:
        """Whether the engine is as fast as it has to be."""
        return self.ratio >= AT_LEAST

    def __str__(self) -> str:
        return (
            f"{self.steps:,.0f} steps/s by {self.rows:,.0f} bare rows/s: {self.ratio:.4f}, "
            f"{'at least' if self.is_good else 'below'} {AT_LEAST}"
        )


def compare(server: Server, options: Options | None = None) -> Verdict:
    """Measure both, once."""
    rows = limits.insert_rate(server, Options(), seconds=0.5)["rows/s"]
    return Verdict(kairos_work.w1(server, options or Options(runs=RUNS))["steps/s"], rows)


def judge(server: Server, options: Options | None = None, attempts: int = ATTEMPTS) -> Verdict:
    """The first good verdict of so many, else the last: one hiccup of the machine is no regression."""
    for _ in range(attempts):
        verdict = compare(server, options)
        if verdict.is_good:
            break
    return verdict


def main() -> None:
    """Judge on a server of our own; exit code 1 if the engine is too slow."""
    processes.terminate_on_sigterm()
    with embedded_server() as server:
        verdict = judge(server)
    print(verdict)
    if not verdict.is_good:
        sys.exit("The engine has become slow. `make bench` shows where: commits/step first, then worker us/step.")


if __name__ == "__main__":
    main()
