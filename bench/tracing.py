"""What recording costs: `python -m bench.tracing`. No database; the cases are those of docs/replay.md.

Each case runs plainly and recorded, alternating; the best of each counts, as on a shared machine anything else
measures the neighbours.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kairos.replay.trace.layout import About
from kairos.replay.trace.recording import Recorder, Summary

ROUNDS = 5


def _price(order: dict[str, Any]) -> int:
    total = 0
    for line in order["lines"]:
        total += line["qty"] * line["price"]
    if order["coupon"]:
        total = total * 9 // 10
    return total


def orders_step(raw: str) -> dict[str, Any]:
    """Bills 200 orders of six lines: compute-bound, with values of some size at every line."""
    out, totals = [], dict[str, int]()
    for order in json.loads(raw):
        total = _price(order)
        totals[order["customer"]] = totals.get(order["customer"], 0) + total
        out.append({"id": order["id"], "total": total, "big": total > 1_000})
    return {"orders": out, "totals": totals}


def numbers_step(count: int) -> int:
    """The same shape with plain numbers."""
    total = 0
    for i in range(count):
        square = i * i
        if square % 7 == 3:
            total += square
    return total


def hot_loop(count: int) -> int:
    """A million turns: all but the first 2,000 of each line run unrecorded."""
    total = 0
    for i in range(count):
        total += i
    return total


def _increase(n: int) -> int:
    return n + 1


def hot_calls(count: int) -> int:
    """100,000 calls of a tiny function."""
    total = 0
    for _ in range(count):
        total = _increase(total)
    return total


def waiting_step(count: int) -> int:
    """20 waits of 5 ms: what most steps are like."""
    for _ in range(count):
        time.sleep(0.005)
    return count


def _orders() -> str:
    lines = [[{"qty": j + 1, "price": i * j % 97 + 1} for j in range(6)] for i in range(200)]
    orders = [{"id": i, "customer": f"c{i % 17}", "coupon": i % 3 == 0, "lines": lines[i]} for i in range(200)]
    return json.dumps(orders)


CASES: list[tuple[Callable[[Any], object], Any]] = [
    (orders_step, _orders()),
    (numbers_step, 2_000),
    (hot_loop, 1_000_000),
    (hot_calls, 100_000),
    (waiting_step, 20),
]


def measure(function: Callable[[Any], object], argument: Any) -> tuple[float, float, float, Summary]:
    """Seconds plainly, recorded and for saving, and what the recording came to."""
    plain, recorded, saved = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            function(argument)
            plain.append(time.perf_counter() - begun)
            recorder = Recorder()
            begun = time.perf_counter()
            with recorder:
                function(argument)
            recorded.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            summary = recorder.save(Path(folder) / "t.ktrace", About())
            saved.append(time.perf_counter() - begun)
    return min(plain), min(recorded), min(saved), summary


def main() -> None:
    """Print one row per case."""
    print(f"Python {platform.python_version()}")
    print("| Case | plain | recorded | factor | events | us per event | file | to save |")
    print("|---|---|---|---|---|---|---|---|")
    for function, argument in CASES:
        plain, recorded, saved, summary = measure(function, argument)
        each = (recorded - plain) / summary.events * 1e6
        print(
            f"| {function.__name__} | {plain * 1e3:.1f} ms | {recorded * 1e3:.0f} ms | x{recorded / plain:.1f} "
            f"| {summary.events:,} | {each:.0f} | {summary.size / 1_000:.0f} kB | {saved * 1e3:.0f} ms |"
        )


if __name__ == "__main__":
    main()
