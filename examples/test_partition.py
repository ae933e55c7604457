"""How an application is tested against partitions: a directory of workers that must never name one that is not there,
and keeps answering while the managers quarrel.

    pytest examples/test_partition.py
"""

import json
import urllib.parse

import pytest

RUNNING = urllib.parse.quote(json.dumps({"desired-state": ["running"], "service": ["shop"]}))


class Directory:
    """The application: where the workers of ``shop`` run, from whichever manager has a majority with it; the last
    answer otherwise."""

    def __init__(self, managers):
        self.managers = managers
        self.known = set()
        self.stale = False

    def workers(self):
        for api in self.managers:
            tasks, nodes = api.get(f"/tasks?consistent=true&filters={RUNNING}"), api.get("/nodes?consistent=true")
            if tasks.status == nodes.status == 200:
                ready = {each["ID"] for each in nodes.value if each["Status"]["State"] == "ready"}
                names = {each["ID"]: each["Description"]["Hostname"] for each in nodes.value}
                running = [each["NodeID"] for each in tasks.value if each["Status"]["State"] == "running"]
                self.known, self.stale = {names[node] for node in running if node in ready}, False
                return self.known
        self.stale = True
        return self.known


@pytest.fixture
def shop(swarm):
    c = swarm(managers=3, workers=3)
    service = c.create_service("shop", replicas=3, constraints=["node.role==worker"])
    c.wait_running(service, 3)
    return c, service, Directory([c.api(name) for name in c.managers])


def test_every_worker_is_known(shop):
    c, _service, directory = shop
    assert directory.workers() == set(c.workers)


def test_a_worker_that_is_cut_off_is_named_no_more_and_its_task_runs_elsewhere(shop):
    c, service, directory = shop
    c.partition({"worker-1"})
    c.advance(40)
    assert directory.workers() == {"worker-2", "worker-3"}
    c.wait_running(service, 3)
    c.heal()
    c.run_until(lambda: "worker-1" in ready(c))
    assert len([task for task in c.tasks(service) if task.desired_state == 512]) == 3


def test_a_leader_that_is_cut_off_is_not_asked_twice_and_nobody_notices(shop):
    c, service, directory = shop
    c.partition({c.leader})
    c.advance(30)
    assert directory.workers() == set(c.workers)
    assert not directory.stale
    c.scale(service, 4)
    c.wait_running(service, 4)


def test_without_a_majority_the_last_answer_stands_and_is_marked(shop):
    c, _service, directory = shop
    directory.workers()
    for name in c.managers:
        c.partition({name})
    c.advance(60)
    assert directory.workers() == set(c.workers)
    assert directory.stale
    c.heal()
    c.run_until(lambda: not (directory.workers(), directory.stale)[1], within=120)


def ready(c):
    nodes = c.api().get("/nodes").value
    return {each["Description"]["Hostname"] for each in nodes if each["Status"]["State"] == "ready"}
