"""What operators ask by swarmlet's commands while a dockerd leads: all of it is plain changes that any leader carries
out."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.interop.fixtures import Start
from tests.interop.peers import Dockerd, Peer, Swarmlet

QUICK = ("--update-monitor", "500ms", "--update-delay", "0s")


def swarmlet(peer: Peer, *arguments: str, data: bytes = b"") -> list[str]:
    """A command that must succeed, asked of a peer; its lines."""
    program = str(Path(sys.executable).with_name("swarmlet"))
    done = subprocess.run(
        [program, *arguments, "-H", f"unix://{peer.socket}"], input=data, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"swarmlet {' '.join(arguments)}: {done.stdout.decode()}{done.stderr.decode()}"
    return done.stdout.decode().splitlines()


def spread(manager: Peer, service: str) -> list[int]:
    return sorted(Counter(task["NodeID"] for task in manager.tasks(service)).values())


def spec(manager: Peer, service: str) -> Any:
    (found,) = manager.get("/services", name=service)
    return found["Spec"]


def test_operators_commands_hold_while_a_dockerd_leads(start: Start) -> None:
    leader, manager, worker = start(Dockerd, "alpha"), start(Swarmlet, "beta"), start(Swarmlet, "gamma")
    leader.init()
    manager.join(leader, "manager")
    worker.join(leader)
    for peer in (manager, worker):
        leader.wait_state(peer, "ready")
    leader.docker("node", "update", "--availability", "drain", leader.name)
    leader.docker("node", "update", "--availability", "pause", worker.name)
    leader.docker("config", "create", "settings", __file__)

    # Moves, by scaling in both orders and by a constraint
    for name, replicas, order in (("web", 4, "stop-first"), ("sf", 4, "start-first"), ("one", 1, "stop-first")):
        more = ("--config", "settings") if name == "web" else ()
        leader.create(name, "host", "--replicas", str(replicas), "--update-order", order, *QUICK, *more)
        leader.wait_tasks(name, replicas, at=manager)
    leader.create("two", "host", *QUICK)
    leader.wait_tasks("two", 1, at=manager)
    before = {name: spec(leader, name) for name in ("web", "sf", "one", "two")}
    leader.docker("node", "update", "--availability", "active", worker.name)
    plans = ("rebalance", "--socket", str(manager.root / "x" / "introspection.sock"))
    said = swarmlet(manager, *plans, "--apply")
    assert said[-1] == "5 moved; nothing more is to be moved", said
    assert (spread(leader, "web"), spread(leader, "sf")) == ([2, 2], [2, 2])
    assert len({task["NodeID"] for name in ("one", "two") for task in leader.tasks(name)}) == 2
    assert {name: spec(leader, name) for name in before} == before

    # A new version of a config, asked of the dockerd itself
    swarmlet(leader, "rotate", "config", "settings", "-", data=b"new")
    (reference,) = spec(leader, "web")["TaskTemplate"]["ContainerSpec"]["Configs"]
    assert (reference["ConfigName"], reference["File"]["Name"]) == ("settings.v2", "settings")
    leader.wait_tasks("web", 4)
    assert {each["Spec"]["Name"] for each in leader.get("/configs")} == {"settings", "settings.v2"}

    # Rest, a global service among them, and a node that is drained
    leader.create("agent", "host", "--mode", "global")
    leader.wait_tasks("agent", 2)
    swarmlet(manager, "stop", "web", "agent")
    assert leader.tasks("web") == leader.tasks("agent") == []
    swarmlet(leader, "start", "web", "agent")
    leader.wait_tasks("agent", 2)
    assert len(leader.tasks("web")) == 4
    swarmlet(leader, "drain", worker.name, "--wait")
    for name, replicas in (("web", 4), ("sf", 4), ("one", 1), ("two", 1)):
        assert len(leader.tasks(name, at=manager)) == replicas, name
