"""Events: what a change says, what it never says, who wants it, how far back one can look, and the stream of them."""

from __future__ import annotations

import asyncio
import json
import pathlib
import time
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine_api import events
from runtime.engine_api.convert.node import AVAILABILITIES, ROLES
from runtime.engine_api.event_stream import EventStream
from runtime.engine_api.events import HISTORY, NANOS, EventHistory, event_of, event_to_json, gap, wanted
from runtime.engine_api.questions import Landing
from runtime.protocol.cluster import SwarmEvent
from runtime.store.changes import Action, Change
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.engine_api.fake import FakeBackend, a_node
from tests.unit.engine_api.support import over_http

NOW = 1_900_000_000 * NANOS


def a_service(**annotations: Any) -> objects.Service:
    service = objects.Service(id="s1")
    service.spec.annotations.name = "web"
    service.spec.annotations.labels.update(annotations)
    service.spec.task.container.image = "busybox"
    service.spec.replicated.replicas = 2
    service.meta.created_at.FromNanoseconds(1_800_000_000_123_456_789)
    service.meta.updated_at.FromNanoseconds(1_800_000_001_000_000_001)
    return service


def changed(old: Any, edit: Any) -> Change:
    new = type(old)()
    new.CopyFrom(old)
    edit(new)
    return Change(Action.UPDATE, type(old), old, new)


def attributes(change: Change) -> dict[str, str]:
    return dict(event_of(change, NOW).attributes)


def an_event(number: int = 1, kind: str = "service", **more: Any) -> SwarmEvent:
    return SwarmEvent(kind, "create", f"id{number}", {"name": f"n{number}"}, number * NANOS, more.pop("labels", {}))


def test_a_creation_bears_the_time_of_the_object_and_its_name() -> None:
    event = event_of(Change(Action.CREATE, objects.Service, None, a_service()), NOW)
    assert event_to_json(event) == {
        "Type": "service",
        "Action": "create",
        "Actor": {"ID": "s1", "Attributes": {"name": "web"}},
        "scope": "swarm",
        "time": 1_800_000_000,
        "timeNano": 1_800_000_000_123_456_789,
    }


def test_an_update_bears_its_own_time_and_a_removal_happens_now() -> None:
    updated = event_of(changed(a_service(), lambda new: None), NOW)
    removed = event_of(Change(Action.REMOVE, objects.Service, a_service(), None), NOW)
    assert (updated.action, updated.time_ns) == ("update", 1_800_000_001_000_000_001)
    assert (removed.action, removed.time_ns) == ("remove", NOW)


def test_a_service_tells_of_image_replicas_and_update() -> None:
    def edit(new: objects.Service) -> None:
        new.spec.task.container.image = "busybox:2"
        new.spec.replicated.replicas = 3
        new.update_status.state = types.UpdateStatus.UPDATING

    first = changed(a_service(), edit)
    assert attributes(first) == {
        "name": "web",
        "image.old": "busybox",
        "image.new": "busybox:2",
        "replicas.old": "2",
        "replicas.new": "3",
        "updatestate.new": "updating",
    }
    second = changed(first.new, lambda new: setattr(new.update_status, "state", types.UpdateStatus.COMPLETED))
    assert attributes(second) == {"name": "web", "updatestate.old": "updating", "updatestate.new": "completed"}


def test_a_node_tells_of_what_changed_and_is_called_by_its_host() -> None:
    def edit(new: objects.Node) -> None:
        new.spec.availability = AVAILABILITIES["drain"]
        new.role = ROLES["manager"]
        new.status.state = types.NodeStatus.DOWN
        new.manager_status.leader = False
        new.manager_status.reachability = types.RaftMemberStatus.UNREACHABLE

    assert attributes(changed(a_node(), edit)) == {
        "name": "vm",
        "availability.old": "active",
        "availability.new": "drain",
        "role.old": "worker",
        "role.new": "manager",
        "state.old": "ready",
        "state.new": "down",
        "leader.old": "true",
        "leader.new": "false",
        "reachability.old": "reachable",
        "reachability.new": "unreachable",
    }


def test_a_node_that_is_no_manager_any_more_says_nothing_of_leadership() -> None:
    assert attributes(changed(a_node(), lambda new: new.ClearField("manager_status"))) == {"name": "vm"}


def test_nothing_of_a_secret_but_its_name_is_told() -> None:
    secret = objects.Secret(id="x1")
    secret.spec.annotations.name = "key"
    secret.spec.data = b"hunter2 hunter2"
    change = changed(secret, lambda new: new.spec.annotations.labels.update(a="b"))
    assert "hunter2" not in json.dumps(event_to_json(event_of(change, NOW)))
    assert "hunter2" not in repr(event_of(change, NOW))
    assert attributes(change) == {"name": "key"}


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ({}, True),
        ({"type": ["service"]}, True),
        ({"type": ["node", "service"]}, True),
        ({"type": ["node"]}, False),
        ({"scope": ["swarm"]}, True),
        ({"scope": ["local"]}, False),
        ({"event": ["create"]}, True),
        ({"event": ["remove"]}, False),
        ({"service": ["id1"]}, True),
        ({"service": ["n1"]}, True),
        ({"service": ["n"]}, True),
        ({"service": ["i"]}, True),
        ({"service": ["id12", "n11"]}, False),
        ({"service": ["d1"]}, False),
        ({"node": ["n1"]}, False),
        ({"label": ["a"]}, True),
        ({"label": ["a=b"]}, True),
        ({"label": ["a=c"]}, False),
        ({"label": ["a=b", "c"]}, False),
        ({"service": ["n1"], "event": ["create"]}, True),
        ({"service": ["n1"], "event": ["update"]}, False),
    ],
)
def test_filters_let_pass_what_matches_all_keys(filters: dict[str, list[str]], passes: bool) -> None:
    assert wanted(an_event(labels={"a": "b"}), filters) is passes


