"""What a host program hears and asks in its own process: events, crashes, introspection, metrics."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from runtime.introspection import client
from runtime.protocol.cluster import SwarmEvent
from runtime.stage import Actor, handles
from runtime.wire.pb import control_pb2
from swarmlet import AsyncNode, Node, StartError, UsageError, cli
from swarmlet.unix_http import UnixConnection
from tests.integration.face.worlds import Machine, node, service
from tests.waiting import until

log = logging.getLogger("swarmlet.tests")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node(tmp_path_factory.mktemp("n"), metrics=("127.0.0.1", 0)) as made:
        made.init()
        yield made


class Fails(Actor):
    @handles(str)
    def fail_over(self, message: str) -> None:
        raise RuntimeError(f"over {message}, with SWMTKN-1-secret")


class Says(Actor):
    @handles(str)
    def say(self, message: str) -> None:
        self.moment(log, "door", "open", f"it opens: SWMTKN-1-secret {message}", id="7", by="me")


# Events


def test_a_host_hears_of_the_swarms_objects_and_of_failed_actors(running: Node) -> None:
    heard: list[SwarmEvent] = []
    subscription = running.subscribe(heard.append)
    numbers = itertools.count()

    def heard_of_a_service() -> bool:
        running.control("CreateService", service(f"heard{next(numbers)}", 0), control_pb2.CreateServiceResponse)
        return any(each.type == "service" for each in heard)

    until(heard_of_a_service, "the subscription has begun, a moment later")
    running.mount("fails", Fails).tell("this")
    crash = until(lambda: next((each for each in heard if each.action == "crash"), None))
    assert (crash.type, crash.id, crash.attributes["message"]) == ("actor", "/fails", "str")
    assert crash.attributes["error"] == "RuntimeError: over this, with (hidden)"
    running.mount("says", Says).tell("joins")
    said = until(lambda: next((each for each in heard if each.type == "door"), None))
    assert (said.action, said.id, said.scope) == ("open", "7", "local")
    assert said.attributes == {"text": "it opens: (hidden) joins", "by": "me"}
    subscription.close()
    subscription.close()
    count = len(heard)
    running.stage.at("/fails").tell("again")
    until(lambda: running.stage.cells["/fails"].failures.total == 2)
    assert len(heard) == count
    assert running.stage.crash_listeners == running.stage.moment_listeners == []


def test_a_slow_host_holds_nobody_up_and_is_told_what_it_missed(running: Node) -> None:
    heard: list[SwarmEvent] = []
    begun, go_on = threading.Event(), threading.Event()

    def slow(event: SwarmEvent) -> None:
        heard.append(event)
        begun.set()
        go_on.wait(90)

    subscription = running.subscribe(slow, capacity=3)
    event = SwarmEvent("service", "update", "x", {}, 0, {})
    subscription.events((event,))
    assert begun.wait(60)
    subscription.events((event,) * 8)
    assert subscription.dropped == 5
    go_on.set()
    until(lambda: len(heard) == 5)
    assert (heard[1].type, heard[1].action) == ("daemon", "gap")
    assert "5 events were dropped" in heard[1].attributes["reason"]
    subscription.close()


def test_a_callback_that_raises_is_told_the_next_event_all_the_same(
    running: Node, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    def raises(event: SwarmEvent) -> None:
        heard.append(event.id)
        raise ValueError("by the host")

    subscription = running.subscribe(raises)
    subscription.events(tuple(SwarmEvent("service", "update", name, {}, 0, {}) for name in "ab"))
    until(lambda: heard == ["a", "b"])
    subscription.close()
    assert "the callback for events failed over service update" in caplog.text


def test_a_callback_may_end_its_own_subscription(running: Node) -> None:
    heard: list[SwarmEvent] = []
    held: list[Any] = []

    def once(event: SwarmEvent) -> None:
        heard.append(event)
        held[0].close()

    held.append(running.subscribe(once))
    held[0].events((SwarmEvent("service", "update", "x", {}, 0, {}),) * 2)
    until(lambda: heard)
    held[0]._thread.join(60)
    assert not held[0]._thread.is_alive()
    assert len(heard) == 1


def test_a_node_that_publishes_anew_is_listened_to_again(running: Node) -> None:
    heard: list[SwarmEvent] = []
    subscription = running.subscribe(heard.append)
    cell = running.stage.cells["/cluster/events"]
    until(lambda: cell.instance is not None and cell.instance.snapshot()["subscribers"] == 1)
    before = cell.failures.total
    cell.control(lambda: cell.failed(RuntimeError("as a test wants"), None))
    until(lambda: cell.failures.total > before)
    until(lambda: cell.instance is not None and cell.instance.snapshot()["subscribers"] == 1)
    subscription.close()


def test_a_node_may_be_given_its_ear_at_once_and_it_ends_with_the_node(tmp_path: Path) -> None:
    heard: list[SwarmEvent] = []
    before = {thread.name for thread in threading.enumerate()}
    with node(tmp_path, "one", on_event=heard.append) as made:
        made.mount("fails", Fails).tell("this")
        until(lambda: any(each.action == "crash" for each in heard))
        with pytest.raises(UsageError, match="at least one event"):
            made.subscribe(heard.append, capacity=0)
    until(lambda: not {each.name for each in threading.enumerate()} - before)


# Asking


@pytest.mark.parametrize("what", ["node", "tree", "messages", "crashes", "raft", "waiting", "waits", "beliefs"])
def test_the_process_itself_is_answered_as_the_socket_is(running: Node, what: str) -> None:
    inside, outside = running.introspect(what), client.ask(running.introspection_socket, what)
    assert type(inside) is type(outside)
    if isinstance(inside, dict):
        assert inside.keys() == outside.keys()


def test_refusals_are_the_same_too(running: Node) -> None:
    for what, details in (("actor", {"path": "/nobody"}), ("nonsense", {}), ("trace", {})):
        with pytest.raises(ValueError, match=r"nobody lives|nothing is known|needs a connection"):
            running.introspect(what, **details)


def test_an_asyncio_host_asks_on_its_own_loop(tmp_path: Path) -> None:
    async def host() -> None:
        (tmp_path / "n").mkdir(mode=0o700)
        async with AsyncNode(
            tmp_path / "n" / "state", run_dir=tmp_path / "n" / "run", executor=Machine().factory
        ) as made:
            assert "/cluster" in {each["path"] for each in (await made.introspect("tree"))["actors"]}
            with pytest.raises(ValueError, match="nobody lives"):
                await made.introspect("actor", path="/nobody")

    asyncio.run(host())


# Metrics


def scrape(address: tuple[str, int] | str, path: str = "/metrics", method: str = "GET") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(*address) if not isinstance(address, str) else UnixConnection(address)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type") or "", response.read().decode()
    finally:
        connection.close()


def test_metrics_are_at_their_address_and_at_the_apis_socket(running: Node) -> None:
    assert running.metrics_address is not None
    running.control("CreateService", service("measured", 1), control_pb2.CreateServiceResponse)
    for address in (running.metrics_address, running.api_socket):
        status, kind, text = scrape(address)
        assert status == 200
        assert kind.startswith("text/plain; version=0.0.4")
        for name in (
            "swarm_node_manager 1.0", "swarm_manager_leader 1.0", "swarm_manager_services_total",
            'swarm_manager_tasks_total{state="running"}', 'swarm_manager_nodes{state="ready"}',
            "swarm_store_write_tx_latency_seconds_bucket", "swarm_raft_transaction_latency_seconds_count",
            'swarmlet_service_tasks_desired{service_id=', "swarmlet_raft_applied_index",
            'swarmlet_actor_mailbox_messages{actor="StoreActor"}', "swarmlet_actor_restarts_total",
        ):  # fmt: skip
            assert name in text


def test_nothing_else_is_at_the_metrics_address(running: Node) -> None:
    assert running.metrics_address is not None
    for path, method in (("/", "GET"), ("/info", "GET"), ("/swarm", "GET"), ("/metrics", "POST")):
        assert scrape(running.metrics_address, path, method)[0] == 404
    assert scrape(running.api_socket, "/metrics", "POST")[0] == 404


def test_an_address_that_is_taken_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        made = node(tmp_path, "one", metrics=("127.0.0.1", port))
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}"):
            made.start()
        assert not made.running


def test_a_daemon_refuses_an_address_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("9323", "host", "1.2.3.4:99999", ":x"):
        assert cli.main(["daemon", "--metrics-addr", wrong]) == 2
        assert "invalid metrics-addr" in capsys.readouterr().err
