"""The actor executor: tasks are actors of the program that the node runs in, below ``/tasks`` in the node's tree.

Their supervisor is an actor, which is asked everything; here questions become the port's operations, and logs are
kept. Tasks end with the program: what a next life of it asks about is answered with ``exit code unknown``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from runtime.errors import Refused
from runtime.executor.actor_log import ActorLog, Reading
from runtime.executor.actor_plan import ActorPlan, Registered, make_plan, payloads, registry_of
from runtime.executor.actor_task import texts_of
from runtime.executor.port import (
    CONTROLLER_CLOSED,
    Already,
    Done,
    Failed,
    LogOptions,
    OnDone,
    OnEnd,
    OnLine,
    Operation,
    Orphan,
    Outcome,
    Rejected,
    TaskContext,
)
from runtime.introspection.redact import HIDDEN
from runtime.protocol.actor_tasks import AwaitActor, PrepareActor, RemoveActor, StartActor, StopActor, StopActors
from runtime.stage import Actor, ActorUnavailable, Address, Answer, Stage
from runtime.stage.answers import Reply
from runtime.swarm.actor_spec import ACTORS_LABEL, label_of
from runtime.wire.pb import objects_pb2, types_pb2

PLACE: Final = "tasks"
NO_READING: Final = "configured logging driver does not support reading"
EXECUTOR_LABEL, KIND = "swarmlet.executor", "actor"


class Asked:
    """A question under way, as the port's Operation: tells its outcome once, whoever brings it."""

    def __init__(self, done: OnDone) -> None:
        self._done: OnDone | None = done
        self._lock = threading.Lock()
        self.reply = Reply(lambda answer: self.finish(_outcome(answer)))

    @property
    def over(self) -> bool:
        """Whether it was told."""
        return self._done is None

    def finish(self, outcome: Outcome) -> None:
        """The outcome, unless there was one."""
        with self._lock:
            done, self._done = self._done, None
        if done is not None:
            done(outcome)

    def cancel(self) -> None:
        """As the port's. Whoever would have answered sees that nobody waits any more."""
        self.reply.set(Failed("cancelled", cancelled=True))


def _outcome(answer: Answer) -> Outcome:
    if isinstance(answer.value, (Done, Already, Failed)):
        return answer.value
    if isinstance(answer.error, ActorUnavailable):  # their supervisor is down for a moment, or the node ends
        return Failed(str(answer.error), temporary=True)
    return Failed(f"{type(answer.error).__name__}: {answer.error}")


class ActorController:
    """The port's Controller: questions to the supervisor."""

    def __init__(
        self,
        supervisor: Address,
        plan: ActorPlan,
        context: TaskContext,
        remember: Callable[[str, Iterable[bytes]], None],
        forget: Callable[[str], None],
    ) -> None:
        self._supervisor = supervisor
        self._plan = plan
        self._context = context
        self._remember = remember
        self._forget = forget
        self._open: list[Asked] = []
        self._readings: list[Reading] = []
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def update(self, task: objects_pb2.Task, done: OnDone) -> Operation:
        """As the port's: nothing of an actor changes."""
        return self._answered(done, Done())

    def prepare(self, done: OnDone) -> Operation:
        """As the port's."""
        return self._ask(PrepareActor(self._plan), done)

    def start(self, done: OnDone) -> Operation:
        """As the port's."""
        try:
            secrets, configs = payloads(self._plan.task, self._context)
        except Refused as refused:
            return self._answered(done, Failed(f"starting actor failed: {refused.text}"))
        except KeyError as missing:
            why = f"a secret or config is not on this node: {missing.args[0]}"
            return self._answered(done, Failed(f"starting actor failed: {why}"))
        self._remember(self._plan.task_id, secrets.values())
        return self._ask(StartActor(self._plan.task_id, secrets, configs), done)

    def wait(self, done: OnDone) -> Operation:
        """As the port's."""
        return self._ask(AwaitActor(self._plan.task_id), done)

    def shutdown(self, done: OnDone) -> Operation:
        """As the port's: ``Stopping``, the grace period, the end."""
        return self._ask(StopActor(self._plan.task_id, self._plan.grace), done)

    def terminate(self, done: OnDone) -> Operation:
        """As the port's."""
        return self._ask(StopActor(self._plan.task_id, 0.0), done)

    def remove(self, done: OnDone) -> Operation:
        """As the port's."""

        def removed(outcome: Outcome) -> None:
            if isinstance(outcome, Done):
                self._forget(self._plan.task_id)
            done(outcome)

        return self._ask(RemoveActor(self._plan.task_id), removed)

    def close(self, done: OnDone) -> Operation:
        """As the port's."""
        self._closed = True
        for asked in self._open:
            asked.finish(Failed(CONTROLLER_CLOSED))
            asked.cancel()
        for reading in self._readings:
            reading.end(CONTROLLER_CLOSED)
        asked = Asked(done)
        asked.finish(Done())
        return asked

    def logs(self, options: LogOptions, on_line: OnLine, on_end: OnEnd) -> Operation:
        """As the port's."""
        log = self._plan.log
        if self._closed or not log.readable:
            reading = Reading(options, on_line, on_end)
            reading.end(CONTROLLER_CLOSED if self._closed else NO_READING)
            return reading
        reading = log.read(options, on_line, on_end)
        self._readings = [each for each in self._readings if not each.over]
        self._readings.append(reading)
        return reading

    def _answered(self, done: OnDone, outcome: Outcome) -> Operation:
        asked = Asked(done)
        asked.finish(Failed(CONTROLLER_CLOSED) if self._closed else outcome)
        return asked

    def _ask(self, question: Any, done: OnDone) -> Operation:
        asked = Asked(done)
        if self._closed:
            asked.finish(Failed(CONTROLLER_CLOSED))
            return asked
        self._open = [each for each in self._open if not each.over]
        self._open.append(asked)
        self._supervisor.send(question, None, asked.reply, 0)
        return asked


