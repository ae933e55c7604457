"""Runs that failed once hold now, and what fails is kept so that it can be run again fault by fault."""

from __future__ import annotations

import pathlib

import pytest

from tests.simulation import simulate
from tests.simulation.kept import Kept, all_kept, load, save
from tests.simulation.plan import Planned
from tests.simulation.swarm_plan import KINDS
from tests.simulation.swarm_run import SwarmSimulation


@pytest.mark.parametrize("path", all_kept(), ids=lambda path: path.stem)
def test_a_run_that_failed_once_holds(path: pathlib.Path) -> None:
    kept = load(path)
    simulation = simulate.system(kept.system)[0](kept.seed, list(kept.faults))
    simulation.run()
    assert sum(simulation.injected.values()) > 0, "its faults strike still"
    assert kept.why


def test_there_are_some() -> None:
    assert all_kept()


def test_every_kind_of_fault_comes_back_as_it_was_kept(tmp_path: pathlib.Path) -> None:
    simulations = [SwarmSimulation(seed) for seed in range(12)]
    faults = tuple(fault for each in simulations for fault in each.faults)
    assert {fault.kind for fault in faults} >= set(KINDS)
    kept = Kept("swarm", 7, "it failed", faults)
    assert load(save(kept, tmp_path)) == kept
    assert all_kept(tmp_path) == [tmp_path / "swarm-7.json"]


def test_what_fails_is_kept_with_the_faults_that_it_takes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails:
        """A run that fails when its third fault strikes."""

        def __init__(self, seed: int, skip: frozenset[int] = frozenset()) -> None:
            drawn = [Planned(number, 1.0, "crash", 0.5, {"host": seed}) for number in range(6)]
            self.faults = [fault for fault in drawn if fault.number not in skip]
            self.last = ("told",)

        def run(self) -> None:
            if any(fault.number == 2 for fault in self.faults):
                raise AssertionError("it broke")

    monkeypatch.setattr(simulate, "system", lambda _name: (Fails, ()))
    text = simulate.explain("swarm", 9, keep=tmp_path)
    path = tmp_path / "swarm-9.json"
    assert f"kept in {path}" in text
    kept = load(path)
    assert (kept.seed, kept.why) == (9, "AssertionError: it broke")
    assert [fault.number for fault in kept.faults] == [2]
