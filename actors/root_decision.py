"""Carries a decision about the cluster's root through: asks the world what it needs to know, one question at a time.

No actor: it belongs to one ControlActor, in whose turns all of it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.errors import Code, Refused
from runtime.pki.cfssl import ANSWER_MAX, SIGN_TIMEOUT, authority_request, read_answer
from runtime.pki.rotation import CrossSign, DecidedRoot, Decision, Reachable
from runtime.stage.world import World
from runtime.wire.https import HttpAnswer
from runtime.wire.port import Credentials, Material

PROBE_TIMEOUT = 5.0

Sink = Callable[[Callable[[Any], None]], Callable[[Any], None]]
"""An actor's ``sink``: makes a callback of the world into a message of its present life."""


class RootDecision:
    """``into`` has the outcome when ``then`` is called; ``then`` may be called before ``start`` returns."""

    def __init__(
        self, world: World, credentials: Credentials | None, sink: Sink, into: DecidedRoot, then: Callable[[], None]
    ) -> None:
        self._world = world
        self._credentials = credentials
        self._sink = sink
        self._into = into
        self._then = then
        self._decision: Decision | None = None

    def start(self, decision: Decision) -> None:
        """Goes on as far as it goes without the world."""
        self._decision = decision
        self._go_on(None)

    def _go_on(self, answer: Any) -> None:
        assert self._decision is not None
        try:
            question = self._decision.send(answer)
        except StopIteration as end:
            self._into.outcome = end.value
        except Refused as refused:
            self._into.outcome = refused
        else:
            self._ask(question)
            return
        self._then()

    def _ask(self, question: Reachable | CrossSign) -> None:
        if isinstance(question, Reachable):
            self._probe(question.root, list(question.urls))
        elif self._world.https is None or self._credentials is None:
            self._go_on(Refused(Code.UNAVAILABLE, "this manager has no way to an external CA"))
        else:
            own = self._credentials.material
            material = Material(own.version, question.root, own.certificate, own.key)
            self._sign(material, authority_request(question.new_root, self._world.entropy), list(question.urls))

    def _probe(self, root: bytes, urls: list[str]) -> None:
        """One after the other, until one answers."""
        if not urls or self._world.https is None:
            self._go_on(False)
            return
        url = urls.pop(0)
        heard = self._sink(lambda reached: self._go_on(True) if reached else self._probe(root, urls))
        self._world.https.probe(url, roots=root, timeout=PROBE_TIMEOUT, done=heard)

    def _sign(self, material: Material, body: bytes, urls: list[str], last: Refused | None = None) -> None:
        if not urls:
            self._go_on(last)
            return
        url = urls.pop(0)

        def heard(answer: HttpAnswer | Refused) -> None:
            read = answer if isinstance(answer, Refused) else read_answer(url, answer.status, answer.body)
            if isinstance(read, Refused):
                self._sign(material, body, urls, read)
            else:
                self._go_on(read)

        assert self._world.https is not None
        self._world.https.post(
            url, body, material=material, timeout=SIGN_TIMEOUT, limit=ANSWER_MAX, done=self._sink(heard)
        )
