"""What sessions, heartbeats, statuses and assignments cost the dispatcher, and what a session keeps in memory.

Dispatcher and store run on one thread over a log that commits at once, calls without a network: the figures are
those of this machine's processor alone. ``python bench/bench_dispatcher.py [nodes] [tasks]``.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from typing import Any

from instant_log import Log

from actors.dispatcher_actor import DispatcherActor
from actors.store_actor import StoreActor
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Leading, WriteBatch
from runtime.stage.simulator import Simulator
from runtime.store.view import Published
from runtime.wire.inbound import Ending, InboundCall
from runtime.wire.pb import dispatcher_pb2 as dispatcher
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from runtime.wire.port import Credentials, Identity, StreamLimits
from runtime.wire.services import METHODS, path
from runtime.wire.to_actor import to_actor


class Manager:
    """A store that leads, a dispatcher, and nodes that call it."""

    def __init__(self, nodes: int) -> None:
        self.simulator = Simulator(1)
        stage = self.simulator.node("manager")
        published = Published()
        log = stage.mount("raft", Log, stage.at("/store"))
        self.store = stage.mount("store", StoreActor, log, published)
        self.store.tell(Leading(2, 8))
        self.names = [f"node{number:05}" for number in range(nodes)]
        self.write([lambda tx, name=name: tx.create(objects.Node(id=name)) and None for name in self.names])
        context = LeaderContext("manager", "cluster", self.store, published, Credentials(b""))
        self.dispatcher = stage.mount("dispatcher", DispatcherActor, context)
        self.handle = to_actor(self.dispatcher)
        self.simulator.settle()

    def write(self, steps: list[Any]) -> None:
        """Runs steps in as few transactions as fit."""
        self.simulator.ask(self.store, WriteBatch(steps))
        self.simulator.settle()

    def call(self, name: str, request: Any, node: str) -> InboundCall:
        """A call of a node's."""
        method = METHODS[path("Dispatcher", name)]
        identity = Identity(node, remote_addr="10.0.0.1:4000")
        call = InboundCall(method, request, identity, {}, StreamLimits(), lambda: None)
        self.handle(call)
        return call

    def wait(self, seconds: float) -> None:
        """Lets virtual time pass, and not more of it."""
        self.simulator.set(seconds, lambda: None)
        self.simulator.run_for(seconds)


def drain(call: InboundCall) -> list[bytes]:
    """All that waits for the caller."""
    pieces = []
    piece = call.take()
    while piece is not None and not isinstance(piece, Ending):
        pieces.append(piece)
        piece = call.take()
    return pieces


def report(title: str, count: int, took: float) -> None:
    """One line."""
    print(f"{title:<34} {count:>7} in {took:6.3f} s: {count / took:>9,.0f} a second, {took / count * 1e6:6.1f} us each")


def register(manager: Manager) -> tuple[dict[str, str], list[InboundCall]]:
    """Every node's session and assignment stream."""
    begun = time.perf_counter()
    sessions = [manager.call("Session", dispatcher.SessionRequest(), name) for name in manager.names]
    manager.wait(0.2)
    ids = {
        name: dispatcher.SessionMessage.FromString(drain(call)[0]).session_id
        for name, call in zip(manager.names, sessions, strict=True)
    }
    report("sessions begun", len(ids), time.perf_counter() - begun)
    begun = time.perf_counter()
    streams = [
        manager.call("Assignments", dispatcher.AssignmentsRequest(session_id=id), name) for name, id in ids.items()
    ]
    manager.simulator.settle()
    for call in streams:
        assert len(drain(call)) == 1
    report("assignment streams begun", len(ids), time.perf_counter() - begun)
    return ids, sessions + streams


def beat(manager: Manager, ids: dict[str, str], rounds: int) -> None:
    """Heartbeats of all nodes."""
    begun = time.perf_counter()
    for _ in range(rounds):
        for name, id in ids.items():
            manager.call("Heartbeat", dispatcher.HeartbeatRequest(session_id=id), name)
        manager.simulator.settle()
    report("heartbeats", rounds * len(ids), time.perf_counter() - begun)


def assigned(number: int, names: list[str]) -> objects.Task:
    """A task of a usual size on one of the nodes."""
    task = objects.Task(id=f"task{number:06}", service_id="web", slot=number + 1, node_id=names[number % len(names)])
    task.status.state = types.ASSIGNED
    task.desired_state = types.RUNNING
    task.spec.container.image = "registry.example.com/team/web:1.27"
    task.spec.container.env.extend(f"VARIABLE_{each}=value" for each in range(10))
    return task


def assign(manager: Manager, streams: list[InboundCall], tasks: int) -> None:
    """New tasks for all nodes, until they are told."""
    made = [assigned(number, manager.names) for number in range(tasks)]
    begun = time.perf_counter()
    manager.write([lambda tx, task=task: tx.create(task) and None for task in made])
    written = time.perf_counter()
    manager.wait(0.2)
    told = sum(
        len(dispatcher.AssignmentsMessage.FromString(piece).changes) for call in streams for piece in drain(call)
    )
    assert told == tasks, f"{told} of {tasks} were told"
    done = time.perf_counter()
    report("tasks written and seen", tasks, written - begun)
    report("tasks told to their nodes", tasks, done - written)


def statuses(manager: Manager, ids: dict[str, str], tasks: int) -> None:
    """Every task runs: one call each, written in batches."""
    begun = time.perf_counter()
    for number in range(tasks):
        name = manager.names[number % len(manager.names)]
        request = dispatcher.UpdateTaskStatusRequest(session_id=ids[name])
        request.updates.add(task_id=f"task{number:06}").status.state = types.RUNNING
        manager.call("UpdateTaskStatus", request, name)
    manager.simulator.settle()
    manager.wait(0.2)
    report("statuses taken and written", tasks, time.perf_counter() - begun)


def memory(nodes: int) -> None:
    """What an idle session with its two streams keeps, calls included."""
    manager = Manager(nodes)
    tracemalloc.start()
    kept = register(manager)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    print(f"(counted while tracing) memory: {size / nodes / 1024:.1f} KiB a node with {len(kept[1])} streams in all")


def main() -> None:
    """All measurements."""
    nodes = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    tasks = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    manager = Manager(nodes)
    ids, calls = register(manager)
    beat(manager, ids, 10)
    assign(manager, calls[nodes:], tasks)
    statuses(manager, ids, tasks)
    memory(nodes)


if __name__ == "__main__":
    main()
