"""AgentActor keeps what this node was told to run: durable first, then running, then reported.

Its children are the session with a manager, one actor for each task, and the publisher of logs. The node tells it of
managers and of the certificate, and asks it to drop everything; nobody else talks to it.

Rules kept here, as SwarmKit's worker and reporter:
1. What a message assigns is in the task database, synced, before anything of it begins. A task that is to go stays
   there, wanted in REMOVE, until nothing is left of it: an agent that is restarted in between ends it all the same.
2. Statuses go to the database first, all that wait in one synced batch, and then to the manager, also many in one call.
   At the beginning of each session every status is reported again.
3. Secrets and configs are in memory alone. A task that needs them and had not come to run before a restart waits for
   the first complete set of assignments.
4. What the children of an earlier life had said is left unheard: they are gone, and a change to assignments that this
   life does not hold in full means nothing.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from actors.ingress_actor import IngressActor
from actors.log_publisher_actor import LogPublisherActor
from actors.session_actor import SessionActor
from actors.task_access_actor import TaskAccessActor
from actors.task_actor import TaskActor
from runtime.disk.data_root import TASK_DATABASE
from runtime.disk.tasks import StoredTask, TaskBatch, TaskDatabase
from runtime.errors import Code, Refused
from runtime.executor.port import Tidying
from runtime.failpoints import failpoint
from runtime.protocol.agent import (
    AccessLife,
    AgentSetup,
    Assignments,
    CertificateRenewed,
    DropTasks,
    IngressBlocked,
    IngressLife,
    IngressTablesAre,
    LogBrokerAt,
    LogsLife,
    ManagerIsAt,
    Managers,
    ReadLogs,
    RemoveTask,
    RenewSession,
    RunTask,
    SendStatuses,
    SessionBegan,
    SessionDown,
    SessionEnded,
    SessionLife,
    TaskAppeared,
    TaskGone,
    TaskLife,
    TaskProgress,
    TaskRemoved,
    UpdateTask,
)
from runtime.protocol.cluster import LocalLogs, LocalTasks, ToTask
from runtime.stage import Actor, ActorDown, Address, Answer, Policy, handles
from runtime.stage.answers import Reply
from runtime.stage.observe import Causes
from runtime.swarm.agent_assignments import Dependencies, bare, needs_payloads, task_changes
from runtime.swarm.agent_reports import StatusReports, Update
from runtime.wire.pb import objects_pb2, types_pb2
from runtime.wire.port import Channel

REPORT_AGAIN = 1.0  # seconds after a report that failed although the session goes on
REPORT_TIMEOUT = 20.0

M = TypeVar("M")

log = logging.getLogger("swarmlet.agent")
FAILURES = frozenset({types_pb2.FAILED, types_pb2.REJECTED})


@dataclass(slots=True)
class _Task:
    """A task of this node. ``status`` is how far it came here; ``own`` says that it was reported by its actor (or by
    the one of an earlier life). ``again`` is what was assigned while it was being removed."""

    task: objects_pb2.Task
    status: types_pb2.TaskStatus
    own: bool
    address: Address | None = None
    removing: bool = False
    again: tuple[objects_pb2.Task, types_pb2.TaskStatus] | None = None


@dataclass(frozen=True, slots=True)
class _LifeBegan:
    """In the mailbox between what was said to earlier lives and what this one's children say."""

    life: object


class _Flush:
    """Behind everything that has come in so far: what was gathered goes to the disk and to the manager."""


class _ReportAgain:
    """A report failed; the session goes on."""


def of_this_life(handler: Callable[[AgentActor, M], None]) -> Callable[[AgentActor, M], None]:
    """For what children say: a handler that does nothing before `_LifeBegan`."""

    @functools.wraps(handler)
    def handle(agent: AgentActor, message: M) -> None:
        if agent.begun:
            handler(agent, message)

    return handle


