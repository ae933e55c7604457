"""What is said between the node and its agent, and among the agent, its session, its tasks and its logs.

Tasks that travel here have neither status nor meta, and are never changed once told; statuses travel beside them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.executor.inspection import Look
    from runtime.executor.port import LogOptions, OnEnd, OnLine
    from runtime.stage.address import Address
    from runtime.wire.pb import access_pb2, dispatcher_pb2, objects_pb2, types_pb2
    from runtime.wire.port import Channel, Credentials

StatusUpdate = tuple[str, "types_pb2.TaskStatus"]
"""A task's id and its status."""


@dataclass(frozen=True, slots=True)
class AgentSetup:
    """Who the agent is. ``credentials`` are the node's own, renewed in place."""

    node_id: str
    hostname: str
    credentials: Credentials
    availability: str = ""
    remote_exec: bool = True
    """Whether managers may reach this node's tasks."""


# Node -> agent


@dataclass(frozen=True, slots=True)
class Managers:
    """Where managers can be reached now: ``local`` is this node's own control socket (preferred while it is there),
    ``remotes`` are (node id, address) of the known ones. Told on each change, and first after each start."""

    local: str | None
    remotes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CertificateRenewed:
    """The node's certificate was renewed, or its root replaced; ``role`` is what it says now (empty: whatever the
    certificate says). ``settled``: no renewal that was asked for is left to do."""

    role: str = ""
    settled: bool = True


@dataclass(frozen=True, slots=True)
class DropTasks:
    """Question: end and forget every task of this node and take no more. Answered when all are gone."""


# Agent -> node


@dataclass(frozen=True, slots=True)
class SessionUp:
    """A manager has registered this node."""

    node_id: str


@dataclass(frozen=True, slots=True)
class SessionDown:
    """The session ended, or could not be had; another is tried by itself. ``removed``: a manager said that this node
    was removed from the swarm."""

    text: str
    removed: bool = False


@dataclass(frozen=True, slots=True)
class RenewSession:
    """Told to the agent, and by it to its session's keeper: a manager's newest word is wanted, so begin another one."""


@dataclass(frozen=True, slots=True)
class ManagersSeen:
    """The managers that a session listed: (node id, address, weight)."""

    remotes: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class RootSeen:
    """A session gave this root bundle (PEM), which is not the one that this node trusts."""

    root_pem: bytes


# Session -> agent, and what the agent says to it


@dataclass(frozen=True, slots=True)
class SessionLife:
    """A life of the session's actor began: it knows no managers yet."""


@dataclass(frozen=True, slots=True)
class SessionBegan:
    """This node is registered: statuses may be sent. ``target`` is where the manager is; ``channel`` is the session's
    connection, which is closed with it, for a stream that says little."""

    session_id: str
    target: str
    channel: Channel | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The session is over."""

    text: str


@dataclass(frozen=True, slots=True)
class Assignments:
    """An assignment message that follows on the one before it, or a complete one. Holds secrets: no repr shows it, a
    recording leaves them out."""

    message: dispatcher_pb2.AssignmentsMessage = field(repr=False, metadata={"scrubbed": True})


@dataclass(frozen=True, slots=True)
class SendStatuses:
    """Question: report these statuses. Answered when the manager has them; refused if the session is or gets lost."""

    updates: tuple[StatusUpdate, ...]


# Agent -> task


@dataclass(frozen=True, slots=True)
class RunTask:
    """The first message of each life of a task's actor: the task as it is now, and how far it had come."""

    task: objects_pb2.Task
    status: types_pb2.TaskStatus


@dataclass(frozen=True, slots=True)
class UpdateTask:
    """A newer version of the task."""

    task: objects_pb2.Task


@dataclass(frozen=True, slots=True)
class RemoveTask:
    """The task is no longer assigned to this node: end it and forget it."""


# Task -> agent


@dataclass(frozen=True, slots=True)
class TaskLife:
    """A life of a task's actor began: it needs a RunTask."""

    task_id: str


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """The task's status is now this."""

    task_id: str
    status: types_pb2.TaskStatus


@dataclass(frozen=True, slots=True)
class TaskRemoved:
    """Nothing is left of the task; its actor ends."""

    task_id: str


# Logs


@dataclass(frozen=True, slots=True)
class LogsLife:
    """A life of the log publisher began: it knows neither tasks nor a manager."""


@dataclass(frozen=True, slots=True)
class LogBrokerAt:
    """Where the log broker can be reached: at the session's manager, or nowhere while there is no session."""

    target: str | None


@dataclass(frozen=True, slots=True)
class TaskAppeared:
    """A task that this node runs, and who can read its logs. A task may be told again."""

    task_id: str
    service_id: str
    address: Address


@dataclass(frozen=True, slots=True)
class TaskGone:
    """A task that this node runs no more."""

    task_id: str


@dataclass(frozen=True, slots=True)
class IngressLife:
    """Told to the agent: a life of the actor that takes connections for published services begins."""


@dataclass(frozen=True, slots=True)
class IngressTablesAre:
    """Told to that actor: all tables of published services, as they came with the assignments."""

    tables: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class IngressBlocked:
    """Told to the agent by that actor, and by the agent to its session: the published ports that cannot be listened on
    here, as ``8080/tcp``, each with the system's reason. All of them, each time that they change."""

    ports: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class AccessLife:
    """Told to the agent: a life of the actor that lets managers reach tasks began. It knows of no session yet."""


@dataclass(frozen=True, slots=True)
class ManagerIsAt:
    """Told to that actor: the present session's manager and connection, or that there is none."""

    target: str | None
    channel: Channel | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SaidToCommand:
    """Told to a command that was asked for from elsewhere: what its asker says."""

    message: access_pb2.ToTask = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReadLogs:
    """Question to a task: read its logs. Answered with a callable that breaks it off once the reading has begun, or
    with None if there is nothing to read from. The callbacks are called from any thread."""

    options: LogOptions
    on_line: OnLine
    on_end: OnEnd


@dataclass(frozen=True, slots=True)
class InspectTask:
    """Question to a task: have its executor answer this. Refused with UNIMPLEMENTED where that cannot be looked at."""

    question: Look


class Until(enum.Enum):
    """What somebody waits for, in the engine's words: that the task does not run (which holds before its start too),
    its next end, its removal from this node. What waits for an end hears of a removal too."""

    NOT_RUNNING = "not-running"
    NEXT_EXIT = "next-exit"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class AwaitTask:
    """Question to a task: call ``on_end`` with its exit code once ``until`` holds, or with None if it has to be asked
    again. Answered with a callable that breaks that off. ``on_end`` may be called before the answer comes, from any
    thread."""

    until: Until
    on_end: Callable[[int | None], None]


CancelLogs = Callable[[], None]
