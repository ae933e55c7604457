"""TestCluster: what tests may ask of it, under virtual time and over real sockets."""

from __future__ import annotations

import asyncio
import math
import sys

import pytest

from runtime.protocol.cluster import SubscribeEvents
from runtime.stage.simulator import Simulator, Stuck
from runtime.wire.pb import objects_pb2
from runtime.wire.pb.types_pb2 import RUNNING
from swarmlet import TestCluster
from swarmlet.testing import attempts
from swarmlet.testing.api import RequestRefused
from swarmlet.testing.ground import Refusal
from swarmlet.testing.loop import VirtualLoop
from swarmlet.testing.report import Fault, describe, shrink


def everyday(real: bool) -> None:
    """The same test on both grounds."""
    with TestCluster(managers=1, workers=2, seed=7, real=real) as c:
        service = c.create_service(replicas=4)
        c.wait_running(service, 4)
        assert c.leader == "manager-1"
        nodes = {each["Description"]["Hostname"]: each["Status"]["State"] for each in c.api().get("/nodes").value}
        assert nodes == dict.fromkeys(c.nodes, "ready")
        with c.trace("*/manager/raft", "Propose") as trace:
            c.scale(service, 6)
            c.wait_running(service, 6)
            c.run_until(lambda: bool(trace.deliveries))
        told = {(each.node, each.sender, each.path, each.type) for each in trace.deliveries}
        assert told == {("manager-1", "/cluster/node/manager/store", "/cluster/node/manager/raft", "Propose")}
        assert all(0 < each.at <= c.time and each.trace for each in trace.deliveries)
        assert trace.ended == []
        a_task_is_killed(c, service)
        c.crash_actor("/cluster/node/manager/leader/dispatcher")
        c.stop("worker-1")
        c.restart("worker-1")
        c.run_until(lambda: c.state("worker-1") == "active")
        c.wait_running(service, 6)
        assert c.api().delete(f"/services/{service}").status == 200
        c.run_until(lambda: not c.tasks(service))


def test_a_swarm_in_memory_is_used_as_a_real_one_is() -> None:
    everyday(real=False)


def test_the_same_test_runs_over_real_sockets_and_processes() -> None:
    everyday(real=True)


def a_leader_in_trouble(real: bool) -> None:
    """The same faults on both grounds: a leader that is killed, one that is cut off, a node that is held still."""
    with TestCluster(managers=3, workers=1, seed=7, real=real) as c:
        service = c.create_service(replicas=4)
        c.wait_running(service, 4)
        killed = c.leader
        c.crash(killed)
        with pytest.raises(AssertionError, match=f"{killed} is down"):
            c.state(killed)
        c.pause("worker-1", 2)
        cut_off = c.leader
        assert cut_off != killed
        c.restart(killed)
        c.run_until(lambda: c.state(killed) == "active" and c.state("worker-1") == "active")
        c.wait_running(service, 4)
        c.partition({cut_off})
        c.run_until(lambda: c.leader != cut_off)
        c.scale(service, 5)
        c.heal()
        c.run_until(lambda: c.state(cut_off) == "active" and bool(c.control("ListNodes", node=cut_off).nodes))
        c.wait_running(service, 5)
        c.crash_actor("/cluster/node/manager/leader/scheduler")
        c.run_until(lambda: "scheduler failed over (start): RuntimeError: failed by a test" in c.timeline())
        assert [fault.kind for fault in c.faults] == ["crash", "pause", "partition", "actor"]


def test_a_leader_in_trouble_is_replaced_in_memory() -> None:
    a_leader_in_trouble(real=False)


@pytest.mark.slow
def test_a_leader_in_trouble_is_replaced_over_real_sockets_and_processes() -> None:
    a_leader_in_trouble(real=True)


def a_skewed_node(real: bool) -> None:
    """A node's time of day is off on both grounds, in its next life too: its reports say when things were for it."""
    with TestCluster(managers=1, workers=1, seed=7, real=real) as c:
        for life in range(2):
            if life:
                c.crash("worker-1")
                c.restart("worker-1")
            else:
                c.skew("worker-1", 1800)
            service = c.create_service(f"life-{life}", spec={"Mode": {"Global": {}}})
            c.wait_running(service, 2)
            when = {node: task.status.timestamp.seconds for node, task in by_node(c, service).items()}
            assert 1700 < when["worker-1"] - when["manager-1"] < 1900


