"""The pytest plugin: the fixture ``swarm``, which makes TestClusters, and reports of failures that can be run again.

    def test_a_service_outlives_its_node(swarm):
        c = swarm(managers=1, workers=2)
        ...

Each cluster is taken down after its test. Of a test that fails the report says the seed, the faults and the last
deliveries; the test is then run again with fewer faults (at most ``--swarm-shrink`` times), and the report says which
of them it takes to fail.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from swarmlet.testing.cluster import TestCluster

SHRINK_RUNS = 20


class Swarms:
    """Makes the clusters of one test; ``skip`` are numbers of faults that each leaves out."""

    def __init__(self, node_id: str, seed: int, skip: frozenset[int] = frozenset()) -> None:
        self._node_id = node_id
        self._seed = seed
        self._skip = skip
        self.clusters: list[TestCluster] = []

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

        chosen = self._seed if seed is None else seed
        cluster = TestCluster(managers, workers, seed=chosen, real=real, skip=self._skip, actors=actors)
        cluster.again = f"python -m pytest '{self._node_id}' --swarm-seed={chosen}"
        self.clusters.append(cluster)
        return cluster.start()

    def close(self) -> None:
        """Takes them all down."""
        for cluster in self.clusters:
            cluster.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("swarmlet")
    group.addoption("--swarm-seed", type=int, default=0, help="seed of the clusters that the fixture swarm makes")
    group.addoption(
        "--swarm-shrink", type=int, default=SHRINK_RUNS, help="how often a failed test is tried with fewer faults"
    )


@pytest.fixture
def swarm(request: pytest.FixtureRequest) -> Iterator[Swarms]:
    """Makes TestClusters: ``swarm(managers=1, workers=2)``."""
    swarms = Swarms(request.node.nodeid, request.config.getoption("--swarm-seed"))
    request.node.stash[_KEY] = swarms
    yield swarms
    swarms.close()


_KEY = pytest.StashKey[Swarms]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    report: pytest.TestReport = outcome.get_result()
    swarms = item.stash.get(_KEY, None)
    if swarms is None or report.when != "call" or not report.failed:
        return
    for number, cluster in enumerate(swarms.clusters):
        needed = _needed(item, cluster) if len(swarms.clusters) == 1 else ""
        report.sections.append((f"swarm {number}", cluster.report(needed)))


def _needed(item: pytest.Item, cluster: TestCluster) -> str:
    """Which faults the failure needs, found by running the test again without some of them."""
    from swarmlet.testing.report import shrink

    runs = item.config.getoption("--swarm-shrink")
    function = getattr(item, "obj", None)
    if cluster.real or not cluster.faults or not runs or not inspect.isroutine(function):
        return ""

    def fails(skip: frozenset[int]) -> bool:
        swarms = Swarms(item.nodeid, cluster.seed, skip)
        arguments = {name: item.funcargs[name] for name in inspect.signature(function).parameters}  # type: ignore[attr-defined]
        try:
            function(**{**arguments, "swarm": swarms})
        except Exception:  # noqa: BLE001 - whatever a test raises is its failure
            return True
        finally:
            swarms.close()
        return False

    if not fails(frozenset()):
        return "the same seed did not fail again: the test depends on something outside of the cluster"
    skip = shrink([fault.number for fault in cluster.faults], fails, runs)
    needed = [str(fault) for fault in cluster.faults if fault.number not in skip]
    alone = {0: "it fails without any fault", 1: "it fails with this fault alone:"}
    head = alone.get(len(needed), f"it fails with these {len(needed)} faults alone:")
    return "\n".join([head, *(f"  {line}" for line in needed)])
