"""TaskActor: the ladder, interruptions, retries, removal, and lives that find what an earlier one began."""

from __future__ import annotations

from typing import Any

import pytest

from actors.task_actor import REMOVE_TRIES, TaskActor
from runtime.errors import Code, Refused
from runtime.executor.inspection import OnLooked, Top
from runtime.executor.port import Done, Failed, LogOptions
from runtime.protocol.agent import (
    AgentSetup,
    AwaitTask,
    InspectTask,
    ReadLogs,
    RemoveTask,
    RunTask,
    TaskLife,
    TaskProgress,
    TaskRemoved,
    Until,
    UpdateTask,
)
from runtime.stage.probe import Probe
from runtime.stage.simulator import Simulator
from runtime.swarm.agent_assignments import Dependencies, bare
from runtime.wire.pb import objects_pb2, types_pb2
from runtime.wire.port import Credentials
from tests.unit.agent.dispatcher import later, task
from tests.unit.agent.executor import FakeController, FakeExecutor


class Bench:
    """A task's actor; the test plays its agent and its executor."""

    def __init__(self, *waiting: str) -> None:
        self.executor = FakeExecutor()
        self.executor.quick = tuple(name for name in self.executor.quick if name not in waiting)
        self.simulator = Simulator(3)
        self.stage = self.simulator.node("n1", executor=self.executor)
        self.agent = Probe(self.simulator, self.stage, "agent")
        self.dependencies = Dependencies()
        self.address = self.stage.mount(
            "task", TaskActor, self.agent.address, AgentSetup("n1", "host1", Credentials(b"")), self.dependencies, "t1"
        )
        self.agent.expect(TaskLife)

    def run(self, desired: int = types_pb2.RUNNING, state: int = types_pb2.ASSIGNED, made: Any = None) -> None:
        status = types_pb2.TaskStatus(state=state)  # type: ignore[arg-type]
        self.tell(RunTask(bare(made or task(desired=desired)), status))

    def tell(self, message: Any) -> None:
        self.address.tell(message)
        self.simulator.settle()

    def update(self, desired: int) -> None:
        self.tell(UpdateTask(bare(task(desired=desired))))

    def finish(self, name: str, outcome: Any = None) -> None:
        self.executor.finish("t1", name, outcome)
        self.simulator.settle()

    def told(self) -> list[types_pb2.TaskStatus]:
        """All statuses that were told since the last look."""
        statuses = []
        while any(isinstance(message, TaskProgress) for message in self.agent.messages):
            statuses.append(self.agent.expect(TaskProgress).status)
        return statuses

    def last(self) -> types_pb2.TaskStatus:
        statuses = self.told()
        assert statuses, "no status was told"
        return statuses[-1]

    @property
    def names(self) -> list[str]:
        return self.executor.names("t1")


def test_a_task_goes_up_the_ladder_until_it_waits_for_its_end() -> None:
    bench = Bench()
    bench.run()
    assert bench.names == ["prepare", "start", "wait"]
    states = [(status.state, status.message) for status in bench.told()]
    assert states == [
        (types_pb2.PREPARING, "preparing"),
        (types_pb2.STARTING, "starting"),
        (types_pb2.RUNNING, "started"),
    ]


def test_a_task_that_ends_with_code_zero_is_complete() -> None:
    bench = Bench()
    bench.run()
    bench.finish("wait", Done(types_pb2.ContainerStatus(container_id="c", exit_code=0)))
    status = bench.last()
    assert (status.state, status.message, status.err) == (types_pb2.COMPLETE, "finished", "")
    assert bench.executor.under_way("t1") == ""


def test_a_task_that_ends_otherwise_failed_and_keeps_the_message_of_running() -> None:
    bench = Bench()
    bench.run()
    bench.finish("wait", Failed("task: non-zero exit (3)", exit_code=3))
    status = bench.last()
    assert (status.state, status.message, status.err) == (types_pb2.FAILED, "started", "task: non-zero exit (3)")
    assert (status.container.container_id, status.container.exit_code) == ("container-t1", 3)


