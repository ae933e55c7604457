"""The core: term, vote, log, membership and role of one node, moved by messages and ticks alone.

What belongs to one role is in ``follower``, ``candidate`` and ``leader``; here is what all share: terms and votes
(thesis 3.4, 3.6, 9.6), the election clock, sending, and taking a new configuration. Rules kept here:

1. A message of a higher term makes this node a follower of that term first, but for PreVote and for votes within
   a leader's lease (thesis 4.2.3, 6.4.1); one of a lower term is answered only where silence would keep its sender
   stuck.
2. One vote a term (3.4), and only for a log that is at least as new (3.6.1).
3. Promises wait for the disk: whatever acknowledges an append or a vote is kept in ``after_append`` until storage has
   what it promises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from runtime.raft import candidate, follower, leader
from runtime.raft.confchange import Changer, ConfChange, Config, ProgressMap, restore
from runtime.raft.config import RaftConfig
from runtime.raft.log import RaftLog
from runtime.raft.progress import Inflights, Progress
from runtime.raft.quorum import Vote, joint_committed, joint_vote
from runtime.raft.read_only import ReadOnly
from runtime.raft.types import (
    NOBODY,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    ProposalDropped,
    ReadState,
    Role,
    Snapshot,
    SoftState,
    entry_size,
    payload_size,
)

T = MessageType
TRANSFER = b"CampaignTransfer"  # the context of votes that were asked for by a leader that hands over
VOTES = frozenset({T.VOTE, T.VOTE_RESP, T.PRE_VOTE, T.PRE_VOTE_RESP})
PROMISES = frozenset({T.APP_RESP, T.VOTE_RESP, T.PRE_VOTE_RESP})
FROM_LEADER = frozenset({T.APP, T.HEARTBEAT, T.SNAP})
RESPONSE_TO = {T.VOTE: T.VOTE_RESP, T.PRE_VOTE: T.PRE_VOTE_RESP}


class Raft:
    """One node's core. ``step`` and ``tick`` move it; ``messages`` and ``after_append`` is what it wants sent."""

    def __init__(self, config: RaftConfig) -> None:
        self.config = config
        self.id = config.id
        self.log = RaftLog(config.storage, config.max_committed_size or config.max_size_per_msg)
        self.term = 0
        self.vote = NOBODY
        self.lead = NOBODY
        self.role = Role.FOLLOWER
        self.members = Config()
        self.progress: ProgressMap = {}
        self.votes: dict[int, bool] = {}
        self.transferee = NOBODY
        self.pending_conf_index = 0
        self.uncommitted_size = 0
        self.read_only = ReadOnly(config.read_only)
        self.read_states: list[ReadState] = []
        self.waiting_reads: list[Message] = []
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.election_timeout = 0
        self.messages: list[Message] = []
        self.after_append: list[Message] = []
        self._restore_state()

    def _restore_state(self) -> None:
        hard, members = self.config.storage.initial_state()
        changer = self._changer(Config(), {})
        restore(changer, members)
        self.take_configuration(changer)
        if not hard.empty:
            self._load(hard)
        if self.config.applied > 0:
            self.log.applied_to(self.config.applied, 0)
        self.become_follower(self.term, NOBODY)

    def _load(self, hard: HardState) -> None:
        if not self.log.committed <= hard.commit <= self.log.last_index():
            raise RuntimeError(f"commit {hard.commit} is not in {self.log.committed}..{self.log.last_index()}")
        self.log.committed, self.term, self.vote = hard.commit, hard.term, hard.vote

    # What others may know

    def soft_state(self) -> SoftState:
        """Who leads, and as what this node acts."""
        return SoftState(self.lead, self.role)

    def hard_state(self) -> HardState:
        """What must last."""
        return HardState(self.term, self.vote, self.log.committed)

    @property
    def promotable(self) -> bool:
        """True if this node may lead: it votes, and no snapshot is on its way to the disk."""
        own = self.progress.get(self.id)
        return own is not None and not own.learner and self.log.pending_snapshot is None

    # Roles

    def become_follower(self, term: int, lead: int) -> None:
        """Follows ``lead`` (or nobody yet) in ``term``."""
        self._reset(term)
        self.lead = lead
        self.role = Role.FOLLOWER
        self.config.log("INFO", f"{self.id} became follower at term {self.term}")

    def become_candidate(self) -> None:
        """Opens a term and votes for itself."""
        assert self.role is not Role.LEADER, "a leader does not stand for election"
        self._reset(self.term + 1)
        self.vote = self.id
        self.role = Role.CANDIDATE
        self.config.log("INFO", f"{self.id} became candidate at term {self.term}")

    def become_pre_candidate(self) -> None:
        """Asks whether it would be elected, without opening a term or voting (thesis 9.6)."""
        assert self.role is not Role.LEADER, "a leader does not stand for election"
        self.votes = {}
        self.lead = NOBODY
        self.role = Role.PRE_CANDIDATE
        self.config.log("INFO", f"{self.id} became pre-candidate at term {self.term}")

    def become_leader(self) -> None:
        """Leads its term, and begins it with an empty entry: only entries of its own term show what is committed."""
        assert self.role is not Role.FOLLOWER, "a follower does not become leader at once"
        self._reset(self.term)
        self.lead = self.id
        self.role = Role.LEADER
        own = self.progress[self.id]
        own.become_replicate()
        own.recent_active = True
        # Whatever is in the log may hold a configuration change that is not applied yet: none is taken before that.
        self.pending_conf_index = self.log.last_index()
        appended = self.append([Entry()])
        assert appended, "the empty entry of a new term does not count against limits"
        self.config.log("INFO", f"{self.id} became leader at term {self.term}")

    def _reset(self, term: int) -> None:
        if self.term != term:
            self.term = term
            self.vote = NOBODY
        self.lead = NOBODY
        self.election_elapsed = self.heartbeat_elapsed = 0
        self.draw_election_timeout()
        self.transferee = NOBODY
        self.votes = {}
        last = self.log.last_index()
        for id, old in self.progress.items():
            fresh = self.progress[id] = Progress(last + 1, self._inflights(), old.learner)
            if id == self.id:
                fresh.match = last
        self.pending_conf_index = 0
        self.uncommitted_size = 0
        self.read_only = ReadOnly(self.config.read_only)

    def _inflights(self) -> Inflights:
        return Inflights(self.config.max_inflight_msgs, self.config.max_inflight_bytes)

    # Time

    def draw_election_timeout(self) -> None:
        """A new random timeout of one to two election ticks (thesis 3.4)."""
        self.election_timeout = self.config.election_tick + self.config.random.randrange(self.config.election_tick)

    def tick(self) -> None:
        """One tick of the logical clock."""
        if self.role is Role.LEADER:
            leader.tick(self)
            return
        self.election_elapsed += 1
        if self.promotable and self.election_elapsed >= self.election_timeout:
            self.election_elapsed = 0
            self.step(Message(T.HUP, from_=self.id))

    # Messages in

    def step(self, message: Message) -> None:
        """One message; ProposalDropped if it is a proposal that cannot be taken."""
        if message.term > self.term:
            if not self._newer_term(message):
                return
        elif 0 < message.term < self.term:
            self._older_term(message)
            return
        handler = self._SHARED.get(message.type)
        if handler is not None:
            handler(self, message)
        elif self.role is Role.LEADER:
            leader.step(self, message)
        elif self.role is Role.FOLLOWER:
            follower.step(self, message)
        else:
            candidate.step(self, message)

    def _newer_term(self, message: Message) -> bool:
        """Follows a higher term; False if the message is not to be considered at all."""
        if message.type in (T.VOTE, T.PRE_VOTE) and message.context != TRANSFER:
            leased = self.config.check_quorum and self.lead != NOBODY
            if leased and self.election_elapsed < self.config.election_tick:
                return False
        if message.type is T.PRE_VOTE or (message.type is T.PRE_VOTE_RESP and not message.reject):
            # A question about a term to come, or a yes to ours: the term begins only with the real vote.
            return True
        self.become_follower(message.term, message.from_ if message.type in FROM_LEADER else NOBODY)
        return True

    def _older_term(self, message: Message) -> None:
        guarded = self.config.check_quorum or self.config.pre_vote
        if guarded and message.type in (T.HEARTBEAT, T.APP):
            # A leader that was cut off keeps its old term; our higher one makes it step down. Without this answer
            # a node that came back with a higher term could neither follow nor, under a lease, be elected.
            self.send(Message(T.APP_RESP, to=message.from_))
        elif message.type is T.PRE_VOTE:
            self.send(Message(T.PRE_VOTE_RESP, to=message.from_, term=self.term, reject=True))
        elif message.type is T.VOTE and self.progress and message.from_ not in self.progress:
            # A candidate that joined meanwhile is never asked for its vote by this node, so it hears of our term here
            # alone; otherwise it would count up to it election by election (thesis 3.3: an answer has the term).
            self.send(Message(T.VOTE_RESP, to=message.from_, term=self.term, reject=True))
        elif message.type is T.STORAGE_APPEND_RESP and message.snapshot is not None:
            # An append of an older term may have been overwritten since; a snapshot may not.
            self._snapshot_stable(message.snapshot)

    def _hup(self, message: Message) -> None:
        self.stand(pre_vote=self.config.pre_vote)

    def _storage_appended(self, message: Message) -> None:
        if message.index:
            self.log.stable_to(message.index, message.log_term)
        if message.snapshot is not None:
            self._snapshot_stable(message.snapshot)

    def _storage_applied(self, message: Message) -> None:
        if message.entries:
            self.applied_to(message.entries[-1].index, sum(entry_size(entry) for entry in message.entries))
            self._release_uncommitted(payload_size(message.entries))

    def _vote_asked(self, message: Message) -> None:
        """Grants a vote that is free, repeated, or only asked about, to a log that is new enough."""
        free = self.vote == message.from_ or (self.vote == NOBODY and self.lead == NOBODY)
        if message.type is T.PRE_VOTE and message.term > self.term:
            free = True
        answer = RESPONSE_TO[message.type]
        if free and self.log.up_to_date(message.index, message.log_term):
            # Granted in the term that was asked about: that of a PreVote is ahead of ours.
            self.send(Message(answer, to=message.from_, term=message.term))
            if message.type is T.VOTE:
                self.election_elapsed = 0
                self.vote = message.from_
        else:
            self.send(Message(answer, to=message.from_, term=self.term, reject=True))

    _SHARED: ClassVar[dict[MessageType, Callable[[Raft, Message], None]]] = {
        T.HUP: _hup,
        T.STORAGE_APPEND_RESP: _storage_appended,
        T.STORAGE_APPLY_RESP: _storage_applied,
        T.VOTE: _vote_asked,
        T.PRE_VOTE: _vote_asked,
    }

    # Elections

    def stand(self, *, pre_vote: bool = False, transfer: bool = False) -> None:
        """Stands for election, unless it leads, may not lead, or has configuration changes to apply first."""
        if self.role is Role.LEADER or not self.promotable or self._unapplied_conf_change():
            return
        self.campaign(pre_vote=pre_vote, transfer=transfer)

    def campaign(self, *, pre_vote: bool = False, transfer: bool = False) -> None:
        """Asks every voter, itself included, for its vote."""
        if pre_vote:
            self.become_pre_candidate()
            asked, term = T.PRE_VOTE, self.term + 1
        else:
            self.become_candidate()
            asked, term = T.VOTE, self.term
        index, log_term = self.log.last_index(), self.log.last_term()
        for id in self.members.all_voters():
            if id == self.id:
                # Our own vote counts once it is on disk, like anybody's.
                self.send(Message(RESPONSE_TO[asked], to=id, term=term))
                continue
            context = TRANSFER if transfer else b""
            self.send(Message(asked, to=id, term=term, index=index, log_term=log_term, context=context))

    def _unapplied_conf_change(self) -> bool:
        lo, hi = self.log.applied + 1, self.log.committed + 1
        while lo < hi:
            entries = self.log.slice(lo, hi, self.config.max_size_per_msg)
            if any(entry.type is not EntryType.NORMAL for entry in entries):
                return True
            lo += len(entries)
        return False

    def poll(self, id: int, granted: bool) -> Vote:
        """Counts a vote, the first of each voter, and says how the election stands."""
        self.votes.setdefault(id, granted)
        return joint_vote(self.members.voters, self.members.outgoing, self.votes)

    # Sending

    def send(self, message: Message) -> None:
        """Queues a message: promises behind the disk, everything else at once."""
        if message.from_ == NOBODY:
            message.from_ = self.id
        if message.type in VOTES:
            assert message.term, f"{message.type.name} without a term"
        elif message.type not in (T.PROP, T.READ_INDEX):
            # A forwarded proposal or read is the leader's to place: it carries no term.
            message.term = self.term
        if message.type in PROMISES:
            self.after_append.append(message)
        else:
            assert message.to != self.id, f"{message.type.name} to itself"
            self.messages.append(message)

    # The log

    def append(self, entries: Sequence[Entry]) -> bool:
        """Appends entries of this leader's term; False if too much is uncommitted already."""
        size = payload_size(entries)
        if self.uncommitted_size > 0 and size > 0 and self.uncommitted_size + size > self.config.max_uncommitted_size:
            return False
        self.uncommitted_size += size
        last, term = self.log.last_index(), self.term
        for offset, entry in enumerate(entries, 1):
            entry.term, entry.index = term, last + offset
        last = self.log.append(entries)
        # The leader counts itself only once its disk has them, by this answer to itself.
        self.send(Message(T.APP_RESP, to=self.id, index=last))
        return True

    def _release_uncommitted(self, size: int) -> None:
        self.uncommitted_size = max(0, self.uncommitted_size - size)

    def maybe_commit(self) -> bool:
        """Commits what a quorum has, if it is of this term (thesis 3.6.2)."""
        progress = self.progress

        def match(id: int) -> int:
            each = progress.get(id)
            return each.match if each is not None else 0

        return self.log.maybe_commit(joint_committed(self.members.voters, self.members.outgoing, match), self.term)

    def committed_in_term(self) -> bool:
        """True once an entry of this term is committed: only then does a leader know what is (thesis 6.4)."""
        return self.log.term_or_zero(self.log.committed) == self.term

    def applied_to(self, index: int, size: int) -> None:
        """Applied up to ``index``; a leader then leaves a joint configuration that is to be left by itself."""
        index = max(index, self.log.applied)
        self.log.applied_to(index, size)
        if self.members.auto_leave and index >= self.pending_conf_index and self.role is Role.LEADER:
            try:
                self.step(Message(T.PROP, from_=self.id, entries=[Entry(type=EntryType.CONF_CHANGE_V2)]))
            except ProposalDropped:
                self.config.log("DEBUG", "not initiating automatic transition out of joint configuration")

    def _snapshot_stable(self, snapshot: Snapshot) -> None:
        self.log.stable_snapshot_to(snapshot.index)
        self.applied_to(snapshot.index, 0)

    # Membership

    def _changer(self, config: Config, progress: ProgressMap) -> Changer:
        return Changer(config, progress, self.log.last_index(), self._inflights)

    def apply_conf_change(self, change: ConfChange) -> ConfState:
        """Applies a committed change and returns the membership that follows; ChangeRefused if it cannot be."""
        changer = self._changer(self.members, self.progress)
        changer.take(change)
        return self.take_configuration(changer)

    def take_configuration(self, changer: Changer) -> ConfState:
        """Goes on with the configuration that a changer made."""
        self.members, self.progress = changer.config, changer.progress
        state = self.members.state()
        own = self.progress.get(self.id)
        if self.role is not Role.LEADER:
            return state
        if own is None or own.learner:
            if self.config.step_down_on_removal:
                self.become_follower(self.term, NOBODY)
            return state
        if state.voters:
            leader.configuration_changed(self)
        return state

    def restore_snapshot(self, snapshot: Snapshot) -> bool:
        """Takes a leader's snapshot (thesis 5.3); False if there is nothing in it for this node."""
        if snapshot.index <= self.log.committed:
            return False
        if self.role is not Role.FOLLOWER:
            self.become_follower(self.term + 1, NOBODY)
            return False
        members = snapshot.conf_state
        if self.id not in (*members.voters, *members.learners, *members.voters_outgoing):
            return False
        if self.log.matches(snapshot.index, snapshot.term):
            self.log.commit_to(snapshot.index)
            return False
        self.log.restore(snapshot)
        changer = self._changer(Config(), {})
        restore(changer, members)
        self.take_configuration(changer)
        return True

    # Reads

    def answer_read(self, request: Message, index: int) -> None:
        """A read may be answered at ``index``: tell this node's application, or whoever forwarded it."""
        if request.from_ in (NOBODY, self.id):
            self.read_states.append(ReadState(index, request.entries[0].data))
        else:
            self.send(Message(T.READ_INDEX_RESP, to=request.from_, index=index, entries=request.entries))