class ActorExecutor:
    """The port's Executor. ``actors`` are what services may run, by the names in their images; ``supervisor`` is the
    class of the actor that keeps them; ``description`` is what this node is, without its labels."""

    def __init__(
        self,
        actors: Mapping[str, type[Actor] | Registered],
        supervisor: type[Actor],
        description: types_pb2.NodeDescription,
    ) -> None:
        self._registry = registry_of(actors)
        self._supervisor = supervisor
        self._description = types_pb2.NodeDescription()
        self._description.CopyFrom(description)
        labels = self._description.engine.labels
        labels[EXECUTOR_LABEL] = KIND
        labels[ACTORS_LABEL] = label_of(self._registry)
        self._stage: Stage | None = None
        self._logs: dict[str, ActorLog] = {}
        self._hidden: dict[str, tuple[str, ...]] = {}  # replaced when it changes: it is read without the lock
        self._controllers: list[ActorController] = []
        self._lock = threading.Lock()
        self._closed = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are registered, sorted."""
        return tuple(sorted(self._registry))

    def enter(self, stage: Stage) -> None:
        """As ``OnStage.enter``. Of tasks of an earlier life nothing is left."""
        with self._lock:
            self._stage = stage
            self._logs.clear()
            self._hidden = {}
        stage.hide = self._hide
        stage.mount(PLACE, self._supervisor)

    def describe(self) -> types_pb2.NodeDescription:
        """As the port's. The engine label ``swarmlet.actors`` names what is registered."""
        return self._description

    def controller(self, task: objects_pb2.Task, context: TaskContext) -> ActorController:
        """As the port's."""
        stage = self._stage
        if self._closed or stage is None:
            raise Rejected("the executor is closed" if self._closed else "the executor is on no stage yet")
        plan = make_plan(task, context, self._registry, lambda limit: self._log_of(task.id, limit, stage))
        controller = ActorController(stage.at(f"/{PLACE}"), plan, context, self._remember, self._forget)
        with self._lock:
            self._controllers = [each for each in self._controllers if not each.closed]
            self._controllers.append(controller)
        return controller

    def _log_of(self, task_id: str, limit: int, stage: Stage) -> ActorLog:
        with self._lock:
            return self._logs.setdefault(task_id, ActorLog(limit, stage.world.clock.now))

    def _remember(self, task_id: str, secrets: Iterable[bytes]) -> None:
        """What a task knows that is to be in no error of this node."""
        with self._lock:
            self._hidden = {**self._hidden, task_id: texts_of(secrets)}

    def _hide(self, text: str) -> str:
        for secrets in self._hidden.values():
            for secret in secrets:
                text = text.replace(secret, HIDDEN)
        return text

    def _forget(self, task_id: str) -> None:
        with self._lock:
            self._logs.pop(task_id, None)
            self._hidden = {known: texts for known, texts in self._hidden.items() if known != task_id}

    def orphans(self) -> Sequence[Orphan]:
        """As the port's: none, for they cannot run without their program."""
        return ()

    def stop_all(self, done: Callable[[], None]) -> None:
        """As the port's."""
        if self._stage is None:
            done()
            return
        self._stage.at(f"/{PLACE}").send(StopActors(), None, Reply(lambda _: done()), 0)

    def close(self, done: Callable[[], None]) -> None:
        """As the port's. The actors themselves end with their stage."""
        with self._lock:
            self._closed = True
            controllers, self._controllers = self._controllers, []
        for controller in controllers:
            controller.close(lambda _: None)
        done()
