"""What must hold of a whole swarm at every delivery: the consensus as its actors see it, the store, the orchestration.

``Watcher`` is an observer of the simulator. It keeps a reference model of the store, a plain dictionary that every
committed entry is applied to once, whichever manager applies it first; each manager's store must equal it in the end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from actors.raft_actor import RaftActor
from runtime.protocol.raft import Append, Appended, BeginLog, LoadLog, RaftStatus, SendRaft
from runtime.protocol.store import Commits, Entries, Restore
from runtime.raft.types import HardState, MessageType, Role
from runtime.stage.cell import Cell
from runtime.stage.mailbox import Envelope
from runtime.stage.simulator import Simulator
from runtime.store.changes import Action, decode_request
from runtime.swarm import constraints
from runtime.wire.pb import types_pb2 as types
from tests.simulation.raft_invariants import Chain, Invariants, Violation

RAFT_LOG = "/cluster/node/manager/raft/log"
RAFT = "/cluster/node/manager/raft"
STORE = "/cluster/node/manager/store"
MANAGER = "/cluster/node/manager"


class Model:
    """The store as dictionaries: ``tables[field][id]`` is the object. ``labels`` are the values that the label ``v`` of
    each service ever had, with the time when the entry was first applied."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Any]] = defaultdict(dict)
        self.labels: dict[tuple[str, str], float] = {}
        self.slots: dict[tuple[str, int, str], set[str]] = defaultdict(set)
        self.on_node: dict[str, set[str]] = defaultdict(set)
        self.index = 0
        self.checks = 0

    def apply(self, index: int, data: bytes, time: float) -> None:
        """One committed entry."""
        if index != self.index + 1:
            raise Violation(f"entry {index} is applied before anybody applied {self.index + 1}")
        self.index = index
        if not data:
            return
        for action in decode_request(data).action:
            field = action.WhichOneof("target")
            assert field is not None
            self._change(field, Action(action.action), getattr(action, field), time)

    def _change(self, field: str, action: Action, new: Any, time: float) -> None:
        table = self.tables[field]
        old = table.get(new.id)
        if (old is None) != (action is Action.CREATE):
            raise Violation(f"{action.name} of {field} {new.id}, which is {'not ' * (old is None)}there")
        if action is Action.REMOVE:
            del table[new.id]
        else:
            table[new.id] = new
        if field == "service" and action is not Action.REMOVE:
            self.labels.setdefault((new.id, new.spec.annotations.labels.get("v", "")), time)
        if field == "task":
            self._task(old, None if action is Action.REMOVE else new)

    def _task(self, old: Any, new: Any) -> None:
        self.checks += 1
        if old is not None:
            self.slots[_slot(old)].discard(old.id)
            self.on_node[old.node_id].discard(old.id)
        if new is None:
            return
        self.slots[_slot(new)].add(new.id)
        self.on_node[new.node_id].add(new.id)
        if old is not None and new.status.state < old.status.state:
            raise Violation(f"task {new.id} goes back from {_name(old)} to {_name(new)}")
        if old is not None and new.desired_state < old.desired_state:
            raise Violation(f"task {new.id}: its desired state goes back to {new.desired_state}")
        if new.service_id and _live(new):
            live = [each for each in self.slots[_slot(new)] if _live(self.tables["task"][each])]
            if len(live) > 1:
                raise Violation(f"{len(live)} live tasks in slot {new.slot} of service {new.service_id}")
        if old is not None and old.status.state < types.ASSIGNED <= new.status.state <= types.RUNNING:
            self._assigned(new)

    def _assigned(self, task: Any) -> None:
        node = self.tables["node"].get(task.node_id)
        if node is None:
            raise Violation(f"task {task.id} is assigned to node {task.node_id}, which is not there")
        if not constraints.node_fits(node, task.spec.placement.constraints):
            raise Violation(f"task {task.id} is assigned to a node that fails its constraints")
        reserved = sum(
            each.spec.resources.reservations.nano_cpus
            for each in (self.tables["task"][id] for id in self.on_node[task.node_id])
            if types.ASSIGNED <= each.status.state <= types.RUNNING
        )
        if reserved > node.description.resources.nano_cpus:
            raise Violation(f"node {node.id} has {node.description.resources.nano_cpus} of {reserved} nanocpus")


def _slot(task: Any) -> tuple[str, int, str]:
    return task.service_id, task.slot, "" if task.slot else task.node_id


def _live(task: Any) -> bool:
    return task.desired_state <= types.RUNNING and task.status.state <= types.RUNNING


def _name(task: Any) -> str:
    return types.TaskState.Name(task.status.state)


