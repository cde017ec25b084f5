"""Threads: which step each of them works for, and what becomes of a refusal that ends one.

Owns: the marks on threads and on the work of thread pools. A thread may outlive the step that started it; what it
tries then is still that step's. A pool's thread works for whoever gave it the work.
"""

from __future__ import annotations

import concurrent.futures.thread
import functools
import sys
import threading
from collections.abc import Callable
from typing import Any

from kairos.replay.guard.leaks import CHARGED, MARK, Charged, Ledger


def follow(ledger: Ledger) -> None:
    """From now on each thread, and each piece of work for a pool, remembers the step that it was started in."""
    thread: Any = threading.Thread
    thread.start = _marking(thread.start, ledger)
    pool: Any = concurrent.futures.thread.ThreadPoolExecutor
    pool.submit = _handing_on(pool.submit, ledger)


def keep_quiet(is_told: Callable[[BaseException], bool]) -> None:
    """Print no traceback where a thread, or a finaliser, ends by what is told as a leak."""
    in_threads, elsewhere = threading.excepthook, sys.unraisablehook

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is None or not is_told(args.exc_value):
            in_threads(args)

    def of_finaliser(args: Any) -> None:
        if args.exc_value is None or not is_told(args.exc_value):
            elsewhere(args)

    threading.excepthook, sys.unraisablehook = of_thread, of_finaliser


def _marking(start: Callable[[threading.Thread], None], ledger: Ledger) -> Callable[[threading.Thread], None]:
    @functools.wraps(start)
    def marked(thread: threading.Thread) -> None:
        setattr(thread, MARK, ledger.charged())
        start(thread)

    return marked


def _handing_on(submit: Callable[..., Any], ledger: Ledger) -> Callable[..., Any]:
    @functools.wraps(submit)
    def submitted(pool: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        charged = ledger.charged()
        work = function if charged is None else functools.partial(_charged, charged, function)
        return submit(pool, work, *args, **kwargs)

    return submitted


def _charged(charged: Charged, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    before = CHARGED.set(charged)
    try:
        return function(*args, **kwargs)
    finally:
        CHARGED.reset(before)
