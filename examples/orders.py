"""The example to read first: an order is reserved, charged and confirmed.

    python examples/orders.py                                                 runs here, without a database
    kairos dev --app examples/orders.py:app                                   a worker, in one terminal
    kairos run fulfil-order --app examples/orders.py:app --wait \\
        --input '{"order_id": "42", "amount_cents": 990}'                     a run, in another
"""

from __future__ import annotations

from pydantic import BaseModel, Field

import kairos

app = kairos.App("shop")


class Order(BaseModel):
    order_id: str
    amount_cents: int = Field(gt=0)


class Reservation(BaseModel):
    warehouse: str
    items: int


class Charge(BaseModel):
    charge_id: str
    amount_cents: int


fulfil = app.workflow("fulfil-order", input=Order)


@fulfil.step
def reserve(order: Order) -> Reservation:
    """Gets the run's input, because its parameter has the type of the workflow's input."""
    return Reservation(warehouse="A", items=1)


@fulfil.step(retry=kairos.Retry(attempts=5, base="100ms", cap="5m"), timeout="30s")
async def charge(order: Order, reserve: Reservation, ctx: kairos.StepContext) -> Charge:
    """`reserve` is the output of that step. The key stays the same when this is retried, or runs twice."""
    if ctx.attempt == 1:
        raise ConnectionError("the payment service did not answer")
    ctx.log.info("charging", warehouse=reserve.warehouse)
    return Charge(charge_id=f"ch-{order.order_id}", amount_cents=order.amount_cents)


@fulfil.step
def confirm(order: Order, charge: Charge) -> str:
    """The last step: its output is the output of the run."""
    return f"order {order.order_id}: charged {charge.amount_cents / 100:.2f} ({charge.charge_id})"


@app.job(queue="mail", retry=kairos.Retry(attempts=3), ttl="1h")
def send_digest(to: str) -> str:
    """A job is a run with one step."""
    return f"sent to {to}"


if __name__ == "__main__":
    print(fulfil.run_inline(Order(order_id="42", amount_cents=990)))

# Output:
# order 42: charged 9.90 (ch-42)
