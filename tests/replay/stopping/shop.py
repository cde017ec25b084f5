"""An app whose steps are of every kind that a debugger meets."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

import kairos

app = kairos.App("shop")


class Order(BaseModel):
    order_id: str
    cents: int = 100
    password: str = "hunter2"


flow = app.workflow("fulfil", input=Order)


def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


def twice(cents: int) -> int:
    return cents * 2  # the line of the helper


@flow.step
@logged
@logged
def reserve(
    order: Order,
) -> str:
    """Take it from the shelf."""

    where = "A"  # first line of reserve
    return f"{order.order_id} from {where}"


@flow.step
async def charge(order: Order, reserve: str) -> int:
    total = order.cents  # first line of charge
    await asyncio.sleep(0.001)
    for part in range(3):
        total += part  # in the loop
    return twice(total)


@flow.step
def spread(order: Order, charge: int) -> list[int]:
    found: list[int] = []

    def work(number: int) -> None:
        square = number * number  # in the thread
        found.append(square)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found)


class Gateway:
    @flow.step(name="settle")
    @staticmethod
    def settle(order: Order) -> str:
        return order.order_id  # first line of settle


@flow.step
def asks(order: Order) -> str:
    note = "before"
    breakpoint()
    note = "after"
    return note


@flow.step
def mute(order: Order) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as taken:
        print("not for the terminal")  # while stdout is taken
    return taken.getvalue()


@flow.step
def careless(order: Order) -> str:
    try:
        ready = True  # in the try
    except Exception:
        ready = False
    try:
        time.sleep(0)
    except BaseException:
        pass
    return str(ready)


@flow.step
def loops(order: Order) -> int:
    for number in range(3):  # loops
        order.cents += number
    return order.cents


@flow.step
def hang(order: Order) -> str:
    count = 0
    while order.cents:
        count += 1
        print("it hangs", flush=True)
        time.sleep(0.05)  # it hangs here
    return "done"


@flow.step
async def wait_forever(order: Order) -> str:
    label = "nobody answers"
    asyncio.get_running_loop().call_later(0.01, functools.partial(print, "it waits", flush=True))
    await asyncio.sleep(1000)  # it waits here
    return label


@flow.step
def divide(order: Order) -> int:
    amount = 0
    return order.cents // amount  # divides


@flow.step
async def divide_later(order: Order) -> int:
    amount = 0
    await asyncio.sleep(0)
    return order.cents // amount  # divides later


@flow.step
def in_library(order: Order) -> Any:
    text = "{" + order.order_id
    return json.loads(text)  # json raises


@flow.step
def chained(order: Order) -> int:
    try:
        return int(order.order_id)  # the cause
    except ValueError as exc:
        price = -1
        raise LookupError(f"no price {price}") from exc  # the outer


@flow.step
async def grouped(order: Order) -> None:
    async def one(number: int) -> None:
        await asyncio.sleep(0)
        if number:
            raise ValueError(f"member {number}")  # the member

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(one(number))


@flow.step
def deep(order: Order) -> int:
    def down(level: int) -> int:
        return down(level + 1)  # deeper

    return down(0)


@flow.step
def imports(order: Order) -> None:
    source = "broken_module"
    __import__(source)  # imports it
