"""CertificateAuthorityActor is the cluster's CA while this manager leads.

It serves CA and NodeCA, and signs for every node whose certificate waits in the store: those it finds at its start,
those that commits bring, and every 10 s those that could not be signed before. All of its effects go through the
store; who is admitted and what is signed is decided by ``runtime.pki.signing``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from google.protobuf.message import Message

from actors.external_authority import ask_to_sign
from actors.serving import Serving, serves
from actors.store_watcher import StoreWatcher
from runtime.errors import Code, Refused
from runtime.failpoints import failpoint
from runtime.pki.cfssl import PERMANENT
from runtime.pki.errors import InvalidCertificate
from runtime.pki.identity import new_id
from runtime.pki.signing import (
    ID_TRIES,
    STOPPED,
    Authority,
    NotNow,
    granted_role,
    is_final,
    is_waiting,
    issuing,
    recording,
    status_of,
    unlock_key_of,
)
from runtime.protocol.manager import AuthorityTrouble, LeaderContext
from runtime.protocol.store import Step
from runtime.stage import Answer, Policy, Timer, handles
from runtime.stage.answers import Reply
from runtime.store.changes import Action
from runtime.store.events import Commit, WatchFilter
from runtime.store.view import View
from runtime.wire.pb import ca_pb2, objects_pb2
from runtime.wire.port import Call

RETRY_PERIOD = 10.0
STATUS_WAIT = 60.0
"""Seconds for which a caller may wait for a certificate; SwarmKit's ask anew after five."""
ASKED_MAX = 8
"""Requests to an external CA that may be under way at once."""
MAX_WAITING = 10_000
"""Callers that may wait at once."""

Node = objects_pb2.Node


class _TryAgain:
    """Nodes that could not be signed get another chance."""


class _Waiter:
    """A caller who waits for a node's certificate."""

    __slots__ = ("deadline", "node_id", "reply")

    def __init__(self, node_id: str, reply: Reply, deadline: float) -> None:
        self.node_id = node_id
        self.reply = reply
        self.deadline = deadline