def by_node(c: TestCluster, service: str) -> dict[str, objects_pb2.Task]:
    names = {node.id: node.description.hostname for node in c.control("ListNodes").nodes}
    return {names[task.node_id]: task for task in c.tasks(service)}


def test_a_skewed_node_reports_by_its_own_clock_in_memory() -> None:
    a_skewed_node(real=False)


@pytest.mark.slow
def test_a_skewed_node_reports_by_its_own_clock_over_real_sockets_and_processes() -> None:
    a_skewed_node(real=True)


def test_a_real_ground_refuses_what_it_cannot_do_and_reports_what_its_nodes_logged() -> None:
    def failing() -> None:
        with TestCluster(real=True) as c:
            for fault in (
                lambda: c.crash("manager-1", power=True),
                lambda: c.swarm,
                lambda: c.ask(SubscribeEvents(lambda: None)),  # type: ignore[arg-type]
            ):
                with pytest.raises(Refusal):
                    fault()
            assert c.faults == []
            with pytest.raises(AssertionError, match="nobody lives at /cluster/nowhere on manager-1"):
                c.crash_actor("manager-1:/cluster/nowhere")
            c.crash_actor("manager-1:/cluster/node/agent")
            c.run_until(lambda: "manager-1:/cluster/node/agent failed over" in c.timeline())
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        failing()
    (note,) = caught.value.__notes__
    assert note.startswith("seed 0, 1 managers and 0 workers over real sockets, after ")
    assert " lines of the nodes:\n  manager-1: " in note
    assert "\n  manager-1: leads in term " in note
    assert ": : " not in note
    assert note.count("this node is ready: a manager of the swarm") == 1
    assert "actor manager-1:/cluster/node/agent" in note


@pytest.mark.slow
def test_real_workers_lose_their_tasks_to_others_while_they_are_cut_off_and_keep_them_when_killed() -> None:
    with TestCluster(managers=1, workers=2, real=True) as c:
        service = c.create_service(replicas=4)
        c.wait_running(service, 4)
        before = {task.id for task in c.tasks(service)}
        c.crash("worker-2")
        c.restart("worker-2")
        c.run_until(lambda: c.state("worker-2") == "active")
        c.wait_running(service, 4)
        assert {task.id for task in c.tasks(service)} == before
        c.partition({"worker-1"}, one_way=True)
        states = lambda: {n["Description"]["Hostname"]: n["Status"]["State"] for n in c.api().get("/nodes").value}  # noqa: E731
        c.run_until(lambda: states()["worker-1"] == "down")
        c.wait_running(service, 4)
        c.heal()
        c.run_until(lambda: set(states().values()) == {"ready"})


@pytest.mark.slow
def test_a_full_disk_of_a_real_node_is_told_of_and_a_restart_after_it_helps() -> None:
    with TestCluster(real=True) as c:
        service = c.create_service(replicas=1)
        c.wait_running(service, 1)
        c.disk_full("manager-1")
        assert c.api("manager-1").post("/services/create", {"Name": "x"}).status >= 400
        c.run_until(lambda: c.state("manager-1") == "error")
        c.heal()
        c.stop("manager-1")
        c.restart("manager-1")
        c.run_until(lambda: c.state("manager-1") == "active")
        c.wait_running(service, 1)


def test_a_node_that_is_cut_off_loses_its_tasks_to_others_until_the_network_is_healed() -> None:
    with TestCluster(managers=1, workers=2, seed=1) as c:
        service = c.create_service(replicas=6)
        c.wait_running(service, 6)
        c.partition({"worker-1"})
        c.advance(40)
        states = {each["Description"]["Hostname"]: each["Status"]["State"] for each in c.api().get("/nodes").value}
        assert states == {"manager-1": "ready", "worker-1": "down", "worker-2": "ready"}
        c.wait_running(service, 6)
        c.heal()
        c.run_until(lambda: all(each["Status"]["State"] == "ready" for each in c.api().get("/nodes").value))
        c.run_until(lambda: not c.swarm.host("worker-1").executor.running)


