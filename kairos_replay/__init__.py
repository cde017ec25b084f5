"""The pytest plugin `kairos_replay`: holds your code against recorded runs, without a database.

    def test_fulfil(kairos_replay):
        kairos_replay("fulfil-1a2b3c4d.kairos", app="shop.flows:app").check()

`kairos pytest RUN` writes such tests. Nothing of Kairos is imported until a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kairos.replay.replayer import Replayer, Settings
    from kairos.replay.results import RunResult, StepResult

__all__ = ["KairosReplay", "RecordedRun", "kairos_replay"]


@pytest.fixture(scope="session")
def kairos_replay(pytestconfig: pytest.Config) -> Iterator[KairosReplay]:
    """Call it with a bundle to replay the run in it: `kairos_replay("run.kairos", app="shop:app").check("charge")`."""
    with KairosReplay(pytestconfig.rootpath) as replays:
        yield replays


class KairosReplay:
    """Replays bundles. All that need the same app share one process, which has no way out; see `docs/isolation.md`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stack = ExitStack()
        self._replayers: dict[str, Replayer] = {}
        self._runs: dict[tuple[object, ...], RecordedRun] = {}

    def __enter__(self) -> KairosReplay:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(
        self, bundle: str | Path, *, app: str, ignore: Sequence[str] = (), timeout: float | None = 60.0,
        allow_network: Sequence[str] = (), allow_writes: Sequence[str] = (), env: Sequence[str] = (),
    ) -> RecordedRun:  # fmt: skip
        """The run in `bundle`, to be replayed once.

        Args:
            bundle: a file that `kairos export` or `kairos pytest` wrote; relative to pytest's root folder.
            app: `module:app` or `file.py:app`; looked for in the bundle's folder and those above it.
            ignore: differences there do not count, such as `items[*].fetched_at`.
            timeout: seconds after which a step is stopped; None for never.
            allow_network, allow_writes, env: as in `kairos replay`.
        """
        from kairos.replay.guard import parse_destination
        from kairos.replay.replayer import Settings

        path = (self._root / bundle).resolve()
        folder, spec = _find_app(app, path.parent, self._root)
        settings = Settings(
            app=spec,
            network=tuple(map(parse_destination, allow_network)),
            writes=tuple(str((self._root / place).resolve()) for place in allow_writes),
            environment=tuple(env),
            timeout=timeout,
            mute=True,
            folder=str(folder),
        )
        key = (path, repr(settings), *ignore)
        if key not in self._runs:
            self._runs[key] = RecordedRun(self, path, settings, tuple(ignore))
        return self._runs[key]

    def _replayer(self, settings: Settings) -> Replayer:
        name = repr(settings)
        if name not in self._replayers:
            from kairos.replay.replayer import Replayer

            self._replayers[name] = self._stack.enter_context(Replayer(settings))
        return self._replayers[name]


class RecordedRun:
    """One recorded run, and what came of it here."""

    def __init__(self, replays: KairosReplay, path: Path, settings: Settings, ignore: tuple[str, ...]) -> None:
        self._replays, self._path, self._settings, self._ignore = replays, path, settings, ignore
        self._result: RunResult | None = None
        self._problem: Exception | None = None

    @property
    def result(self) -> RunResult:
        """All steps with their verdicts; the run is replayed when it is first asked for.

        Raises:
            BundleError: the file is not a sound bundle.
            AppUnavailable: the app cannot be imported.
            WorkflowNotFound: the app has no such workflow.
        """
        if self._problem is not None:
            raise self._problem  # once is enough: an app that cannot be imported takes its time
        if self._result is None:
            try:
                self._result = self._replay()
            except Exception as exc:
                self._problem = exc
                raise
        return self._result

    def _replay(self) -> RunResult:
        from kairos.replay.bundle import open_bundle
        from kairos.replay.plan import Choice

        replayer = self._replays._replayer(self._settings)
        return replayer.replay(open_bundle(self._path), self._path, Choice(), ignore=self._ignore)

    def check(self, step: str | None = None) -> None:
        """Fail unless this step, or every step, does what it did: same output, same error, or fixed.

        A step that a replay does not run (a transactional one) is skipped.
        """
        __tracebackhide__ = True
        from kairos.replay.verdicts import FINE, Verdict

        chosen = [result for result in self.result.steps if step in (None, result.name)]
        if not chosen:
            pytest.fail(f"the run has no step {step!r}; it has: {', '.join(s.name for s in self.result.steps)}")
        bad = [result for result in chosen if result.verdict not in FINE]
        if bad:
            pytest.fail("\n".join(_described(result, self.result, self._settings) for result in bad), pytrace=False)
        if step is not None and chosen[0].verdict in (Verdict.SERVED, Verdict.MISSING):
            pytest.skip(chosen[0].why or "it was not run")


def _described(result: StepResult, run: RunResult, settings: Settings) -> str:
    """As `kairos replay` prints it."""
    from rich.console import Console

    from kairos.cli.replay_lines import Lines

    text = StringIO()
    Lines(Console(file=text, width=120, markup=False, highlight=False), settings.app).ended(result, run.total)
    return text.getvalue().rstrip()


def _find_app(spec: str, start: Path, root: Path) -> tuple[Path, str]:
    """The folder to start in, and how the app is named there."""
    where, colon, attribute = spec.rpartition(":") if ":" in spec else (spec, "", "")
    name = Path(where) if where.endswith(".py") else Path(where.partition(".")[0])
    for folder in (start, *start.parents):
        if where.endswith(".py") and (folder / name).is_file():
            return folder, f"{folder / name}{colon}{attribute}"
        if (folder / f"{name}.py").is_file() or (folder / name).is_dir():
            return folder, spec
    return root, spec
