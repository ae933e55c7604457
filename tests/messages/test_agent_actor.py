"""AgentActor: what is assigned is durable, then runs, then is reported; also across restarts of every kind."""

from __future__ import annotations

import random
from typing import Any

import pytest

from actors.agent_actor import AgentActor
from actors.session_actor import SessionActor
from runtime.disk.data_root import TASK_DATABASE
from runtime.disk.memory import MemoryDisk
from runtime.disk.tasks import StoredTask, TaskDatabase
from runtime.errors import Code, Refused
from runtime.executor.port import Done, Failed, LogOptions, Orphan
from runtime.failpoints import armed
from runtime.protocol.agent import (
    AgentSetup,
    Assignments,
    DropTasks,
    Managers,
    SessionBegan,
    SessionDown,
    SessionUp,
    TaskLife,
    TaskProgress,
    TaskRemoved,
)
from runtime.protocol.cluster import LocalLogs, LocalTasks
from runtime.stage import Stage
from runtime.stage.probe import Probe
from runtime.stage.simulator import Simulator
from runtime.swarm.ingress_tables import PREFIX, PublishedPort, encode
from runtime.wire.pb import objects_pb2, types_pb2
from tests.unit.agent import dispatcher
from tests.unit.agent.dispatcher import SOCKET, later, silence, task
from tests.unit.agent.executor import FakeExecutor

RUNNING, SHUTDOWN, REMOVE = types_pb2.RUNNING, types_pb2.SHUTDOWN, types_pb2.REMOVE


class Crash(Exception):
    """What a failpoint raises."""


class Bench:
    """A node's agent with a manager beside it, a disk and an executor that outlast the agent."""

    def __init__(self, seed: int = 3) -> None:
        self.simulator = Simulator(seed)
        self.network = dispatcher.network(self.simulator)
        self.transport = self.network.transport("n1")
        self.disk = MemoryDisk()
        self.executor = FakeExecutor()
        self.manager = dispatcher.Manager(self.transport)
        self.setup = AgentSetup("n1", "host1", dispatcher.worker())
        self.lives = 0
        self.start()

    def start(self) -> None:
        self.lives += 1
        self.stage: Stage = self.simulator.node(
            f"n1-{self.lives}", transport=self.transport, disk=self.disk, executor=self.executor
        )
        self.node = Probe(self.simulator, self.stage, "node")
        self.agent = self.stage.mount("agent", AgentActor, self.node.address, self.setup)
        self.agent.tell(Managers(SOCKET))
        self.node.expect(SessionUp)
        later(self.simulator, 0.1)

    def kill(self, power_cut: random.Random | None = None) -> None:
        """The process dies: nothing is closed, the executor's tasks go on. A power cut takes what was not synced."""
        self.simulator.crash(self.stage)
        self.network.crash("n1")
        self.transport = self.network.transport("n1")
        if power_cut is not None:
            self.disk.crash(power_cut)
        else:
            self.disk.kill()
        for controller in self.executor.controllers.values():
            controller.open.clear()
        self.manager = dispatcher.Manager(self.transport)

    def restart(self) -> None:
        self.kill()
        self.start()

    def assign(self, *tasks: objects_pb2.Task, **more: Any) -> None:
        self.manager.assign(*tasks, **more)
        later(self.simulator, 0.2)

    def stored(self) -> dict[str, StoredTask]:
        """What the task database holds now, read beside the agent."""
        image = MemoryDisk()
        database = image.open_database(TASK_DATABASE)
        source = self.actor.database._db
        database.write(list(source.iterate(b"", b"\xff")), sync=True)
        return {each.task.id: each for each in TaskDatabase(database).load()}

    @property
    def actor(self) -> AgentActor:
        cell = self.agent.resolve()
        assert cell is not None
        assert isinstance(cell.instance, AgentActor)
        return cell.instance

    def state(self, task_id: str = "t1") -> int:
        return int(self.manager.last(task_id).state)


