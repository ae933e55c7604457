"""LogBrokerActor brings the logs of tasks from their nodes to whoever asked for them.

Clients subscribe (``Logs.SubscribeLogs``), nodes listen for subscriptions (``LogBroker.ListenSubscriptions``) and send
what they have (``LogBroker.PublishLogs``). It keeps no line: each goes on to its subscriber at once, and a subscriber
that reads too slowly ends its own subscription.

Rules kept here:
1. A node is told of each subscription that concerns it, once on each stream, and of its end.
2. A node that does not listen, that goes away, whose upload breaks, or that says nothing for 15 s has nothing more to
   say; a subscription that does not follow says so at its end. One that follows is told in between, once for each task
   that has not ended: when the node's stream ends, and when the swarm takes the node for down although its connections
   stand (it hangs). What such a node says later comes after that.
3. A node speaks only for itself, and only in subscriptions that it was asked in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from actors.serving import Serving, serves
from actors.store_watcher import StoreWatcher
from runtime.errors import Code, Refused, invalid, not_found
from runtime.protocol.manager import LeaderContext
from runtime.stage import GiveUp, Policy, handles
from runtime.store.changes import Action
from runtime.store.events import Commit, Select, WatchFilter
from runtime.swarm.identity import new_id
from runtime.swarm.log_selection import LogSelection, disconnected, gap_message, is_down, not_available, silent
from runtime.wire.pb import logs_pb2 as logs
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from runtime.wire.port import Call

SILENCE = 15.0  # seconds after which a node that was asked, and says nothing at all, is no longer waited for
LOOK_AGAIN = 1.0


class _LookForSilent:
    """Time to see which nodes have said nothing for long."""


@dataclass(slots=True, eq=False)
class _Subscription:
    """A client's stream and what it selects; ``heard`` is when each node was asked or last said something."""

    call: Call
    selection: LogSelection
    heard: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Listener:
    """A node's stream and the subscriptions that it was told of. ``down``: it hangs, and who follows was told so."""

    node_id: str
    call: Call
    told: dict[str, _Subscription] = field(default_factory=dict)
    down: bool = False


@dataclass(slots=True, eq=False)
class _Upload:
    """A node's logs on their way to one subscription, which its first message names."""

    node_id: str
    call: Call
    subscription: _Subscription | None = None
    over: bool = False


