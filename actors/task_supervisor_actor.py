"""TaskSupervisorActor keeps this node's tasks that are actors: it starts them below itself, watches them, ends them.

The executor alone talks to it, with questions that are answered with the port's outcomes; actors that are tasks tell
it their exit code through their place. It must never run code of theirs: what they do happens in their own turns.

Rules kept here:
1. A task is started once. What an earlier life of the program started ended with it: nobody knows how, and it is not
   started again.
2. The failure of an actor is its task's failure, unless its registration says that it comes back in its place.
3. An actor that does not return from a message cannot be ended. Its task is given up some seconds after the grace
   period, in so many words; the actor ends when it returns.
"""

from __future__ import annotations

from functools import partial

from runtime.errors import Refused
from runtime.executor.actor_task import ActorTask
from runtime.executor.port import Already, Done, Failed, Outcome
from runtime.protocol.actor_tasks import (
    AwaitActor,
    Ping,
    PrepareActor,
    RemoveActor,
    StartActor,
    StopActor,
    StopActors,
    Stopping,
)
from runtime.stage import Actor, ActorDown, ActorUnavailable, ActorUp, Answer, AskTimeout, GiveUp, Policy, handles
from runtime.stage.answers import Reply

GIVE_UP_AFTER = 5.0
LOST = "exit code unknown: the actor ended with the program that it lived in"


class _Exit:
    """A task's own word about its end."""

    __slots__ = ("code", "task_id")

    def __init__(self, task_id: str, code: int) -> None:
        self.task_id = task_id
        self.code = code


class _Grace:
    """The grace period of a task is over."""

    __slots__ = ("task_id",)

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id


class _GiveUp:
    """A task that was stopped should be gone by now."""

    __slots__ = ("task_id",)

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id


class _Check:
    """The next ping of a task is due."""

    __slots__ = ("task_id",)

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id


