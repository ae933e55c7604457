"""The scheduler's decisions: which node each waiting task goes to, or why it goes nowhere yet.

Rules owned here: what is waiting and what is due (SwarmKit's scheduler): tasks without a node are placed in groups of
one service and spec version, tasks with a node are only confirmed; a task is placed once and never moved; what could
not be placed stays PENDING with an explanation and is tried again when something happened that may have made room. A
waiting task that is not wanted any more is shut down without ever seeing a node.

`Scheduler` is told of every node and task, decides in `run`, and books its own decisions at once. Whoever carries them
out reports those that the store did not take with `commit_failed`; they are undone and tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runtime.swarm.constraint_hints import hints
from runtime.swarm.constraints import node_fits
from runtime.swarm.filters import MISSING_PLUGIN, Pipeline, VolumeCheck, plugins_of
from runtime.swarm.generic import named_requests
from runtime.swarm.node_info import Held, NodeInfo, Whereabouts
from runtime.swarm.plugin_hints import plugin_hints
from runtime.swarm.ports import Tx
from runtime.swarm.service_spec import to_timestamp
from runtime.swarm.spread import Group, Layouts
from runtime.swarm.start_order import Hold
from runtime.swarm.task_model import version_of
from runtime.swarm.waits import Wait
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

ASSIGNED: Final = "scheduler assigned task to node"
CONFIRMED: Final = "scheduler confirmed task can run on preassigned node"
GATHER_S: Final = 0.02
REST_MAX_S: Final = 1.0
PRUNE_S: Final = 300.0
HINTS_MAX: Final = 256

ServiceOf = Callable[[str], objects.Service | None]
HoldOf = Callable[[objects.Service], Hold | None]
VolumesOf = Callable[[objects.Task], VolumeCheck]


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a task: ASSIGNED to a node, still PENDING for the reason ``err``, or SHUTDOWN before it ran."""

    task_id: str
    node_id: str | None
    state: types.TaskState
    message: str
    err: str
    generic: tuple[types.GenericResource, ...] = ()


