"""Which nodes are alive, as the dispatcher sees it, and what it writes about them and their tasks.

Rules owned here (SwarmKit's dispatcher):
1. A registered node is DOWN after three of its heartbeat periods without a word, one that was only known when this
   manager began to lead after six; after 24 h of that its tasks are ORPHANED.
   One whose label says so is DISCONNECTED before: it keeps its tasks and gets no new ones (ours, not SwarmKit's).
2. A node has one session, the newest; of a node that is known already, three registrations in a row are let through
   and then none until it was quiet for 8 s.
3. An observed state only grows, an agent speaks for the tasks of its own node alone, and what is stored already is not
   written again.

Times are seconds of a clock that only grows, but for ``Tx.now``, which is the time of day.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runtime.errors import Code, Refused
from runtime.swarm.ports import Tx
from runtime.swarm.service_spec import to_timestamp
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

if TYPE_CHECKING:
    import random

PERIOD: Final = 5.0
EPSILON: Final = 0.5
GRACE: Final = 3
GRACE_UNKNOWN: Final = 6
ATTEMPTS_MAX: Final = 3
ATTEMPTS_FORGOTTEN: Final = 8.0
ORPHAN_AFTER: Final = 24 * 3600.0

UNKNOWN_MESSAGE: Final = 'Node moved to "unknown" state due to leadership change in cluster'
FAILURE: Final = "heartbeat failure"
FAILURE_UNKNOWN: Final = 'heartbeat failure for node in "unknown" state'


def not_registered() -> Refused:
    """The node has no session here."""
    return Refused(Code.NOT_FOUND, "node not registered")


def session_invalid() -> Refused:
    """The session named is not the node's present one."""
    return Refused(Code.INVALID_ARGUMENT, "session invalid")


def node_unknown() -> Refused:
    """There is no such node; SwarmKit says so without a code."""
    return Refused(Code.UNKNOWN, "node not found")


def heartbeat_period(cluster: objects.Cluster | None) -> float:
    """The period that the cluster's spec asks for, else 5 s."""
    if cluster is None:
        return PERIOD
    asked = cluster.spec.dispatcher.heartbeat_period
    seconds = asked.seconds + asked.nanos / 1e9
    return seconds if seconds > 0 else PERIOD


def draw_period(period: float, rng: random.Random) -> float:
    """One period with its jitter of half a second either way, so that nodes do not beat in step; never negative."""
    epsilon = min(EPSILON, period / 2)
    return period + (2 * rng.random() - 1) * epsilon


