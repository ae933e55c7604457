"""LogBrokerActor over a real store: subscribers, nodes that listen, uploads, and every way that one of them ends."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from actors.log_broker_actor import SILENCE, LogBrokerActor
from runtime.errors import Code, Refused
from runtime.swarm.log_selection import INCOMPLETE
from runtime.wire.inbound import InboundCall
from runtime.wire.memory import MemoryNetwork
from runtime.wire.pb import logs_pb2 as logs
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from runtime.wire.port import Access, Identity, StreamLimits
from runtime.wire.services import METHODS, path, routes
from runtime.wire.to_actor import to_actor
from tests.messages.test_dispatcher_actor import LeaderBench, Sent, refusal, task
from tests.unit.wire.authority import CLUSTER, authority


class Upload:
    """A node's side of PublishLogs."""

    def __init__(self, bench: Bench, node_id: str) -> None:
        method = METHODS[path("LogBroker", "PublishLogs")]
        self.bench = bench
        self.call = InboundCall(method, None, Identity(node_id), {}, StreamLimits(), lambda: None)
        to_actor(bench.actor)(self.call)
        bench.simulator.settle()
        self.sent = Sent(self.call, method.response)

    def say(self, subscription_id: str, *lines: str, node: str = "", close: bool = False) -> None:
        message = logs.PublishLogsMessage(subscription_id=subscription_id, close=close)
        for line in lines:
            each = message.messages.add(data=line.encode(), stream=logs.LOG_STREAM_STDOUT)
            each.context.node_id = node or self.call.identity.node_id
        assert self.call.receiver is not None
        self.call.receiver.item(message)
        self.bench.simulator.settle()

    def end(self, refused: Refused | None = None) -> None:
        assert self.call.receiver is not None
        self.call.receiver.end(refused)
        self.bench.simulator.settle()

    @property
    def answered(self) -> bool:
        return self.sent.take() == [logs.PublishLogsResponse()]


class Bench(LeaderBench):
    """A log broker, its clients and its nodes."""

    def __init__(self, *stored: Any, seed: int = 3) -> None:
        super().__init__(LogBrokerActor, *(stored or (objects.Node(id="n0"),)), seed=seed)

    def subscribe(self, follow: bool = False, limits: Any = None, **selector: list[str]) -> Sent:
        request = logs.SubscribeLogsRequest(selector=logs.LogSelector(**selector))
        request.options.follow = follow
        return self.call("Logs", "SubscribeLogs", request, "manager-1", limits)

    def listen(self, node_id: str) -> Sent:
        return self.call("LogBroker", "ListenSubscriptions", logs.ListenSubscriptionsRequest(), node_id)

    def upload(self, node_id: str) -> Upload:
        return Upload(self, node_id)

    def leave(self, sent: Sent) -> None:
        sent.call.cancelled()
        self.simulator.settle()


def lines(sent: Sent) -> list[str]:
    return [each.data.decode() for message in sent.take() for each in message.messages]


def ended_well(sent: Sent) -> bool:
    ending = sent.look().ending
    return ending is not None and ending.refused is None


def incomplete(*reasons: str) -> tuple[Code, str]:
    return Code.UNKNOWN, INCOMPLETE + ", ".join(reasons)


def running(id: str, node_id: str) -> objects.Task:
    return task(id, node_id, types.RUNNING)


# Without following


def test_logs_of_all_nodes_come_and_the_end_when_each_has_closed() -> None:
    bench = Bench(running("a", "w1"), running("b", "w2"))
    nodes = {each: bench.listen(each) for each in ("w1", "w2", "w3")}
    client = bench.subscribe(service_ids=["web"])
    (asked,) = nodes["w1"].take()
    assert nodes["w2"].take() == [asked]
    assert nodes["w3"].take() == []
    assert len(asked.id) == 25
    assert list(asked.selector.service_ids) == ["web"]
    one, two = bench.upload("w1"), bench.upload("w2")
    one.say(asked.id, "1", "2")
    two.say(asked.id, "3")
    assert lines(client) == ["1", "2", "3"]
    one.say(asked.id, close=True)
    assert one.answered
    assert client.open
    two.say(asked.id, "4", close=True)
    assert lines(client) == ["4"]
    assert ended_well(client)
    for node_id in ("w1", "w2"):
        (close,) = nodes[node_id].take()
        assert (close.id, close.close) == (asked.id, True)
    assert nodes["w3"].take() == []
    assert bench.instance.snapshot() == {"subscriptions": 0, "listening nodes": 3, "uploads": 0}


