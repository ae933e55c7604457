"""A machine dies at a named point of consensus, disk, snapshot or membership, with and without its power: what was
acknowledged is there afterwards, on every manager alike."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import Refused
from runtime.failpoints import armed
from runtime.protocol.cluster import Control, Join, JoinRequest
from runtime.stage import ActorUnavailable
from runtime.wire.pb import control_pb2
from runtime.wire.pb import types_pb2 as types
from tests.simulation.cluster import Host, Swarm
from tests.simulation.managers import followers_of, leader_of, manager_token, managers, names, raft_of, service, write

ROOT = Path(__file__).resolve().parents[2]
CONSENSUS = (
    "ready.before_persist", "append.before_write", "append.after_write_before_sync", "append.after_sync",
    "hardstate.after_sync", "send.before_any", "send.after_some", "apply.before_batch", "apply.after_batch",
    "advance.after", "conf.before_apply", "conf.after_apply", "snap.before_write", "snap.half_written",
    "snap.before_switch", "snap.after_switch", "snap.before_compact", "snap.after_compact", "install.received",
    "install.before_switch", "install.after_switch", "join.member_added_not_told", "demote.removed_not_stopped",
)  # fmt: skip
ELSEWHERE = (
    "force.before_write", "force.after_write", "dek.before_rotate", "dek.half_reencrypted", "dek.after_rotate",
    "ca.before_root_switch", "ca.cert_issued_unsent", "node.key_written_cert_missing",
    "agent.assignment_persisted_unacked", "agent.task_started_status_unsaved", "agent.status_saved_unsent",
)  # fmt: skip
QUICK = {"append.after_write_before_sync", "snap.after_switch", "install.before_switch", "conf.after_apply"}
SEEDS = int(os.environ.get("SWARMLET_CRASH_SEEDS", "1"))


class _Died(Exception):
    """What the armed point raises, so that nothing after it happens."""


def small_snapshots(leader: Host) -> None:
    """Snapshots every 12 entries, with 3 kept: so that every point is passed soon."""
    cluster = leader.control("ListClusters").clusters[0]
    cluster.spec.raft.snapshot_interval = 12
    cluster.spec.raft.log_entries_for_slow_followers = 3
    leader.control("UpdateCluster", cluster_id=cluster.id, cluster_version=cluster.meta.version, spec=cluster.spec)


def lag(swarm: Swarm) -> Host:
    """A follower that is down while the others go on without what it needs in their logs."""
    leader = leader_of(swarm)
    (behind, *_) = followers_of(swarm)
    behind.crash()
    for number in range(30):
        assert write(leader, f"lag-{number}")
    return behind


def failures(host: Host) -> int:
    if host.stage is None:
        return 0
    parts = ("raft", "raft/log", "raft/transport", "leader/raft_membership", "leader/membership")
    cells = [host.stage.cells.get(f"/cluster/node/manager/{part}") for part in parts]
    return sum(cell.failures.total for cell in cells if cell is not None)


class Drill:
    """Three managers under writes, until one dies at a point."""

    def __init__(self, point: str, seed: int) -> None:
        self.point, self.rng = point, random.Random(f"{point}/{seed}")
        often = point.split(".")[0] in ("ready", "append", "hardstate", "send", "apply", "advance")
        self.left = self.rng.choice((1, 2, 5, 20)) if often else 1
        self.died = False
        self.swarm = managers(seed, 3)
        small_snapshots(leader_of(self.swarm))
        self.extra: Host | None = None

    def crash(self, name: str) -> None:
        if name == self.point and not self.died:
            self.left -= 1
            if self.left == 0:
                self.died = True
                raise _Died(name)

    def provoke(self) -> None:
        """Does what leads past the point, besides writing."""
        kind = self.point.split(".")[0]
        if kind == "install":
            self.behind = lag(self.swarm)
            self.behind.boot()
        elif kind in ("join", "conf"):
            self._join_another()
        elif kind == "demote":
            leader = leader_of(self.swarm)
            name = followers_of(self.swarm)[0].name
            node = next(node for node in leader.control("ListNodes").nodes if node.description.hostname == name)
            node.spec.desired_role = types.WORKER
            leader.control("UpdateNode", node_id=node.id, node_version=node.meta.version, spec=node.spec)

    def _join_another(self) -> None:
        leader = leader_of(self.swarm)
        token = manager_token(leader)
        self.extra = Host(self.swarm, "node-4", "10.0.0.4")
        self.extra.boot()
        self.swarm.hosts.append(self.extra)
        remotes = (f"{leader.ip}:2377",)
        request = JoinRequest(f"{self.extra.ip}:2377", self.extra.ip, "", remotes, "active", token)
        self.extra.cluster.ask(Join(request))

    def run(self, power: int | None) -> None:
        swarm = self.swarm
        acknowledged: set[str] = set(names(leader_of(swarm)))
        before = {host.name: failures(host) for host in swarm.hosts}
        asked = {}
        with armed(self.crash):
            self.provoke()
            limit, number = swarm.simulator.time + 90, 0
            while not self.died:
                assert swarm.simulator.time < limit, f"{self.point} was never passed"
                if number < 200 and sum(not future.done for future in asked.values()) < 3:
                    for host in swarm.hosts[:3]:
                        if host.stage is not None:
                            request = control_pb2.CreateServiceRequest(spec=service(f"w-{number}"))
                            asked[f"w-{number}"] = host.cluster.ask(Control("CreateService", request))
                            number += 1
                swarm.simulator.step()
        dead = next(host for host in swarm.hosts if failures(host) > before.get(host.name, 0))
        dead.crash(power)
        swarm.simulator.run_for(self.rng.choice((0.0, 1.0, 30.0)))
        dead.boot()
        swarm.simulator.run_for(60)
        for name, future in asked.items():
            if future.done:
                try:
                    future.result(0)
                except (Refused, ActorUnavailable):
                    continue  # refused, or unknown
                acknowledged.add(name)
        leader = leader_of(swarm)
        assert write(leader, "after")
        swarm.simulator.run_for(5)
        members = [host for host in swarm.hosts if host.stage is not None and raft_of(host) is not None]
        assert len(members) >= 2
        shown = [names(host) for host in members]
        assert all(each == shown[0] for each in shown)
        assert len(set(shown[0])) == len(shown[0])
        assert acknowledged <= set(shown[0])


def drills() -> list[Any]:
    """Every point, killed and without power; most of them are for the suite that takes its time."""
    return [
        pytest.param(point, power, marks=() if power is not None and point in QUICK else pytest.mark.slow)
        for point in CONSENSUS
        for power in (None, 5)
    ]


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize(("point", "power"), drills())
def test_a_manager_that_dies_at_a_point_loses_nothing_acknowledged(point: str, power: int | None, seed: int) -> None:
    Drill(point, seed).run(power)


def test_every_point_in_the_code_is_in_these_lists_and_the_other_way_round() -> None:
    found = set()
    for top in ("actors", "runtime"):
        for path in (ROOT / top).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            found |= set(re.findall(r"failpoint\(\"([a-z_.]+)\"\)", text))
            found |= set(re.findall(r"before_sync=\"([a-z_.]+)\"", text))
            found |= set(re.findall(r"_note\(\"([a-z_.]+)\"\)", text))
            if 'failpoint(f"{kind}.' in text:
                found |= {f"{kind}.{when}_switch" for kind in ("snap", "install") for when in ("before", "after")}
    assert found - {"raft.name"} == {*CONSENSUS, *ELSEWHERE}
