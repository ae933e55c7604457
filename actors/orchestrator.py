"""Base of the orchestrators: services are brought to the tasks that they want, and tasks that end are restarted.

Who talks to it: the store, with every change of services, tasks and nodes; its updaters. Whom it talks to: the store.
The decisions are those of ``runtime/swarm``; here is when they are taken, and what follows from them.

1. What has to be looked at is marked, and decided in the transactions that carry it out, on the newest state. A mark is
   a reason to look, no decision: to mark too much is harmless, and an event costs nothing that grows with the cluster.
2. One batch is on its way at a time. The restarts that it made are counted when it is answered, so the memory of
   restarts, which is read in the store's turns, stays what it is in between.
3. Whoever makes a task at READY, this actor starts it: replacements after their delay, those of updaters when the old
   task has stopped.
4. A service whose tasks are out of date has one updater, until that says that it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from actors.store_watcher import StoreWatcher, results_of
from actors.updater_actor import UpdateEnded, UpdaterActor
from runtime.protocol.explain import AskWaits, Waits
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Step
from runtime.stage import Address, Answer, GiveUp, Policy, Timer, handles
from runtime.store.changes import BATCH_BYTES, Action
from runtime.store.events import Commit, Event, WatchFilter
from runtime.store.transaction import Transaction
from runtime.store.view import View
from runtime.swarm import ports
from runtime.swarm.identity import new_id
from runtime.swarm.replicated import NewId, Round, remove_tasks
from runtime.swarm.restart import RestartPlan, RestartSupervisor
from runtime.swarm.slots import WouldRestart, has_several, has_successor
from runtime.swarm.task_changes import CHANGES_MAX, Change, Desire, apply
from runtime.swarm.task_init import HeldTask, held_for, initialise, is_held
from runtime.swarm.task_model import node_of, place_of, the_cluster, wanted
from runtime.swarm.updater import needs_update
from runtime.wire.pb import objects_pb2 as objects

SLICES: Final = 10
"""So many transactions carry out one decision about a service that one did not suffice for. What it costs to decide
grows with the service, and what is carried out at once keeps other writes waiting."""
STAMPS: Final = 1024
"""More than a task has in bytes beside what it has of its service."""


LEFT_BEHIND_S: Final = 1.0
"""From the end of an update until it is seen whether it left something, in seconds: a new task that ended is restarted
by then, and whatever ends updates over and over is asked no more often."""


class _Due:
    """The delay of a start may be over."""


@dataclass(frozen=True, slots=True)
class _LookBehind:
    """Time to see what an update has left of this service."""

    service_id: str


@dataclass(frozen=True, slots=True)
class Work:
    """A step for the store, and what to do with what came of it."""

    step: Step
    done: Callable[[Any], None]


Decide = Callable[[Transaction, int], tuple[Round, int]]
"""Decides for so many transactions; gives the round, and how many of its changes fit into one of them."""


class OrchestratorActor(StoreWatcher):
    """What the orchestrators have in common; each mode of service says what is its own, how, and about nodes."""

    policy = Policy(give_up=GiveUp.NEVER)
    watched = WatchFilter.kinds(objects.Service, objects.Task, objects.Node)

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self.supervisor = RestartSupervisor()
        self._changes: list[Change] = []
        self._restarts: dict[str, None] = {}
        self._services: dict[str, None] = {}
        self._removed: dict[str, None] = {}
        self._large: dict[str, None] = {}
        self._updaters: dict[str, Address] = {}
        self._updater_number = 0
        self._writing = False
        self._timer: Timer | None = None

    def snapshot(self) -> dict[str, Any]:
        return {
            "to restart": len(self._restarts),
            "to reconcile": len(self._services) + len(self._removed),
            "updaters": sorted(self._updaters),
            "writing": self._writing,
        }

    # What a mode says

    def is_mine(self, service: objects.Service | None) -> bool:
        """Whether the service is of this orchestrator's mode."""
        raise NotImplementedError

    def needs_restart(self, view: ports.View, task: objects.Task) -> bool:
        """Whether a task of such a service is to be restarted."""
        raise NotImplementedError

    def reconcile(self, tx: Transaction, service_id: str, ids: NewId, would_restart: WouldRestart, limit: int) -> Round:
        """What a service lacks or has too much of, in ``limit`` changes."""
        raise NotImplementedError

    def node_event(self, event: Event) -> None:
        """A node changed."""
        raise NotImplementedError

    def is_alive(self, task: objects.Task) -> bool:
        """Whether a task is to live: nothing is done about those that are not."""
        return wanted(task)

    def task_event(self, event: Event) -> None:
        """A task of such a service changed; what every mode does about that is done besides."""

    def decide(self, view: ports.View, task: objects.Task) -> Change | bool:
        """What a task marked for restart comes to: the supervisor decides, nothing happens, or this change does."""
        return self.needs_restart(view, task)

    def more_work(self) -> list[Work]:
        """What the mode marked besides, as steps; the marks are gone with it."""
        return []

    # Marking

    def begin(self, view: View) -> None:
        findings = initialise(view, self.supervisor, self.is_mine, self.needs_restart, self.now())
        self._changes += findings.changes
        for task_id in findings.restarts:
            self.mark_restart(task_id)
        for held in findings.held:
            self._hold(held)
        for service in view.all(objects.Service):
            if self.is_mine(service):
                self._services[service.id] = None
        self._go_on()

    def commit(self, commit: Commit) -> None:
        whose: dict[str, tuple[objects.Service | None, bool]] = {}  # most tasks of a commit are of one service
        for event in commit.events:
            if event.kind is objects.Task:
                id = event.object.service_id
                if id not in whose:
                    service = self.view.get(objects.Service, id)
                    whose[id] = service, service is None or self.is_mine(service)
                service, mine = whose[id]
                if mine:
                    self._task_event(event, service)
            elif event.kind is objects.Service:
                self._service_event(event)
            else:
                self.supervisor.node_changed(event.object.id, self.monotonic())
                self.node_event(event)
        self._go_on()

    def mark_restart(self, task_id: str) -> None:
        """The task has to be replaced, or given up."""
        self._restarts[task_id] = None

    def mark_service(self, service_id: str) -> None:
        """The service may lack something, or have too much of it."""
        self._services[service_id] = None

    def _service_event(self, event: Event) -> None:
        service = event.object
        if not self.is_mine(service):
            return
        if event.action is Action.REMOVE:
            self._services.pop(service.id, None)
            self._removed[service.id] = None
        else:
            self._services[service.id] = None

    def _task_event(self, event: Event, service: objects.Service | None) -> None:
        """A task changed of a service of this mode, or of one that is gone."""
        task = event.object
        self.supervisor.task_changed(task.id, self.monotonic())
        if event.action is Action.REMOVE or not self.is_alive(task):
            self.supervisor.cancel(task.id)
        if service is None:
            return
        self.task_event(event)
        if not self.is_alive(task):
            return
        if event.action is Action.REMOVE:
            self._services[task.service_id] = None
            return
        if self.needs_restart(self.view, task):
            self.mark_restart(task.id)
        if event.action is Action.CREATE and is_held(task):
            # One of our own is held for its true delay once its batch is answered; nothing is started before that.
            self._hold(held_for(self.view, task))

    def _hold(self, held: HeldTask) -> None:
        self.supervisor.delay_start(held.task.id, self.monotonic(), held.delay, held.old)

    @handles(_Due)
    def due(self, message: _Due) -> None:
        """Starts may be due."""
        self._timer = None
        self._go_on()

    @handles(UpdateEnded)
    def update_ended(self, message: UpdateEnded) -> None:
        """An updater is done; the service may have come to want something else since."""
        updater = self._updaters.get(message.service_id)
        if updater is None or updater != self.sender:
            return
        del self._updaters[message.service_id]
        self.stop(updater)
        service = self.view.get(objects.Service, message.service_id)
        if service is not None and not (message.basis is not None and message.basis.holds(service)):
            self._services[service.id] = None
            self._go_on()
        elif service is not None:
            self.after(LEFT_BEHIND_S, _LookBehind(service.id))

    @handles(_LookBehind)
    def look_behind(self, message: _LookBehind) -> None:
        """Where a new task ended before it was up, an update that starts first has left the old one, beside the restart
        of the new one: what is left to be updated is updated then."""
        service = self.view.get(objects.Service, message.service_id)
        if service is not None and service.id not in self._updaters and has_several(self.view, service):
            self._services[service.id] = None
            self._go_on()

    @handles(AskWaits)
    def waits(self, message: AskWaits) -> Waits:
        """The starts that are held, and who updates the service."""
        if not message.service_id or not self.is_mine(self.view.get(objects.Service, message.service_id)):
            return Waits()
        updater = self._updaters.get(message.service_id)
        held = self.supervisor.waits(self.view, message.service_id, self.monotonic())
        return Waits(tuple(held), (updater,) if updater is not None else ())

    # Carrying out

    def _go_on(self) -> None:
        if not self._writing:
            work = self._collect()
            if work:
                self._writing = True
                self.write_batch([each.step for each in work], partial(self._written, work))
        self._arm()

    def _collect(self) -> list[Work]:
        """All that is marked, restarts before services; marks are gone with it."""
        changes = [*self._changes, *self.supervisor.fire(self.view, self.monotonic())]
        restarts, services, removed = list(self._restarts), list(self._services), list(self._removed)
        self._changes = []
        for marks in (self._restarts, self._services, self._removed):
            marks.clear()
        work = [Work(partial(_apply_one, change), _nothing) for change in changes]
        work += [each for each in map(self._restart, restarts) if each is not None]
        for service_id in services:
            work += self._in_slices(service_id, self._reconcile_round(service_id), self._reconciled)
        for service_id in removed:
            self.supervisor.forget(service_id)
            work += self._in_slices(service_id, partial(_remove_round, service_id), self._tasks_removed)
        return work + self.more_work()

    def _restart(self, task_id: str) -> Work | None:
        if self.supervisor.is_delayed(task_id):
            return None  # its start, when that comes, is a change of the task, and marks it again
        id = new_id(self.world.entropy)
        return Work(partial(self._restart_step, task_id, id), self._restarted)

    def _restart_step(self, task_id: str, id: str, tx: Transaction) -> RestartPlan | None:
        """In the store's turn: reads the supervisor, changes nothing here."""
        task = tx.get(objects.Task, task_id)
        service = tx.get(objects.Service, task.service_id) if task is not None else None
        if task is None or service is None:
            return None
        decision = self.decide(tx, task)
        if not isinstance(decision, bool):
            apply(tx, [decision])
        if decision is not True:
            return None
        if has_successor(tx, service, task):
            plan: RestartPlan | None = RestartPlan(task, None, place_of(task, service), 0.0, False)
        else:
            plan = self.supervisor.plan(task, service, node_of(tx, task), the_cluster(tx), tx.now, id)
        if plan is not None:
            apply(tx, plan.changes)
        return plan

    def _restarted(self, plan: RestartPlan | None) -> None:
        if plan is not None:
            self.supervisor.committed(plan, self.monotonic())

    def _in_slices(self, service_id: str, decide: Decide, done: Callable[[str, Round], None]) -> list[Work]:
        """The steps of one round: the first decides, each carries out as much as a transaction holds.

        The store runs the steps of a batch with nothing in between, so what was decided in the first holds in all.
        """
        number = SLICES if service_id in self._large else 1
        slices: list[Sequence[Change]] = []

        def first(tx: Transaction) -> Round:
            round, room = decide(tx, number)
            slices[:] = [round.changes[at : at + room] for at in range(0, len(round.changes), room)]
            carry_out(0, tx)
            return round

        def carry_out(index: int, tx: Transaction) -> None:
            apply(tx, slices[index] if index < len(slices) else ())

        rest = [Work(partial(carry_out, index), _nothing) for index in range(1, number)]
        return [Work(first, partial(self._decided, service_id, done)), *rest]

    def _decided(self, service_id: str, done: Callable[[str, Round], None], round: Round) -> None:
        if round.more:
            self._large[service_id] = None
        else:
            self._large.pop(service_id, None)
        done(service_id, round)

    def _reconcile_round(self, service_id: str) -> Decide:
        def decide(tx: Transaction, slices: int) -> tuple[Round, int]:
            service = tx.get(objects.Service, service_id)
            if service is None:
                return Round(), 1
            would, room = self.supervisor.should_restart, _room(service.ByteSize())
            ids = partial(new_id, self.world.entropy)
            return self.reconcile(tx, service_id, ids, lambda task: would(task, service, tx.now), room * slices), room

        return decide

    def _reconciled(self, service_id: str, round: Round) -> None:
        if round.more:
            self._services[service_id] = None
            return
        service = self.view.get(objects.Service, service_id)
        if service is None or service_id in self._updaters:
            return
        if needs_update(self.view, service, list(round.update.values())):
            self._updater_number += 1
            name = f"updater-{service_id}-{self._updater_number}"
            self._updaters[service_id] = self.spawn(name, UpdaterActor, self.context, service_id)

    def _tasks_removed(self, service_id: str, round: Round) -> None:
        if round.more:
            self._removed[service_id] = None

    def _written(self, work: Sequence[Work], answer: Answer) -> None:
        self._writing = False
        for each, result in zip(work, results_of(answer), strict=True):
            each.done(result)
        self._go_on()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.supervisor.next_at()
        if at is not None and not self._writing:
            self._timer = self.after(max(0.0, at - self.monotonic()), _Due())


def _room(size: int) -> int:
    """How many changes of tasks whose service has so many bytes fit into one transaction."""
    return max(1, min(CHANGES_MAX, BATCH_BYTES // (size + STAMPS)))


def _remove_round(service_id: str, tx: Transaction, slices: int) -> tuple[Round, int]:
    round = remove_tasks(tx, service_id, CHANGES_MAX * slices)
    tasks = (tx.get(objects.Task, change.task_id) for change in round.changes if isinstance(change, Desire))
    room = _room(max((task.ByteSize() for task in tasks if task is not None), default=0))
    return round.bounded(room * slices), room


def _apply_one(change: Change, tx: Transaction) -> int:
    return apply(tx, [change])


def _nothing(result: Any) -> None:
    """What came of the step does not matter: it is left out where its task went on."""
