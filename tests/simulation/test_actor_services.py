"""Services of actors in whole swarms under virtual time: placed, failed over, updated, never two where one is meant."""

from __future__ import annotations

import base64
import random
from collections import Counter
from typing import Any

import pytest

from runtime.errors import Refused
from runtime.executor.actor_plan import TaskPlace
from runtime.protocol.actor_tasks import Stopping
from runtime.stage import Actor, handles
from runtime.wire.pb import types_pb2 as types
from swarmlet import TestCluster
from swarmlet.testing.ground import Refusal

WORKERS = ("node.role==worker",)


class Ticker(Actor):
    """Counts seconds; does what it is told."""

    def __init__(self, place: TaskPlace) -> None:
        super().__init__()
        self.place = place
        self.count = 0

    def started(self) -> None:
        self.place.log(f"up on {self.place.node}")
        self.every(1.0, "tick")

    @handles(str)
    def told(self, what: str) -> object:
        if what == "fail":
            raise ValueError("told to")
        if what == "place":
            return self.place
        self.count += what == "tick"
        return self.count


class Second(Ticker):
    """The next version: it says good-bye."""

    @handles(Stopping)
    def stopping(self, message: Stopping) -> None:
        self.place.log("good-bye")
        self.after(1.0, "end")

    @handles(str)
    def told(self, what: str) -> object:
        return self.place.exit(0) if what == "end" else super().told(what)


class Job(Actor):
    """Ends by itself after as many seconds as it is told."""

    def __init__(self, place: TaskPlace) -> None:
        super().__init__()
        self.place = place
        self.after(float(place.args[0]), "done")

    @handles(str)
    def done(self, message: str) -> None:
        self.place.exit(int(self.place.args[1]))


ACTORS = {"ticker": Ticker, "ticker:v2": Second, "job": Job}


def cluster(managers: int = 1, workers: int = 3, seed: int = 7) -> TestCluster:
    return TestCluster(managers, workers, seed=seed, actors=ACTORS)


def actors_of(c: TestCluster, service: str) -> Counter[str]:
    """How many actors of a service live on each node."""
    return Counter(
        host.name for host in c.swarm.hosts if host.stage is not None
        for path in host.stage.cells if path.startswith(f"/tasks/{service}.")
    )  # fmt: skip


def at(c: TestCluster, node: str) -> Any:
    """The address of the only task on a node."""
    stage = c.swarm.host(node).stage
    assert stage is not None
    (path,) = [path for path in stage.cells if path.startswith("/tasks/")]
    return stage.at(path)


def errors(c: TestCluster, service: str) -> set[str]:
    return {task.status.err for task in c.tasks(service) if task.status.err}


def test_actors_and_processes_share_the_nodes_of_a_swarm() -> None:
    with cluster() as c:
        ticker = c.create_service("ticker", 6, image="actor/ticker", constraints=WORKERS)
        web = c.create_service("web", 3, constraints=WORKERS)
        c.wait_running(ticker, 6)
        c.wait_running(web, 3)
        assert actors_of(c, "ticker") == {"worker-1": 2, "worker-2": 2, "worker-3": 2}
        assert sum(len(host.executor.running) for host in c.swarm.hosts) == 3
        c.scale(ticker, 1)
        c.run_until(lambda: actors_of(c, "ticker").total() == 1)
        assert errors(c, ticker) == set(), "what is stopped has not failed"


@pytest.mark.parametrize("seed", range(4))
def test_an_actor_fails_over_when_its_node_is_cut_off_and_ends_there_when_that_is_back(seed: int) -> None:
    with cluster(seed=seed) as c:
        ticker = c.create_service("ticker", 3, image="actor/ticker", constraints=WORKERS)
        c.wait_running(ticker, 3)
        c.partition({"worker-1"})
        c.advance(40)
        c.wait_running(ticker, 3)
        assert actors_of(c, "ticker")["worker-1"] == 1, "nobody can tell it to end"
        assert actors_of(c, "ticker").total() == 4
        c.heal()
        c.run_until(lambda: actors_of(c, "ticker").total() == 3)
        assert actors_of(c, "ticker")["worker-1"] == 0
        c.advance(20)
        assert c.running(ticker) == 3


def test_the_failure_of_an_actor_is_its_tasks_and_the_swarm_starts_another() -> None:
    with cluster(workers=1) as c:
        ticker = c.create_service("ticker", 1, image="actor/ticker", constraints=WORKERS)
        c.wait_running(ticker, 1)
        before = at(c, "worker-1")
        before.tell("fail")
        c.run_until(lambda: bool(errors(c, ticker)))
        c.wait_running(ticker, 1)
        assert errors(c, ticker) == {"task: non-zero exit (1): ValueError: told to"}
        assert at(c, "worker-1").path != before.path


