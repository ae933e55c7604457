"""One run of a test: the clusters that it makes, what fails in it, and which faults it leaves out.

The pytest plugin begins an attempt for each run of a test. A TestCluster that is made meanwhile enters it, whoever
makes it: the fixture, a fixture of the test's own, or a ``with`` block.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from swarmlet.testing.report import Fault, shrink

if TYPE_CHECKING:
    from swarmlet.testing.cluster import TestCluster

FaultId = tuple[int, int]
"""A fault of a test: the number of its cluster and its own."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How a run failed: in which phase of the test, over which class of error, and at which line of the test."""

    when: str
    error: str
    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.error} in line {self.line} of {os.path.basename(self.path)}"


@dataclass(slots=True)
class Attempt:
    """``seed`` is for clusters that are given none; ``command`` runs the test again. ``clusters`` are numbered in the
    order of their making: those whose ``with`` block ended well are not kept. The first ``set_up`` are of fixtures."""

    command: str
    seed: int | None = None
    skip: frozenset[FaultId] = frozenset()
    again: bool = False
    made: int = 0
    set_up: int = 0
    clusters: dict[int, TestCluster] = field(default_factory=dict)
    failure: Failure | None = None

    def enter(self, cluster: TestCluster) -> frozenset[int]:
        """A cluster is made; the numbers of its faults that are to be left out."""
        number, self.made = self.made, self.made + 1
        self.clusters[number] = cluster
        return frozenset(fault for of, fault in self.skip if of == number)

    def leave(self, cluster: TestCluster) -> None:
        """A cluster in which nothing failed has ended."""
        for number, known in self.clusters.items():
            if known is cluster:
                del self.clusters[number]
                return

    @property
    def faults(self) -> dict[FaultId, Fault]:
        """What was injected or left out in the clusters that are kept."""
        return {(number, each.number): each for number, c in self.clusters.items() for each in c.faults}

    def like(self, other: Attempt) -> bool:
        """Whether both failed in the same way over the same faults."""
        mine, others = ([(id, each.kind, each.what) for id, each in a.faults.items()] for a in (self, other))
        return self.failure == other.failure and mine == others


current: Attempt | None = None
"""The run that is under way in this process, if any."""


def fewer(first: Attempt, run: Callable[[Attempt], object], runs: int) -> str:
    """Of a test that failed: which of its faults the failure takes, found by running it again, at most ``runs`` times
    and twice; and the command for that. Empty if there is nothing to leave out. ``run`` makes an attempt."""
    faults = {id: each for id, each in first.faults.items() if not each.skipped}
    if first.failure is None or not faults or any(cluster.real for cluster in first.clusters.values()):
        return ""

    def again(skip: Iterable[FaultId]) -> Attempt:
        attempt = Attempt(first.command, first.seed, first.skip.union(skip), again=True)
        run(attempt)
        return attempt

    repeated = again(())
    if not repeated.like(first):
        failed = f"failed otherwise: {repeated.failure}" if repeated.failure else "did not fail again"
        failed = "came to other faults" if repeated.failure == first.failure else failed
        return f"the same seed {failed}; the test depends on something outside of the cluster"
    skip = shrink(list(faults), lambda tried: again(tried).failure == first.failure, runs)
    needed = [id for id in faults if id not in skip]
    alone = {0: "it fails without any fault", 1: "it fails with this fault alone:"}
    head = alone.get(len(needed), f"it fails with these {len(needed)} faults alone:")
    several = len(first.clusters) > 1
    lines = [f"  {f'swarm {id[0]}: ' if several else ''}{faults[id]}" for id in needed]
    return "\n".join([head, *lines, *([f"run it so: {_command(first, first.skip | skip)}"] if skip else [])])


def _command(attempt: Attempt, skip: frozenset[FaultId]) -> str:
    seeds = {cluster.seed for cluster in attempt.clusters.values()}
    seed = f" --swarm-seed={min(seeds)}" if len(seeds) == 1 else ""  # else they are in the test
    return f"{attempt.command}{seed} --swarm-skip={said(skip)}"


def said(faults: Iterable[FaultId]) -> str:
    """Numbers of faults as a person gives them: ``0,3``, of a second cluster ``1.2``."""
    return ",".join(f"{cluster}.{fault}" if cluster else str(fault) for cluster, fault in sorted(faults))


def heard(text: str) -> frozenset[FaultId]:
    """What ``said`` said. ValueError for what it never says."""
    parts = (each.rpartition(".") for each in text.split(",") if each.strip())
    return frozenset((int(cluster or 0), int(fault)) for cluster, _, fault in parts)


@functools.cache
def interpreter() -> str:
    """How a shell finds this Python."""
    found = shutil.which("python")
    same = found is not None and os.path.dirname(os.path.abspath(found)) == os.path.dirname(sys.executable)
    return "python" if same else shlex.quote(sys.executable)
