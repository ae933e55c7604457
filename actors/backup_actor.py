"""BackupActor makes a backup of a running manager: the state at one place of the log, and who this manager is.

Introspection asks it (``MakeBackup``), the consensus tells it what the state is. Nothing stops meanwhile: the view is
the published one, and encoding it takes this actor's own thread. It writes nothing; whoever asked keeps the bytes.
"""

from __future__ import annotations

from actors.raft_log_actor import snapshot_of
from runtime.disk.backup import KEPT_FILES, Backup, pack
from runtime.errors import Code, Refused
from runtime.protocol.manager import MakeBackup
from runtime.protocol.raft import DescribeState, TakeSnapshot
from runtime.stage import Actor, Address, Answer, GiveUp, Policy, Reply, handles
from runtime.wire.pb import objects_pb2 as objects

STATE_WAIT = 10.0


class BackupActor(Actor):
    """``raft`` is this manager's consensus."""

    policy = Policy(own_thread=True, give_up=GiveUp.NEVER)

    def __init__(self, raft: Address, node_id: str, cluster_id: str) -> None:
        super().__init__()
        self.raft = raft
        self.node_id = node_id
        self.cluster_id = cluster_id

    @handles(MakeBackup)
    def make(self, message: MakeBackup) -> None:
        """Answered with the file's bytes."""
        reply = self.defer()
        self.ask(self.raft, DescribeState(), lambda answer: self._described(answer, reply), STATE_WAIT)

    def _described(self, answer: Answer, reply: Reply) -> None:
        try:
            reply.set(pack(self._backup(answer.get())))
        except Refused as refused:
            reply.fail(refused)

    def _backup(self, state: TakeSnapshot) -> Backup:
        owner = next((member for member in state.members if member.node_id == self.node_id), None)
        if owner is None or not state.view.all(objects.Cluster):
            raise Refused(Code.UNAVAILABLE, "this manager has not caught up with its cluster yet: try again")
        return Backup(self.now(), self.node_id, self.cluster_id, owner, snapshot_of(state), self._files())

    def _files(self) -> dict[str, bytes]:
        """The files as they are together: a certificate that is replaced meanwhile is read again with its key."""
        found = self._read()
        while (again := self._read()) != found:
            found = again
        return found

    def _read(self) -> dict[str, bytes]:
        files = self.world.disk.files
        contents = {name: files.read(name) for name in KEPT_FILES}
        return {name: content for name, content in contents.items() if content is not None}
