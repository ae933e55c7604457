"""Views, transactions, changes, events and snapshots: SwarmKit's rules of the store."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.store import changes as ch
from runtime.store.audit import Audit, Changed
from runtime.store.changes import Action, Change, apply, decode_request, encode_request, from_actions
from runtime.store.events import Commit, History, LostPlace, Select, WatchFilter
from runtime.store.kinds import TABLES, index_keys, task_name
from runtime.store.snapshot import dump, restore
from runtime.store.transaction import AlreadyExists, NameConflict, NotExist, OutOfSequence, Transaction, cut_batch
from runtime.store.view import InvalidFind, Published, View
from runtime.wire.pb import objects_pb2 as pb
from runtime.wire.pb import types_pb2


def service(id: str, name: str, **more: Any) -> pb.Service:
    obj = pb.Service(id=id, **more)
    obj.spec.annotations.name = name
    return obj


def task(id: str, service_id: str = "s", slot: int = 1, node: str = "n", state: int = 512) -> pb.Task:
    obj = pb.Task(id=id, service_id=service_id, slot=slot, node_id=node, desired_state=512)  # type: ignore[arg-type]
    obj.status.state = state  # type: ignore[assignment]
    obj.service_annotations.name = f"name-{service_id}"
    return obj


def commit(view: View, *functions: Any, version: int | None = None) -> View:
    transaction = Transaction(view, view.version if version is None else version, 1700000000.5)
    for function in functions:
        function(transaction)
    return apply(view, transaction.changes, view.version + 1)


def test_a_transaction_sees_its_own_writes_and_the_view_does_not() -> None:
    view = View()
    transaction = Transaction(view, 0, 1.0)
    transaction.create(service("a", "Web"))
    assert transaction.get(pb.Service, "a") is not None
    assert [obj.id for obj in transaction.find(pb.Service, "name", "wEB")] == ["a"]
    assert [obj.id for obj in transaction.prefix(pb.Service, "name", "we")] == ["a"]
    assert transaction.count(pb.Service) == 1
    assert view.count(pb.Service) == 0
    transaction.delete(pb.Service, "a")
    assert (transaction.count(pb.Service), transaction.all(pb.Service)) == (0, [])


def test_written_objects_are_stamped_with_version_and_times() -> None:
    view = commit(View(41), lambda tx: tx.create(service("a", "web")), version=41)
    made = view.get(pb.Service, "a")
    assert made is not None
    assert (made.meta.version.index, made.meta.created_at.seconds, made.meta.created_at.nanos) == (
        41, 1700000000, 500000000,
    )  # fmt: skip
    assert view.version == 42


def test_an_update_must_name_the_stored_version() -> None:
    view = commit(View(5), lambda tx: tx.create(service("a", "web")))
    stale = service("a", "web")
    stale.meta.version.index = 4
    with pytest.raises(OutOfSequence) as refused:
        Transaction(view, 6, 1.0).update(stale)
    assert (refused.value.code, refused.value.text) == (Code.UNKNOWN, "update out of sequence")
    stale.meta.version.index = 5
    Transaction(view, 6, 1.0).update(stale)


def test_replay_neither_checks_nor_stamps() -> None:
    view = commit(View(5), lambda tx: tx.create(service("a", "web")))
    newer = service("a", "web")
    newer.meta.version.index = 99
    transaction = Transaction(view, None, 1.0)
    transaction.update(newer)
    stored = transaction.get(pb.Service, "a")
    assert stored is not None
    assert (stored.meta.version.index, stored.meta.HasField("updated_at")) == (99, False)


def test_the_store_keeps_a_copy_of_what_it_is_given() -> None:
    given_service = service("a", "web")
    transaction = Transaction(View(), 0, 1.0)
    transaction.create(given_service)
    given_service.spec.annotations.name = "other"
    stored = transaction.get(pb.Service, "a")
    assert stored is not None
    assert stored.spec.annotations.name == "web"


def test_names_are_unique_in_any_case_but_for_nodes_and_tasks() -> None:
    transaction = Transaction(View(), 0, 1.0)
    transaction.create(service("a", "web"))
    with pytest.raises(NameConflict, match="name conflicts with an existing object"):
        transaction.create(service("b", "WEB"))
    with pytest.raises(AlreadyExists):
        transaction.create(service("a", "other"))
    for id in ("n1", "n2"):
        node = pb.Node(id=id)
        node.description.hostname = "same"
        transaction.create(node)
    assert len(transaction.find(pb.Node, "name", "same")) == 2


def test_a_rename_into_a_taken_name_is_refused() -> None:
    view = commit(View(), lambda tx: tx.create(service("a", "web")), lambda tx: tx.create(service("b", "db")))
    renamed = service("b", "Web")
    renamed.meta.version.index = 0
    with pytest.raises(NameConflict):
        Transaction(view, 1, 1.0).update(renamed)


def test_what_is_not_there_is_neither_updated_nor_deleted() -> None:
    transaction = Transaction(View(), 0, 1.0)
    with pytest.raises(NotExist):
        transaction.update(service("a", "web"))
    with pytest.raises(NotExist):
        transaction.delete(pb.Service, "a")


def test_extensions_are_protected() -> None:
    transaction = Transaction(View(), 0, 1.0)
    resource = pb.Resource(id="r", kind="car")
    with pytest.raises(Refused, match="unregistered"):
        transaction.create(resource)
    extension = pb.Extension(id="e")
    extension.annotations.name = "car"
    transaction.create(extension)
    transaction.create(resource)
    with pytest.raises(Refused, match="resources of its kind exist"):
        transaction.delete(pb.Extension, "e")
    with pytest.raises(Refused, match="immutable"):
        transaction.update(extension)
    built_in = pb.Extension(id="f")
    built_in.annotations.name = "task"
    with pytest.raises(Refused, match="built-in"):
        transaction.create(built_in)


def test_an_index_that_a_table_lacks_is_an_error() -> None:
    with pytest.raises(InvalidFind, match="services have no index 'node'"):
        View().find(pb.Service, "node", "x")


def test_tasks_are_found_by_every_key() -> None:
    view = commit(View(), *(lambda tx, n=n: tx.create(task(f"t{n}", slot=n % 3)) for n in range(9)))
    assert [obj.id for obj in view.find(pb.Task, "slot", "s/1")] == ["t1", "t4", "t7"]
    assert view.count_found(pb.Task, "service", "s") == 9
    assert len(view.find(pb.Task, "desired_state", 512)) == 9
    assert [obj.id for obj in view.find(pb.Task, "name", "NAME-s.1.t4")] == ["t4"]
    moved = task("t4", slot=1, node="m")
    moved.meta.version.index = 0
    later = commit(view, lambda tx: tx.update(moved), version=0)
    assert [obj.id for obj in later.find(pb.Task, "node", "m")] == ["t4"]
    assert view.find(pb.Task, "node", "m") == []
    assert [obj.id for obj in later.prefix(pb.Task, "id", "t4")] == ["t4"]


def test_a_task_without_a_slot_is_named_by_its_node() -> None:
    assert task_name(task("t", slot=0)) == "name-s.n.t"
    named = task("t")
    named.annotations.name = "own"
    assert task_name(named) == "own"


def test_an_entry_read_back_gives_the_same_changes() -> None:
    view = commit(View(), lambda tx: tx.create(service("a", "web")), lambda tx: tx.create(task("t")))
    transaction = Transaction(view, 7, 2.0)
    changed = service("a", "web")
    changed.meta.version.index = 0
    transaction.update(changed)
    transaction.delete(pb.Task, "t")
    transaction.create(task("u"))
    request = decode_request(encode_request(3, transaction.changes))
    assert request.id == 3
    replayed = from_actions(view, request.action)
    assert replayed == transaction.changes
    assert dump(apply(view, replayed, 8)) == dump(apply(view, transaction.changes, 8))


def test_an_entry_may_touch_one_object_twice() -> None:
    transaction = Transaction(View(), 0, 1.0)
    transaction.create(service("a", "web"))
    transaction.delete(pb.Service, "a")
    request = decode_request(encode_request(1, transaction.changes))
    view = apply(View(), from_actions(View(), request.action), 1)
    assert view.count(pb.Service) == 0
    assert view.find(pb.Service, "name", "web") == []


@pytest.mark.parametrize("action", [Action.UPDATE, Action.REMOVE])
def test_a_log_that_does_not_fit_the_store_is_a_failure(action: Action) -> None:
    data = encode_request(1, [Change(action, pb.Service, None, service("a", "web"))])
    with pytest.raises(RuntimeError, match="the store says otherwise"):
        from_actions(View(), decode_request(data).action)


def test_an_entry_is_at_most_one_and_a_half_mebibytes_in_any_number_of_changes() -> None:
    one = Change(Action.CREATE, pb.Service, None, service("a", "web"))
    assert len(decode_request(encode_request(1, [one] * 1000)).action) == 1000
    big = pb.Config(id="c")
    big.spec.data = bytes(ch.MAX_BYTES)
    with pytest.raises(Refused, match="too large"):
        encode_request(1, [Change(Action.CREATE, pb.Config, None, big)])


def test_a_batch_cuts_at_200_changes_and_keeps_steps_whole() -> None:
    def step(number: int) -> Any:
        def run(tx: Transaction) -> int:
            for part in range(3):
                tx.create(task(f"t{number}-{part}"))
            return number

        return run

    transaction, results = cut_batch([step(n) for n in range(100)], lambda: Transaction(View(), 0, 1.0))
    assert results == list(range(66))
    assert len(transaction.changes) == 198
    encode_request(1, transaction.changes)


def test_a_batch_cuts_before_a_step_that_does_not_fit_and_refuses_one_that_never_does() -> None:
    def config(id: str, size: int) -> Any:
        def run(tx: Transaction) -> str:
            obj = pb.Config(id=id)
            obj.spec.annotations.name = id
            obj.spec.data = bytes(size)
            tx.create(obj)
            return id

        return run

    steps = [config("huge", ch.MAX_BYTES), *(config(id, 390_000) for id in "abc"), config("d", 500_000)]
    transaction, results = cut_batch(steps, lambda: Transaction(View(), 0, 1.0))
    assert isinstance(results[0], ch.TooLarge)
    assert results[1:] == ["a", "b", "c"]
    assert len(encode_request(1, transaction.changes)) <= ch.MAX_BYTES


def test_nothing_of_a_secret_is_in_a_repr() -> None:
    secret = pb.Secret(id="s")
    secret.spec.data = b"hunter2"
    change = Change(Action.CREATE, pb.Secret, None, secret)
    assert "hunter2" not in repr(Commit(1, (change,), apply(View(), [change], 1)))
    assert repr(change) == "Change(CREATE, secret s)"


def test_an_object_of_a_view_may_not_be_changed_in_place() -> None:
    view = commit(View(), lambda tx: tx.create(service("a", "web")))
    stored = view.get(pb.Service, "a")
    assert stored is not None
    with pytest.raises(AssertionError, match="changed in place"):
        Transaction(view, 1, 1.0).update(stored)


STATUSES = st.builds(
    types_pb2.TaskStatus, state=st.sampled_from([0, 192, 512, 576, 704]), message=st.sampled_from(["", "said"])
)


@given(st.lists(st.tuples(st.sampled_from(["status", "whole", "both"]), STATUSES), max_size=8))
def test_a_status_that_is_set_leaves_the_store_as_an_update_of_the_whole_task_does(steps: list[Any]) -> None:
    short = whole = commit(View(), lambda tx: tx.create(task("a")), lambda tx: tx.create(task("b", slot=2)))
    for how, status in steps:

        def update(tx: Transaction, status: Any = status) -> None:
            new = pb.Task()
            new.CopyFrom(tx.get(pb.Task, "a"))  # type: ignore[arg-type]
            new.status.CopyFrom(status)
            tx.update(new)

        def set_it(tx: Transaction, status: Any = status) -> None:
            tx.set_status(tx.get(pb.Task, "a"), status)  # type: ignore[arg-type]

        done = {"status": (set_it,), "whole": (update,), "both": (update, set_it)}[how]
        short, whole = commit(short, *done), commit(whole, *[update] * len(done))
    assert dump(short) == dump(whole)
    for state in (0, 192, 512, 576, 704):
        assert short.find(pb.Task, "task_state", state) == whole.find(pb.Task, "task_state", state)
    assert [each.id for each in short.find(pb.Task, "slot", "s/1")] == ["a"]


def test_who_hears_of_a_status_that_was_set_is_told_that_it_is_no_more_than_that() -> None:
    view = commit(View(), lambda tx: tx.create(task("a")))
    transaction, said = Transaction(view, 1, 1.0), types_pb2.TaskStatus(state=types_pb2.FAILED, err="it broke")
    old = transaction.get(pb.Task, "a")
    assert old is not None
    set_ = transaction.set_status(old, said)
    said.err = "changed behind the back of the store"
    (change,) = transaction.changes
    assert (change.action, change.old, change.new, change.of_status) == (Action.UPDATE, old, set_, True)
    assert (set_.status.err, set_.meta.version.index, old.status.err) == ("it broke", 1, "")
    assert transaction.get(pb.Task, "a") is set_
    transaction.roll_back(0)
    assert transaction.get(pb.Task, "a") is old
    assert from_actions(view, decode_request(encode_request(1, [change])).action)[0].of_status is False


def test_a_status_is_set_on_what_the_transaction_gave_alone() -> None:
    view = commit(View(), lambda tx: tx.create(task("a")))
    for stranger in (task("a"), task("gone")):
        with pytest.raises(AssertionError, match="not what this transaction gave"):
            Transaction(view, 1, 1.0).set_status(stranger, types_pb2.TaskStatus())


def test_a_snapshot_with_one_id_twice_is_a_failure() -> None:
    twice = [service("a", "web"), service("a", "web")]
    with pytest.raises(AssertionError, match="two services"):
        restore(View(), {pb.Service: twice}, 9)


def test_a_refused_step_of_a_batch_leaves_nothing_and_ends_nothing() -> None:
    def broken(tx: Transaction) -> None:
        tx.create(service("x", "x"))
        tx.create(service("y", "web"))

    steps = [lambda tx: tx.create(service("a", "web")).id, broken, lambda tx: tx.create(service("b", "db")).id]
    transaction, results = cut_batch(steps, lambda: Transaction(View(), 0, 1.0))
    assert [results[0], results[2]] == ["a", "b"]
    assert isinstance(results[1], NameConflict)
    assert [change.object.id for change in transaction.changes] == ["a", "b"]
    assert transaction.get(pb.Service, "x") is None


def test_a_snapshot_restores_by_difference() -> None:
    old = commit(View(), lambda tx: tx.create(service("a", "web")), lambda tx: tx.create(service("b", "db")))
    new = commit(View(), lambda tx: tx.create(service("b", "db")), lambda tx: tx.create(service("c", "q")))
    restored, changes = restore(old, dump(new), 77)
    assert dump(restored) == dump(new)
    assert [(change.action, change.object.id) for change in changes] == [(Action.REMOVE, "a"), (Action.CREATE, "c")]
    assert restored.get(pb.Service, "b") is old.get(pb.Service, "b")
    assert restored.version == 77


def test_a_watcher_resumes_without_a_gap_or_is_told() -> None:
    history = History(start=10, capacity=5)
    view, commits = View(10), []
    for version in range(11, 21):
        change = Change(Action.CREATE, pb.Service, None, service(f"s{version}", f"n{version}"))
        view = apply(view, [change], version)
        commits.append(Commit(version, (change,), view))
        history.add(commits[-1])
    assert history.since(17, view) == [replace(each, view=view) for each in commits[7:]]
    assert history.since(20, view) == []
    for unknown in (12, 21):
        with pytest.raises(LostPlace):
            history.since(unknown, view)
    history.advance(21)
    assert history.since(21, view) == []
    history.reset(30)
    assert (history.newest, history.since(30, view)) == (30, [])


def test_the_history_keeps_no_view() -> None:
    ours = 10**12  # versions that no other test has
    history = History(ours)
    view = View(ours)
    for version in range(ours + 1, ours + 101):
        change = Change(Action.CREATE, pb.Service, None, service(f"s{version}", f"n{version}"))
        view = apply(view, [change], version)
        history.add(Commit(version, (change,), view))
    gc.collect()
    assert [each.version for each in gc.get_objects() if isinstance(each, View) and each.version >= ours] == [
        ours + 100
    ]
    assert [each.view for each in history.since(ours, view)] == [view] * 100


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (Select(pb.Task), True),
        (Select(pb.Service), False),
        (Select(pb.Task, frozenset({Action.REMOVE})), False),
        (Select(pb.Task, id="t"), True),
        (Select(pb.Task, id_prefix="x"), False),
        (Select(pb.Task, name="name-s.1.t"), True),
        (Select(pb.Task, name_prefix="name-s"), True),
        (Select(pb.Task, node_id="n", service_id="s", slot=("s", 1), desired_state=512), True),
        (Select(pb.Task, slot=("s", 2)), False),
        (Select(pb.Task, node_id="other"), False),
    ],
)
def test_a_filter_picks_what_was_asked_for(select: Select, expected: bool) -> None:
    event = Change(Action.CREATE, pb.Task, None, task("t"))
    assert WatchFilter((select,)).match(event) is expected
    picked = WatchFilter((select,)).pick(Commit(1, (event,), View(1)))
    assert (picked is not None) is expected


def test_filters_of_nodes_and_custom_indices() -> None:
    node = pb.Node(id="n", role=types_pb2.MANAGER)
    node.spec.annotations.indices.add(key="rack", val="7")
    event = Change(Action.CREATE, pb.Node, None, node)
    assert Select(pb.Node, role=1, custom="rack|7").match(event)
    assert Select(pb.Node, node_id="of tasks alone", slot=("s", 1)).match(event)
    assert not Select(pb.Node, role=0).match(event)
    assert not Select(pb.Node, custom="rack|8").match(event)
    assert WatchFilter.kinds(pb.Node, pb.Task).match(event)
    assert WatchFilter().match(event)


def test_an_object_changed_after_publication_is_found_out() -> None:
    change = Change(Action.CREATE, pb.Service, None, service("a", "web"))
    audit, view = Audit(), apply(View(), [change], 1)
    audit.published([change])
    audit.check(view)
    stored = view.get(pb.Service, "a")
    assert stored is not None
    stored.spec.annotations.name = "meddled"
    with pytest.raises(Changed, match="service a"):
        audit.check(view)


def test_a_published_view_is_replaced_not_changed() -> None:
    published = Published()
    before = published.view
    published.view = commit(before, lambda tx: tx.create(service("a", "web")))
    assert (before.count(pb.Service), published.view.count(pb.Service)) == (0, 1)


TASKS = st.tuples(
    st.sampled_from("abcdefgh"), st.sampled_from(["s1", "s2"]), st.integers(0, 2), st.sampled_from(["", "n1", "n2"]),
    st.sampled_from([0, 64, 512, 832]),
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(st.lists(st.one_of(TASKS, st.sampled_from("abcdefgh")), max_size=6), max_size=10))
def test_any_history_equals_a_plain_model_and_never_changes_an_older_view(history: list[list[Any]]) -> None:
    """A tuple creates or updates a task, a letter deletes one."""
    view, model = View(), {}
    seen: list[tuple[View, dict[str, bytes]]] = []
    for step in history:
        transaction = Transaction(view, None, 1.0)
        for change in step:
            if isinstance(change, tuple):
                obj = task(*change)
                (transaction.update if change[0] in model else transaction.create)(obj)
                model[change[0]] = obj.SerializeToString(deterministic=True)
            elif change in model:
                transaction.delete(pb.Task, change)
                del model[change]
        data = encode_request(1, transaction.changes)
        view = apply(view, from_actions(view, decode_request(data).action), view.version + 1)
        seen.append((view, dict(model)))
    for old_view, old_model in seen:
        stored = {obj.id: obj.SerializeToString(deterministic=True) for obj in old_view.all(pb.Task)}
        assert stored == old_model
        check_indices(old_view)


def check_indices(view: View) -> None:
    table = TABLES[pb.Task]
    expected: dict[tuple[str, str], set[str]] = {}
    for obj in view.all(pb.Task):
        for pair in index_keys(table, obj):
            expected.setdefault(pair, set()).add(obj.id)
    for (index, key), ids in expected.items():
        assert {obj.id for obj in view.find(pb.Task, index, key)} == ids
    assert len(list(view.table(pb.Task).indices)) == len(expected)


def test_a_filter_of_whole_kinds_matches_what_its_selections_match() -> None:
    """The short cut for watchers that ask for everything of a kind changes nothing."""
    whole = WatchFilter.kinds(pb.Task, pb.Node)
    mixed = WatchFilter(
        (Select(pb.Task), Select(pb.Service, id="a"), Select(pb.Node, actions=frozenset([Action.REMOVE])))
    )
    assert whole.whole_kinds == {pb.Task, pb.Node}
    assert mixed.whole_kinds == {pb.Task}
    for kind in (pb.Task, pb.Node, pb.Service):
        for id in ("a", "b"):
            for action, old, new in ((Action.CREATE, None, kind(id=id)), (Action.REMOVE, kind(id=id), None)):
                event = Change(action, kind, old, new)
                for asked in (whole, mixed):
                    assert asked.match(event) == any(select.match(event) for select in asked.selections)


def test_a_transaction_finds_what_it_wrote_under_its_newest_keys() -> None:
    tx = Transaction(View(), 1, 0.0)
    tx.create(pb.Task(id="t", service_id="one", node_id="n"))
    assert [task.id for task in tx.find(pb.Task, "service", "one")] == ["t"]
    moved = pb.Task(id="t", service_id="one", node_id="m")
    moved.meta.CopyFrom(tx.find(pb.Task, "node", "n")[0].meta)
    tx.update(moved)
    assert tx.find(pb.Task, "node", "n") == []
    assert [task.id for task in tx.find(pb.Task, "node", "m")] == ["t"]
    tx.roll_back(1)
    assert tx.find(pb.Task, "node", "m") == []
    assert [task.id for task in tx.find(pb.Task, "node", "n")] == ["t"]
