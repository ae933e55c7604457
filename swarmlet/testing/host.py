"""One machine of a simulation: what lasts of it (disk, tasks, clock), and the life of the daemon that it is in."""

from __future__ import annotations

import ipaddress
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.cluster_actor import ClusterActor, ClusterSettings
from actors.manager_actor import ManagerActor
from actors.node_actor import NodeActor
from runtime.disk.memory import MemoryDisk
from runtime.engine_api.backend import SystemInfo
from runtime.engine_api.cluster_backend import ClusterBackend
from runtime.executor.memory import MemoryExecutor
from runtime.executor.mixed import MixedExecutor
from runtime.protocol.cluster import Control, Info, Init, InitRequest, Join, JoinRequest
from runtime.stage import Address, Stage
from runtime.stage.cell import Cell
from runtime.stage.simulator import SimulatedClock
from runtime.stage.world import World
from runtime.swarm.addresses import Interface
from runtime.wire.pb import control_pb2, specs_pb2
from swarmlet.cluster_state import FileClusterState
from swarmlet.host import system_info
from swarmlet.testing.api import Api, InProcess

if TYPE_CHECKING:
    from swarmlet.executors import ActorExecutor
    from swarmlet.testing.swarm import Swarm

CONTROL_SOCKET = "/run/control.sock"


class Host:
    """One machine. ``lives`` counts the daemon's starts; ``stage`` is None while it is down. ``executor`` runs its
    processes, which outlive the daemon; ``actors`` (if any) are part of it, and end with it."""

    def __init__(self, swarm: Swarm, name: str, ip: str, actors: ActorExecutor | None = None) -> None:
        self.swarm, self.name, self.ip = swarm, name, ip
        self.clock = SimulatedClock(swarm.simulator)
        self.disk = MemoryDisk()
        self.executor = MemoryExecutor(swarm.schedule, now=self.clock.now)
        self.actors = MixedExecutor(actors.executor(), self.executor) if actors is not None else None
        self.lives = 0
        self.stage: Stage | None = None
        self._api: Api | None = None

    # Life

    def boot(self) -> None:
        """Starts the daemon (again)."""
        self.lives += 1
        simulator = self.swarm.simulator
        seed = f"{simulator.seed}/{self.name}/{self.lives}"
        world = World(
            self.name,
            self.clock,
            random.Random(seed),
            random.Random(f"{seed}/keys").randbytes,
            transport=self.swarm.network.transport(self.ip, self.clock.now),
            disk=self.disk,
            executor=self.actors or self.executor,
            settings={"hostname": self.name, "control_socket": CONTROL_SOCKET},
        )
        self.stage = simulator.adopt(world, f"{self.name}.{self.lives}")
        self.stage.crash_listeners.append(lambda report: self.swarm.crashed(self, report))
        self.stage.moment_listeners.append(lambda moment: self.swarm.happened(self, moment))
        if self.actors is not None:
            self.actors.enter(self.stage)
        card = Interface("eth0", (ipaddress.ip_address(self.ip),))
        settings = ClusterSettings(self.name, interfaces=lambda: [card])
        self.stage.mount("cluster", ClusterActor, settings, FileClusterState(self.disk.files), NodeActor)

    def crash(self, power: int | None = None, lose_all: bool = False) -> None:
        """The daemon is gone at once and its tasks run on. With ``power`` (a seed) the machine lost its power: of what
        was not synced a random part is lost, or all of it."""
        assert self.stage is not None
        stage, self.stage, self._api = self.stage, None, None
        self.swarm.simulator.crash(stage)
        self.swarm.network.crash(self.ip)
        if power is None:
            self.disk.kill()
        else:
            self.disk.crash(random.Random(power), lose_all)
            self.executor.power_off()

    def shut_down(self, within: float = 30.0) -> None:
        """Ends the daemon cleanly; its tasks run on."""
        assert self.stage is not None
        stage = self.stage
        for cell in [cell for cell in stage.cells.values() if cell.parent is None]:
            cell.request_stop()
        self.swarm.simulator.run_until(lambda: not stage.cells, within)
        self.crash()

    # Looking in

    @property
    def cluster(self) -> Address:
        """The address of the cluster actor."""
        assert self.stage is not None, f"{self.name} is down"
        return self.stage.at("/cluster")

    def cell(self, path: str) -> Cell | None:
        """Who lives at a path now."""
        return self.stage.cells.get(path) if self.stage is not None else None

    def leads(self) -> int:
        """The term in which this node believes to lead; 0 if it does not."""
        cell = self.cell("/cluster/node/manager")
        manager = cell.instance if cell is not None else None
        if not isinstance(manager, ManagerActor) or manager.status is None or not manager.status.leading:
            return 0
        return manager.status.term

    @property
    def api(self) -> Api:
        """The Engine API of this life of the daemon."""
        if self._api is None:
            assert self.stage is not None, f"{self.name} is down"
            transport = self.stage.world.transport
            assert transport is not None
            backend = ClusterBackend(self.cluster, transport, CONTROL_SOCKET, self._system)
            self._api = Api(InProcess(self.swarm.loop, backend))
        return self._api

    def _system(self) -> SystemInfo:
        return system_info(self.name, Path("/var/lib/swarmlet"), "memory")

    # Asking

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
        self.ask(self.join_message(manager, token))

    def join_message(self, manager: Host, token: str) -> Join:
        """What asks for that."""
        return Join(JoinRequest(f"{self.ip}:2377", self.ip, "", (f"{manager.ip}:2377",), "active", token))

    def state(self) -> str:
        """The LocalNodeState."""
        return str(self.ask(Info()).local_node_state)
