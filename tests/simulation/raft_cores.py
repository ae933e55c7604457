"""Five consensus cores, their disks, a network and clients, under virtual time: one run for each seed.

A core is a ``RawNode`` with storage threads, driven as RaftActor drives it: what a write promises leaves when it is
durable, committed entries go to a state machine, snapshots are taken and logs compacted. Around it everything fails as
``raft_plan`` says, every step is checked (``raft_invariants``), and after a last phase without faults everybody must
agree, every request must have an outcome, and the history of every key must be linearizable.
"""

from __future__ import annotations

import copy
import dataclasses
import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from runtime.raft.codec import decode_change
from runtime.raft.confchange import ChangeType, ConfChange
from runtime.raft.config import RaftConfig
from runtime.raft.node import RawNode
from runtime.raft.storage import MemoryStorage
from runtime.raft.types import (
    APPEND_THREAD,
    APPLY_THREAD,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    PeerNotFound,
    ProposalDropped,
    ReadState,
    Role,
    Snapshot,
)
from tests.simulation.linearizable import Operation, linearizable
from tests.simulation.plan import Planned, draw, without
from tests.simulation.raft_invariants import Chain, Invariants, Violation
from tests.simulation.raft_plan import KINDS

TICK = 0.4
ELECTION_TICKS = 10
SECONDS = 60.0
SETTLE = 60.0
LATENCY = 0.002
CLIENTS = 4
KEYS = ("a", "b", "c")
THINK = 0.5
PATIENCE = 5.0
FOUNDERS = (1, 2, 3, 4, 5)


@dataclasses.dataclass(slots=True)
class Request:
    """One operation of a client; ``at`` is the core that it was put to, ``end`` when its outcome was known."""

    number: int
    client: int
    key: str
    write: bool
    call: float
    at: Core
    life: int
    end: float = math.inf
    value: Any = None
    refused: bool = False

    @property
    def open(self) -> bool:
        return self.end == math.inf and not self.refused


@dataclasses.dataclass(slots=True)
class _Write:
    entries: Sequence[Entry]
    state: HardState | None
    snapshot: Snapshot | None
    responses: list[Message]


