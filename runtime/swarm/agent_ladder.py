"""How far a task has come on its node, and what is done next: SwarmKit's ``exec.Do`` and ``exec.Resolve`` as tables.

Rules owned here:
1. One step at a time: from the observed and the desired state follows one executor operation, or one plain change of
   state, or nothing until the task is updated.
2. A state never goes back. A transition clears the error and sets the message of the state that is entered; a failed
   operation keeps the message of the state in which it failed and sets the error.
3. From STARTING on a status carries what is known of the container, at least an empty one; an exit code other than 0
   that came with a failure wins over the container's own.
4. The timestamp moves exactly when anything else of the status did.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from runtime.swarm.service_spec import to_timestamp
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

RESOLVING_FAILED: Final = "resolving controller failed"


class Work(enum.Enum):
    """The operations of a controller that belong to a step."""

    PREPARE = "prepare"
    START = "start"
    WAIT = "wait"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Step:
    """The state that follows, with its message, once ``work`` (if any) is done."""

    work: Work | None
    state: types.TaskState
    message: str


_ACCEPT: Final = Step(None, types.ACCEPTED, "accepted")
_SHUTDOWN: Final = Step(Work.SHUTDOWN, types.SHUTDOWN, "shutdown")

PLAIN: Final[Mapping[int, Step]] = {
    types.NEW: _ACCEPT,
    types.PENDING: _ACCEPT,
    types.ASSIGNED: _ACCEPT,
    types.ACCEPTED: Step(None, types.PREPARING, "preparing"),
    types.READY: Step(None, types.STARTING, "starting"),
}
"""Changes of state that nothing has to be done for; they wait for a desired state beyond the observed one."""

WORKING: Final[Mapping[int, Step]] = {
    types.PREPARING: Step(Work.PREPARE, types.READY, "prepared"),
    types.STARTING: Step(Work.START, types.RUNNING, "started"),
    types.RUNNING: Step(Work.WAIT, types.COMPLETE, "finished"),
}
"""States in which something is under way; it is finished also when it has come as far as desired."""


def next_step(state: int, desired: int) -> Step | None:
    """What follows for a task observed in ``state`` and wanted in ``desired``; None: nothing until an update."""
    if desired >= types.SHUTDOWN:
        return None if state >= types.COMPLETE else _SHUTDOWN
    if state > desired:
        return None
    if state in WORKING:
        return WORKING[state]
    return PLAIN.get(state) if state < desired else None


class Verdict(enum.Enum):
    """What a failed operation means for the task."""

    RETRY = "retry"
    FATAL = "fatal"


class TaskRun:
    """One task's status as its runner sees it. Every change makes a new status object: those handed out stay."""

    __slots__ = ("_container", "_ports", "desired", "status")

    def __init__(self, task: objects.Task, status: types.TaskStatus) -> None:
        self.desired: int = task.desired_state
        self.status = status
        self._container = status.container if status.HasField("container") else None
        self._ports = status.port_status if status.HasField("port_status") else None

    @property
    def next(self) -> Step | None:
        """The step that follows."""
        return next_step(self.status.state, self.desired)

    def resolved(self, now: float) -> bool:
        """The executor took the task: it is at least ACCEPTED. True if the status changed, as for all below."""
        if self.status.state >= types.ACCEPTED:
            return False
        return self._become(now, types.ACCEPTED, _ACCEPT.message, "")

    def unresolved(self, text: str, now: float) -> bool:
        """The executor can never run it: REJECTED before STARTING, FAILED up to RUNNING, else where it was."""
        return self._become(now, _broken(self.status.state), RESOLVING_FAILED, text, attach=False)

    def advance(
        self,
        step: Step,
        now: float,
        container: types.ContainerStatus | None = None,
        ports: types.PortStatus | None = None,
    ) -> bool:
        """The step was taken. ``container`` and ``ports`` replace what was known, unless they are None."""
        self._learn(container, ports)
        return self._become(now, step.state, step.message, "")

    def failed(
        self,
        now: float,
        text: str,
        *,
        temporary: bool = False,
        cancelled: bool = False,
        exit_code: int | None = None,
        container: types.ContainerStatus | None = None,
        ports: types.PortStatus | None = None,
    ) -> tuple[Verdict, bool]:
        """The operation of the step failed. What it means, and whether the status changed."""
        self._learn(container, ports)
        before = self.status
        if cancelled:
            return Verdict.RETRY, self._become(now, before.state, before.message, before.err)
        if temporary:
            return Verdict.RETRY, self._become(now, before.state, before.message, text)
        if exit_code:
            known = types.ContainerStatus()
            if self._container is not None:
                known.CopyFrom(self._container)
            known.exit_code = exit_code
            self._container = known
        state = types.REJECTED if before.state < types.STARTING else types.FAILED
        return Verdict.FATAL, self._become(now, state, before.message, text)

    def _learn(self, container: types.ContainerStatus | None, ports: types.PortStatus | None) -> None:
        if container is not None:
            self._container = container
        if ports is not None:
            self._ports = ports

    def _become(self, now: float, state: types.TaskState, message: str, err: str, attach: bool = True) -> bool:
        before = self.status
        if state < before.state:
            raise RuntimeError(f"a task in state {before.state} cannot go back to {state}")
        status = types.TaskStatus()
        status.CopyFrom(before)
        status.state = state
        status.message = message
        status.err = err
        if attach and state >= types.STARTING:
            status.container.CopyFrom(self._container if self._container is not None else types.ContainerStatus())
            if self._ports is not None:
                status.port_status.CopyFrom(self._ports)
        if status == before:
            return False
        status.timestamp.CopyFrom(to_timestamp(now))
        self.status = status
        return True


def _broken(state: types.TaskState) -> types.TaskState:
    if state < types.STARTING:
        return types.REJECTED
    return types.FAILED if state <= types.RUNNING else state
