"""What a service costs the leader's parts, in seconds of CPU: its tasks come up, then a rolling update replaces each.

    python bench/bench_orchestration.py [TASKS] [--nodes N] [--profile LINES]

Store, orchestrators, allocator, scheduler and dispatcher run on one thread under virtual time, over a log that commits
at once and for agents without a network, so that the figures tell changes of a percent from noise, on a busy machine
too. What is left out is the wire and the consensus: ``bench_scale.py`` has all of it.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable
from typing import Any

from instant_log import Log

from actors.leader_actor import PARTS
from actors.store_actor import StoreActor
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Leading, Write
from runtime.stage.simulator import Simulator
from runtime.store.view import Published
from runtime.wire.inbound import Ending, InboundCall
from runtime.wire.pb import dispatcher_pb2 as dispatcher
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from runtime.wire.port import Credentials, Identity, StreamLimits
from runtime.wire.services import METHODS, path
from runtime.wire.to_actor import to_actor

ROUND_S = 0.005  # virtual time between two looks of the agents at what they are told
LADDER = (types.ACCEPTED, types.PREPARING, types.READY, types.STARTING, types.RUNNING)
LEFT_OUT = ("key_manager", "log_broker", "ca", "root_rotation", "membership", "role_manager")


class Agent:
    """One node: takes each task one state further a round, as far as it is to go."""

    def __init__(self, cluster: Cluster, node_id: str) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.tasks: dict[str, objects.Task] = {}
        self.states: dict[str, int] = {}
        self._moving: set[str] = set()
        self.session_id = ""
        self._session = self._call("Session", dispatcher.SessionRequest(description=description(node_id)))

    def _call(self, name: str, request: Any) -> InboundCall:
        return self.cluster.call(name, request, self.node_id)

    def begin(self) -> None:
        """Its session was begun: goes on with the stream of assignments."""
        self.session_id = dispatcher.SessionMessage.FromString(pieces(self._session)[0]).session_id
        self._assignments = self._call("Assignments", dispatcher.AssignmentsRequest(session_id=self.session_id))

    def beat(self) -> None:
        """One heartbeat."""
        self._call("Heartbeat", dispatcher.HeartbeatRequest(session_id=self.session_id))

    def act(self) -> None:
        """Hears what there is to hear, and says how far its tasks are."""
        for piece in pieces(self._assignments):
            for change in dispatcher.AssignmentsMessage.FromString(piece).changes:
                if change.assignment.WhichOneof("item") == "task":
                    self._assigned(change)
        request = dispatcher.UpdateTaskStatusRequest(session_id=self.session_id)
        for id in list(self._moving):
            state = self._next(id)
            if state is None:
                self._moving.discard(id)
                continue
            self.states[id] = state
            status = request.updates.add(task_id=id).status
            status.state, status.message = state, "simulated"
            status.timestamp.seconds = int(self.cluster.simulator.time)
        if request.updates:
            self._call("UpdateTaskStatus", request)

    def _assigned(self, change: dispatcher.AssignmentChange) -> None:
        task = change.assignment.task
        if change.action == dispatcher.AssignmentChange.REMOVE:
            for table in (self.tasks, self.states):
                table.pop(task.id, None)
            self._moving.discard(task.id)
        else:
            self.tasks[task.id] = task
            self.states.setdefault(task.id, task.status.state)
            self._moving.add(task.id)

    def _next(self, id: str) -> int | None:
        state, wanted = self.states[id], self.tasks[id].desired_state
        if wanted >= types.SHUTDOWN:
            return types.SHUTDOWN if state < types.COMPLETE else None
        return next((each for each in LADDER if state < each <= wanted), None)

    def running(self, image: str) -> int:
        """How many tasks of an image run and are to."""
        return sum(
            state == types.RUNNING
            and self.tasks[id].desired_state == types.RUNNING
            and self.tasks[id].spec.container.image == image
            for id, state in self.states.items()
        )


class Cluster:
    """A store that leads, the parts of a leader that are about tasks, and agents."""

    def __init__(self, nodes: int) -> None:
        self.simulator = Simulator(1)
        stage = self.simulator.node("manager")
        self.published = Published()
        self.store = stage.mount("store", StoreActor, stage.mount("raft", Log, stage.at("/store")), self.published)
        self.store.tell(Leading(2, 8))
        self.write(lambda tx: tx.create(cluster_object()) and None)
        names = [f"node{number:05}" for number in range(nodes)]
        self.write(lambda tx: [tx.create(objects.Node(id=name)) for name in names] and None)
        context = LeaderContext("manager", "cluster", self.store, self.published, Credentials(b""))
        for name, part in PARTS:
            if name not in LEFT_OUT:
                stage.mount(name, part, context)
        self._handle = to_actor(stage.at("/dispatcher"))
        self.agents = [Agent(self, name) for name in names]
        self.wait(0.2)
        for agent in self.agents:
            agent.begin()
        self._beats_at = self.agents_cpu = 0.0

    def write(self, step: Callable[[Any], Any]) -> None:
        """One transaction."""
        self.simulator.ask(self.store, Write(step))
        self.simulator.settle()

    def call(self, name: str, request: Any, node_id: str) -> InboundCall:
        """A call of an agent's."""
        method = METHODS[path("Dispatcher", name)]
        call = InboundCall(
            method, request, Identity(node_id, remote_addr="10.0.0.1:4000"), {}, StreamLimits(), lambda: None
        )
        self._handle(call)
        return call

    def wait(self, seconds: float) -> None:
        """Lets virtual time pass, and not more of it."""
        self.simulator.set(seconds, lambda: None)
        self.simulator.run_for(seconds)

    def _all_run(self, count: int, image: str) -> bool:
        begun = time.process_time()
        running = sum(agent.running(image) for agent in self.agents)
        self.agents_cpu += time.process_time() - begun
        return running >= count

    def until_running(self, count: int, image: str) -> None:
        """Runs until so many tasks of an image run."""
        while not self._all_run(count, image):
            for _ in range(20):
                if self.simulator.time >= self._beats_at:
                    self._beats_at = self.simulator.time + 2.0
                    for agent in self.agents:
                        agent.beat()
                begun = time.process_time()
                for agent in self.agents:
                    agent.act()
                self.agents_cpu += time.process_time() - begun
                self.wait(ROUND_S)


