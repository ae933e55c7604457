"""RootRotationActor leads a rotation of the cluster's root CA to its end, while this manager leads.

It asks nodes to renew, 30 every 3 s, until every node says that its certificate is under the new root, and then puts
that root in force. It decides nothing about roots (``runtime.pki.rotation`` does) and signs nothing. A rotation that is
given up or replaced meanwhile is simply no longer what it finds in the cluster object.

It keeps books of who has not moved, so that a commit costs only the nodes that it names. When the books are empty, all
nodes are looked at once more before the root is put in force.
"""

from __future__ import annotations

import logging
from typing import Any

from actors.store_watcher import StoreWatcher
from runtime.failpoints import failpoint
from runtime.pki.certificates import Issuer
from runtime.pki.errors import InvalidCertificate
from runtime.pki.rotation import ROTATE_EVERY, asking, desired_issuer, finishing, has_moved, same_rotation, to_ask
from runtime.protocol.manager import LeaderContext
from runtime.stage import Answer, GiveUp, Policy, Timer, handles
from runtime.store.events import Commit, WatchFilter
from runtime.store.view import View
from runtime.wire.pb import objects_pb2, types_pb2

log = logging.getLogger("swarmlet.ca")


class _Round:
    """Time to ask the next nodes."""


class RootRotationActor(StoreWatcher):
    """Lives below the leader."""

    policy = Policy(give_up=GiveUp.NEVER)
    watched = WatchFilter.kinds(objects_pb2.Cluster, objects_pb2.Node)

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self._root = types_pb2.RootCA()
        self._issuer: Issuer | None = None
        self._behind: dict[str, None] = {}  # the nodes that have not moved
        self._writing = False
        self._round: Timer | None = None
        self._trouble = ""

    def snapshot(self) -> dict[str, Any]:
        return {
            "rotating": self._issuer is not None,
            "not moved": len(self._behind),
            "writing": self._writing,
            "trouble": self._trouble,
        }

    def begin(self, view: View) -> None:
        self._see(view.get(objects_pb2.Cluster, self.context.cluster_id))

    def commit(self, commit: Commit) -> None:
        for event in commit.events:
            if event.kind is objects_pb2.Cluster and event.object.id == self.context.cluster_id:
                self._see(event.object)
            elif event.kind is objects_pb2.Node and self._issuer is not None:
                self._note(event.object.id, self._issuer)
        self._finish_when_all_moved()

    def _see(self, cluster: objects_pb2.Cluster | None) -> None:
        root = cluster.root_ca if cluster is not None else types_pb2.RootCA()
        if same_rotation(root, self._root):
            return
        self._root, self._issuer, self._behind = types_pb2.RootCA(), None, {}
        self._root.CopyFrom(root)
        if self._round is not None:
            self._round.cancel()
            self._round = None
        if root.HasField("root_rotation"):
            self._begin_rotation()

    def _begin_rotation(self) -> None:
        try:
            self._issuer, self._trouble = desired_issuer(self._root), ""
        except InvalidCertificate as error:
            # Nobody can move to such a root; whoever wanted it may want another one.
            self._trouble = f"the new root cannot be read: {error}"
            self._say("trouble", self._trouble, logging.WARNING)
            return
        self._survey(self._issuer)
        self._say("rotate", f"the root CA is replaced: {len(self._behind)} nodes have to move")
        self._ask()
        self._round = self.every(ROTATE_EVERY, _Round())

    def _survey(self, issuer: Issuer) -> None:
        nodes = self.view.all(objects_pb2.Node)
        self._behind = {node.id: None for node in nodes if not has_moved(node, issuer)}

    def _note(self, node_id: str, issuer: Issuer) -> None:
        node = self.view.get(objects_pb2.Node, node_id)  # the newest: the books must not fall behind what was surveyed
        if node is None or has_moved(node, issuer):
            self._behind.pop(node_id, None)
        else:
            self._behind[node_id] = None

    @handles(_Round)
    def next_round(self, message: _Round) -> None:
        """Another 30."""
        self._finish_when_all_moved()
        self._ask()

    def _ask(self) -> None:
        issuer = self._issuer
        if issuer is None or self._writing:
            return
        found = (self.view.get(objects_pb2.Node, node_id) for node_id in self._behind)
        steps = [asking(id, issuer) for id in to_ask((node for node in found if node is not None), issuer)]
        if steps:
            self._writing = True
            self.write_batch(steps, self._asked)

    def _asked(self, answer: Answer) -> None:
        """What could not be written is tried again in the next round."""
        self._writing = False
        self._finish_when_all_moved()

    def _finish_when_all_moved(self) -> None:
        if self._issuer is None or self._writing or self._behind:
            return
        self._survey(self._issuer)
        if self._behind:
            return
        self._writing = True
        failpoint("ca.before_root_switch")
        self.write(finishing(self.context.cluster_id, self._root, self.world.entropy), self._finished)

    def _say(self, action: str, text: str, level: int = logging.INFO) -> None:
        self.moment(log, "root", action, text, id=self.context.cluster_id, level=level)

    def _finished(self, answer: Answer) -> None:
        self._writing = False
        if answer.error is None:
            self._say("replace", "the new root CA is in force: all nodes have moved")
