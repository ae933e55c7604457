"""The whole system under virtual time: managers, workers, clients of the control API, faults; one run for each seed.

Everything is the real thing but for network, disks, executors and clocks. While faults strike (``swarm_plan``), every
delivery is checked (``swarm_invariants``). Then the faults end, what is down is started again, and there must be a
leader, equal stores, an outcome for every request, exactly the tasks that are wanted, watchers that were told
everything, and a linearizable history for every key (``swarm_clients``).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from runtime.failpoints import armed
from runtime.protocol.cluster import Inspect
from runtime.stage.cell import Cell, Life
from runtime.store.kinds import TABLES
from runtime.store.snapshot import dump
from runtime.swarm.service_spec import is_job
from runtime.wire.pb import specs_pb2
from runtime.wire.pb import types_pb2 as types
from swarmlet.testing.host import Host
from swarmlet.testing.swarm import replicated
from tests.simulation.linearizable import linearizable
from tests.simulation.plan import Planned, draw, without
from tests.simulation.raft_invariants import Violation
from tests.simulation.swarm_clients import CLIENTS, KEYS
from tests.simulation.swarm_faults import Faults
from tests.simulation.swarm_plan import KINDS, rare_paths, uses

SECONDS = 60.0
SETTLE = 240.0
LEADER_WITHIN = 100.0
RESERVED = 400_000_000


class SwarmSimulation(Faults):
    """One run; ``skip`` are numbers of faults to leave out. ``point``, ``mode``, ``deaths``: see Faults."""

    def __init__(
        self,
        seed: int,
        faults: Sequence[Planned] | None = None,
        skip: frozenset[int] = frozenset(),
        *,
        point: str = "",
        mode: str = "kill",
        deaths: int = 2,
        seconds: float = SECONDS,
    ) -> None:
        rng = random.Random(f"{seed}/run")
        super().__init__(seed, rng.choice((3, 3, 5)), rng.choice((1, 2, 3)), rng, point, mode, deaths)
        if faults is None:
            faults = draw(random.Random(f"{seed}/faults"), KINDS, SECONDS) + rare_paths(seed) + uses(seed, SECONDS / 2)
        self.faults = without(faults, skip)
        self.seconds = seconds
        self.histories = 0

    @property
    def last(self) -> Iterable[str]:
        """The last deliveries."""
        return self.simulator.last

    @property
    def deliveries(self) -> int:
        """How many turns actors had."""
        return self.simulator.steps

    @property
    def checked(self) -> Counter[str]:
        """What was checked of this run."""
        done = sum(1 for request in self.requests if request.end != math.inf)
        seen = self.watcher.checked + self.watcher.model.rules.seen
        return seen + Counter({"operations": done, "histories": self.histories})

    # The run

    def run(self) -> SwarmSimulation:
        """Everything; raises Violation with what does not hold."""
        self.simulator.observers.append(self.watcher.observe)
        with armed(crash=self.at_point, choose=self.take_rare):
            self._found()
            self.faulty = True
            began = self.simulator.time
            for fault in self.faults:
                self.simulator.set(fault.at, lambda fault=fault: self.inject(fault))  # type: ignore[misc]
            for client in range(CLIENTS):
                self.start_client(client)
            self.simulator.run_until_time(began + self.seconds)
            self.faulty = False
            self.look_what_struck()
            self._points.clear()
            self._settle()
            self._judge()
        return self

    def _found(self) -> None:
        self.swarm.boot()
        self.first.init()
        tokens = self.first.ask(Inspect()).root_ca.join_tokens
        for host in self.hosts[1:]:
            host.join(self.first, tokens.manager if host.name.startswith("manager") else tokens.worker)
        for key in range(KEYS):
            spec = replicated(f"key-{key}", 0)
            self.keys.append(self.first.control("CreateService", spec=spec).service.id)
        web = replicated("web", 4)
        web.task.resources.reservations.nano_cpus = RESERVED
        web_id = self.first.control("CreateService", spec=web).service.id
        picky = replicated("picky", 2)
        picky.task.placement.constraints.append("node.hostname!=manager-1")
        self.scaled = [web_id, self.first.control("CreateService", spec=picky).service.id]
        everywhere = replicated("everywhere", 1)
        getattr(everywhere, "global").SetInParent()
        self.first.control("CreateService", spec=everywhere)

    # The end

    def _settle(self) -> None:
        """No faults any more: what is down comes up, and all must come to rest."""
        self._mend()
        simulator = self.simulator
        began = simulator.time
        self._wait(lambda: any(host.leads() for host in self.hosts), LEADER_WITHIN, "no leader")
        while not self._at_rest():
            if simulator.time - began > SETTLE:
                raise Violation(f"liveness: no rest within {SETTLE:g} s without faults: {self._unrest()}")
            simulator.run_for(2.0)
            self._revive()

    def _wait(self, condition: Callable[[], bool], within: float, what: str) -> None:
        limit = self.simulator.time + within
        while not condition():
            if self.simulator.time > limit:
                raise Violation(f"liveness: {what} within {within:g} s without faults")
            self.simulator.run_for(1.0)
            self._revive()

    def _mend(self) -> None:
        self.swarm.heal()
        for link in list(self.swarm.network._links.values()):
            link.drop = link.duplicate = 0.0
            link.latency, link.jitter = 0.001, 0.002
        for host in self.hosts:
            host.clock.skew = 0.0
            host.clock.drift(1.0)
            if host.stage is None:
                host.boot()
        self.simulator._slowed.clear()

    def _revive(self) -> None:
        """A daemon whose manager stays down after its disk failed is started again, as an operator would; drained nodes
        are put to use."""
        nodes = self.watcher.model.tables["node"].values()
        if any(node.spec.availability != specs_pb2.NodeSpec.ACTIVE for node in nodes):
            self.activate()
        self.repair()
        for host in self.hosts:
            down = any(cell.life is Life.DOWN for cell in self._cells(host))
            if down and host.name not in self.damaged:
                host.crash()
                host.boot()

    def _cells(self, host: Host) -> list[Cell]:
        return list(host.stage.cells.values()) if host.stage is not None else []

    def _managers(self) -> list[Host]:
        return [host for host in self.hosts if host.cell("/cluster/node/manager/store") is not None]

    def _at_rest(self) -> bool:
        return not self._unrest()

    def _unrest(self) -> str:
        """What is not yet as it is to be; empty at rest."""
        if self.damaged:
            return f"{sorted(self.damaged)} are not set up anew"
        leaders = [host for host in self.hosts if host.leads()]
        if len(leaders) != 1:
            return f"{len(leaders)} lead"
        views = {host.name: self.view(host) for host in self._managers()}
        if any(view is None or view.version != self.watcher.model.index for view in views.values()):
            versions = {name: view.version if view is not None else None for name, view in views.items()}
            return f"versions {versions}, applied {self.watcher.model.index}"
        for host in self.hosts:
            dead = [cell.path for cell in self._cells(host) if cell.life not in (Life.RUNNING,)]
            if dead:
                return f"{host.name}: {dead} do not run"
            behind = [cell.path for cell in self._cells(host) if cell.mailbox.user]
            if behind:
                return f"{host.name}: {behind} have messages before them"
        tables = self.watcher.model.tables
        if any(cluster.root_ca.HasField("root_rotation") for cluster in tables["cluster"].values()):
            return "the root CA is still being rotated"
        nodes = [node for node in tables["node"].values() if node.status.state != types.NodeStatus.READY]
        if nodes:
            return f"nodes {[(n.description.hostname, n.status.state, n.status.message) for n in nodes]} are not ready"
        return self._tasks_unrest(tables)

    def _tasks_unrest(self, tables: Any) -> str:
        running: dict[str, set[str]] = {host.name: set() for host in self.hosts}
        wanted: Counter[str] = Counter()
        names = {node.id: node.description.hostname for node in tables["node"].values()}
        for task in tables["task"].values():
            if task.status.state == types.RUNNING and task.desired_state == types.RUNNING:
                wanted[task.service_id] += 1
                running.setdefault(names.get(task.node_id, "a node that is gone"), set()).add(task.id)
            elif task.service_id and task.service_id not in tables["service"]:
                return f"task {task.id} of a removed service is there"
        for service in tables["service"].values():
            if service.spec.annotations.name.startswith("guest-") or is_job(service.spec):
                continue
            asked = len(names) if service.spec.HasField("global") else service.spec.replicated.replicas
            if wanted[service.id] != asked:
                return f"{wanted[service.id]} of {asked} tasks of {service.spec.annotations.name} run"
        for host in self.hosts:
            extra = set(host.executor.running) ^ running[host.name]
            ours = {id for id in extra if id not in tables["task"] or not self._guest(tables, id)}
            if ours:
                return f"{host.name} runs others than it is to: {sorted(ours)}"
        return self.unmet(tables)

    def _guest(self, tables: Any, task_id: str) -> bool:
        service = tables["service"].get(tables["task"][task_id].service_id)
        return service is not None and service.spec.annotations.name.startswith("guest-")

    def _judge(self) -> None:
        self.simulator.settle()
        self.watcher.judge(self.simulator.stages)
        self._compare_stores()
        labels = self.watcher.model.labels
        for request in self.requests:
            took = (self.keys[request.key], request.value) in labels
            if request.write and request.end != math.inf and not took:
                raise Violation(f"durability: write {request.value} was acknowledged and is not in the log")
            if request.refused and took:
                raise Violation(f"write {request.value} was refused and is in the log")
        for key in range(KEYS):
            if not linearizable(self.history(key), ""):
                raise Violation(f"the history of key {key} is not linearizable")
            self.histories += 1

    def _compare_stores(self) -> None:
        tables = self.watcher.model.tables
        for host in self._managers():
            found: Counter[str] = Counter()
            for kind, objects in dump(self.view(host)).items():
                for each in objects:
                    field = TABLES[kind].field
                    found[field] += 1
                    if tables[field].get(each.id) != each:
                        raise Violation(f"{host.name}: {field} {each.id} differs from the log's")
            counts = Counter({field: len(table) for field, table in tables.items() if table})
            if found != counts:
                raise Violation(f"{host.name} holds {found}, the log {counts}")