def test_a_task_that_wrote_before_its_status_came_here_is_read_with_the_others() -> None:
    nodes = [objects.Node(id="n1"), objects.Node(id="n2")]
    for node in nodes:
        node.description.engine.labels["swarmlet.executor"] = "process"
    late = running("b", "n2")
    late.status.state = types.ASSIGNED
    bench = Bench(*nodes, running("a", "n1"), late)
    heard = {node.id: bench.listen(node.id) for node in nodes}
    client = bench.subscribe(service_ids=["web"])
    for node_id, sent in heard.items():
        (asked,) = sent.take()
        bench.upload(node_id).say(asked.id, f"line of {node_id}", close=True)
    assert lines(client) == ["line of n1", "line of n2"]
    assert ended_well(client)


def test_an_upload_that_ends_without_close_counts_as_closed() -> None:
    bench = Bench(running("a", "w1"))
    listener = bench.listen("w1")
    client = bench.subscribe(task_ids=["a"])
    upload = bench.upload("w1")
    upload.say(listener.take()[0].id, "1")
    upload.end()
    assert upload.answered
    assert lines(client) == ["1"]
    assert ended_well(client)


def test_an_empty_selector_is_refused() -> None:
    assert refusal(Bench().subscribe()) == (Code.INVALID_ARGUMENT, "log selector must be provided")


def test_nothing_that_matches_ends_at_once() -> None:
    assert ended_well(Bench().subscribe(service_ids=["web"]))


def test_nodes_that_do_not_listen_are_named_at_the_end() -> None:
    bench = Bench(running("a", "w1"), running("b", "w2"))
    listener = bench.listen("w2")
    client = bench.subscribe(service_ids=["web"])
    assert client.open
    bench.upload("w2").say(listener.take()[0].id, close=True)
    assert refusal(client) == incomplete("node w1 is not available")


def test_a_node_named_itself_is_awaited() -> None:
    bench = Bench()
    listener = bench.listen("w1")
    client = bench.subscribe(node_ids=["w1"])
    assert client.open
    bench.upload("w1").say(listener.take()[0].id, close=True)
    assert ended_well(client)
    assert refusal(bench.subscribe(node_ids=["w9"])) == incomplete("node w9 is not available")


def test_a_task_without_a_node_is_named_at_the_end() -> None:
    bench = Bench(task("p", "", types.PENDING))
    assert refusal(bench.subscribe(task_ids=["p"])) == incomplete("task p has not been scheduled")


def test_a_node_that_goes_away_is_named_at_the_end() -> None:
    bench = Bench(running("a", "w1"))
    listener = bench.listen("w1")
    client = bench.subscribe(service_ids=["web"])
    bench.leave(listener)
    assert refusal(client) == incomplete("node w1 disconnected unexpectedly")


def test_an_upload_that_breaks_is_named_at_the_end() -> None:
    bench = Bench(running("a", "w1"))
    listener = bench.listen("w1")
    client = bench.subscribe(service_ids=["web"])
    upload = bench.upload("w1")
    upload.say(listener.take()[0].id, "1")
    upload.end(Refused(Code.CANCELLED, "the call was cancelled"))
    assert lines(client) == ["1"]
    assert refusal(client) == incomplete("rpc error: code = Cancelled desc = the call was cancelled")


# Following


