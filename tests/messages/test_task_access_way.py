"""The whole way in virtual time: a client at a follower, the leader's broker, the node and its commands."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from actors.proxy_actor import ProxyActor
from actors.task_access_actor import TaskAccessActor
from actors.task_access_broker_actor import TaskAccessBrokerActor
from runtime.errors import Code, Refused
from runtime.executor.inspection import NotBegun, Processes, RunCommand, SendSignal, Top
from runtime.executor.remote import FAILED
from runtime.protocol.agent import AccessLife, AgentSetup, ManagerIsAt
from runtime.protocol.cluster import ToTask
from runtime.protocol.manager import LeaderIs
from runtime.stage.probe import Probe
from runtime.swarm import task_access as rules
from runtime.wire.memory import MemoryNetwork
from runtime.wire.pb import access_pb2 as pb
from runtime.wire.port import Access, Channel
from runtime.wire.services import path, routes
from runtime.wire.to_actor import to_actor
from tests.messages.test_dispatcher_actor import LeaderBench, task
from tests.messages.test_task_access_broker import node
from tests.unit.wire.authority import CLUSTER, authority

ASK, SAY = path("TaskAccess", "Ask"), path("TaskAccess", "Say")
LEADER, FOLLOWER = "10.0.0.2:2377", "10.0.0.1:2377"
METHODS = (ASK, SAY, path("TaskAccessBroker", "Listen"), path("TaskAccessBroker", "Answer"))


class Command:
    """A command that the test plays."""

    pid = 77

    def __init__(self, question: RunCommand) -> None:
        self.question = question
        self.written: list[bytes] = []
        self.untaken: list[Callable[[], None]] = []
        self.takes = True
        self.sizes: list[tuple[int, int]] = []
        self.held: list[bool] = []
        self.input_ended = self.closed = False

    def write(self, data: bytes, done: Callable[[], None]) -> None:
        self.written.append(data)
        if self.takes:
            done()
        else:
            self.untaken.append(done)

    def end_input(self) -> None:
        self.input_ended = True

    def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    def hold(self, held: bool) -> None:
        self.held.append(held)

    def close(self) -> None:
        self.closed = True


class Client:
    """Whoever asks: its stream and its upload."""

    def __init__(self, bench: Bench, channel: Channel, task_id: str, **what: Any) -> None:
        self.bench = bench
        self.items: list[pb.FromTask] = []
        self.ends: list[Refused | None] = []
        self.said: list[Any] = []
        question = pb.AccessQuestion(task_id=task_id, **what)
        came: Any = self.items.append
        self.cancel = channel.stream(ASK, question, on_item=came, on_end=self.ends.append)
        self.upload = channel.upload(SAY, done=self.said.append)
        bench.wait()

    def say(self, **what: Any) -> None:
        self.upload.send(pb.ToTask(access_id=self.items[0].access_id, **what))
        self.bench.wait()

    @property
    def output(self) -> bytes:
        return b"".join(each.output.data for each in self.items)

    def kinds(self) -> list[str | None]:
        return [each.WhichOneof("what") for each in self.items]


class Bench:
    """A leader at 10.0.0.2, a follower at 10.0.0.1, and node w1 with task t1, whose session is with ``manager``."""

    def __init__(self, manager: str = FOLLOWER, remote_exec: bool = True, silent: bool = False) -> None:
        leader = LeaderBench(TaskAccessBrokerActor, node("w1"), task("t1", "w1"))
        self.leader, self.simulator = leader, leader.simulator
        self.network = MemoryNetwork(self.simulator.set, random.Random(7), clock=time.time)
        self.hosts: dict[str, Any] = {}
        self.proxy = self.simulator.node("m1", transport=self.host("10.0.0.1")).mount(
            "proxy", ProxyActor, leader.stage.at("/leader"), authority().manager("m1")
        )
        for address, served, id in ((LEADER, leader.actor, "m2"), (FOLLOWER, self.proxy, "m1")):
            self.serve(address, id, {name: to_actor(served) for name in METHODS})
        self.proxy.tell(LeaderIs(LEADER, False))
        self.commands: list[Command] = []
        self.answer: Any = self.begin
        self.transport = self.host("10.0.0.9")
        self.stage = self.simulator.node("w1", transport=self.transport)
        self.agent = Probe(self.simulator, self.stage, "agent")
        if not silent:
            self.agent.answer(ToTask, lambda message: self.answer(message.question.question))
        setup = AgentSetup("w1", "host-w1", authority().worker("w1"), remote_exec=remote_exec)
        self.actor = self.stage.mount("access", TaskAccessActor, self.agent.address, setup)
        self.agent.expect(AccessLife)
        self.session(manager)

    def host(self, name: str) -> Any:
        """The transport of a machine."""
        if name not in self.hosts:
            self.hosts[name] = self.network.transport(name)
        return self.hosts[name]

    def serve(self, address: str, id: str, served: Any) -> None:
        """A manager's server."""
        self.host(address.partition(":")[0]).serve(
            address, routes(served), access=lambda: Access(CLUSTER), credentials=authority().manager(id)
        )

    def begin(self, question: Any) -> Any:
        self.commands.append(Command(question))
        return self.commands[-1]

    def session(self, manager: str | None) -> None:
        """The node has a session with this manager now, or none."""
        self.channel = self.transport.connect(manager, authority().worker("w1")) if manager else None
        self.actor.tell(ManagerIsAt(manager, self.channel))
        self.wait()

    def wait(self, seconds: float = 0.2) -> None:
        self.simulator.set(seconds, lambda: None)
        self.simulator.run_for(seconds)

    def client(self, at: str = FOLLOWER, task_id: str = "t1", **what: Any) -> Client:
        channel = self.host("10.0.0.7").connect(at, authority().manager("m3"))
        return Client(self, channel, task_id, **(what or {"run": pb.RunCommand(argv=["sh"], stdin=True, output=True)}))

    @property
    def state(self) -> dict[str, Any]:
        cell = self.actor.resolve()
        assert cell is not None
        assert cell.instance is not None
        return cell.instance.snapshot()


