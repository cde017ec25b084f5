"""From arguments to an exit code: settings are checked, errors become a message and a hint."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import typer

from kairos.cli import exits
from kairos.cli.terminal import print_error
from kairos.cli.usage import UsageError
from kairos.errors import AmbiguousRun, BundleError, KairosError, RunNotFound, TraceError

# Typer brings its own copy of click from some version on: these are its classes, whichever it uses.
_UsageError = typer.BadParameter.__mro__[1]
_ClickError = typer.BadParameter.__mro__[2]


def main() -> None:
    """The `kairos` command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A name that the terminal's encoding lacks must not end a command.
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _leave_the_pipe()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Do one command and return its exit code. Prints errors; raises nothing that a user could cause."""
    from kairos.cli.commands import app, only

    as_json = "--json" in arguments
    command = typer.main.get_command(only(arguments[0]) if arguments else app)
    try:
        code = command.main(args=list(arguments), prog_name="kairos", standalone_mode=False)
        return code if isinstance(code, int) else exits.OK
    except KairosError as exc:
        return _expected(exc, as_json)
    except BrokenPipeError:
        return _leave_the_pipe()
    except (KeyboardInterrupt, typer.Abort):
        return exits.INTERRUPTED
    except Exception as exc:
        if isinstance(exc, _ClickError):
            return _usage(exc, as_json)
        if type(exc).__module__.startswith("psycopg"):
            from kairos.store.trouble import translate

            return _expected(translate(exc), as_json)  # type: ignore[arg-type]
        return _unexpected(exc, as_json)


def _expected(exc: KairosError, as_json: bool) -> int:
    print_error(exc.message, exc.hint, as_json=as_json, kind=type(exc).__name__)
    if isinstance(exc, UsageError):
        return exits.USAGE
    return exits.NO_SUCH_RUN if isinstance(exc, RunNotFound | AmbiguousRun | BundleError | TraceError) else exits.ERROR


def _usage(exc: BaseException, as_json: bool) -> int:
    context = getattr(exc, "ctx", None)
    path = context.command_path if context is not None else "kairos"
    message = exc.format_message() if hasattr(exc, "format_message") else str(exc)
    message = message[:1].lower() + message[1:].rstrip(".")
    print_error(message, f"`{path} --help` shows what can be given.", as_json=as_json, kind="UsageError")
    return exits.USAGE if isinstance(exc, _UsageError) else exits.ERROR


def _unexpected(exc: Exception, as_json: bool) -> int:
    """A mistake of ours (or of the user's app): one line, and how to see the rest."""
    if os.environ.get("KAIROS_LOG_LEVEL", "").lower() == "debug":
        import traceback

        traceback.print_exc()
    print_error(
        f"{type(exc).__name__}: {exc}",
        "This is not an error that Kairos expects. KAIROS_LOG_LEVEL=debug shows the traceback.",
        as_json=as_json,
        kind=type(exc).__name__,
    )
    return exits.ERROR


def _leave_the_pipe() -> int:
    # Whoever read our output has gone (`| head`): nothing is wrong. Python would complain at exit otherwise.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return exits.BROKEN_PIPE