# Published services

WEB = PublishedPort(8080)


class Edge:
    """An ingress edge that takes note."""

    def __init__(self) -> None:
        self.applied: list[Any] = []

    def apply(self, routes: Any, done: Any) -> None:
        self.applied.append({port: [each.host for each in backends] for port, backends in routes.items()})
        done({})


def table(service: str, *hosts: str) -> objects_pb2.Config:
    made = objects_pb2.Config(id=PREFIX + service)
    made.spec.data = encode(
        [(WEB, 80)], [(f"t{number}", host, {("tcp", 80): 9000}) for number, host in enumerate(hosts)]
    )
    return made


def test_tables_of_published_services_reach_the_edge_in_every_life_and_go_with_the_node() -> None:
    bench = Bench()
    edge = bench.stage.world.ingress = Edge()
    bench.assign(task(), configs=(table("web", "10.0.0.1"),))
    assert edge.applied == [{WEB: ["10.0.0.1"]}]
    bench.assign(configs=(table("web", "10.0.0.1", "10.0.0.2"),))
    assert edge.applied[-1] == {WEB: ["10.0.0.1", "10.0.0.2"]}
    count = len(edge.applied)
    bench.assign(task("t2"))
    assert len(edge.applied) == count
    cell = bench.stage.cells["/agent/ingress"]
    cell.control(lambda: cell.failed(RuntimeError("broken by the test"), None))
    later(bench.simulator, 1)
    assert edge.applied[-1] == {WEB: ["10.0.0.1", "10.0.0.2"]}
    bench.agent.tell(DropTasks())
    later(bench.simulator, 1)
    assert edge.applied[-1] == {}


# Assignments


def test_an_assigned_task_runs_and_the_manager_hears_of_it() -> None:
    bench = Bench()
    bench.assign(task())
    assert bench.executor.names("t1") == ["prepare", "start", "wait"]
    status = bench.manager.last("t1")
    assert (status.state, status.message, status.container.container_id) == (RUNNING, "started", "container-t1")
    assert bench.stored()["t1"].status == status


def test_a_task_is_on_the_disk_before_its_executor_hears_of_it() -> None:
    bench = Bench()
    seen: list[bool] = []

    def prepare(task_id: str) -> Done:
        seen.append(task_id in bench.stored())
        return Done()

    bench.executor.outcomes["prepare"] = prepare
    bench.assign(task())
    assert seen == [True]


def test_a_change_reaches_the_task_and_the_disk() -> None:
    bench = Bench()
    bench.assign(task())
    bench.assign(task(desired=SHUTDOWN))
    assert bench.state() == SHUTDOWN
    assert bench.stored()["t1"].task.desired_state == SHUTDOWN


def test_the_tasks_of_this_node_are_told_with_how_far_they_came() -> None:
    bench = Bench()
    bench.assign(task("t1"), task("t2"))
    told = bench.simulator.ask(bench.agent, LocalTasks())
    assert {task.id: status.state for task, status in told} == {"t1": RUNNING, "t2": RUNNING}


def test_the_log_of_a_task_of_this_node_is_read_without_a_manager() -> None:
    bench = Bench()
    bench.assign(task("t1"))
    lines: list[Any] = []
    ends: list[Any] = []
    options = LogOptions(follow=True)
    cancel = bench.simulator.ask(bench.agent, LocalLogs("t1", options, lines.append, ends.append))
    (reading,) = bench.executor.controllers["t1"].readings
    assert reading.options == options
    reading.on_line("line")
    cancel()
    assert lines == ["line"]
    with pytest.raises(Refused) as refused:
        bench.simulator.ask(bench.agent, LocalLogs("gone", options, lines.append, ends.append))
    assert refused.value.code is Code.NOT_FOUND


