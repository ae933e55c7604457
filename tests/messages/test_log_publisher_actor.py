"""LogPublisherActor: subscriptions, what is read for them, when they end, and that memory is bounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from actors.log_publisher_actor import BATCH_LINES, LogPublisherActor
from runtime.errors import Code, Refused
from runtime.executor.port import LogLine, Stream
from runtime.protocol.agent import AgentSetup, LogBrokerAt, LogsLife, ReadLogs, TaskAppeared, TaskGone
from runtime.stage import Address
from runtime.stage.probe import Probe
from runtime.stage.simulator import Simulator
from runtime.swarm.agent_logs import WAITING_MAX
from runtime.wire.pb import logs_pb2
from tests.unit.agent import dispatcher
from tests.unit.agent.dispatcher import SOCKET, later, silence
from tests.unit.agent.executor import FakeReading

SECOND = 1_000_000_000


def line(number: int, data: bytes = b"", stream: Stream = Stream.STDOUT) -> LogLine:
    return LogLine(number * SECOND, stream, data or b"line %d\n" % number)


class Bench:
    """A log publisher with a broker; the test plays the agent and the tasks' actors."""

    def __init__(self) -> None:
        self.simulator = Simulator(3)
        self.network = dispatcher.network(self.simulator)
        self.transport = self.network.transport("n1")
        self.stage = self.simulator.node("n1", transport=self.transport)
        self.agent = Probe(self.simulator, self.stage, "agent")
        self.manager = dispatcher.Manager(self.transport)
        self.readings: dict[str, list[FakeReading]] = {}
        setup = AgentSetup("n1", "host1", dispatcher.worker())
        self.logs: Address = self.stage.mount("logs", LogPublisherActor, self.agent.address, setup)
        self.agent.expect(LogsLife)
        self.tell(LogBrokerAt(SOCKET))

    def tell(self, message: Any) -> None:
        self.logs.tell(message)
        self.wait()

    def wait(self, seconds: float = 0.05) -> None:
        later(self.simulator, seconds)

    def add_task(self, task_id: str, service: str = "s1", *, readable: bool = True) -> None:
        """A task whose actor starts a reading for every question."""
        reads = self.readings.setdefault(task_id, [])

        def read(question: ReadLogs) -> Any:
            if not readable:
                return None
            reads.append(FakeReading(question.options, question.on_line, question.on_end))
            return reads[-1].cancel

        probe = Probe(self.simulator, self.stage, f"task-{task_id}")
        probe.answer(ReadLogs, read)
        self.tell(TaskAppeared(task_id, service, probe.address))

    def subscribe(
        self, id: str = "sub", *, follow: bool = False, tail: int = 0, since: int = 0, **selector: Sequence[str]
    ) -> None:
        options = logs_pb2.LogSubscriptionOptions(follow=follow, tail=tail)
        options.since.seconds = since
        target = logs_pb2.LogSelector(**selector)  # type: ignore[arg-type]
        self.manager.listeners[-1].send(logs_pb2.SubscriptionMessage(id=id, selector=target, options=options))
        self.wait()

    def unsubscribe(self, id: str = "sub") -> None:
        self.manager.listeners[-1].send(logs_pb2.SubscriptionMessage(id=id, close=True))
        self.wait()

    @property
    def closed(self) -> list[str]:
        """The subscriptions that this node has ended."""
        return [message.subscription_id for message in self.manager.published if message.close]

    @property
    def actor(self) -> LogPublisherActor:
        cell = self.logs.resolve()
        assert cell is not None
        assert isinstance(cell.instance, LogPublisherActor)
        return cell.instance


