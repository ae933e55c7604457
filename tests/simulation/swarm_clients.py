"""The clients of a whole swarm's simulation: what they ask of which manager, and what they were told.

A key is a service's label ``v``. A write reads the service of any manager and replaces what it read. Half of the reads
are of the control API, whose answers may be old by an election timeout where a manager does not know yet that it was
deposed; the other half ask the consensus for the index that holds every acknowledged write, wait until the manager's
own store is there, and read that: those may not be old at all.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.raft_actor import RaftActor
from runtime.protocol.cluster import Control
from runtime.protocol.raft import ReadIndex
from runtime.protocol.store import AwaitView
from runtime.stage.answers import Answer, Reply
from runtime.wire.pb import control_pb2, objects_pb2, specs_pb2
from swarmlet.testing.host import Host
from swarmlet.testing.swarm import Swarm, replicated
from tests.simulation.linearizable import Operation
from tests.simulation.swarm_invariants import Watcher

CLIENTS = 3
THINK = 2.0
PATIENCE = 25.0
STALE = 23.0
"""Seconds for which a manager may take somebody for the leader who is not: the longest election timeout, and some. For
as long as a manager is held still, it does not notice either; and one that knows that it has no leader promises nothing
about the age of what it shows."""
CATCH_UP = 10.0
"""Seconds of hearing a leader after which a manager has what it missed: until then it promises nothing either."""
KEYS = 2
RAFT = "/cluster/node/manager/raft"
STORE = "/cluster/node/manager/store"


@dataclass(slots=True)
class Request:
    """One operation on a key: what it read first, what it wrote, when, and whether it was acknowledged. What a read saw
    may be ``old`` by so many seconds."""

    key: int
    client: int
    call: float
    write: bool
    value: str = ""
    expected: str = ""
    end: float = math.inf
    refused: bool = False
    old: float = 0.0


class Clients:
    """What simulations of whole swarms stand on: the swarm, what watches it, and those who use it. ``faulty`` says that
    it is not yet time to come to rest."""

    def __init__(self, seed: int, managers: int, workers: int, rng: random.Random) -> None:
        self.seed = seed
        self.rng = rng
        names = [f"manager-{n}" for n in range(1, managers + 1)] + [f"worker-{n}" for n in range(1, workers + 1)]
        self.swarm = Swarm(seed, names=names)
        self.simulator = self.swarm.simulator
        self.hosts = self.swarm.hosts
        self.first = self.hosts[0]
        self.watcher = Watcher(self.simulator)
        self.requests: list[Request] = []
        self.keys: list[str] = []
        self.faulty = False
        self.held_still = 0.0
        self.scaled: list[str] = []

    def up(self) -> list[Host]:
        """The machines called managers whose daemon runs."""
        return [host for host in self.hosts if host.stage is not None and host.name.startswith("manager")]

    def start_client(self, client: int) -> None:
        """Its next operation comes after a while."""
        self.simulator.set(self.rng.expovariate(1.0 / THINK), lambda: self._operate(client))

    def _operate(self, client: int) -> None:
        if not self.faulty:
            return
        chance = self.rng.random()
        if chance < 0.35:
            self._read_and_write(client)
        elif chance < 0.55:
            self._read(client)
        elif chance < 0.75:
            self._read_strictly(client)
        elif chance < 0.9:
            self._scale(self.rng.choice(self.scaled), self.rng.randint(0, 6))
            self.start_client(client)
        else:
            self._come_and_go()
            self.start_client(client)

    def ask(self, method: str, request: Any, then: Callable[[Answer], None]) -> None:
        """A call to some manager that is up; no answer after some time is one too."""
        up = self.up()
        self.ask_host(self.rng.choice(up) if up else None, Control(method, request), then)

    def ask_host(self, host: Host | None, message: Any, then: Callable[[Answer], None]) -> None:
        """The same of one machine, whose daemon may be down or go down."""
        answered = False

        def once(answer: Answer) -> None:
            nonlocal answered
            if not answered:
                answered = True
                then(answer)

        late = Answer(None, TimeoutError("no answer"))
        self.simulator.set(PATIENCE, lambda: once(late))
        if host is not None and host.stage is not None:
            host.cluster.send(message, None, Reply(once), 0)

    def voters(self) -> int:
        """How many the group has that vote, as the manager knows that has applied most; 0 if none is up."""
        cells = [cell for cell in (host.cell(RAFT) for host in self.up()) if cell is not None]
        known = [cell.instance for cell in cells if isinstance(cell.instance, RaftActor)]
        if not known:
            return 0
        statuses = max(known, key=lambda raft: raft._applied).member_statuses()
        return sum(1 for each in statuses.values() if each.votes)

    # Keys

    def _read(self, client: int) -> None:
        request = Request(self.rng.randrange(KEYS), client, self.simulator.time, write=False)
        up = self.up()
        host = self.rng.choice(up) if up else None

        def read(answer: Answer) -> None:
            if answer.error is None:
                request.old = STALE + self.held_still if host is not None and self.led(host) else math.inf
                self._seen(request, answer.value.service)
            self.start_client(client)

        get = control_pb2.GetServiceRequest(service_id=self.keys[request.key])
        self.ask_host(host, Control("GetService", get), read)

    def led(self, host: Host) -> bool:
        """Whether a manager takes somebody for the leader, and has for long enough to have caught up."""
        cell = host.cell(RAFT)
        node = cell.instance.node if cell is not None and isinstance(cell.instance, RaftActor) else None
        if host.stage is None or node is None or node.raft.lead == 0:
            return False
        since = self.watcher.led_since.get(host.stage.name, self.simulator.time)
        return self.simulator.time - since >= CATCH_UP

    def _seen(self, request: Request, service: objects_pb2.Service) -> None:
        request.end, request.value = self.simulator.time, service.spec.annotations.labels.get("v", "")
        self.requests.append(request)

    def _read_strictly(self, client: int) -> None:
        """By the consensus' read index, of the store of any manager."""
        request = Request(self.rng.randrange(KEYS), client, self.simulator.time, write=False)
        hosts = [host for host in self.up() if host.cell(RAFT) is not None and host.cell(STORE) is not None]
        over = False

        def end() -> None:
            nonlocal over
            if not over:
                over = True
                self.start_client(client)

        self.simulator.set(PATIENCE, end)
        if not hosts:
            return
        host = self.rng.choice(hosts)
        stage = host.stage
        assert stage is not None

        def known(answer: Answer) -> None:
            if over or answer.error is not None or host.stage is not stage:
                end()
                return
            holds = AwaitView(lambda view: view.version >= answer.value)
            stage.at(STORE).send(holds, None, Reply(there), 0)

        def there(answer: Answer) -> None:
            view = self.view(host)
            if not over and answer.error is None and host.stage is stage and view is not None:
                service = view.get(objects_pb2.Service, self.keys[request.key])
                if service is not None and view.version >= answer.value:
                    self._seen(request, service)
            end()

        stage.at(RAFT).send(ReadIndex(), None, Reply(known), 0)

    def view(self, host: Host) -> Any:
        """What a manager's store has published; None where there is no store."""
        cell = host.cell(STORE)
        instance: Any = cell.instance if cell is not None else None
        return instance.published.view if instance is not None else None

    def _read_and_write(self, client: int) -> None:
        request = Request(self.rng.randrange(KEYS), client, self.simulator.time, write=True)

        def read(answer: Answer) -> None:
            if answer.error is not None:
                self.start_client(client)
            else:
                service: objects_pb2.Service = answer.value.service
                self._write(request, service, service.spec.annotations.labels.get("v", ""))

        self.ask("GetService", control_pb2.GetServiceRequest(service_id=self.keys[request.key]), read)

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
            self.start_client(request.client)

        update = control_pb2.UpdateServiceRequest(
            service_id=service.id, service_version=service.meta.version, spec=spec
        )
        self.ask("UpdateService", update, written)

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
            self.ask("UpdateService", update, lambda _done: None)

        self.ask("GetService", control_pb2.GetServiceRequest(service_id=service_id), read)

    def _come_and_go(self) -> None:
        """A service for a while."""
        name = f"guest-{self.rng.getrandbits(20):x}"
        spec = replicated(name, self.rng.randint(1, 3), self.rng.choice(("sleep", "exit")), "3")
        spec.task.restart.delay.FromSeconds(10)

        def made(answer: Answer) -> None:
            if answer.error is None:
                gone = control_pb2.RemoveServiceRequest(service_id=answer.value.service.id)
                self.simulator.set(
                    self.rng.uniform(1.0, 15.0), lambda: self.ask("RemoveService", gone, lambda _done: None)
                )

        self.ask("CreateService", control_pb2.CreateServiceRequest(spec=spec), made)

    # What happened

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
                history.append(Operation(each.call - each.old, each.end, False, each.value, each.client))
        return history