@given(st.dictionaries(st.sampled_from(events.FILTERS), st.lists(st.text(max_size=3), max_size=2)))
def test_a_gap_passes_every_filter(filters: dict[str, list[str]]) -> None:
    assert wanted(gap("n", "lost", 1), filters)


def test_history_keeps_the_newest_and_says_when_older_ones_are_gone() -> None:
    history = EventHistory(0, "begins here")
    for number in range(1, HISTORY + 11):
        history.add(an_event(number))
    assert len(history) == HISTORY
    whole = history.since(11 * NANOS, "n")
    assert [event.id for event in whole] == [f"id{number}" for number in range(11, HISTORY + 11)]
    lost, *kept = history.since(5 * NANOS, "n")
    assert lost.is_gap
    assert lost.attributes == {"reason": "only the last 256 events are kept"}
    assert [event.id for event in kept] == [event.id for event in whole]


def test_history_says_when_it_does_not_reach_back_to_the_time_asked_for() -> None:
    history = EventHistory(100 * NANOS, "begins here")
    history.add(an_event(150))
    assert [event.is_gap for event in history.since(99 * NANOS, "n")] == [True, False]
    assert [event.is_gap for event in history.since(100 * NANOS, "n")] == [False]
    assert history.since(200 * NANOS, "n") == []


def test_a_slow_reader_is_told_of_the_gap_and_its_stream_ends() -> None:
    async def run() -> list[SwarmEvent]:
        stream = EventStream(Landing(asyncio.get_running_loop()), waiting_max=2)
        for number in (1, 2, 3, 4):
            stream.events((an_event(number),))
        await asyncio.sleep(0)
        return [event async for event in stream.read()]

    one, two, lost = asyncio.run(run())
    assert [one.id, two.id] == ["id1", "id2"]
    assert lost.is_gap
    assert "slow reader" in lost.attributes["reason"]


def test_what_came_before_the_end_is_still_read() -> None:
    async def run() -> list[str]:
        stream = EventStream(Landing(asyncio.get_running_loop()))
        stream.events((an_event(1), an_event(2)))
        stream.end()
        stream.events((an_event(3),))
        await asyncio.sleep(0)
        return [event.id async for event in stream.read()]

    assert asyncio.run(run()) == ["id1", "id2"]


def read(tmp_path: pathlib.Path, backend: FakeBackend, query: str) -> tuple[int, Any]:
    found: list[Any] = []

    async def talk(client: aiohttp.ClientSession) -> None:
        async with client.get(f"/events{query}") as answer:
            text = await answer.text()
            lines = [json.loads(line) for line in text.splitlines()]
            found.extend((answer.status, lines, answer.headers["Content-Type"]))

    over_http(tmp_path, backend, talk)
    assert found[2] == "application/json"
    return found[0], found[1]


def test_the_stream_is_one_object_a_line_and_filters_in_both_forms_count(tmp_path: pathlib.Path) -> None:
    backend = FakeBackend()
    backend.told = [an_event(1), an_event(2, "node"), an_event(3)]
    assert [line["Actor"]["ID"] for line in read(tmp_path, backend, "")[1]] == ["id1", "id2", "id3"]
    for filters in ('{"type":{"service":true}}', '{"type":["service"]}'):
        assert [line["Actor"]["ID"] for line in read(tmp_path, backend, f"?filters={filters}")[1]] == ["id1", "id3"]
    assert backend.did[0] == ("events", None, None)


def test_since_is_asked_for_and_until_ends_the_stream(tmp_path: pathlib.Path) -> None:
    backend = FakeBackend()
    backend.told = [an_event(2), an_event(4)]
    backend.events_go_on = True
    assert [line["Actor"]["ID"] for line in read(tmp_path, backend, "?since=1.5&until=3")[1]] == ["id2"]
    assert backend.did == [("events", 1_500_000_000, 3 * NANOS)]
    assert backend.events_closed.is_set()


def test_until_ends_a_silent_stream_when_its_time_has_come() -> None:
    async def run(until_ns: int) -> list[str]:
        stream = EventStream(Landing(asyncio.get_running_loop()))
        stream.events((an_event(1), an_event(2)))
        await asyncio.sleep(0)
        return [event.id async for event in stream.read(until_ns)]

    assert asyncio.run(run(0)) == ["id1", "id2"]
    until = time.time_ns() + NANOS // 20
    assert asyncio.run(run(until)) == ["id1", "id2"]
    assert time.time_ns() >= until


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("?since=10&until=5", "`since` time (10) cannot be after `until` time (5)"),
        ("?since=x", "invalid value for \"since\": 'x' is no unix time"),
        ("?until=1.x", "invalid value for \"until\": '1.x' is no unix time"),
        ('?filters={"foo":["x"]}', "Invalid filter 'foo'"),
    ],
)
def test_nonsense_is_refused_before_the_stream_begins(tmp_path: pathlib.Path, query: str, text: str) -> None:
    assert read(tmp_path, FakeBackend(), query) == (400, [{"message": text}])


def test_a_client_that_hangs_up_ends_its_subscription(tmp_path: pathlib.Path) -> None:
    backend = FakeBackend()
    backend.told = [an_event(1)]
    backend.events_go_on = True

    async def talk(client: aiohttp.ClientSession) -> None:
        async with client.get("/events") as answer:
            assert await answer.content.readline()
        await asyncio.wait_for(backend.events_closed.wait(), 10)

    over_http(tmp_path, backend, talk)