def test_a_task_wanted_ready_stops_after_its_preparation() -> None:
    bench = Bench()
    bench.run(types_pb2.READY)
    assert bench.last().state == types_pb2.READY
    assert bench.names == ["prepare"]
    bench.update(types_pb2.RUNNING)
    assert bench.last().state == types_pb2.RUNNING
    assert bench.names == ["prepare", "update", "start", "wait"]


def test_a_failed_preparation_rejects_the_task() -> None:
    bench = Bench("prepare")
    bench.run()
    bench.finish("prepare", Failed("No such image: x:y"))
    status = bench.last()
    assert (status.state, status.message, status.err) == (types_pb2.REJECTED, "preparing", "No such image: x:y")
    assert status.HasField("container")


def test_a_failed_start_fails_the_task() -> None:
    bench = Bench("start")
    bench.run()
    bench.finish("start", Failed("starting container failed: no such file", exit_code=127))
    status = bench.last()
    assert (status.state, status.message, status.container.exit_code) == (types_pb2.FAILED, "starting", 127)


def test_a_temporary_failure_is_tried_again_after_a_second() -> None:
    bench = Bench("prepare")
    bench.run()
    bench.finish("prepare", Failed("registry is busy", temporary=True))
    status = bench.last()
    assert (status.state, status.err) == (types_pb2.PREPARING, "registry is busy")
    later(bench.simulator, 0.9)
    assert bench.names == ["prepare"]
    later(bench.simulator, 0.2)
    assert bench.names == ["prepare", "prepare"]
    bench.finish("prepare", Done())
    assert bench.last().err == ""


def test_an_update_during_the_pause_after_a_failure_does_not_wait_for_it() -> None:
    bench = Bench("prepare")
    bench.run()
    bench.finish("prepare", Failed("registry is busy", temporary=True))
    bench.update(types_pb2.SHUTDOWN)
    assert bench.last().state == types_pb2.SHUTDOWN
    later(bench.simulator, 5)
    assert bench.names == ["prepare", "update", "shutdown"]


def test_shutting_down_interrupts_the_wait() -> None:
    bench = Bench("shutdown")
    bench.run()
    bench.told()
    bench.update(types_pb2.SHUTDOWN)
    assert bench.names == ["prepare", "start", "wait", "update", "shutdown"]
    assert bench.told() == [], "a task that is being stopped is still running"
    bench.finish("shutdown", Done(types_pb2.ContainerStatus(container_id="c", exit_code=137)))
    status = bench.last()
    assert (status.state, status.message, status.container.exit_code) == (types_pb2.SHUTDOWN, "shutdown", 137)


def test_an_end_that_comes_before_the_interruption_counts() -> None:
    bench = Bench()
    bench.run()
    operation = bench.executor.controllers["t1"].open[0]
    operation.finish(Failed("task: non-zero exit (1)", exit_code=1))
    bench.update(types_pb2.SHUTDOWN)
    assert bench.last().state == types_pb2.FAILED
    assert "shutdown" not in bench.names


def test_a_wish_to_remove_a_task_shuts_it_down_and_says_shutdown() -> None:
    bench = Bench()
    bench.run()
    bench.update(types_pb2.REMOVE)
    assert bench.last().state == types_pb2.SHUTDOWN


def test_a_task_no_controller_can_be_made_for_is_rejected() -> None:
    bench = Bench()
    bench.executor.rejects["t1"] = "no network here"
    bench.run()
    status = bench.last()
    assert (status.state, status.message, status.err) == (
        types_pb2.REJECTED,
        "resolving controller failed",
        "no network here",
    )
    bench.update(types_pb2.SHUTDOWN)
    assert bench.told() == []
    bench.tell(RemoveTask())
    assert bench.agent.expect(TaskRemoved).task_id == "t1"


def test_a_failed_life_finds_the_task_and_never_starts_it_twice() -> None:
    bench = Bench()
    bench.run()
    running = bench.told()[-1]
    first = bench.executor.controllers["t1"]
    bench.address.resolve().failed(RuntimeError("broken"), None)  # type: ignore[union-attr]
    bench.agent.expect(TaskLife, within=1)
    assert first.closed
    bench.tell(RunTask(bare(task()), running))
    assert bench.executor.starts == 1
    assert bench.executor.under_way("t1") == "wait"
    assert bench.told() == []


