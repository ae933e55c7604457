"""Assignment messages: tasks as a node sees them, and the secrets and configs that tasks may read."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.errors import Code, Refused
from runtime.swarm.agent_assignments import Dependencies, TaskPayloads, bare, needs_payloads, task_changes
from runtime.wire.pb import dispatcher_pb2 as dispatcher
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

COMPLETE, INCREMENTAL = dispatcher.AssignmentsMessage.COMPLETE, dispatcher.AssignmentsMessage.INCREMENTAL
UPDATE, REMOVE = dispatcher.AssignmentChange.UPDATE, dispatcher.AssignmentChange.REMOVE


def message(kind: Any, *changes: tuple[Any, Any]) -> dispatcher.AssignmentsMessage:
    made = dispatcher.AssignmentsMessage(type=kind)
    for action, item in changes:
        change = made.changes.add(action=action)
        name = type(item).__name__.lower()
        getattr(change.assignment, name).CopyFrom(item)
    return made


def secret(id: str, data: bytes = b"", templating: str = "") -> objects.Secret:
    made = objects.Secret(id=id)
    made.spec.data = data
    if templating:
        made.spec.templating.name = templating
    return made


def config(id: str, data: bytes = b"", templating: str = "") -> objects.Config:
    made = objects.Config(id=id)
    made.spec.data = data
    if templating:
        made.spec.templating.name = templating
    return made


def task(*secrets: str, configs: tuple[str, ...] = ()) -> objects.Task:
    made = objects.Task(id="t1", node_id="n1", slot=2, service_id="s1")
    made.service_annotations.name = "web"
    for id in secrets:
        made.spec.container.secrets.add(secret_id=id).file.name = f"{id}.txt"
    for id in configs:
        made.spec.container.configs.add(config_id=id).file.name = f"{id}.txt"
    return made


def payloads(dependencies: Dependencies, of: objects.Task) -> TaskPayloads:
    return TaskPayloads(dependencies, of, types.NodeDescription(hostname="host1"))


# Tasks


def test_versions_of_a_task_that_say_the_same_to_a_node_are_equal() -> None:
    one, other = task(), task()
    one.status.state = types.RUNNING
    other.meta.version.index = 7
    assert bare(one) == bare(other)
    other.desired_state = types.SHUTDOWN
    assert bare(one) != bare(other)
    assert one.status.state == types.RUNNING, "the original is left as it was"


def test_tasks_are_taken_in_order_with_their_status_beside_them() -> None:
    first, second = objects.Task(id="b"), objects.Task(id="a")
    first.status.state = types.ASSIGNED
    changes = task_changes(message(COMPLETE, (UPDATE, first), (UPDATE, secret("s")), (UPDATE, second)))
    assert changes.complete
    assert list(changes.given) == ["b", "a"]
    given, status = changes.given["b"]
    assert not given.HasField("status")
    assert status.state == types.ASSIGNED
    assert changes.removed == []


def test_the_last_word_about_a_task_counts() -> None:
    one = objects.Task(id="one")
    changes = task_changes(message(INCREMENTAL, (UPDATE, one), (REMOVE, one)))
    assert (changes.given, changes.removed) == ({}, ["one"])
    changes = task_changes(message(INCREMENTAL, (REMOVE, one), (UPDATE, one)))
    assert (list(changes.given), changes.removed) == (["one"], [])


def test_which_tasks_need_payloads() -> None:
    assert needs_payloads(task("a"))
    assert needs_payloads(task(configs=("a",)))
    assert not needs_payloads(task())


# Secrets and configs


def test_changes_add_to_what_is_there_and_a_complete_set_replaces_it() -> None:
    dependencies = Dependencies()
    dependencies.apply(message(COMPLETE, (UPDATE, secret("a")), (UPDATE, config("x"))))
    dependencies.apply(message(INCREMENTAL, (UPDATE, secret("b"))))
    assert sorted(dependencies.secrets) == ["a", "b"]
    assert sorted(dependencies.configs) == ["x"]
    dependencies.apply(message(INCREMENTAL, (REMOVE, secret("a")), (REMOVE, secret("never")), (REMOVE, config("x"))))
    assert (sorted(dependencies.secrets), sorted(dependencies.configs)) == (["b"], [])
    dependencies.apply(message(COMPLETE, (UPDATE, config("y"))))
    assert (sorted(dependencies.secrets), sorted(dependencies.configs)) == ([], ["y"])


def test_who_reads_in_another_thread_sees_one_state_or_the_other() -> None:
    dependencies = Dependencies()
    dependencies.apply(message(COMPLETE, (UPDATE, secret("a", b"1"))))
    seen = dependencies.secrets
    dependencies.apply(message(COMPLETE, (UPDATE, secret("a", b"2"))))
    assert seen["a"].spec.data == b"1"
    assert dependencies.secrets["a"].spec.data == b"2"


def test_a_later_change_of_the_message_does_not_reach_in() -> None:
    dependencies = Dependencies()
    told = message(COMPLETE, (UPDATE, secret("a", b"1")))
    dependencies.apply(told)
    told.changes[0].assignment.secret.spec.data = b"2"
    assert dependencies.secrets["a"].spec.data == b"1"


def test_no_payload_is_in_a_repr() -> None:
    dependencies = Dependencies()
    dependencies.apply(message(COMPLETE, (UPDATE, secret("a", b"hidden"))))
    assert repr(dependencies) == "Dependencies(1 secrets, 0 configs)"


def test_a_task_reads_what_it_refers_to() -> None:
    dependencies = Dependencies()
    dependencies.apply(message(COMPLETE, (UPDATE, secret("a", b"1")), (UPDATE, config("x", b"2"))))
    reader = payloads(dependencies, task("a", configs=("x",)))
    assert (reader.secret("a"), reader.config("x")) == (b"1", b"2")
    dependencies.apply(message(INCREMENTAL, (UPDATE, secret("a", b"3"))))
    assert reader.secret("a") == b"3"


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_a_task_reads_nothing_else(kind: str) -> None:
    dependencies = Dependencies()
    dependencies.apply(message(COMPLETE, (UPDATE, secret("a", b"1")), (UPDATE, config("a", b"2"))))
    with pytest.raises(Refused, match=f"task not authorized to access {kind} a") as refused:
        getattr(payloads(dependencies, task()), kind)("a")
    assert refused.value.code is Code.PERMISSION_DENIED


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_what_the_node_was_not_given_is_not_found(kind: str) -> None:
    with pytest.raises(Refused, match=f"{kind} a not found"):
        getattr(payloads(Dependencies(), task("a", configs=("a",))), kind)("a")


def test_a_secret_made_for_the_task_goes_before_the_common_one() -> None:
    dependencies = Dependencies()
    dependencies.apply(message(COMPLETE, (UPDATE, secret("a", b"common")), (UPDATE, secret("a.t1", b"own"))))
    assert payloads(dependencies, task("a")).secret("a") == b"own"
    dependencies.apply(message(COMPLETE, (UPDATE, secret("a", b"common")), (UPDATE, secret("a.t2", b"other"))))
    assert payloads(dependencies, task("a")).secret("a") == b"common"


def test_templates_in_payloads_see_the_task_its_node_and_its_other_payloads() -> None:
    dependencies = Dependencies()
    text = b'{{.Task.Slot}} {{.Node.Hostname}} {{secret "a.txt"}} {{config "x.txt"}}'
    dependencies.apply(
        message(
            COMPLETE, (UPDATE, secret("a", b"pw")), (UPDATE, config("x", b"X")), (UPDATE, config("y", text, "golang"))
        )
    )
    assert payloads(dependencies, task("a", configs=("x", "y"))).config("y") == b"2 host1 pw X"


def test_a_template_sees_no_payload_that_its_task_does_not_have() -> None:
    dependencies = Dependencies()
    dependencies.apply(message(COMPLETE, (UPDATE, config("y", b'{{secret "a.txt"}}', "golang"))))
    with pytest.raises(Refused, match=r"a\.txt not found"):
        payloads(dependencies, task("a", configs=("y",))).config("y")


def test_a_bad_template_in_a_secret_does_not_show_the_secret() -> None:
    dependencies = Dependencies()
    dependencies.apply(message(COMPLETE, (UPDATE, secret("a", b"hidden {{.Nope}}", "golang"))))
    with pytest.raises(Refused) as refused:
        payloads(dependencies, task("a")).secret("a")
    assert "hidden" not in str(refused.value)


def test_a_bad_template_in_a_spec_is_refused() -> None:
    reader = payloads(Dependencies(), task())
    assert reader.expand("{{.Task.Name}}") == "web.2.t1"
    with pytest.raises(Refused) as refused:
        reader.expand("{{.Nope}}")
    assert refused.value.code is Code.INVALID_ARGUMENT