@pytest.mark.parametrize("at", [LEADER, FOLLOWER], ids=["asked at the leader", "asked at a follower"])
@pytest.mark.parametrize("manager", [LEADER, FOLLOWER], ids=["session with the leader", "session with a follower"])
def test_a_command_runs_with_input_output_and_exit_code(at: str, manager: str) -> None:
    bench = Bench(manager)
    client = bench.client(at)
    (command,) = bench.commands
    client.say(input=b"hello")
    client.say(size=pb.TerminalSize(rows=5, columns=6))
    client.say(input_end=True)
    assert (command.written, command.sizes, command.input_ended) == ([b"hello"], [(5, 6)], True)
    command.question.on_output(1, b"out")
    command.question.on_output(2, b"err")
    command.question.on_exit(3)
    bench.wait()
    assert client.kinds() == ["asked", "begun", "taken", "output", "output", "exit"]
    assert [(each.output.stream, each.output.data) for each in client.items[3:5]] == [(1, b"out"), (2, b"err")]
    assert (client.items[1].begun, client.items[5].exit.code, client.items[5].exit.known) == (77, 3, True)
    assert client.ends == [None]
    assert bench.state["commands"] == 0
    assert bench.leader.instance.open == {}


def test_other_questions_are_answered_and_refusals_passed_on() -> None:
    bench = Bench()
    bench.answer = lambda question: Processes(("PID",), (("7",),)) if question == Top("aux") else None
    assert bench.client(top="aux").items[1].processes.rows[0].text == ["7"]
    assert bench.client(signal=15).items[1].done
    assert bench.client(reach=True).items[1].done

    def refuse(question: Any) -> Any:
        raise Refused(Code.FAILED_PRECONDITION, "it does not run")

    bench.answer = refuse
    for what in ({"usage": True}, {"run": pb.RunCommand(argv=["x"])}):
        client = bench.client(**what)
        assert client.items[1].refused == pb.Refusal(code=9, text="it does not run")
        assert client.ends == [None]


def test_a_command_that_cannot_begin_says_why() -> None:
    bench = Bench()
    bench.answer = lambda question: NotBegun("no such file", 127)
    client = bench.client()
    assert client.items[1].not_begun == pb.NotBegun(text="no such file", code=127)
    assert client.ends == [None]
    assert bench.state["commands"] == 0


def test_a_failure_of_the_node_says_its_kind_and_nothing_of_its_inner_state() -> None:
    bench = Bench()

    def fail(question: Any) -> Any:
        raise ValueError("/secret/path")

    bench.answer = fail
    for what in ({"usage": True}, {"run": pb.RunCommand(argv=["x"])}):
        assert bench.client(**what).items[1].refused == pb.Refusal(code=14, text=FAILED)


# Windows