class Scheduler:
    """All nodes and all tasks from PENDING to RUNNING, as far as placement depends on them."""

    def __init__(self, volumes_of: VolumesOf | None = None, hold_of: HoldOf | None = None) -> None:
        self._nodes: dict[str, NodeInfo] = {}
        self._whereabouts = Whereabouts()
        self._layouts = Layouts(self._nodes, self._whereabouts)
        self._tasks: dict[str, objects.Task] = {}
        self._unassigned: dict[str, None] = {}
        self._preassigned: dict[str, None] = {}
        self._undecided: dict[str, tuple[objects.Task, str]] = {}
        self._strays: dict[str, dict[str, None]] = {}  # unknown node -> tasks that run there
        self._due = False
        self._hints: dict[tuple[Any, ...], str] = {}
        self._prune_at = float("-inf")
        self._volumes_of = volumes_of
        self._hold_of = hold_of
        self._held: dict[str, Hold] = {}  # as of the last run, by service
        self._looked_at: set[str] = set()

    # What the scheduler is told

    def load(self, nodes: Iterable[objects.Node], tasks: Iterable[objects.Task], now: float) -> None:
        """Begins with what a view holds, as a new leader does."""
        for node in nodes:
            self.put_node(node)
        for task in tasks:
            self.put_task(task, now)

    def put_node(self, node: objects.Node) -> None:
        """A node appeared or changed."""
        self._layouts.forget()
        self._hints.clear()
        info = self._nodes.get(node.id)
        if info is not None:
            info.replace(node)
        else:
            info = self._nodes[node.id] = NodeInfo(node, self._whereabouts)
            for task_id in self._strays.pop(node.id, ()):
                info.add(task_id, Held.of(self._tasks[task_id]))
        self._due = True

    def remove_node(self, node_id: str) -> None:
        """A node is gone; its tasks are the orchestrators' concern."""
        self._layouts.forget()
        self._hints.clear()
        info = self._nodes.pop(node_id, None)
        if info is not None:
            self._whereabouts.remove(info)
        booked = [self._tasks[task_id] for task_id in (info.held if info is not None else ()) if task_id in self._tasks]
        for task in booked:
            if task.node_id == node_id and task.status.state >= types.ASSIGNED:
                self._strays.setdefault(node_id, {})[task.id] = None

    def put_task(self, task: objects.Task, now: float, *, of_status: bool = False) -> None:
        """A task appeared or changed; ``of_status`` says that nothing but its status became another."""
        state = task.status.state
        if state < types.PENDING:
            return
        if state > types.RUNNING:
            self._task_ended(task, now)
            return
        known = self._tasks.get(task.id)
        if of_status and known is not None and known.status.state >= types.ASSIGNED:
            self._tasks[task.id] = task  # it stands in the books as it did before
            return
        if task.id in self._undecided and state == types.PENDING:
            # An echo of an older change, or of the status text alone, while the decision is under way.
            self._undecided[task.id] = (task, self._undecided[task.id][1])
            return
        _, decided = self._undecided.pop(task.id, (None, ""))
        if decided != task.node_id:
            self._release(decided, task.id)
        self._tasks[task.id] = task
        if state == types.PENDING:
            self._queue(task, new=known is None)
            return
        self._unassigned.pop(task.id, None)
        self._preassigned.pop(task.id, None)
        self._book(task)

    def _queue(self, task: objects.Task, *, new: bool) -> None:
        (self._preassigned if task.node_id else self._unassigned)[task.id] = None
        self._due |= new or not _startable(task)

    def _book(self, task: objects.Task) -> None:
        info = self._nodes.get(task.node_id)
        if info is None:
            self._strays.setdefault(task.node_id, {})[task.id] = None
            return
        before = info.active
        info.add(task.id, Held.of(task))
        self._due |= info.active < before

    def _release(self, node_id: str, task_id: str) -> None:
        strays = self._strays.get(node_id)
        if strays is not None:
            strays.pop(task_id, None)
            if not strays:
                del self._strays[node_id]
        info = self._nodes.get(node_id)
        if info is not None and info.remove(task_id):
            self._due = True

    def _task_ended(self, task: objects.Task, now: float) -> None:
        info = self._nodes.get(task.node_id)
        failed = task.status.state in (types.FAILED, types.REJECTED)
        if info is not None and failed and task.id in self._tasks and self._placed_by_choice(task):
            info.failed(task, now)
        self.remove_task(task.id, task.node_id)

    def _placed_by_choice(self, task: objects.Task) -> bool:
        # Tasks of global services carry no slot: they came with their node, and its failures say nothing about choice.
        # Jobs number their slots from 0; the failures of a global job are its own and weigh in no choice.
        return task.slot != 0 or task.HasField("job_iteration")

    def remove_task(self, task_id: str, node_id: str = "") -> None:
        """A task ended or is gone; what it took is free again."""
        known = self._tasks.pop(task_id, None)
        _, decided = self._undecided.pop(task_id, (None, ""))
        self._unassigned.pop(task_id, None)
        self._preassigned.pop(task_id, None)
        for place in dict.fromkeys((decided, node_id, known.node_id if known else "")):
            self._release(place, task_id)

    def came_up(self, service_id: str) -> None:
        """A task of a service runs, or is complete: those that start after it are looked at again."""
        self._due |= any(service_id in hold.services for hold in self._held.values())

    def service_changed(self) -> None:
        """A service came, changed or went: whoever starts after others is looked at again."""
        self._due |= bool(self._held)

    # What it decides

    @property
    def due(self) -> bool:
        """Whether something waits, and something happened since the last run that may have made room for it.

        That holds for tasks that came with a node too: what they need can only change by an event that is due.
        """
        return self._due and self.waiting > 0

    @property
    def waiting(self) -> int:
        """How many tasks wait for a node or for its confirmation."""
        return len(self._unassigned) + len(self._preassigned)

    def waits(self, service_id: str) -> list[Wait]:
        """The tasks of a service that wait here, and why."""
        queued = [self._tasks[id] for queue in (self._preassigned, self._unassigned) for id in queue]
        waits = [
            Wait(task.id, "scheduler", task.status.err or "it is placed in the next run")
            for task in queued
            if task.service_id == service_id
        ]
        decided = [task for task, _ in self._undecided.values() if task.service_id == service_id]
        return waits + [Wait(task.id, "store", "it is placed, and that is being written") for task in decided]

    def node(self, node_id: str) -> NodeInfo | None:
        """The books of a node, for inspection."""
        return self._nodes.get(node_id)

    def run(self, now: float, service_of: ServiceOf) -> list[Decision]:
        """Decides about everything that waits; tasks that came with a node first.

        ``now`` is in seconds on any clock, the one that `put_task` was given; ``service_of`` finds a service by id
        in the newest view. Only changes are returned: a task that waits for the same reason as before is not.
        """
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_S
            for info in self._nodes.values():
                info.prune(now)
        decisions: list[Decision] = []
        if not self.due:
            return decisions
        self._due = False
        self._shut_down_unwanted(decisions)
        self._held, self._looked_at = {}, set()
        for task_id in list(self._preassigned):
            if not self._is_held([self._tasks[task_id]], service_of, decisions):
                self._confirm(self._tasks[task_id], decisions)
        self._layouts.begin_run()
        for tasks in self._groups():
            if not self._is_held(tasks, service_of, decisions):
                self._place_group(tasks, now, service_of, decisions)
        return decisions

    def commit_failed(self, task_ids: Iterable[str]) -> None:
        """Decisions that the store did not take are undone; their tasks wait again."""
        for task_id in task_ids:
            if task_id not in self._undecided:
                continue
            task, node_id = self._undecided.pop(task_id)
            self._release(node_id, task_id)
            self._tasks[task_id] = task
            self._queue(task, new=True)

    def _shut_down_unwanted(self, decisions: list[Decision]) -> None:
        for queue in (self._preassigned, self._unassigned):
            for task in [self._tasks[task_id] for task_id in queue if not _startable(self._tasks[task_id])]:
                del queue[task.id]
                self._undecided[task.id] = (task, "")
                decisions.append(Decision(task.id, None, types.SHUTDOWN, task.status.message, ""))

    def _is_held(self, tasks: Sequence[objects.Task], service_of: ServiceOf, decisions: list[Decision]) -> bool:
        """Whether tasks of one service are not to start yet; they say why. A service is looked at once a run."""
        id = tasks[0].service_id
        if id and self._hold_of is not None and id not in self._looked_at:
            self._looked_at.add(id)
            service = service_of(id)
            found = self._hold_of(service) if service is not None else None
            if found is not None:
                self._held[id] = found
        held = self._held.get(id)
        if held is None:
            return False
        for task in tasks:
            self._wait(task, held.why, decisions)
        return True

    def _groups(self) -> list[list[objects.Task]]:
        groups: dict[tuple[str, int | str], list[objects.Task]] = {}
        for task_id in self._unassigned:
            task = self._tasks[task_id]
            version = version_of(task)
            alone = version is None or not task.service_id
            groups.setdefault((task.service_id, task_id if alone or version is None else version), []).append(task)
        return list(groups.values())

    def _pipeline(self, task: objects.Task) -> Pipeline:
        return Pipeline(task, self._volumes_of(task) if self._volumes_of is not None else None)

    def _confirm(self, task: objects.Task, decisions: list[Decision]) -> None:
        info = self._nodes.get(task.node_id)
        if info is None:
            return
        pipeline = self._pipeline(task)
        if pipeline.passes(info):
            self._assign(task, info, CONFIRMED, decisions)
        else:
            explanation = pipeline.explain([info])
            lacks = plugin_hints([info.node], task) if MISSING_PLUGIN in explanation else []
            self._wait(task, "; ".join([explanation, *lacks]), decisions)

    def _place_group(
        self, tasks: Sequence[objects.Task], now: float, service_of: ServiceOf, decisions: list[Decision]
    ) -> None:
        pipeline = self._pipeline(tasks[0])
        group = Group(
            tasks,
            (tasks[0].service_id, version_of(tasks[0])),
            pipeline,
            now,
            lambda task, info: self._assign(task, info, ASSIGNED, decisions),
        )
        left = group.spread(self._layouts)
        if left:
            explanation = pipeline.explain(self._nodes.values())
            explanation += self._hint(left[0], MISSING_PLUGIN in explanation)
            service = service_of(left[0].service_id) if left[0].service_id else None
            for task in left:
                self._leave(task, service, explanation, decisions)

    def _hint(self, task: objects.Task, plugins: bool) -> str:
        """What is appended to an explanation where a constraint can match nothing, where a plugin is missing, and where
        resources are asked for by name; kept until a node changes."""
        expressions, named = tuple(task.spec.placement.constraints), tuple(named_requests(task.spec))
        key = (expressions, plugins_of(task) if plugins else None, named)
        hint = self._hints.get(key)
        if hint is None:
            nodes = [info.node for info in self._nodes.values()]
            found = hints(nodes, expressions) if expressions else []
            found += [*(plugin_hints(nodes, task) if plugins else ()), *named]
            if len(self._hints) >= HINTS_MAX:
                self._hints.clear()
            hint = self._hints[key] = "".join(f"; {each}" for each in found)
        return hint

    def _assign(self, task: objects.Task, info: NodeInfo, message: str, decisions: list[Decision]) -> None:
        assigned = info.claim(task)
        self._unassigned.pop(task.id, None)
        self._preassigned.pop(task.id, None)
        self._undecided[task.id] = (task, info.node.id)
        decisions.append(Decision(task.id, info.node.id, types.ASSIGNED, message, "", assigned))

    def _leave(
        self, task: objects.Task, service: objects.Service | None, explanation: str, decisions: list[Decision]
    ) -> None:
        """A task that found no node waits; it is forgotten when its service is gone.

        One of an older spec waits on: its service may only have been scaled, or be rolled back, and if an update is to
        replace the task, the updater says so.
        """
        if task.service_id and service is None:
            self.remove_task(task.id)
            return
        self._wait(task, explanation, decisions)

    def _wait(self, task: objects.Task, explanation: str, decisions: list[Decision]) -> None:
        if task.status.err != explanation:
            decisions.append(Decision(task.id, None, types.PENDING, task.status.message, explanation))