def test_the_lines_of_a_task_are_published_with_their_context() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"], tail=-11, since=4)
    (reading,) = bench.readings["t1"]
    assert (reading.options.follow, reading.options.tail, reading.options.since_ns) == (False, -11, 4 * SECOND)
    reading.lines(LogLine(5 * SECOND + 7, Stream.STDERR, b"oh\n"))
    bench.wait()
    (message,) = [each for published in bench.manager.published for each in published.messages]
    assert (message.context.service_id, message.context.node_id, message.context.task_id) == ("s1", "n1", "t1")
    assert (message.timestamp.seconds, message.timestamp.nanos) == (5, 7)
    assert (message.stream, message.data) == (logs_pb2.LOG_STREAM_STDERR, b"oh\n")
    assert bench.manager.published[0].subscription_id == "sub"


def test_a_subscription_ends_when_all_its_tasks_are_read() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.add_task("t2")
    bench.subscribe(service_ids=["s1"])
    bench.readings["t1"][0].lines(line(1))
    bench.readings["t1"][0].end()
    bench.wait()
    assert bench.closed == []
    bench.readings["t2"][0].lines(line(2))
    bench.readings["t2"][0].end()
    bench.wait()
    assert bench.closed == ["sub"]
    assert bench.manager.lines() == [b"line 1\n", b"line 2\n"]
    assert bench.manager.uploads_ended == 1
    assert bench.actor.subscriptions == {}


@pytest.mark.parametrize(
    "selector", [{"task_ids": ["t1"]}, {"service_ids": ["s1"]}, {"node_ids": ["n1"]}], ids=["task", "service", "node"]
)
def test_tasks_are_meant_by_themselves_by_their_service_and_by_their_node(selector: dict[str, list[str]]) -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.add_task("t2", "s2")
    bench.subscribe(**selector)  # type: ignore[arg-type]
    assert len(bench.readings["t1"]) == 1
    assert len(bench.readings["t2"]) == (1 if "node_ids" in selector else 0)


def test_a_subscription_that_means_nothing_here_ends_at_once() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(task_ids=["elsewhere"])
    assert bench.closed == ["sub"]


def test_a_task_without_logs_does_not_hold_a_subscription_up() -> None:
    bench = Bench()
    bench.add_task("t1", readable=False)
    bench.subscribe(task_ids=["t1"])
    assert bench.closed == ["sub"]


def test_a_task_whose_actor_is_gone_does_not_hold_a_subscription_up() -> None:
    bench = Bench()
    bench.tell(TaskAppeared("t1", "s1", bench.stage.at("/nobody")))
    bench.subscribe(task_ids=["t1"])
    assert bench.closed == ["sub"]


def test_who_follows_gets_the_tasks_that_come_later_and_never_ends_by_itself() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"], follow=True)
    bench.add_task("t2")
    bench.add_task("t3", "s2")
    bench.readings["t2"][0].lines(line(1))
    for task_id in ("t1", "t2"):
        bench.readings[task_id][0].end()
    bench.wait(60)
    assert bench.manager.lines() == [b"line 1\n"]
    assert bench.readings["t3"] == []
    assert bench.closed == []
    bench.unsubscribe()
    assert bench.closed == ["sub"]


def test_the_brokers_close_breaks_readings_off() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"], follow=True)
    bench.unsubscribe()
    assert bench.readings["t1"][0].cancelled
    bench.unsubscribe()
    assert bench.closed == ["sub"]


def test_a_task_told_twice_is_read_once() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"], follow=True)
    bench.tell(bench.actor.tasks["t1"])
    assert len(bench.readings["t1"]) == 1


def test_a_subscription_told_twice_is_served_once() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"])
    bench.subscribe(service_ids=["s1"])
    assert len(bench.readings["t1"]) == 1
    bench.readings["t1"][0].end()
    bench.wait()
    bench.subscribe(service_ids=["s1"])
    assert len(bench.readings["t1"]) == 1
    assert bench.closed == ["sub"]


def test_two_subscriptions_read_beside_each_other() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe("a", service_ids=["s1"])
    bench.subscribe("b", task_ids=["t1"])
    for reading in bench.readings["t1"]:
        reading.lines(line(1))
        reading.end()
    bench.wait()
    assert bench.closed == ["a", "b"]
    assert bench.manager.lines() == [b"line 1\n", b"line 1\n"]


# Much at once