class Deadlines:
    """At most one deadline for each key. Putting one off costs nothing until the earlier time comes: a key has one
    entry in the heap that counts, which is looked at when it is due and pushed again if the deadline has moved on."""

    __slots__ = ("_at", "_heap", "_pushed")

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._pushed: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __contains__(self, key: str) -> bool:
        return key in self._at

    def __len__(self) -> int:
        return len(self._at)

    def set(self, key: str, at: float) -> None:
        """The deadline of ``key`` is ``at`` from now on."""
        self._at[key] = at
        pushed = self._pushed.get(key)
        if pushed is None or at < pushed:
            self._push(key, at)

    def extend(self, key: str, at: float) -> None:
        """The deadline of ``key`` is not before ``at``."""
        self.set(key, max(at, self._at.get(key, at)))

    def drop(self, key: str) -> None:
        """``key`` has no deadline any more; its entry in the heap goes when it comes up."""
        self._at.pop(key, None)

    def take_due(self, now: float) -> list[str]:
        """The keys whose deadlines have passed, earliest first; they are dropped."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            pushed, key = heapq.heappop(self._heap)
            if self._pushed.get(key) != pushed:
                continue  # an earlier one was pushed after it and is the one that counts
            del self._pushed[key]
            at = self._at.get(key)
            if at is None:
                continue
            if at <= now:
                del self._at[key]
                due.append(key)
            else:
                self._push(key, at)
        return due

    def at(self, key: str) -> float | None:
        """The deadline of ``key``."""
        return self._at.get(key)

    @property
    def next(self) -> float | None:
        """When to look again: no deadline is earlier."""
        return self._heap[0][0] if self._heap else None

    def _push(self, key: str, at: float) -> None:
        self._pushed[key] = at
        heapq.heappush(self._heap, (at, key))


@dataclass(slots=True)
class Registration:
    """What is known of a node; ``session_id`` is empty for one that was only known when this manager began. ``lost`` is
    why it is out of touch, empty while it is not."""

    session_id: str = ""
    attempts: int = 0
    attempted: float = float("-inf")
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """A node that is out of touch from now on, and down unless it ``keeps`` its tasks for so many seconds."""

    node_id: str
    message: str
    keeps: float = 0.0


class NodeRegistry:
    """The nodes that are thought alive with their sessions, and those that are down and wait to be given up."""

    __slots__ = ("_alive", "_down", "_period", "_rng", "nodes")

    def __init__(self, rng: random.Random, period: float = PERIOD) -> None:
        self.nodes: dict[str, Registration] = {}
        self._rng = rng
        self._period = period
        self._alive = Deadlines()
        self._down = Deadlines()

    def set_period(self, period: float) -> None:
        """The heartbeat period that nodes are told from their next heartbeat on."""
        self._period = period

    def known(self, node_id: str, now: float) -> None:
        """A node that was not down when this manager began to lead: it has a longer time to say so."""
        self.nodes[node_id] = Registration()
        self._alive.set(node_id, now + GRACE_UNKNOWN * draw_period(self._period, self._rng))

    def down(self, node_id: str, now: float) -> None:
        """A node is down from now on: in 24 h its tasks are given up."""
        self.remove(node_id)
        self._down.set(node_id, now + ORPHAN_AFTER)

    def give_up_at(self, node_id: str, at: float) -> None:
        """Giving up the tasks of a node did not succeed: again then, unless it came back."""
        if node_id not in self.nodes:
            self._down.set(node_id, at)

    @property
    def count_down(self) -> int:
        """How many nodes are down and not given up yet."""
        return len(self._down)

    def is_down(self, node_id: str) -> bool:
        """Whether the node was found down and has not come back since."""
        return node_id in self._down

    def keeps_until(self, node_id: str) -> float | None:
        """When a node that is out of touch is down; None for one that is in touch, or down."""
        known = self.nodes.get(node_id)
        return self._alive.at(node_id) if known is not None and known.lost else None

    def remove(self, node_id: str) -> None:
        """Forgets a node."""
        self.nodes.pop(node_id, None)
        self._alive.drop(node_id)
        self._down.drop(node_id)

    def attempt(self, node_id: str, now: float) -> None:
        """A registration is asked for. ``Refused(UNAVAILABLE)`` after three in a row of a node known already."""
        known = self.nodes.get(node_id)
        if known is None:
            return
        if now - known.attempted > ATTEMPTS_FORGOTTEN:
            known.attempts = 0
        known.attempts += 1
        if known.attempts > ATTEMPTS_MAX:
            raise Refused(Code.UNAVAILABLE, f"node {node_id} exceeded rate limit count of registrations")
        known.attempted = now
        self._alive.extend(node_id, now + GRACE * draw_period(self._period, self._rng))  # whoever asks is alive

    def register(self, node_id: str, session_id: str, now: float) -> None:
        """The node's session is this one, and no other."""
        known = self.nodes.setdefault(node_id, Registration(attempted=now))
        known.session_id = session_id
        known.lost = ""
        self._down.drop(node_id)
        self._alive.set(node_id, now + GRACE * draw_period(self._period, self._rng))

    def check(self, node_id: str, session_id: str) -> Registration:
        """The registration under this session. ``Refused``: NOT_FOUND ``node not registered``, INVALID_ARGUMENT
        ``session invalid`` (also for a node that has none yet)."""
        known = self.nodes.get(node_id)
        if known is None or known.lost:
            raise not_registered()
        if not session_id or known.session_id != session_id:
            raise session_invalid()
        return known

    def heartbeat(self, node_id: str, session_id: str, now: float) -> float:
        """The node lives; the answer is when it is to say so again, in seconds. ``Refused`` as ``check``."""
        self.check(node_id, session_id)
        period = draw_period(self._period, self._rng)
        self._alive.set(node_id, now + GRACE * period)
        return period

    def take_lost(self, now: float, patience: Callable[[str], float] = lambda node_id: 0.0) -> list[Lost]:
        """The nodes that are out of touch or down from now on. ``patience`` is for how many seconds a node keeps its
        tasks while it is out of touch."""
        found = []
        for node_id in self._alive.take_due(now):
            known = self.nodes[node_id]
            keeps = 0.0 if known.lost else patience(node_id)
            known.lost = known.lost or (FAILURE if known.session_id else FAILURE_UNKNOWN)
            known.session_id = ""  # its session has ended: it has to register anew, as one that was down
            found.append(Lost(node_id, known.lost, keeps))
            if keeps:
                self._alive.set(node_id, now + keeps)
            else:
                self.down(node_id, now)
        return found

    def take_given_up(self, now: float) -> list[str]:
        """The nodes whose tasks are orphans from now on."""
        return self._down.take_due(now)

    @property
    def next_due(self) -> float | None:
        """When one of them may be lost or given up, at the earliest."""
        return min((at for at in (self._alive.next, self._down.next) if at is not None), default=None)