def test_a_one_way_partition_lets_the_other_direction_through() -> None:
    with TestCluster(managers=1, workers=1, seed=1) as c:
        one, two = c.swarm.host("manager-1").ip, c.swarm.host("worker-1").ip
        c.partition({"worker-1"}, one_way=True)
        assert c.swarm.network.blocked(two, one)
        assert not c.swarm.network.blocked(one, two)


def test_tasks_outlive_a_daemon_that_is_killed_but_not_a_machine_without_power() -> None:
    with TestCluster(managers=1, workers=1, seed=3) as c:
        service = c.create_service(replicas=4)
        c.wait_running(service, 4)
        executor = c.swarm.host("worker-1").executor
        before = executor.running
        assert before
        c.crash("worker-1")
        assert executor.running == before
        c.restart("worker-1")
        c.advance(30)
        assert executor.running == before
        c.crash("worker-1", power=True)
        assert executor.running == []
        c.restart("worker-1")
        c.advance(10)
        c.wait_running(service, 4)


def test_a_manager_that_loses_its_power_comes_back_with_its_services() -> None:
    with TestCluster(managers=1, workers=1, seed=5) as c:
        service = c.create_service(replicas=2)
        c.wait_running(service, 2)
        c.crash("manager-1", power=True)
        c.restart("manager-1")
        c.run_until(lambda: c.state("manager-1") == "active")
        c.wait_running(service, 2)


def test_a_full_disk_is_told_of_and_a_restart_after_it_helps() -> None:
    with TestCluster(seed=1) as c:
        c.disk_full("manager-1")
        c.api("manager-1").post("/services/create", {"Name": "x"})
        c.advance(30)
        assert c.state("manager-1") == "error"
        c.heal()
        c.stop("manager-1")
        c.restart("manager-1")
        c.run_until(lambda: c.state("manager-1") == "active")


def test_a_paused_node_is_heard_of_again() -> None:
    with TestCluster(managers=1, workers=1, seed=2) as c:
        c.pause("worker-1", 3)
        c.pause("worker-1", 20)
        c.advance(10)
        future = c.swarm.host("worker-1").cluster.ask(object())
        c.advance(5)
        assert not future.done
        c.advance(6)
        assert future.done


def test_a_skewed_clock_is_seen_by_its_node_alone() -> None:
    with TestCluster(managers=1, workers=1, seed=2) as c:
        c.skew("worker-1", 3600)
        one, two = (c.swarm.host(name).clock for name in c.nodes)
        assert two.now() - one.now() == 3600
        assert two.monotonic() == one.monotonic()
        two.drift(1.05)
        c.advance(100)
        assert two.monotonic() - one.monotonic() == pytest.approx(5.0)


def test_the_api_refuses_in_the_daemons_words() -> None:
    with TestCluster(seed=2) as c:
        answer = c.api().get("/services/nope")
        assert (answer.status, answer.message) == (404, "service nope not found")
        with pytest.raises(RequestRefused, match="404: service nope not found"):
            _ = answer.value
        assert c.api().get("/nowhere").message == "page not found"
        assert c.api().get("/v1.41/info").value["Swarm"]["LocalNodeState"] == "active"


def test_the_api_streams_logs_for_as_long_as_is_asked() -> None:
    with TestCluster(seed=2) as c:
        service = c.create_service(command=["log", "hello"])
        c.wait_running(service, 1)
        began = c.time
        lines = c.api().get(f"/services/{service}/logs?stdout=1&follow=1", during=5).body
        assert lines.count(b"hello\n") in (5, 6, 7)
        assert c.time - began == pytest.approx(5, abs=0.1)
        assert c.swarm.loop.errors == []


def test_a_trace_shows_who_told_whom_what_and_is_bounded() -> None:
    with TestCluster(seed=2) as c:
        with c.trace("*/manager/raft", "Propose", limit=2) as trace:
            for _ in range(3):
                c.create_service()
        assert [(each.node, each.sender, each.type) for each in trace.deliveries] == [
            ("manager-1", "/cluster/node/manager/store", "Propose")
        ] * 2
        assert trace.lost >= 1
        assert str(trace).splitlines()[-1] == f"({trace.lost} more)"
        seen = trace.lost
        c.create_service()
        assert trace.lost == seen


