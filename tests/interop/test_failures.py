"""Three swarmlet daemons on machines of their own, as an operator sees them through docker when managers are lost."""

from __future__ import annotations

import signal
import time

import pytest

from tests.interop.fixtures import Start
from tests.interop.lab import run
from tests.interop.peers import Peer, Swarmlet
from tests.interop.test_managers import agreed_leader, swarm_of
from tests.waiting import until

pytestmark = pytest.mark.slow
LOST = (
    "rpc error: code = Unknown desc = The swarm does not have a leader. "
    "It's possible that too few managers are online. Make sure more than half of the managers are online."
)


def reachable(at: Peer) -> dict[str, str]:
    """Host names and what ``docker node ls`` shows of them as managers."""
    lines = at.docker("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}").splitlines()
    return dict([*line.split(), ""][:2] for line in lines)


def manages(peer: Peer) -> bool:
    """Whether it takes commands."""
    return bool(peer.get("/info")["Swarm"]["ControlAvailable"])


def test_every_manager_shows_who_is_lost_hung_and_back(start: Start) -> None:
    first, second, third = swarm_of(start, Swarmlet, Swarmlet, Swarmlet)
    third.kill()
    for at in (first, second):
        until(lambda at=at: reachable(at)[third.name] == "Unreachable", f"{at.name} misses {third.name}", 4)
    third.start()
    for at in (first, second, third):
        until(lambda at=at: set(reachable(at).values()) == {"Leader", "Reachable"}, f"{at.name} sees all", 10)

    leader = agreed_leader([first, second, third])
    others = [peer for peer in (first, second, third) if peer is not leader]
    leader.signal(signal.SIGSTOP)
    try:
        # The first try may have reached the leader just before: its outcome is unknown, and it says so.
        create = ("network", "create", "--driver", "overlay", "while-it-hangs")
        until(lambda: others[0].try_docker(*create)[0] == 0, "a write succeeds", 10)
        for at in others:
            until(lambda at=at: reachable(at)[leader.name] == "Unreachable", f"{at.name} misses the leader", 6)
        time.sleep(10)  # longer than anything waits for it
    finally:
        leader.signal(signal.SIGCONT)
    agreed_leader([first, second, third])
    leader.docker("network", "inspect", "while-it-hangs")
    leader.docker("network", "create", "--driver", "overlay", "afterwards")


def test_a_swarm_without_a_quorum_says_so_and_goes_on_after_it_is_made_anew_with_its_old_managers(start: Start) -> None:
    first, second, third = swarm_of(start, Swarmlet, Swarmlet, Swarmlet)
    node_ids = {peer.name: peer.node_id for peer in (first, second, third)}
    for peer in (second, third):
        peer.kill()
    # A leader that has not missed the others yet takes one more write, whose outcome is unknown.
    until(
        lambda: LOST in first.refused("network", "create", "--driver", "overlay", "n"), "it says that nobody leads", 40
    )
    begun = time.monotonic()
    assert LOST in first.refused("network", "create", "--driver", "overlay", "n")
    assert time.monotonic() - begun < 5
    info = first.get("/info")["Swarm"]
    assert (info["ControlAvailable"], info["Error"], info["Nodes"]) == (True, LOST, 3)

    first.docker("swarm", "init", "--force-new-cluster", "--advertise-addr", first.address)
    assert first.get("/info")["Swarm"]["Error"] == ""
    for peer in (second, third):
        peer.start()
        until(lambda peer=peer: manages(peer), f"{peer.name} is a manager of the new cluster", 60)
    until(lambda: set(reachable(third).values()) == {"Leader", "Reachable"}, "all are members", 10)
    assert {peer.name: peer.node_id for peer in (first, second, third)} == node_ids


def test_a_manager_whose_machine_has_another_address_is_found_there(start: Start) -> None:
    first, second, third = swarm_of(start, Swarmlet, Swarmlet, Swarmlet)
    third.stop()
    new = third.address.rpartition(".")[0] + ".99"
    run("ip", "-n", third.namespace, "addr", "del", f"{third.address}/24", "dev", "eth0")
    run("ip", "-n", third.namespace, "addr", "add", f"{new}/24", "dev", "eth0")
    third.address = new
    third.start()
    until(lambda: manages(third), "it is a manager again", 40)
    for at in (first, second, third):
        until(lambda at=at: at.node(third)["ManagerStatus"]["Addr"] == f"{new}:2377", f"{at.name} knows where", 10)
    third.docker("network", "create", "--driver", "overlay", "from-there")
