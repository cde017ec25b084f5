"""A child process that does one deed of `escapes`, `harmless` or `refusals` after the other, as its input tells it.

Argument: a JSON object with `guard` (whether to put the guards up), `answers` (a descriptor), the fields of `Policy`,
`old_thread` (start one before the guards), `no_kernel` (as if it had neither layer) and `system` (its name).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import errno
import importlib
import json
import os
import socket
import sys
from pathlib import Path

from kairos.errors import KairosError


def refuse(*_: object) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def main() -> None:
    job = json.loads(sys.argv[1])
    answers = os.fdopen(job["answers"], "w")
    for name in ("aiohttp", "httpx", "psycopg", "requests", "kairos.authoring.failure"):
        importlib.import_module(name)
    from kairos.replay import guard
    from kairos.replay.guard import kernel

    # A thread and a connection, as a debugger has them before the guards go up.
    old_thread = concurrent.futures.ThreadPoolExecutor(1) if job.get("old_thread") else None
    if old_thread is not None:
        old_thread.submit(int).result()
    with socket.create_server(("127.0.0.1", 0)) as server:
        established = socket.create_connection(server.getsockname()), server.accept()[0]
    if job.get("no_kernel"):
        kernel.call = refuse
    kernel.system = lambda: job.get("system", sys.platform)
    hello = {"line": "no guard"}
    if job["guard"]:
        policy = guard.Policy(
            Path(job["scratch"]),
            allow_network=tuple(guard.parse_destination(text) for text in job.get("allow_network", ())),
            allow_writes=tuple(map(Path, job.get("allow_writes", ()))),
            strict=job.get("strict", False),
            off=frozenset(job.get("off", ())),
        )
        try:
            hello = {"line": guard.enter(policy).line()}
        except KairosError as exc:
            hello = {"line": str(exc), "error": type(exc).__name__}
    # After the guards, as the user's app.
    escapes = importlib.import_module("escapes")
    escapes.OLD_THREAD = old_thread
    importlib.import_module("harmless").ESTABLISHED = established
    refusals = importlib.import_module("refusals")
    deeds = {**escapes.NETWORK, **escapes.WRITES, **escapes.OTHERS, **importlib.import_module("harmless").HARMLESS}
    deeds |= refusals.OWN | {name: deed for name, (deed, _) in refusals.KERNEL.items()}
    print(json.dumps(hello), file=answers, flush=True)
    for request in sys.stdin:
        order = json.loads(request)
        deed = deeds[order["deed"]]
        answer: dict[str, object] = {}
        try:
            guard.begin_step(order["deed"], deed)
            answer["result"] = deed(escapes.World(**order["world"]))
        except BaseException as exc:
            leak = guard.explain_error(exc)
            answer |= {"error": type(exc).__name__, "text": str(exc), "leak": leak and dataclasses.asdict(leak)}
        found = [leak for leak in guard.leaks() if leak.step == order["deed"]]
        answer["leaks"] = [dataclasses.asdict(leak) | {"text": str(leak)} for leak in found]
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
