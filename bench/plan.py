"""What can be measured: cases by key, and the options that they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.server import Server

Metrics = dict[str, float]


@dataclass(frozen=True)
class Options:
    """The sizes of a bench run; `python -m bench --help` says what each means.

    Attributes:
        environments: where the peers are installed.
        runs_per_flush: 0 is the engine's own limit. 1 takes group commit away, to see that the guard notices.
    """

    runs: int = 1000
    jobs: int = 10_000
    latencies: int = 200
    concurrency: int = 500
    callers: int = 1000
    workers: tuple[int, ...] = (1, 2)
    minutes: float = 10.0
    old_events: int = 1_000_000
    environments: Path = Path(".bench")
    profile: str = ""
    runs_per_flush: int = 0


@dataclass(frozen=True)
class Case:
    """One thing to measure. `main` is the metric by which it is compared; a time is better when lower."""

    key: str
    title: str
    main: str
    measure: Callable[[Server, Options], Metrics]

    @property
    def family(self) -> str:
        """`w1` of `w1-bulk-2`."""
        return self.key.partition("-")[0]


def lower_is_better(metric: str) -> bool:
    """Times and costs are; rates are not."""
    return not metric.endswith("/s")


def select(cases: Sequence[Case], only: str) -> list[Case]:
    """The cases named by `only`: keys or beginnings of keys (`w1` means all of `w1-...`), separated by commas.

    Raises:
        ValueError: a name means nothing.
    """
    chosen: dict[str, Case] = {}
    for name in filter(None, (part.strip() for part in only.split(","))):
        found = [case for case in cases if case.key == name or case.key.startswith(f"{name}-")]
        if not found:
            raise ValueError(f"--only {name}: there is no such case; there are {', '.join(c.key for c in cases)}")
        chosen |= {case.key: case for case in found}
    return list(chosen.values())
