"""An app whose steps are worth stepping through: a loop, helpers, an exception below a helper, long values."""

from __future__ import annotations

import kairos

app = kairos.App("bills")
bill = app.workflow("bill", input=dict)


def rate_of(currency: str) -> float:
    """What a unit is worth."""
    known = {"EUR": 1.5, "USD": 1.0}
    return known[currency]


@bill.step
def fetch(input: dict) -> dict:
    return {"id": input["id"], "note": "n" * 3000, "lines": [{"sku": f"s{i}", "cents": i * 10} for i in range(6)]}


@bill.step(retry=kairos.Retry(attempts=1))
def charge(input: dict, fetch: dict) -> dict:
    total = 0.0
    seen = []
    for line in fetch["lines"]:
        amount = line["cents"] * rate_of("EUR")
        seen.append(line["sku"])
        total += amount
    if input.get("currency"):
        total *= rate_of(input["currency"])
    return {"total": total, "seen": seen}


@bill.step
async def ship(charge: dict) -> str:
    return "sent"