def test_the_timeline_tells_faults_leaders_and_failed_actors() -> None:
    with TestCluster(managers=1, workers=1, seed=2) as c:
        c.crash_actor("manager-1:/cluster/node/manager/leader/scheduler")
        c.crash("worker-1")
        c.advance(1)
        text = c.timeline()
    assert "manager-1 leads in term" in text
    assert "actor manager-1:/cluster/node/manager/leader/scheduler" in text
    assert "/scheduler failed over (start): RuntimeError: failed by a test" in text
    assert text.index("#0") < text.index("#1 ")


def test_what_fails_inside_carries_seed_faults_deliveries_and_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "current", None)  # as in a program
    monkeypatch.setattr(sys, "orig_argv", ["python", "a program.py", "-k", "a or b"])

    def failing() -> None:
        with TestCluster(managers=1, workers=1, seed=77) as c:
            c.crash("worker-1")
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        failing()
    (note,) = caught.value.__notes__
    assert note.startswith("seed 77, 1 managers and 1 workers, after ")
    assert "crash worker-1" in note
    assert "last 200 deliveries:" in note
    assert note.endswith("run it again: SWARMLET_SEED=77 python 'a program.py' -k 'a or b'")


def test_the_seed_of_the_environment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMLET_SEED", "31")
    assert TestCluster().seed == 31
    assert TestCluster(seed=4).seed == 4
    monkeypatch.setenv("SWARMLET_SEED", "x")
    with pytest.raises(ValueError, match="SWARMLET_SEED is a number, unlike 'x'"):
        TestCluster()
    assert TestCluster(seed=4).seed == 4


def test_names_and_counts_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="a swarm has a manager"):
        TestCluster(managers=0)
    with pytest.raises(ValueError, match="a seed is a whole number, unlike 'x'"):
        TestCluster(seed="x")  # type: ignore[arg-type]
    with TestCluster(seed=1) as c:
        for verb in (lambda: c.partition({"x"}), lambda: c.crash("x"), lambda: c.restart("x"), lambda: c.skew("x", 1)):
            with pytest.raises(ValueError, match="there is no node 'x': manager-1"):
                verb()
        with pytest.raises(AssertionError, match="nobody lives at /cluster/nowhere"):
            c.crash_actor("manager-1:/cluster/nowhere")
        assert [fault.kind for fault in c.faults] == ["actor"]


def test_what_cannot_be_meant_is_refused_in_a_sentence() -> None:
    with TestCluster(managers=1, workers=1, seed=1) as c:
        for verb, said in (
            (lambda: c.partition(), "none of them may be empty"),
            (lambda: c.partition({"worker-1"}, ()), "none of them may be empty"),
            (lambda: c.partition("worker-1", {"worker-1", "manager-1"}), "no node is on two of them"),
            (lambda: c.partition({"worker-1", "manager-1"}), "a partition has two sides at least"),
            (lambda: c.pause("worker-1", -1), "a pause takes time, not -1 s"),
            (lambda: c.pause("worker-1", math.inf), "a pause takes time, not inf s"),
            (lambda: c.advance(-1), "time only goes on, not by -1 s"),
            (lambda: c.advance(math.nan), "time only goes on, not by nan s"),
            (lambda: c.skew("worker-1", math.nan), "not by nan"),
            (lambda: c.trace(types=["Propose"]), "a pattern each, unlike"),  # type: ignore[arg-type]
            (lambda: c.trace(limit=0), "one delivery at least, not 0"),
            (lambda: c.create_service(command="sleep 5"), r"command is a list of strings: \['sleep 5'\]"),
            (lambda: c.create_service(constraints="node.role==worker"), "constraints is a list of strings"),
            (lambda: c.crash_actor("manager-1"), "an actor's path begins with /"),
            (lambda: c.control("ListNodez"), "has no method 'ListNodez'"),
            (lambda: c.api("x"), "there is no node 'x'"),
        ):
            with pytest.raises(ValueError, match=said):
                verb()
        c.crash("worker-1")
        for verb in (
            lambda: c.crash("worker-1"),
            lambda: c.stop("worker-1"),
            lambda: c.pause("worker-1", 1),
            lambda: c.crash_actor("worker-1:/cluster"),
            lambda: c.api("worker-1"),
            lambda: c.state("worker-1"),
        ):
            with pytest.raises(AssertionError, match="worker-1 is down"):
                verb()
        assert [fault.kind for fault in c.faults] == ["crash"]