def test_what_is_told_again_unchanged_disturbs_nothing() -> None:
    bench = Bench()
    bench.assign(task())
    again = task()
    again.status.state = RUNNING
    again.meta.version.index = 99
    bench.assign(again)
    assert bench.executor.names("t1") == ["prepare", "start", "wait"]


def test_a_lower_desired_state_is_refused() -> None:
    bench = Bench()
    bench.assign(task(desired=SHUTDOWN))
    bench.assign(task(desired=RUNNING))
    assert bench.state() == SHUTDOWN
    assert bench.stored()["t1"].task.desired_state == SHUTDOWN
    assert bench.executor.starts == 0


def test_a_task_that_is_no_longer_assigned_is_removed() -> None:
    bench = Bench()
    bench.assign(task())
    bench.assign(removed=("t1",))
    assert bench.executor.running == []
    assert bench.executor.names("t1")[-1] == "remove"
    assert bench.stored() == {}
    assert bench.actor.tasks == {}
    parts = {f"/agent/{name}" for name in ("session", "logs", "ingress", "access")}
    assert bench.stage.cells.keys() == {"/node", "/agent", *parts}


def test_a_complete_set_removes_what_it_does_not_name() -> None:
    bench = Bench()
    bench.assign(task("t1"), task("t2"))
    bench.assign(task("t2"), task("t3"), complete=True)
    assert sorted(bench.executor.running) == ["t2", "t3"]
    assert bench.executor.names("t2") == ["prepare", "start", "wait"]
    assert sorted(bench.stored()) == ["t2", "t3"]


def test_removing_what_is_not_here_is_fine() -> None:
    bench = Bench()
    bench.assign(task())
    bench.assign(removed=("t9", "t9"))
    assert bench.executor.running == ["t1"]


def test_a_task_that_comes_back_while_it_is_being_removed_runs_again_afterwards() -> None:
    bench = Bench()
    bench.executor.quick = ("update", "prepare", "start", "shutdown")
    bench.assign(task())
    bench.assign(removed=("t1",))
    bench.assign(task())
    assert bench.executor.under_way("t1") == "remove"
    bench.executor.finish("t1", "remove")
    later(bench.simulator, 1.0)
    assert bench.executor.names("t1") == ["prepare", "start", "wait", "remove", "prepare", "start", "wait"]
    assert bench.state() == RUNNING
    assert bench.stored()["t1"].task.desired_state == RUNNING


def test_a_task_removed_again_before_it_came_back_stays_away() -> None:
    bench = Bench()
    bench.executor.quick = ("update", "prepare", "start", "shutdown")
    bench.assign(task())
    bench.assign(removed=("t1",))
    bench.assign(task())
    bench.assign(removed=("t1",))
    bench.executor.finish("t1", "remove")
    later(bench.simulator, 1.0)
    assert bench.actor.tasks == {}
    assert bench.executor.starts == 1


def test_a_task_that_comes_back_at_any_moment_of_its_end_runs_again() -> None:
    """Whatever the actor of the old one is doing: the order of turns differs by seed."""
    for seed in range(25):
        bench = Bench(seed)
        bench.assign(task())
        bench.manager.assign(removed=("t1",))
        bench.simulator.run_until(lambda bench=bench: not bench.executor.running)  # type: ignore[misc]
        for _ in range(seed):
            bench.simulator.step()
        bench.manager.assign(task())
        later(bench.simulator, 1.0)
        assert bench.executor.running == ["t1"], f"seed {seed}"
        assert bench.stored()["t1"].task.desired_state == RUNNING
        assert bench.actor.tasks["t1"].status.state == RUNNING


