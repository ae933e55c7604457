"""TaskAccessBrokerActor over a real store: askers, nodes that listen and answer, every end, who breaks the rules."""

from __future__ import annotations

from typing import Any

import pytest

from actors.task_access_broker_actor import UNKNOWN, TaskAccessBrokerActor
from runtime.errors import Code, Refused
from runtime.swarm import task_access as rules
from runtime.wire.inbound import InboundCall
from runtime.wire.pb import access_pb2 as pb
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from runtime.wire.port import Identity, StreamLimits
from runtime.wire.services import METHODS, path
from runtime.wire.to_actor import to_actor
from tests.messages.test_dispatcher_actor import LeaderBench, Sent, refusal, task

RUN = pb.RunCommand(argv=["sh"])
LOST = (Code.UNAVAILABLE, rules.LOST)
BROKEN = (Code.INVALID_ARGUMENT, rules.BROKEN)


def node(id: str, ours: bool = True, down: bool = False) -> objects.Node:
    made = objects.Node(id=id)
    made.description.hostname = f"host-{id}"
    if ours:
        made.description.engine.labels["swarmlet.raft"] = "1"
    made.status.state = types.NodeStatus.DOWN if down else types.NodeStatus.READY
    return made


class Upload:
    """One end's upload."""

    def __init__(self, bench: Bench, service: str, name: str, node_id: str) -> None:
        method = METHODS[path(service, name)]
        self.bench = bench
        self.call = InboundCall(method, None, Identity(node_id), {}, StreamLimits(), lambda: None)
        to_actor(bench.actor)(self.call)
        bench.simulator.settle()
        self.sent = Sent(self.call, method.response)

    def say(self, access_id: str, **what: Any) -> None:
        assert self.call.receiver is not None
        kind: Any = pb.ToTask if self.call.method.endswith("Say") else pb.FromTask
        self.call.receiver.item(kind(access_id=access_id, **what))
        self.bench.simulator.settle()

    def end(self, refused: Refused | None = None) -> None:
        assert self.call.receiver is not None
        self.call.receiver.end(refused)
        self.bench.simulator.settle()

    @property
    def open(self) -> bool:
        return self.sent.open


class Bench(LeaderBench):
    """A broker, askers at managers, nodes; ``t1`` and ``t2`` are on w1, ``t3`` on w2, which is a dockerd."""

    def __init__(self) -> None:
        tasks = [task("t1", "w1"), task("t2", "w1"), task("t3", "w2"), task("t4", "w3"), task("t5", "")]
        nodes = [node("w1"), node("w2", ours=False), node("w3", down=True)]
        super().__init__(TaskAccessBrokerActor, *nodes, *tasks)

    def listen(self, node_id: str = "w1") -> Sent:
        return self.call("TaskAccessBroker", "Listen", pb.ListenRequest(), node_id)

    def ask(self, task_id: str = "t1", manager: str = "m1", limits: Any = None, **what: Any) -> Sent:
        question = pb.AccessQuestion(task_id=task_id, **(what or {"run": RUN}))
        return self.call("TaskAccess", "Ask", question, manager, limits)

    def say(self, manager: str = "m1") -> Upload:
        return Upload(self, "TaskAccess", "Say", manager)

    def answer(self, node_id: str = "w1") -> Upload:
        return Upload(self, "TaskAccessBroker", "Answer", node_id)

    def running(self, **more: Any) -> Running:
        return Running(self, **more)


class Running:
    """A command that has begun, with both uploads."""

    def __init__(self, bench: Bench, task_id: str = "t1") -> None:
        self.node = bench.listen()
        self.asker = bench.ask(task_id)
        (asked,) = self.asker.take()
        self.id: str = asked.access_id
        (question,) = self.node.take()
        assert question.question.run == RUN
        self.answering, self.saying = bench.answer(), bench.say()
        self.answering.say(self.id, begun=77)
        self.saying.say(self.id, size=pb.TerminalSize(rows=5, columns=6))
        assert [each.begun for each in self.asker.take()] == [77]
        assert [each.size.rows for each in self.node.take()] == [5]

    @property
    def all_over(self) -> bool:
        return not (self.asker.open or self.answering.open or self.saying.open)

    @property
    def node_was_told(self) -> bool:
        return [(each.access_id, each.close) for each in self.node.take()] == [(self.id, True)]