# What is written


@dataclass(frozen=True, slots=True)
class NodeUpdate:
    """A node's new status; an empty address and an absent description leave what there is."""

    state: types.NodeStatus.State
    message: str = ""
    addr: str = ""
    description: types.NodeDescription | None = None

    def after(self, earlier: NodeUpdate | None) -> NodeUpdate:
        """This one, with the address and description of an update that it overtook."""
        if earlier is None:
            return self
        return NodeUpdate(self.state, self.message, self.addr or earlier.addr, self.description or earlier.description)


def write_node(tx: Tx, node_id: str, update: NodeUpdate) -> bool:
    """Stores a node's status; False if the node is gone."""
    node = tx.get(objects.Node, node_id)
    if node is None:
        return False
    new = objects.Node()
    new.CopyFrom(node)
    new.status.state = update.state
    new.status.message = update.message
    if update.addr:
        new.status.addr = update.addr
    if update.description is not None:
        new.description.CopyFrom(update.description)
    if new != node:
        tx.update(new)
    return True


def write_unknown(tx: Tx, node_id: str) -> bool:
    """This manager begins to lead: whether the node lives will show. False if it is gone or down."""
    node = tx.get(objects.Node, node_id)
    if node is None or node.status.state == types.NodeStatus.DOWN:
        return False
    return write_node(tx, node_id, NodeUpdate(types.NodeStatus.UNKNOWN, UNKNOWN_MESSAGE))


def write_task_status(tx: Tx, task_id: str, node_id: str, status: types.TaskStatus, manager_id: str) -> bool:
    """Stores what a node's agent says of a task; False if nothing was to be stored."""
    task = tx.get(objects.Task, task_id)
    if task is None or task.node_id != node_id or task.status.state > status.state or _says_same(task.status, status):
        return False
    applied = types.TaskStatus()
    applied.CopyFrom(status)
    applied.applied_by = manager_id
    applied.applied_at.CopyFrom(to_timestamp(tx.now))
    tx.set_status(task, applied)
    return True


def is_awaited(task: objects.Task, said: types.TaskStatus) -> bool:
    """Whether a status takes a task as far as it was to go, or ends it: somebody goes on only then."""
    return said.state >= min(task.desired_state, types.COMPLETE)


def _says_same(stored: types.TaskStatus, said: types.TaskStatus) -> bool:
    return stored.state == said.state and _as_said(stored) == _as_said(said)


def _as_said(status: types.TaskStatus) -> types.TaskStatus:
    """Without what managers add."""
    said = types.TaskStatus()
    said.CopyFrom(status)
    said.ClearField("applied_by")
    said.ClearField("applied_at")
    return said


def orphans(tasks: Iterable[objects.Task]) -> list[str]:
    """Which of a lost node's tasks are given up: those that ran, or were about to."""
    return [task.id for task in tasks if _may_run(task)]


def write_orphaned(tx: Tx, task_id: str) -> bool:
    """The task is an orphan, unless its node came back; False if it is not to be."""
    task = tx.get(objects.Task, task_id)
    if task is None or not _may_run(task):
        return False
    node = tx.get(objects.Node, task.node_id)
    if node is not None and node.status.state != types.NodeStatus.DOWN:
        return False
    new = objects.Task()
    new.CopyFrom(task)
    new.status.state = types.ORPHANED
    tx.update(new)
    return True


def _may_run(task: objects.Task) -> bool:
    return types.ASSIGNED <= task.status.state <= types.RUNNING


def write_unpublished(tx: Tx, volume_id: str, node_id: str) -> bool:
    """A node no longer uses a volume: the controller may unpublish it there. False if there was no such use."""
    volume = tx.get(objects.Volume, volume_id)
    if volume is None:
        return False
    new = objects.Volume()
    new.CopyFrom(volume)
    for status in new.publish_status:
        if status.node_id == node_id:
            status.state = types.VolumePublishStatus.PENDING_UNPUBLISH
    if new == volume:
        return False
    tx.update(new)
    return True
