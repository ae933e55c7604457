"""The whole system's simulation: seeds that hold, checks that notice."""

from __future__ import annotations

import math
import os
import pathlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from actors.raft_actor import RaftActor
from actors.store_actor import StoreActor
from runtime.disk.data_root import RAFT_DATABASE
from runtime.errors import Refused
from runtime.protocol.store import Commits, Entries
from runtime.stage.cell import Cell
from runtime.stage.mailbox import Envelope
from runtime.store.view import View
from runtime.wire.pb import types_pb2 as types
from tests.simulation import simulate, swarm_clients, swarm_run
from tests.simulation.linearizable import linearizable
from tests.simulation.plan import Planned
from tests.simulation.swarm_clients import STORE, Request
from tests.simulation.swarm_plan import RARE
from tests.simulation.swarm_run import SwarmSimulation

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_more_seeds_hold_and_every_kind_of_fault_strikes_in_a_tenth_of_them() -> None:
    totals, _seconds = simulate.many("swarm", range(1000, 1100), jobs=os.cpu_count() or 1)
    assert [(each.seed, each.error) for each in totals.failed] == []
    assert totals.rare() == []


SEEDS_IN_CI = (3, 41000003, 0)
# 0 failed once: a new leader gave versions that had been given before; of two writes prepared alike both took effect
# 41000003 was another run each time: a set of links was gone through in the order of their addresses in memory


@pytest.mark.timeout(600)
def test_seeds_hold_and_each_is_one_run_in_any_process_and_under_any_hash_seed() -> None:
    each_is_one_run(SEEDS_IN_CI)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_more_seeds_are_one_run_each_as_well() -> None:
    each_is_one_run(range(41000004, 41000010))


def each_is_one_run(seeds: Sequence[int]) -> None:
    program = (
        "import logging, sys; logging.disable(50)\n"
        "from tests.simulation.swarm_run import SwarmSimulation as S\n"
        f"for seed in {list(seeds)}:\n"
        "    s = S(seed).run()\n"
        "    assert s.checked['histories'] == 2 and s.checked['entries'] > 20 and sum(s.injected.values()) >= 10\n"
        "    print(seed, s.simulator.digest, s.deliveries, sorted(s.injected.items()))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("1", "2")
    ]
    printed = [each.communicate()[0] for each in running]
    assert [each.returncode for each in running] == [0, 0]
    assert printed[0] == printed[1]
    assert len(printed[0].splitlines()) == len(seeds)


def found(seeds: range, faults: Sequence[Planned] | None = None, seconds: float = swarm_run.SECONDS) -> str:
    """The first thing that is found in these seeds."""
    for seed in seeds:
        try:
            SwarmSimulation(seed, faults, seconds=seconds).run()
        except (Refused, AssertionError, RuntimeError) as error:
            return str(error)
    return ""


def test_a_store_that_answers_before_the_log_has_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = StoreActor._propose

    def hasty(self: StoreActor, transaction: Any, data: bytes, answer: Any) -> None:
        early = self.monotonic() > 5
        original(self, transaction, data, (lambda _error: None) if early else answer)
        if early:
            answer(None)

    monkeypatch.setattr(StoreActor, "_propose", hasty)
    # What a leader appends while it is cut off is lost; busy clients see to it that it appends something.
    monkeypatch.setattr(swarm_clients, "THINK", 0.3)
    cuts = [Planned(number, at, "leader cut off", 12.0, {}) for number, at in enumerate((4.0, 18.0))]
    assert "was acknowledged and is not in the log" in found(range(4), cuts, seconds=32.0)


def test_an_entry_that_one_manager_leaves_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = RaftActor.tell
    left_out: list[int] = []

    def loses(self: RaftActor, to: Any, message: Any) -> None:
        name = self.world.name
        if isinstance(message, Entries) and name == "manager-2" and self.monotonic() > 20 and not left_out:
            left_out.append(message.entries[0][0])
            return
        original(self, to, message)

    monkeypatch.setattr(RaftActor, "tell", loses)
    assert "exactly once: manager-2" in found(range(4))


@pytest.mark.parametrize(("old", "fine"), [(0.0, False), (4.0, False), (6.0, True), (math.inf, True)])
def test_a_read_may_be_as_old_as_was_promised_and_no_older(old: float, fine: bool) -> None:
    simulation = SwarmSimulation(1, [])
    simulation.keys = ["k"]
    simulation.watcher.model.labels.update({("k", "1"): 1.0, ("k", "2"): 5.0})
    simulation.requests = [
        Request(0, 1, call=1.0, end=1.1, write=True, value="1"),
        Request(0, 1, call=5.0, end=5.1, write=True, value="2", expected="1"),
        Request(0, 2, call=10.0, end=10.1, write=False, value="1", old=old),
    ]
    assert linearizable(simulation.history(0), "") is fine


