"""A cluster is made anew by force while the members of the old one crash, come back and go on: the two never mix, and
what was acknowledged stays. Old members that find out begin again in the new cluster by themselves; where enough of
them are together to go on as the old one, each is set up anew. When what happens is drawn from the seed."""

from __future__ import annotations

import random

import pytest

from runtime.disk.memory import MemoryDisk
from runtime.wire.pb import types_pb2 as types
from tests.simulation.cluster import Host, Swarm, manager_token, wait
from tests.simulation.managers import leader_of, managers, names, raft_of, until_written, write
from tests.simulation.seeds import seeds
from tests.simulation.test_quorum import force
from tests.simulation.test_unknown_candidates import held

SECONDS = 60


def lose(host: Host, rng: random.Random) -> None:
    """The machine is gone: its daemon, or its power with some or all that was not synced."""
    host.crash(rng.choice((None, rng.getrandbits(32))), lose_all=rng.random() < 0.5)


def go_on(swarm: Swarm, rng: random.Random, anew: Host, old: list[Host]) -> list[str]:
    """A minute in which the old members come back, are cut off, crash again, and are written to wherever one leads. The
    writes that the new cluster acknowledged."""
    acknowledged = []
    for second in range(SECONDS):
        for host in old:
            chance = rng.random()
            if host.stage is None and chance < 0.1:
                host.boot()
            elif host.stage is not None and chance < 0.02:
                lose(host, rng)
            elif chance < 0.05:
                swarm.cut(host.name, rng.choice(swarm.hosts).name)
        if rng.random() < 0.1:
            swarm.heal()
        swarm.simulator.run_for(1.0)
        check_apart(swarm, anew)
        if write(anew, f"new-{second}"):
            acknowledged.append(f"new-{second}")
        for host in old:
            if host.stage is not None and host.leads() and held(host) and not of(host, "new"):
                write(host, f"old-{second}")
    return acknowledged


def check_apart(swarm: Swarm, anew: Host) -> None:
    assert not of(anew, "old")
    for host in swarm.hosts:
        assert not (of(host, "old") and of(host, "new")), host.name


def of(host: Host, kind: str) -> list[str]:
    return [name for name in held(host) if name.startswith(kind)] if host.stage is not None else []


def set_up_anew(swarm: Swarm, anew: Host, host: Host) -> None:
    """As one does with a member of the old cluster: it is forgotten, cleared, and joins."""
    if host.stage is not None:
        host.crash()
    host.disk = MemoryDisk()
    host.executor.power_off()
    for node in anew.control("ListNodes").nodes:
        if node.description.hostname == host.name:
            node.spec.desired_role = types.WORKER
            anew.control("UpdateNode", node_id=node.id, node_version=node.meta.version, spec=node.spec)
            anew.control("RemoveNode", node_id=node.id, force=True)
    host.boot()
    host.join(anew, manager_token(anew))


@pytest.mark.parametrize("seed", seeds(1, 12))
def test_a_cluster_that_is_made_anew_and_what_is_left_of_the_old_one_never_mix(seed: int) -> None:
    rng = random.Random(f"{seed}/made anew")
    swarm = managers(seed, rng.choice((3, 5)))
    until_written(leader_of(swarm), "before")
    wait(swarm, lambda: all(held(host) == ["before-0"] for host in swarm.hosts))
    swarm.simulator.run_for(2.0)  # how far the log is committed is written a tick later, and force drops what is beyond
    anew = rng.choice(swarm.hosts)
    old = [host for host in swarm.hosts if host is not anew]
    for host in old:
        lose(host, rng)
    if rng.random() < 0.5:
        anew.crash()  # but not its power: that is written without a sync
        anew.boot()
        swarm.simulator.run_for(rng.uniform(0.0, 10.0))
    anew.ask(force(anew))
    wait(swarm, anew.leads)
    assert write(anew, "new-first")
    acknowledged = ["new-first", *go_on(swarm, rng, anew, old)]
    swarm.heal()
    for host in old:
        if host.stage is None:
            host.boot()
    swarm.simulator.run_for(60.0)
    check_apart(swarm, anew)
    for host in old:
        if not of(host, "new"):
            set_up_anew(swarm, anew, host)
    wait(swarm, lambda: names(anew) and all(held(host) == names(anew) for host in swarm.hosts))
    wait(swarm, lambda: all(each.votes for each in raft_of(anew).member_statuses().values()))
    assert len(raft_of(anew).members) == len(swarm.hosts)
    assert set(acknowledged) <= set(of(anew, "new"))
    assert of(anew, "before") == ["before-0"]
    assert not of(anew, "old")
    assert write(rng.choice(swarm.hosts), "at-last")
