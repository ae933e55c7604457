"""The pytest plugin: the fixture ``swarm``, which makes TestClusters, and reports of failures that can be run again.

    def test_a_service_outlives_its_node(swarm):
        c = swarm(managers=1, workers=2)
        ...

Each cluster is taken down after its test. Of a test that fails the report says the seed, the faults and the last
deliveries of its clusters, whoever made them; the test is then run again with fewer faults (at most ``--swarm-shrink``
times), and the report says which of them it takes to fail in the same way.

A test with the fixture is run again as pytest runs tests, with new fixtures; of others, which make their clusters
themselves, the function is called again.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from swarmlet.testing import attempts
from swarmlet.testing.attempts import Attempt, Failure

if TYPE_CHECKING:
    from swarmlet.testing.cluster import TestCluster

SHRINK_RUNS = 20
NOT_OWN = "its cluster was made by a fixture: one that asks for the fixture swarm has its tests run again"


class Swarms:
    """Makes the clusters of one test."""

    def __init__(self) -> None:
        self._made = contextlib.ExitStack()

    def __call__(
        self,
        managers: int = 1,
        workers: int = 0,
        *,
        seed: int | None = None,
        real: bool = False,
        actors: Mapping[str, Any] | None = None,
    ) -> TestCluster:
        """A started cluster; arguments are TestCluster's."""
        from swarmlet.testing.cluster import TestCluster  # a session without swarms does not load them

        cluster = TestCluster(managers, workers, seed=seed, real=real, actors=actors)
        self._made.callback(cluster.close)
        return cluster.start()

    def close(self) -> None:
        """Takes them all down."""
        self._made.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("swarmlet")
    group.addoption(
        "--swarm-seed", type=int, default=None, help="seed of clusters that are given none (else SWARMLET_SEED, else 0)"
    )
    group.addoption(
        "--swarm-shrink", type=int, default=SHRINK_RUNS, help="how often a failed test is tried with fewer faults"
    )
    group.addoption(
        "--swarm-skip", type=attempts.heard, default="", help="numbers of faults to leave out, as a report says them"
    )


@pytest.fixture
def swarm() -> Iterator[Swarms]:
    """Makes TestClusters: ``swarm(managers=1, workers=2)``."""
    swarms = Swarms()
    yield swarms
    swarms.close()


# Runs


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    option = item.config.getoption
    first = attempts.current = Attempt(_command(item), option("--swarm-seed"), option("--swarm-skip"))
    if not _is_run_again(item) or "swarm" not in getattr(item, "fixturenames", ()):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = _run(item, first, nextitem)
    failed = [report for report in reports if report.failed]
    if failed and first.faults:
        _tell(failed[0], attempts.fewer(first, lambda attempt: _run(item, attempt, item.parent), _runs(item)))
        ended = pytest.CallInfo.from_call(lambda: item.session._setupstate.teardown_exact(nextitem), "teardown")
        if ended.excinfo is not None:
            reports.append(item.ihook.pytest_runtest_makereport(item=item, call=ended))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    if attempts.current is not None:
        attempts.current.set_up = attempts.current.made


def pytest_runtest_logfinish() -> None:
    attempts.current = None  # nothing of a test's clusters is kept


def _is_run_again(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or hasattr(item.obj, "hypothesis"):  # which finds smaller failures itself
        return False
    return _runs(item) > 0 and not item.config.getoption("usepdb")


def _command(item: pytest.Item) -> str:
    """What runs this test alone, from where this session was begun."""
    file, *parts = str(item.nodeid).split("::")
    path = os.path.relpath(item.config.rootpath / file, item.config.invocation_params.dir)
    return f"{attempts.interpreter()} -m pytest {shlex.quote('::'.join([path, *parts]))}"


def _runs(item: pytest.Item) -> int:
    return int(item.config.getoption("--swarm-shrink"))


def _run(item: pytest.Item, attempt: Attempt, then: pytest.Item | pytest.Collector | None) -> list[pytest.TestReport]:
    """One run by pytest's own protocol. ``then`` is what comes next: what it has in common with this test stays."""
    from _pytest.runner import runtestprotocol

    attempts.current = attempt
    return runtestprotocol(item, log=False, nextitem=then)  # type: ignore[arg-type]  # any node will do


def _call(item: pytest.Function, attempt: Attempt) -> None:
    """The test's function once more, with the fixtures that there are, unheard."""
    arguments = {name: item.funcargs[name] for name in inspect.signature(item.obj).parameters}
    before, attempts.current = attempts.current, attempt
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        call = pytest.CallInfo.from_call(lambda: item.obj(**arguments), "call")
    attempts.current = before
    attempt.failure = _failure(item, call)


# Reports


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    report: pytest.TestReport = outcome.get_result()
    attempt = attempts.current
    if attempt is None or attempt.failure is not None or not report.failed:
        return
    attempt.failure = _failure(item, call)
    if attempt.again:
        return
    for number, cluster in attempt.clusters.items():
        if not cluster.told:
            report.sections.append((f"swarm {number}", cluster.report()))
    with_fixture = "swarm" in getattr(item, "fixturenames", ())
    if report.when == "call" and not with_fixture and isinstance(item, pytest.Function) and _is_run_again(item):
        own = all(number >= attempt.set_up for number in attempt.clusters)
        again = attempts.fewer(attempt, lambda again: _call(item, again), _runs(item)) if own else NOT_OWN
        _tell(report, again)


def _failure(item: pytest.Item, call: pytest.CallInfo[None]) -> Failure | None:
    """How a call failed, if it did."""
    if call.excinfo is None:
        return None
    own = [each for each in call.excinfo.traceback if Path(each.path) == item.path]
    place = (own or call.excinfo.traceback)[-1]
    return Failure(call.when, call.excinfo.typename, str(place.path), place.lineno + 1)


def _tell(report: pytest.TestReport, text: str) -> None:
    if text:
        report.sections.append(("swarm with fewer faults", text))