def test_a_task_is_not_run_again_before_the_actor_of_its_earlier_run_is_gone() -> None:
    hits = 0
    for seed in range(40):
        bench = Bench(seed)
        bench.assign(task())
        bench.manager.assign(removed=("t1",))
        bench.simulator.run_until(lambda bench=bench: "t1" not in bench.actor.tasks)  # type: ignore[misc]
        hits += bench.stage.at("/agent/task-t1").resolve() is not None
        message = dispatcher.pb.AssignmentsMessage(type=dispatcher.pb.AssignmentsMessage.INCREMENTAL)
        message.changes.add().assignment.task.CopyFrom(task())
        bench.agent.tell(Assignments(message))
        later(bench.simulator, 1.0)
        assert bench.executor.running == ["t1"]
        assert not bench.stage.observations.crashes
    assert hits > 0, "no seed met the moment"


def test_a_rejected_task_is_reported_and_kept_until_it_is_taken_away() -> None:
    bench = Bench()
    bench.executor.rejects["t1"] = "not for me"
    bench.assign(task())
    assert bench.state() == types_pb2.REJECTED
    bench.assign(removed=("t1",))
    assert bench.actor.tasks == {}


# Secrets and configs


def secret(id: str, data: bytes) -> objects_pb2.Secret:
    made = objects_pb2.Secret(id=id)
    made.spec.data = data
    return made


def test_secrets_reach_the_tasks_and_never_the_disk() -> None:
    bench = Bench()
    bench.assign(task(secrets=("s1",)), secrets=(secret("s1", b"very hidden"),))
    assert bench.executor.controllers["t1"].context.secret("s1") == b"very hidden"
    kept = b"".join(key + value for key, value in bench.actor.database._db.iterate(b"", b"\xff"))
    assert b"t1" in kept
    assert b"very hidden" not in kept


def test_a_task_that_had_not_run_waits_after_a_restart_for_its_secrets() -> None:
    bench = Bench()
    bench.executor.quick = ("update", "start", "shutdown", "remove")
    bench.assign(task(secrets=("s1",)), task("t2"), secrets=(secret("s1", b"hidden"),))
    assert bench.executor.under_way("t1") == "prepare"
    bench.restart()
    assert bench.executor.names("t1") == ["prepare"], "it was not begun again without its secret"
    assert bench.executor.names("t2") == ["prepare", "prepare"]
    bench.assign(task(secrets=("s1",)), task("t2"), secrets=(secret("s1", b"hidden"),))
    assert bench.executor.names("t1") == ["prepare", "prepare"]
    assert bench.executor.controllers["t1"].context.secret("s1") == b"hidden"
    assert bench.executor.names("t2") == ["prepare", "prepare"], "who was told nothing new is not disturbed"


def test_a_waiting_task_that_is_taken_away_is_removed_all_the_same() -> None:
    bench = Bench()
    bench.executor.quick = ("update", "start", "shutdown", "remove")
    bench.assign(task(secrets=("s1",)), secrets=(secret("s1", b"hidden"),))
    bench.restart()
    bench.assign()
    assert bench.executor.names("t1")[-1] == "remove"
    assert bench.stored() == {}


# Restarts


def test_a_restarted_agent_finds_its_tasks_again_and_reports_them_before_anything_is_assigned() -> None:
    bench = Bench()
    bench.assign(task("t1"), task("t2"))
    bench.restart()
    assert bench.executor.starts == 2
    assert bench.executor.under_way("t1") == "wait"
    assert bench.manager.streams
    assert bench.state("t1") == bench.state("t2") == RUNNING
    bench.assign(task("t1"), task("t2"))
    assert bench.executor.starts == 2


def test_a_task_that_ended_while_nobody_looked_is_reported() -> None:
    bench = Bench()
    bench.assign(task())
    bench.kill()
    bench.executor.outcomes["wait"] = lambda _: Failed("task: non-zero exit (9)", exit_code=9)
    bench.start()
    assert bench.manager.last("t1").err == "task: non-zero exit (9)"