def test_a_reader_that_takes_nothing_holds_the_command_and_a_window_is_all_that_is_under_way() -> None:
    bench = Bench()
    client = bench.client()
    (command,) = bench.commands
    piece = bytes(rules.PIECE_MAX)
    for _ in range(3 * rules.WINDOW // rules.PIECE_MAX):
        command.question.on_output(1, piece)
    bench.wait()
    under_way = len(client.output)
    assert 0 < under_way <= rules.WINDOW
    assert command.held == [True]
    said = 3 * rules.WINDOW // rules.PIECE_MAX * rules.PIECE_MAX
    taken = 0
    while taken < said:
        fresh = [each for each in client.items[2:] if each.WhichOneof("what") == "output"][taken // rules.PIECE_MAX :]
        for each in fresh:
            taken += len(each.output.data)
            client.say(taken=rules.cost(each.output.data))
    assert len(client.output) == said
    assert command.held == [True, False]
    command.question.on_exit(0)
    bench.wait()
    assert client.items[-1].exit.known


def test_the_end_waits_for_the_output_that_waits() -> None:
    bench = Bench()
    client = bench.client()
    (command,) = bench.commands
    command.question.on_output(1, bytes(2 * rules.WINDOW))
    command.question.on_exit(0)
    bench.wait()
    assert client.kinds()[-1] == "output"
    while client.kinds()[-1] == "output":
        client.say(taken=rules.cost(client.items[-1].output.data))
    assert client.kinds()[-1] == "exit"
    assert len(client.output) == 2 * rules.WINDOW


def test_input_that_the_command_does_not_take_is_not_taken_of_the_client() -> None:
    bench = Bench()
    client = bench.client()
    (command,) = bench.commands
    command.takes = False
    client.say(input=b"a")
    client.say(input=b"b")
    assert client.kinds() == ["asked", "begun"]
    command.untaken.pop(0)()
    bench.wait()
    assert [each.taken for each in client.items[2:]] == [rules.cost(b"a")]


def test_a_client_that_sends_more_than_a_window_loses_the_command() -> None:
    bench = Bench()
    client = bench.client()
    (command,) = bench.commands
    command.takes = False
    for _ in range(rules.WINDOW // rules.PIECE_MAX + 1):
        client.upload.send(pb.ToTask(access_id=client.items[0].access_id, input=bytes(rules.PIECE_MAX)))
    bench.wait(1)
    assert command.closed
    assert client.ends[0] is not None


def test_what_is_said_before_the_command_has_begun_waits_for_it() -> None:
    bench = Bench(silent=True)
    client = bench.client()
    asked = bench.agent.take(ToTask)
    client.say(input=b"early")
    client.say(input_end=True)
    command = Command(asked.message.question.question)
    asked.reply.set(command)
    bench.wait()
    assert (command.written, command.input_ended) == ([b"early"], True)


# Ends


@pytest.mark.parametrize("how", ["client", "session", "node", "leader", "follower"])
def test_whatever_ends_in_between_ends_the_command_and_tells_the_client(how: str) -> None:
    bench = Bench()
    client = bench.client()
    (command,) = bench.commands
    if how == "client":
        client.cancel()
    elif how == "session":
        bench.session(None)
    elif how == "node":
        assert bench.channel is not None
        bench.channel.close()
    elif how == "leader":
        bench.leader.stage.end("/part", 1)
    else:
        bench.proxy.tell(LeaderIs("10.0.0.5:2377", False))
    bench.wait(2)
    assert command.closed
    assert len(client.ends) == 1
    assert client.ends[0] is not None
    assert bench.state["commands"] == 0


def test_a_command_that_begins_when_nobody_waits_any_more_is_ended() -> None:
    bench = Bench(silent=True)
    client = bench.client()
    asked = bench.agent.take(ToTask)
    client.cancel()
    bench.wait()
    command = Command(asked.message.question.question)
    asked.reply.set(command)
    bench.wait()
    assert command.closed


def test_a_command_that_nobody_speaks_to_for_hours_is_ended_with_its_reason() -> None:
    bench = Bench()
    client = bench.client()
    (command,) = bench.commands
    bench.wait(rules.IDLE_MAX - 60)
    client.say(size=pb.TerminalSize(rows=1))
    bench.wait(rules.IDLE_MAX - 120)
    assert not command.closed
    bench.wait(300)
    assert command.closed
    assert client.items[-1].refused == pb.Refusal(code=4, text=rules.ENDED_IDLE)


def test_the_node_listens_again_after_a_break_and_can_be_asked_again() -> None:
    bench = Bench()
    bench.client()
    bench.proxy.tell(LeaderIs("10.0.0.5:2377", False))
    bench.wait(1)
    assert [each.closed for each in bench.commands] == [True]
    bench.proxy.tell(LeaderIs(LEADER, False))
    bench.wait(30)
    client = bench.client()
    bench.commands[-1].question.on_exit(0)
    bench.wait()
    assert client.kinds() == ["asked", "begun", "exit"]


# Authority


def test_a_node_that_is_switched_off_refuses_everything_in_a_sentence() -> None:
    bench = Bench(remote_exec=False)
    for what in ({"reach": True}, {"top": "aux"}, {"signal": 9}, {"usage": True}, {"run": pb.RunCommand(argv=["sh"])}):
        client = bench.client(**what)
        assert client.items[1].refused == pb.Refusal(code=12, text=rules.SWITCHED_OFF)
    assert bench.commands == []
    assert bench.agent.messages == []


def test_a_worker_cannot_ask() -> None:
    bench = Bench()
    for at in (LEADER, FOLLOWER):
        channel = bench.host("10.0.0.8").connect(at, authority().worker("w1"))
        client = Client(bench, channel, "t1", run=pb.RunCommand(argv=["sh"]))
        (refused,) = client.ends
        assert refused is not None
        assert refused.code is Code.PERMISSION_DENIED
        assert client.said[0].code is Code.PERMISSION_DENIED
    assert bench.commands == []


def test_a_question_that_is_none_is_refused_by_the_node_itself() -> None:
    bench = Bench()
    for what in ({"run": pb.RunCommand()}, {"signal": -1}):
        assert bench.client(**what).items[1].refused.code == Code.INVALID_ARGUMENT
    assert bench.commands == []
    assert bench.state["listening"]


def test_each_command_and_each_signal_is_in_the_nodes_log_without_its_words_and_environment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    run = pb.RunCommand(argv=["mysql\n", "--password=hunter2"], env=["KEY=hunter2"])
    with caplog.at_level(logging.INFO, "swarmlet.agent"):
        bench.client(run=run)
        bench.answer = lambda question: None if question == SendSignal(9) else Refused
        bench.client(signal=9)
    said = [each.getMessage() for each in caplog.records if each.name == "swarmlet.agent"]
    assert said == [
        r"'mysql\n' runs beside task 't1', asked for at manager 'm3'",
        "task 't1' is sent signal 9, asked for at manager 'm3'",
    ]
    assert "hunter2" not in caplog.text


def test_a_manager_of_another_kind_is_left_alone_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    dockerd = "10.0.0.4:2377"
    bench.serve(dockerd, "m4", {})
    with caplog.at_level(logging.INFO):
        bench.session(dockerd)
        bench.wait(60)
    assert caplog.records == []
    assert not bench.state["listening"]
    bench.session(LEADER)
    assert bench.state["listening"]


def test_a_node_runs_so_many_commands_whatever_its_manager_asks() -> None:
    bench = Bench(manager="10.0.0.6:2377")
    asked: list[Any] = []
    answers: list[Any] = []
    served = {
        path("TaskAccessBroker", "Listen"): asked.append,
        path("TaskAccessBroker", "Answer"): lambda call: call.receive(answers.append, lambda refused: None),
    }
    bench.serve("10.0.0.6:2377", "m6", served)
    bench.session("10.0.0.6:2377")
    for number in range(rules.COMMANDS_MAX + 2):
        question = pb.AccessQuestion(task_id="t1", run=pb.RunCommand(argv=["sh"]))
        asked[-1].send(pb.ToTask(access_id=f"a{number}", question=question))
    asked[-1].send(pb.ToTask(access_id="a0", question=question))
    asked[-1].send(pb.ToTask(access_id="nobody", input=b"x"))
    bench.wait()
    assert len(bench.commands) == rules.COMMANDS_MAX
    refused = [each for each in answers if each.WhichOneof("what") == "refused"]
    assert [each.refused.code for each in refused] == [Code.RESOURCE_EXHAUSTED] * 3
    first = bench.commands[0]
    first.takes = False
    for _ in range(rules.WINDOW // rules.PIECE_MAX + 1):
        asked[-1].send(pb.ToTask(access_id="a0", input=bytes(rules.PIECE_MAX)))
    bench.wait()
    assert first.closed
    assert bench.state["listening"]