def test_lines_travel_in_batches() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"])
    reading = bench.readings["t1"][0]
    reading.lines(*(line(number) for number in range(1000)))
    reading.end()
    bench.wait()
    assert bench.manager.lines() == [b"line %d\n" % number for number in range(1000)]
    assert max(len(message.messages) for message in bench.manager.published) == BATCH_LINES
    assert len(bench.manager.published) == 1000 // BATCH_LINES + 2


def test_a_reading_that_is_too_fast_is_broken_off_and_goes_on_without_a_gap_or_a_repetition() -> None:
    """The fake reads like an executor: from ``since``, in order, several lines with one timestamp."""
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"])
    everything = [line(1 + number // 3, b"%06d" % number + b"x" * 20_000) for number in range(1500)]
    rounds = 0
    while bench.closed == [] and rounds < 50:
        reading = bench.readings["t1"][-1]
        if reading.on_end is not None:
            rounds += 1
            reading.lines(*(each for each in everything if each.timestamp_ns >= reading.options.since_ns))
            reading.end()
        bench.wait(0.5)
    assert [data[:6] for data in bench.manager.lines()] == [b"%06d" % number for number in range(1500)]
    assert bench.readings["t1"][0].cancelled
    assert rounds > 2


def test_what_waits_in_memory_is_bounded() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"], follow=True)
    reading = bench.readings["t1"][0]
    for number in range(2000):
        if reading.on_end is None:
            break
        reading.on_line(line(number, b"x" * 10_000))
    assert number * 10_000 < WAITING_MAX + 20_000


def test_a_task_sends_ten_megabytes_a_second_after_a_first_burst() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"])
    everything = [line(number, b"x" * 16_000) for number in range(1, 2501)]  # 40 MB
    began = bench.simulator.time
    while bench.closed == []:
        reading = bench.readings["t1"][-1]
        if reading.on_end is not None:
            reading.lines(*(each for each in everything if each.timestamp_ns >= reading.options.since_ns))
            reading.end()
        bench.wait(0.05)
        assert bench.simulator.time - began < 10
    assert len(bench.manager.lines()) == 2500
    assert 2.5 < bench.simulator.time - began < 4.5


# Trouble


def test_without_a_session_everything_is_broken_off_and_begun_again_with_the_next() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"], follow=True)
    bench.tell(LogBrokerAt(None))
    assert bench.readings["t1"][0].cancelled
    assert bench.manager.uploads_ended == 1
    bench.tell(LogBrokerAt(SOCKET))
    assert len(bench.manager.listeners) == 2
    bench.subscribe(service_ids=["s1"], follow=True)
    assert len(bench.readings["t1"]) == 2


def test_a_broken_stream_of_subscriptions_is_listened_to_again() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"], follow=True)
    bench.manager.listeners[0].fail(Refused(Code.ABORTED, "the leader stopped"))
    bench.wait(1)
    assert len(bench.manager.listeners) == 2
    assert bench.readings["t1"][0].cancelled


def test_a_manager_without_a_log_broker_is_left_alone() -> None:
    bench = Bench()
    bench.manager.listeners[0].fail(Refused(Code.UNIMPLEMENTED, "no such method"))
    bench.wait(60)
    assert len(bench.manager.listeners) == 1
    bench.tell(LogBrokerAt(SOCKET))
    assert len(bench.manager.listeners) == 2


def test_a_subscription_that_the_broker_does_not_know_is_dropped() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"], follow=True)
    bench.manager.uploads[0].fail(Refused(Code.NOT_FOUND, "subscription sub is not registered"))
    bench.wait()
    assert bench.actor.subscriptions == {}
    assert bench.readings["t1"][0].cancelled
    bench.wait(10)
    assert len(bench.manager.uploads) == 1


def test_a_broken_upload_is_taken_up_again_with_what_is_read_meanwhile() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"])
    reading = bench.readings["t1"][0]
    reading.lines(line(1))
    bench.wait()
    bench.manager.uploads[0].fail(Refused(Code.UNAVAILABLE, "connection lost"))
    bench.wait()
    reading.lines(line(2), line(3))
    reading.end()
    bench.wait(0.5)
    assert bench.manager.lines() == [b"line 1\n"]
    bench.wait(1.0)
    assert bench.manager.lines() == [b"line 1\n", b"line 2\n", b"line 3\n"]
    assert bench.closed == ["sub"]


def test_a_following_reading_that_breaks_is_taken_up_behind_its_last_line() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"], follow=True, tail=-1)
    first = bench.readings["t1"][0]
    first.lines(line(1), line(2))
    first.end("controller closed")
    bench.wait(1.5)
    second = bench.readings["t1"][1]
    assert (second.options.since_ns, second.options.tail, second.options.follow) == (2 * SECOND, 0, True)
    second.lines(line(2), line(3))
    bench.wait()
    assert bench.manager.lines() == [b"line 1\n", b"line 2\n", b"line 3\n"]


def test_a_reading_of_a_task_that_is_gone_is_not_taken_up_again() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"], follow=True)
    bench.readings["t1"][0].lines(line(1))
    bench.tell(TaskGone("t1"))
    bench.readings["t1"][0].end("controller closed")
    bench.wait(10)
    assert len(bench.readings["t1"]) == 1
    assert bench.manager.lines() == [b"line 1\n"]


def test_trouble_with_one_task_does_not_keep_the_others_logs_from_ending() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.add_task("t2")
    bench.subscribe(service_ids=["s1"])
    bench.readings["t1"][0].end("the log is damaged")
    bench.readings["t2"][0].lines(line(5))
    bench.readings["t2"][0].end()
    bench.wait()
    assert bench.manager.lines() == [b"line 5\n"]
    assert bench.closed == ["sub"]


def test_a_failed_life_breaks_everything_off_and_asks_again() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"], follow=True)
    cell = bench.logs.resolve()
    assert cell is not None
    cell.failed(RuntimeError("broken"), None)
    bench.agent.expect(LogsLife)
    bench.wait()
    assert bench.readings["t1"][0].cancelled
    silence(bench.simulator, bench.agent, LogsLife)


def test_lines_are_published_as_they_are_written() -> None:
    bench = Bench()
    bench.add_task("t1")
    bench.subscribe(service_ids=["s1"], follow=True)
    for number in range(1, 6):
        bench.readings["t1"][0].lines(line(number))
        bench.wait()
        assert bench.manager.lines()[-1] == b"line %d\n" % number


def test_a_reading_that_begins_after_its_subscription_ended_is_broken_off() -> None:
    bench = Bench()
    slow = Probe(bench.simulator, bench.stage, "task-t1")
    bench.tell(TaskAppeared("t1", "s1", slow.address))
    bench.subscribe(service_ids=["s1"], follow=True)
    question = slow.take(ReadLogs)
    bench.unsubscribe()
    cancelled: list[bool] = []
    question.reply.set(lambda: cancelled.append(True))
    bench.wait()
    assert cancelled == [True]


def test_an_end_that_is_told_twice_counts_once() -> None:
    bench = Bench()
    probe = Probe(bench.simulator, bench.stage, "task-t1")
    asked: list[ReadLogs] = []

    def read(question: ReadLogs) -> Any:
        asked.append(question)
        question.on_end("controller closed")
        question.on_end("controller closed")
        return lambda: None

    probe.answer(ReadLogs, read)
    bench.tell(TaskAppeared("t1", "s1", probe.address))
    bench.subscribe(service_ids=["s1"], follow=True)
    bench.wait(3.5)
    assert len(asked) == 4, "one more each second"


def test_the_memory_of_ended_subscriptions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.log_publisher_actor.FINISHED_MAX", 3)
    bench = Bench()
    for number in range(6):
        bench.subscribe(f"sub{number}", service_ids=["s1"])
    assert list(bench.actor._finished) == ["sub3", "sub4", "sub5"]
    assert len(bench.closed) == 6