def test_a_removal_goes_on_after_a_restart() -> None:
    bench = Bench()
    bench.executor.quick = ("update", "prepare", "start", "shutdown")
    bench.assign(task("t1"), task("t2"))
    bench.assign(removed=("t1",))
    bench.restart()
    bench.executor.quick += ("remove",)
    assert bench.executor.running == ["t2"], "the task does not outlive the wish to remove it"
    bench.assign(task("t2"))
    assert sorted(bench.stored()) == ["t2"]
    assert bench.executor.running == ["t2"]


@pytest.mark.parametrize(
    "point",
    ["agent.assignment_persisted_unacked", "agent.task_started_status_unsaved", "agent.status_saved_unsent"],
)
def test_a_failure_at_any_named_place_loses_no_task_and_starts_none_twice(point: str) -> None:
    bench = Bench()
    crashes: list[str] = []

    def crash(name: str) -> None:
        if name == point and not crashes:
            crashes.append(name)
            raise Crash(name)

    with armed(crash):
        bench.assign(task())
        bench.simulator.run_until(lambda: bool(crashes))
        bench.agent.tell(Managers(SOCKET))
        later(bench.simulator, 1.0)
        bench.agent.tell(Managers(SOCKET))
        bench.node.expect(SessionUp)
        later(bench.simulator, 0.1)
        bench.assign(task())
    assert bench.executor.starts == 1
    assert bench.state() == RUNNING
    assert bench.stored()["t1"].status == bench.manager.last("t1")


def test_power_cuts_at_random_moments_lose_no_task() -> None:
    for seed in range(20):
        bench = Bench(seed)
        bench.manager.assign(*(task(f"t{number}") for number in range(5)))
        rng = random.Random(seed)
        for _ in range(rng.randrange(200)):
            bench.simulator.step()
        bench.kill(rng)
        bench.start()
        bench.assign(*(task(f"t{number}") for number in range(5)))
        assert len(set(bench.executor.running)) == bench.executor.starts == 5, f"seed {seed}"
        assert all(bench.state(f"t{number}") == RUNNING for number in range(5))


def test_a_failed_disk_fails_the_agent_and_the_next_life_reads_it_anew() -> None:
    bench = Bench()
    bench.assign(task("t1"))
    bench.disk.image(TASK_DATABASE).sync_error_at(0)
    bench.assign(task("t2"))
    later(bench.simulator, 1.0)
    bench.agent.tell(Managers(SOCKET))
    bench.node.expect(SessionUp)
    later(bench.simulator, 0.1)
    bench.assign(task("t1"), task("t2"))
    assert bench.executor.starts == 2
    assert bench.state("t2") == RUNNING


def test_what_an_earlier_lifes_children_said_is_left_unheard() -> None:
    bench = Bench()
    bench.assign(task("t1", secrets=("s1",)), secrets=(secret("s1", b"hidden"),))
    bench.executor.quick = ("update", "start", "shutdown", "remove")
    change = dispatcher.pb.AssignmentsMessage(type=dispatcher.pb.AssignmentsMessage.INCREMENTAL)
    change.changes.add().assignment.task.CopyFrom(task("t2", secrets=("s1",)))
    cell = bench.agent.resolve()
    assert cell is not None
    for message in (
        Assignments(change),
        TaskRemoved("t1"),
        TaskLife("t7"),
        TaskProgress("t1", types_pb2.TaskStatus(state=types_pb2.COMPLETE)),
        SessionBegan("old", "unix:/nowhere"),
    ):
        bench.agent.tell(message)
    cell.failed(RuntimeError("broken"), None)
    later(bench.simulator, 0.5)
    assert cell.failures.total == 1
    assert bench.node.expect(SessionDown).text == "the agent failed"
    assert list(bench.actor.tasks) == ["t1"]
    assert bench.actor.tasks["t1"].status.state == RUNNING
    assert bench.actor.target is None
    assert "t2" not in bench.executor.controllers
    assert sorted(bench.stored()) == ["t1"]


