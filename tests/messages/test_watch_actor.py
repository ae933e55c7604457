"""WatchActor over a real store: what streams are told, where they resume, and how they end."""

from __future__ import annotations

from typing import Any

import pytest

from actors.watch_actor import WatchActor
from actors.watch_stream_actor import ENDED
from runtime.errors import Code, Refused
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Entries, Write
from runtime.store.changes import Action, Change, encode_request
from runtime.store.watching import COMPACTED, CONFLICT, OUT_OF_ORDER
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import watch_pb2 as watch
from runtime.wire.port import StreamLimits
from tests.messages.test_dispatcher_actor import LeaderBench, Sent

ALL = 7
EMPTY = watch.WatchMessage()


class WatchPart(WatchActor):
    """A WatchActor, made as the bench makes its parts."""

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context.store, context.published)


class Bench(LeaderBench):
    """A store and its watchers on the wire."""

    def __init__(self, *stored: Any) -> None:
        super().__init__(WatchPart, *(stored or (objects.Node(id="n0"),)))

    def watch(self, *kinds: str, since: int | None = None, old: bool = False, **how: Any) -> Sent:
        return self.call("Watch", "Watch", request(*kinds, since=since, old=old), "manager-2", **how)

    @property
    def streams(self) -> int:
        cell = self.actor.resolve()
        assert cell is not None
        return len(cell.children)

    @property
    def watchers(self) -> int:
        cell = self.store.resolve()
        assert cell is not None
        count: int = cell.instance.snapshot()["watchers"]
        return count


def request(*kinds: str, since: int | None = None, old: bool = False) -> watch.WatchRequest:
    made = watch.WatchRequest(include_old_object=old)
    for kind in kinds:
        made.entries.add(kind=kind, action=ALL)
    if since is not None:
        made.resume_from.index = since
    return made


def seen(sent: Sent) -> list[list[tuple[int, str]]]:
    """For each message what it tells: the action and the object's id."""
    told = []
    for message in sent.take():
        ids = [(each.action, getattr(each.object, each.object.WhichOneof("Object")).id) for each in message.events]
        told.append(ids)
    return told


def test_a_stream_begins_with_an_empty_message_and_tells_each_transaction_once() -> None:
    bench = Bench()
    sent = bench.watch("node", "task")
    assert sent.take() == [EMPTY]
    bench.create(objects.Node(id="n1"), objects.Task(id="t1"), objects.Secret(id="s1"))
    bench.create(objects.Secret(id="s2"))
    bench.change(objects.Node, "n1", lambda node: node.spec.annotations.labels.update(a="b"))
    bench.delete(objects.Task, "t1")
    assert seen(sent) == [[(1, "n1"), (1, "t1")], [(2, "n1")], [(4, "t1")]]
    assert sent.open


def test_versions_grow_and_a_stream_goes_on_behind_the_one_it_names() -> None:
    bench = Bench()
    sent = bench.watch("node")
    for number in range(1, 5):
        bench.create(objects.Node(id=f"n{number}"))
    (_, *told) = sent.take()
    versions = [message.version.index for message in told]
    assert versions == sorted(set(versions))
    resumed = bench.watch("node", since=versions[1])
    bench.create(objects.Node(id="n5"))
    (first, *rest) = resumed.take()
    assert first == EMPTY
    assert [message.events[0].object.node.id for message in rest] == ["n3", "n4", "n5"]
    assert [message.version.index for message in rest[:2]] == versions[2:]
    nothing_missed = bench.watch("node", since=rest[-1].version.index)
    assert nothing_missed.take() == [EMPTY]


def test_a_place_that_is_no_longer_kept_or_not_yet_known_is_refused() -> None:
    bench = Bench()
    store = bench.store.resolve()
    assert store is not None
    store.instance._history.reset(bench.published.view.version)
    for since, text in ((0, COMPACTED), (bench.published.view.version + 1, OUT_OF_ORDER)):
        refused = bench.watch("node", since=since).refused
        assert (refused.code, refused.text) == (Code.UNKNOWN, text)
    assert bench.streams == 0