def test_one_that_follows_goes_on_and_takes_up_nodes_as_tasks_come_to_them() -> None:
    bench = Bench(running("a", "w1"), task("p", "", types.PENDING))
    one, two, three = (bench.listen(each) for each in ("w1", "w2", "w3"))
    client = bench.subscribe(follow=True, service_ids=["web"])
    (asked,) = one.take()
    bench.upload("w1").say(asked.id, close=True)
    bench.change(objects.Task, "p", lambda t: setattr(t, "node_id", "w2"))
    assert two.take() == [asked]
    bench.change(objects.Task, "p", lambda t: setattr(t.status, "state", types.RUNNING))
    assert two.take() == []
    bench.create(running("c", "w3"))
    assert three.take() == [asked]
    other = running("x", "w3")
    other.service_id = "another"
    bench.create(other)
    assert three.take() == []
    bench.upload("w2").say(asked.id, "hello")
    assert lines(client) == ["hello"]
    bench.simulator.run_for(3600)
    assert client.open
    bench.leave(client)
    for listener in (one, two, three):
        assert [message.close for message in listener.take()] == [True]
    assert bench.instance._following == {}


def test_one_that_follows_outlives_its_nodes_and_asks_them_when_they_are_back() -> None:
    bench = Bench(running("a", "w1"))
    client = bench.subscribe(follow=True, task_ids=["a"])
    listener = bench.listen("w1")
    (asked,) = listener.take()
    bench.leave(listener)
    assert client.open
    assert bench.listen("w1").take() == [asked]


def test_a_task_that_is_followed_by_name_brings_its_node() -> None:
    bench = Bench(task("p", "", types.PENDING))
    listener = bench.listen("w1")
    client = bench.subscribe(follow=True, task_ids=["p"], service_ids=["web"])
    bench.change(objects.Task, "p", lambda t: setattr(t, "node_id", "w1"))
    assert len(listener.take()) == 1
    assert client.open


# Nodes that listen


def test_a_node_that_comes_later_is_told_of_what_is_wanted_and_only_that() -> None:
    bench = Bench(running("a", "w1"), running("b", "w2"))
    bench.subscribe(follow=True, task_ids=["a"])
    bench.subscribe(follow=True, service_ids=["web"])
    assert len(bench.listen("w1").take()) == 2
    assert len(bench.listen("w2").take()) == 1
    assert bench.listen("w3").take() == []


def test_the_newest_stream_of_a_node_counts() -> None:
    bench = Bench(running("a", "w1"))
    first = bench.listen("w1")
    client = bench.subscribe(service_ids=["web"])
    (asked,) = first.take()
    second = bench.listen("w1")
    assert first.refused.code is Code.ABORTED
    assert second.take() == [asked]
    bench.leave(first)
    assert client.open
    bench.upload("w1").say(asked.id, close=True)
    assert ended_well(client)


def test_the_end_of_a_stream_that_was_replaced_does_not_end_the_new_one() -> None:
    bench = Bench(running("a", "w1"))
    first = bench.listen("w1")
    client = bench.subscribe(service_ids=["web"])
    with bench.suspended():
        second = bench.listen("w1")
        first.call.cancelled()
    assert len(second.take()) == 1
    assert client.open
    assert set(bench.instance.listeners) == {"w1"}


def test_a_node_that_reads_too_slowly_is_gone_and_others_are_not() -> None:
    bench = Bench(running("a", "w1"), running("b", "w2"))
    method = METHODS[path("LogBroker", "ListenSubscriptions")]
    call = InboundCall(
        method, logs.ListenSubscriptionsRequest(), Identity("w1"), {}, StreamLimits(items_max=1), lambda: None
    )
    to_actor(bench.actor)(call)
    other = bench.listen("w2")
    bench.subscribe(follow=True, service_ids=["web"])
    client = bench.subscribe(service_ids=["web"])
    assert len(other.take()) == 2
    assert set(bench.instance.listeners) == {"w2"}
    assert client.open
    bench.upload("w2").say(next(id for id in bench.instance.subscriptions if id != ""), "x")
    assert Sent(call, method.response).refused.code is Code.RESOURCE_EXHAUSTED


# Uploads


@pytest.fixture
def asked() -> tuple[Bench, Sent, str]:
    """A subscription to w1, with its id."""
    bench = Bench(running("a", "w1"), running("b", "w2"))
    listener = bench.listen("w1")
    client = bench.subscribe(follow=True, task_ids=["a"])
    return bench, client, listener.take()[0].id