class Core:
    """One member: what lasts (``image``), what it believes to last (``storage``), and its life."""

    def __init__(self, simulation: RaftSimulation, id: int, founder: bool) -> None:
        self.simulation = simulation
        self.id = id
        self.image = MemoryStorage()
        if founder:
            self.image.apply_snapshot(Snapshot(1, 1, ConfState(FOUNDERS), msgpack.packb({})))
            self.image.hard_state = HardState(1, 0, 1)
        self.life = 0
        self.alive = False
        self.paused_until = 0.0
        self.sync_delay = 0.0
        self.rate = 1.0
        self.lying = False
        self.removed = False

    # Life

    def start(self) -> None:
        self.life += 1
        self.alive = True
        simulation, image = self.simulation, self.image
        self.storage = copy.deepcopy(image) if self.lying else _copy(image)
        snapshot = image.last_snapshot
        self.applied = snapshot.index
        self.state: dict[str, int] = msgpack.unpackb(snapshot.data) if snapshot.data else {}
        self.conf_state = snapshot.conf_state
        self.writes: deque[_Write] = deque()
        self.busy_until = 0.0
        self.known = self.written = image.hard_state
        self.reads: list[tuple[int, Request]] = []
        self.open_reads: dict[bytes, Request] = {}
        self.open_writes: dict[int, Request] = {}
        self.role = Role.FOLLOWER
        self.chain = self._load_chain()
        simulation.invariants.loaded(self.id, image.hard_state)
        self.node = RawNode(
            RaftConfig(
                id=self.id,
                storage=self.storage,
                election_tick=ELECTION_TICKS,
                applied=self.applied,
                async_storage_writes=True,
                max_size_per_msg=1 if simulation.one_entry else 65535,
                max_inflight_msgs=2 if simulation.one_entry else 256,
                random=random.Random(f"{simulation.seed}/{self.id}/{self.life}"),
            )
        )
        life = self.life
        simulation.after(TICK * simulation.rng.random(), lambda: self._tick(life))
        self.pump()

    def _load_chain(self) -> Chain:
        image, logs = self.image, self.simulation.invariants.logs
        base = image.first_index() - 1
        chain = Chain(base, [logs.get((base, image.term(base)), 0) if base else 0])
        entries = image.all_entries()
        if entries:
            self.simulation.invariants.appended(self.id, chain, entries, leads=False)
        return chain

    def crash(self, mode: str) -> None:
        """Ends this life. Of the writes under way all have reached the disk (``kill``), none (``lost``), or some."""
        if not self.alive:
            return
        self.alive = False
        reached = {"kill": len(self.writes), "lost": 0}.get(mode, self.simulation.rng.randint(0, len(self.writes)))
        for write in list(self.writes)[:reached]:
            _keep(self.image, write)
        self.writes.clear()

    def _tick(self, life: int) -> None:
        if life == self.life and self.alive:
            self.simulation.after(TICK / self.rate, lambda: self._tick(life))
            self.simulation.run_on(self, life, self._ticked)

    def _ticked(self) -> None:
        self.node.tick()
        if not self.writes and self.known != self.written:
            self._write((), None, [])
        self.pump()

    # The core's wishes

    def receive(self, message: Message) -> None:
        try:
            self.node.step(message)
        except PeerNotFound:
            return
        self.pump()

    def pump(self) -> None:
        node = self.node
        while node.has_ready():
            ready = node.ready()
            if ready.soft_state is not None:
                self._role_changed(ready.soft_state.role)
            if ready.read_states:
                self._note_reads(ready.read_states)
            for message in ready.messages:
                if message.to == APPEND_THREAD:
                    self._persist(message)
                elif message.to == APPLY_THREAD:
                    self._apply(message)
                else:
                    self.send(message)
        if self.reads:
            self._answer_reads()

    def _role_changed(self, role: Role) -> None:
        if role is Role.LEADER and self.role is not Role.LEADER:
            self.simulation.elected(self)
        if self.role is Role.LEADER and role is not Role.LEADER:
            self.open_writes.clear()
            self.open_reads.clear()
        self.role = role

    def send(self, message: Message) -> None:
        if message.type is MessageType.VOTE_RESP and not message.reject:
            self.simulation.invariants.voted(self.id, message.term, message.to)
        self.simulation.send(message)

    def _persist(self, message: Message) -> None:
        state = HardState(message.term, message.vote, message.commit)
        if not state.empty:
            self.known = state
        if message.snapshot is not None:
            known = self.simulation.invariants.logs[message.snapshot.index, message.snapshot.term]
            self.chain = Chain(message.snapshot.index, [known])
        if message.entries:
            leads = self.role is Role.LEADER and self.node.raft.role is Role.LEADER
            self.simulation.invariants.appended(self.id, self.chain, message.entries, leads)
        promises = (self.known.term, self.known.vote) != (self.written.term, self.written.vote)
        if message.entries or message.snapshot is not None or promises:
            self._write(message.entries, message.snapshot, list(message.responses))
        elif self.writes:
            self.writes[-1].responses += message.responses
        else:
            self._answer(message.responses)

    def _write(self, entries: Sequence[Entry], snapshot: Snapshot | None, responses: list[Message]) -> None:
        simulation, life = self.simulation, self.life
        state = self.known if self.known != self.written else None
        self.written = self.known
        self.writes.append(_Write(entries, state, snapshot, responses))
        delay = simulation.rng.random() * 0.002 + self.sync_delay
        self.busy_until = max(self.busy_until, simulation.time) + delay
        simulation.after(self.busy_until - simulation.time, lambda: simulation.run_on(self, life, self._durable))

    def catch_up(self) -> None:
        """A disk that was slow is so no longer: what waits for it is written soon, whatever it was to take."""
        self.busy_until = min(self.busy_until, self.simulation.time)
        for _ in range(len(self.writes)):
            self.simulation.after(0.002, lambda life=self.life: self.simulation.run_on(self, life, self._durable))

    def _durable(self) -> None:
        if not self.writes:
            return  # written before its time, by a disk that caught up
        write = self.writes.popleft()
        if not self.lying:
            _keep(self.image, write)
        if write.state is not None:
            self.simulation.invariants.kept(self.id, write.state)
        _keep(self.storage, write)
        if write.snapshot is not None:
            self.applied = write.snapshot.index
            self.state = msgpack.unpackb(write.snapshot.data)
            self.conf_state = write.snapshot.conf_state
        self._answer(write.responses)
        self.pump()

    def _answer(self, responses: Sequence[Message]) -> None:
        for response in responses:
            if response.to == self.id:
                if response.type is MessageType.VOTE_RESP and not response.reject:
                    # Its own vote is one from here on. Others may make it the leader before, whose votes are durable
                    # then; what it has for itself counts with the disk, and may be lost and given to somebody else.
                    self.simulation.invariants.voted(self.id, response.term, self.id)
                self.node.step(response)
            else:
                self.send(response)

    # The state machine

    def _apply(self, message: Message) -> None:
        simulation = self.simulation
        for entry in message.entries:
            simulation.invariants.apply(self.id, entry, self.chain)
            if entry.type is not EntryType.NORMAL:
                self.conf_state = self.node.apply_conf_change(decode_change(entry))
                simulation.reconfigured(self.conf_state, entry.index)
            elif entry.data:
                number, key = msgpack.unpackb(entry.data)
                simulation.applied(number, entry.index)
                self.state[key] = number
                request = self.open_writes.pop(number, None)
                if request is not None:
                    simulation.finish(request, number)
        self.applied = message.entries[-1].index
        self._answer(message.responses)
        # A new member takes no snapshot that does not know it: one that does must be there to be sent.
        unknown = set(self.conf_state.voters) - set(self.storage.last_snapshot.conf_state.voters)
        if unknown or self.applied - self.storage.last_snapshot.index >= simulation.snapshot_interval:
            self._take_snapshot()

    def _take_snapshot(self) -> None:
        index = self.applied
        snapshot = Snapshot(index, self.storage.term(index), self.conf_state, msgpack.packb(self.state))
        for storage in (self.storage, self.image):
            if storage.last_index() >= index:
                storage.keep_snapshot(snapshot)
                state = storage.hard_state  # what a snapshot holds is committed, and is kept as that with it
                storage.hard_state = dataclasses.replace(state, commit=max(state.commit, index))
                keep_after = index - self.simulation.kept_entries
                if keep_after >= storage.first_index():
                    storage.compact(keep_after)

    # Clients

    def put(self, request: Request) -> None:
        """A client's request to a core that leads, unless it was deposed before it came to it: nothing is forwarded."""
        if self.role is not Role.LEADER or self.node.raft.role is not Role.LEADER:
            request.refused = True
            return
        try:
            if request.write:
                self.open_writes[request.number] = request
                self.node.propose(msgpack.packb((request.number, request.key)))
            else:
                context = request.number.to_bytes(8, "big")
                self.open_reads[context] = request
                self.node.read_index(context)
        except ProposalDropped:
            self.open_writes.pop(request.number, None)
            request.refused = True
        self.pump()

    def _note_reads(self, states: Sequence[ReadState]) -> None:
        for state in states:
            request = self.open_reads.pop(state.context, None)
            if request is not None:
                self.reads.append((state.index, request))

    def _answer_reads(self) -> None:
        for index, request in self.reads:
            if index <= self.applied:
                self.simulation.finish(request, self.state.get(request.key))
        self.reads = [each for each in self.reads if each[0] > self.applied]


