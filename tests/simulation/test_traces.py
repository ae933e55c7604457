"""A request's trace id goes with it: through answers, and over the wire to the manager that leads."""

from __future__ import annotations

from runtime.stage.cell import Cell
from runtime.stage.mailbox import Envelope
from swarmlet import TestCluster

MANAGER = "/cluster/node/manager"
SPEC = {"ContainerSpec": {"Image": "host", "Command": ["sleep", "1"]}}


def test_a_write_through_a_follower_has_one_trace_id_on_both_managers() -> None:
    with TestCluster(managers=3, seed=3) as c:
        seen: list[tuple[str, str, str, int]] = []

        def observe(cell: Cell, envelope: Envelope) -> None:
            seen.append((cell.stage.world.name, cell.path, type(envelope[0]).__name__, envelope[4]))

        follower = next(name for name in c.managers if name != c.leader)
        c.swarm.simulator.observers.append(observe)
        assert c.api(follower).post("/services/create", {"Name": "x", "TaskTemplate": SPEC}).status == 201
        asked = [trace for node, _path, kind, trace in seen if (node, kind) == (follower, "Control")]
        trace = asked[0]
        there = {(path, kind) for node, path, kind, id_ in seen if id_ == trace and node == c.leader}
        assert {(f"{MANAGER}/control", "Incoming"), (f"{MANAGER}/store", "Write")} <= there
        here = {(path, kind) for node, path, kind, id_ in seen if id_ == trace and node == follower}
        assert {(f"{MANAGER}/control", "Control"), (f"{MANAGER}/proxy", "ToLeader")} <= here
        strangers = {node for node, _path, _kind, id_ in seen if id_ == trace} - {follower, c.leader}
        assert strangers == set(), "ids of nodes do not meet"