def test_an_upload_names_its_subscription(asked: tuple[Bench, Sent, str]) -> None:
    bench, client, _ = asked
    upload = bench.upload("w1")
    upload.say("", "x")
    assert refusal(upload.sent) == (Code.INVALID_ARGUMENT, "missing subscription ID")
    assert lines(client) == []


def test_an_upload_for_an_unknown_subscription_is_refused(asked: tuple[Bench, Sent, str]) -> None:
    bench, _, _ = asked
    upload = bench.upload("w1")
    upload.say("unknown", "x")
    assert refusal(upload.sent) == (Code.NOT_FOUND, "unknown subscription ID")


def test_a_node_that_was_not_asked_has_no_say(asked: tuple[Bench, Sent, str]) -> None:
    bench, client, id = asked
    upload = bench.upload("w2")
    upload.say(id, "x")
    assert refusal(upload.sent) == (Code.NOT_FOUND, "unknown subscription ID")
    assert lines(client) == []


def test_an_upload_stays_with_its_subscription(asked: tuple[Bench, Sent, str]) -> None:
    bench, client, id = asked
    upload = bench.upload("w1")
    upload.say(id, "1")
    upload.say("another", "2")
    upload.say(id, "3")
    assert refusal(upload.sent) == (Code.INVALID_ARGUMENT, "different subscription IDs in the same session")
    assert lines(client) == ["1"]


def test_a_node_speaks_for_itself_alone(asked: tuple[Bench, Sent, str]) -> None:
    bench, client, id = asked
    upload = bench.upload("w1")
    upload.say(id, "x", node="w2")
    assert refusal(upload.sent) == (Code.PERMISSION_DENIED, "invalid NodeID: expected=w1;received=w2")
    assert lines(client) == []


def test_logs_for_a_client_that_left_are_refused(asked: tuple[Bench, Sent, str]) -> None:
    bench, client, id = asked
    upload = bench.upload("w1")
    upload.say(id, "1")
    bench.leave(client)
    upload.say(id, "2")
    assert refusal(upload.sent) == (Code.NOT_FOUND, "unknown subscription ID")
    assert bench.instance.uploads == {}


def test_a_client_that_reads_too_slowly_ends_its_own_subscription() -> None:
    bench = Bench(running("a", "w1"))
    listener = bench.listen("w1")
    slow = bench.subscribe(follow=True, limits=StreamLimits(items_max=2), service_ids=["web"])
    quick = bench.subscribe(follow=True, service_ids=["web"])
    ids = [message.id for message in listener.take()]
    for id in ids:
        upload = bench.upload("w1")
        for number in range(4):
            upload.say(id, str(number))
    assert slow.refused.code is Code.RESOURCE_EXHAUSTED
    assert lines(quick) == ["0", "1", "2", "3"]
    assert [(message.id, message.close) for message in listener.take()] == [(ids[0], True)]


# Ends


def stop(bench: Bench) -> None:
    cell = bench.actor.resolve()
    assert cell is not None
    cell.request_stop()
    bench.simulator.settle()


@pytest.mark.parametrize("end", [stop, Bench.fail])
def test_a_life_that_ends_ends_what_it_held(end: Any) -> None:
    bench = Bench(running("a", "w1"))
    listener = bench.listen("w1")
    client = bench.subscribe(follow=True, service_ids=["web"])
    upload = bench.upload("w1")
    upload.say(listener.take()[0].id, "1")
    end(bench)
    for sent in (listener, client, upload.sent):
        assert refusal(sent) == (Code.ABORTED, "broker is not running")


def test_the_next_life_begins_with_nothing() -> None:
    bench = Bench(running("a", "w1"))
    bench.listen("w1")
    bench.subscribe(follow=True, service_ids=["web"])
    bench.fail()
    bench.simulator.run_for(1)
    assert bench.instance.snapshot() == {"subscriptions": 0, "listening nodes": 0, "uploads": 0}
    assert bench.listen("w1").take() == []


# Over a network