def test_a_cluster_that_was_not_started_says_so() -> None:
    c = TestCluster()
    for verb in (
        lambda: c.leader,
        lambda: c.api("manager-1"),
        lambda: c.crash("manager-1"),
        lambda: c.create_service(),
    ):
        with pytest.raises(AssertionError, match="not started: use it in a with block"):
            verb()


def test_a_cluster_that_has_ended_says_so_and_does_not_start_again() -> None:
    with TestCluster(seed=1) as c:
        with pytest.raises(AssertionError, match="a cluster starts once"):
            c.start()
        c.create_service("web")
        c.wait_running("web", 1)
    for verb in (lambda: c.leader, lambda: c.running("web"), lambda: c.advance(1), lambda: c.trace(), c.heal):
        with pytest.raises(AssertionError, match="the cluster is closed"):
            verb()
    with pytest.raises(AssertionError, match="a cluster starts once"):
        c.start()
    assert "manager-1 leads in term" in c.timeline()
    c.close()


def test_a_service_goes_by_its_name_as_well_and_one_that_is_none_is_no_empty_one() -> None:
    with TestCluster(managers=1, workers=1, seed=1) as c:
        id = c.create_service("web", replicas=2)
        c.api().post("/services/create", {"Name": "by-hand", "TaskTemplate": {"ContainerSpec": {"Image": "host"}}})
        c.wait_running("web", 2)
        assert {task.id for task in c.tasks("web")} == {task.id for task in c.tasks(id)}
        c.wait_running("by-hand", 1)
        assert len(c.nodes_of("web")) == 2
        assert {*c.nodes_of("web"), *c.nodes_of("by-hand")} <= set(c.nodes)
        for verb in (lambda: c.tasks("nope"), lambda: c.running("nope"), lambda: c.wait_running("nope", 0)):
            with pytest.raises(RequestRefused, match="404: service nope not found"):
                verb()


def test_a_node_goes_by_its_name_as_a_group_of_one() -> None:
    with TestCluster(managers=1, workers=2, seed=1) as c:
        service = c.create_service(replicas=6)
        c.wait_running(service, 6)
        c.partition("worker-1")
        c.advance(40)
        c.wait_running(service, 6)
        assert set(c.nodes_of(service)) == {"manager-1", "worker-2"}


def a_task_is_killed(c: TestCluster, service: str) -> None:
    """What comes of it is followed from its node to the store and back to another task."""
    killed = next(task for task in c.tasks(service) if task.node_id == node_id(c, "worker-2"))
    with c.trace(f"worker-2:*/task-{killed.id}", limit=500, follow=True) as trace:
        c.kill_task(killed.id)
        c.run_until(lambda: killed.id not in {task.id for task in c.tasks(service) if task.desired_state == RUNNING})
        c.wait_running(service, 6)
        c.run_until(lambda: any(each.path.endswith("/leader/replicated") for each in trace.deliveries))
    told = [(each.node, each.path.rpartition("/")[2], each.type) for each in trace.deliveries]
    for step in (
        ("worker-2", "agent", "TaskProgress"),
        ("worker-2", "session", "SendStatuses"),
        ("manager-1", "dispatcher", "Incoming"),
        ("manager-1", "store", "Entries"),
        ("manager-1", "replicated", "Commits"),
    ):
        assert step in told, f"{step} is not in {told}"
    assert told.index(("worker-2", "agent", "TaskProgress")) < told.index(("manager-1", "replicated", "Commits"))
    assert c.faults[-1].kind == "task killed"
    c.run_until(lambda: f"worker-2: task {killed.id} of service service-1 failed: " in c.timeline())
    with pytest.raises(AssertionError, match=f"task {killed.id} does not run: it is failed"):
        c.kill_task(killed.id)


