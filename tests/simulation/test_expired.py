"""Certificates that ran out while a machine was off or cut off: what goes on, what is said, and how it is mended."""

from __future__ import annotations

import dataclasses

import pytest

from runtime.errors import Refused
from runtime.pki.certificates import certificate_expiry
from runtime.protocol.cluster import Info, Init, Inspect, Unlock, UnlockKey, Update
from runtime.stage.simulator import EPOCH
from runtime.wire.pb import control_pb2
from runtime.wire.pb import types_pb2 as types
from tests.simulation.cluster import Host, Swarm, manager_token, replicated, wait, worker_token

HOUR = 3600.0


def a_swarm(seed: int, workers: int) -> tuple[Swarm, list[Host]]:
    """A swarm whose certificates are good for an hour."""
    swarm = Swarm(seed, workers + 1)
    hosts = swarm.boot()
    hosts[0].init()
    cluster = hosts[0].ask(Inspect())
    cluster.spec.ca_config.node_cert_expiry.seconds = 3600
    hosts[0].ask(Update(cluster.meta.version.index, cluster.spec, control_pb2.KeyRotation()))
    for host in hosts[1:]:
        host.join(hosts[0], worker_token(hosts[0]))
    return swarm, hosts


def expiry(host: Host) -> float:
    """When the certificate on this host's disk ends, in seconds of virtual time."""
    found = certificate_expiry(host.disk.files.read("certificates/swarm-node.crt") or b"")
    assert found is not None
    return found - EPOCH


def pass_over(swarm: Swarm, host: Host) -> None:
    """Until the host's certificate, which it cannot renew, is a minute too old."""
    while swarm.simulator.time < expiry(host) + 60.0:
        swarm.simulator.run_for(300.0)


def test_a_new_lifetime_counts_for_the_next_certificate_at_once() -> None:
    swarm, (_, worker) = a_swarm(1, 1)
    assert expiry(worker) - swarm.simulator.time == pytest.approx(HOUR, abs=60.0)


@pytest.mark.parametrize("seed", range(2))
def test_a_manager_that_is_alone_starts_with_an_expired_certificate_and_renews_it(seed: int) -> None:
    swarm = Swarm(seed, 1)
    (manager,) = swarm.boot()
    manager.init()
    service = manager.control("CreateService", spec=replicated("web", 2, "sleep", "100000000")).service.id
    before = {task.id for task in swarm.wait_running(manager, service, 2)}
    manager.crash()
    pass_over(swarm, manager)
    manager.boot()
    wait(swarm, lambda: manager.state() == "active")
    wait(swarm, lambda: expiry(manager) > swarm.simulator.time)
    wait(swarm, lambda: manager.ask(Info()).error == "")
    assert {task.id for task in swarm.wait_running(manager, service, 2)} == before


def test_an_expired_worker_keeps_its_tasks_says_what_is_wrong_and_joins_anew() -> None:
    swarm, (manager, worker) = a_swarm(3, 1)
    service = manager.control("CreateService", spec=replicated("web", 2)).service.id
    swarm.wait_running(manager, service, 2)
    running = worker.executor.running
    assert running
    worker.crash()
    pass_over(swarm, worker)
    worker.boot()
    wait(swarm, lambda: worker.state() == "error")
    swarm.simulator.run_for(60.0)
    assert worker.executor.running == running
    said = worker.ask(Info()).error
    for part in ("expired on", "docker swarm join --token", "Its tasks run on"):
        assert part in said
    with pytest.raises(Refused, match="invalid join token"):
        worker.join(manager, "bogus")
    assert worker.executor.running == running
    worker.join(manager, worker_token(manager))
    assert (worker.state(), worker.ask(Info()).error) == ("active", "")
    states = sorted(node.status.state for node in manager.control("ListNodes").nodes)
    assert states == [types.NodeStatus.DOWN, types.NodeStatus.READY, types.NodeStatus.READY]


def an_expired_worker(seed: int) -> tuple[Swarm, Host, Host]:
    """A manager, and a worker that was off until its certificate was too old; its tasks run on."""
    swarm, (manager, worker) = a_swarm(seed, 1)
    service = manager.control("CreateService", spec=replicated("web", 2)).service.id
    swarm.wait_running(manager, service, 2)
    worker.crash()
    pass_over(swarm, worker)
    worker.boot()
    wait(swarm, lambda: worker.state() == "error")
    return swarm, manager, worker


def kept(host: Host) -> dict[str, bytes | None]:
    """What makes this node the node that it is."""
    names = ("certificates/swarm-node.crt", "certificates/swarm-node.key", "certificates/swarm-root-ca.crt")
    return {name: host.disk.files.read(name) for name in (*names, "docker-state.json", "state.json")}


