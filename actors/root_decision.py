"""Carries a decision about the cluster's root through: asks the world what it needs to know, one question at a time.

No actor: it belongs to one ControlActor, in whose turns all of it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.external_authority import Sink, ask_to_sign
from runtime.errors import Refused
from runtime.pki.cfssl import authority_request
from runtime.pki.rotation import CrossSign, DecidedRoot, Decision, Reachable
from runtime.stage.world import World
from runtime.wire.port import Credentials

PROBE_TIMEOUT = 5.0


class RootDecision:
    """``into`` has the outcome when ``then`` is called; ``then`` may be called before ``start`` returns."""

    def __init__(
        self, world: World, credentials: Credentials, sink: Sink, into: DecidedRoot, then: Callable[[], None]
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
        else:
            body = authority_request(question.new_root)
            ask_to_sign(
                self._world.https, question.urls, body, self._credentials, (question.root,), self._sink, self._go_on
            )

    def _probe(self, root: bytes, urls: list[str]) -> None:
        """One after the other, until one answers."""
        if not urls or self._world.https is None:
            self._go_on(False)
            return
        url = urls.pop(0)
        heard = self._sink(lambda reached: self._go_on(True) if reached else self._probe(root, urls))
        self._world.https.probe(url, roots=root, timeout=PROBE_TIMEOUT, done=heard)