# The way of a question


def test_a_question_goes_to_the_tasks_node_with_where_it_was_asked_and_the_answer_comes_back() -> None:
    bench = Bench()
    node = bench.listen()
    asker = bench.ask(top="aux")
    (asked,) = asker.take()
    assert asked.asked
    (question,) = node.take()
    assert (question.access_id, question.question.task_id, question.question.top) == (asked.access_id, "t1", "aux")
    assert question.asked_at == "m1"
    answering = bench.answer()
    answering.say(asked.access_id, processes=pb.Processes(titles=pb.Cells(text=["PID"])))
    (answer,) = asker.take()
    assert list(answer.processes.titles.text) == ["PID"]
    assert not asker.open
    assert not answering.open
    assert node.take() == []
    assert bench.instance.snapshot() == {"listening nodes": 1, "open": 0}


def test_what_a_command_is_told_and_says_passes_in_order_until_its_end() -> None:
    bench = Bench()
    running = bench.running()
    running.saying.say(running.id, input=b"a")
    running.saying.say(running.id, input=b"b")
    running.saying.say(running.id, input_end=True)
    assert [each.WhichOneof("what") for each in running.node.take()] == ["input", "input", "input_end"]
    running.answering.say(running.id, taken=rules.cost(b"a"))
    running.answering.say(running.id, output=pb.Output(stream=1, data=b"x"))
    running.answering.say(running.id, exit=pb.Exit(code=3, known=True))
    assert [each.WhichOneof("what") for each in running.asker.take()] == ["taken", "output", "exit"]
    assert running.all_over
    assert running.node.take() == []  # its own word ended it


def test_commands_of_one_node_are_kept_apart() -> None:
    bench = Bench()
    node = bench.listen()
    one, two = bench.ask("t1"), bench.ask("t2")
    ids = [each.access_id for each in node.take()]
    for id, text in zip(ids, (b"1", b"2"), strict=True):
        upload = bench.answer()
        upload.say(id, begun=1)
        upload.say(id, output=pb.Output(stream=1, data=text))
    assert one.take()[-1].output.data == b"1"
    assert two.take()[-1].output.data == b"2"


# What cannot be asked


@pytest.mark.parametrize(
    ("task_id", "code", "text"),
    [
        ("nope", Code.NOT_FOUND, "task nope not found"),
        ("t5", Code.NOT_FOUND, "task t5 is on no node"),
        ("t1", Code.UNAVAILABLE, "host-w1, does not listen at the manager that leads"),
        ("t3", Code.UNIMPLEMENTED, "host-w2, is a dockerd, which is reached at itself alone: run the command there"),
        ("t4", Code.UNAVAILABLE, "host-w3, is down"),
    ],
)
def test_what_cannot_be_reached_is_refused_in_a_sentence(task_id: str, code: Code, text: str) -> None:
    refused = Bench().ask(task_id).refused
    assert refused.code is code
    assert text in refused.text


def test_a_question_that_asks_nothing_is_refused() -> None:
    bench = Bench()
    bench.listen()
    request = pb.AccessQuestion(task_id="t1")
    assert bench.call("TaskAccess", "Ask", request, "m1").refused.code is Code.INVALID_ARGUMENT


def test_so_many_commands_run_at_a_node_and_no_more_while_other_questions_are_answered() -> None:
    bench = Bench()
    node = bench.listen()
    asked = [bench.ask() for _ in range(rules.COMMANDS_MAX)]
    assert all(each.open for each in asked)
    for what in ({"run": RUN}, {"reach": True}):
        assert bench.ask(**what).refused.code is Code.RESOURCE_EXHAUSTED
    assert bench.ask(top="aux").open
    asked[0].call.cancelled()
    bench.simulator.settle()
    assert bench.ask().open
    assert sum(each.close for each in node.take()) == 1