def test_a_life_that_knows_less_than_the_executor_catches_up() -> None:
    bench = Bench()
    bench.executor.running.append("t1")
    bench.run(state=types_pb2.PREPARING)
    assert bench.last().state == types_pb2.RUNNING
    assert bench.executor.starts == 0


def test_what_was_said_before_a_life_knew_its_task_is_not_lost() -> None:
    bench = Bench()
    bench.update(types_pb2.SHUTDOWN)
    bench.run(types_pb2.SHUTDOWN)
    assert bench.names == ["shutdown"]
    assert bench.last().state == types_pb2.SHUTDOWN


def test_removal_interrupts_whatever_is_under_way_and_ends_the_actor() -> None:
    bench = Bench("remove")
    bench.run()
    bench.tell(RemoveTask())
    assert bench.executor.under_way("t1") == "remove"
    assert TaskRemoved("t1") not in bench.agent.messages
    bench.finish("remove", Done())
    bench.agent.expect(TaskRemoved)
    bench.simulator.settle()
    assert bench.address.resolve() is None
    assert bench.executor.controllers["t1"].closed


def test_a_removal_that_fails_for_now_is_tried_a_few_times_and_then_given_up() -> None:
    bench = Bench("remove")
    bench.executor.outcomes["remove"] = lambda _: Failed("device is busy", temporary=True)
    bench.run()
    bench.tell(RemoveTask())
    bench.agent.expect(TaskRemoved, within=10)
    assert bench.names.count("remove") == REMOVE_TRIES


def test_a_removal_that_fails_for_good_lets_go() -> None:
    bench = Bench("remove")
    bench.run()
    bench.tell(RemoveTask())
    bench.finish("remove", Failed("no such container"))
    bench.agent.expect(TaskRemoved)


def test_ending_the_actor_stops_nothing() -> None:
    bench = Bench()
    bench.run()
    bench.address.resolve().request_stop()  # type: ignore[union-attr]
    bench.simulator.settle()
    assert bench.executor.controllers["t1"].closed
    assert bench.executor.running == ["t1"]


def test_logs_are_read_beside_other_operations_and_can_be_broken_off() -> None:
    bench = Bench()
    bench.run()
    ended: list[str | None] = []
    question = ReadLogs(LogOptions(follow=True), lambda line: None, ended.append)
    cancel = bench.simulator.ask(bench.address, question)
    cancel()
    assert ended == [None]
    assert bench.executor.under_way("t1") == "wait"


def test_a_reading_that_comes_first_waits_for_the_task() -> None:
    bench = Bench()
    future = bench.address.ask(ReadLogs(LogOptions(), lambda line: None, lambda error: None))
    bench.simulator.settle()
    assert not future.done
    bench.run()
    assert callable(future.result(0))


def test_a_rejected_task_has_no_logs() -> None:
    bench = Bench()
    bench.executor.rejects["t1"] = "no"
    bench.run()
    assert bench.simulator.ask(bench.address, ReadLogs(LogOptions(), lambda line: None, lambda error: None)) is None


def test_an_executor_gets_the_payloads_that_its_task_refers_to_and_no_others() -> None:
    bench = Bench()
    made = task(secrets=("secret-1", "secret-2"))
    made.spec.container.env.append("X={{.Node.Hostname}}")
    bench.dependencies.secrets = {
        "secret-1": objects_pb2.Secret(id="secret-1"),
        "secret-3": objects_pb2.Secret(id="secret-3"),
    }
    bench.dependencies.secrets["secret-1"].spec.data = b"hidden"
    bench.run(made=made)
    context = bench.executor.controllers["t1"].context
    assert context.secret("secret-1") == b"hidden"
    assert context.expand("{{.Node.Hostname}}/{{.Task.Slot}}") == "host1/1"
    for missing in ("secret-2", "secret-3"):
        with pytest.raises(Refused):
            context.secret(missing)
    with pytest.raises(Refused):
        context.expand("{{.Nope}}")


# Looking at it, and waiting for its end