def _startable(task: objects.Task) -> bool:
    return task.desired_state <= types.COMPLETE


def commit(tx: Tx, decision: Decision) -> bool:
    """Carries out a decision in a transaction; False when the task has to be decided about anew.

    A task that is gone is no failure. An assignment fails when its node is gone, no longer takes tasks or no longer
    satisfies the constraints, when the task is not wanted any more, or when it was assigned by somebody else.
    """
    task = tx.get(objects.Task, decision.task_id)
    if task is None:
        return True
    if task.status.state >= types.ASSIGNED:
        return decision.state != types.ASSIGNED
    if decision.state == types.ASSIGNED and not (
        _startable(task) and _takes(tx.get(objects.Node, decision.node_id or ""), task)
    ):
        return False
    status = task.status
    if (status.state, status.message, status.err) == (decision.state, decision.message, decision.err):
        return True
    new = objects.Task()
    new.CopyFrom(task)
    _carry_out(new, decision, tx.now)
    tx.update(new)
    return True


def _takes(node: objects.Node | None, task: objects.Task) -> bool:
    if node is None or node.status.state != types.NodeStatus.READY:
        return False
    # A label may have gone since the decision: the enforcer has looked at the node already and would not look again.
    return node.spec.availability == specs.NodeSpec.ACTIVE and node_fits(node, task.spec.placement.constraints)


def _carry_out(task: objects.Task, decision: Decision, now: float) -> None:
    task.status.state = decision.state
    task.status.message = decision.message
    task.status.err = decision.err
    if decision.state == types.ASSIGNED:
        task.node_id = decision.node_id or ""
        del task.assigned_generic_resources[:]
        task.assigned_generic_resources.extend(decision.generic)
    if decision.state != types.PENDING:
        task.status.timestamp.CopyFrom(to_timestamp(now))