def test_over_a_network_with_certificates() -> None:
    bench = Bench(running("a", "w1"))
    simulator = bench.simulator
    begun = time.time()  # the certificates are of today

    def schedule(delay: float, call: Any) -> None:
        simulator.set(delay, call)

    network = MemoryNetwork(schedule, random.Random(2), clock=lambda: begun + simulator.time, jitter=0.002)
    served = (("Logs", "SubscribeLogs"), ("LogBroker", "ListenSubscriptions"), ("LogBroker", "PublishLogs"))
    table = routes({path(*each): to_actor(bench.actor) for each in served})
    credentials = authority().manager()
    network.transport("manager").serve("manager:2377", table, access=lambda: Access(CLUSTER), credentials=credentials)
    client = network.transport("client").connect("manager:2377", authority().manager("client"))
    worker = network.transport("worker").connect("manager:2377", authority().worker(node_id="w1"))
    told: list[Any] = []
    read: list[Any] = []
    ends: list[Any] = []
    refused: list[Any] = []
    worker.stream(
        path("LogBroker", "ListenSubscriptions"),
        logs.ListenSubscriptionsRequest(),
        on_item=told.append,
        on_end=refused.append,
    )
    simulator.run_for(0.5)
    request = logs.SubscribeLogsRequest(selector=logs.LogSelector(service_ids=["web"]))
    worker.stream(path("Logs", "SubscribeLogs"), request, on_item=read.append, on_end=refused.append)
    client.stream(path("Logs", "SubscribeLogs"), request, on_item=read.append, on_end=ends.append)
    simulator.run_until(lambda: bool(told), 5)
    simulator.run_for(0.5)
    assert [each.code for each in refused] == [Code.PERMISSION_DENIED], "a worker may not read logs"
    answers: list[Any] = []
    upload = worker.upload(path("LogBroker", "PublishLogs"), done=answers.append)
    for number in range(100):
        message = logs.PublishLogsMessage(subscription_id=told[0].id)
        message.messages.add(data=b"%d" % number).context.node_id = "w1"
        upload.send(message)
    upload.send(logs.PublishLogsMessage(subscription_id=told[0].id, close=True))
    upload.finish()
    simulator.run_until(lambda: bool(ends), 5)
    assert [each.data for message in read for each in message.messages] == [b"%d" % number for number in range(100)]
    assert ends == [None]
    simulator.run_for(1)
    assert answers == [logs.PublishLogsResponse()]
    assert told[-1].close


# Nodes that hang


def test_a_node_that_says_nothing_is_named_at_the_end_and_nobody_waits_for_it_for_ever() -> None:
    bench = Bench(running("a", "w1"), running("b", "w2"))
    one, _ = bench.listen("w1"), bench.listen("w2")
    client = bench.subscribe(service_ids=["web"])
    (asked,) = one.take()
    upload = bench.upload("w1")
    upload.say(asked.id, "1", close=True)
    bench.run_for(SILENCE - 2)
    assert client.look().ending is None
    bench.run_for(4)
    assert lines(client) == ["1"]
    assert refusal(client) == incomplete("node w2 said nothing for 15 s")


def test_a_node_that_goes_on_speaking_is_waited_for() -> None:
    bench = Bench(running("a", "w1"))
    one = bench.listen("w1")
    client = bench.subscribe(service_ids=["web"])
    (asked,) = one.take()
    upload = bench.upload("w1")
    for number in range(4):
        bench.run_for(SILENCE - 5)
        upload.say(asked.id, str(number))
    upload.say(asked.id, close=True)
    assert lines(client) == ["0", "1", "2", "3"]
    assert ended_well(client)


def test_who_follows_is_not_ended_by_silence() -> None:
    bench = Bench(running("a", "w1"))
    bench.listen("w1")
    client = bench.subscribe(follow=True, service_ids=["web"])
    bench.run_for(10 * SILENCE)
    assert client.look().ending is None
    assert lines(client) == []


