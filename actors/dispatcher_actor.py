"""DispatcherActor is where nodes get their work: sessions, heartbeats, assignments, and the statuses that come back.

Agents of all nodes talk to it over the wire, the manager tells it who the managers are, and it lives by the store's
commits. It decides nothing about tasks: it passes on what the store holds, and writes what nodes say.

Rules kept here:
1. A session begins when its node stands in the store as READY. The newest session of a node is its only one; with it
   end the streams of the one before.
2. A stream is told nothing older than the view that it began with, though commits that led there may still arrive.
3. A commit costs only the streams of the nodes that it names.
4. A reader that is too slow, or gone, ends its own stream and nothing else: heartbeats decide about its node.

What becomes of what nodes say is in ``dispatcher_statuses``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from google.protobuf.message import Message

from actors.dispatcher_statuses import DispatcherStatuses
from actors.serving import serves
from runtime.errors import Code, Refused
from runtime.failpoints import rare
from runtime.protocol.explain import AskWaits, Waits
from runtime.protocol.manager import LeaderContext, MembersChanged
from runtime.protocol.store import Step
from runtime.stage import Answer, GiveUp, Policy, Timer, handles
from runtime.stage.observe import Causes
from runtime.store.changes import Action
from runtime.store.events import Commit, Event, WatchFilter
from runtime.store.view import View
from runtime.swarm.addresses import split_host_port
from runtime.swarm.assignments import CHANGES_MAX, PATIENCE, QUIET, AssignmentSet
from runtime.swarm.identity import new_id
from runtime.swarm.ingress_tables import IngressTables, takes_tables
from runtime.swarm.labels import LOST_AFTER, seconds_of
from runtime.swarm.node_status import (
    Lost,
    NodeUpdate,
    heartbeat_period,
    node_unknown,
    not_registered,
    orphans,
    session_invalid,
    write_orphaned,
    write_unknown,
)
from runtime.swarm.task_model import the_cluster
from runtime.swarm.waits import Wait
from runtime.wire.pb import dispatcher_pb2 as dispatcher
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from runtime.wire.port import Call

LOOPBACK = "127.0.0.1"
UNSPECIFIED = ("", "0.0.0.0", "::")  # noqa: S104 - what a manager without an advertised address is listed with
ORPHANS_AGAIN = 5.0  # seconds before what could not be written about a lost node's tasks is tried again
WEIGHT = 10  # of every manager in a session's list

log = logging.getLogger("swarmlet.dispatcher")


@dataclass(slots=True, eq=False)
class _Session:
    """A node's session stream; ``version`` is that of the view that it was begun with."""

    node_id: str
    id: str
    call: Call
    version: int


@dataclass(slots=True, eq=False)
class _Assignments:
    """A node's assignment stream. ``due`` is when what waits is sent, ``latest`` when at the latest; ``timer`` is set
    while something waits.

    ``whole`` is the old form of it: every message is the list of all tasks. ``forwards``: its node is told the tables
    of published services.
    """

    call: Call
    assigned: AssignmentSet
    version: int
    whole: bool
    due: float = 0.0
    latest: float = 0.0
    timer: Timer | None = None
    forwards: bool = False
    causes: Causes = field(default_factory=Causes)


@dataclass(frozen=True, slots=True)
class _Look:
    """A node may be lost, or given up."""


class _TablesChanged:
    """100 ms since tables of published services began to change."""


@dataclass(frozen=True, slots=True)
class _Quiet:
    """No change for this stream for a while, perhaps."""

    stream: _Assignments