class TaskSupervisorActor(Actor):
    """The parent of actors that are tasks. Its own failure ends them."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self) -> None:
        super().__init__()
        self._tasks: dict[str, ActorTask] = {}
        self._by_path: dict[str, str] = {}
        self._all_gone: list[Reply] = []

    def snapshot(self) -> dict[str, object]:
        return {"tasks": {task.plan.name: task.describe() for task in self._tasks.values()}}

    def crashed(self) -> None:
        self._refuse("their supervisor failed")

    def stopped(self) -> None:
        self._refuse("their program ends")

    def _refuse(self, why: str) -> None:
        for task in self._tasks.values():
            if not task.ended:
                task.end(Failed(f"exit code unknown: {why}"))
        for reply in self._all_gone:
            reply.set(Done())

    # What the executor says

    @handles(PrepareActor)
    def prepare_task(self, message: PrepareActor) -> Outcome:
        """Notes a task; nothing of it runs yet."""
        plan = message.plan
        known = self._tasks.get(plan.task_id)
        if known is not None:
            return Already(known.status)
        self._tasks[plan.task_id] = ActorTask(plan)
        return Done()

    @handles(StartActor)
    def start_task(self, message: StartActor) -> Outcome | None:
        """Starts a task that was prepared in this life of the program."""
        task = self._tasks.get(message.task_id)
        if task is None:
            return Failed(LOST)
        if task.ended:
            return Already(task.status)
        if not task.begun:
            self._launch(task, message)
        elif task.healthy:
            return Already(task.status)
        task.keep(task.starting, self.defer())
        return None

    def _launch(self, task: ActorTask, message: StartActor) -> None:
        plan = task.plan
        leave = partial(self._exited, plan.task_id)
        place = plan.place(message.secrets, message.configs, leave, self._cell.stage.at)
        task.begin(message.secrets.values())
        registered = plan.registered
        arguments, policy = registered.arguments, registered.policy()
        self._by_path[self.below(plan.name).path] = plan.task_id
        task.address = self.spawn(plan.name, registered.actor, place, *arguments, policy=policy, watched=True)

    def _exited(self, task_id: str, code: int) -> None:
        """Called in the turn, or on a thread, of the task's."""
        self.address.tell(_Exit(task_id, code))

    @handles(AwaitActor)
    def wait_for_task(self, message: AwaitActor) -> Outcome | None:
        """Answered with the task's end."""
        task = self._tasks.get(message.task_id)
        if task is None or not task.begun:
            return Failed(LOST)
        if task.outcome is not None:
            return task.outcome
        task.keep(task.waiting, self.defer())
        return None

    @handles(StopActor)
    def stop_task(self, message: StopActor) -> Outcome | None:
        """Answered when the task is gone."""
        task = self._tasks.get(message.task_id)
        if task is None:
            return Done()
        if not self._ends(task, message.grace):
            return task.stopped_outcome
        task.keep(task.stopping, self.defer())
        return None

    @handles(RemoveActor)
    def remove_task(self, message: RemoveActor) -> Outcome | None:
        """Answered when the task is gone and forgotten."""
        task = self._tasks.get(message.task_id)
        if task is None:
            return Done()
        if not self._ends(task, task.plan.grace):
            self._forget(task)
            return Done()
        task.keep(task.removing, self.defer())
        return None

    @handles(StopActors)
    def stop_all(self, message: StopActors) -> Outcome | None:
        """Answered when all are gone."""
        running = [task for task in self._tasks.values() if self._ends(task, task.plan.grace)]
        if not running:
            return Done()
        self._all_gone.append(self.defer())
        return None

    # How they end

    def _ends(self, task: ActorTask, grace: float) -> bool:
        """Begins to end a task within ``grace`` seconds from now; whether there is anything to wait for."""
        if task.ended or not task.begun:
            task.refuse_start()
            return False
        assert task.address is not None
        if grace > 0 and task.plan.registered.takes(Stopping):
            if not task.stop_told:
                task.stop_told = True
                self.tell(task.address, Stopping(grace))
                self.after(grace, _Grace(task.plan.task_id))
        else:
            self._end_actor(task, killed=grace <= 0)
        return True

    def _end_actor(self, task: ActorTask, killed: bool) -> None:
        assert task.address is not None
        task.killed = task.killed or (killed and not task.removal_asked)
        if not task.removal_asked:
            task.removal_asked = True
            self.after(GIVE_UP_AFTER, _GiveUp(task.plan.task_id))
            self.stop(task.address)

    @handles(_Grace)
    def grace_over(self, message: _Grace) -> None:
        """It did not end itself in time."""
        task = self._tasks.get(message.task_id)
        if task is not None and not task.ended:
            self._end_actor(task, killed=True)

    @handles(_GiveUp)
    def give_up(self, message: _GiveUp) -> None:
        """It was stopped and is still there: it has not returned from a message."""
        task = self._tasks.get(message.task_id)
        if task is None or task.ended:
            return
        assert task.address is not None
        cell = task.address.resolve()
        busy = cell.handling if cell is not None else None
        over = f" from {type(busy[0]).__name__}" if busy is not None else ""
        self._over(task, task.abandoned(over))

    @handles(_Exit)
    def exited(self, message: _Exit) -> None:
        """A task says how it ends: the first word counts."""
        task = self._tasks.get(message.task_id)
        if task is None or task.ended or task.exit_code is not None:
            return
        task.exit_code = message.code
        self._end_actor(task, killed=False)

    @handles(ActorDown)
    def down(self, message: ActorDown) -> None:
        """An actor failed, or is gone."""
        task = self._task_at(message.path)
        if task is None or task.ended:
            return
        if not message.final:
            assert message.error is not None
            task.failed_in_place(message.error)
            return
        self._over(task, task.gone(message.error))

    def _over(self, task: ActorTask, outcome: Outcome) -> None:
        """A task has ended; what is left of its actor goes."""
        removed = task.end(outcome)
        assert task.address is not None
        self.unwatch(task.address)
        self.stop(task.address)
        self._by_path.pop(task.address.path, None)
        if removed:
            self._forget(task)
        if all(each.ended or not each.begun for each in self._tasks.values()):
            gone, self._all_gone = self._all_gone, []
            for reply in gone:
                reply.set(Done())

    def _forget(self, task: ActorTask) -> None:
        self._tasks.pop(task.plan.task_id, None)

    def _task_at(self, path: str) -> ActorTask | None:
        return self._tasks.get(self._by_path.get(path, ""))

    # Health

    @handles(ActorUp)
    def up(self, message: ActorUp) -> None:
        """An actor runs, for the first time or again."""
        task = self._task_at(message.path)
        if task is None or task.ended or task.count is not None:
            return
        if task.plan.health is None:
            task.found_healthy()
            return
        task.watch_health(self.monotonic())
        self._check_later(task)

    def _check_later(self, task: ActorTask) -> None:
        assert task.count is not None
        self.after(task.count.pause, _Check(task.plan.task_id))

    @handles(_Check)
    def check(self, message: _Check) -> None:
        """Asks a task whether it is well."""
        task = self._tasks.get(message.task_id)
        if task is None or task.ended or task.removal_asked:
            return
        assert task.address is not None
        assert task.plan.health is not None
        self.ask(task.address, Ping(), partial(self._checked, task), task.plan.health.timeout)

    def _checked(self, task: ActorTask, answer: Answer) -> None:
        if task.ended or task.removal_asked:
            return
        assert task.count is not None
        well = not isinstance(answer.error, (Refused, AskTimeout, ActorUnavailable))
        task.count.note(well, self.monotonic())
        if well:
            task.found_healthy()
        if task.count.sick:
            task.sick = True
            self._ends(task, task.plan.grace)
        else:
            self._check_later(task)
