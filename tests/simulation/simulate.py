"""``make simulate SEEDS=n``: many runs on all processors; what they did, how fast, and what failed.

    python -m tests.simulation.simulate raft 1000 [--first 0] [--jobs 2]     # five consensus cores
    python -m tests.simulation.simulate swarm 100                            # the whole system
    python -m tests.simulation.simulate raft --seed 17        # one run again, with its faults and last deliveries

A seed that fails is run again without some of its faults, until none more can be left out. The exit code is 1 if a seed
failed, or if a kind of fault struck in fewer than a tenth of at least 100 seeds.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import pathlib
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from swarmlet.testing.report import shrink
from tests.simulation.kept import HERE, Kept, save
from tests.simulation.plan import Planned
from tests.simulation.raft_cores import RaftSimulation
from tests.simulation.raft_plan import KINDS as RAFT_KINDS
from tests.simulation.swarm_plan import STRUCK
from tests.simulation.swarm_run import SwarmSimulation

LEAST_SHARE = 0.1
ENOUGH_SEEDS = 100
SHRINK_RUNS = 80
SEEDS_OF_A_WORKER = 10
"""Runs that a process makes before another takes its place. What a run leaves behind is full of cycles: to let it go
with its process costs nothing, where the collector would take a tenth of the time."""


class Simulation(Protocol):
    """One run: ``run`` raises what does not hold."""

    faults: list[Planned]
    injected: Counter[str]
    deliveries: int

    def run(self) -> object: ...

    @property
    def last(self) -> Iterable[str]: ...

    @property
    def checked(self) -> Counter[str]: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one seed did; ``cpu`` in seconds."""

    seed: int
    injected: Counter[str]
    deliveries: int
    checked: Counter[str]
    error: str = ""
    cpu: float = 0.0


@dataclass(slots=True)
class Totals:
    """What many seeds did."""

    kinds: Sequence[str]
    seeds: int = 0
    deliveries: int = 0
    cpu: float = 0.0
    struck: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Counts one."""
        self.seeds += 1
        self.deliveries += outcome.deliveries
        self.cpu += outcome.cpu
        self.struck.update(outcome.injected.keys())
        self.injected += outcome.injected
        self.checked += outcome.checked
        if outcome.error:
            self.failed.append(outcome)

    def rare(self) -> list[str]:
        """The kinds that struck in fewer than a tenth of the seeds."""
        return [kind for kind in self.kinds if self.struck[kind] < LEAST_SHARE * self.seeds]

    def text(self, name: str, seconds: float) -> str:
        """Figures for people."""
        lines = [
            f"{name}: {self.seeds} seeds in {seconds:.1f} s, {self.seeds / seconds * 60:.0f} a minute; "
            f"{self.cpu / max(1, self.seeds):.2f} s of processor time, "
            f"{self.deliveries / max(1, self.seeds):.0f} deliveries and "
            f"{sum(self.injected.values()) / max(1, self.seeds):.1f} faults a seed; {len(self.failed)} failed",
            "checked: " + ", ".join(f"{count} {what}" for what, count in sorted(self.checked.items())),
            "faults injected (share of seeds):",
        ]
        for kind in self.kinds:
            share = self.struck[kind] / max(1, self.seeds)
            lines.append(f"  {kind:<29} {self.injected[kind]:>7} {share:>6.0%}")
        return "\n".join(lines)


def system(name: str) -> tuple[Any, Sequence[str]]:
    """The class of a simulation and its kinds of faults."""
    return {"raft": (RaftSimulation, tuple(RAFT_KINDS)), "swarm": (SwarmSimulation, STRUCK)}[name]


def one(job: tuple[str, int]) -> Outcome:
    """Runs one seed."""
    name, seed = job
    began = time.process_time()
    simulation: Simulation = system(name)[0](seed)
    error = ""
    try:
        simulation.run()
    except Exception as failure:
        error = "".join(traceback.format_exception(failure, limit=-3))
    cpu = time.process_time() - began
    return Outcome(seed, simulation.injected, simulation.deliveries, simulation.checked, error, cpu)


def many(name: str, seeds: Sequence[int], jobs: int) -> tuple[Totals, float]:
    """Runs seeds on several processors; figures, and the seconds it took."""
    totals, began = Totals(system(name)[1]), time.perf_counter()
    work = [(name, seed) for seed in seeds]
    if jobs == 1:
        for job in work:
            totals.add(one(job))
    else:
        with multiprocessing.Pool(jobs, initializer=_begin_worker, maxtasksperchild=SEEDS_OF_A_WORKER) as pool:
            for outcome in pool.imap_unordered(one, work, chunksize=1):
                totals.add(outcome)
                if outcome.error:
                    print(f"{name} seed {outcome.seed} failed: {outcome.error.strip().splitlines()[-1]}", flush=True)
    return totals, time.perf_counter() - began


def explain(name: str, seed: int, runs: int = SHRINK_RUNS, keep: pathlib.Path | None = None) -> str:
    """A failing seed for people: the error, the faults that it takes, the last deliveries, the command. ``keep``: where
    to keep it as data."""
    kind = system(name)[0]
    simulation: Simulation = kind(seed)
    failed = _fails(simulation)
    if not failed:
        return f"{name} seed {seed} does not fail"
    numbers = [fault.number for fault in simulation.faults]
    skip = shrink(numbers, lambda skip: bool(_fails(kind(seed, skip=skip))), runs)
    shrunk: Simulation = kind(seed, skip=skip)
    error = _fails(shrunk)
    kept = Kept(name, seed, error or failed, tuple(shrunk.faults))
    where = [f"kept in {save(kept, keep)}: it is run by every test run from now on"] if keep is not None else []
    return "\n".join(
        [
            f"{name} seed {seed}: {error or failed}",
            f"faults that it takes ({len(shrunk.faults)} of {len(numbers)}):",
            *(f"  {fault}" for fault in shrunk.faults),
            "last deliveries:",
            *(f"  {line}" for line in shrunk.last),
            *where,
            f"run it again: python -m tests.simulation.simulate {name} --seed {seed}",
        ]
    )


def _fails(simulation: Simulation) -> str:
    try:
        simulation.run()
    except Exception as failure:
        return f"{type(failure).__name__}: {str(failure).partition(chr(10))[0]}"
    return ""


def _begin_worker() -> None:
    gc.disable()
    _quiet()


def _quiet() -> None:
    """Actors fail on purpose here: their tracebacks would hide everything else."""
    logging.disable(logging.CRITICAL)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.simulate", description="runs simulations")
    parser.add_argument("system", choices=("raft", "swarm"))
    parser.add_argument("seeds", type=int, nargs="?", default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, help="this one alone, explained")
    parser.add_argument("--keep", action="store_true", help="keep what fails as data for the test suite")
    given = parser.parse_args(arguments)
    keep = HERE if given.keep else None
    if given.seed is not None:
        print(text := explain(given.system, given.seed, keep=keep))
        return int(not text.endswith("does not fail"))
    totals, seconds = many(given.system, range(given.first, given.first + given.seeds), given.jobs)
    print(totals.text(given.system, seconds))
    for outcome in totals.failed[:3]:
        print(explain(given.system, outcome.seed, keep=keep))
    if len(totals.failed) > 3:
        print("failed too:", *(outcome.seed for outcome in totals.failed[3:]))
    rare = totals.rare() if totals.seeds >= ENOUGH_SEEDS else []
    if rare:
        print("too rare:", ", ".join(rare))
    return int(bool(totals.failed or rare))


if __name__ == "__main__":
    _quiet()
    sys.exit(main())