def test_an_agent_that_fails_again_before_it_began_hears_no_more_of_the_past() -> None:
    bench = Bench()
    bench.assign(task("t1"))
    cell = bench.agent.resolve()
    assert cell is not None
    for _ in range(2):
        bench.agent.tell(TaskLife("t7"))
        cell.failed(RuntimeError("broken"), None)
        bench.simulator.run_until(lambda: cell.instance is not None)
    later(bench.simulator, 0.5)
    assert cell.failures.total == 2
    assert bench.actor.begun
    assert list(bench.actor.tasks) == ["t1"]


def test_a_failed_task_actor_is_handed_its_task_again() -> None:
    bench = Bench()
    bench.assign(task())
    cell = bench.stage.at("/agent/task-t1").resolve()
    assert cell is not None
    cell.failed(RuntimeError("broken"), None)
    later(bench.simulator, 1.0)
    assert bench.executor.names("t1") == ["prepare", "start", "wait", "wait"]
    bench.executor.finish("t1", "wait", Done())
    later(bench.simulator, 0.1)
    assert bench.state() == types_pb2.COMPLETE


def test_a_failed_session_is_told_of_the_managers_again() -> None:
    bench = Bench()
    cell = bench.stage.at("/agent/session").resolve()
    assert cell is not None
    assert isinstance(cell.instance, SessionActor)
    cell.failed(RuntimeError("broken"), None)
    bench.node.expect(SessionUp)
    bench.assign(task())
    assert bench.state() == RUNNING


def test_tasks_whose_keeper_was_lost_are_only_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.kill()
    bench.executor.lost = [Orphan("t7", "exit code unknown")]
    bench.start()
    assert "t7" in caplog.text
    assert bench.actor.tasks == {}


# Reports


def test_reports_that_fail_are_sent_again_in_the_next_session() -> None:
    bench = Bench()
    bench.manager.report_error = Refused(Code.UNAVAILABLE, "busy")
    bench.assign(task())
    bench.manager.report_error = None
    bench.manager.reports.clear()
    bench.node.expect(SessionDown)
    bench.node.expect(SessionUp)
    later(bench.simulator, 2.0)
    assert bench.state() == RUNNING


def test_while_a_report_is_under_way_only_the_newest_status_waits() -> None:
    bench = Bench()
    bench.manager.hold_reports = True
    bench.executor.quick = ("update", "prepare", "shutdown", "remove")
    bench.assign(task())
    bench.executor.finish("t1", "start")
    later(bench.simulator, 0.1)
    bench.executor.finish("t1", "wait", Done())
    later(bench.simulator, 0.1)
    assert len(bench.manager.reports) == 1
    bench.manager.hold_reports = False
    bench.manager.held[0].reply(dispatcher.pb.UpdateTaskStatusResponse())
    later(bench.simulator, 0.1)
    assert len(bench.manager.reports) == 2
    assert bench.state() == types_pb2.COMPLETE


def test_a_report_that_nobody_answers_is_sent_again_in_the_same_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.agent_actor.REPORT_TIMEOUT", 0.5)
    bench = Bench()
    bench.assign(task())
    bench.manager.hold_reports = True
    bench.executor.finish("t1", "wait", Done())
    later(bench.simulator, 0.2)
    bench.manager.hold_reports = False
    bench.manager.reports.clear()
    later(bench.simulator, 2.0)
    assert bench.state() == types_pb2.COMPLETE
    assert len(bench.manager.sessions) == 1


def test_every_status_is_reported_again_at_the_beginning_of_a_session() -> None:
    bench = Bench()
    bench.assign(task("t1"), task("t2"))
    bench.manager.reports.clear()
    bench.manager.sessions[-1].end()
    bench.node.expect(SessionDown)
    bench.node.expect(SessionUp)
    later(bench.simulator, 0.1)
    assert bench.state("t1") == bench.state("t2") == RUNNING


