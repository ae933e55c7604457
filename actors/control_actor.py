"""ControlActor is SwarmKit's Control service: the engine's own calls as messages, and those of the wire.

Who talks to it: the cluster layer (``Control``), other processes over the control socket and the remote port. Reads
are answered from the newest committed view; writes are prepared here, run by StoreActor, and answered by it. Where
this manager does not lead, a write goes to the leader as it is, and is answered once this manager's own store has it;
a read waits until that store holds what was acknowledged before, at any manager, as long as the leader can be asked.
One that was surely never proposed, because this manager ceased to lead before, is made once more where it can be.
A service is answered once the allocator has moved its version, or a moment later. It decides nothing:
``runtime/swarm/control`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import Message

from actors.root_decision import RootDecision
from runtime.disk.ballast import DISK_FULL, Space
from runtime.errors import Code, Refused
from runtime.pki.certificates import certificate_expiry
from runtime.pki.rotation import DecidedRoot, decide_root
from runtime.pki.signing import unlock_key_of
from runtime.pki.unlock_key import format_unlock_key
from runtime.protocol.cluster import Control, GetWarnings, ReadBarrier, Standing, UnlockKey
from runtime.protocol.manager import LEADS_HERE, AuthorityTrouble, DiskSpace, LeaderIs, MembersChanged, Serve, ToLeader
from runtime.protocol.node import CheckHealth
from runtime.protocol.raft import MemberStatus, ReadIndex, SpreadCommit
from runtime.protocol.store import AwaitView, Write
from runtime.protocol.wire import Incoming
from runtime.stage import Actor, ActorUnavailable, Address, Answer, Policy, Reply, handles
from runtime.store.view import Published, View
from runtime.swarm import constraints
from runtime.swarm.control import METHODS, Context, Member, Read
from runtime.swarm.control.applied import applied, settled
from runtime.swarm.dirty import is_dirty
from runtime.swarm.membership import LOST_LEADERSHIP, NO_LEADER_MAX, NO_QUORUM, OUTCOME_UNKNOWN, survives_without
from runtime.swarm.offered import check_offered
from runtime.swarm.raft_pace import pace_warning
from runtime.swarm.sleeping_labels import sleeping_labels
from runtime.swarm.task_model import the_cluster
from runtime.swarm.troubles import authority_warning, warnings
from runtime.wire.authorise import REDIRECT, check_redirect
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from runtime.wire.port import Credentials
from runtime.wire.services import path

CONTROL_API = "ControlAPI"
ELSEWHERE_WAIT = 25.0
APPLIED_WAIT = 10.0
SETTLED_WAIT = 0.5  # for ports and addresses: where there are none, the service is answered without
BARRIER_WAIT = 15.0
FRESH_WAIT = 3.0
"""Seconds for which a read waits to be sure of the newest writes: an election of managers that tick fast fits in."""
OUT_OF_TOUCH_WAIT = 0.25
"""The same after that was in vain, until it succeeds again."""
LEADER_PAUSE = 0.5
NEVER_PROPOSED = frozenset({(Code.UNAVAILABLE, LOST_LEADERSHIP), (Code.UNKNOWN, NO_QUORUM)})

Settle = Callable[[Answer, Reply], None]


@dataclass(frozen=True, slots=True)
class _NeverProposed:
    """Told by whoever hears the store's refusal: a write of ours that changed nothing, and may be made again."""

    control: Control
    reply: Reply


@dataclass(frozen=True, slots=True)
class _Again:
    """Question to oneself: a call once more, and no more than that."""

    control: Control


@dataclass(eq=False, slots=True)
class _Held:
    """A write that was sent to the leader, whose answer says that it is carried out; or a service that is still to get
    its ports and addresses."""

    reply: Reply
    answer: Message | None = None


@dataclass(frozen=True, slots=True)
class _ReadNow:
    """Question to oneself: a read of what this manager's store holds by now."""

    read: Callable[[View], Any]


class _TryAgain:
    """Time to make what was never proposed once more, although nothing was heard of a new leader."""


