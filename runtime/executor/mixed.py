"""Several executors as one: which of them runs a task follows from its image."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

from runtime.executor.actor import ActorExecutor
from runtime.executor.inspection import Showing
from runtime.executor.port import Controller, Executor, OnStage, Orphan, TaskContext, Tidying
from runtime.stage import Stage
from runtime.swarm.actor_spec import ACTORS_LABEL, runs_actor
from runtime.wire.pb import objects_pb2, types_pb2


class MixedExecutor:
    """The port's Executor: images of actors go to ``actors``, all others to ``others``, which also says what this
    machine is."""

    def __init__(self, actors: ActorExecutor, others: Executor) -> None:
        self._actors = actors
        self._others = others
        self._parts: tuple[Executor, Executor] = (actors, others)
        if isinstance(others, Showing):
            self.show = others.show

    def enter(self, stage: Stage) -> None:
        """As ``OnStage.enter``."""
        for part in self._parts:
            if isinstance(part, OnStage):
                part.enter(stage)

    def describe(self) -> types_pb2.NodeDescription:
        """As the port's: what the others say, and the names of the actors."""
        description = types_pb2.NodeDescription()
        description.CopyFrom(self._others.describe())
        description.engine.labels[ACTORS_LABEL] = self._actors.describe().engine.labels[ACTORS_LABEL]
        return description

    def controller(self, task: objects_pb2.Task, context: TaskContext) -> Controller:
        """As the port's."""
        part: Executor = self._actors if runs_actor(task.spec) else self._others
        return part.controller(task, context)

    def orphans(self) -> Sequence[Orphan]:
        """As the port's."""
        return [orphan for part in self._parts for orphan in part.orphans()]

    def known(self, task_ids: Collection[str]) -> None:
        """As ``Tidying.known``."""
        for part in self._parts:
            if isinstance(part, Tidying):
                part.known(task_ids)

    def stop_all(self, done: Callable[[], None]) -> None:
        """As the port's."""
        self._all([part.stop_all for part in self._parts], done)

    def close(self, done: Callable[[], None]) -> None:
        """As the port's."""
        self._all([part.close for part in self._parts], done)

    def _all(self, begin: Sequence[Callable[[Callable[[], None]], None]], done: Callable[[], None]) -> None:
        lock, left = threading.Lock(), len(begin)

        def one() -> None:
            nonlocal left
            with lock:
                left -= 1
                last = left == 0
            if last:
                done()

        for each in begin:
            each(one)