def test_a_removed_task_is_not_reported_again() -> None:
    bench = Bench()
    bench.assign(task())
    bench.assign(removed=("t1",))
    bench.manager.reports.clear()
    bench.manager.sessions[-1].end()
    bench.node.expect(SessionDown)
    bench.node.expect(SessionUp)
    later(bench.simulator, 0.5)
    assert bench.manager.reports == []


def test_a_hundred_tasks_cost_a_few_synced_writes_and_a_few_calls() -> None:
    bench = Bench()
    writes: list[int] = []
    database = bench.actor.database._db
    write = database.write

    def counted(puts: Any, deletes: Any = (), **how: Any) -> None:
        writes.append(len(list(puts)))
        write(puts, deletes, **how)

    database.write = counted  # type: ignore[method-assign]
    bench.assign(*(task(f"t{number:03}") for number in range(100)))
    assert bench.executor.starts == 100
    assert all(bench.state(f"t{number:03}") == RUNNING for number in range(100))
    assert len(writes) < 60, "the statuses of many tasks share a write"
    assert len(bench.manager.reports) < 30


# Leaving


def test_leaving_ends_and_forgets_every_task_before_it_is_answered() -> None:
    bench = Bench()
    bench.executor.quick = ("update", "prepare", "start", "shutdown")
    bench.assign(task("t1"), task("t2"))
    left = bench.agent.ask(DropTasks())
    later(bench.simulator, 1.0)
    assert not left.done
    bench.executor.finish("t1", "remove")
    later(bench.simulator, 1.0)
    assert not left.done
    bench.executor.finish("t2", "remove")
    later(bench.simulator, 0.1)
    assert left.done
    assert bench.executor.running == []
    assert bench.stored() == {}


def test_who_leaves_takes_nothing_more() -> None:
    bench = Bench()
    bench.simulator.ask(bench.agent, DropTasks())
    bench.assign(task())
    assert bench.executor.controllers == {}
    assert bench.simulator.ask(bench.agent, DropTasks()) is None
    silence(bench.simulator, bench.node, SessionDown)


def test_a_task_that_was_to_come_back_does_not_keep_a_node_from_leaving() -> None:
    bench = Bench()
    bench.executor.quick = ("update", "prepare", "start", "shutdown")
    bench.assign(task())
    bench.assign(removed=("t1",))
    bench.assign(task())
    left = bench.agent.ask(DropTasks())
    later(bench.simulator, 0.1)
    bench.executor.finish("t1", "remove")
    later(bench.simulator, 0.1)
    assert left.done
    assert bench.actor.tasks == {}


def test_an_agent_that_ends_while_it_leaves_says_so() -> None:
    bench = Bench()
    bench.executor.quick = ("update", "prepare", "start", "shutdown")
    bench.assign(task())
    left = bench.agent.ask(DropTasks())
    later(bench.simulator, 0.1)
    cell = bench.agent.resolve()
    assert cell is not None
    cell.request_stop()
    later(bench.simulator, 0.1)
    with pytest.raises(Refused, match="the agent ended"):
        left.result(0)
    assert bench.executor.running == ["t1"], "an agent that ends stops nothing"


def test_an_executor_hears_of_all_tasks_once_the_manager_has_said_them() -> None:
    bench = Bench()
    bench.assign(task("a"))
    bench.restart()
    bench.executor.heard.clear()
    later(bench.simulator, 1.0)
    assert bench.executor.heard == [], "nothing is known before the manager has said all"
    bench.assign(task("a"), task("b"))
    assert bench.executor.heard[-1] == {"a", "b"}
    bench.simulator.ask(bench.agent, DropTasks())
    assert bench.executor.heard[-1] == frozenset()


def test_the_end_of_an_agent_frees_its_database() -> None:
    bench = Bench()
    bench.assign(task())
    cell = bench.agent.resolve()
    assert cell is not None
    cell.request_stop()
    later(bench.simulator, 0.1)
    assert [each.task.id for each in TaskDatabase(bench.disk.open_database(TASK_DATABASE)).load()] == ["t1"]