class LogBrokerActor(Serving, StoreWatcher):
    """``listeners`` are by node id, ``subscriptions`` by their own."""

    policy = Policy(give_up=GiveUp.NEVER)
    watched = WatchFilter(
        (
            Select(objects.Task, frozenset({Action.CREATE, Action.UPDATE})),
            Select(objects.Node, frozenset({Action.UPDATE})),
        )
    )

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self.subscriptions: dict[str, _Subscription] = {}
        self.listeners: dict[str, _Listener] = {}
        self.uploads: dict[_Upload, None] = {}
        self._following: dict[tuple[str, str], dict[_Subscription, None]] = {}  # by ("service" or "task", id)
        self._looking = False

    def stopped(self) -> None:
        refused = Refused(Code.ABORTED, "broker is not running")
        held = [each.call for each in self.subscriptions.values()]
        held += [each.call for each in self.listeners.values()]
        held += [each.call for each in self.uploads]
        for call in held:
            call.fail(refused)

    def crashed(self) -> None:
        self.stopped()

    def snapshot(self) -> dict[str, Any]:
        return {
            "subscriptions": len(self.subscriptions),
            "listening nodes": len(self.listeners),
            "uploads": len(self.uploads),
        }

    # Subscribers

    @serves("Logs", "SubscribeLogs")
    def subscribe(self, call: Call) -> None:
        """Asks the nodes that have something to say."""
        request: Any = call.request
        selection = LogSelection(new_id(self.world.entropy), request)
        selection.match(self.view)
        subscription = self.subscriptions[selection.id] = _Subscription(call, selection)
        if selection.follow:
            for key in _followed(selection):
                self._following.setdefault(key, {})[subscription] = None
        gone = self.sink(lambda _: self._drop(subscription))
        call.on_cancel(lambda: gone(None))
        for node_id in selection.nodes:
            self._ask(node_id, subscription)
        self._finish_if_complete(subscription)
        self._look_later()

    def _look_later(self) -> None:
        if not self._looking and any(each.selection.awaited for each in self.subscriptions.values()):
            self._looking = True
            self.after(LOOK_AGAIN, _LookForSilent())

    @handles(_LookForSilent)
    def look_for_silent(self, message: _LookForSilent) -> None:
        """Whoever waits for a node that hangs gets what the others said, and is told."""
        self._looking = False
        late = self.monotonic() - SILENCE
        for subscription in list(self.subscriptions.values()):
            for node_id in subscription.selection.awaited:
                if subscription.heard.get(node_id, 0.0) <= late:
                    self._done(subscription, node_id, silent(node_id, SILENCE))
        self._look_later()

    def commit(self, commit: Commit) -> None:
        """Tasks that came to nodes: those who follow them want these nodes too. And nodes that went down."""
        for event in commit.events:
            if event.kind is objects.Node:
                self._node_changed(event.object)
            elif self._following:
                self._task_came(event.object)

    def _task_came(self, task: objects.Task) -> None:
        for key in (("service", task.service_id), ("task", task.id)):
            for subscription in list(self._following.get(key, ())):
                if subscription.selection.add(task):
                    self._ask(task.node_id, subscription)

    def _node_changed(self, node: objects.Node) -> None:
        listener = self.listeners.get(node.id)
        if listener is None:
            return
        down = node.status.state == types.NodeStatus.DOWN
        if down and not listener.down:
            for subscription in list(listener.told.values()):
                self._mark_gap(subscription, node.id, is_down(node.id))
        listener.down = down

    def _ask(self, node_id: str, subscription: _Subscription) -> None:
        listener = self.listeners.get(node_id)
        node = self.view.get(objects.Node, node_id)
        if node is not None and node.status.state == types.NodeStatus.DOWN:
            self._mark_gap(subscription, node_id, is_down(node_id))
        if listener is None:
            subscription.selection.done(node_id, not_available(node_id))
        else:
            self._tell(listener, subscription)

    def _done(self, subscription: _Subscription, node_id: str, reason: str = "") -> None:
        subscription.selection.done(node_id, reason)
        self._finish_if_complete(subscription)

    def _finish_if_complete(self, subscription: _Subscription) -> None:
        selection = subscription.selection
        if selection.complete and selection.id in self.subscriptions:
            outcome = selection.outcome
            self._drop(subscription)
            if outcome is None:
                subscription.call.end()
            else:
                subscription.call.fail(outcome)

    def _drop(self, subscription: _Subscription) -> None:
        """Forgets a subscription; the nodes that it was told to hear of its end."""
        selection = subscription.selection
        if self.subscriptions.pop(selection.id, None) is None:
            return
        if selection.follow:
            for key in _followed(selection):
                followers = self._following[key]
                followers.pop(subscription, None)
                if not followers:
                    del self._following[key]
        for node_id in selection.nodes:
            listener = self.listeners.get(node_id)
            if listener is not None and listener.told.pop(selection.id, None) is not None:
                self._say(listener, selection.message(close=True))

    # Nodes that listen

    @serves("LogBroker", "ListenSubscriptions")
    def listen(self, call: Call) -> None:
        """Tells a node of all subscriptions that concern it, and of each that comes. Its newest stream counts."""
        node_id = call.identity.node_id
        before = self.listeners.pop(node_id, None)
        if before is not None:
            before.call.fail(Refused(Code.ABORTED, "the node listens on another stream"))
        listener = self.listeners[node_id] = _Listener(node_id, call)
        gone = self.sink(lambda _: self._gone(listener))
        call.on_cancel(lambda: gone(None))
        for subscription in list(self.subscriptions.values()):
            if node_id in subscription.selection.nodes:
                self._tell(listener, subscription)

    def _tell(self, listener: _Listener, subscription: _Subscription) -> None:
        listener.told[subscription.selection.id] = subscription
        subscription.heard[listener.node_id] = self.monotonic()
        self._say(listener, subscription.selection.message())

    def _say(self, listener: _Listener, message: logs.SubscriptionMessage) -> None:
        if not listener.call.send(message):
            self._gone(listener)

    def _gone(self, listener: _Listener) -> None:
        if self.listeners.get(listener.node_id) is not listener:
            return
        del self.listeners[listener.node_id]
        told, listener.told = listener.told, {}
        for subscription in told.values():
            if not listener.down:
                self._mark_gap(subscription, listener.node_id, disconnected(listener.node_id))
            self._done(subscription, listener.node_id, disconnected(listener.node_id))

    def _mark_gap(self, subscription: _Subscription, node_id: str, reason: str) -> None:
        """Who follows goes on with the other nodes, and with this one when it is back; the gap is told."""
        selection = subscription.selection
        if not selection.follow:
            return
        chosen = selection.selector
        for task in self.view.find(objects.Task, "node", node_id):
            meant = task.id in chosen.task_ids or task.service_id in chosen.service_ids or node_id in chosen.node_ids
            open_still = task.status.state <= types.RUNNING
            if meant and open_still and not subscription.call.send(gap_message(node_id, task, reason)):
                self._drop(subscription)
                return

    # Logs on their way

    @serves("LogBroker", "PublishLogs")
    def publish(self, call: Call) -> None:
        """Passes a node's messages on until it closes, or says no more."""
        upload = _Upload(call.identity.node_id, call)
        self.uploads[upload] = None
        call.receive(self.sink(partial(self._published, upload)), self.sink(partial(self._upload_ended, upload)))

    def _published(self, upload: _Upload, message: logs.PublishLogsMessage) -> None:
        if upload.over:
            return
        try:
            subscription = self._check(upload, message)
        except Refused as refused:
            self._end_upload(upload, refused)
            return
        subscription.heard[upload.node_id] = self.monotonic()
        if message.messages and not subscription.call.send(logs.SubscribeLogsMessage(messages=message.messages)):
            self._drop(subscription)
        if message.close:
            self._end_upload(upload, None)

    def _check(self, upload: _Upload, message: logs.PublishLogsMessage) -> _Subscription:
        if not message.subscription_id:
            raise invalid("missing subscription ID")
        named = upload.subscription
        if named is not None and named.selection.id != message.subscription_id:
            raise invalid("different subscription IDs in the same session")
        subscription = self.subscriptions.get(message.subscription_id)
        if subscription is None or upload.node_id not in subscription.selection.nodes:
            raise not_found("unknown subscription ID")
        upload.subscription = subscription
        for each in message.messages:
            if each.context.node_id != upload.node_id:
                text = f"invalid NodeID: expected={upload.node_id};received={each.context.node_id}"
                raise Refused(Code.PERMISSION_DENIED, text)
        return subscription

    def _upload_ended(self, upload: _Upload, refused: Refused | None) -> None:
        if not upload.over:
            self._end_upload(upload, refused)

    def _end_upload(self, upload: _Upload, refused: Refused | None) -> None:
        upload.over = True
        del self.uploads[upload]
        if refused is None:
            upload.call.reply(logs.PublishLogsResponse())
        else:
            upload.call.fail(refused)
        if upload.subscription is not None:
            self._done(upload.subscription, upload.node_id, refused.rpc_text if refused is not None else "")


def _followed(selection: LogSelection) -> list[tuple[str, str]]:
    chosen = selection.selector
    services = [("service", id) for id in dict.fromkeys(chosen.service_ids)]
    return services + [("task", id) for id in dict.fromkeys(chosen.task_ids)]
