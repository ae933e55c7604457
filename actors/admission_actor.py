"""AdmissionActor asks a swarm to admit this machine as a new node while it is still another one.

ClusterActor asks it where a node whose certificate does not hold any more is told to join again. It has an identity
issued, for which a token, a root and a CA must be in order, and answers with it. It changes nothing here: whatever it
is refused leaves the node what it is.
"""

from __future__ import annotations

from actors.certificate_requests import CertificateRequests
from runtime.errors import Refused
from runtime.pki.issuance import JOIN_INTERVAL
from runtime.pki.node_identity import NodeIdentity
from runtime.pki.root import RootCA
from runtime.protocol.certificate import CertificateSetup, GetAdmitted
from runtime.protocol.cluster import ADMISSION_TIMEOUT, ClusterError
from runtime.stage import GiveUp, Policy, Reply, Timer, handles


class _TooLate:
    """Whoever asked waits no longer."""


class AdmissionActor(CertificateRequests):
    """Asks one swarm at a time; a new question takes the place of one whose asker is gone."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self) -> None:
        super().__init__(CertificateSetup())
        self._asked: Reply | None = None
        self._limit: Timer | None = None

    @handles(GetAdmitted)
    def admit(self, message: GetAdmitted) -> None:
        """Answered with the NodeIdentity that was issued, or refused with what a join would show."""
        self._break_off()
        self.setup = message.setup
        self._directory.told(None, (("", self.setup.join_addr),), "")
        self._download_root(JOIN_INTERVAL)
        self._asked = self.defer()
        self._limit = self.after(message.within, _TooLate())

    @handles(_TooLate)
    def too_late(self, message: _TooLate) -> None:
        """A certificate that is issued from now on is nobody's."""
        asked = self._break_off()
        if asked is not None:
            asked.fail(ClusterError("unavailable", ADMISSION_TIMEOUT))

    def _break_off(self) -> Reply | None:
        """Whose question it was."""
        if self._exchange is not None:
            self._end_exchange()
        if self._limit is not None:
            self._limit.cancel()
        asked, self._asked, self._limit = self._asked, None, None
        return asked

    def _root_known(self, root: RootCA) -> None:
        self._request_first(root, JOIN_INTERVAL)

    def _issued(self, new: NodeIdentity) -> None:
        asked = self._break_off()
        assert asked is not None, "an exchange is somebody's"
        asked.set(new)

    def _refused(self, error: Refused) -> None:
        asked = self._break_off()
        assert asked is not None, "an exchange is somebody's"
        asked.fail(error)