def test_a_join_that_is_refused_leaves_an_expired_node_everything_that_it_had() -> None:
    swarm, manager, worker = an_expired_worker(7)
    running, before = worker.executor.running, kept(worker)
    assert running
    token = worker_token(manager)
    foreign = "SWMTKN-1-" + "0" * 50 + token[-26:]
    wrong_secret = token[:-25] + "0" * 25
    for wrong, said in ((wrong_secret, "A valid join token is necessary"), (foreign, "does not match fingerprint")):
        with pytest.raises(Refused, match=said):
            worker.join(manager, wrong)
        assert (worker.executor.running, kept(worker)) == (running, before)
        assert (worker.state(), "expired on" in worker.ask(Info()).error) == ("error", True)
    manager.crash()
    with pytest.raises(Refused):
        worker.join(manager, token)
    assert (worker.executor.running, kept(worker)) == (running, before)
    manager.boot()
    worker.crash()
    worker.boot()
    wait(swarm, lambda: worker.state() == "error")
    assert worker.executor.running == running
    worker.join(manager, token)
    assert (worker.state(), worker.ask(Info()).error) == ("active", "")
    assert kept(worker)["certificates/swarm-node.crt"] != before["certificates/swarm-node.crt"]
    worker.crash()
    worker.boot()
    wait(swarm, lambda: (worker.state(), worker.ask(Info()).error) == ("active", ""))


def test_a_node_that_is_cut_off_until_its_certificate_is_too_old_says_so_while_it_runs() -> None:
    swarm, (manager, worker) = a_swarm(4, 1)
    manager.crash()
    pass_over(swarm, worker)
    wait(swarm, lambda: worker.state() == "error", 2 * HOUR)
    assert "expired on" in worker.ask(Info()).error


def test_a_clock_that_is_far_behind_does_not_end_a_node() -> None:
    swarm, (manager, worker) = a_swarm(5, 1)
    service = manager.control("CreateService", spec=replicated("web", 2)).service.id
    swarm.wait_running(manager, service, 2)
    worker.crash()
    worker.boot()
    assert worker.stage is not None
    worker.stage.world.clock.skew = -100 * 24 * HOUR  # type: ignore[attr-defined]
    swarm.simulator.run_for(1.0)
    wait(swarm, lambda: "not valid before" in worker.ask(Info()).error or worker.state() == "active")
    assert worker.executor.running


def test_a_manager_that_expired_with_its_quorum_is_made_a_new_cluster_and_another_one_says_how_to_join() -> None:
    swarm, (first,) = a_swarm(6, 0)
    others = [Host(swarm, f"late-{number}", f"10.0.1.{number}") for number in (1, 2)]
    for host in others:
        swarm.hosts.append(host)
        host.boot()
        host.join(first, manager_token(first))
    one, other = others
    for host in (first, one, other):
        host.crash()
    for host in others:
        pass_over(swarm, host)
    for host in others:
        host.boot()
    swarm.simulator.run_for(60.0)
    assert [host.state() for host in others] == ["error", "error"]
    one.ask(Init(dataclasses.replace(one.init_message().request, force_new_cluster=True)))
    wait(swarm, lambda: expiry(one) > swarm.simulator.time)
    wait(swarm, lambda: (one.state(), one.ask(Info()).error) == ("active", ""))
    one.control("CreateService", spec=replicated("after", 0))
    swarm.simulator.run_for(60.0)
    assert other.state() == "error"
    other.join(one, manager_token(one))
    assert other.state() == "active"


def locking(host: Host) -> str:
    """The managers lock themselves from now on, with certificates for an hour; the key."""
    cluster = host.ask(Inspect())
    cluster.spec.ca_config.node_cert_expiry.seconds = 3600
    cluster.spec.encryption_config.auto_lock_managers = True
    host.ask(Update(cluster.meta.version.index, cluster.spec, control_pb2.KeyRotation()))
    host.swarm.simulator.run_for(30.0)
    return str(host.ask(UnlockKey()))


def test_a_locked_manager_that_is_alone_renews_its_expired_certificate_once_it_is_unlocked() -> None:
    swarm = Swarm(7, 1)
    (manager,) = swarm.boot()
    manager.init()
    key = locking(manager)
    manager.crash()
    pass_over(swarm, manager)
    manager.boot()
    wait(swarm, lambda: manager.state() == "locked")
    swarm.simulator.run_for(60.0)
    assert expiry(manager) < swarm.simulator.time
    manager.ask(Unlock(key))
    wait(swarm, lambda: (manager.state(), manager.ask(Info()).error) == ("active", ""))
    wait(swarm, lambda: expiry(manager) > swarm.simulator.time)
    manager.crash()
    swarm.simulator.run_for(1.0)
    manager.boot()
    wait(swarm, lambda: manager.state() == "locked")
    manager.ask(Unlock(key))
    assert manager.state() == "active"


@pytest.mark.slow
def test_a_locked_manager_of_several_says_after_its_key_that_its_certificate_expired_and_joins_anew() -> None:
    swarm, (first,) = a_swarm(8, 0)
    other, late = [Host(swarm, f"late-{number}", f"10.0.1.{number}") for number in (1, 2)]
    for host in (other, late):
        swarm.hosts.append(host)
        host.boot()
        host.join(first, manager_token(first))
    key = locking(first)
    late.crash()
    pass_over(swarm, late)
    late.boot()
    wait(swarm, lambda: late.state() == "locked")
    begun = swarm.simulator.time
    with pytest.raises(Refused, match="expired on"):
        late.ask(Unlock(key))
    assert swarm.simulator.time - begun < 10.0
    assert (late.state(), "expired on" in late.ask(Info()).error) == ("error", True)
    late.join(first, manager_token(first))
    assert late.state() == "active"
    late.crash()
    late.boot()
    wait(swarm, lambda: late.state() == "locked")
    late.ask(Unlock(key))
    assert late.state() == "active"