class DispatcherActor(DispatcherStatuses):
    """Streams are by node id."""

    policy = Policy(give_up=GiveUp.NEVER)
    watched = WatchFilter.kinds(objects.Task, objects.Node, objects.Cluster, objects.Service)

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self.sessions: dict[str, _Session] = {}
        self.assignments: dict[str, _Assignments] = {}
        self.own_addr = ""
        self._common = dispatcher.SessionMessage()  # what all sessions are told
        self._look_timer: Timer | None = None
        self.tables = IngressTables()
        self._tables_timer: Timer | None = None

    def begin(self, view: View) -> None:
        """Every node that is not down has a while to show that it lives."""
        self._see_cluster(the_cluster(view))
        now = self.monotonic()
        steps: list[Step] = []
        for service in view.all(objects.Service):
            self.tables.put_service(service)
        for task in view.all(objects.Task):
            self.tables.put_task(task)
        for node in view.all(objects.Node):
            self.tables.put_node(node)
            if node.status.state == types.NodeStatus.DOWN:
                self.registry.down(node.id, now)
            else:
                self.registry.known(node.id, now)
                steps.append(partial(write_unknown, node_id=node.id))
        if steps:
            self.write_batch(steps)
        self._look_again()

    def stopped(self) -> None:
        for session in list(self.sessions.values()):
            self._speak(session, self.view)
        self._end_all()

    def crashed(self) -> None:
        self._end_all()

    def _end_all(self) -> None:
        refused = Refused(Code.ABORTED, "dispatcher is stopped")
        for session in self.sessions.values():
            session.call.fail(refused)
        for stream in self.assignments.values():
            stream.call.fail(refused)
        for waiting in (self._waiting, *self._writing):
            for call in waiting.registering:
                call.fail(refused)

    def snapshot(self) -> dict[str, Any]:
        return {
            "nodes": len(self.registry.nodes),
            "sessions": len(self.sessions),
            "assignments": len(self.assignments),
            "assignments waiting": sum(each.assigned.pending for each in self.assignments.values()),
            "statuses waiting": self._waiting.statuses,
            "statuses being written": sum(len(each.tasks) for each in self._writing),
            "nodes down": self.registry.count_down,
            "managers": len(self._common.managers),
        }

    @handles(AskWaits)
    def waits(self, message: AskWaits) -> Waits:
        """Whether a node is in touch."""
        node_id = message.node_id
        if not node_id or node_id in self.sessions:
            return Waits()
        until = self.registry.keeps_until(node_id)
        if until is not None:
            why = "it is out of touch; it keeps its tasks until it counts as down"
            return Waits((Wait(node_id, "agent", why, max(0.0, until - self.monotonic())),))
        if self.registry.is_down(node_id):
            return Waits((Wait(node_id, "agent", "it has no session; its tasks are given up a day after it was lost"),))
        return Waits((Wait(node_id, "agent", "it has no session yet; it counts as down if it does not call soon"),))

    # What changes around it

    def commit(self, commit: Commit) -> None:
        """Passes on what sessions and assignments are about."""
        for event in commit.events:
            if event.kind is objects.Task:
                self._task_changed(event, commit)
            elif event.kind is objects.Node:
                self._node_changed(event, commit)
            elif event.kind is objects.Cluster:
                self._see_cluster(event.object)
            elif event.action is Action.REMOVE:
                self.tables.remove_service(event.object.id)
            else:
                self.tables.put_service(event.object)
        if self.tables.changed and self._tables_timer is None:
            self._tables_timer = self.after(PATIENCE, _TablesChanged())

    @handles(MembersChanged)
    def members_changed(self, message: MembersChanged) -> None:
        """Who the managers are: all nodes are to know."""
        common = dispatcher.SessionMessage()
        common.CopyFrom(self._common)
        del common.managers[:]
        for raft_id in sorted(message.members):
            member = message.members[raft_id]
            peer = types.Peer(node_id=member.node_id, addr=member.addr)
            common.managers.add(peer=peer, weight=WEIGHT)
            if member.node_id == self.context.node_id:
                self.own_addr = member.addr
        self._publish(common)

    def _see_cluster(self, cluster: objects.Cluster | None) -> None:
        self.registry.set_period(heartbeat_period(cluster))
        if cluster is None:
            return
        common = dispatcher.SessionMessage(managers=self._common.managers, RootCA=cluster.root_ca.ca_cert)
        common.network_bootstrap_keys.extend(cluster.network_bootstrap_keys)
        self._publish(common)

    def _publish(self, common: dispatcher.SessionMessage) -> None:
        if common == self._common:
            return
        self._common = common
        for session in list(self.sessions.values()):
            self._speak(session, self.view)

    def _node_changed(self, event: Event, commit: Commit) -> None:
        node_id = event.object.id
        if event.action is Action.REMOVE:
            self.registry.remove(node_id)
            self.tables.remove_node(node_id)
            self._end_streams(node_id, not_registered())
            return
        self.tables.put_node(event.object)
        session = self.sessions.get(node_id)
        if session is not None and commit.version > session.version:
            self._speak(session, commit.view)

    def _task_changed(self, event: Event, commit: Commit) -> None:
        task = event.object
        gone = event.action is Action.REMOVE
        (self.tables.remove_task if gone else self.tables.put_task)(task)
        stream = self.assignments.get(task.node_id)
        if stream is None or commit.version <= stream.version:
            return
        assigned = stream.assigned
        if assigned.remove(task) if gone else assigned.put(commit.view, task, of_status=event.of_status):
            self._modified(stream)

    # Sessions

    @serves("Dispatcher", "Session")
    def session(self, call: Call) -> None:
        """Goes on with the session named if it is the node's present one; else the node registers anew."""
        node_id = call.identity.node_id
        request: Any = call.request
        known = self.registry.nodes.get(node_id)
        resumed = known is not None and bool(request.session_id) and known.session_id == request.session_id
        if not resumed:
            self.registry.attempt(node_id, self.monotonic())
            if self.view.get(objects.Node, node_id) is None:
                raise node_unknown()
            self._waiting.registering.append(call)
        self._set_status(node_id, NodeUpdate(types.NodeStatus.READY, "", self._ip(call), request.description))
        if resumed:
            self._open_session(call, request.session_id)

    def _ip(self, call: Call) -> str:
        """Where the node is: the address that it calls from, for this very node the one that others reach it at."""
        identity = call.identity
        try:
            host, _ = split_host_port(self.own_addr if identity.local else identity.remote_addr)
        except ValueError:
            host = ""
        return LOOPBACK if identity.local and host in UNSPECIFIED else host

    def _registered(self, call: Call, stored: bool) -> None:
        node_id = call.identity.node_id
        if not stored:
            call.fail(node_unknown())
            return
        if self.registry.is_down(node_id) or self.registry.keeps_until(node_id) is not None:
            # It was lost while it registered, and that was written after.
            request: Any = call.request
            self._set_status(node_id, NodeUpdate(types.NodeStatus.READY, "", self._ip(call), request.description))
        session_id = new_id(self.world.entropy)
        self.registry.register(node_id, session_id, self.monotonic())
        log.debug("node %s registered from %s", node_id, self._ip(call), extra=self.about(node_id=node_id))
        self._end_streams(node_id, session_invalid())
        self._open_session(call, session_id)
        self._look_again()

    def _open_session(self, call: Call, session_id: str) -> None:
        node_id, view = call.identity.node_id, self.view
        before = self.sessions.get(node_id)
        if before is not None:
            before.call.fail(session_invalid())
        session = self.sessions[node_id] = _Session(node_id, session_id, call, view.version)
        self._when_gone(call, lambda: self._forget_session(session))
        self._speak(session, view)

    def _speak(self, session: _Session, view: View) -> None:
        node = view.get(objects.Node, session.node_id)
        if node is None:
            return  # the event of its end is on the way
        message = dispatcher.SessionMessage()
        message.CopyFrom(self._common)
        message.session_id = session.id
        message.node.CopyFrom(node)
        if not session.call.send(message):
            self._forget_session(session)

    def _forget_session(self, session: _Session) -> None:
        if self.sessions.get(session.node_id) is session:
            del self.sessions[session.node_id]

    def _end_streams(self, node_id: str, refused: Refused) -> None:
        session = self.sessions.pop(node_id, None)
        if session is not None:
            session.call.fail(refused)
        stream = self.assignments.pop(node_id, None)
        if stream is not None:
            _disarm(stream)
            stream.call.fail(refused)

    def _when_gone(self, call: Call, forget: Callable[[], None]) -> None:
        gone = self.sink(lambda _: forget())
        call.on_cancel(lambda: gone(None))

    # Heartbeats and nodes that are lost

    @serves("Dispatcher", "Heartbeat")
    def heartbeat(self, call: Call) -> Message:
        """The node lives; it is told when to say so again."""
        request: Any = call.request
        period = self.registry.heartbeat(call.identity.node_id, request.session_id, self.monotonic())
        response = dispatcher.HeartbeatResponse()
        response.period.FromNanoseconds(round(period * 1e9))
        return response

    @handles(_Look)
    def look(self, message: _Look) -> None:
        """Heartbeats that did not come, and nodes that have been down for a day."""
        self._look_timer = None
        now = self.monotonic()
        for lost in self.registry.take_lost(now, self._patience):
            self._lost(lost)
        for node_id in self.registry.take_given_up(now):
            tasks = orphans(self.view.find(objects.Task, "node", node_id))
            log.info(
                "node %s has been down for a day: %d tasks are orphans",
                node_id,
                len(tasks),
                extra=self.about(node_id=node_id),
            )
            if tasks:
                steps = [partial(write_orphaned, task_id=id) for id in tasks]
                self.write_batch(steps, partial(self._orphaned, node_id))
        self._look_again()

    def _patience(self, node_id: str) -> float:
        node = self.view.get(objects.Node, node_id)
        return (seconds_of(node.spec.annotations.labels, LOST_AFTER) or 0.0) if node is not None else 0.0

    def _lost(self, lost: Lost) -> None:
        state, how = types.NodeStatus.DOWN, "is down"
        text = lost.message
        if lost.keeps:
            state, how = types.NodeStatus.DISCONNECTED, "is out of touch"
            text += f"; it keeps its tasks for {lost.keeps:g} s: label {LOST_AFTER}"
        log.info("node %s %s: %s", lost.node_id, how, text, extra=self.about(node_id=lost.node_id))
        self._end_streams(lost.node_id, not_registered())
        self._set_status(lost.node_id, NodeUpdate(state, text))

    def _orphaned(self, node_id: str, answer: Answer) -> None:
        if answer.error is not None or any(isinstance(result, Refused) for result in answer.value):
            self.registry.give_up_at(node_id, self.monotonic() + ORPHANS_AGAIN)
            self._look_again()

    def _look_again(self) -> None:
        due, timer = self.registry.next_due, self._look_timer
        if due is None or (timer is not None and timer.due <= due):
            return
        if timer is not None:
            timer.cancel()
        self._look_timer = self.after(max(0.0, due - self.monotonic()), _Look())

    # Assignments

    @serves("Dispatcher", "Assignments")
    def assign(self, call: Call) -> None:
        """All that the node is to run, then the changes."""
        self._open_assignments(call, whole=False)

    @serves("Dispatcher", "Tasks")
    def tasks(self, call: Call) -> None:
        """The same for agents that know no changes: each time the list of all tasks."""
        self._open_assignments(call, whole=True)

    def _open_assignments(self, call: Call, whole: bool) -> None:
        node_id = call.identity.node_id
        request: Any = call.request
        self.registry.check(node_id, request.session_id)
        before = self.assignments.pop(node_id, None)
        if before is not None:
            _disarm(before)
            before.call.fail(Refused(Code.ABORTED, "the node opened another stream of assignments"))
        view = self.view
        stream = self.assignments[node_id] = _Assignments(call, AssignmentSet(node_id), view.version, whole)
        self._when_gone(call, lambda: self._forget_assignments(stream))
        node = view.get(objects.Node, node_id)
        stream.forwards = not whole and node is not None and takes_tables(node)
        self._send(stream, stream.assigned.begin(view, self.tables.all() if stream.forwards else ()))

    @handles(_TablesChanged)
    def tables_changed(self, message: _TablesChanged) -> None:
        """What nodes of processes forward to has changed: all of them are to know."""
        self._tables_timer = None
        changed = self.tables.take()
        for stream in list(self.assignments.values()):
            if stream.forwards:
                for id, table in changed.items():
                    stream.assigned.put_table(id, table)
                self._send_changes(stream)

    def _modified(self, stream: _Assignments) -> None:
        stream.causes.add(self.trace)
        if stream.assigned.pending >= (1 if rare("dispatcher.one_change") else CHANGES_MAX):
            self._send_changes(stream)
            return
        now = self.monotonic()
        if stream.timer is None:
            stream.latest = now + PATIENCE
            stream.timer = self.after(QUIET, _Quiet(stream))
        stream.due = min(now + QUIET, stream.latest)

    @handles(_Quiet)
    def quiet(self, message: _Quiet) -> None:
        """Sends what waits, unless changes came meanwhile: then a while after the last of them, but not for ever."""
        stream = message.stream
        stream.timer = None
        left = stream.due - self.monotonic()
        if left > 0 and stream.assigned.pending:
            stream.timer = self.after(left, message)
        elif stream.assigned.pending:
            self._send_changes(stream)

    def _send_changes(self, stream: _Assignments) -> None:
        """A node of our kind goes on with the trace that these changes come of."""
        self.continues(*stream.causes.take())
        self._send(stream, stream.assigned.take(self.trace if stream.forwards else 0))

    def _send(self, stream: _Assignments, message: dispatcher.AssignmentsMessage) -> None:
        sent: Message = dispatcher.TasksMessage(tasks=stream.assigned.tasks) if stream.whole else message
        if not stream.call.send(sent):
            self._forget_assignments(stream)

    def _forget_assignments(self, stream: _Assignments) -> None:
        _disarm(stream)
        if self.assignments.get(stream.assigned.node_id) is stream:
            del self.assignments[stream.assigned.node_id]


def _disarm(stream: _Assignments) -> None:
    if stream.timer is not None:
        stream.timer.cancel()
        stream.timer = None