def node_id(c: TestCluster, name: str) -> str:
    return str(next(node.id for node in c.control("ListNodes").nodes if node.description.hostname == name))


def test_a_condition_is_asked_again_while_nobody_leads_and_what_refused_it_last_is_said() -> None:
    with TestCluster(managers=3, seed=1) as c:
        service = c.create_service(replicas=1)
        c.wait_running(service, 1)
        c.crash("manager-2")
        c.crash("manager-3")
        c.advance(15)
        body = {"Name": "late", "TaskTemplate": {"ContainerSpec": {"Image": "host"}}}
        with pytest.raises(AssertionError, match=r"not come true within 5 s: 500: .*The swarm does not have a leader"):
            c.run_until(lambda: bool(c.api("manager-1").post("/services/create", body).value), 5)
        c.restart("manager-2")
        c.run_until(lambda: c.running(service) == 1)
        with pytest.raises(RequestRefused, match="404"):
            c.run_until(lambda: bool(c.api().get("/services/nope").value))


def test_the_timeline_tells_what_was_done_between_the_faults() -> None:
    with TestCluster(managers=1, workers=1, seed=1) as c:
        c.partition("worker-1")
        c.heal()
        c.stop("worker-1")
        c.restart("worker-1")
        told = [line.split(maxsplit=1)[1] for line in c.timeline().splitlines()]
    assert [line for line in told if not line.startswith(("manager-1", "worker-1:"))] == [
        "fault #0 partition {worker-1} | {manager-1}",
        "network and disks are mended",
        "worker-1 is stopped",
        "worker-1 is started again",
    ]


def test_a_seed_gives_one_history_and_a_fault_that_is_left_out_is_not_injected() -> None:
    def run(skip: tuple[int, ...] = ()) -> tuple[str, bool]:
        with TestCluster(managers=1, workers=1, seed=9, skip=skip) as c:
            c.create_service(replicas=3)
            c.crash("worker-1")
            c.advance(5)
            return c.swarm.simulator.digest, c.swarm.host("worker-1").stage is None

    assert run() == run()
    assert run()[1]
    assert not run((0,))[1]


@pytest.mark.parametrize("needed", [{3}, {0, 7}, {1, 2, 9}, set(range(10)), set()])
def test_shrinking_finds_the_faults_that_a_failure_needs(needed: set[int]) -> None:
    tries = 0

    def fails(skip: frozenset[int]) -> bool:
        nonlocal tries
        tries += 1
        return not needed & skip

    assert set(range(10)) - shrink(range(10), fails) == needed
    assert tries <= 60


def test_shrinking_stops_when_its_runs_are_used_up() -> None:
    tried: list[frozenset[int]] = []
    shrink(range(100), lambda skip: tried.append(skip) is not None, runs=7)
    assert len(tried) == 7


def test_a_report_names_what_is_needed_to_run_again() -> None:
    text = describe(5, "a swarm", 1.5, [Fault(0, 0.5, "crash", "x"), Fault(1, 1.0, "skew", "", True)], ["d"], "cmd")
    assert text.splitlines() == [
        "seed 5, a swarm, after 1.500 s",
        "faults (2):",
        "  #0 0.500000 crash x",
        "  #1 1.000000 skew (left out)",
        "last 1 deliveries:",
        "  d",
        "run it again: cmd",
    ]


def test_a_virtual_loop_runs_coroutines_in_virtual_time() -> None:
    simulator = Simulator(1)
    loop = VirtualLoop(simulator)  # type: ignore[abstract]
    order: list[str] = []

    async def work(name: str, seconds: float) -> float:
        await asyncio.sleep(seconds)
        order.append(name)
        return asyncio.get_running_loop().time()

    async def both() -> list[float]:
        return await asyncio.gather(work("late", 20.0), work("soon", 10.0))

    assert loop.run(both()) == [pytest.approx(20.0), pytest.approx(10.0)]
    assert order == ["soon", "late"]
    with pytest.raises(TimeoutError):
        loop.run(asyncio.wait_for(work("never", 100.0), 5.0))
    with pytest.raises(Stuck):
        loop.run(work("never", 100.0), within=1.0)
    assert order == ["soon", "late"]
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
