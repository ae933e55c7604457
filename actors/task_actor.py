"""TaskActor runs one task on this node: it takes the task from step to step through its executor's controller.

Its agent alone talks to it (log publishers may ask it to read). Every life begins by asking the agent for the task and
how far it had come; the controller then finds what runs already, so a life that failed never starts a task twice.

Rules kept here, as SwarmKit's task manager:
1. One operation of the controller at a time. An update cancels the one under way, is told to the controller, and only
   then the next step follows. After a temporary failure the step is tried again after a second.
2. Ending this actor, or its failure, lets go of the task and stops nothing that runs; only RemoveTask does.
It never writes to a disk and never talks to a manager.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from runtime.errors import Code, Refused
from runtime.executor.inspection import Inspectable
from runtime.executor.port import Controller, Failed, OnDone, Operation, Outcome, Rejected, TaskContext
from runtime.protocol.agent import (
    AgentSetup,
    AwaitTask,
    CancelLogs,
    InspectTask,
    ReadLogs,
    RemoveTask,
    RunTask,
    TaskLife,
    TaskProgress,
    TaskRemoved,
    Until,
    UpdateTask,
)
from runtime.stage import Actor, Address, GiveUp, Policy, Timer, handles
from runtime.stage.answers import Reply
from runtime.swarm.agent_assignments import Dependencies, TaskPayloads
from runtime.swarm.agent_ladder import Step, TaskRun, Verdict, Work
from runtime.wire.pb import objects_pb2, types_pb2

RETRY_AFTER = 1.0
REMOVE_TRIES = 5  # what an executor cannot remove in as many tries is let go of


NOT_INSPECTABLE = "tasks of this kind cannot be looked at from outside"


class _Retry:
    """A second after a temporary failure."""


def _ignore(outcome: Outcome) -> None:
    """Of a controller that is let go of nothing more is wanted."""


def _pass_on(reply: Reply, answer: object) -> None:
    if isinstance(answer, Refused):
        reply.fail(answer)
    else:
        reply.set(answer)


class TaskActor(Actor):
    """``dependencies`` are the node's secrets and configs, read when the executor asks for them."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, agent: Address, setup: AgentSetup, dependencies: Dependencies, task_id: str) -> None:
        super().__init__()
        self.agent = agent
        self.setup = setup
        self.dependencies = dependencies
        self.task_id = task_id
        self._run: TaskRun | None = None
        self._controller: Controller | None = None
        self._newer: objects_pb2.Task | None = None
        self._operation: Operation | None = None
        self._number = 0
        self._retry: Timer | None = None
        self._removing = False
        self._removals = 0
        self._told: types_pb2.TaskStatus | None = None
        self._readers: list[tuple[ReadLogs, Reply]] = []
        self._waiters: list[AwaitTask] = []

    def started(self) -> None:
        self.tell(self.agent, TaskLife(self.task_id))

    def stopped(self) -> None:
        self._let_go()
        self._end_waits(self._waiters, None)

    def crashed(self) -> None:
        self._let_go()
        self._end_waits(self._waiters, None)

    def _let_go(self) -> None:
        controller, self._controller = self._controller, None
        if controller is not None:
            controller.close(_ignore)
        for _, reply in self._readers:
            reply.set(None)

    def snapshot(self) -> dict[str, object]:
        if self._run is None:
            return {"task": self.task_id}
        return {
            "task": self.task_id,
            "state": types_pb2.TaskState.Name(self._run.status.state),
            "desired": self._run.desired,
            "message": self._run.status.message,
            "busy": self._operation is not None,
            "removing": self._removing,
        }

    # What the agent says

    @handles(RunTask)
    def run(self, message: RunTask) -> None:
        """Finds the controller; a task that no controller can be made for has its end in that."""
        if self._run is not None:
            return
        self._run = TaskRun(message.task, message.status)
        self._newer = None  # an update that came before is part of this
        self._told = message.status
        assert self.world.executor is not None, "this node has no executor"
        try:
            self._controller = self.world.executor.controller(message.task, self._context(message.task))
        except Rejected as rejected:
            self._run.unresolved(rejected.text, self.now())
        else:
            self._run.resolved(self.now())
        readers, self._readers = self._readers, []
        for question, reply in readers:
            reply.set(self._read(question))
        self._go()

    @handles(UpdateTask)
    def update(self, message: UpdateTask) -> None:
        """The operation under way is broken off: what follows may be another."""
        self._newer = message.task
        self._interrupt()

    @handles(RemoveTask)
    def remove(self, message: RemoveTask) -> None:
        """Nothing but the removal follows."""
        self._removing = True
        self._interrupt()

    @handles(ReadLogs)
    def read_logs(self, message: ReadLogs) -> CancelLogs | None:
        """Reading goes on beside any operation."""
        if self._run is None:
            self._readers.append((message, self.defer()))
            return None
        return self._read(message)

    def _read(self, message: ReadLogs) -> CancelLogs | None:
        if self._controller is None or self._removing:
            return None
        return self._controller.logs(message.options, message.on_line, message.on_end).cancel

    @handles(InspectTask)
    def inspect(self, message: InspectTask) -> None:
        """Looking goes on beside any operation."""
        controller: object = self._controller
        if not isinstance(controller, Inspectable):
            raise Refused(Code.UNIMPLEMENTED, NOT_INSPECTABLE)
        controller.look(message.question, partial(_pass_on, self.defer()))

    @handles(AwaitTask)
    def await_end(self, message: AwaitTask) -> Callable[[], None]:
        """Waits for no operation; whoever waits longer than this life is told so."""
        self._waiters.append(message)
        self._tell_waiters(was=types_pb2.COMPLETE)
        return partial(self.sink(self._wait_no_more), message)

    def _wait_no_more(self, message: AwaitTask) -> None:
        self._waiters = [each for each in self._waiters if each is not message]

    def _tell_waiters(self, was: int) -> None:
        """Calls those whose wait is over, now that the state has changed from ``was``."""
        if self._run is None or not self._waiters:
            return
        status = self._run.status
        over = set()
        if not types_pb2.STARTING <= status.state <= types_pb2.RUNNING:
            over.add(Until.NOT_RUNNING)
        if status.state > types_pb2.RUNNING >= was:
            over.add(Until.NEXT_EXIT)
        self._end_waits([each for each in self._waiters if each.until in over], status.container.exit_code)

    def _end_waits(self, ended: list[AwaitTask], code: int | None) -> None:
        self._waiters = [each for each in self._waiters if each not in ended]
        for each in ended:
            each.on_end(code)

    def _interrupt(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._operation is not None:
            self._operation.cancel()
        else:
            self._go()

    @handles(_Retry)
    def retry(self, message: _Retry) -> None:
        """The failed step again."""
        self._retry = None
        self._go()

    # Steps

    def _go(self) -> None:
        """Takes steps until one has to be waited for; then tells the agent how far the task has come."""
        run = self._run
        if run is None or self._operation is not None or self._retry is not None:
            return
        if self._removing:
            self._remove()
            return
        if self._controller is not None:
            self._advance(run, self._controller)
        self._tell_progress(run)

    def _advance(self, run: TaskRun, controller: Controller) -> None:
        if self._newer is not None:
            task, self._newer = self._newer, None
            run.desired = task.desired_state
            self._operate(partial(controller.update, task), _ignore)
            return
        step = run.next
        while step is not None and step.work is None:
            run.advance(step, self.now())
            step = run.next
        if step is not None and step.work is not None:
            self._operate(_call(controller, step.work), partial(self._worked, run, step))

    def _operate(self, call: Callable[[OnDone], Operation], then: Callable[[Outcome], None]) -> None:
        self._number += 1
        self._operation = call(self.sink(partial(self._done, self._number, then), self.trace))

    def _done(self, number: int, then: Callable[[Outcome], None], outcome: Outcome) -> None:
        assert number == self._number, f"operation {number} ended while {self._number} was under way"
        self._operation = None
        then(outcome)
        self._go()

    def _worked(self, run: TaskRun, step: Step, outcome: Outcome) -> None:
        if not isinstance(outcome, Failed):
            run.advance(step, self.now(), outcome.container_status, outcome.port_status)
            return
        verdict, _ = run.failed(
            self.now(),
            outcome.text,
            temporary=outcome.temporary,
            cancelled=outcome.cancelled,
            exit_code=outcome.exit_code,
            container=outcome.container_status,
            ports=outcome.port_status,
        )
        if verdict is Verdict.RETRY and self._newer is None and not self._removing:
            self._tell_progress(run)
            self._retry = self.after(RETRY_AFTER, _Retry())

    def _tell_progress(self, run: TaskRun) -> None:
        if run.status is not self._told:
            was = self._told.state if self._told is not None else types_pb2.NEW
            self._told = run.status
            self._tell_waiters(was)
            self.tell(self.agent, TaskProgress(self.task_id, run.status))

    # Removal

    def _remove(self) -> None:
        if self._controller is None:
            self._forget()
        else:
            self._removals += 1
            self._operate(self._controller.remove, self._removed)

    def _removed(self, outcome: Outcome) -> None:
        again = isinstance(outcome, Failed) and (outcome.temporary or outcome.cancelled)
        if again and self._removals < REMOVE_TRIES:
            self._retry = self.after(RETRY_AFTER, _Retry())
            return
        self._let_go()

    def _forget(self) -> None:
        self._end_waits(self._waiters, self._run.status.container.exit_code if self._run is not None else 0)
        self._run = None
        self.tell(self.agent, TaskRemoved(self.task_id))
        self.stop()

    def _context(self, task: objects_pb2.Task) -> TaskContext:
        assert self.world.executor is not None
        node = types_pb2.NodeDescription()
        node.CopyFrom(self.world.executor.describe())
        node.hostname = self.setup.hostname
        payloads = TaskPayloads(self.dependencies, task, node)
        return TaskContext(self.setup.node_id, self.setup.hostname, payloads.expand, payloads.secret, payloads.config)


def _call(controller: Controller, work: Work) -> Callable[[OnDone], Operation]:
    calls: dict[Work, Callable[[OnDone], Operation]] = {
        Work.PREPARE: controller.prepare,
        Work.START: controller.start,
        Work.WAIT: controller.wait,
        Work.SHUTDOWN: controller.shutdown,
    }
    return calls[work]