def test_a_snapshot_shows_counts_and_no_secrets() -> None:
    bench = Bench()
    bench.assign(task(secrets=("s1",)), secrets=(secret("s1", b"hidden"),))
    assert bench.actor.snapshot()["tasks"] == 1
    change = dispatcher.pb.AssignmentsMessage()
    change.changes.add().assignment.secret.CopyFrom(secret("s1", b"hidden"))
    shown = repr([bench.actor.snapshot(), bench.actor.dependencies, Assignments(change), bench.setup])
    assert "hidden" not in shown


def test_equal_seeds_give_equal_histories() -> None:
    def history(seed: int) -> str:
        bench = Bench(seed)
        bench.assign(*(task(f"t{number}") for number in range(4)))
        bench.assign(removed=("t1",))
        return bench.simulator.digest

    assert history(1) == history(1)
    assert history(1) != history(2)


class Manager:
    """What a dispatcher would do: a complete set on every new stream, then changes."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.tasks: dict[str, objects_pb2.Task] = {}
        self.served: Any = None

    def serve(self) -> None:
        streams = self.bench.manager.streams
        if streams and streams[-1] is not self.served:
            self.served = streams[-1]
            self.bench.manager.assign(*self.tasks.values())

    def change(self, *tasks: objects_pb2.Task, removed: tuple[str, ...] = ()) -> None:
        self.serve()
        self.tasks.update({each.id: each for each in tasks})
        for task_id in removed:
            del self.tasks[task_id]
        if self.served is not None and self.served is self.bench.manager.streams[-1]:
            self.bench.manager.assign(*tasks, removed=removed)


def fail_actor(bench: Bench, path: str) -> None:
    cell = bench.stage.at(path).resolve()
    if cell is not None and cell.instance is not None:
        cell.failed(RuntimeError("broken by the test"), None)


def misfortune(bench: Bench, rng: random.Random, number: int) -> None:
    """One thing that goes wrong."""
    kind = rng.randrange(6)
    if kind == 0 and bench.manager.sessions:
        bench.manager.sessions[-1].end()
    elif kind == 1:
        fail_actor(bench, f"/agent/task-t{rng.randrange(number + 1)}")
    elif kind == 2:
        fail_actor(bench, rng.choice(["/agent/session", "/agent/logs"]))
    elif kind == 3:
        fail_actor(bench, "/agent")
    elif kind == 4:
        bench.kill(rng)
        bench.start()
    else:
        bench.manager.report_error = rng.choice([None, Refused(Code.UNAVAILABLE, "busy")])


@pytest.mark.parametrize("seed", range(30))
def test_whatever_goes_wrong_exactly_the_assigned_tasks_run_and_each_was_started_once(seed: int) -> None:
    bench = Bench(seed)
    rng = random.Random(seed)
    manager = Manager(bench)
    for number in range(25):
        gone = rng.choice(sorted(manager.tasks)) if manager.tasks and rng.random() < 0.4 else None
        manager.change(task(f"t{number}"), removed=(gone,) if gone else ())
        if rng.random() < 0.5:
            misfortune(bench, rng, number)
            bench.agent.tell(Managers(SOCKET))
        later(bench.simulator, rng.choice([0.0005, 0.01, 0.3]))
    bench.manager.report_error = None
    for _ in range(120):
        bench.agent.tell(Managers(SOCKET))
        later(bench.simulator, 1.0)
        manager.serve()
    assert sorted(bench.executor.running) == sorted(manager.tasks)
    starts = [name for name, operation in bench.executor.calls if operation == "start"]
    assert bench.executor.starts == len(set(starts)), "a task was started twice"
    assert sorted(bench.stored()) == sorted(manager.tasks)
    assert all(bench.state(task_id) == RUNNING for task_id in manager.tasks)
    assert sorted(bench.actor.tasks) == sorted(manager.tasks)
