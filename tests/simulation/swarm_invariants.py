"""What must hold of a whole swarm at every delivery: the consensus as its actors see it, the store, the orchestration.

``Watcher`` is an observer of the simulator. It keeps a reference model of the store, a plain dictionary that every
committed entry is applied to once, whichever manager applies it first; each manager's store must equal it in the end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from actors.raft_actor import RaftActor
from actors.store_actor import StoreActor
from runtime.protocol.raft import Append, Appended, BeginLog, LoadLog, RaftStatus, SendRaft
from runtime.protocol.store import Commits, Entries, Restore, Watch, Write, WriteBatch
from runtime.raft.types import HardState, MessageType, Role
from runtime.stage import Address, Stage
from runtime.stage.cell import Cell
from runtime.stage.mailbox import Envelope
from runtime.stage.simulator import Simulator
from runtime.store.changes import Action, Change, decode_request
from runtime.store.kinds import BY_FIELD, TABLES
from runtime.swarm import constraints
from runtime.swarm.control.clusters import UNLOCK_SUBSYSTEM
from runtime.wire.pb import types_pb2 as types
from tests.simulation.raft_invariants import Chain, Invariants, Violation
from tests.simulation.swarm_use_rules import UseRules
from tests.simulation.swarm_watches import Watches

RAFT_LOG = "/cluster/node/manager/raft/log"
RAFT = "/cluster/node/manager/raft"
STORE = "/cluster/node/manager/store"
WRITES_MAX = 500
BY_KIND = {table.kind: field for field, table in BY_FIELD.items()}


class Model:
    """The store as dictionaries: ``tables[field][id]`` is the object. ``labels`` are the values that the label ``v`` of
    each service ever had, with the time when the entry was first applied; ``changes`` what each entry did;
    ``unlock_keys`` all that there were, each once, the present one last."""

    def __init__(self) -> None:
        self.changes: dict[int, list[Change]] = {}
        self.past: dict[tuple[str, str], list[tuple[int, Any]]] = defaultdict(list)
        self.tables: dict[str, dict[str, Any]] = defaultdict(dict)
        self.labels: dict[tuple[str, str], float] = {}
        self.slots: dict[tuple[str, int, str], set[str]] = defaultdict(set)
        self.on_node: dict[str, set[str]] = defaultdict(set)
        self.unlock_keys: list[bytes] = []
        self.start_first: set[str] = set()
        self.rules = UseRules(self.tables)
        self.index = 0
        self.checks = 0

    def apply(self, index: int, data: bytes, time: float) -> None:
        """One committed entry."""
        if index != self.index + 1:
            raise Violation(f"entry {index} is applied before anybody applied {self.index + 1}")
        self.index = index
        if not data:
            return
        changes = self.changes[index] = []
        for action in decode_request(data).action:
            field = action.WhichOneof("target")
            assert field is not None
            kind, new = Action(action.action), getattr(action, field)
            old = self.tables[field].get(new.id)
            self._change(field, kind, new, time)
            left = None if kind is Action.REMOVE else new
            self.past[field, new.id].append((index, left))
            changes.append(Change(kind, BY_FIELD[field].kind, old, left))

    def at(self, index: int) -> dict[tuple[str, str], Any]:
        """Every object as it was after an entry, by field and id."""
        found = {key: self.object_at(key, index) for key in self.past}
        return {key: each for key, each in found.items() if each is not None}

    def object_at(self, key: tuple[str, str], index: int) -> Any:
        """One object as it was after an entry; None if it was not there."""
        return next((each for at, each in reversed(self.past[key]) if at <= index), None)

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
        if field == "cluster" and action is not Action.REMOVE:
            for key in (each.key for each in new.unlock_keys if each.subsystem == UNLOCK_SUBSYSTEM):
                self.unlock_keys = [*(each for each in self.unlock_keys if each != key), key]
        if field == "service" and new.spec.update.order == types.UpdateConfig.START_FIRST:
            self.start_first.add(new.id)
        self.rules.changed(field, action, old, new, time)

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
            # With start-first an update that another one overtakes leaves the old task and its own, as SwarmKit's does.
            versions = {self.tables["task"][each].spec_version.index for each in live}
            if len(live) > (len(versions) if new.service_id in self.start_first else 1):
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
        self.watches = Watches(self.model.changes)
        self.entries: dict[int, int] = {}
        self.led_since: dict[str, float] = {}
        """Since when each manager, by the name of its life, has known a leader without a break."""
        self.compared = 0
        self._next: dict[str, int] = {}
        self._due: dict[str, tuple[object, int, int]] = {}
        self._chains: dict[str, Chain] = {}
        self._ids: dict[str, int] = {}
        self._pending: dict[tuple[str, int], HardState] = {}
        self._sender: Address | None = None
        self._by_type = {
            Entries: self._entries,
            Restore: self._restore,
            Append: self._append,
            Appended: self._appended,
            BeginLog: self._begin,
            LoadLog: self._load,
            RaftStatus: self._status,
            SendRaft: self._send,
            Watch: lambda cell, message: self.watches.asked(cell, message, self._sender),
            Commits: self.watches.told,
            Write: self._asks_to_write,
            WriteBatch: self._asks_to_write,
        }
        self._writers: dict[tuple[str, Address | None], tuple[int, int]] = {}

    @property
    def checked(self) -> Counter[str]:
        """What was checked."""
        return Counter(
            {
                "consensus steps": self.raft.checks,
                "entries": len(self.entries),
                "task changes": self.model.checks,
                "watched commits": self.watches.heard,
                "objects in stores": self.compared,
            }
        )

    def observe(self, cell: Cell, envelope: Envelope) -> None:
        """One delivery."""
        check = self._by_type.get(envelope[0].__class__)
        if check is not None:
            self._sender = envelope[1]
            check(cell, envelope[0])

    def judge(self, stages: Iterable[Stage]) -> None:
        """What must hold at rest, when nobody has anything left to take in."""
        self.watches.judge(stages, STORE)

    # The store

    def _asks_to_write(self, cell: Cell, _message: Write | WriteBatch) -> None:
        """Nobody writes in a circle: over a write that changed nothing because another is on the way, say."""
        who, second = (cell.stage.name, self._sender), int(self.simulator.time)
        began, count = self._writers.get(who, (second, 0))
        count = count + 1 if began == second else 1
        self._writers[who] = second, count
        if count > WRITES_MAX:
            raise Violation(f"liveness: {who[0]}{self._sender} asks the store {count} times within a second")

    def _entries(self, cell: Cell, message: Entries) -> None:
        self._compare(cell)
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
        self._due[key] = cell.instance, message.entries[0][0], message.entries[-1][0]

    def _compare(self, cell: Cell) -> None:
        """What the last entries that this store was given changed is in it as the reference has it at that index."""
        life, first, last = self._due.pop(cell.stage.name, (None, 0, 0))
        instance: Any = cell.instance
        if not isinstance(instance, StoreActor) or life is not instance:
            return
        view = instance.published.view
        if view.version != last:
            raise Violation(f"{cell.stage.name} stands at {view.version} after entry {last}")
        for index in range(first, last + 1):
            for change in self.model.changes.get(index, ()):
                self.compared += 1
                key = BY_KIND[change.kind], change.object.id
                if view.get(change.kind, key[1]) != self.model.object_at(key, last):
                    raise Violation(f"{cell.stage.name}: {' '.join(key)} is not what entry {last} leaves of it")

    def _restore(self, cell: Cell, message: Restore) -> None:
        """A snapshot is the state at its index, object by object."""
        self._due.pop(cell.stage.name, None)
        self._next[cell.stage.name] = message.index + 1
        self.watches.restored(cell, message.index)
        wanted = self.model.at(message.index)
        for table in TABLES.values():
            for each in message.objects.get(table.kind, ()):
                self.compared += 1
                if wanted.pop((table.field, each.id), None) != each:
                    raise Violation(f"{cell.stage.name}: {table.field} {each.id} of snapshot {message.index} differs")
        if wanted:
            raise Violation(f"{cell.stage.name}: snapshot {message.index} lacks {sorted(wanted)}")

    # The consensus

    def _load(self, cell: Cell, message: LoadLog) -> None:
        """What was told and not said to be durable may be lost; the store begins empty."""
        key = cell.stage.name
        self._next.pop(key, None)
        self.watches.loaded(key)
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
        if message.leader:
            self.led_since.setdefault(cell.stage.name, self.simulator.time)
        else:
            self.led_since.pop(cell.stage.name, None)
        if not message.leading:
            return
        self.raft.checks += 1
        new = message.term not in self.raft.leaders
        if self.raft.leaders.setdefault(message.term, message.raft_id) != message.raft_id:
            raise Violation(f"election safety: two leaders in term {message.term}")
        if not new:
            return  # it says more about the others, and may have been deposed without knowing
        found = cell.stage.cells.get(RAFT)
        core: Any = found.instance.node if found is not None and isinstance(found.instance, RaftActor) else None
        if core is None or core.raft.role is not Role.LEADER or core.raft.term != message.term:
            return  # it was deposed before this was delivered
        if core.raft.log.last_index() < self.model.index:
            raise Violation(
                f"leader completeness: {cell.stage.world.name} leads without applied entry {self.model.index}"
            )
