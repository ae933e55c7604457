"""Requests of the Watch service as selections, and commits as its messages."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.errors import Code, Refused
from runtime.store.changes import MAX_BYTES, Action, Change
from runtime.store.events import Commit, Select
from runtime.store.view import View
from runtime.store.watching import CONFLICT, NO_ACTION, NO_KIND, PART_BYTES, messages, selections
from runtime.wire.pb import objects_pb2 as pb
from runtime.wire.pb import types_pb2 as types
from runtime.wire.pb import watch_pb2 as watch

Entry = watch.WatchRequest.WatchEntry
By = watch.SelectBy
ALL = 7
PEER_MAX = 4 << 20


def by(**given: Any) -> watch.SelectBy:
    return By(**given)


def entry(kind: str, *filters: watch.SelectBy, action: Any = ALL) -> watch.WatchRequest.WatchEntry:
    return Entry(kind=kind, action=action, filters=filters)


def custom(index: str, value: str) -> watch.SelectByCustom:
    return watch.SelectByCustom(index=index, value=value)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (entry("node"), Select(pb.Node)),
        (entry("volume", action=5), Select(pb.Volume, frozenset({Action.CREATE, Action.REMOVE}))),
        (entry("task", by(id="t")), Select(pb.Task, id="t")),
        (entry("task", by(id_prefix="t")), Select(pb.Task, id_prefix="t")),
        (entry("secret", by(name="a")), Select(pb.Secret, name="a")),
        (entry("config", by(name_prefix="a")), Select(pb.Config, name_prefix="a")),
        (
            entry("task", by(service_id="s"), by(node_id="n"), by(desired_state=types.RUNNING)),
            Select(pb.Task, service_id="s", node_id="n", desired_state=types.RUNNING),
        ),
        (entry("task", by(slot=watch.SelectBySlot(service_id="s", slot=3))), Select(pb.Task, slot=("s", 3))),
        (entry("node", by(role=types.MANAGER), by(membership=1)), Select(pb.Node, role=1, membership=1)),
        (entry("network", by(custom=custom("k", "v"))), Select(pb.Network, custom="k|v")),
        (entry("cluster", by(custom_prefix=custom("k", "v"))), Select(pb.Cluster, custom_prefix="k|v")),
        (entry("extension"), Select(pb.Extension)),
        (entry("lamp"), Select(pb.Resource, resource_kind="lamp")),
        (
            entry("lamp", by(custom=custom("k", "v"))),
            Select(pb.Resource, resource_kind="lamp", custom="lamp|k|v"),
        ),
        (entry("resource"), Select(pb.Resource, resource_kind="resource")),
        (entry("service", by(node_id="of tasks"), by(role=types.MANAGER)), Select(pb.Service)),
        (entry("service", By(), By()), Select(pb.Service)),
        (entry("task", by(role=types.MANAGER), by(kind="lamp"), by(referenced_secret_id="x")), Select(pb.Task)),
    ],
)
def test_what_an_entry_asks_for(asked: watch.WatchRequest.WatchEntry, expected: Select) -> None:
    assert selections([asked]) == (expected,)


def test_entries_are_alternatives_and_none_select_nothing() -> None:
    assert selections([]) == ()
    assert selections([entry("task"), entry("node")]) == (Select(pb.Task), Select(pb.Node))


SLOT = watch.SelectBySlot(service_id="s", slot=1)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (entry(""), NO_KIND),
        (entry("task", action=0), NO_ACTION),
        (entry("task", action=8), NO_ACTION),
        (entry("task", by(id="a"), by(id="b")), CONFLICT),
        (entry("task", by(id="a"), by(id_prefix="b")), CONFLICT),
        (entry("node", by(name_prefix="a"), by(name="b")), CONFLICT),
        (entry("node", by(role=types.WORKER), by(role=types.MANAGER)), CONFLICT),
        (entry("node", by(custom=custom("a", "b")), by(custom_prefix=custom("a", "b"))), CONFLICT),
        (entry("task", by(service_id="s"), by(slot=SLOT)), CONFLICT),
        (entry("task", by(slot=SLOT), by(service_id="s")), CONFLICT),
        (entry("task", by(desired_state=types.RUNNING), by(desired_state=types.NEW)), CONFLICT),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(asked: watch.WatchRequest.WatchEntry, text: str) -> None:
    with pytest.raises(Refused) as caught:
        selections([entry("node"), asked])
    assert (caught.value.code, caught.value.text) == (Code.INVALID_ARGUMENT, text)


def created(obj: Any) -> Change:
    return Change(Action.CREATE, type(obj), None, obj)


def test_custom_entries_are_compared_whole_or_from_their_beginning_and_resources_by_their_kind() -> None:
    node = pb.Node(id="n")
    node.spec.annotations.indices.add(key="rack", val="seven")
    lamp = pb.Resource(id="r", kind="lamp")
    lamp.annotations.indices.add(key="rack", val="seven")
    for kind, obj in (("node", node), ("lamp", lamp)):
        for filters, holds in (
            ([], True),
            ([by(custom=custom("rack", "seven"))], True),
            ([by(custom=custom("rack", "sev"))], False),
            ([by(custom_prefix=custom("rack", "sev"))], True),
            ([by(custom_prefix=custom("ra", "sev"))], False),
        ):
            (select,) = selections([entry(kind, *filters)])
            assert select.match(created(obj)) is holds, (kind, filters)
    assert not selections([entry("door")])[0].match(created(lamp))


def test_a_commit_is_one_message_with_its_version_and_old_objects_only_when_asked_for() -> None:
    old, new = pb.Service(id="s"), pb.Service(id="s")
    new.spec.replicated.replicas = 5
    changes = (
        created(pb.Node(id="n")),
        Change(Action.UPDATE, pb.Service, old, new),
        Change(Action.REMOVE, pb.Task, pb.Task(id="t"), None),
    )
    commit = Commit(77, changes, View(77))
    for wanted in (False, True):
        (message,) = messages(commit, wanted)
        assert message.version.index == 77
        first, second, third = message.events
        assert (first.action, first.object.node.id) == (watch.WATCH_ACTION_CREATE, "n")
        assert (second.action, second.object.service) == (watch.WATCH_ACTION_UPDATE, new)
        assert (third.action, third.object.task.id) == (watch.WATCH_ACTION_REMOVE, "t")
        assert second.HasField("old_object") is wanted
        assert (second.old_object.service == old) is wanted or not wanted
        assert not first.HasField("old_object")
        assert not third.HasField("old_object")


def test_a_commit_that_no_peer_would_take_comes_in_parts_and_only_the_last_has_the_version() -> None:
    def secret(id: str) -> Change:
        made = pb.Secret(id=id)
        made.spec.data = bytes(MAX_BYTES - 1000)
        return Change(Action.UPDATE, pb.Secret, made, made)

    changes = tuple(secret(f"s{n}") for n in range(5))
    parts = list(messages(Commit(9, changes, View(9)), True))
    assert len(parts) == 5
    assert [event.object.secret.id for part in parts for event in part.events] == [f"s{n}" for n in range(5)]
    assert [part.HasField("version") for part in parts] == [False] * 4 + [True]
    assert all(part.ByteSize() <= PEER_MAX for part in parts)
    smaller = list(messages(Commit(9, changes, View(9)), False))
    assert max(part.ByteSize() for part in smaller) <= PART_BYTES + 1000
    assert len(smaller) == 3