class ControlActor(Actor):
    """``store`` takes writes, ``published`` holds what reads see; ``proxy`` reaches the leader, where there may be
    another, and ``consensus`` knows how far a view must have come."""

    policy = Policy()

    def __init__(
        self,
        node_id: str,
        store: Address,
        published: Published,
        credentials: Credentials | None = None,
        proxy: Address | None = None,
        consensus: Address | None = None,
    ) -> None:
        super().__init__()
        self.credentials = credentials
        self.store = store
        self.published = published
        self.proxy = proxy
        self.consensus = consensus
        self.leads = proxy is None
        self.ready = False
        self.space = Space.AMPLE
        self.authority = AuthorityTrouble("")
        self._nobody_since: float | None = None
        self._in_touch = True
        self._reading: dict[Reply, None] = {}
        self._health: list[Reply] = []
        self._again: list[_NeverProposed] = []
        self._held: dict[_Held, None] = {}
        self._node_id = node_id
        self._context: Context | None = None

    def started(self) -> None:
        self._see_members({})

    def stopped(self) -> None:
        for reply in self._health:
            reply.set(False)
        for reply in self._reading:
            reply.fail(ActorUnavailable(f"{self.address.path} has ended"))
        for each in self._again:
            each.reply.fail(Refused(Code.UNAVAILABLE, LOST_LEADERSHIP))
        for held in self._held:  # a manager that demotes itself ends before its own store shows it
            if held.answer is not None:
                held.reply.set(held.answer)
            else:
                held.reply.fail(Refused(Code.UNKNOWN, OUTCOME_UNKNOWN))

    def crashed(self) -> None:
        self.stopped()

    def snapshot(self) -> dict[str, Any]:
        return {"ready": self.ready, "leads": self.leads, "in touch": self._in_touch, "space": self.space.value}

    @handles(MembersChanged)
    def members_changed(self, message: MembersChanged) -> None:
        """Who the managers are."""
        self._see_members(message.members)

    def _see_members(self, members: Mapping[int, MemberStatus]) -> None:
        world = self.world
        self._context = Context(
            node_id=self._node_id,
            entropy=world.entropy,
            rng=world.random,
            is_dirty=is_dirty,
            parse_constraints=constraints.parse,
            members={each.node_id: _member(each) for each in members.values()},
            can_remove=lambda raft_id: survives_without(members.values(), raft_id),
            certificate_expiry=certificate_expiry,
            autolock=True,
            host_subnets=world.host_subnets,
        )

    @handles(LeaderIs)
    def leader_is(self, message: LeaderIs) -> None:
        """Whether writes are for this manager's own store, and whether anybody leads."""
        self.leads = message.here
        if not message.here:
            self.authority = AuthorityTrouble("")  # it is another manager's authority now, and its to tell
        if message.here or message.addr:
            self._nobody_since = None
        elif self._nobody_since is None:
            self._nobody_since = self.monotonic()
        self._make_again()

    @handles(Serve)
    def serve(self, message: Serve) -> None:
        """The cluster is there to be asked about, or no longer."""
        self.ready = message.ready
        if self.ready:
            waiting, self._health = self._health, []
            for reply in waiting:
                reply.set(True)

    @handles(DiskSpace)
    def disk_space(self, message: DiskSpace) -> None:
        """Whether changes are taken."""
        self.space = message.space

    @handles(AuthorityTrouble)
    def authority_trouble(self, message: AuthorityTrouble) -> None:
        """Whether external CAs sign, while this manager leads."""
        self.authority = message if self.leads else AuthorityTrouble("")

    @handles(CheckHealth)
    def check_health(self, message: CheckHealth) -> bool | None:
        """True once it serves; whoever asks earlier is answered then."""
        if message.service != CONTROL_API:
            return False
        if self.ready:
            return True
        self._health.append(self.defer())
        return None

    @handles(Control)
    def control(self, message: Control) -> Message | None:
        """A call from this process."""
        return self._call(message.method, message.request, self._once_more(message))

    @handles(_Again)
    def again(self, message: _Again) -> Message | None:
        """A call that was never proposed when it was made first."""
        return self._call(message.control.method, message.control.request, _as_it_is)

    @handles(GetWarnings)
    def warnings(self, message: GetWarnings) -> Standing:
        """What an operator has to hear of, read from the newest committed view."""
        full = () if self.space is Space.AMPLE else (DISK_FULL,)
        since = self._nobody_since
        lost = since is not None and self.monotonic() - since >= NO_LEADER_MAX
        error = Refused(Code.UNKNOWN, NO_QUORUM).rpc_text if lost else ""
        assert self._context is not None
        view, members = self.published.view, self._context.members
        leader = next((node_id for node_id, member in members.items() if member.leader), "")
        others = [each for each in (pace_warning(view, members), sleeping_labels(view, leader)) if each]
        authority = authority_warning(self.authority.text, self.authority.waiting)
        return Standing((*full, *others, *authority, *warnings(view)), error)

    @handles(UnlockKey)
    def unlock_key(self, message: UnlockKey) -> str | None:
        """The managers' unlock key as people copy it; empty while they do not lock themselves."""
        key: str | None = self._read(_unlock_key)
        return key

    @handles(ReadBarrier)
    def read_barrier(self, message: ReadBarrier) -> None:
        """Answers once this manager's own view holds every write that was acknowledged before."""
        self._newest(self.defer().pass_on, BARRIER_WAIT)

    def _newest(self, then: Callable[[Answer], None], patience: float) -> None:
        """Goes on with the index of this manager's view once that holds every write acknowledged by now, or with what
        was in the way for ``patience`` seconds."""
        assert self.consensus is not None, "a barrier needs a consensus to ask"
        until = self.monotonic() + patience

        def known(answer: Answer) -> None:
            if answer.error is not None:
                then(answer)
                return
            rest = max(until - self.monotonic(), 0.0)
            self.ask(self.store, AwaitView(lambda view: view.version >= answer.value, rest), then, rest)

        self.ask(self.consensus, ReadIndex(), known, patience)

    def _read(self, read: Callable[[View], Any]) -> Any:
        """What it finds in the newest view. Where another manager leads that is found later; without its word in time
        the answer is what is known here."""
        if self.leads or self.consensus is None:
            return read(self.published.view)
        reply = self.defer()
        self._reading[reply] = None
        patience = FRESH_WAIT if self._in_touch else OUT_OF_TOUCH_WAIT

        def known(answer: Answer) -> None:
            self._in_touch = answer.error is None
            del self._reading[reply]
            self.address.send(_ReadNow(read), self.address, reply, self._trace)

        self._newest(known, patience)
        return None

    @handles(_ReadNow)
    def read_now(self, message: _ReadNow) -> Any:
        """Answers a read that has waited for the newest writes."""
        return message.read(self.published.view)

    @handles(Incoming)
    def incoming(self, message: Incoming) -> Message | None:
        """A call from elsewhere."""
        name = message.call.method.rpartition("/")[2]
        if not self.leads and not isinstance(METHODS.get(name), Read):
            check_redirect(message.call.metadata)
        request = message.call.request
        if REDIRECT in message.call.metadata:
            return self._call(name, request, _told_so, forwarded=True)
        return self._call(name, request, self._once_more(Control(name, request)))

    def _spread(self) -> None:
        """The manager that forwarded a write waits until its own store has it. Runs in the store's turn."""
        if self.consensus is not None:
            self.consensus.tell(SpreadCommit())

    def _call(self, name: str, request: Message, unproposed: Settle, forwarded: bool = False) -> Message | None:
        method = METHODS.get(name)
        if method is None:
            raise Refused(Code.UNIMPLEMENTED, f"unknown method {name} for service docker.swarmkit.v1.Control")
        assert self._context is not None
        if isinstance(method, Read):
            answer, context = method.answer, self._context
            found: Message | None = self._read(lambda view: answer(view, request, context))
            return found
        if not self.leads:
            self._elsewhere(Control(name, request), self.defer())
            return None
        if self.space is not Space.AMPLE:
            raise Refused(Code.RESOURCE_EXHAUSTED, DISK_FULL)
        check_offered(name, request)
        if name == "UpdateCluster":
            self._update_cluster(method, request, self._context, unproposed)
            return None
        step = method.prepare(request, self._context)
        reply = self.defer()

        def settle(answer: Answer) -> None:  # in the store's turn
            if answer.error is None and not forwarded and settled(answer.value, self.published.view):
                self.address.tell(_Held(reply, answer.value))
                return
            _settle(answer, reply, unproposed)
            if answer.error is None and forwarded:
                self._spread()

        self.store.send(Write(step), self.address, Reply(settle), self._trace)
        return None

    # Writes that were never proposed

    def _once_more(self, control: Control) -> Settle:
        """What becomes of a write of ours that was never proposed. Runs in the store's turn."""
        return lambda answer, reply: self.address.tell(_NeverProposed(control, reply))

    @handles(_NeverProposed)
    def never_proposed(self, message: _NeverProposed) -> None:
        """Waits for word of who leads now."""
        self._again.append(message)
        if self.leads:
            self.after(LEADER_PAUSE, _TryAgain())
        else:
            self._make_again()

    @handles(_TryAgain)
    def try_again(self, message: _TryAgain) -> None:
        """Perhaps this manager still leads."""
        self._make_again()

    def _make_again(self) -> None:
        again, self._again = self._again, []
        for each in again:
            if self.leads:
                self.address.send(_Again(each.control), self.address, each.reply, 0)
            else:
                self._elsewhere(each.control, each.reply)

    # Writes elsewhere

    def _elsewhere(self, control: Control, reply: Reply) -> None:
        """Writes at the leader. If that turns out to be this manager by now, the question is asked here anew."""
        name, request = control.method, control.request
        held = _Held(reply)
        self._held[held] = None

        def answered(answer: Answer) -> None:
            if answer.error is None and answer.value != LEADS_HERE:
                held.answer = answer.value
                self._seen(applied(name, request, answer.value), lambda: self.when_settled(held))
                return
            self._held.pop(held, None)
            if answer.error is not None:
                reply.fail(answer.error)
            else:
                self.address.send(control, self.address, reply, 0)

        assert self.proxy is not None
        self.ask(self.proxy, ToLeader(path("Control", name), request), answered, ELSEWHERE_WAIT)

    def _seen(self, holds: Callable[[View], bool], then: Callable[[], None], within: float = APPLIED_WAIT) -> None:
        """Goes on once this manager's own store holds it; one that lags too far behind does not hide that it was
        written."""
        self.ask(self.store, AwaitView(holds, within), lambda answer: then(), within)

    @handles(_Held)
    def when_settled(self, held: _Held) -> None:
        """Answers with a service once nothing moves its version any more but those who ask for it."""
        self._held[held] = None

        def answer() -> None:
            self._held.pop(held, None)
            held.reply.set(held.answer)

        assert held.answer is not None
        holds = settled(held.answer, self.published.view)
        if holds is None:
            answer()
        else:
            self._seen(holds, answer, SETTLED_WAIT)

    def _update_cluster(self, method: Any, request: Any, context: Context, unproposed: Settle) -> None:
        """What becomes of the root is decided first, since that may take the word of an external CA."""
        cluster = self.published.view.get(objects.Cluster, request.cluster_id)
        decided = DecidedRoot(cluster.root_ca if cluster is not None else types.RootCA())
        step = method.prepare(request, replace(context, rotate_ca=decided))
        if cluster is None:
            self.forward(self.store, Write(step))  # which refuses it in the usual words
            return
        reply = self.defer()

        def write() -> None:
            self.ask(self.store, Write(step), lambda answer: _settle(answer, reply, unproposed))

        decision = decide_root(cluster.root_ca, request.spec.ca_config, self.now(), self.world.entropy)
        RootDecision(self.world, self.credentials or Credentials(b""), self.sink, decided, write).start(decision)


def _unlock_key(view: View) -> str:
    cluster = the_cluster(view)
    key = unlock_key_of(cluster).unlock_key if cluster is not None else b""
    return format_unlock_key(key) if key else ""


def _settle(answer: Answer, reply: Reply, unproposed: Settle) -> None:
    if answer.error is None:
        reply.set(answer.value)
    elif never_proposed(answer.error):
        unproposed(answer, reply)
    else:
        reply.fail(answer.error)


def _as_it_is(answer: Answer, reply: Reply) -> None:
    reply.pass_on(answer)


def _told_so(answer: Answer, reply: Reply) -> None:
    """The manager that forwarded the write hears in so many words that it may make it again."""
    reply.fail(Refused(Code.UNAVAILABLE, LOST_LEADERSHIP))


def never_proposed(error: BaseException) -> bool:
    """Whether the store says that a transaction was surely not appended to the log."""
    return isinstance(error, Refused) and (error.code, error.text) in NEVER_PROPOSED


def _member(member: MemberStatus) -> Member:
    reachability = types.RaftMemberStatus.REACHABLE if member.reachable else types.RaftMemberStatus.UNREACHABLE
    return Member(member.raft_id, member.addr, member.leader, reachability)