def pieces(call: InboundCall) -> list[bytes]:
    """All that waits for the caller."""
    found = []
    piece = call.take()
    while piece is not None and not isinstance(piece, Ending):
        found.append(piece)
        piece = call.take()
    return found


def description(name: str) -> types.NodeDescription:
    """A large node."""
    made = types.NodeDescription(hostname=name)
    made.platform.os, made.platform.architecture = "linux", "x86_64"
    made.resources.nano_cpus, made.resources.memory_bytes = 64 * 10**9, 256 << 30
    return made


def cluster_object() -> objects.Cluster:
    """With the history limit of five that a cluster has at first."""
    made = objects.Cluster(id="cluster")
    made.spec.annotations.name = "default"
    made.spec.orchestration.task_history_retention_limit = 5
    return made


def service(id: str, replicas: int) -> objects.Service:
    """As a client's request makes it."""
    made = objects.Service(id=id, spec_version=types.Version(index=1))
    made.spec.annotations.name = "many"
    made.spec.task.container.image = "one:1"
    made.spec.replicated.replicas = replicas
    made.spec.update.parallelism = 100
    made.spec.update.monitor.seconds = 1
    return made


def main() -> None:
    """Both phases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="?", type=int, default=2000)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--profile", type=int, default=0, metavar="LINES")
    options = parser.parse_args()
    cluster = Cluster(options.nodes)
    id = "many"

    def update(tx: Any) -> None:
        new = objects.Service()
        new.CopyFrom(tx.get(objects.Service, id))
        new.previous_spec.CopyFrom(new.spec)
        new.spec.task.container.image = "two:1"
        new.spec_version.index = tx.version + 1
        tx.update(new)

    phases: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("all running", "one:1", lambda tx: tx.create(service(id, options.tasks)) and None),
        ("rolling update", "two:1", update),
    )
    for title, image, step in phases:
        profile = cProfile.Profile()
        begun, virtual, first = time.process_time(), cluster.simulator.time, cluster.published.view.version
        cluster.agents_cpu = 0.0
        if options.profile:
            profile.enable()
        cluster.write(step)
        cluster.until_running(options.tasks, image)
        profile.disable()
        spent = time.process_time() - begun - cluster.agents_cpu
        virtual = cluster.simulator.time - virtual
        entries = cluster.published.view.version - first
        print(
            f"{title:<16} {options.tasks} tasks: {spent:6.2f} s CPU, {spent / options.tasks * 1e3:.3f} ms a task;"
            f" {virtual:.1f} s of virtual time, {entries} entries of the log",
            flush=True,
        )
        if options.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(options.profile)


if __name__ == "__main__":
    main()