def test_a_node_that_does_not_answer_is_not_waited_for() -> None:
    bench = Bench()
    node = bench.listen()
    asker = bench.ask()
    bench.run_for(rules.ANSWER_MAX + 1)
    assert asker.refused.code is Code.DEADLINE_EXCEEDED
    assert node.take()[-1].close
    assert bench.instance.open == {}


def test_a_command_that_has_begun_may_take_its_time() -> None:
    bench = Bench()
    running = bench.running()
    bench.run_for(10 * rules.ANSWER_MAX)
    assert running.asker.open


# Ends


def test_an_asker_that_goes_ends_it_at_the_node() -> None:
    bench = Bench()
    running = bench.running()
    running.asker.call.cancelled()
    bench.simulator.settle()
    assert running.node_was_told
    assert not running.answering.open
    assert not running.saying.open


def test_a_node_whose_stream_ends_ends_all_that_it_was_asked() -> None:
    bench = Bench()
    running = bench.running()
    other = bench.ask("t2", top="aux")
    running.node.call.cancelled()
    bench.simulator.settle()
    assert refusal(running.asker) == LOST
    assert refusal(other) == LOST
    assert running.all_over
    assert "does not listen" in bench.ask().refused.text


def test_a_node_that_listens_anew_has_forgotten_what_it_was_asked() -> None:
    bench = Bench()
    running = bench.running()
    newer = bench.listen()
    assert refusal(running.asker) == LOST
    assert refusal(running.node)[0] is Code.ABORTED
    assert running.all_over
    bench.ask()
    assert len(newer.take()) == 1
    running.node.call.cancelled()
    bench.simulator.settle()
    assert bench.instance.snapshot()["listening nodes"] == 1


@pytest.mark.parametrize("end", [Refused(Code.CANCELLED, "gone"), None], ids=["broken", "finished"])
@pytest.mark.parametrize("side", ["answering", "saying"])
def test_an_upload_that_ends_before_the_command_ends_it_on_both_sides(side: str, end: Refused | None) -> None:
    bench = Bench()
    running = bench.running()
    getattr(running, side).end(end)
    assert refusal(running.asker) == LOST
    assert running.node_was_told
    assert running.all_over


@pytest.mark.parametrize("how", ["down", "removed"])
def test_a_node_that_is_taken_for_down_or_is_removed_ends_it(how: str) -> None:
    bench = Bench()
    running = bench.running()

    def goes_down(node: objects.Node) -> None:
        node.status.state = types.NodeStatus.DOWN

    if how == "down":
        bench.change(objects.Node, "w1", goes_down)
    else:
        bench.delete(objects.Node, "w1")
    assert running.asker.refused.code is Code.UNAVAILABLE
    assert running.all_over
    assert running.node_was_told


def test_another_change_of_the_node_ends_nothing() -> None:
    bench = Bench()
    running = bench.running()
    bench.change(objects.Node, "w1", lambda node: node.spec.annotations.labels.update(a="b"))
    assert running.asker.open


@pytest.mark.parametrize("how", ["stop", "fail"])
def test_the_end_of_the_leadership_ends_everything_with_its_reason(how: str) -> None:
    bench = Bench()
    running = bench.running()
    if how == "stop":
        bench.stage.end("/part", 1)
        bench.simulator.settle()
    else:
        bench.fail()
    assert refusal(running.asker) == (Code.ABORTED, rules.LEADER_GONE)
    assert refusal(running.node) == (Code.ABORTED, rules.LEADER_GONE)
    assert running.all_over


# Who breaks the rules


def test_a_node_answers_only_what_it_was_asked_itself() -> None:
    bench = Bench()
    bench.listen("w2")
    running = bench.running()
    for node_id in ("w2", "m1"):
        hostile = bench.answer(node_id)
        hostile.say(running.id, output=pb.Output(stream=1, data=b"forged"))
        assert refusal(hostile.sent) == (Code.NOT_FOUND, UNKNOWN)
    assert running.asker.take() == []
    assert running.asker.open


