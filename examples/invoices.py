"""A job written as one durable function: a loop, an if, and calls that are each made once.

    python examples/invoices.py                                               runs here, without a database
    kairos dev --app examples/invoices.py:app                                 a worker, in one terminal
    kairos run send-invoices --app examples/invoices.py:app --wait --input '{"month": "2026-11"}'

The mail service fails in the first attempt. The second one resumes after the last call that succeeded.
"""

from __future__ import annotations

from pydantic import BaseModel

import kairos

app = kairos.App("billing")
outbox: list[str] = []


class Customer(BaseModel):
    name: str
    cents: int


def find_customers(month: str) -> list[Customer]:
    """Stands for a query; what it returns is stored by this annotation."""
    return [Customer(name="ann", cents=990), Customer(name="bob", cents=0), Customer(name="cy", cents=120)]


def send(to: str, text: str, key: str) -> str:
    """Stands for a mail service."""
    if to == "cy" and not any(line.startswith("cy") for line in outbox):
        outbox.append("cy: no answer")
        raise ConnectionError("no answer")
    outbox.append(f"{to}: {text}")
    return f"sent to {to}"


@app.job(name="send-invoices", retry=kairos.Retry(attempts=3, base="100ms"))
def send_invoices(month: str, ctx: kairos.StepContext) -> list[str]:
    """What happens between two calls is done again by a retry, and so must come to the same."""
    due = ctx.now().date()
    receipts = []
    for customer in ctx.call("customers", find_customers, month):
        if customer.cents:
            text = f"{customer.cents / 100:.2f} for {month}" + (" is due" if due.year >= 2026 else "")
            receipts.append(ctx.call(f"mail {customer.name}", send, customer.name, text, ctx.idempotency_key))
    return receipts


if __name__ == "__main__":
    for receipt in send_invoices.run_inline({"month": "2026-11"}):
        print(receipt)
    print("\n".join(outbox))

# Output:
# sent to ann
# sent to cy
# ann: 9.90 for 2026-11 is due
# cy: no answer
# cy: 1.20 for 2026-11 is due
