"""TestCluster: a whole swarm for a test, in memory under virtual time or over real sockets and processes.

    with TestCluster(managers=3, workers=5, seed=7) as c:
        svc = c.create_service(replicas=10)
        c.run_until(lambda: c.running(svc) == 10)
        c.partition({c.leader})
        c.advance(30)
        assert c.running(svc) == 10

Rules it owns: every fault is numbered and noted, so that a failed run can be run again with fewer of them; what fails
inside the ``with`` block carries the seed, the faults and the last deliveries in its notes; a ground that cannot do
something says so in a sentence.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from runtime.errors import Refused
from runtime.executor.actor_plan import Registered
from runtime.protocol.cluster import Control, Info, Inspect
from runtime.stage import Actor
from runtime.swarm.actor_spec import actor_name
from runtime.wire.pb import control_pb2, objects_pb2
from runtime.wire.pb import types_pb2 as types
from swarmlet.executors import ActorExecutor
from swarmlet.testing import attempts
from swarmlet.testing.api import Api, RequestRefused
from swarmlet.testing.ground import Ground, Refusal
from swarmlet.testing.report import Fault, describe
from swarmlet.testing.swarm import Swarm
from swarmlet.testing.trace import Trace

START_S = 60.0
LEADER_S = 60.0
ASK_S = 30.0
SERVER_ERROR = 500


class TestCluster:
    """``managers`` and ``workers`` nodes, named ``manager-1``, ``worker-1`` and so on. Starts with its ``with`` block.

    ``seed`` fixes a run under virtual time (without one: pytest's ``--swarm-seed``, else the environment's
    SWARMLET_SEED, else 0). ``real`` makes nodes that are processes on 127.0.0.x instead, whose time is the machine's.
    ``skip`` are numbers of faults to leave out.
    ``actors`` are what services may run as ``actor/NAME`` on every node, besides processes; under virtual time only.
    """

    __test__ = False  # it is no test, whatever pytest thinks of its name

    def __init__(
        self,
        managers: int = 1,
        workers: int = 0,
        *,
        seed: int | None = None,
        real: bool = False,
        skip: Collection[int] = (),
        actors: Mapping[str, type[Actor] | Registered] | None = None,
    ) -> None:
        if managers < 1 or workers < 0:
            raise ValueError(f"a swarm has a manager and no negative number of workers, not {managers} and {workers}")
        if seed is not None and not isinstance(seed, int):
            raise ValueError(f"a seed is a whole number, unlike {seed!r}")
        attempt = attempts.current
        self.seed = _seed(attempt) if seed is None else seed
        if real and actors:
            raise Refusal("real nodes are processes of their own, which do not have this one's actors")
        self.real = real
        self._actors = ActorExecutor(actors) if actors else None
        self.managers = [f"manager-{number}" for number in range(1, managers + 1)]
        self.workers = [f"worker-{number}" for number in range(1, workers + 1)]
        self.faults: list[Fault] = []
        self.again = f"SWARMLET_SEED={self.seed} {shlex.join(sys.orig_argv)}"
        self._skip = frozenset(skip)
        if attempt is not None:
            self.again = f"{attempt.command} --swarm-seed={self.seed}"
            self._skip |= attempt.enter(self)
        self.told = False
        """Whether its report is in the notes of an error already."""
        self._services = 0
        self._ids: dict[str, str] = {}
        self._started = self._closed = False
        self._done: list[tuple[float, str]] = []
        self._ground = self._make_ground()

    def _make_ground(self) -> Ground:
        names = [*self.managers, *self.workers]
        if not self.real:
            return Swarm(self.seed, names=names, actors=self._actors)
        from swarmlet.testing.real import RealGround  # real nodes load gRPC and everything

        return RealGround(names)

    # Life

    def start(self) -> TestCluster:
        """Founds the swarm and has all others join it."""
        if self._started or self._closed:
            raise AssertionError("a cluster starts once: make another one")
        ground = self._ground
        self._started = True
        ground.start()
        first = self.managers[0]
        ground.ask(first, ground.init_message(first), START_S)
        for name, role in [*((n, "manager") for n in self.managers[1:]), *((n, "worker") for n in self.workers)]:
            ground.ask(name, ground.join_message(name, first, self._token(first, role)), START_S)
        return self

    def _token(self, manager: str, role: str) -> str:
        return str(getattr(self._ground.ask(manager, Inspect(), ASK_S).root_ca.join_tokens, role))

    def close(self) -> None:
        """Takes everything down. Again is nothing."""
        self._closed = True
        self._ground.close()

    def __enter__(self) -> TestCluster:
        try:
            return self.start()
        except BaseException as error:
            self._add_report(error)
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None and not isinstance(error, KeyboardInterrupt):
                self._add_report(error)
            elif attempts.current is not None:
                attempts.current.leave(self)
        finally:
            self.close()

    def _add_report(self, error: BaseException) -> None:
        error.add_note(self.report())
        self.told = True

    def report(self) -> str:
        """How to come back to this run: seed, faults, last deliveries, command."""
        real = " over real sockets" if self.real else ""
        where = f"{len(self.managers)} managers and {len(self.workers)} workers{real}"
        ground = self._ground
        return describe(
            self.seed, where, ground.time(), self.faults, ground.last_lines(), self.again, ground.remembered
        )

    # Time

    @property
    def time(self) -> float:
        """Seconds since the start."""
        return self._ground.time()

    def advance(self, seconds: float) -> None:
        """Lets time pass: virtual time in an instant, real time really."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"time only goes on, not by {seconds:g} s")
        self._need_start()
        self._ground.advance(seconds)

    def run_until(self, condition: Callable[[], bool], within: float = 60.0) -> None:
        """Lets time pass until ``condition()``, which may ask the cluster; fails after ``within`` seconds. What is
        refused because nobody leads or answers at the moment is asked again."""
        deadline = self.time + within
        while True:
            refused = ""
            try:
                if condition():
                    return
            except (Refused, TimeoutError, RequestRefused) as error:
                if isinstance(error, RequestRefused) and error.status < SERVER_ERROR:
                    raise
                refused = f": {error}"
            if self.time >= deadline:
                raise AssertionError(f"seed {self.seed}: it did not come true within {within:g} s{refused}")
            self._ground.advance(0.1)

    # Using it

    @property
    def nodes(self) -> list[str]:
        """All nodes by name."""
        return [*self.managers, *self.workers]

    @property
    def leader(self) -> str:
        """The manager that leads in the newest term; waits for one."""
        self._need_start()
        found: list[tuple[int, str]] = []

        def look() -> bool:
            terms = [(self._ground.leads(name), name) for name in self.nodes if self._ground.up(name)]
            found[:] = [each for each in terms if each[0]]
            return bool(found)

        try:
            self._ground.run_until(look, LEADER_S)
        except AssertionError as error:
            raise AssertionError(f"seed {self.seed}: nobody leads within {LEADER_S:g} s") from error
        return max(found)[1]

    def api(self, node: str | None = None) -> Api:
        """The Engine API of a node, the leader's if none is named."""
        node = self._node(node)
        self._check_up(node)
        return self._ground.api(node)

    def ask(self, message: Any, node: str | None = None, within: float = ASK_S) -> Any:
        """Asks a node's cluster actor, the leader's if none is named."""
        return self._ground.ask(self._node(node), message, within)

    def _node(self, node: str | None) -> str:
        if node is None:
            return self.leader
        self._check_nodes({node})
        return node

    def control(self, method: str, node: str | None = None, **fields: Any) -> Any:
        """A call of SwarmKit's Control service: ``c.control("ListNodes").nodes``."""
        request = getattr(control_pb2, f"{method}Request", None)
        if request is None:
            raise ValueError(f"the Control service has no method {method!r}")
        return self.ask(Control(method, request(**fields)), node)

    def create_service(
        self,
        name: str = "",
        replicas: int = 1,
        command: Sequence[str] | None = None,
        *,
        image: str = "host",
        constraints: Iterable[str] = (),
        spec: Mapping[str, Any] | None = None,
    ) -> str:
        """Creates a service by the Engine API; its id. (Where a verb takes a service, its name will do as well.)
        ``spec`` are fields of the API's ServiceSpec that replace those made of the arguments. Without a command a
        process sleeps on. What one does under virtual time: ``runtime.executor.memory.program_of``."""
        for name_of, words in (("command", command), ("constraints", constraints)):
            if isinstance(words, str):
                raise ValueError(f"{name_of} is a list of strings: [{words!r}], or more of them")
        self._services += 1
        if command is None:
            command = () if actor_name(image) else ("sleep", "1000000")
        body: dict[str, Any] = {
            "Name": name or f"service-{self._services}",
            "TaskTemplate": {
                "ContainerSpec": {"Image": image, "Command": list(command)},
                "Placement": {"Constraints": list(constraints)},
                "RestartPolicy": {"Condition": "any", "Delay": 500_000_000},
            },
            "Mode": {"Replicated": {"Replicas": replicas}},
            **(spec or {}),
        }
        id = str(self.api().post("/services/create", body).value["ID"])
        self._ids[body["Name"]] = self._ids[id] = id
        return id

    def _id_of(self, service: str) -> str:
        """Of a service by its id or name; RequestRefused if there is none and never was."""
        if service not in self._ids:
            self._ids[service] = str(self.api().get(f"/services/{service}").value["ID"])
        return self._ids[service]

    def scale(self, service: str, replicas: int) -> None:
        """Changes how many tasks a service is to have."""
        api = self.api()
        found = api.get(f"/services/{service}").value
        wanted = {**found["Spec"], "Mode": {"Replicated": {"Replicas": replicas}}}
        _ = api.post(f"/services/{service}/update?version={found['Version']['Index']}", wanted).value

    def tasks(self, service: str) -> list[objects_pb2.Task]:
        """The tasks of a service as the leader knows them."""
        filters = control_pb2.ListTasksRequest.Filters(service_ids=[self._id_of(service)])
        return list(self.control("ListTasks", filters=filters).tasks)

    def running(self, service: str) -> int:
        """How many of a service's tasks run and are to run, as the leader knows."""
        wanted = types.RUNNING
        return sum(1 for each in self.tasks(service) if each.status.state == wanted == each.desired_state)

    def nodes_of(self, service: str) -> list[str]:
        """The nodes on which a service's tasks are to run, by name: as often as there are tasks."""
        names = self._hostnames()
        placed = [task for task in self.tasks(service) if task.desired_state == types.RUNNING]
        return sorted(names.get(task.node_id, "") for task in placed)

    def _hostnames(self) -> dict[str, str]:
        return {node.id: node.description.hostname for node in self.control("ListNodes").nodes}

    def wait_running(self, service: str, count: int, within: float = 60.0) -> None:
        """Lets time pass until so many tasks run; says what the others do if they do not."""
        deadline = self.time + within
        while (running := self._running_or_none(service)) != count:
            if self.time >= deadline:
                raise AssertionError(f"{running} of {count} tasks run: {self._states(service)}")
            self._ground.advance(0.25)

    def _running_or_none(self, service: str) -> int | None:
        try:
            return self.running(service)
        except Refused:
            return None  # no leader answers at the moment

    def _states(self, service: str) -> str:
        name = types.TaskState.Name
        return "; ".join(f"slot {t.slot} {name(t.status.state)} {t.status.err}".strip() for t in self.tasks(service))

    def state(self, node: str) -> str:
        """A node's LocalNodeState: ``active``, ``pending``, ``error``, ..."""
        return str(self.ask(Info(), node).local_node_state)

    # Faults

    def _fault(self, kind: str, what: str, inject: Callable[[], None]) -> None:
        """Notes a fault under its number and injects it, unless it is to be left out or is refused."""
        number = len(self.faults)
        skipped = number in self._skip
        self.faults.append(Fault(number, self.time, kind, what, skipped))
        try:
            if not skipped:
                inject()
        except Refusal:
            self.faults.pop()
            raise

    def partition(self, *groups: Collection[str] | str, one_way: bool = False) -> None:
        """Cuts groups of nodes off from each other; one group alone from all others. A name is a group of one.
        ``one_way``: only what the first group sends is lost."""
        chosen = [{group} if isinstance(group, str) else set(group) for group in groups]
        if not all(chosen) or not chosen:
            raise ValueError("a partition is of groups of nodes: none of them may be empty")
        self._check_nodes(*chosen)
        if len(chosen) == 1:
            chosen.append(set(self.nodes) - chosen[0])
        if not chosen[-1] or len(set().union(*chosen)) < sum(map(len, chosen)):
            raise ValueError("a partition has two sides at least, and no node is on two of them")
        text = " | ".join("{" + ", ".join(sorted(group)) + "}" for group in chosen)
        self._fault("partition one way" if one_way else "partition", text, lambda: self._cut(chosen, one_way))

    def _cut(self, chosen: Sequence[Collection[str]], one_way: bool) -> None:
        for here, group in enumerate(chosen):
            for there, other in enumerate(chosen):
                if here != there and (here == 0 or not one_way):
                    for source in sorted(group):
                        for target in sorted(set(other) - set(group)):
                            self._ground.cut(source, target)

    def heal(self) -> None:
        """Mends the network and the disks."""
        self._need_start()
        self._note("network and disks are mended")
        self._ground.heal()

    def stop(self, node: str) -> None:
        """Ends a node's daemon cleanly; its tasks run on."""
        self._check_up(node)
        self._note(f"{node} is stopped")
        self._ground.stop(node)

    def crash(self, node: str, power: bool = False) -> None:
        """Ends a node's daemon at once, as ``kill -9`` does: its tasks run on. With ``power`` the machine lost its
        power: its tasks are gone, and of what was not synced a part."""
        self._check_up(node)
        self._fault("power cut" if power else "crash", node, lambda: self._ground.crash(node, power))

    def restart(self, node: str) -> None:
        """Starts a node's daemon again after ``crash`` or ``stop``; of one that runs, nothing happens."""
        self._check_nodes({node})
        if not self._ground.up(node):
            self._note(f"{node} is started again")
            self._ground.start_again(node)

    def pause(self, node: str, seconds: float) -> None:
        """Holds a node's daemon still for a while, as SIGSTOP does; its timers then fire in a burst."""
        self._check_up(node)
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a pause takes time, not {seconds:g} s")
        self._fault("pause", f"{node} {seconds:g} s", lambda: self._ground.pause(node, seconds))

    def crash_actor(self, path: str) -> None:
        """Fails one actor: ``manager-1:/cluster/node/manager/leader/dispatcher``; without a node the leader's."""
        node, _, below = path.rpartition(":")
        if not below.startswith("/"):
            raise ValueError(f"an actor's path begins with /, unlike {below!r}")
        node = node or self.leader
        self._check_up(node)
        self._fault("actor", f"{node}:{below}", lambda: self._ground.crash_actor(node, below))

    def kill_task(self, task: str) -> None:
        """Ends the process of a task, by its id, from outside, as SIGKILL does. Its node sees that it failed."""
        found = self.control("GetTask", task_id=task).task
        state = types.TaskState.Name(found.status.state).lower()
        if found.status.state != types.RUNNING:
            raise AssertionError(f"task {task} does not run: it is {state}")
        node = self._hostnames()[found.node_id]
        self._fault("task killed", f"{task} on {node}", lambda: self._ground.kill_task(node, found))

    def disk_full(self, node: str) -> None:
        """Every write to a node's disk fails until ``heal``."""
        self._check_nodes({node})
        self._fault("disk full", node, lambda: self._ground.disk_full(node))

    def skew(self, node: str, seconds: float) -> None:
        """Moves a node's time of day, in this life and the next ones; what measures durations does not notice."""
        self._check_nodes({node})
        if not math.isfinite(seconds):
            raise ValueError(f"a clock is off by so many seconds, not by {seconds:g}")
        self._fault("skew", f"{node} {seconds:+g} s", lambda: self._ground.skew(node, seconds))

    def _check_up(self, node: str) -> None:
        self._check_nodes({node})
        if not self._ground.up(node):
            raise AssertionError(f"{node} is down")

    def _need_start(self) -> None:
        if self._closed:
            raise AssertionError("the cluster is closed: what it is asked belongs into its with block")
        if not self._started:
            raise AssertionError("the cluster is not started: use it in a with block, or call start()")

    def _check_nodes(self, *groups: Collection[str]) -> None:
        self._need_start()
        for name in sorted({name for group in groups for name in group} - set(self.nodes)):
            raise ValueError(f"there is no node {name!r}: {', '.join(self.nodes)}")

    # Looking in

    @property
    def swarm(self) -> Swarm:
        """The simulated machines, for what has no verb here. Refused over real sockets."""
        if not isinstance(self._ground, Swarm):
            raise Refusal("there is no simulator under real sockets")
        return self._ground

    def trace(self, paths: str = "*", types: str = "*", limit: int = 1000, follow: bool = False) -> Trace:
        """Sees deliveries from now on: ``paths`` and ``types`` are patterns, as in ``*/raft`` and ``Propose``, the
        paths with the node before them (``manager-1:/cluster/node``). With ``follow`` also all that comes of them, on
        every node. Over real sockets deliveries come a moment later, without messages, of the nodes that are up
        now."""
        if not isinstance(paths, str) or not isinstance(types, str):
            raise ValueError(f"paths and types are a pattern each, unlike {paths!r} and {types!r}")
        if limit < 1:
            raise ValueError(f"a trace takes one delivery at least, not {limit}")
        self._need_start()
        return self._ground.trace(paths, types, limit, follow)

    def timeline(self) -> str:
        """What was done to the cluster and what happened in it (leaders, failed actors, and what nodes say themselves:
        failed tasks, new members, renewed certificates, ...), in order, a line each."""
        lines = [*((fault.at, f"fault {fault.text}") for fault in self.faults), *self._done, *self._ground.events]
        return "\n".join(f"{at:12.6f} {text}" for at, text in sorted(lines, key=lambda line: line[0]))

    def _note(self, text: str) -> None:
        self._done.append((self.time, text))


def _seed(attempt: attempts.Attempt | None) -> int:
    """Of clusters that are given none."""
    if attempt is not None and attempt.seed is not None:
        return attempt.seed
    text = os.environ.get("SWARMLET_SEED", "0")
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"SWARMLET_SEED is a number, unlike {text!r}") from None
