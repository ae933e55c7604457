"""Swarms of several managers under virtual time: what the tests of quorums share."""

from __future__ import annotations

from typing import Any

from runtime.errors import Code, Refused
from runtime.protocol.cluster import NOT_MANAGER_STARTING, Inspect, Status
from runtime.stage.answers import Future
from runtime.wire.pb import objects_pb2 as pb
from runtime.wire.pb import specs_pb2
from tests.simulation.cluster import Host, Swarm, replicated

LEADER_WAIT = 90.0


def manager_token(manager: Host) -> str:
    """What a manager joins with."""
    return str(manager.ask(Inspect()).root_ca.join_tokens.manager)


def managers(seed: int, count: int) -> Swarm:
    """A swarm of managers; the first one leads."""
    swarm = Swarm(seed, hosts=count)
    first, *others = swarm.boot()
    first.init()
    token = manager_token(first)
    for host in others:
        host.join(first, token)
    return swarm


def raft_of(host: Host) -> Any:
    """The consensus actor of a host that is up; None while it is not there."""
    assert host.stage is not None
    cell = host.stage.at("/cluster/node/manager/raft").resolve()
    return cell.instance if cell is not None else None


def leader_of(swarm: Swarm, among: list[Host] | None = None) -> Host:
    """Runs until one host leads and has said so, and gives it."""

    def leads(host: Host) -> bool:
        raft = raft_of(host) if host.stage is not None else None
        return raft is not None and raft._leading

    hosts = among if among is not None else swarm.hosts
    swarm.simulator.run_until(lambda: any(leads(host) for host in hosts), LEADER_WAIT)
    return next(host for host in hosts if leads(host))


def followers_of(swarm: Swarm) -> list[Host]:
    """Everybody who is up and does not lead."""
    leader = leader_of(swarm)
    return [host for host in swarm.hosts if host is not leader and host.stage is not None]


def service(name: str) -> specs_pb2.ServiceSpec:
    """A service without tasks: an object to write."""
    return replicated(name, 0)


def names(host: Host) -> list[str]:
    """The services that this manager's own store holds just now; refused before it serves."""
    assert host.stage is not None
    if host.ask(Status()) != "active/manager":
        raise Refused(Code.UNAVAILABLE, NOT_MANAGER_STARTING)
    cell = host.stage.at("/cluster/node/manager/control").resolve()
    assert cell is not None
    return sorted(each.spec.annotations.name for each in cell.instance.published.view.all(pb.Service))


def listed(host: Host) -> list[str]:
    """The services that this manager shows to whoever asks."""
    return sorted(each.spec.annotations.name for each in host.control("ListServices").services)


def write(host: Host, name: str) -> bool:
    """Creates a service and says whether that was acknowledged."""
    try:
        host.control("CreateService", spec=service(name))
    except Refused:
        return False
    return True


def until_written(host: Host, name: str, tries: int = 20) -> int:
    """Creates services until one is acknowledged, as a client does; how many were not."""
    for number in range(tries):
        if write(host, f"{name}-{number}"):
            return number
    raise AssertionError(f"no write of {name} was acknowledged")


def settle_alike(swarm: Swarm, within: float = 60.0) -> list[str]:
    """Runs until every host's store holds the same services, and gives their names."""
    limit = swarm.simulator.time + within
    while True:
        held = [names(host) for host in swarm.hosts]
        if all(each == held[0] for each in held):
            return held[0]
        assert swarm.simulator.time < limit, held
        swarm.simulator.run_for(0.5)


def outcome(future: Future) -> str:
    """``acknowledged``, the text of a refusal, or ``open``."""
    if not future.done:
        return "open"
    try:
        future.result(0)
    except Refused as refused:
        return refused.text
    return "acknowledged"
