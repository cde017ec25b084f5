"""What the workers of these tests run. Importable, so that fresh processes and children can load it.

Every body writes to the ledger. How long a body takes and whether its first attempt raises follows from the
run's id and the step's name, so it is the same wherever and however often it runs.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import kairos
from tests.faults import ledger

app = kairos.App("faults")

QUICK = kairos.Retry(attempts=3, base="10ms", factor=1, jitter=0)
LATE = kairos.Retry(attempts=3, base="6s", factor=1, jitter=0)
SIDE_QUEUE = "side"


def _dice(ctx: kairos.StepContext, salt: str) -> int:
    digest = hashlib.sha256(f"{ctx.run_id}|{ctx.step}|{salt}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def pause_of(ctx: kairos.StepContext) -> float:
    """5 to 50 ms."""
    return 0.005 + _dice(ctx, "pause") % 46 / 1000


def raises_once(ctx: kairos.StepContext) -> bool:
    """Of a tenth of the steps the first attempt raises."""
    return ctx.attempt == 1 and _dice(ctx, "raise") % 10 == 0


class Hiccup(Exception):
    """The error of a first attempt."""


def _work(ctx: kairos.StepContext, value: Any) -> Any:
    ledger.write("begin", ctx)
    time.sleep(pause_of(ctx))
    return _end(ctx, value)


async def _work_async(ctx: kairos.StepContext, value: Any) -> Any:
    ledger.write("begin", ctx)
    await asyncio.sleep(pause_of(ctx))
    return _end(ctx, value)


def _end(ctx: kairos.StepContext, value: Any) -> Any:
    if raises_once(ctx):
        ledger.write("raise", ctx)
        raise Hiccup(f"{ctx.step} stumbles")
    ledger.write("end", ctx)
    return value


# -- the diamond: 6 steps, fan-out 3, fan-in 1 ---------------------------------------------------------------

diamond = app.workflow("diamond", input=int, retry=QUICK)


@diamond.step
def top(input: int, ctx: kairos.StepContext) -> int:
    return int(_work(ctx, input))


@diamond.step
async def red(top: int, ctx: kairos.StepContext) -> int:
    return int(await _work_async(ctx, top * 2))


@diamond.step
def green(top: int, ctx: kairos.StepContext) -> int:
    return int(_work(ctx, top * 3))


@diamond.step
async def blue(top: int, ctx: kairos.StepContext) -> int:
    return int(await _work_async(ctx, top * 5))


@diamond.step
def join(red: int, green: int, blue: int, ctx: kairos.StepContext) -> int:
    return int(_work(ctx, red + green + blue))


@diamond.step
async def bottom(join: int, ctx: kairos.StepContext) -> int:
    return int(await _work_async(ctx, join + 1))


def diamond_output(value: int) -> int:
    """What a diamond of `value` ends with."""
    return value * 10 + 1


# -- a middle step for another queue: its owner offers it, and goes by the slow path -------------------------

routed = app.workflow("routed", input=str, retry=QUICK)


@routed.step
async def near(input: str, ctx: kairos.StepContext) -> str:
    return str(await _work_async(ctx, input))


@routed.step(queue=SIDE_QUEUE)
def far(near: str, ctx: kairos.StepContext) -> str:
    return str(_work(ctx, near))


@routed.step
async def home(far: str, ctx: kairos.StepContext) -> str:
    return str(await _work_async(ctx, far))


# -- two siblings that end at the same instant ---------------------------------------------------------------

pair = app.workflow("pair", input=str, retry=QUICK)


@pair.step
def left(input: str, ctx: kairos.StepContext) -> str:
    _wait_for(Path(input), ctx)
    return "left"


@pair.step(queue=SIDE_QUEUE)
def right(input: str, ctx: kairos.StepContext) -> str:
    _wait_for(Path(input), ctx)
    return "right"


@pair.step
async def both(left: str, right: str, ctx: kairos.StepContext) -> str:
    ledger.write("begin", ctx)
    ledger.write("end", ctx)
    return f"{left}+{right}"


def _wait_for(gate: Path, ctx: kairos.StepContext) -> None:
    ledger.write("begin", ctx)
    while not gate.exists():
        if ctx.cancelled:
            ledger.write("cancelled", ctx)
            ctx.heartbeat()
        time.sleep(0.002)
    ledger.write("end", ctx)


# -- jobs ----------------------------------------------------------------------------------------------------


@app.job(retry=QUICK)
def quick(n: int, ctx: kairos.StepContext) -> int:
    return int(_work(ctx, n))


@app.job(retry=kairos.Retry(attempts=1))
def gated(gate: str, ctx: kairos.StepContext) -> str:
    """Waits for a file to appear. One attempt only: whoever burns it fails the run."""
    _wait_for(Path(gate), ctx)
    return f"attempt {ctx.attempt}"


@app.job(retry=kairos.Retry(attempts=1))
def stubborn(gate: str, ctx: kairos.StepContext) -> str:
    """As `gated`, but deaf to cancels and shutdowns."""
    ledger.write("begin", ctx)
    while not Path(gate).exists():
        time.sleep(0.002)
    ledger.write("end", ctx)
    return f"attempt {ctx.attempt}"


gated_pair = app.workflow("gated-chain", input=str, retry=QUICK)


@gated_pair.step
def waits(input: str, ctx: kairos.StepContext) -> str:
    """A step that waits for a file, with one below it."""
    ledger.write("begin", ctx)
    while not Path(input).exists():
        time.sleep(0.002)
    ledger.write("end", ctx)
    return f"by {os.getpid()}"


@gated_pair.step
async def follows(waits: str, ctx: kairos.StepContext) -> str:
    return str(await _work_async(ctx, waits))


@app.job(retry=QUICK)
async def flaky(n: int, ctx: kairos.StepContext) -> int:
    """Fails once, is due again at once."""
    ledger.write("begin", ctx)
    if ctx.attempt == 1:
        ledger.write("raise", ctx)
        raise Hiccup("once")
    ledger.write("end", ctx)
    return n


@app.job(retry=LATE)
async def late(n: int, ctx: kairos.StepContext) -> int:
    """Fails once, is due again in some seconds: its run is given back meanwhile."""
    ledger.write("begin", ctx)
    if ctx.attempt == 1:
        ledger.write("raise", ctx)
        raise Hiccup("once")
    ledger.write("end", ctx)
    return n


@app.job(retry=kairos.Retry(attempts=1))
async def doomed(n: int, ctx: kairos.StepContext) -> int:
    """Fails for good: the run's end has a row in the table of failures."""
    ledger.write("begin", ctx)
    ledger.write("raise", ctx)
    raise Hiccup("for good")