def test_only_whoever_asked_may_say_more_and_not_the_node_itself() -> None:
    bench = Bench()
    running = bench.running()
    for manager in ("m2", "w1"):
        hostile = bench.say(manager)
        hostile.say(running.id, input=b"rm -rf /\n")
        assert refusal(hostile.sent) == (Code.NOT_FOUND, UNKNOWN)
    assert running.node.take() == []
    assert running.asker.open


@pytest.mark.parametrize("side", ["answer", "say"])
def test_a_second_upload_for_the_same_is_refused_and_the_first_goes_on(side: str) -> None:
    bench = Bench()
    running = bench.running()
    second = getattr(bench, side)()
    second.say(running.id, taken=1)
    assert refusal(second.sent) == (Code.NOT_FOUND, UNKNOWN)
    assert running.asker.open


@pytest.mark.parametrize("id", ["", "guessed"])
def test_an_id_that_was_never_given_is_unknown(id: str) -> None:
    bench = Bench()
    bench.running()
    for upload in (bench.answer(), bench.say()):
        upload.say(id, taken=1)
        assert refusal(upload.sent) == (Code.NOT_FOUND, UNKNOWN)


def test_an_upload_stays_with_what_its_first_message_named() -> None:
    bench = Bench()
    running = bench.running()
    other = bench.ask("t2")
    running.answering.say(other.take()[0].access_id, begun=1)
    assert refusal(running.answering.sent) == BROKEN
    assert running.asker.refused.code is Code.ABORTED
    assert other.open


@pytest.mark.parametrize(
    "what",
    [
        {"begun": 7},
        {"asked": True},
        {"processes": pb.Processes()},
        {"output": pb.Output(stream=3, data=b"x")},
        {"output": pb.Output(stream=1, data=bytes(rules.WINDOW + 1))},
        {"taken": 1},
        {},
    ],
    ids=[
        "begins again",
        "asks itself",
        "answers again",
        "a third stream",
        "too much",
        "takes what was not sent",
        "none",
    ],
)
def test_a_node_that_does_not_keep_to_the_agreement_ends_it_for_both(what: dict[str, Any]) -> None:
    bench = Bench()
    running = bench.running()
    running.answering.say(running.id, **what)
    assert refusal(running.answering.sent) == BROKEN
    assert refusal(running.asker) == (Code.ABORTED, rules.BROKEN)
    assert running.node_was_told
    assert running.all_over
    assert bench.alive


@pytest.mark.parametrize(
    "what",
    [
        {"close": True},
        {"question": pb.AccessQuestion(task_id="t2", run=RUN)},
        {"input": bytes(rules.WINDOW + 1)},
        {"taken": 1},
        {},
    ],
    ids=["closes", "asks something else", "too much", "takes what was not sent", "none"],
)
def test_an_asker_that_does_not_keep_to_the_agreement_ends_it_for_both(what: dict[str, Any]) -> None:
    bench = Bench()
    running = bench.running()
    running.saying.say(running.id, **what)
    assert refusal(running.saying.sent) == BROKEN
    assert running.node_was_told
    assert running.all_over


def test_nobody_chooses_the_name_under_which_he_asks() -> None:
    bench = Bench()
    running = bench.running()
    running.saying.say(running.id, size=pb.TerminalSize(rows=1), asked_at="somebody else")
    assert [each.asked_at for each in running.node.take()] == [""]


def test_an_asker_that_does_not_read_loses_the_command_and_nobody_else_does() -> None:
    bench = Bench()
    node = bench.listen()
    asker = bench.ask(limits=StreamLimits(items_max=2))
    (asked,) = node.take()
    answering = bench.answer()
    answering.say(asked.access_id, begun=1)
    for _ in range(4):
        answering.say(asked.access_id, output=pb.Output(stream=1, data=b"x"))
    assert not asker.open
    assert not answering.open
    assert node.take()[-1].close
    assert bench.ask("t2").open