class CertificateAuthorityActor(Serving, StoreWatcher):
    """``context`` is the leader's."""

    policy = Policy()
    watched = WatchFilter.kinds(objects_pb2.Cluster, objects_pb2.Node)

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self._authority = Authority(context.cluster_id)
        self._pending: dict[str, None] = {}
        self._signing: dict[str, bytes] = {}
        self._waiters: dict[str, dict[_Waiter, None]] = {}
        self._waiting = 0
        self._round: Timer | None = None
        self._asked: set[tuple[str, bytes]] = set()
        self._not_now = ""
        self._external = ""

    def begin(self, view: View) -> None:
        self._learn(view.get(objects_pb2.Cluster, self.context.cluster_id))
        if self.context.manager is not None:
            self.tell(self.context.manager, AuthorityTrouble(""))  # what an earlier life said may be over
        self._sign(node.id for node in view.all(Node) if is_waiting(node))
        self._arm()

    def _arm(self) -> None:
        """Looks again while there is somebody to look after."""
        if self._round is None and (self._pending or self._waiters):
            self._round = self.after(RETRY_PERIOD, _TryAgain())

    def stopped(self) -> None:
        waiting, self._waiters, self._waiting = self._waiters, {}, 0
        for waiters in waiting.values():
            for waiter in waiters:
                waiter.reply.fail(Refused(Code.ABORTED, STOPPED))

    def crashed(self) -> None:
        self.stopped()

    def snapshot(self) -> dict[str, Any]:
        return {
            "pending": len(self._pending),
            "being written": len(self._signing),
            "callers waiting": self._waiting,
            "asked elsewhere": len(self._asked),
            "trouble": self._authority.trouble or self._not_now,
        }

    # The store

    def commit(self, commit: Commit) -> None:
        waiting: dict[str, None] = {}
        for change in commit.events:
            if change.kind is objects_pb2.Cluster:
                if change.object.id == self.context.cluster_id and self._learn(change.object):
                    waiting.update(self._pending)
            elif change.action is Action.REMOVE:
                self._removed(change.object.id)
            else:
                self._answer_waiters(change.object)
                if is_waiting(change.object) and self._signing.get(change.object.id) != change.object.certificate.csr:
                    waiting[change.object.id] = None
        self._sign(waiting)

    def _learn(self, cluster: objects_pb2.Cluster | None) -> bool:
        return cluster is not None and self._authority.learn(cluster, self.now())

    def _removed(self, node_id: str) -> None:
        self._pending.pop(node_id, None)
        for waiter in list(self._waiters.get(node_id, ())):
            self._forget(waiter)
            waiter.reply.fail(Refused(Code.NOT_FOUND, Code.NOT_FOUND.title))

    @handles(_TryAgain)
    def try_again(self, message: _TryAgain) -> None:
        """Another round; callers who waited long enough are sent away."""
        self._round = None
        if self._external:
            self._tell_operators(self._external)
        self._sign(list(self._pending))
        late = [w for waiters in self._waiters.values() for w in waiters if w.deadline <= self.monotonic()]
        for waiter in late:
            self._forget(waiter)
            waiter.reply.fail(Refused(Code.DEADLINE_EXCEEDED, "the certificate was not issued in time"))
        self._arm()

    def _sign(self, node_ids: Any) -> None:
        """Signs for these nodes as they stand in the newest view, up to the first that cannot be signed now."""
        self._not_now = ""
        steps: list[Step] = []
        written: list[tuple[str, bytes]] = []
        rest = iter(node_ids)
        for node_id in rest:
            self._pending[node_id] = None
            node = self.view.get(Node, node_id)
            if node is None or not is_waiting(node):
                del self._pending[node_id]
                continue
            csr = node.certificate.csr
            if self._signing.get(node_id) == csr:
                continue
            if self._authority.urls and len(self._asked) >= ASKED_MAX:
                break
            try:
                if self._authority.urls:
                    self._ask_external(node)
                    continue
                steps.append(recording(node_id, csr, self._authority.sign(node, self.now(), self.world.entropy)))
            except InvalidCertificate as error:
                steps.append(recording(node_id, csr, b"", str(error)))
            except NotNow as reason:
                self._not_now = str(reason)
                break
            self._signing[node_id] = csr
            written.append((node_id, csr))
        self._pending.update(dict.fromkeys(rest))
        if steps:
            self.write_batch(steps, lambda answer: self._recorded(written, answer))
        self._arm()

    def _ask_external(self, node: Node) -> None:
        node_id, csr = node.id, node.certificate.csr
        body = self._authority.external_request(node, self.now())
        self._signing[node_id] = csr
        self._asked.add((node_id, csr))
        ask_to_sign(
            self.world.https,
            self._authority.urls,
            body,
            self.context.credentials,
            self._authority.external_roots,
            self.sink,
            partial(self._external_answered, node_id, csr),
        )

    def _external_answered(self, node_id: str, csr: bytes, answer: bytes | Refused) -> None:
        """A refusal by the CA is final; anything else may go better in the next round."""
        self._asked.discard((node_id, csr))
        if isinstance(answer, Refused) and answer.code is not PERMANENT:
            self._not_now = answer.text
            self._tell_operators(answer.text)
            if self._signing.get(node_id) == csr:
                del self._signing[node_id]
            return
        self._tell_operators("")
        if isinstance(answer, Refused):
            step = recording(node_id, csr, b"", answer.text)
        else:
            step = recording(node_id, csr, self._authority.taken(answer))
        self.write_batch([step], lambda written: self._recorded([(node_id, csr)], written))
        self._sign(list(self._pending))

    def _tell_operators(self, trouble: str) -> None:
        """Whether external CAs answer; nothing is said again and again of those that do, or of none that are asked."""
        said, self._external = self._external, trouble if self._authority.urls and self._pending else ""
        if self.context.manager is not None and (said or self._external):
            self.tell(self.context.manager, AuthorityTrouble(self._external, len(self._pending)))

    def _recorded(self, written: list[tuple[str, bytes]], answer: Answer) -> None:
        """What was not written stays pending: for the next round here, or for the next leader."""
        results = answer.value if answer.error is None else [answer.error] * len(written)
        for (node_id, csr), result in zip(written, results, strict=True):
            if self._signing.get(node_id) == csr:
                del self._signing[node_id]
            node = self.view.get(Node, node_id)
            if not isinstance(result, BaseException) and (node is None or not is_waiting(node)):
                self._pending.pop(node_id, None)
        failpoint("ca.cert_issued_unsent")

    # Callers

    @serves("CA", "GetRootCACertificate")
    def root_certificate(self, call: Call) -> ca_pb2.GetRootCACertificateResponse:
        """The bundle that nodes trust, for anybody."""
        return ca_pb2.GetRootCACertificateResponse(certificate=self._cluster().root_ca.ca_cert)

    @serves("CA", "GetUnlockKey")
    def unlock_key(self, call: Call) -> ca_pb2.GetUnlockKeyResponse:
        """The managers' unlock key, for managers."""
        return unlock_key_of(self._cluster())

    @serves("NodeCA", "IssueNodeCertificate")
    def issue(self, call: Call) -> Message | None:
        """Admits a node, or has a member's certificate renewed."""
        request = call.request
        assert isinstance(request, ca_pb2.IssueNodeCertificateRequest)
        ids = [new_id(self.world.entropy) for _ in range(ID_TRIES)]
        step = issuing(self.context.cluster_id, request, call.identity.node_id, ids)
        if not call.identity.node_id:  # a stranger with a wrong token does not get as far as the store's writer
            granted_role(self._cluster(), request.token)
        reply = self.defer()
        self.write(step, reply.pass_on)
        return None

    @serves("NodeCA", "NodeCertificateStatus")
    def status(self, call: Call) -> Message | None:
        """How a node's certificate stands, once that is final."""
        request = call.request
        assert isinstance(request, ca_pb2.NodeCertificateStatusRequest)
        if not request.node_id:
            raise Refused(Code.INVALID_ARGUMENT, Code.INVALID_ARGUMENT.title)
        node = self.view.get(Node, request.node_id)
        if node is None:
            raise Refused(Code.NOT_FOUND, Code.NOT_FOUND.title)
        if is_final(node):
            return status_of(node)
        if self._waiting >= MAX_WAITING:
            raise Refused(Code.RESOURCE_EXHAUSTED, "too many callers wait for a certificate")
        waiter = _Waiter(node.id, self.defer(), self.monotonic() + STATUS_WAIT)
        self._waiters.setdefault(node.id, {})[waiter] = None
        self._waiting += 1
        self._arm()
        call.on_cancel(_discard(self.sink(self._forget), waiter))
        return None

    def _answer_waiters(self, node: Node) -> None:
        if node.id in self._waiters and is_final(node):
            for waiter in list(self._waiters[node.id]):
                self._forget(waiter)
                waiter.reply.set(status_of(node))

    def _forget(self, waiter: _Waiter) -> None:
        waiters = self._waiters.get(waiter.node_id, {})
        if waiter in waiters:
            del waiters[waiter]
            self._waiting -= 1
            if not waiters:
                del self._waiters[waiter.node_id]

    def _cluster(self) -> objects_pb2.Cluster:
        cluster = self.view.get(objects_pb2.Cluster, self.context.cluster_id)
        if cluster is None:
            raise Refused(Code.ABORTED, STOPPED)
        return cluster


def _discard(sink: Callable[[_Waiter], None], waiter: _Waiter) -> Callable[[], None]:
    return lambda: sink(waiter)
