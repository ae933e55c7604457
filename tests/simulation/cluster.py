"""A whole swarm under virtual time: hosts with a disk, an executor and a link each, and the real actors on them."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

from actors.cluster_actor import ClusterActor, ClusterSettings
from actors.node_actor import NodeActor
from runtime.disk.memory import MemoryDisk
from runtime.engine_api.backend import InitRequest, JoinRequest
from runtime.executor.memory import MemoryExecutor
from runtime.protocol.cluster import Control, Info, Init, Inspect, Join
from runtime.stage import Address, Stage
from runtime.stage.simulator import EPOCH, SimulatedClock, Simulator
from runtime.stage.world import World
from runtime.swarm.addresses import Interface
from runtime.wire.memory import MemoryNetwork
from runtime.wire.pb import control_pb2, objects_pb2, specs_pb2
from runtime.wire.pb import types_pb2 as types
from swarmlet.cluster_state import FileClusterState


class Host:
    """One machine: what lasts of it, and the life that it is in."""

    def __init__(self, swarm: Swarm, name: str, ip: str) -> None:
        self.swarm, self.name, self.ip = swarm, name, ip
        self.disk = MemoryDisk()
        self.executor = MemoryExecutor(swarm.schedule)
        self.lives = 0
        self.stage: Stage | None = None

    def boot(self) -> None:
        """Starts the daemon (again)."""
        self.lives += 1
        simulator = self.swarm.simulator
        seed = f"{simulator.seed}/{self.name}/{self.lives}"
        world = World(
            self.name,
            SimulatedClock(simulator),
            random.Random(seed),
            random.Random(f"{seed}/keys").randbytes,
            transport=self.swarm.network.transport(self.ip),
            disk=self.disk,
            executor=self.executor,
            settings={"hostname": self.name, "control_socket": "/run/control.sock"},
        )
        self.stage = simulator.adopt(world, f"{self.name}.{self.lives}")
        card = Interface("eth0", (ipaddress.ip_address(self.ip),))
        settings = ClusterSettings(self.name, interfaces=lambda: [card])
        self.stage.mount("cluster", ClusterActor, settings, FileClusterState(self.disk.files), NodeActor)

    def crash(self, power: int | None = None) -> None:
        """The daemon is gone at once and its tasks run on; with ``power`` (a seed) the machine lost its power."""
        assert self.stage is not None
        self.swarm.simulator.crash(self.stage)
        self.swarm.network.crash(self.ip)
        if power is None:
            self.disk.kill()
        else:
            self.disk.crash(random.Random(power))
            self.executor.power_off()
        self.stage = None

    @property
    def cluster(self) -> Address:
        assert self.stage is not None, f"{self.name} is down"
        return self.stage.at("/cluster")

    def ask(self, message: Any, within: float = 60.0) -> Any:
        """A question to this node's cluster layer."""
        return self.swarm.simulator.ask(self.cluster, message, within)

    def control(self, method: str, **fields: Any) -> Any:
        """A call of the Control service."""
        return self.ask(Control(method, getattr(control_pb2, f"{method}Request")(**fields)))

    def init(self) -> str:
        """Makes this node the first manager."""
        return str(self.ask(self.init_message()))

    def init_message(self) -> Init:
        """What asks for that."""
        listen, spec = f"{self.ip}:2377", specs_pb2.ClusterSpec()
        return Init(InitRequest(listen, self.ip, "", 0, False, spec, False, "active", None, 0))

    def join(self, manager: Host, token: str) -> None:
        """Joins the swarm of another host."""
        remotes = (f"{manager.ip}:2377",)
        self.ask(Join(JoinRequest(f"{self.ip}:2377", self.ip, "", remotes, "active", token)))

    def state(self) -> str:
        """The LocalNodeState."""
        return str(self.ask(Info()).local_node_state)


class Swarm:
    """Hosts on one network."""

    def __init__(self, seed: int, hosts: int = 1) -> None:
        self.simulator = Simulator(seed)
        self.network = MemoryNetwork(
            self.schedule, random.Random(f"{seed}/network"), clock=lambda: EPOCH + self.simulator.time, jitter=0.002
        )
        self.hosts = [Host(self, f"node-{number}", f"10.0.0.{number}") for number in range(1, hosts + 1)]

    def schedule(self, delay: float, call: Any) -> None:
        """A callback of the world outside the actors."""
        self.simulator.set(delay, call)

    def boot(self) -> list[Host]:
        """Starts every host."""
        for host in self.hosts:
            host.boot()
        return self.hosts

    def tasks(self, manager: Host, service_id: str) -> list[objects_pb2.Task]:
        """The service's tasks, as the manager knows them."""
        filters = control_pb2.ListTasksRequest.Filters(service_ids=[service_id])
        return list(manager.control("ListTasks", filters=filters).tasks)

    def running(self, manager: Host, service_id: str) -> list[objects_pb2.Task]:
        """Its tasks that run and are to run."""
        return [
            task
            for task in self.tasks(manager, service_id)
            if task.status.state == types.RUNNING and task.desired_state == types.RUNNING
        ]

    def wait_running(self, manager: Host, service_id: str, count: int, within: float = 120.0) -> list[objects_pb2.Task]:
        """Runs until so many tasks run."""
        limit = self.simulator.time + within
        while True:
            running = self.running(manager, service_id)
            if len(running) == count:
                return running
            if self.simulator.time > limit:
                known = (f"{t.slot} {t.status.state} {t.status.err}" for t in self.tasks(manager, service_id))
                raise AssertionError(f"{len(running)} of {count} tasks run: {'; '.join(known)}")
            self.simulator.run_for(0.25)


def replicated(name: str, replicas: int, *command: str) -> specs_pb2.ServiceSpec:
    """A service of processes."""
    spec = specs_pb2.ServiceSpec()
    spec.annotations.name = name
    spec.replicated.replicas = replicas
    spec.task.container.image = "host"
    spec.task.container.command.extend(command or ("sleep", "1000000"))
    spec.task.restart.condition = types.RestartPolicy.ANY
    spec.task.restart.delay.FromMilliseconds(500)
    return spec


def worker_token(manager: Host) -> str:
    """What a worker joins with."""
    return str(manager.ask(Inspect()).root_ca.join_tokens.worker)