def test_a_manager_that_finds_its_leader_again_promises_nothing_about_its_reads_before_it_has_caught_up() -> None:
    simulation = SwarmSimulation(5, [Planned(0, 15.0, "partition", 30.0, {"host": 1})], seconds=60.0)
    host = simulation.hosts[1]
    seen: dict[float, bool] = {}
    for at in (14.0, 40.0, 46.0, 58.0):
        simulation.simulator.set(at, lambda at=at: seen.setdefault(at, simulation.led(host)))  # type: ignore[misc]
    simulation.run()
    assert simulation.injected["partition"] == 1
    assert seen == {14.0: True, 40.0: False, 46.0: False, 58.0: True}


def test_a_commit_that_a_watcher_is_not_told_of_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = StoreActor.tell

    def forgets(self: StoreActor, to: Any, message: Any) -> None:
        if isinstance(message, Commits) and self.monotonic() > 10 and message.commits[-1].version % 10 == 0:
            return
        original(self, to, message)

    monkeypatch.setattr(StoreActor, "tell", forgets)
    assert "was not told of" in found(range(2), [], seconds=20.0)


def test_a_store_that_makes_something_else_of_an_entry_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = StoreActor._publish

    def publish(self: StoreActor, view: View, commits: Any) -> None:
        if self.monotonic() > 10 and self.world.name == "manager-2" and commits:
            view = commits[0].view.at(view.version) if len(commits) > 1 else self.published.view.at(view.version)
        original(self, view, commits)

    monkeypatch.setattr(StoreActor, "_publish", publish)
    assert re.search(r"manager-2\.1: .* is not what entry \d+ leaves of it", found(range(2), [], seconds=20.0))


def test_a_damaged_disk_is_noticed_by_its_manager_which_comes_back_as_a_new_member() -> None:
    simulation = SwarmSimulation(5, [Planned(0, 10.0, "bit flip", 1.0, {"host": 1, "bit": 7})], seconds=25.0)
    members = {node.id for node in simulation.run().watcher.model.tables["node"].values()}
    assert (simulation.injected["bit flip"], simulation.noticed, simulation.damaged) == (1, 1, {})
    assert len(members) == len(simulation.hosts)


def test_the_rare_paths_of_the_code_are_those_that_are_documented_and_drawn() -> None:
    named = [
        match.group(1)
        for top in ("actors", "runtime", "swarmlet")
        for path in sorted((ROOT / top).rglob("*.py"))
        for match in re.finditer(r'rare\("([a-z_]+\.[a-z_]+)"\)', path.read_text(encoding="utf-8"))
    ]
    text = (ROOT / "docs/crash-points.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([a-z_.]+)` \| rare:", text, re.MULTILINE)
    assert sorted(RARE) == sorted(named) == sorted(documented)


def test_a_fault_is_counted_when_it_strikes_and_not_when_it_is_drawn() -> None:
    """No call is lost at a chance of 0; while nobody leads, no node is drained and nothing is rotated."""
    everyone = {"mode": "kill"}
    faults = [
        Planned(0, 2.0, "loss", 3.0, {"rate": 0.0}),
        Planned(1, 2.0, "duplication", 3.0, {"rate": 0.0}),
        Planned(2, 2.0, "sync error", 0.0, {"host": 0}),
        Planned(3, 6.0, "loss", 3.0, {"rate": 0.3}),
        Planned(4, 6.0, "duplication", 3.0, {"rate": 0.2}),
        Planned(5, 10.0, "drain", 2.0, {"host": 3}),
        Planned(6, 14.0, "crash of all", 20.0, everyone),
        Planned(7, 14.1, "token rotation", 0.0, {}),
        Planned(8, 14.1, "drain", 0.1, {"host": 3}),
        Planned(9, 14.1, "crash at a point", 0.1, {"host": 0, "mode": "kill"}),
        Planned(10, 14.1, "actor", 0.0, {"host": 0, "actor": 0}),
    ]
    simulation = SwarmSimulation(5, faults, seconds=15.0).run()
    struck = {"loss": 1, "duplication": 1, "sync error": 1, "drain": 1, "crash of all": 1}
    assert simulation.injected == Counter(struck)


def test_a_manager_whose_disk_may_be_damaged_has_something_to_damage_also_while_one_is_demoted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A manager that is on its way out runs for a moment without a log: no bit of it can flip, however many vote."""
    faults = [Planned(0, 3.0, "pause", 4.0, {"host": 2}), Planned(1, 3.1, "role change", 60.0, {"host": 2})]
    simulation = SwarmSimulation(2, faults, seconds=9.0)
    nodes = simulation.watcher.model.tables["node"]
    monkeypatch.setattr(simulation, "voters", lambda: sum(1 for each in nodes.values() if each.role == types.MANAGER))
    assert len([host for host in simulation.hosts if host.name.startswith("manager")]) == 5
    without_log: set[str] = set()

    def look(_cell: Cell, _envelope: Envelope) -> None:
        up = [host for host in simulation.hosts if simulation.faulty and host.cell(STORE) is not None]
        for host in up:
            if not host.disk.image(RAFT_DATABASE).current():
                without_log.add(host.name)
                assert host not in simulation.damageable(), f"{host.name} has nothing to damage"

    simulation.simulator.observers.append(look)
    simulation.run()
    assert without_log, "there was such a moment"