class Watcher:
    """Sees every delivery of a simulation."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.model = Model()
        self.raft = Invariants()
        self.entries: dict[int, int] = {}
        self.watched = 0
        self._next: dict[str, int] = {}
        self._chains: dict[str, Chain] = {}
        self._ids: dict[str, int] = {}
        self._pending: dict[tuple[str, int], HardState] = {}
        self._seen: dict[tuple[str, str], tuple[object, int]] = {}
        self._by_type = {
            Entries: self._entries,
            Restore: self._restore,
            Append: self._append,
            Appended: self._appended,
            BeginLog: self._begin,
            LoadLog: self._load,
            RaftStatus: self._status,
            SendRaft: self._send,
            Commits: self._commits,
        }

    @property
    def checked(self) -> Counter[str]:
        """What was checked."""
        return Counter(
            {
                "consensus steps": self.raft.checks,
                "entries": len(self.entries),
                "task changes": self.model.checks,
                "watched commits": self.watched,
            }
        )

    def observe(self, cell: Cell, envelope: Envelope) -> None:
        """One delivery."""
        check = self._by_type.get(envelope[0].__class__)
        if check is not None:
            check(cell, envelope[0])

    # The store

    def _entries(self, cell: Cell, message: Entries) -> None:
        key = cell.stage.name
        for index, _number, data in message.entries:
            expected = self._next.get(key)
            if expected is not None and index != expected:
                raise Violation(f"exactly once: {key} applies entry {index} where {expected} is due")
            self._next[key] = index + 1
            mine = hash(data)
            if self.entries.setdefault(index, mine) != mine:
                raise Violation(f"state-machine safety: {key} applies another entry at {index}")
            if index > self.model.index:
                self.model.apply(index, data, self.simulator.time)

    def _restore(self, cell: Cell, message: Restore) -> None:
        self._next[cell.stage.name] = message.index + 1

    def _commits(self, cell: Cell, message: Commits) -> None:
        """Each watcher hears of commits in their order, each once, in each of its lives. (What outlives the manager
        watches anew in one life, and leaves out by itself what comes twice.)"""
        if not cell.path.startswith(MANAGER):
            return
        key = cell.stage.name, cell.path
        life, last = self._seen.get(key, (None, 0))
        if life is not cell.instance:
            last = 0
        for commit in message.commits:
            self.watched += 1
            if commit.version <= last:
                raise Violation(f"watch: {key} is told of version {commit.version} after {last}")
            last = commit.version
        self._seen[key] = cell.instance, last

    # The consensus

    def _load(self, cell: Cell, message: LoadLog) -> None:
        """What was told and not said to be durable may be lost; the store begins empty."""
        key = cell.stage.name
        self._next.pop(key, None)
        for pending in [each for each in self._pending if each[0] == key]:
            del self._pending[pending]

    def _begin(self, cell: Cell, message: BeginLog) -> None:
        name = cell.stage.world.name
        self._ids[name], self._chains[name] = message.member.raft_id, Chain()
        if message.entries:
            self.raft.appended(message.member.raft_id, self._chains[name], message.entries, leads=False)

    def _append(self, cell: Cell, message: Append) -> None:
        name = cell.stage.world.name
        id = self._ids[name]
        if message.snapshot is not None:
            known = self.raft.logs.get((message.snapshot.index, message.snapshot.term))
            if known is None:
                raise Violation(f"{name} gets a snapshot at {message.snapshot.index}, where nobody had an entry")
            self._chains[name] = Chain(message.snapshot.index, [known])
        if message.entries:
            self.raft.appended(id, self._chains[name], message.entries, leads=False)
        if message.hard_state is not None:
            self._pending[cell.stage.name, message.number] = message.hard_state

    def _appended(self, cell: Cell, message: Appended) -> None:
        state = self._pending.pop((cell.stage.name, message.number), None)
        if state is not None:
            self.raft.kept(self._ids[cell.stage.world.name], state)

    def _send(self, cell: Cell, message: SendRaft) -> None:
        for each in message.messages:
            if each.type is MessageType.VOTE_RESP and not each.reject:
                self.raft.voted(each.from_, each.term, each.to)

    def _status(self, cell: Cell, message: RaftStatus) -> None:
        if not message.leading:
            return
        self.raft.checks += 1
        if self.raft.leaders.setdefault(message.term, message.raft_id) != message.raft_id:
            raise Violation(f"election safety: two leaders in term {message.term}")
        found = cell.stage.cells.get(RAFT)
        core: Any = found.instance.node if found is not None and isinstance(found.instance, RaftActor) else None
        if core is None or core.raft.role is not Role.LEADER or core.raft.term != message.term:
            return  # it was deposed before this was delivered
        if core.raft.log.last_index() < self.model.index:
            raise Violation(
                f"leader completeness: {cell.stage.world.name} leads without applied entry {self.model.index}"
            )
