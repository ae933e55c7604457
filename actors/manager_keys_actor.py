"""ManagerKeysActor sees to the keys that protect what this manager has on disk, on every manager, leading or not.

It tells the certificate's keeper which unlock key and which root the cluster object names, and carries a change of the
data key through: the new key goes into the key file, the log is sealed with it, and once nothing is left under the old
one that one goes. It holds no key longer than a step takes; where a step was cut off, the key file says where to go on.
"""

from __future__ import annotations

from typing import Any

from actors.store_watcher import StoreWatcher
from runtime.pki.key_file import DataKeys
from runtime.pki.signing import unlock_key_of
from runtime.protocol.certificate import BeginDataKeyRotation, FinishDataKeyRotation, RootAgreed, UnlockKeyIs
from runtime.protocol.manager import LeaderContext
from runtime.protocol.raft import ChangeDataKey
from runtime.stage import Address, Answer, GiveUp, Policy, handles
from runtime.store.events import Commit, WatchFilter
from runtime.store.view import View
from runtime.wire.pb import objects_pb2

TRY_AGAIN = 10.0
SNAPSHOT_WAIT = 600.0
"""Seconds for a snapshot of everything; a follower without a quorum waits longer, and then tries again."""


class _Again:
    """Another try at what could not be done."""


class ManagerKeysActor(StoreWatcher):
    """``context`` is the manager's (it may not lead), ``certificate`` keeps the key file."""

    policy = Policy(give_up=GiveUp.NEVER)
    watched = WatchFilter.kinds(objects_pb2.Cluster)

    def __init__(self, context: LeaderContext, certificate: Address) -> None:
        super().__init__(context)
        self._certificate = certificate
        self._told: bytes | None = None
        self._root_told = b""
        self._changing = False
        self._due = False
        self._trouble = ""

    def snapshot(self) -> dict[str, Any]:
        return {"locks": bool(self._told), "changing the data key": self._changing, "trouble": self._trouble}

    def begin(self, view: View) -> None:
        self._change_data_key()  # which an earlier life may have begun
        self._see(view.get(objects_pb2.Cluster, self.context.cluster_id))

    def commit(self, commit: Commit) -> None:
        for event in commit.events:
            if event.object.id == self.context.cluster_id:
                self._see(event.object)

    def _see(self, cluster: objects_pb2.Cluster | None) -> None:
        if cluster is None:
            return
        if cluster.root_ca.ca_cert != self._root_told:
            self._root_told = cluster.root_ca.ca_cert
            self.tell(self._certificate, RootAgreed(self._root_told))
        found = unlock_key_of(cluster)
        if found.unlock_key == self._told:
            return
        self._told = found.unlock_key
        self.ask(self._certificate, UnlockKeyIs(found.unlock_key, found.version.index), self._kept)

    def _kept(self, answer: Answer) -> None:
        if answer.error is not None:
            self._failed(answer.error)
            self._told = None
        elif answer.value:
            self._change_data_key()

    # The data key

    def _change_data_key(self) -> None:
        if self._changing:
            self._due = True
            return
        self._changing, self._due = True, False
        self.ask(self._certificate, BeginDataKeyRotation(), self._begun)

    def _begun(self, answer: Answer) -> None:
        if answer.error is not None:
            self._failed(answer.error)
            return
        keys: DataKeys = answer.value
        if not keys.pending or self.context.raft is None:
            self._ended()
            return
        self.ask(self.context.raft, ChangeDataKey(keys.in_order), self._sealed, SNAPSHOT_WAIT)

    def _sealed(self, answer: Answer) -> None:
        if answer.error is not None:
            self._failed(answer.error)
        else:
            self.ask(self._certificate, FinishDataKeyRotation(), self._finished)

    def _finished(self, answer: Answer) -> None:
        if answer.error is not None:
            self._failed(answer.error)
            return
        self._trouble = ""
        self._due = self._due or answer.value.needs_rotation
        self._ended()

    def _ended(self) -> None:
        self._changing = False
        if self._due:
            self._change_data_key()

    def _failed(self, error: BaseException) -> None:
        self._changing = False
        self._trouble = str(error)
        self.after(TRY_AGAIN, _Again())

    @handles(_Again)
    def again(self, message: _Again) -> None:
        """What was cut off goes on."""
        self._see(self.view.get(objects_pb2.Cluster, self.context.cluster_id))
        self._change_data_key()
