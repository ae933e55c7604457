"""When a task is out of date."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runtime.swarm.dirty import is_dirty
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import node_of_id, service_of, task_of


def pair(edit: Callable[[Any], object], **task: Any) -> tuple[objects.Task, objects.Service]:
    """A task, and its service after an update that edited the spec."""
    service = service_of()
    service.spec.endpoint.mode = specs.EndpointSpec.VIP
    made = task_of(service, "t1", **task)
    made.endpoint.spec.CopyFrom(service.spec.endpoint)
    service.spec_version.index += 1
    edit(service.spec)
    return made, service


def set_image(spec: Any) -> None:
    spec.task.container.image = "two"


def set_pull(spec: Any) -> None:
    spec.task.container.pull_options.registry_auth = "new"


def constrain(spec: Any) -> None:
    spec.task.placement.constraints.append("node.labels.disk == ssd")


def test_an_equal_spec_version_is_clean_whatever_the_specs_say() -> None:
    task, service = pair(set_image)
    task.spec_version.CopyFrom(service.spec_version)
    assert not is_dirty(task, service, None)


def test_without_versions_the_specs_decide() -> None:
    task, service = pair(set_image)
    task.ClearField("spec_version")
    service.ClearField("spec_version")
    assert is_dirty(task, service, None)


def test_a_newer_version_of_an_equal_task_spec_is_clean() -> None:
    task, service = pair(lambda spec: setattr(spec.replicated, "replicas", 9))
    assert not is_dirty(task, service, None)


def test_another_image_is_dirty() -> None:
    assert is_dirty(*pair(set_image), None)


def test_force_update_is_dirty() -> None:
    assert is_dirty(*pair(lambda spec: setattr(spec.task, "force_update", 1)), None)


@pytest.mark.parametrize(
    ("state", "desired", "dirty"),
    [
        (types.RUNNING, types.RUNNING, False),
        (types.READY, types.READY, False),
        (types.PREPARING, types.RUNNING, True),
        (types.FAILED, types.RUNNING, True),
        (types.RUNNING, types.SHUTDOWN, True),
    ],
)
def test_credentials_for_pulling_do_not_matter_once_the_image_is_there(state: int, desired: int, dirty: bool) -> None:
    task, service = pair(set_pull, state=state, desired=desired)
    assert is_dirty(task, service, None) is dirty


@pytest.mark.parametrize(("label", "dirty"), [("ssd", False), ("hdd", True)])
def test_new_constraints_replace_only_tasks_on_nodes_that_do_not_fit(label: str, dirty: bool) -> None:
    task, service = pair(constrain, node="n1")
    assert is_dirty(task, service, node_of_id("n1", labels={"disk": label})) is dirty


def test_new_constraints_replace_tasks_without_a_node() -> None:
    assert is_dirty(*pair(constrain), None)


def test_a_fitting_node_excuses_no_other_difference() -> None:
    def both(spec: Any) -> None:
        constrain(spec)
        set_image(spec)

    task, service = pair(both, node="n1")
    assert is_dirty(task, service, node_of_id("n1", labels={"disk": "ssd"}))


def test_another_published_port_is_dirty() -> None:
    task, service = pair(lambda spec: spec.endpoint.ports.add(target_port=80))
    assert is_dirty(task, service, None)
    task.ClearField("endpoint")
    assert not is_dirty(task, service, None), "a task without an endpoint has nothing to differ"


def test_looking_changes_neither_task_nor_service() -> None:
    task, service = pair(set_pull)
    before = (task.SerializeToString(deterministic=True), service.SerializeToString(deterministic=True))
    is_dirty(task, service, node_of_id("n1"))
    assert before == (task.SerializeToString(deterministic=True), service.SerializeToString(deterministic=True))