def test_a_leader_that_is_killed_takes_no_actor_of_others_along() -> None:
    with cluster(managers=3, workers=2) as c:
        ticker = c.create_service("ticker", 4, image="actor/ticker", constraints=WORKERS)
        c.wait_running(ticker, 4)
        c.advance(10)
        lives = {path for host in c.swarm.hosts if host.stage for path in host.stage.cells if "/tasks/" in path}
        c.crash(c.leader)
        c.advance(60)
        c.wait_running(ticker, 4)
        assert lives == {path for host in c.swarm.hosts if host.stage for path in host.stage.cells if "/tasks/" in path}
        assert errors(c, ticker) == set()


@pytest.mark.parametrize("away", [1.0, 40.0])
def test_actors_end_with_their_daemon_and_are_started_anew(away: float) -> None:
    with cluster(workers=2) as c:
        ticker = c.create_service("ticker", 2, image="actor/ticker", constraints=WORKERS)
        c.wait_running(ticker, 2)
        c.crash("worker-1")
        c.advance(away)
        c.restart("worker-1")
        c.run_until(lambda: c.running(ticker) == 2 == actors_of(c, "ticker").total(), 90)
        if away == 1.0:
            assert errors(c, ticker) == {"exit code unknown: the actor ended with the program that it lived in"}


def test_a_version_follows_another_task_by_task() -> None:
    with cluster() as c:
        ticker = c.create_service("ticker", 3, image="actor/ticker:v2", constraints=WORKERS)
        c.wait_running(ticker, 3)
        spec = c.api().get(f"/services/{ticker}").value
        wanted = spec["Spec"]
        wanted["TaskTemplate"]["ContainerSpec"]["Image"] = "actor/ticker"
        wanted["UpdateConfig"] = {"Parallelism": 1, "Order": "stop-first"}
        lowest = [3]
        _ = c.api().post(f"/services/{ticker}/update?version={spec['Version']['Index']}", wanted).value

        def updated() -> bool:
            lowest.append(actors_of(c, "ticker").total())
            new = [task for task in c.tasks(ticker) if task.spec.container.image == "actor/ticker"]
            return sum(task.status.state == types.RUNNING for task in new) == 3

        c.run_until(updated)
        assert min(lowest) == 2, "one at a time"


def test_a_job_of_actors_runs_to_its_end_and_is_repeated_where_it_failed() -> None:
    with cluster() as c:
        done = c.create_service("done", spec=job("0"))
        c.run_until(lambda: sum(task.status.state == types.COMPLETE for task in c.tasks(done)) == 4)
        assert actors_of(c, "done").total() == 0
        failing = c.create_service("failing", spec=job("9"))
        c.run_until(lambda: len(errors(c, failing)) == 1)
        assert errors(c, failing) == {"task: non-zero exit (9)"}


def job(code: str) -> dict[str, Any]:
    return {
        "TaskTemplate": {
            "ContainerSpec": {"Image": "actor/job", "Args": ["2", code]},
            "RestartPolicy": {"Condition": "on-failure", "MaxAttempts": 1},
        },
        "Mode": {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 4}},
    }


def test_a_global_service_has_an_actor_on_every_node_and_each_knows_its_own() -> None:
    with cluster(workers=2) as c:
        template = {"ContainerSpec": {"Image": "actor/ticker"}}
        service = c.create_service("everywhere", spec={"TaskTemplate": template, "Mode": {"Global": {}}})
        c.wait_running(service, 3)
        assert actors_of(c, "everywhere") == {"manager-1": 1, "worker-1": 1, "worker-2": 1}
        place: TaskPlace = c.swarm.simulator.ask(at(c, "worker-2"), "place")
        assert (place.slot, place.node) == (0, "worker-2")
        assert at(c, "worker-2").path == f"/tasks/everywhere.{place.node_id}.{place.task_id}"


def test_what_is_not_registered_waits_and_says_why() -> None:
    with cluster(workers=1) as c:
        service = c.create_service("other", 1, image="actor/other")
        c.run_until(lambda: bool(errors(c, service)))
        (text,) = errors(c, service)
        assert (
            text == 'no suitable node (image "actor/other" needs the actor other, which is not registered on 2 nodes)'
        )


def test_what_an_actor_cannot_have_is_told_at_once_and_rejected_on_the_node() -> None:
    with cluster(workers=1) as c:
        body = {
            "Name": "rooted",
            "TaskTemplate": {"ContainerSpec": {"Image": "actor/ticker", "User": "root"}},
            "Mode": {"Replicated": {"Replicas": 1}},
        }
        made = c.api().post("/services/create", body).value
        assert any("cannot have user" in warning for warning in made["Warnings"])
        c.run_until(lambda: any(task.status.state == types.REJECTED for task in c.tasks(made["ID"])))
        assert "the actor executor cannot honour user" in errors(c, made["ID"])


