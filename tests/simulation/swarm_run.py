"""The whole system under virtual time: managers, workers, clients of the control API, faults; one run for each seed.

Everything is the real thing but for network, disks, executors and clocks. While faults strike (``swarm_plan``), every
delivery is checked (``swarm_invariants``). Then the faults end, what is down is started again, and there must be a
leader, equal stores, an outcome for every request, exactly the tasks that are wanted, and a linearizable history for
every key. A key is a service's label ``v``: a write reads the service and replaces what it read; reads of a manager
that does not know yet that it was deposed may be old by an election timeout, and no older.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.failpoints import armed
from runtime.protocol.cluster import Control, Inspect, Update
from runtime.stage.answers import Answer, Reply
from runtime.stage.cell import Cell, Life
from runtime.store.snapshot import dump
from runtime.wire.pb import control_pb2, objects_pb2, specs_pb2
from runtime.wire.pb import types_pb2 as types
from swarmlet.testing.host import Host
from swarmlet.testing.swarm import Swarm, replicated
from tests.simulation.linearizable import Operation, linearizable
from tests.simulation.plan import Planned, draw, without
from tests.simulation.raft_invariants import Violation
from tests.simulation.swarm_invariants import Watcher
from tests.simulation.swarm_plan import KINDS

SECONDS = 60.0
SETTLE = 240.0
LEADER_WITHIN = 100.0
CLIENTS = 3
THINK = 2.0
PATIENCE = 25.0
STALE = 21.0
"""Seconds for which a deposed leader may not know that it is: an election timeout, and some."""
KEYS = 2
SELDOM = ("join", "demote", "install", "ca", "node", "conf")
"""Crash points that a run comes to a few times at most."""
RESERVED = 400_000_000


@dataclass(slots=True)
class Request:
    """One operation on a key: what it read first, what it wrote, when, and whether it was acknowledged."""

    key: int
    client: int
    call: float
    write: bool
    value: str = ""
    expected: str = ""
    end: float = math.inf
    refused: bool = False


class SwarmSimulation:
    """One run; ``skip`` are numbers of faults to leave out. ``point`` is a crash point at which the node that comes to
    it ends, by ``mode``, ``deaths`` times in all; ``points`` counts how often each was come to."""

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
        self.seconds = seconds
        self.points: Counter[str] = Counter()
        self.died = 0
        self._point, self._mode, self._deaths = point, mode, deaths
        self.seed = seed
        self.rng = random.Random(f"{seed}/run")
        self.faults = draw(random.Random(f"{seed}/faults"), KINDS, SECONDS) if faults is None else list(faults)
        self.faults = without(self.faults, skip)
        self.injected: Counter[str] = Counter()
        managers, workers = self.rng.choice((3, 3, 5)), self.rng.choice((1, 2, 3))
        names = [f"manager-{n}" for n in range(1, managers + 1)] + [f"worker-{n}" for n in range(1, workers + 1)]
        self.swarm = Swarm(seed, names=names)
        self.simulator = self.swarm.simulator
        self.hosts = self.swarm.hosts
        self.first = self.hosts[0]
        self.watcher = Watcher(self.simulator)
        self.requests: list[Request] = []
        self.keys: list[str] = []
        self.histories = 0
        self.faulty = False
        self._points: list[tuple[str, str, float]] = []

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
        return self.watcher.checked + Counter({"operations": done, "histories": self.histories})

    # The run

    def run(self) -> SwarmSimulation:
        """Everything; raises Violation with what does not hold."""
        self.simulator.observers.append(self.watcher.observe)
        with armed(crash=self._at_point):
            self._found()
            self.faulty = True
            began = self.simulator.time
            for fault in self.faults:
                self.simulator.set(fault.at, lambda fault=fault: self._inject(fault))  # type: ignore[misc]
            for client in range(CLIENTS):
                self._next(client)
            self.simulator.run_until_time(began + self.seconds)
            self.faulty = False
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
        self.web = self.first.control("CreateService", spec=web).service.id
        picky = replicated("picky", 2)
        picky.task.placement.constraints.append("node.hostname!=manager-1")
        self.picky = self.first.control("CreateService", spec=picky).service.id
        everywhere = replicated("everywhere", 1)
        getattr(everywhere, "global").SetInParent()
        self.everywhere = self.first.control("CreateService", spec=everywhere).service.id

    # Clients

    def _next(self, client: int) -> None:
        self.simulator.set(self.rng.expovariate(1.0 / THINK), lambda: self._operate(client))

    def _operate(self, client: int) -> None:
        if not self.faulty:
            return
        chance = self.rng.random()
        if chance < 0.75:
            self._use_key(client, write=chance < 0.45)
        elif chance < 0.9:
            self._scale(self.rng.choice((self.web, self.picky)), self.rng.randint(0, 6))
            self._next(client)
        else:
            self._come_and_go()
            self._next(client)

    def _ask(self, method: str, request: Any, then: Callable[[Answer], None]) -> None:
        """A call to some manager that is up; no answer after some time is one too."""
        up = [host for host in self.hosts if host.stage is not None and host.name.startswith("manager")]
        answered = False

        def once(answer: Answer) -> None:
            nonlocal answered
            if not answered:
                answered = True
                then(answer)

        late = Answer(None, TimeoutError("no answer"))
        self.simulator.set(PATIENCE, lambda: once(late))
        if up:
            host = self.rng.choice(up)
            host.cluster.send(Control(method, request), None, Reply(once), 0)

    def _use_key(self, client: int, write: bool) -> None:
        key = self.rng.randrange(KEYS)
        request = Request(key, client, self.simulator.time, write)

        def read(answer: Answer) -> None:
            if answer.error is not None:
                self._next(client)
                return
            service: objects_pb2.Service = answer.value.service
            seen = service.spec.annotations.labels.get("v", "")
            if write:
                self._write(request, service, seen)
            else:
                request.end, request.value = self.simulator.time, seen
                self.requests.append(request)
                self._next(client)

        self._ask("GetService", control_pb2.GetServiceRequest(service_id=self.keys[key]), read)

    def _write(self, request: Request, service: objects_pb2.Service, seen: str) -> None:
        request.call, request.expected = self.simulator.time, seen
        request.value = f"{len(self.requests)}"
        self.requests.append(request)
        spec = specs_pb2.ServiceSpec()
        spec.CopyFrom(service.spec)
        spec.annotations.labels["v"] = request.value

        def written(answer: Answer) -> None:
            if answer.error is None:
                request.end = self.simulator.time
            elif "update out of sequence" in str(answer.error):
                request.refused = True
            self._next(request.client)

        update = control_pb2.UpdateServiceRequest(
            service_id=service.id, service_version=service.meta.version, spec=spec
        )
        self._ask("UpdateService", update, written)

    def _scale(self, service_id: str, replicas: int) -> None:
        def read(answer: Answer) -> None:
            if answer.error is not None:
                return
            spec = specs_pb2.ServiceSpec()
            spec.CopyFrom(answer.value.service.spec)
            spec.replicated.replicas = replicas
            update = control_pb2.UpdateServiceRequest(
                service_id=service_id, service_version=answer.value.service.meta.version, spec=spec
            )
            self._ask("UpdateService", update, lambda _done: None)

        self._ask("GetService", control_pb2.GetServiceRequest(service_id=service_id), read)

    def _come_and_go(self) -> None:
        """A service for a while."""
        name = f"guest-{self.rng.getrandbits(20):x}"
        spec = replicated(name, self.rng.randint(1, 3), self.rng.choice(("sleep", "exit")), "3")
        spec.task.restart.delay.FromSeconds(10)

        def made(answer: Answer) -> None:
            if answer.error is None:
                gone = control_pb2.RemoveServiceRequest(service_id=answer.value.service.id)
                self.simulator.set(
                    self.rng.uniform(1.0, 15.0), lambda: self._ask("RemoveService", gone, lambda _done: None)
                )

        self._ask("CreateService", control_pb2.CreateServiceRequest(spec=spec), made)

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
        self.activate()

    def activate(self) -> None:
        """Nothing stays drained."""

        def listed(answer: Answer) -> None:
            if answer.error is not None:
                self.simulator.set(2.0, self.activate)
                return
            for node in answer.value.nodes:
                if node.spec.availability != specs_pb2.NodeSpec.ACTIVE:
                    self._update_node(node, lambda spec: setattr(spec, "availability", specs_pb2.NodeSpec.ACTIVE))
                    self.simulator.set(2.0, self.activate)

        self._ask("ListNodes", control_pb2.ListNodesRequest(), listed)

    def _revive(self) -> None:
        """A daemon whose manager stays down after its disk failed is started again, as an operator would."""
        for host in self.hosts:
            if any(cell.life is Life.DOWN for cell in self._cells(host)):
                host.crash()
                host.boot()

    def _cells(self, host: Host) -> list[Cell]:
        return list(host.stage.cells.values()) if host.stage is not None else []

    def _managers(self) -> list[Host]:
        return [host for host in self.hosts if host.cell("/cluster/node/manager/store") is not None]

    def _view(self, host: Host) -> Any:
        cell = host.cell("/cluster/node/manager/store")
        instance: Any = cell.instance if cell is not None else None
        return instance.published.view if instance is not None else None

    def _at_rest(self) -> bool:
        return not self._unrest()

    def _unrest(self) -> str:
        """What is not yet as it is to be; empty at rest."""
        leaders = [host for host in self.hosts if host.leads()]
        if len(leaders) != 1:
            return f"{len(leaders)} lead"
        views = {host.name: self._view(host) for host in self._managers()}
        if any(view is None or view.version != self.watcher.model.index for view in views.values()):
            versions = {name: view.version if view is not None else None for name, view in views.items()}
            return f"versions {versions}, applied {self.watcher.model.index}"
        for host in self.hosts:
            dead = [cell.path for cell in self._cells(host) if cell.life not in (Life.RUNNING,)]
            if dead:
                return f"{host.name}: {dead} do not run"
        tables = self.watcher.model.tables
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
                running[names[task.node_id]].add(task.id)
            elif task.service_id and task.service_id not in tables["service"]:
                return f"task {task.id} of a removed service is there"
        for service in tables["service"].values():
            if service.spec.annotations.name.startswith("guest-"):
                continue
            asked = len(names) if service.spec.HasField("global") else service.spec.replicated.replicas
            if wanted[service.id] != asked:
                return f"{wanted[service.id]} of {asked} tasks of {service.spec.annotations.name} run"
        for host in self.hosts:
            extra = set(host.executor.running) ^ running[host.name]
            ours = {id for id in extra if id not in tables["task"] or not self._guest(tables, id)}
            if ours:
                return f"{host.name} runs others than it is to: {sorted(ours)}"
        return ""

    def _guest(self, tables: Any, task_id: str) -> bool:
        service = tables["service"].get(tables["task"][task_id].service_id)
        return service is not None and service.spec.annotations.name.startswith("guest-")

    def _judge(self) -> None:
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
            snapshot = dump(self._view(host))
            for descriptor, objects in snapshot.ListFields():
                for each in objects:
                    field = descriptor.name.removesuffix("s")
                    field = {"secret": "secret"}.get(field, field)
                    found[field] += 1
                    if tables[field].get(each.id) != each:
                        raise Violation(f"{host.name}: {field} {each.id} differs from the log's")
            counts = Counter({field: len(table) for field, table in tables.items() if table})
            if found != counts:
                raise Violation(f"{host.name} holds {found}, the log {counts}")

    def history(self, key: int) -> list[Operation]:
        """What happened to a key; the log decides about writes without an outcome."""
        history = []
        for each in self.requests:
            if each.key != key or each.refused:
                continue
            if each.write:
                applied = self.watcher.model.labels.get((self.keys[key], each.value))
                if applied is not None:
                    end = each.end if each.end != math.inf else max(applied, each.call)
                    history.append(Operation(each.call, end, True, each.value, each.client, each.expected))
            else:
                history.append(Operation(each.call - STALE, each.end, False, each.value, each.client))
        return history

    # Faults

    def _inject(self, fault: Planned) -> None:
        if not self.faulty:
            return
        done = getattr(self, "_" + fault.kind.replace(" ", "_").replace("-", "_"))(fault)
        if done is not False:
            self.injected[fault.kind] += 1

    def _host(self, fault: Planned, name: str = "host", prefix: str = "") -> Host | None:
        hosts = [host for host in self.hosts if host.stage is not None and host.name.startswith(prefix)]
        return hosts[fault.args[name] % len(hosts)] if hosts else None

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self.simulator.set(seconds, lambda: call() if self.faulty else None)

    def _each_link(self, change: Callable[[Any], None]) -> None:
        for number, one in enumerate(self.hosts):
            for other in self.hosts[number + 1 :]:
                change(self.swarm.network.link(one.ip, other.ip))

    def _loss(self, fault: Planned) -> None:
        self._each_link(lambda link: setattr(link, "drop", fault.args["rate"]))
        self._later(fault.seconds, lambda: self._each_link(lambda link: setattr(link, "drop", 0.0)))

    def _duplication(self, fault: Planned) -> None:
        self._each_link(lambda link: setattr(link, "duplicate", fault.args["rate"]))
        self._later(fault.seconds, lambda: self._each_link(lambda link: setattr(link, "duplicate", 0.0)))

    def _latency(self, fault: Planned) -> None:
        self._each_link(lambda link: setattr(link, "jitter", fault.args["rate"]))
        self._later(fault.seconds, lambda: self._each_link(lambda link: setattr(link, "jitter", 0.002)))

    def _cut(self, pairs: list[tuple[str, str]], seconds: float) -> None:
        network = self.swarm.network
        for source, target in pairs:
            network.half_open(source, target)

        def mend() -> None:
            for source, target in pairs:
                network.heal(source, target)

        self._later(seconds, mend)

    def _partition(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None:
            return False
        others = [other.ip for other in self.hosts if other is not host]
        self._cut([pair for ip in others for pair in ((host.ip, ip), (ip, host.ip))], fault.seconds)
        return None

    def _one_way_partition(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None:
            return False
        self._cut([(host.ip, other.ip) for other in self.hosts if other is not host], fault.seconds)
        return None

    def _partial_partition(self, fault: Planned) -> bool | None:
        one, other = self._host(fault), self._host(fault, "other")
        if one is None or other is None or one is other:
            return False
        self._cut([(one.ip, other.ip), (other.ip, one.ip)], fault.seconds)
        return None

    def _leader_cut_off(self, fault: Planned) -> bool | None:
        leaders = [host for host in self.hosts if host.leads()]
        if not leaders:
            return False
        others = [other.ip for other in self.hosts if other is not leaders[0]]
        self._cut([pair for ip in others for pair in ((leaders[0].ip, ip), (ip, leaders[0].ip))], fault.seconds)
        return None

    def _reset(self, fault: Planned) -> bool | None:
        one, other = self._host(fault), self._host(fault, "other")
        if one is None or other is None or one is other:
            return False
        self.swarm.network.reset(one.ip, other.ip)
        return None

    def _down(self, host: Host, mode: str, seconds: float) -> None:
        power = None if mode == "kill" else self.rng.getrandbits(32)
        host.crash(power, lose_all=mode == "lost")
        lives = host.lives
        self.simulator.set(seconds, lambda: host.boot() if host.stage is None and host.lives == lives else None)

    def _crash(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None:
            return False
        self._down(host, fault.args["mode"], fault.seconds)
        return None

    def _crash_of_all(self, fault: Planned) -> None:
        for host in self.hosts:
            if host.stage is not None:
                self._down(host, fault.args["mode"], fault.seconds * self.rng.random())

    def _crash_at_a_point(self, fault: Planned) -> bool | None:
        """The next point that this host comes to ends it."""
        host = self._host(fault)
        if host is None:
            return False
        self._points.append((host.name, fault.args["mode"], fault.seconds))
        return None

    def _at_point(self, name: str) -> None:
        cell = self.simulator.current
        if cell is None or not self.faulty:
            return
        self.points[name] += 1
        seldom = name.partition(".")[0] in SELDOM
        if name == self._point and self.died < self._deaths and (seldom or self.rng.random() < 0.1):
            host = self.swarm.host(cell.stage.world.name)
            if host.stage is cell.stage:
                self.died += 1
                self._down(host, self._mode, 2.0)
                raise NodeDied(name)
        for point in self._points:
            if point[0] == cell.stage.world.name and self.rng.random() < 0.3:
                self._points.remove(point)
                host = self.swarm.host(point[0])
                if host.stage is cell.stage:
                    self._down(host, point[1], point[2])
                    raise NodeDied(name)

    def _actor(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None or host.stage is None:
            return False
        cells = sorted(host.stage.cells)
        cell = host.stage.cells[cells[fault.args["actor"] % len(cells)]]
        cell.control(lambda: cell.failed(RuntimeError("injected"), None))
        return None

    def _pause(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None or host.stage is None:
            return False
        self.simulator.pause(host.stage, fault.seconds)
        return None

    def _starvation(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None or host.stage is None:
            return False
        cells = sorted(host.stage.cells)
        cell = host.stage.cells[cells[fault.args["actor"] % len(cells)]]
        self._slow(cell, fault.args["delay"], fault.seconds)
        return None

    def _slow(self, cell: Cell, delay: float, seconds: float) -> None:
        self.simulator.slow(cell, lambda: delay * self.rng.random())
        self.simulator.set(seconds, lambda: self.simulator.slow(cell, None))

    def _slow_disk(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None:
            return False
        for path in ("/cluster/node/manager/raft/log", "/cluster/node/agent"):
            cell = host.cell(path)
            if cell is not None:
                self._slow(cell, fault.args["delay"], fault.seconds)
        return None

    def _skew(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None:
            return False
        host.clock.skew += fault.args["step"]
        return None

    def _drift(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None:
            return False
        host.clock.drift(fault.args["rate"])
        return None

    def _disk_full(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None:
            return False
        self.swarm.disk_full(host.name)

        def free() -> None:
            host.disk.files.fail_after = None
            for _name, image in host.disk.images:
                image.heal()

        self.simulator.set(fault.seconds, free)
        return None

    def _sync_error(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None:
            return False
        for _name, image in host.disk.images:
            image.sync_error_at(self.rng.randrange(3))
        return None

    def _task_killed(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None or not host.executor.running:
            return False
        host.executor.kill(host.executor.running[fault.args["actor"] % len(host.executor.running)])
        return None

    # Changes by an operator

    def _update_node(self, node: objects_pb2.Node, change: Callable[[Any], None]) -> None:
        spec = specs_pb2.NodeSpec()
        spec.CopyFrom(node.spec)
        change(spec)
        request = control_pb2.UpdateNodeRequest(node_id=node.id, node_version=node.meta.version, spec=spec)
        self._ask("UpdateNode", request, lambda _done: None)

    def _with_node(self, name: str, then: Callable[[objects_pb2.Node], None]) -> None:
        def listed(answer: Answer) -> None:
            if answer.error is None:
                for node in answer.value.nodes:
                    if node.description.hostname == name:
                        then(node)

        self._ask("ListNodes", control_pb2.ListNodesRequest(), listed)

    def _drain(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None:
            return False

        def available(how: int) -> None:
            self._with_node(host.name, lambda node: self._update_node(node, lambda s: setattr(s, "availability", how)))

        available(specs_pb2.NodeSpec.DRAIN)
        self.simulator.set(fault.seconds, lambda: available(specs_pb2.NodeSpec.ACTIVE))
        return None

    def _role_change(self, fault: Planned) -> bool | None:
        """A manager is demoted, or a worker promoted, and back."""
        host = self._host(fault)
        if host is None or host is self.first:
            return False

        def turn() -> None:
            def flip(spec: Any) -> None:
                spec.desired_role = types.WORKER if spec.desired_role == types.MANAGER else types.MANAGER

            self._with_node(host.name, lambda node: self._update_node(node, flip))

        turn()
        self._later(fault.seconds, turn)
        return None

    def _token_rotation(self, fault: Planned) -> None:
        rotation = control_pb2.KeyRotation(worker_join_token=True, manager_join_token=self.rng.random() < 0.5)

        def listed(answer: Answer) -> None:
            if answer.error is None and answer.value.clusters:
                cluster = answer.value.clusters[0]
                up = [host for host in self.hosts if host.stage is not None and host.name.startswith("manager")]
                message = Update(cluster.meta.version.index, cluster.spec, rotation)
                if up:
                    self.rng.choice(up).cluster.send(message, None, Reply(lambda _answer: None), 0)

        self._ask("ListClusters", control_pb2.ListClustersRequest(), listed)

    def _update_cluster(self, change: Callable[[Any], None], tries: int = 5) -> None:
        """Tried again when whoever was asked is no manager, or another change came between."""

        def again(answer: Answer) -> None:
            if answer.error is not None and tries > 1:
                self._later(2.0, lambda: self._update_cluster(change, tries - 1))

        def listed(answer: Answer) -> None:
            again(answer)
            if answer.error is None and answer.value.clusters:
                cluster = answer.value.clusters[0]
                spec = specs_pb2.ClusterSpec()
                spec.CopyFrom(cluster.spec)
                change(spec)
                request = control_pb2.UpdateClusterRequest(
                    cluster_id=cluster.id, cluster_version=cluster.meta.version, spec=spec
                )
                self._ask("UpdateCluster", request, again)

        self._ask("ListClusters", control_pb2.ListClustersRequest(), listed)

    def _frequent_snapshots(self, fault: Planned) -> None:
        def often(spec: Any) -> None:
            spec.raft.snapshot_interval, spec.raft.log_entries_for_slow_followers = 8, 3

        self._update_cluster(often)

    def _root_rotation(self, fault: Planned) -> None:
        def force(spec: Any) -> None:
            spec.ca_config.force_rotate += 1

        self._update_cluster(force)


class NodeDied(BaseException):
    """The machine is gone in the middle of a handler: nothing behind it runs."""
