"""ExplainActor says why a service, a task or a node is not as it was asked to be, and what draining one would do.

Whoever looks into the node asks it (``Explain``, ``PlanNode``); it asks the actors that own the waiting, and reads the
rest from the newest committed view. It changes nothing. An actor that does not answer in time is named in the answer.
It has a thread of its own: a plan places tasks on a copy of the whole cluster.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from runtime.protocol.explain import AskWaits, Explain, PlanNode, Waits
from runtime.protocol.manager import LeaderContext
from runtime.stage import Actor, Address, Answer, GiveUp, Policy, Reply, handles
from runtime.swarm.explaining import Subject, concerns, explain, find
from runtime.swarm.planning import plan
from runtime.swarm.waits import Wait
from runtime.wire.pb import objects_pb2 as objects

PATIENCE_S: Final = 2.0


class _Inquiry:
    """One explanation being put together: what was told so far, and how many have not answered."""

    def __init__(self, subject: Subject, reply: Reply) -> None:
        self.subject = subject
        self.reply = reply
        self.told: list[Wait] = []
        self.silent: list[str] = []
        self.open = 0


class ExplainActor(Actor):
    """Lives below the leader; ``asked`` are the parts that things wait with."""

    policy = Policy(give_up=GiveUp.NEVER, own_thread=True)

    def __init__(self, context: LeaderContext, asked: tuple[Address, ...]) -> None:
        super().__init__()
        self.context = context
        self.asked_parts = asked

    @handles(Explain)
    def explain(self, message: Explain) -> None:
        """Asks all parts at once; answered when the last of them has."""
        subject = find(self.context.published.view, message.kind, message.text)
        service_id, node_id = concerns(subject)
        inquiry = _Inquiry(subject, self.defer())
        for part in self.asked_parts:
            self._inquire(inquiry, part, AskWaits(service_id, node_id))

    def _inquire(self, inquiry: _Inquiry, part: Address, question: AskWaits) -> None:
        inquiry.open += 1
        self.ask(part, question, partial(self._told, inquiry, part, question), PATIENCE_S)

    def _told(self, inquiry: _Inquiry, part: Address, question: AskWaits, answer: Answer) -> None:
        inquiry.open -= 1
        if answer.error is not None:
            inquiry.silent.append(part.path)
        else:
            waits: Waits = answer.value
            inquiry.told += waits.waits
            for other in waits.ask_too:
                self._inquire(inquiry, other, question)
        if inquiry.open == 0:
            self._answer(inquiry)

    def _answer(self, inquiry: _Inquiry) -> None:
        view = self.context.published.view
        newest = view.get(type(inquiry.subject), inquiry.subject.id)
        inquiry.reply.set(explain(view, newest or inquiry.subject, inquiry.told, inquiry.silent))

    @handles(PlanNode)
    def plan(self, message: PlanNode) -> dict[str, Any]:
        """Tries it on a copy."""
        view = self.context.published.view
        node = find(view, "node", message.text)
        assert isinstance(node, objects.Node)
        return plan(view, node, message.action, self.now())
