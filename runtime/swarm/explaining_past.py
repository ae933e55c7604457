"""What came before a wait: how the last task of a place ended, and places that their restart policy gives up.

Rules owned here: a place is given up when none of its tasks is wanted and its newest one ended by itself; a task that
comes in the place of one that failed waits with the failure beside its reason, for that is what has to be cured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from runtime.swarm.defaults import restart_condition
from runtime.swarm.ports import View
from runtime.swarm.slots import may_be_updated
from runtime.swarm.task_model import age_key, by_place, ended, is_per_node, place_of, slot_tasks, wanted
from runtime.swarm.waits import Wait
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

_FAILED: Final = (types.FAILED, types.REJECTED)
_CONDITIONS: Final = {types.RestartPolicy.NONE: "none", types.RestartPolicy.ON_FAILURE: "on-failure"}


def how_it_ended(task: objects.Task) -> str:
    """``failed: task: non-zero exit (1)``, or the state alone."""
    state = types.TaskState.Name(task.status.state).lower()
    return f"{state}: {task.status.err}" if task.status.err else state


def given_up(view: View, service: objects.Service, tasks: Sequence[objects.Task]) -> list[Wait]:
    """The places of a service that nothing fills any more because their task ended and its policy runs none after it:
    of a replicated one as many as are wanted and not filled, of a global one those on nodes that are to run it."""
    places = by_place(tasks, service)
    empty = [held for held in places.values() if not any(wanted(task) for task in held)]
    newest = [max(held, key=age_key) for held in empty]
    over = sorted((task for task in newest if _is_over(task)), key=_place)
    if is_per_node(service):
        over = [task for task in over if may_be_updated(view, service, task.node_id)]
    else:
        over = over[: max(0, service.spec.replicated.replicas - len(places) + len(empty))]
    return [Wait(task.id, "operator", _given_up(task)) for task in over]


def _is_over(task: objects.Task) -> bool:
    return ended(task) and task.status.state != types.SHUTDOWN and task.desired_state < types.REMOVE


def _place(task: objects.Task) -> tuple[int, str]:
    return task.slot, task.id


def _given_up(task: objects.Task) -> str:
    condition = _CONDITIONS.get(restart_condition(task.spec), "any")
    attempts = task.spec.restart.max_attempts
    policy = f"condition {condition}" + (f", at most {attempts} attempts" if attempts else "")
    return (
        f"{how_it_ended(task)}; its restart policy ({policy}) runs none after it; "
        "docker service update --force runs it anew"
    )


def with_past(view: View, wait: Wait) -> Wait:
    """The same wait, with how the task before it in its place failed; a wait that says so already is left alone."""
    task = view.get(objects.Task, wait.subject)
    if task is None or task.status.state == types.RUNNING:
        return wait
    failed = task if ended(task) else _before(view, task)
    if failed is None or failed.status.state not in _FAILED or how_it_ended(failed) in wait.why:
        return wait
    whose = "" if failed is task else "the one before it: "
    return replace(wait, why=f"{wait.why}; {whose}{how_it_ended(failed)}")


def _before(view: View, task: objects.Task) -> objects.Task | None:
    service = view.get(objects.Service, task.service_id)
    if service is None:
        return None
    places = slot_tasks(view, service.id, place_of(task, service))
    older = [each for each in places if age_key(each) < age_key(task)]
    return max(older, key=age_key, default=None)
