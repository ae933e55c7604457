"""TaskAccessBrokerActor brings questions about tasks, and commands to be run beside them, from managers to the nodes.

Managers ask (``TaskAccess.Ask``) and say more (``TaskAccess.Say``); nodes listen (``TaskAccessBroker.Listen``) and
answer (``TaskAccessBroker.Answer``). It keeps nothing of what passes: windows of both ends bound what is under way.

Rules kept here:
1. A question goes to the node that the task is on by the store, over the stream that this very node opened. One that
   cannot be reached is refused in a sentence.
2. A node answers only what it was asked, whoever asked is the only one who may say more, each over one upload. What
   does not keep to the agreement (`task_access`) ends, on both sides, with a reason.
3. Whatever ends one part of it (the question's stream, an upload, the node's stream, the node being down, this
   leadership) ends all of it: the node hears it and ends the command.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from actors.serving import Serving, serves
from actors.store_watcher import StoreWatcher
from runtime.errors import Code, Refused, invalid, not_found
from runtime.protocol.manager import LeaderContext
from runtime.stage import GiveUp, Policy, Timer, handles
from runtime.store.changes import Action
from runtime.store.events import Commit, Select, WatchFilter
from runtime.swarm import task_access as rules
from runtime.swarm.identity import new_id
from runtime.wire.pb import access_pb2 as pb
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.port import Call

UNKNOWN = "unknown access ID"


@dataclass(slots=True, eq=False)
class _Listener:
    """A node's stream, and what it was asked over it."""

    node_id: str
    call: Call
    asked: dict[str, _Access] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Access:
    """A question on its way: ``call`` is its asker's stream, ``saying`` and ``answering`` the uploads of both ends."""

    id: str
    call: Call
    listener: _Listener
    agreement: rules.Agreement
    overdue: Timer | None = None
    saying: Call | None = None
    answering: Call | None = None


@dataclass(slots=True, eq=False)
class _Upload:
    """An upload of either end; its first message names what it belongs to."""

    call: Call
    access: _Access | None = None
    over: bool = False


@dataclass(frozen=True, slots=True)
class _Overdue:
    access: _Access