class AgentActor(Actor):
    """``node`` hears of sessions; ``setup`` is who this node is."""

    policy = Policy(own_thread=True)

    def __init__(self, node: Address, setup: AgentSetup) -> None:
        super().__init__()
        self.node = node
        self.setup = setup
        self.tasks: dict[str, _Task] = {}
        self.dependencies = Dependencies()
        self.reports = StatusReports()
        self.target: str | None = None
        self.channel: Channel | None = None
        self.begun = False
        self._managers: Managers | None = None
        self._blocked = IngressBlocked()
        self._database: TaskDatabase | None = None
        self._unsaved: dict[str, types_pb2.TaskStatus] = {}
        self._removed: list[str] = []
        self._flushing = False
        self._causes = Causes()
        self._unreported = Causes()
        self._sending = False
        self._leaving = False
        self._leavers: list[Reply] = []
        self._told_known = False

    # Lives

    def started(self) -> None:
        assert self.world.disk is not None, "this node has no disk"
        assert self.world.executor is not None, "this node has no executor"
        self.tell(self.address, _LifeBegan(self))
        self._database = TaskDatabase(self.world.disk.open_database(TASK_DATABASE))
        for stored in self._database.load():
            self._restore(stored)
        for orphan in self.world.executor.orphans():
            about = self.about(task_id=orphan.task_id)
            log.warning("task %s ran without its keeper and was killed: %s", orphan.task_id, orphan.text, extra=about)
        self.spawn("session", SessionActor, self.address, self.node, self.setup)
        self.spawn("logs", LogPublisherActor, self.address, self.setup)
        self.spawn("ingress", IngressActor, self.address)
        self.spawn("access", TaskAccessActor, self.address, self.setup)

    @handles(_LifeBegan)
    def life_began(self, message: _LifeBegan) -> None:
        """From here on children are this life's."""
        self.begun = self.begun or message.life is self

    def stopped(self) -> None:
        self._close()

    def crashed(self) -> None:
        self._close()
        self.tell(self.node, SessionDown("the agent failed"))

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()
        for reply in self._leavers:
            reply.fail(Refused(Code.UNAVAILABLE, "the agent ended before its tasks did"))

    def snapshot(self) -> dict[str, object]:
        return {
            "tasks": len(self.tasks),
            "removing": sum(1 for each in self.tasks.values() if each.removing),
            "unsaved": len(self._unsaved),
            "unreported": len(self.reports),
            "manager": self.target or "",
            "leaving": self._leaving,
        }

    @property
    def database(self) -> TaskDatabase:
        """The task database, open as long as this life lasts."""
        assert self._database is not None, "the task database is closed"
        return self._database

    def _restore(self, stored: StoredTask) -> None:
        status = stored.status if stored.status is not None else types_pb2.TaskStatus(state=types_pb2.ASSIGNED)
        held = self.tasks[stored.task.id] = _Task(bare(stored.task), status, own=stored.status is not None)
        waits = needs_payloads(stored.task) and stored.task.desired_state < types_pb2.SHUTDOWN
        if not (waits and status.state < types_pb2.RUNNING):
            self._run(held)

    def _run(self, held: _Task) -> None:
        """Starts the task's actor, which will ask for what it is to run."""
        task = held.task
        held.address = self.spawn(f"task-{task.id}", TaskActor, self.address, self.setup, self.dependencies, task.id)
        if not held.removing:
            self._tell_logs(TaskAppeared(task.id, task.service_id, held.address))

    # The node

    @handles(Managers)
    def managers(self, message: Managers) -> None:
        """Kept for a session's next life."""
        self._managers = message
        self._tell_session(message)

    @handles(CertificateRenewed, RenewSession)
    def certificate_renewed(self, message: Any) -> None:
        """The session knows what that means for it."""
        self._tell_session(message)

    @handles(DropTasks)
    def drop_tasks(self, message: DropTasks) -> None:
        """Everything goes, and nothing more is taken."""
        self._leaving = True
        self.dependencies.tables = {}
        self._tell_ingress()
        self._leavers.append(self.defer())
        self._remove(list(self.tasks))
        self._answer_leavers()

    def _answer_leavers(self) -> None:
        if self._leaving and not self.tasks:
            self._tell_known()
            leavers, self._leavers = self._leavers, []
            for reply in leavers:
                reply.set(None)

    @handles(LocalTasks)
    def local_tasks(self, message: LocalTasks) -> tuple[tuple[objects_pb2.Task, types_pb2.TaskStatus], ...]:
        """What this node was told to run, and how far it came."""
        return tuple((held.task, held.status) for held in self.tasks.values() if not held.removing)

    @handles(LocalLogs)
    def local_logs(self, message: LocalLogs) -> None:
        """The task reads them, and answers who asked."""
        self.forward(self._address_of(message.task_id), ReadLogs(message.options, message.on_line, message.on_end))

    @handles(ToTask)
    def to_task(self, message: ToTask) -> None:
        """The task answers who asked."""
        self.forward(self._address_of(message.task_id), message.question)

    def _address_of(self, task_id: str) -> Address:
        held = self.tasks.get(task_id)
        if held is None or held.address is None or held.removing:
            raise Refused(Code.NOT_FOUND, f"task {task_id} not found")
        return held.address

    # The session

    @handles(SessionLife)
    @of_this_life
    def session_life(self, message: SessionLife) -> None:
        """It knows nothing yet."""
        self._session_at(None)
        if self._managers is not None:
            self._tell_session(self._managers)
        self._tell_session(self._blocked)

    @handles(SessionBegan)
    @of_this_life
    def session_began(self, message: SessionBegan) -> None:
        """The manager may have lost what it was told before: all of it again."""
        self._session_at(message.target, message.channel)
        for task_id, held in self.tasks.items():
            if held.own and not held.removing and task_id not in self._unsaved:
                self.reports.note(task_id, held.status)
        self._report()

    @handles(SessionEnded)
    @of_this_life
    def session_ended(self, message: SessionEnded) -> None:
        """Reports wait for the next one."""
        self._session_at(None)

    def _session_at(self, target: str | None, channel: Channel | None = None) -> None:
        self.target, self.channel = target, channel
        self._tell_logs(LogBrokerAt(target))
        self._tell_access()

    @handles(AccessLife)
    @of_this_life
    def access_life(self, message: AccessLife) -> None:
        """It knows nothing yet."""
        self._tell_access()

    def _tell_access(self) -> None:
        access = self.child("access")
        if access is not None:
            self.tell(access, ManagerIsAt(self.target, self.channel))

    def _tell_session(self, message: Managers | CertificateRenewed | RenewSession | IngressBlocked) -> None:
        session = self.child("session")
        assert session is not None, "the session's actor is there as long as the agent"
        self.tell(session, message)

    # Assignments

    @handles(Assignments)
    @of_this_life
    def assignments(self, message: Assignments) -> None:
        """Secrets and configs, then the disk, then the tasks."""
        if self._leaving:
            return
        if self.dependencies.apply(message.message):
            self._tell_ingress()
        changes = task_changes(message.message)
        batch = self.database.batch()
        taken = {task_id for task_id, given in changes.given.items() if self._take(*given, batch)}
        gone = changes.removed
        if changes.complete:
            gone = [task_id for task_id in self.tasks if task_id not in changes.given]
        going = self._mark_removed(gone, batch)
        batch.commit()
        if changes.complete:
            taken |= {task_id for task_id, held in self.tasks.items() if held.address is None and not held.removing}
        log.debug("%d tasks are given, %d are to go", len(taken), len(gone), extra=self.about())
        for task_id in sorted(taken):
            self._act(self.tasks[task_id])
        self._send_away(going)
        if changes.complete or self._told_known:
            self._tell_known()

    def _tell_known(self) -> None:
        """Not before the first complete set: a database that lost something is no reason to end what runs."""
        self._told_known = True
        executor: object = self.world.executor
        if isinstance(executor, Tidying):
            executor.known(frozenset(self.tasks))

    def _take(self, task: objects_pb2.Task, status: types_pb2.TaskStatus, batch: TaskBatch) -> bool:
        """Takes one task as it was told; False if that changes nothing, or has to wait for an end."""
        held = self.tasks.get(task.id)
        if held is None:
            ending = self.child(f"task-{task.id}")
            if ending is not None:
                self.tasks[task.id] = _Task(task, status, own=False, removing=True, again=(task, status))
                self.watch(ending)
                return False
            self.tasks[task.id] = _Task(task, status, own=False)
        elif held.removing:
            held.again = task, status
            return False
        elif task == held.task:
            return False
        elif task.desired_state < held.task.desired_state:
            about = self.about(task_id=task.id, service_id=task.service_id)
            log.warning(
                "task %s: an update back to desired state %d is refused", task.id, task.desired_state, extra=about
            )
            return False
        else:
            held.task = task
        batch.put(task)
        return True

    def _act(self, held: _Task) -> None:
        if held.address is None:
            self._run(held)
        else:
            self.tell(held.address, UpdateTask(held.task))

    # Removal

    def _remove(self, task_ids: list[str]) -> None:
        batch = self.database.batch()
        going = self._mark_removed(task_ids, batch)
        batch.commit()
        self._send_away(going)

    def _mark_removed(self, task_ids: list[str], batch: TaskBatch) -> list[_Task]:
        going = []
        for task_id in task_ids:
            held = self.tasks.get(task_id)
            if held is None:
                continue
            held.again = None
            if held.removing:
                continue
            held.removing = True
            last = objects_pb2.Task()
            last.CopyFrom(held.task)
            last.desired_state = types_pb2.REMOVE
            held.task = last
            batch.put(last)
            going.append(held)
        return going

    def _send_away(self, going: list[_Task]) -> None:
        for held in going:
            self._unsaved.pop(held.task.id, None)
            self.reports.forget(held.task.id)
            self._tell_logs(TaskGone(held.task.id))
            if held.address is None:
                self._run(held)  # what an earlier life began can be removed only by a controller
            else:
                self.tell(held.address, RemoveTask())

    @handles(TaskRemoved)
    @of_this_life
    def task_removed(self, message: TaskRemoved) -> None:
        """Nothing is left of it but its record."""
        self._removed.append(message.task_id)
        self._flush_soon()

    @handles(ActorDown)
    def task_actor_gone(self, message: ActorDown) -> None:
        """A task that came back while it was being removed has room to run again."""
        held = self.tasks.get(message.path.rpartition("/task-")[2])
        if message.final and held is not None and held.address is None and held.removing:
            self._come_back(held)

    # Tasks

    @handles(TaskLife)
    @of_this_life
    def task_life(self, message: TaskLife) -> None:
        """A life of a task's actor begins with what is known here."""
        held = self.tasks.get(message.task_id)
        assert held is not None, f"task {message.task_id} is not known here"
        assert held.address is not None, f"nobody is to run task {message.task_id}"
        self.tell(held.address, RunTask(held.task, held.status))
        if held.removing:
            self.tell(held.address, RemoveTask())

    @handles(TaskProgress)
    @of_this_life
    def task_progress(self, message: TaskProgress) -> None:
        """Gathered until everything that waits in the mailbox has been seen."""
        held = self.tasks.get(message.task_id)
        if held is None or held.removing:
            return
        held.status = message.status
        held.own = True
        self._unsaved[message.task_id] = message.status
        self._flush_soon()

    def _flush_soon(self) -> None:
        self._causes.add(self.trace)
        if not self._flushing:
            self._flushing = True
            self.tell(self.address, _Flush())

    @handles(_Flush)
    def flush(self, message: _Flush) -> None:
        """One synced batch; then the manager may know."""
        self._flushing = False
        self.continues(*self._causes.take())
        unsaved, self._unsaved = self._unsaved, {}
        removed, self._removed = self._removed, []
        batch = self.database.batch()
        for task_id, status in unsaved.items():
            batch.put_status(task_id, status)
            if status.state == types_pb2.RUNNING:
                failpoint("agent.task_started_status_unsaved")
        for task_id in removed:
            batch.remove(task_id)
        batch.commit()
        for task_id, status in unsaved.items():
            state = types_pb2.TaskState.Name(status.state).lower()
            if status.state in FAILURES:
                self._say_failure(task_id, state, status)
            else:
                log.debug("task %s is %s", task_id, state, extra=self.about(task_id=task_id))
            self.reports.note(task_id, status)
        for task_id in removed:
            self._forget(task_id)
        if unsaved:
            self._unreported.add(self.trace)
        self._report()
        self._answer_leavers()

    def _say_failure(self, task_id: str, state: str, status: types_pb2.TaskStatus) -> None:
        """A task that ended otherwise than it was to."""
        task, code = self.tasks[task_id].task, status.container.exit_code
        error = status.err or status.message
        ended = "was rejected" if status.state == types_pb2.REJECTED else "failed"
        text = f"task {task_id} of service {task.service_annotations.name or task.service_id} {ended}: {error}"
        about = {"task_id": task_id, "service_id": task.service_id, "state": state, "exit_code": str(code or "")}
        self.moment(log, "task", "fail", text, id=task_id, level=logging.WARNING, **about)

    def _forget(self, task_id: str) -> None:
        held = self.tasks[task_id]
        if held.again is None:
            del self.tasks[task_id]
            return
        address, held.address = held.address, None
        assert address is not None, f"task {task_id} was removed by nobody"
        self.watch(address)  # its actor has to be gone before another can have its name

    def _come_back(self, held: _Task) -> None:
        again = held.again
        del self.tasks[held.task.id]
        if again is None or self._leaving:
            self._answer_leavers()
            return
        batch = self.database.batch()
        self._take(*again, batch)
        batch.commit()
        self._act(self.tasks[again[0].id])

    # Reports

    def _report(self) -> None:
        if self._sending or self.target is None:
            return
        updates = self.reports.take()
        session = self.child("session")
        if updates and session is not None:
            self._sending = True
            self.continues(*self._unreported.take())
            self.ask(session, SendStatuses(updates), lambda answer: self._reported(updates, answer), REPORT_TIMEOUT)

    def _reported(self, updates: tuple[Update, ...], answer: Answer) -> None:
        self._sending = False
        if answer.error is None:
            self._report()
            return
        self.reports.put_back((id, status) for id, status in updates if id in self.tasks)
        self.after(REPORT_AGAIN, _ReportAgain())

    @handles(_ReportAgain)
    def report_again(self, message: _ReportAgain) -> None:
        """What failed waits again."""
        self._report()

    # Published services

    @handles(IngressLife)
    @of_this_life
    def ingress_life(self, message: IngressLife) -> None:
        """It knows nothing yet."""
        self._tell_ingress()

    @handles(IngressBlocked)
    @of_this_life
    def ingress_blocked(self, message: IngressBlocked) -> None:
        """The node's description says so."""
        self._blocked = message
        self._tell_session(message)

    def _tell_ingress(self) -> None:
        ingress = self.child("ingress")
        if ingress is not None:
            tables = self.dependencies.tables
            self.tell(ingress, IngressTablesAre(tuple(tables[id] for id in sorted(tables))))

    # Logs

    @handles(LogsLife)
    @of_this_life
    def logs_life(self, message: LogsLife) -> None:
        """It knows nothing yet: first the tasks, then where the log broker is."""
        for held in self.tasks.values():
            if held.address is not None and not held.removing:
                self._tell_logs(TaskAppeared(held.task.id, held.task.service_id, held.address))
        self._tell_logs(LogBrokerAt(self.target))

    def _tell_logs(self, message: TaskAppeared | TaskGone | LogBrokerAt) -> None:
        logs = self.child("logs")
        if logs is not None:  # tasks are restored before it starts, and then told to it at once
            self.tell(logs, message)