def test_secrets_configs_and_templates_reach_an_actor_and_its_log_is_read() -> None:
    with cluster(workers=1) as c:
        secret = c.api().post("/secrets/create", {"Name": "key", "Data": encoded("hunter22")}).value["ID"]
        config = c.api().post("/configs/create", {"Name": "conf", "Data": encoded("x=1")}).value["ID"]
        file = {"UID": "0", "GID": "0", "Mode": 292}
        container = {
            "Image": "actor/ticker",
            "Env": ["AT={{.Node.Hostname}}.{{.Task.Slot}}"],
            "Secrets": [{"SecretID": secret, "SecretName": "key", "File": {"Name": "db", **file}}],
            "Configs": [{"ConfigID": config, "ConfigName": "conf", "File": {"Name": "/etc/conf", **file}}],
        }
        template = {"ContainerSpec": container, "Placement": {"Constraints": list(WORKERS)}}
        service = c.create_service("ticker", spec={"TaskTemplate": template})
        c.wait_running(service, 1)
        place: TaskPlace = c.swarm.simulator.ask(at(c, "worker-1"), "place")
        assert place.secret("db") == b"hunter22"
        assert place.config("/etc/conf") == b"x=1"
        assert place.env["AT"] == "worker-1.1"
        assert place.node == "worker-1"
        said = c.api().get(f"/services/{service}/logs?stdout=true&stderr=true").body
        assert b"up on worker-1\n" in said


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_an_actor_is_stopped_with_its_node_and_may_say_good_bye() -> None:
    with cluster(workers=2) as c:
        ticker = c.create_service("ticker", 2, image="actor/ticker:v2", constraints=WORKERS)
        c.wait_running(ticker, 2)
        node = next(each for each in c.api().get("/nodes").value if each["Description"]["Hostname"] == "worker-1")
        drained = {**node["Spec"], "Availability": "drain"}
        _ = c.api().post(f"/nodes/{node['ID']}/update?version={node['Version']['Index']}", drained).value
        c.run_until(lambda: actors_of(c, "ticker") == {"worker-2": 2})
        said = c.api().get(f"/services/{ticker}/logs?stdout=true").body
        assert b"good-bye\n" in said


def test_real_nodes_have_no_actors_of_this_process() -> None:
    with pytest.raises(Refusal, match="processes of their own"):
        TestCluster(real=True, actors=ACTORS)


def test_the_same_seed_is_the_same_run() -> None:
    def run() -> str:
        with cluster(seed=11) as c:
            ticker = c.create_service("ticker", 4, image="actor/ticker")
            c.wait_running(ticker, 4)
            c.crash("worker-1")
            c.advance(30)
            return "\n".join(sorted(f"{task.slot} {task.id} {task.status.err}" for task in c.tasks(ticker)))

    assert run() == run()


def calm(c: TestCluster, service: str, replicas: int) -> None:
    """Faults are over: as many actors live as are meant, and they are the tasks that the leader takes for running."""
    c.heal()
    for node in c.nodes:
        c.restart(node)
    c.run_until(lambda: len(told_of := running_ids(c, service)) == replicas and told_of == living_ids(c), 240)


def running_ids(c: TestCluster, service: str) -> set[str]:
    try:
        return {task.id for task in c.tasks(service) if task.status.state == types.RUNNING == task.desired_state}
    except (Refused, AssertionError):
        return set()  # nobody leads at the moment


def living_ids(c: TestCluster) -> set[str]:
    stages = [host.stage for host in c.swarm.hosts if host.stage is not None]
    return {path.rpartition(".")[2] for stage in stages for path in stage.cells if path.startswith("/tasks/")}


@pytest.mark.parametrize("seed", range(4))
def test_after_any_faults_there_are_as_many_actors_as_were_asked_for(seed: int) -> None:
    dice = random.Random(f"actors/{seed}")
    with cluster(managers=3, workers=3, seed=seed) as c:
        replicas = 4
        service = c.create_service("ticker", replicas, image=dice.choice(["actor/ticker", "actor/ticker:v2"]))
        c.wait_running(service, replicas)
        for _ in range(6):
            node = dice.choice(c.nodes)
            if c.swarm.host(node).stage is None:
                c.restart(node)
            else:
                fault = dice.choice(["crash", "power", "cut", "pause", "actor", "supervisor", "agent", "leave"])
                strike(c, fault, node, dice)
            c.advance(dice.uniform(0.5, 25))
        calm(c, service, replicas)


def strike(c: TestCluster, fault: str, node: str, dice: random.Random) -> None:
    """One fault at a node."""
    stage = c.swarm.host(node).stage
    assert stage is not None
    actors = [path for path in stage.cells if path.startswith("/tasks/")]
    match fault:
        case "crash":
            c.crash(node)
        case "power":
            c.crash(node, power=True)
        case "cut":
            c.partition({node})
        case "pause":
            c.pause(node, dice.uniform(1, 20))
        case "actor" if actors:
            stage.at(dice.choice(actors)).tell("fail")
        case "supervisor":
            c.crash_actor(f"{node}:/tasks")
        case "agent":
            c.crash_actor(f"{node}:/cluster/node/agent")
        case _:
            c.heal()
