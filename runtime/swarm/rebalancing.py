"""Which running tasks would lie elsewhere if the scheduler placed them now: after a node joined, or came back.

Rules owned here: a task is moved only to where the scheduler itself puts one, and only if that makes the spread better
in the scheduler's own order: first over the values of the spread preferences, level by level, then over the nodes that
hold the service, then over all tasks of the nodes. Better is a smaller sum of squares, so no move undoes another, and
there is an end. Only services at rest take part: replicated, as many tasks as replicas, all of them running, no update.

How a move is asked for, so that any leader carries it out (`Means`): where the node holds one task of the service, by a
constraint against that node for as long as the move takes, which makes an update of this one task; where it holds most
of them, by scaling, for whoever scales down takes from the fullest node. What neither can say is not planned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from runtime.swarm import constraints
from runtime.swarm.defaults import restart_condition
from runtime.swarm.explaining import find
from runtime.swarm.labels import REBALANCE
from runtime.swarm.planning import takes_tasks
from runtime.swarm.ports import View
from runtime.swarm.scheduling import Scheduler
from runtime.swarm.spread import descriptors
from runtime.swarm.task_model import new_task, the_cluster, wanted
from runtime.swarm.update_steps import PAUSED_STATES
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

Means = Literal["constraint", "scale"]
Delta = tuple[int, ...]
TRIED: Final = "rebalance"
_GOING: Final = (types.UpdateStatus.UPDATING, types.UpdateStatus.ROLLBACK_STARTED, *PAUSED_STATES)


@dataclass(frozen=True, slots=True)
class Move:
    """One task of a service leaves a node, and the scheduler places another one: on ``target`` as things are."""

    service_id: str
    task: objects.Task
    target: str
    means: Means


def plan(view: View, names: Collection[str], limit: int, now: float, without: Collection[str] = ()) -> dict[str, Any]:
    """Up to ``limit`` moves, one after the other, of these services or of all, ``without`` those with these ids; and
    which services take no part, and why. ``Refused`` if there is no service of a name."""
    services = [find(view, "service", name) for name in names] or list(view.all(objects.Service))
    chosen = {each.id: each for each in services if isinstance(each, objects.Service)}
    ordered = sorted(chosen.values(), key=lambda each: each.spec.annotations.name)
    resting = {each.id: unrest(view, each) for each in ordered}
    hosts = {each.id: each.description.hostname or each.id for each in view.all(objects.Node)}
    found = moves(view, [each for each in ordered if not resting[each.id] and each.id not in without], limit, now)
    clusters = view.all(objects.Cluster)
    return {
        "cluster": clusters[0].id if clusters else "",
        "moves": [_shown(chosen[move.service_id], move, hosts) for move in found],
        "left": [{"service": each.spec.annotations.name, "why": why} for each in ordered if (why := resting[each.id])],
    }


def _shown(service: objects.Service, move: Move, hosts: dict[str, str]) -> dict[str, Any]:
    return {
        "service": service.spec.annotations.name,
        "service_id": service.id,
        "replicas": service.spec.replicated.replicas,
        "task": f"{service.spec.annotations.name}.{move.task.slot}",
        "task_id": move.task.id,
        "from": hosts[move.task.node_id],
        "from_id": move.task.node_id,
        "to": hosts[move.target],
        "to_id": move.target,
        "means": move.means,
    }


def unrest(view: View, service: objects.Service) -> str:
    """Why a service takes no part; empty if it does."""
    if service.spec.WhichOneof("mode") != "replicated":
        return "only replicated services are spread"
    if REBALANCE in service.spec.annotations.labels:
        return "a move of one of its tasks was begun and not ended"
    if service.update_status.state in _GOING:
        return "its update is not over"
    if restart_condition(service.spec.task) == types.RestartPolicy.NONE:
        return "its tasks run once, and would run anew"
    live = [task for task in view.find(objects.Task, "service", service.id) if wanted(task)]
    running = [task for task in live if task.status.state == task.desired_state == types.RUNNING]
    slots = {task.slot for task in running if view.get(objects.Node, task.node_id) is not None}
    if not len(live) == len(running) == len(slots) == service.spec.replicated.replicas:
        return f"{len(slots)} of {service.spec.replicated.replicas} tasks run"
    return ""


def moves(view: View, services: Sequence[objects.Service], limit: int, now: float) -> list[Move]:
    """The moves of services at rest, in the order in which they are to be made: first those that spread the services
    themselves, then those that even out the nodes; service by service, and again as long as what one did to the nodes
    makes it better for another."""
    books = _Books(view, now)
    found: list[Move] = []
    tasks = {each.id: _live(view, each) for each in services}
    for of_services in (True, False):
        before = -1
        while before < len(found) < limit:
            before = len(found)
            for service in services:
                mine = tasks[service.id]
                while len(found) < limit and (move := _best(books, service, list(mine.values()), of_services)):
                    mine[move.task.id] = books.carry_out(move)
                    found.append(move)
    return found


def _live(view: View, service: objects.Service) -> dict[str, objects.Task]:
    return {task.id: task for task in view.find(objects.Task, "service", service.id) if wanted(task)}


def _best(books: _Books, service: objects.Service, tasks: Sequence[objects.Task], of_services: bool) -> Move | None:
    """The move that makes a service's spread better by most; None if none does. ``of_services`` leaves out the moves
    that only even out the nodes."""
    lightest = books.lightest(service)
    candidates = [
        (delta, move)
        for task, means in _sources(tasks)
        if books.may_gain(service, task.node_id, lightest)
        and (target := books.target(service, task, means))
        and (delta := books.delta(service, task.node_id, target))
        and _is_better(delta[:-1] if of_services else delta)
        and (means == "constraint" or _whichever_it_is(books, service, tasks, target))
        for move in [Move(service.id, task, target, means)]
    ]
    return min(candidates, key=lambda each: (each[0], each[1].task.node_id))[1] if candidates else None


def _sources(tasks: Sequence[objects.Task]) -> Iterator[tuple[objects.Task, Means]]:
    """The tasks that can be asked to leave: those that are alone on their node, and of the fullest nodes the one that
    goes first when the service is scaled down."""
    on_node = Counter(task.node_id for task in tasks)
    most = max(on_node.values(), default=0)
    for task in tasks:
        if on_node[task.node_id] == 1:
            yield task, "constraint"
    if most > 1:
        full = [task for task in tasks if on_node[task.node_id] == most]
        last = [max((each for each in full if each.node_id == id), key=lambda each: each.slot) for id in on_node
                if on_node[id] == most]  # fmt: skip
        yield max(last, key=lambda each: each.slot), "scale"


def _whichever_it_is(books: _Books, service: objects.Service, tasks: Sequence[objects.Task], target: str) -> bool:
    """Whether it is better from any of the fullest nodes: another leader may take another one of them. The target must
    stay below them, or what was just started there would be taken."""
    on_node = Counter(each.node_id for each in tasks)
    most = max(on_node.values())
    full = [id for id, number in on_node.items() if number == most]
    return on_node[target] + 1 < most and all(_is_better(books.delta(service, id, target)) for id in full)


def _is_better(delta: Delta) -> bool:
    return next((each for each in delta if each), 0) < 0


class _Books:
    """The scheduler on a copy of the cluster, on which moves are tried and carried out."""

    def __init__(self, view: View, now: float) -> None:
        self._view = view
        self._now = now
        self._nodes = {each.id: each for each in view.all(objects.Node)}
        self._cluster = the_cluster(view)
        self._scheduler = Scheduler()
        held = (each for each in view.all(objects.Task) if each.status.state >= types.ASSIGNED)
        self._scheduler.load(self._nodes.values(), held, now)

    def lightest(self, service: objects.Service) -> tuple[int, int]:
        """How many tasks the best node that takes any has: of the service, and in all."""
        infos = [self._scheduler.node(id) for id, node in self._nodes.items() if takes_tasks(node)]
        ranks = [(info.by_service.get(service.id, 0), info.active) for info in infos if info is not None]
        return min(ranks, default=(0, 0))

    def may_gain(self, service: objects.Service, source: str, lightest: tuple[int, int]) -> bool:
        """Whether it is worth a try to take a task from a node. Without spread preferences it is not if even the best
        node has too many."""
        at = self._scheduler.node(source)
        if at is None or _levels(service):
            return at is not None
        own = at.by_service.get(service.id, 0) - lightest[0]
        return own > 1 or (own == 1 and at.active - lightest[1] > 1)

    def target(self, service: objects.Service, task: objects.Task, means: Means) -> str:
        """Where the scheduler puts what is to run instead of a task; empty for nowhere."""
        new = new_task(TRIED, service, self._cluster, self._now, slot=task.slot)
        new.status.state = types.PENDING
        new.endpoint.CopyFrom(task.endpoint)
        if means == "constraint":
            new.spec.placement.constraints.append(f"node.id!={task.node_id}")
        start_first = service.spec.update.order == types.UpdateConfig.START_FIRST
        if not start_first:
            self._scheduler.remove_task(task.id, task.node_id)
        self._scheduler.put_task(new, self._now)
        decided = self._scheduler.run(self._now, lambda id: self._view.get(objects.Service, id))
        self._scheduler.remove_task(new.id)
        if not start_first:
            self._scheduler.put_task(task, self._now)
        return next((each.node_id or "" for each in decided if each.task_id == TRIED), "")

    def delta(self, service: objects.Service, source: str, target: str) -> Delta:
        """By how much the sums of squares change when one of a service's tasks leaves a node for another; half of it.
        The most important comes first."""
        if source == target:
            return (0,)
        names = _levels(service)
        here, there = self._path(source, names), self._path(target, names)
        changes = []
        for depth in range(1, len(names) + 1):
            counts = self._of_branch(service.id, names[:depth], (here[:depth], there[:depth]))
            changes.append(0 if here[:depth] == there[:depth] else counts[1] - counts[0] + 1)
        at, to = self._scheduler.node(source), self._scheduler.node(target)
        assert at is not None, f"no node {source}"
        assert to is not None, f"no node {target}"
        own = to.by_service.get(service.id, 0) - at.by_service.get(service.id, 0) + 1
        return (*changes, own, to.active - at.active + 1)

    def _path(self, node_id: str, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(constraints.label(self._nodes[node_id], name) or "" for name in names)

    def _of_branch(self, service_id: str, names: tuple[str, ...], paths: Sequence[tuple[str, ...]]) -> list[int]:
        counts: Counter[tuple[str, ...]] = Counter()
        for id in self._nodes:
            info = self._scheduler.node(id)
            if info is not None and (number := info.by_service.get(service_id, 0)):
                counts[self._path(id, names)] += number
        return [counts[path] for path in paths]

    def carry_out(self, move: Move) -> objects.Task:
        """The task as it is after the move."""
        new = objects.Task()
        new.CopyFrom(move.task)
        new.node_id = move.target
        self._scheduler.remove_task(move.task.id, move.task.node_id)
        self._scheduler.put_task(new, self._now)
        return new


def _levels(service: objects.Service) -> tuple[str, ...]:
    return descriptors(objects.Task(spec=service.spec.task))
