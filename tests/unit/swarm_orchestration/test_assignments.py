"""Assignment sets: what a node that follows the messages ends up with."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.store.changes import apply
from runtime.store.transaction import Transaction
from runtime.store.view import View
from runtime.swarm.agent_session import AssignmentSequence, trace_in
from runtime.swarm.assignments import AssignmentSet, references, same_but_status
from runtime.wire.pb import dispatcher_pb2 as dispatcher
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

COMPLETE, INCREMENTAL = dispatcher.AssignmentsMessage.COMPLETE, dispatcher.AssignmentsMessage.INCREMENTAL


def change(view: View, step: Any) -> View:
    tx = Transaction(view, view.version + 1, 1000.0)
    step(tx)
    return apply(view, tx.changes, view.version + 2)


def payloads() -> View:
    def make(tx: Transaction) -> None:
        for number in range(3):
            secret, config = objects.Secret(id=f"s{number}"), objects.Config(id=f"c{number}")
            secret.spec.annotations.name = secret.id
            secret.spec.data = b"secret"
            config.spec.annotations.name = config.id
            tx.create(secret)
            tx.create(config)
        driven = objects.Secret(id="driven")
        driven.spec.annotations.name = "driven"
        driven.spec.driver.name = "vault"
        tx.create(driven)

    return change(View(), make)


def task(
    id: str, state: int = types.ASSIGNED, secrets: tuple[str, ...] = (), configs: tuple[str, ...] = (), node: str = "n"
) -> objects.Task:
    made = objects.Task(
        id=id,
        node_id=node,
        desired_state=types.RUNNING,
        status=types.TaskStatus(state=state),  # type: ignore[arg-type]
    )
    made.spec.container.image = "host"
    for each in secrets:
        made.spec.container.secrets.add(secret_id=each)
    for each in configs:
        made.spec.container.configs.add(config_id=each)
    return made


class Agent:
    """A node that does what messages say."""

    def __init__(self) -> None:
        self.sequence = AssignmentSequence()
        self.held: dict[str, dict[str, Any]] = {"task": {}, "secret": {}, "config": {}}

    def take(self, message: dispatcher.AssignmentsMessage) -> None:
        assert self.sequence.check(message) is None
        if message.type == COMPLETE:
            self.held = {"task": {}, "secret": {}, "config": {}}
        for each in message.changes:
            kind = each.assignment.WhichOneof("item")
            assert kind is not None
            item = getattr(each.assignment, kind)
            if each.action == dispatcher.AssignmentChange.UPDATE:
                self.held[kind][item.id] = item
            else:
                assert item == type(item)(id=item.id), "what is taken back is named by its id alone"
                self.held[kind].pop(item.id, None)
            if kind == "task" and each.action == dispatcher.AssignmentChange.UPDATE:
                for needed, id in references(item):
                    present = id in self.held[needed] or id in ("driven", "missing")
                    assert present or item.status.state > types.RUNNING, f"{id} came after its task"

    def ids(self, kind: str) -> list[str]:
        return sorted(self.held[kind])


def summary(message: dispatcher.AssignmentsMessage) -> list[str]:
    lines = []
    for each in message.changes:
        kind = each.assignment.WhichOneof("item")
        sign = "+" if each.action == dispatcher.AssignmentChange.UPDATE else "-"
        lines.append(f"{sign}{kind} {getattr(each.assignment, str(kind)).id}")
    return lines


def test_the_first_message_is_complete_and_each_names_the_one_before() -> None:
    view = change(payloads(), lambda tx: tx.create(task("a")))
    assigned = AssignmentSet("n")
    first = assigned.begin(view)
    assert (first.type, first.applies_to, first.results_in) == (COMPLETE, "", "1")
    assigned.put(view, task("b"))
    second, third = assigned.take(), assigned.take()
    assert (second.type, second.applies_to, second.results_in) == (INCREMENTAL, "1", "2")
    assert (third.applies_to, third.results_in) == ("2", "3")


def test_the_complete_set_holds_this_nodes_tasks_from_assigned_on() -> None:
    def make(tx: Transaction) -> None:
        tx.create(task("pending", types.PENDING))
        tx.create(task("assigned"))
        tx.create(task("failed", types.FAILED, ("s0",)))
        tx.create(task("elsewhere", node="m"))

    assigned = AssignmentSet("n")
    assert summary(assigned.begin(change(payloads(), make))) == ["+task assigned", "+task failed"]
    assert [each.id for each in assigned.tasks] == ["assigned", "failed"]


def test_a_node_without_tasks_is_told_so() -> None:
    message = AssignmentSet("n").begin(View())
    assert message.type == COMPLETE
    assert not message.changes


def test_payloads_come_before_their_task_and_only_once() -> None:
    view, assigned = payloads(), AssignmentSet("n")
    assigned.begin(view)
    assigned.put(view, task("a", secrets=("s0", "s1"), configs=("c0",)))
    assigned.put(view, task("b", secrets=("s1",)))
    assert summary(assigned.take()) == ["+secret s0", "+secret s1", "+config c0", "+task a", "+task b"]


def test_resource_references_of_any_runtime_count() -> None:
    view, assigned = payloads(), AssignmentSet("n")
    assigned.begin(view)
    generic = objects.Task(id="g", node_id="n", status=types.TaskStatus(state=types.ASSIGNED))
    generic.spec.generic.kind = "wasm"
    generic.spec.resource_references.add(resource_id="s2", resource_type=types.SECRET)
    generic.spec.resource_references.add(resource_id="c2", resource_type=types.CONFIG)
    generic.spec.resource_references.add(resource_id="t", resource_type=types.TASK)
    assigned.put(view, generic)
    assert summary(assigned.take()) == ["+secret s2", "+config c2", "+task g"]


def test_the_last_user_of_a_payload_takes_it_back() -> None:
    view, assigned = payloads(), AssignmentSet("n")
    assigned.begin(view)
    assigned.put(view, task("a", secrets=("s0",)))
    assigned.put(view, task("b", secrets=("s0",)))
    assigned.take()
    assert not assigned.put(view, task("a", types.FAILED, ("s0",)))
    assert assigned.pending == 0
    assert assigned.put(view, task("b", types.COMPLETE, ("s0",)))
    assert summary(assigned.take()) == ["-secret s0"]
    assert not assigned.put(view, task("b", types.SHUTDOWN, ("s0",)))


def test_a_task_that_is_gone_is_taken_back_with_what_it_used() -> None:
    view, assigned = payloads(), AssignmentSet("n")
    assigned.begin(view)
    assigned.put(view, task("a", secrets=("s0",), configs=("c1",)))
    assigned.take()
    assert assigned.remove(task("a"))
    assert summary(assigned.take()) == ["-task a", "-secret s0", "-config c1"]
    assert not assigned.remove(task("a"))


def test_a_status_alone_is_not_told_beyond_assigned() -> None:
    view, assigned = payloads(), AssignmentSet("n")
    assigned.begin(view)
    assigned.put(view, task("a"))
    assigned.take()
    assert assigned.put(view, task("a")), "up to ASSIGNED the manager itself sets the state"
    assigned.take()
    for state in (types.ACCEPTED, types.RUNNING, types.FAILED):
        assert not assigned.put(view, task("a", state))


def test_another_desired_state_is_told() -> None:
    view, assigned = payloads(), AssignmentSet("n")
    assigned.begin(view)
    assigned.put(view, task("a", types.RUNNING))
    assigned.take()
    stopped = task("a", types.RUNNING)
    stopped.desired_state = types.SHUTDOWN
    assert assigned.put(view, stopped)
    message = assigned.take()
    assert message.changes[0].assignment.task.desired_state == types.SHUTDOWN


def test_a_task_changed_and_ended_at_once_gives_its_payloads_back() -> None:
    view, assigned = payloads(), AssignmentSet("n")
    assigned.begin(view)
    assigned.put(view, task("a", types.RUNNING, ("s0",)))
    assigned.take()
    ended = task("a", types.FAILED, ("s0",))
    ended.desired_state = types.SHUTDOWN
    assigned.put(view, ended)
    assert summary(assigned.take()) == ["-secret s0", "+task a"]


def test_a_payload_that_is_missing_or_held_by_a_driver_is_left_out() -> None:
    view, assigned = payloads(), AssignmentSet("n")
    assigned.begin(view)
    assigned.put(view, task("a", secrets=("missing", "driven", "s0")))
    assert summary(assigned.take()) == ["+secret s0", "+task a"]
    assigned.remove(task("a"))
    assert summary(assigned.take()) == ["-task a", "-secret s0"]


def test_changes_that_wait_are_told_once_in_their_newest_form() -> None:
    view, assigned = payloads(), AssignmentSet("n")
    assigned.begin(view)
    for _ in range(5):
        assigned.put(view, task("a"))
    assert assigned.pending == 1
    assigned.remove(task("a"))
    assert summary(assigned.take()) == ["-task a"]


def test_what_a_message_holds_is_a_copy() -> None:
    view, assigned = payloads(), AssignmentSet("n")
    assigned.begin(view)
    mine = task("a")
    assigned.put(view, mine)
    message = assigned.take()
    message.changes[0].assignment.task.desired_state = types.REMOVE
    assert mine.desired_state == types.RUNNING


def test_all_but_status_and_meta_makes_a_difference() -> None:
    one, other = task("a"), task("a", types.RUNNING)
    other.meta.version.index = 9
    assert same_but_status(one, other)
    for field, value in (("slot", 3), ("service_id", "s"), ("desired_state", types.REMOVE)):
        changed = task("a")
        setattr(changed, field, value)
        assert not same_but_status(one, changed), field
    networked = task("a")
    networked.networks.add(addresses=["10.0.0.3/24"])
    assert not same_but_status(one, networked)


ACTIONS = st.tuples(
    st.sampled_from(["create", "create", "state", "state", "desired", "remove", "send"]),
    st.integers(0, 4),
    st.sampled_from([64, 192, 256, 512, 576, 704]),
    st.sets(st.sampled_from(["s0", "s1", "driven", "missing"]), max_size=3),
    st.sets(st.sampled_from(["c0", "c1"]), max_size=2),
)


def after(old: objects.Task | None, what: str, new: objects.Task) -> objects.Task | None:
    """What the task is after an action on it."""
    if old is None or what in ("create", "remove"):
        return new if old is None and what == "create" else old if what != "remove" else None
    changed = objects.Task()
    changed.CopyFrom(old)
    if what == "state":
        changed.status.state = max(new.status.state, old.status.state)
    else:
        changed.desired_state = max(types.SHUTDOWN, old.desired_state)
    return changed


def store(view: View, old: objects.Task | None, new: objects.Task | None) -> View:
    if old is None:
        return change(view, lambda tx: tx.create(new)) if new is not None else view
    return change(view, lambda tx: tx.update(new) if new is not None else tx.delete(objects.Task, old.id))


@given(st.lists(ACTIONS, max_size=40), st.integers(0, 10), st.booleans())
def test_a_node_that_follows_ends_up_with_what_a_complete_set_would_tell(
    actions: list[Any], begin_at: int, told: bool
) -> None:
    """Whether or not the set is ``told`` that a change is of a task's status alone."""
    view, assigned, agent = payloads(), AssignmentSet("n"), Agent()
    for number, (what, which, state, secrets, configs) in enumerate(actions):
        if number == begin_at:
            agent.take(assigned.begin(view))
        if what == "send" and number >= begin_at:
            agent.take(assigned.take())
        old = view.get(objects.Task, f"t{which}")
        new = after(old, what, task(f"t{which}", state, tuple(sorted(secrets)), tuple(sorted(configs))))
        if what == "send" or new is old:
            continue
        view = store(view, old, new)
        if number >= begin_at:
            stored = view.get(objects.Task, f"t{which}")
            if stored is not None:
                assigned.put(view, stored, of_status=told and what == "state")
            elif old is not None:
                assigned.remove(old)
    agent.take(assigned.begin(view) if len(actions) <= begin_at else assigned.take())
    fresh = Agent()
    fresh.take(AssignmentSet("n").begin(view))
    for kind in ("task", "secret", "config"):
        assert agent.ids(kind) == fresh.ids(kind), kind
    for id in agent.ids("task"):
        assert same_but_status(agent.held["task"][id], fresh.held["task"][id])


def test_a_result_may_name_a_trace_and_the_next_message_refers_to_all_of_it() -> None:
    assigned = AssignmentSet("w1")
    first, second, third = assigned.take(), assigned.take(0xAB), assigned.take()
    assert (first.results_in, second.applies_to) == ("1", "1")
    assert (second.results_in, third.applies_to, third.results_in) == ("2.ab", "2.ab", "3")
    assert [trace_in(each) for each in (first, second, third)] == [0, 0xAB, 0]


@pytest.mark.parametrize("result", ["", "7", "7.", ".ab", "7.xyz", "7.ab.cd", "7.-1", "x.ab", "7." + "f" * 14, "7.AB"])
def test_a_result_that_names_no_trace_is_taken_as_it_is(result: str) -> None:
    message = dispatcher.AssignmentsMessage(type=COMPLETE, results_in=result)
    assert trace_in(message) == 0
    assert AssignmentSequence().check(message) is None