class Seen(FakeController):
    """One that can be looked at."""

    looks: list[tuple[Any, OnLooked]]

    def look(self, question: Any, done: OnLooked) -> Any:
        self.looks = [*getattr(self, "looks", []), (question, done)]


def test_a_question_goes_to_the_executor_beside_the_operation_under_way() -> None:
    bench = Bench()
    bench.run()
    controller = bench.executor.controllers["t1"]
    controller.__class__ = Seen
    first, second = bench.address.ask(InspectTask(Top())), bench.address.ask(InspectTask(Top("-x")))
    bench.simulator.settle()
    assert bench.executor.under_way("t1") == "wait"
    (asked, done), (other, refuse) = controller.looks  # type: ignore[attr-defined]
    assert (asked, other) == (Top(), Top("-x"))
    done("seen")
    refuse(Refused(Code.FAILED_PRECONDITION, "not now"))
    bench.simulator.settle()
    assert first.result(0) == "seen"
    with pytest.raises(Refused, match="not now"):
        second.result(0)


def test_a_task_whose_executor_shows_nothing_says_so() -> None:
    bench = Bench()
    bench.run()
    asked = bench.address.ask(InspectTask(Top()))
    bench.simulator.settle()
    with pytest.raises(Refused) as refused:
        asked.result(0)
    assert refused.value.code is Code.UNIMPLEMENTED


def waits(bench: Bench) -> dict[Until, list[int | None]]:
    told: dict[Until, list[int | None]] = {}
    for until in Until:
        told[until] = []
        bench.address.ask(AwaitTask(until, told[until].append))
    bench.simulator.settle()
    return told


def test_who_waits_hears_each_at_its_time() -> None:
    bench = Bench()
    bench.run()
    told = waits(bench)
    assert told == {Until.NOT_RUNNING: [], Until.NEXT_EXIT: [], Until.REMOVED: []}
    bench.finish("wait", Failed("task: non-zero exit (3)", exit_code=3))
    assert told == {Until.NOT_RUNNING: [3], Until.NEXT_EXIT: [3], Until.REMOVED: []}
    bench.tell(RemoveTask())
    assert told == {Until.NOT_RUNNING: [3], Until.NEXT_EXIT: [3], Until.REMOVED: [3]}


def test_of_one_that_has_ended_only_its_removal_is_waited_for_and_its_next_end_comes_with_that() -> None:
    bench = Bench()
    bench.run()
    bench.finish("wait", Failed("task: non-zero exit (3)", exit_code=3))
    told = waits(bench)
    assert told == {Until.NOT_RUNNING: [3], Until.NEXT_EXIT: [], Until.REMOVED: []}
    bench.tell(RemoveTask())
    assert told == {Until.NOT_RUNNING: [3], Until.NEXT_EXIT: [3], Until.REMOVED: [3]}


def test_one_that_was_not_started_does_not_run() -> None:
    bench = Bench()
    bench.run(types_pb2.READY)
    assert waits(bench) == {Until.NOT_RUNNING: [0], Until.NEXT_EXIT: [], Until.REMOVED: []}


def test_who_asks_before_the_task_is_known_is_answered_when_it_is() -> None:
    bench = Bench()
    told = waits(bench)
    assert told[Until.NOT_RUNNING] == []
    bench.run(state=types_pb2.COMPLETE)
    bench.tell(RemoveTask())
    assert told[Until.REMOVED] == [0]


def test_who_gave_up_waiting_hears_nothing() -> None:
    bench = Bench()
    bench.run()
    told: list[int | None] = []
    asked = bench.address.ask(AwaitTask(Until.NEXT_EXIT, told.append))
    bench.simulator.settle()
    asked.result(0)()
    bench.simulator.settle()
    bench.finish("wait", Done(types_pb2.ContainerStatus(container_id="c")))
    assert told == []


def test_a_life_that_fails_has_who_waits_ask_again() -> None:
    bench = Bench()
    bench.run()
    told = waits(bench)
    cell = bench.stage.cells["/task"]
    cell.control(lambda: cell.failed(RuntimeError("x"), None))
    bench.simulator.settle()
    assert told == {Until.NOT_RUNNING: [None], Until.NEXT_EXIT: [None], Until.REMOVED: [None]}