def _copy(storage: MemoryStorage) -> MemoryStorage:
    """The same content in lists of its own."""
    twin = copy.copy(storage)
    twin._entries = list(storage._entries)
    return twin


def _keep(storage: MemoryStorage, write: _Write) -> None:
    if write.snapshot is not None:
        storage.apply_snapshot(write.snapshot)
    storage.append(write.entries)
    if write.state is not None:
        commit = max(write.state.commit, storage.last_snapshot.index)
        storage.hard_state = dataclasses.replace(write.state, commit=commit)


class RaftSimulation:
    """One run. ``faults`` replaces what the seed draws; ``lying`` cores say that they wrote and did not: only to prove
    that the checks notice."""

    def __init__(
        self, seed: int, faults: Sequence[Planned] | None = None, skip: frozenset[int] = frozenset(), lying: int = 0
    ) -> None:
        self.seed = seed
        self.faults = draw(random.Random(f"{seed}/faults"), KINDS, SECONDS) if faults is None else list(faults)
        self.faults = without(self.faults, skip)
        self.rng = random.Random(seed)
        self.time = 0.0
        self.deliveries = 0
        self.last: deque[str] = deque(maxlen=200)
        self.injected: Counter[str] = Counter()
        self.invariants = Invariants()
        self.invariants.logs[1, 1] = 1
        self.one_entry = any(fault.kind == "one-entry messages" for fault in self.faults)
        frequent = any(fault.kind == "frequent snapshots" for fault in self.faults)
        self.snapshot_interval, self.kept_entries = (7, 2) if frequent else (150, 40)
        self.requests: list[Request] = []
        self.places: dict[int, tuple[int, float]] = {}
        self.loss: Counter[float] = Counter()
        self.duplication: Counter[float] = Counter()
        self.reordering: Counter[float] = Counter()
        self.blocked: Counter[tuple[int, int]] = Counter()
        self.clogged: Counter[int] = Counter()
        self.held: list[Message] = []
        self.cores = {id: Core(self, id, founder=True) for id in FOUNDERS}
        for id in FOUNDERS[:lying]:
            self.cores[id].lying = True
        self.voters: tuple[int, ...] = FOUNDERS
        self.faulty = True
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = 0
        self.histories = 0
        self._next_id = 100
        self._conf_index = 1

    @property
    def checked(self) -> Counter[str]:
        """What was checked of this run."""
        done = sum(1 for request in self.requests if not request.open)
        return Counter({"operations": done, "steps": self.invariants.checks, "histories": self.histories})

    # Time

    def after(self, delay: float, call: Callable[[], None]) -> None:
        self._numbers += 1
        heapq.heappush(self._heap, (self.time + delay, self._numbers, call))

    def run_on(self, core: Core, life: int, call: Callable[[], None]) -> None:
        """Runs something on a core in the life that it was meant for, later if the core is held still."""
        if not core.alive or core.life != life:
            return
        if core.paused_until > self.time:
            self.after(core.paused_until - self.time, lambda: self.run_on(core, life, call))
        else:
            call()

    def run_to(self, time: float, stop: Callable[[], bool] | None = None) -> bool:
        heap = self._heap
        while heap and heap[0][0] <= time:
            self.time, _, call = heapq.heappop(heap)
            call()
            if stop is not None and stop():
                return True
        self.time = time
        return False

    # The network

    def send(self, message: Message) -> None:
        rng, pair = self.rng, (message.from_, message.to)
        if self.clogged and (self.clogged[pair[0]] or self.clogged[pair[1]]):
            self.held.append(message)
            return
        if self.blocked and self.blocked[pair]:
            self._lost(message)
            return
        if self.loss and rng.random() < max(self.loss):
            self._lost(message)
            return
        delay = LATENCY * (0.5 + rng.random())
        if self.reordering and rng.random() < max(self.reordering):
            delay *= 10.0 * rng.random()
        self.after(delay, lambda: self._deliver(message))
        if self.duplication and rng.random() < max(self.duplication):
            twin = dataclasses.replace(message)
            self.after(LATENCY * 20.0 * rng.random(), lambda: self._deliver(twin))

    def _lost(self, message: Message) -> None:
        sender = self.cores.get(message.from_)
        if sender is not None and message.to in self.cores:
            self.after(LATENCY, lambda: self.run_on(sender, sender.life, lambda: self._report(sender, message)))

    def _report(self, sender: Core, message: Message) -> None:
        if message.type is MessageType.SNAP:
            sender.node.report_snapshot(message.to, False)
        sender.node.report_unreachable(message.to)
        sender.pump()

    def _deliver(self, message: Message) -> None:
        core = self.cores.get(message.to)
        if core is None or not core.alive:
            self._lost(message)
            return
        self.deliveries += 1
        self.last.append(
            f"{self.time:.4f} {message.from_:x} -> {message.to:x} {message.type.name} term {message.term} "
            f"index {message.index} commit {message.commit} +{len(message.entries)}{' reject' * message.reject}"
        )
        self.run_on(core, core.life, lambda: core.receive(message))
        if message.type is MessageType.SNAP:
            sender = self.cores[message.from_]
            self.run_on(sender, sender.life, lambda: self._reported(sender, message.to))

    def _reported(self, sender: Core, to: int) -> None:
        sender.node.report_snapshot(to, True)
        sender.pump()

    # What cores tell

    def elected(self, core: Core) -> None:
        raft = core.node.raft
        self.invariants.elected(core.id, raft.term, core.chain, raft.term)

    def applied(self, number: int, index: int) -> None:
        place = self.places.setdefault(number, (index, self.time))
        if place[0] != index:
            raise Violation(f"exactly once: request {number} is applied at {place[0]} and at {index}")

    def finish(self, request: Request, value: Any) -> None:
        if request.open:
            request.end, request.value = self.time, value

    def reconfigured(self, state: ConfState, index: int) -> None:
        """A change was applied, by the first core to do so: new members start, removed ones end after a while."""
        if index <= self._conf_index:
            return
        self._conf_index, self.voters = index, state.voters
        for id in state.voters:
            if id not in self.cores:
                self.cores[id] = Core(self, id, founder=False)
                self.cores[id].start()
        for id, other in self.cores.items():
            if id not in state.voters and not other.removed:
                other.removed = True
                self.after(5.0, lambda other=other: other.crash("lost"))  # type: ignore[misc]

    # The run

    def run(self) -> RaftSimulation:
        """Everything; raises Violation with what does not hold."""
        for core in list(self.cores.values()):
            core.start()
        for fault in self.faults:
            self.after(fault.at, lambda fault=fault: self._inject(fault))  # type: ignore[misc]
        for client in range(CLIENTS):
            self._next_request(client, 2.0)
        self.run_to(SECONDS)
        self._settle()
        self._judge()
        return self

    def _next_request(self, client: int, start: float = 0.0) -> None:
        self.after(start + self.rng.expovariate(1.0 / THINK), lambda: self._request(client))

    def _request(self, client: int) -> None:
        if not self.faulty:
            return
        leaders = [core for core in self.cores.values() if core.alive and core.role is Role.LEADER]
        if not leaders:
            self._next_request(client)
            return
        core = self.rng.choice(leaders)
        number = len(self.requests) + 1
        request = Request(number, client, self.rng.choice(KEYS), self.rng.random() < 0.6, self.time, core, core.life)
        self.requests.append(request)
        self.run_on(core, core.life, lambda: core.put(request))
        deadline = self.time + PATIENCE

        def look() -> None:
            if request.open and self.time < deadline and core.alive and core.life == request.life:
                self.after(0.05, look)
            else:
                self._next_request(client)

        self.after(0.01, look)

    def _settle(self) -> None:
        """No faults any more: there must be a leader soon, and agreement, and an outcome for every request."""
        self.faulty = False
        self._mend()
        began = self.time
        limit = began + 10 * ELECTION_TICKS * TICK
        if not self.run_to(limit, lambda: any(c.alive and c.role is Role.LEADER for c in self._members())):
            raise Violation(f"liveness: no leader within {limit - began:g} s without faults")
        if not self.run_to(began + SETTLE, self._agreed):
            states = {f"{c.id:x}": (c.role.value, c.node.raft.term, c.applied) for c in self._members()}
            raise Violation(f"liveness: no agreement within {SETTLE:g} s without faults: {states}")

    def _members(self) -> list[Core]:
        return [self.cores[id] for id in self.voters if id in self.cores]

    def _agreed(self) -> bool:
        members = self._members()
        last = {core.node.raft.log.last_index() for core in members if core.alive}
        return (
            len(last) == 1
            and all(core.alive and core.applied in last for core in members)
            and any(core.role is Role.LEADER for core in members)
        )

    def _mend(self) -> None:
        for counter in (self.loss, self.duplication, self.reordering, self.blocked, self.clogged):
            counter.clear()
        held, self.held = self.held, []
        for message in held:
            self.send(message)
        for core in list(self.cores.values()):
            core.sync_delay, core.rate = 0.0, 1.0
            core.catch_up()
            core.paused_until = min(core.paused_until, self.time)
            if not core.alive and not core.removed:
                core.start()

    def _judge(self) -> None:
        states = {tuple(sorted(core.state.items())) for core in self._members()}
        if len(states) != 1:
            raise Violation(f"the members' states differ: {states}")
        for request in self.requests:
            if request.write and not request.open and not request.refused and request.number not in self.places:
                raise Violation(f"durability: request {request.number} was acknowledged and is not applied")
        for key in KEYS:
            if not linearizable(self.history(key)):
                raise Violation(f"the history of key {key} is not linearizable")
            self.histories += 1

    def history(self, key: str) -> list[Operation]:
        """What happened to a key. The log decides about writes without an outcome: they took effect or never will."""
        history = []
        for request in self.requests:
            if request.key != key or request.refused or (not request.write and request.open):
                continue
            if request.write and request.number not in self.places:
                continue
            end = request.end if not request.open else max(self.places[request.number][1], request.call)
            value = request.number if request.write else request.value
            history.append(Operation(request.call, end, request.write, value, request.client))
        return history

    # Faults

    def _inject(self, fault: Planned) -> None:
        if not self.faulty:
            return
        done = getattr(self, "_" + fault.kind.replace(" ", "_").replace("-", "_"))(fault)
        if done is not False:
            self.injected[fault.kind] += 1

    def _core(self, fault: Planned) -> Core | None:
        """The member that a fault is meant for, if it is there and up."""
        members = self._members()
        core = members[fault.args["member"] % len(members)] if members else None
        return core if core is not None and core.alive else None

    def _while(self, counter: Counter[Any], keys: Sequence[Any], seconds: float) -> None:
        for key in keys:
            counter[key] += 1

        def end() -> None:
            for key in keys:
                counter[key] -= 1
                if counter[key] <= 0:
                    del counter[key]

        self.after(seconds, lambda: end() if self.faulty else None)

    def _loss(self, fault: Planned) -> None:
        self._while(self.loss, [fault.args["rate"]], fault.seconds)

    def _duplication(self, fault: Planned) -> None:
        self._while(self.duplication, [fault.args["rate"]], fault.seconds)

    def _reordering(self, fault: Planned) -> None:
        self._while(self.reordering, [fault.args["rate"]], fault.seconds)

    def _ids(self, places: Sequence[int]) -> set[int]:
        members = self._members()
        return {members[place % len(members)].id for place in places}

    def _cut(self, here: set[int], seconds: float, back: bool = True) -> None:
        pairs = [(one, other) for one in sorted(here) for other in sorted(self.cores) if other not in here]
        self._while(self.blocked, [*pairs, *((other, one) for one, other in pairs if back)], seconds)

    def _partition(self, fault: Planned) -> None:
        self._cut(self._ids(fault.args["members"]), fault.seconds)

    def _one_way_partition(self, fault: Planned) -> None:
        self._cut(self._ids(fault.args["members"]), fault.seconds, back=False)

    def _partial_partition(self, fault: Planned) -> bool | None:
        ids = sorted(self._ids((fault.args["member"], fault.args["other"])))
        if len(ids) < 2:
            return False
        self._while(self.blocked, [(ids[0], ids[1]), (ids[1], ids[0])], fault.seconds)
        return None

    def _leader_cut_off(self, fault: Planned) -> bool | None:
        leaders = [core.id for core in self.cores.values() if core.alive and core.role is Role.LEADER]
        if not leaders:
            return False
        self._cut(set(leaders[:1]), fault.seconds)
        return None

    def _clog(self, fault: Planned) -> None:
        ids = sorted(self._ids(fault.args["members"]))
        self._while(self.clogged, ids, fault.seconds)

        def release() -> None:
            held, self.held = self.held, []
            self.rng.shuffle(held)
            for message in held:
                self.send(message)

        self.after(fault.seconds + 0.0001, release)

    def _crash(self, fault: Planned) -> bool | None:
        core = self._core(fault)
        if core is None:
            return False
        self._down(core, fault.args["mode"], fault.seconds)
        return None

    def _down(self, core: Core, mode: str, seconds: float) -> None:
        core.crash(mode)
        life = core.life
        self.after(seconds, lambda: None if core.alive or core.life != life or core.removed else core.start())

    def _crash_of_all(self, fault: Planned) -> None:
        for core in [core for core in self.cores.values() if core.alive]:
            self._down(core, fault.args["mode"], fault.seconds * self.rng.random())

    def _pause(self, fault: Planned) -> bool | None:
        core = self._core(fault)
        if core is None:
            return False
        core.paused_until = max(core.paused_until, self.time + fault.seconds)
        return None

    _starvation = _pause

    def _drift(self, fault: Planned) -> bool | None:
        core = self._core(fault)
        if core is None:
            return False
        core.rate = fault.args["rate"]
        return None

    def _slow_disk(self, fault: Planned) -> bool | None:
        core = self._core(fault)
        if core is None:
            return False
        core.sync_delay = fault.args["sync"]
        self.after(fault.seconds, lambda: setattr(core, "sync_delay", 0.0))
        return None

    def _sync_error(self, fault: Planned) -> bool | None:
        """The write fails; what the manager does then is to begin again from the disk."""
        core = self._core(fault)
        if core is None:
            return False
        self._down(core, "torn", fault.seconds)
        return None

    def _leader_transfer(self, fault: Planned) -> bool | None:
        target = self._core(fault)
        leaders = [core for core in self.cores.values() if core.alive and core.role is Role.LEADER]
        if target is None or not leaders or leaders[0].paused_until > self.time:
            return False
        leaders[0].node.transfer_leader(target.id)
        leaders[0].pump()
        return None

    def _member_removed(self, fault: Planned) -> bool | None:
        """A member leaves for good; another with a new id comes in its place after a while."""
        leaders = [core for core in self.cores.values() if core.alive and core.role is Role.LEADER]
        target = self._core(fault)
        if not leaders or target is None or target is leaders[0] or len(self.voters) < 4:
            return False
        if not self._change(leaders[0], ChangeType.REMOVE_NODE, target.id):
            return False
        self._next_id += 1
        new = self._next_id

        def add() -> None:
            leading = [core for core in self.cores.values() if core.alive and core.role is Role.LEADER]
            if self.faulty and leading and len(self.voters) < 5:
                self._change(leading[0], ChangeType.ADD_NODE, new)

        self.after(fault.seconds, add)
        return None

    def _change(self, leader: Core, kind: ChangeType, id: int) -> bool:
        if leader.paused_until > self.time:
            return False
        try:
            leader.node.propose_conf_change(ConfChange(((kind, id),), v1=True))
        except ProposalDropped:
            return False
        leader.pump()
        return True

    def _one_entry_messages(self, fault: Planned) -> None:
        """Set before the cores started."""

    def _frequent_snapshots(self, fault: Planned) -> None:
        """Set before the cores started."""