class TaskAccessBrokerActor(Serving, StoreWatcher):
    """``listeners`` are by node id, ``open`` by the id that each question was given."""

    policy = Policy(give_up=GiveUp.NEVER)
    watched = WatchFilter((Select(objects.Node, frozenset({Action.UPDATE, Action.REMOVE})),))

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self.listeners: dict[str, _Listener] = {}
        self.open: dict[str, _Access] = {}

    def stopped(self) -> None:
        refused = Refused(Code.ABORTED, rules.LEADER_GONE)
        for access in list(self.open.values()):
            self._end(access, refused)
        for listener in self.listeners.values():
            listener.call.fail(refused)

    def crashed(self) -> None:
        self.stopped()

    def snapshot(self) -> dict[str, Any]:
        return {"listening nodes": len(self.listeners), "open": len(self.open)}

    # Nodes that listen

    @serves("TaskAccessBroker", "Listen")
    def listen(self, call: Call) -> None:
        """A node's newest stream counts; what it was asked over the one before is over."""
        node_id = call.identity.node_id
        before = self.listeners.get(node_id)
        if before is not None:
            before.call.fail(Refused(Code.ABORTED, "the node listens on another stream"))
            self._gone(before)
        listener = self.listeners[node_id] = _Listener(node_id, call)
        gone = self.sink(lambda _: self._gone(listener))
        call.on_cancel(lambda: gone(None))

    def _gone(self, listener: _Listener) -> None:
        if self.listeners.get(listener.node_id) is listener:
            del self.listeners[listener.node_id]
        self._lose(listener, rules.LOST)

    def _lose(self, listener: _Listener, why: str) -> None:
        for access in list(listener.asked.values()):
            self._end(access, Refused(Code.UNAVAILABLE, why))

    def commit(self, commit: Commit) -> None:
        """What was asked of a node that is taken for down, or was removed, is over."""
        for event in commit.events:
            listener = self.listeners.get(event.object.id)
            if listener is not None and (event.action is Action.REMOVE or rules.is_down(event.object)):
                self._lose(listener, rules.why_unreached(event.object))

    # Whoever asks

    @serves("TaskAccess", "Ask")
    def ask_task(self, call: Call) -> None:
        """Passes a question on to the task's node."""
        question: Any = call.request
        if question.WhichOneof("what") is None:
            raise invalid("a question about a task must be provided")
        listener = self._listener_for(question)
        access = _Access(new_id(self.world.entropy), call, listener, rules.Agreement(question))
        access.overdue = self.after(rules.ANSWER_MAX, _Overdue(access))
        self.open[access.id] = listener.asked[access.id] = access
        call.send(pb.FromTask(access_id=access.id, asked=True))
        asked_at = call.identity.node_id
        self._say(access, pb.ToTask(access_id=access.id, question=question, asked_at=asked_at))
        gone = self.sink(lambda _: self._end(access, None))
        call.on_cancel(lambda: gone(None))

    def _listener_for(self, question: pb.AccessQuestion) -> _Listener:
        try:
            _, node = rules.find_task(self.view, question.task_id)
        except LookupError as error:
            raise not_found(str(error)) from None
        listener = self.listeners.get(node.id)
        if rules.is_down(node) or listener is None:
            dockerd = listener is None and not rules.is_down(node) and not rules.is_ours(node)
            raise Refused(Code.UNIMPLEMENTED if dockerd else Code.UNAVAILABLE, rules.why_unreached(node))
        commands = sum(each.agreement.is_command for each in listener.asked.values())
        if question.WhichOneof("what") in ("run", "reach") and commands >= rules.COMMANDS_MAX:
            text = f"{commands} commands run from elsewhere at the node of this task already"
            raise Refused(Code.RESOURCE_EXHAUSTED, text)
        return listener

    @handles(_Overdue)
    def overdue(self, message: _Overdue) -> None:
        """A node that hangs is not waited for."""
        text = f"the node of this task did not answer within {rules.ANSWER_MAX:g} s"
        self._end(message.access, Refused(Code.DEADLINE_EXCEEDED, text))

    def _say(self, access: _Access, message: pb.ToTask) -> None:
        if not access.listener.call.send(message):
            self._gone(access.listener)

    # What both ends upload

    @serves("TaskAccess", "Say")
    def say(self, call: Call) -> None:
        """More from whoever asked."""
        self._receive(_Upload(call), self._said)

    @serves("TaskAccessBroker", "Answer")
    def answer(self, call: Call) -> None:
        """What a node says."""
        self._receive(_Upload(call), self._answered)

    def _receive(self, upload: _Upload, then: Any) -> None:
        upload.call.receive(self.sink(partial(self._came, upload, then)), self.sink(partial(self._closed, upload)))

    def _came(self, upload: _Upload, then: Any, message: Any) -> None:
        if upload.over:
            return
        try:
            then(upload, message)
        except Refused as refused:
            upload.over = True
            upload.call.fail(refused)
            if upload.access is not None:
                self._end(upload.access, Refused(Code.ABORTED, refused.text))

    def _closed(self, upload: _Upload, refused: Refused | None) -> None:
        """An upload that ends takes with it what it belonged to; a node's that ended well has said its last before."""
        if upload.over:
            return
        upload.over = True
        access = upload.access
        if refused is None:
            upload.call.reply(pb.Said() if access is None or access.saying is upload.call else pb.Heard())
        if access is not None:
            self._end(access, Refused(Code.UNAVAILABLE, rules.LOST))

    def _named(self, upload: _Upload, access_id: str, node_id: str, is_node: bool) -> _Access:
        """What an upload belongs to, by its first message. Refused for whoever has no part in it."""
        if upload.access is not None:
            if upload.access.id != access_id or access_id not in self.open:
                raise invalid(rules.BROKEN)
            return upload.access
        access = self.open.get(access_id)
        owner = None if access is None else access.listener.node_id if is_node else access.call.identity.node_id
        if access is None or owner != node_id or (access.answering if is_node else access.saying) is not None:
            raise not_found(UNKNOWN)
        upload.access = access
        if is_node:
            access.answering = upload.call
        else:
            access.saying = upload.call
        return access

    def _said(self, upload: _Upload, message: pb.ToTask) -> None:
        access = self._named(upload, message.access_id, upload.call.identity.node_id, is_node=False)
        if not access.agreement.to_task(message):
            raise invalid(rules.BROKEN)
        message.ClearField("asked_at")
        self._say(access, message)

    def _answered(self, upload: _Upload, message: pb.FromTask) -> None:
        access = self._named(upload, message.access_id, upload.call.identity.node_id, is_node=True)
        if not access.agreement.from_task(message):
            raise invalid(rules.BROKEN)
        if access.overdue is not None:
            access.overdue.cancel()
        taken = access.call.send(message)
        if access.agreement.over:
            upload.over = True
            self._end(access, None, by_node=True)
        elif not taken:
            self._end(access, None)

    # Ends

    def _end(self, access: _Access, refused: Refused | None, by_node: bool = False) -> None:
        """Ends all parts of it; again is nothing."""
        if self.open.pop(access.id, None) is None:
            return
        del access.listener.asked[access.id]
        if access.overdue is not None:
            access.overdue.cancel()
        for call, reply in ((access.answering, pb.Heard()), (access.saying, pb.Said())):
            if call is not None:
                call.reply(reply) if refused is None else call.fail(refused)
        access.call.end() if refused is None else access.call.fail(refused)
        if not by_node:
            access.listener.call.send(pb.ToTask(access_id=access.id, close=True))