@app.job(crash_limit=2)
def poison(how: str, ctx: kairos.StepContext) -> None:
    """Takes its process with it."""
    ledger.write("begin", ctx)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(3)
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "memory":
        _exhaust_memory()
    ledger.write("end", ctx)


def _exhaust_memory() -> None:
    # Like a body whose C code has no answer to a refused allocation: the process is aborted.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
    hoard = []
    try:
        while True:
            hoard.append(bytearray(16 << 20))
    except MemoryError:
        os.abort()


@app.job
def echo(value: Any) -> Any:
    """Gives back what it is given."""
    return value


# -- effects: a durable function whose process is killed between two of them ----------------------------------


def _bell(ctx: kairos.StepContext, what: str) -> str:
    ledger.write(what, ctx)
    return what


@app.job(retry=QUICK)
def rings(kill_after: str, ctx: kairos.StepContext) -> list[str]:
    """Three effects; the first process to come to the end of `kill_after` is killed."""
    heard = []
    for what in ("first", "second", "third"):
        heard.append(ctx.call(what, lambda what=what: _bell(ctx, what)))
        if what == kill_after and ctx.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return [*heard, str(ctx.uuid())]


@app.job(retry=QUICK)
async def arings(kill_after: str, ctx: kairos.StepContext) -> list[str]:
    """The same, async."""
    heard = []
    for what in ("first", "second", "third"):
        heard.append(await ctx.call(what, lambda what=what: _bell(ctx, what)))
        if what == kill_after and ctx.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return [*heard, str(ctx.uuid())]