def test_who_follows_is_told_of_the_gap_for_each_task_of_a_node_that_is_gone_and_goes_on() -> None:
    bench = Bench(running("a", "w1"), running("b", "w1"), running("c", "w2"))
    one, two = bench.listen("w1"), bench.listen("w2")
    client = bench.subscribe(follow=True, service_ids=["web"])
    (asked,) = one.take()
    bench.leave(one)
    told = [message for batch in client.take() for message in batch.messages]
    assert {message.context.task_id for message in told} == {"a", "b"}
    assert {message.context.node_id for message in told} == {"w1"}
    assert {message.stream for message in told} == {logs.LOG_STREAM_STDERR}
    assert told[0].data == b"[logs are interrupted here: node w1 disconnected unexpectedly]\n"
    upload = bench.upload("w2")
    upload.say(asked.id, "still here")
    again = bench.listen("w1")
    assert again.take() == [asked]
    bench.upload("w1").say(asked.id, "back")
    assert lines(client) == ["still here", "back"]
    assert two.look().ending is None


def test_a_silent_node_holds_up_nobody_elses_subscription() -> None:
    bench = Bench(running("a", "w1"), task("b", "w2", types.RUNNING))
    bench.listen("w1")
    first = bench.subscribe(service_ids=["web"])
    bench.run_for(SILENCE / 2)
    second = bench.subscribe(service_ids=["web"])
    bench.run_for(SILENCE / 2 + 2)
    assert refusal(first)[0] is Code.UNKNOWN
    assert second.look().ending is None


# A node that hangs: its connections stand, and the swarm takes it for down


def fall(bench: Bench, node_id: str, state: Any = types.NodeStatus.DOWN) -> None:
    bench.change(objects.Node, node_id, lambda node: setattr(node.status, "state", state))


def with_nodes(*tasks: objects.Task) -> Bench:
    return Bench(objects.Node(id="w1"), objects.Node(id="w2"), *tasks)


DOWN = "[logs are interrupted here: node w1 is down]\n"


def test_who_follows_is_told_when_a_node_is_taken_for_down_and_hears_it_when_it_is_back() -> None:
    bench = with_nodes(running("a", "w1"), running("b", "w2"))
    nodes = {each: bench.listen(each) for each in ("w1", "w2")}
    client = bench.subscribe(follow=True, service_ids=["web"])
    (asked,) = nodes["w1"].take()
    one, two = bench.upload("w1"), bench.upload("w2")
    one.say(asked.id, "1")
    fall(bench, "w1")
    fall(bench, "w1")
    two.say(asked.id, "2")
    assert lines(client) == ["1", DOWN, "2"]
    fall(bench, "w1", types.NodeStatus.READY)
    one.say(asked.id, "3")
    assert lines(client) == ["3"]
    fall(bench, "w1")
    assert lines(client) == [DOWN]


def test_a_gap_is_not_told_again_when_the_stream_of_a_node_that_is_down_ends() -> None:
    bench = with_nodes(running("a", "w1"))
    listener = bench.listen("w1")
    client = bench.subscribe(follow=True, service_ids=["web"])
    fall(bench, "w1")
    bench.leave(listener)
    assert lines(client) == [DOWN]


def test_a_gap_is_told_of_tasks_that_have_not_ended() -> None:
    ended = task("old", "w1", types.SHUTDOWN)
    bench = with_nodes(ended, running("a", "w1"), running("b", "w1"))
    bench.listen("w1")
    client = bench.subscribe(follow=True, service_ids=["web"])
    fall(bench, "w1")
    told = [each.context.task_id for message in client.take() for each in message.messages]
    assert sorted(told) == ["a", "b"]


def test_who_begins_to_follow_while_a_node_is_down_is_told_at_once() -> None:
    bench = with_nodes(running("a", "w1"), running("b", "w2"))
    fall(bench, "w1")
    assert lines(bench.subscribe(follow=True, service_ids=["web"])) == [DOWN]
    bench.listen("w1")
    assert lines(bench.subscribe(follow=True, service_ids=["web"])) == [DOWN]


def test_who_reads_once_hears_nothing_of_it_before_the_end() -> None:
    bench = with_nodes(running("a", "w1"))
    bench.listen("w1")
    client = bench.subscribe(service_ids=["web"])
    fall(bench, "w1")
    assert lines(client) == []
    assert client.open