def test_old_objects_come_only_when_asked_for() -> None:
    bench = Bench(objects.Node(id="n1"))
    plain, both = bench.watch("node"), bench.watch("node", old=True)
    bench.change(objects.Node, "n1", lambda node: node.spec.annotations.labels.update(a="b"))
    (_, told), (_, with_old) = plain.take(), both.take()
    assert not told.events[0].HasField("old_object")
    assert not with_old.events[0].old_object.node.spec.annotations.labels
    assert with_old.events[0].object.node.spec.annotations.labels == {"a": "b"}


def test_secrets_come_with_their_data_for_those_who_may_watch() -> None:
    bench = Bench()
    sent = bench.watch("secret")
    secret = objects.Secret(id="s1")
    secret.spec.data = b"hidden"
    bench.create(secret)
    (_, told) = sent.take()
    assert told.events[0].object.secret.spec.data == b"hidden"
    assert "hidden" not in repr(bench.instance.snapshot())


def test_a_request_that_selects_nothing_is_told_nothing() -> None:
    bench = Bench()
    sent = bench.watch()
    bench.create(objects.Node(id="n1"))
    assert sent.take() == [EMPTY]
    assert sent.open


def test_a_request_that_makes_no_sense_begins_no_stream() -> None:
    bench = Bench()
    asked = request("node")
    asked.entries[0].filters.add(id="a")
    asked.entries[0].filters.add(id_prefix="b")
    refused = bench.call("Watch", "Watch", asked, "manager-2").refused
    assert (refused.code, refused.text) == (Code.INVALID_ARGUMENT, CONFLICT)
    assert bench.streams == 0


def test_streams_end_with_their_callers_and_leave_no_watch_behind() -> None:
    bench = Bench()
    first, second = bench.watch("node"), bench.watch("node")
    assert (bench.streams, bench.watchers) == (2, 2)
    first.call.cancelled()
    bench.simulator.settle()
    assert (bench.streams, bench.watchers) == (1, 1)
    bench.create(objects.Node(id="n1"))
    assert seen(second) == [[], [(1, "n1")]]


def test_who_reads_too_slowly_is_told_so_and_nobody_else_waits() -> None:
    bench = Bench()
    slow, quick = bench.watch("node", limits=StreamLimits(items_max=2)), bench.watch("node")
    for number in range(1, 5):
        bench.create(objects.Node(id=f"n{number}"))
    assert slow.refused.code is Code.RESOURCE_EXHAUSTED
    assert seen(quick) == [[], *[[(1, f"n{number}")] for number in range(1, 5)]]
    assert (bench.streams, bench.watchers) == (1, 1)


def test_a_store_that_does_not_lead_is_watched_as_well() -> None:
    bench = Bench()
    sent = bench.watch("node")
    cell = bench.store.resolve()
    assert cell is not None
    cell.instance.leading = False
    with pytest.raises(Refused):
        bench.simulator.ask(bench.store, Write(lambda tx: tx.create(objects.Node(id="n9"))))
    entry = encode_request(40, [Change(Action.CREATE, objects.Node, None, objects.Node(id="n1"))])
    bench.store.tell(Entries(((30, 40, entry),)))
    bench.simulator.settle()
    (_, told) = sent.take()
    assert (told.events[0].object.node.id, told.version.index) == ("n1", 30)


def test_when_the_manager_ends_every_stream_hears_of_it() -> None:
    bench = Bench()
    streams = [bench.watch("node"), bench.watch("task")]
    cell = bench.actor.resolve()
    assert cell is not None
    cell.request_stop()
    bench.simulator.settle()
    assert [(each.refused.code, each.refused.text) for each in streams] == [(Code.UNAVAILABLE, ENDED)] * 2


def test_a_stream_that_fails_ends_alone_and_its_caller_hears_so() -> None:
    bench = Bench()
    first, second = bench.watch("node"), bench.watch("node")
    cell = bench.actor.resolve()
    assert cell is not None
    broken = cell.children["stream-1"]
    broken.control(lambda: broken.failed(RuntimeError("injected"), None))
    bench.simulator.settle()
    assert first.refused.code is Code.UNAVAILABLE
    bench.create(objects.Node(id="n1"))
    assert seen(second) == [[], [(1, "n1")]]
    assert (bench.streams, bench.watchers) == (1, 1)
