"""What a running node says of its swarm: consensus, waiting tasks, beliefs, certificates, who waits for whom."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.introspection import client
from runtime.stage import Actor, Answer, handles
from runtime.wire.pb import control_pb2
from swarmlet import Node, cli
from tests.integration.face.worlds import Machine, node, service
from tests.waiting import until


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node(tmp_path_factory.mktemp("n")) as made:
        made.init()
        spec = service("picky", 2)
        spec.spec.task.placement.constraints.append("node.labels.rack==x")
        made.control("CreateService", spec, control_pb2.CreateServiceResponse)
        made.control("CreateService", service("web", 3), control_pb2.CreateServiceResponse)
        yield made


def ask(asked: Node, what: str, /, **details: Any) -> Any:
    return client.ask(asked.introspection_socket, what, **details)


def test_consensus_store_dispatcher_and_certificates_are_shown(running: Node) -> None:
    def still() -> Any:
        """All that was written is committed, and the node's own session has begun."""
        found = ask(running, "raft")
        return found if found["dispatcher"]["sessions"] == 1 and not found["raft"]["peers"][0]["lag"] else None

    found = until(still)
    (peer,) = found["raft"]["peers"]
    assert (peer["leader"], peer["reached"], peer["lag"]) == (True, True, 0)
    assert found["raft"]["pace"] in ("fast", "slow")
    assert found["store"]["objects"]["services"] == 2
    assert 89 < found["certificate"]["days left"] <= 90
    assert found["certificate"]["root days left"] > 7000


def test_a_task_that_cannot_be_placed_waits_with_its_reason(running: Node) -> None:
    def refused() -> Any:
        tasks = ask(running, "waiting")["tasks"]
        reasons = ["scheduling constraints not satisfied on 1 node" in each["why"] for each in tasks]
        return tasks if len(tasks) == 2 and all(reasons) else None

    assert {each["service"] for each in until(refused)} == {"picky"}
    assert len(ask(running, "waiting", limit=1)["tasks"]) == 1


@contextlib.contextmanager
def suspended(node: Node, path: str) -> Iterator[None]:
    """An actor that is suspended until the block ends."""
    cell = node.stage.cells[path]
    cell.suspend(True)
    try:
        yield
    finally:
        cell.suspend(False)


def test_a_manager_whose_consensus_stands_still_says_that_what_it_knows_may_be_old(
    running: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = ("raft", "waiting", "tasks", "beliefs", "node")
    until(lambda: [ask(running, each)["behind"] for each in questions] == [[]] * len(questions))
    path = "/cluster/node/manager/raft"
    monkeypatch.setattr("runtime.introspection.asks.STATE_DEADLINE_S", 0.5)
    with suspended(running, path):
        for each in questions:
            (why,) = ask(running, each)["behind"]
            assert why.startswith(f"{path}: suspended")
    until(lambda: ask(running, "raft")["behind"] == [])


def test_an_explanation_says_what_keeps_who_did_not_answer(running: Node) -> None:
    path = "/cluster/node/manager/leader/scheduler"
    with suspended(running, path):
        found = ask(running, "explain", name="picky")
    assert found["silent"] == [path]
    assert found["because"][path].startswith("suspended")
    until(lambda: ask(running, "explain", name="picky")["because"] == {})


def test_moves_are_planned_by_any_managers_view(running: Node) -> None:
    found = until(lambda: (told := ask(running, "rebalance", services=["web"])) and not told["left"] and told)
    (cluster,) = running.control(
        "ListClusters", control_pb2.ListClustersRequest(), control_pb2.ListClustersResponse
    ).clusters
    assert found == {"cluster": cluster.id, "moves": [], "left": []}
    for details, text in (
        ({"services": ["nosuch"]}, "no such service: nosuch"),
        ({"services": "web"}, "a list of names"),
    ):
        with pytest.raises(ValueError, match=text):
            ask(running, "rebalance", **details)


def test_a_member_is_called_as_its_machine(running: Node) -> None:
    (peer,) = ask(running, "raft")["raft"]["peers"]
    assert ask(running, "plan", action="rm", name=peer["name"])["id"] == peer["node"] == running.info().node_id


@pytest.mark.parametrize("limit", [0, -1, 10_001, "3", True, None])
def test_a_limit_that_is_none_is_refused(running: Node, limit: Any) -> None:
    with pytest.raises(ValueError, match="a limit is a whole number"):
        ask(running, "waiting", limit=limit)


def test_agent_and_manager_come_to_believe_the_same(running: Node) -> None:
    def agree() -> Any:
        found = ask(running, "beliefs")
        ran = found["agent"] and all(each["state"] == "running" for each in found["agent"])
        return found if ran and len(found["agent"]) == 3 and found["differ"] == [] else None

    found = until(agree)
    assert {each["id"] for each in found["agent"]} <= {each["id"] for each in found["manager"]}


def test_of_another_node_only_the_managers_side_is_known(running: Node) -> None:
    found = ask(running, "beliefs", node="z" * 25)
    assert (found["agent"], found["manager"], found["differ"]) == (None, [], None)


def test_a_node_is_named_by_its_name_or_the_beginning_of_its_id_and_one_that_is_not_there_is_refused(
    running: Node,
) -> None:
    own = running.info().node_id
    for text in ("n1", own[:6], own):
        assert ask(running, "beliefs", node=text)["node"] == own
    with pytest.raises(ValueError, match="no such node: nobody"):
        ask(running, "beliefs", node="nobody")


def test_both_sides_may_be_asked_at_two_sockets(
    running: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine()
    with node(tmp_path, "w1", machine) as worker:
        remote = running.info().remote_managers[0].addr
        worker.join(remote, token=running.join_token("worker"))
        worker.wait_ready()
        alone = ["beliefs", "--socket", worker.introspection_socket]
        assert cli.main(alone) == 0
        assert "the agent alone was asked" in capsys.readouterr().out
        assert cli.main([*alone, "--manager", running.introspection_socket, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["manager"] is not None
        assert found["differ"] is not None
        with pytest.raises(ValueError, match="this node runs no manager"):
            ask(worker, "waiting")
        worker.leave()


class Question:
    """Is not answered until the event is set."""


class Silent(Actor):
    def __init__(self, replies: list[Any]) -> None:
        super().__init__()
        self.replies = replies

    @handles(Question)
    def question(self, message: Question) -> None:
        self.replies.append(self.defer())


class Asking(Actor):
    def __init__(self, answered: threading.Event) -> None:
        super().__init__()
        self.answered = answered

    def started(self) -> None:
        self.ask(self._cell.stage.at("/silent"), Question(), self._got, 60.0)

    def _got(self, answer: Answer) -> None:
        self.answered.set()


def test_who_waits_for_whom_is_told_with_the_question_and_the_time(running: Node) -> None:
    answered, replies = threading.Event(), list[Any]()
    running.mount("silent", Silent, replies)
    running.mount("asking", Asking, answered)
    (found,) = until(lambda: [each for each in ask(running, "waits") if each["from"] == "/asking"])
    assert (found["path"], found["type"], found["deadline_s"]) == ("/silent", "Question", 60.0)
    assert 0 <= found["waited_s"] < 60
    until(lambda: replies)[0].set(None)
    assert answered.wait(60)
    until(lambda: not [each for each in ask(running, "waits") if each["from"] == "/asking"])


@pytest.mark.parametrize("command", ["raft", "messages", "tasks", "waiting", "waits", "beliefs"])
def test_each_view_is_one_command(running: Node, capsys: pytest.CaptureFixture[str], command: str) -> None:
    flags = ["--window", "0"] if command in ("raft", "messages") else []
    assert cli.main([command, "--socket", running.introspection_socket, *flags]) == 0
    assert capsys.readouterr().out.strip()
    assert cli.main([command, "--socket", running.introspection_socket, "--json", *flags]) == 0
    json.loads(capsys.readouterr().out)


def test_messages_are_counted_over_a_window_and_tasks_found_by_a_text(
    running: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["--socket", running.introspection_socket]
    until(lambda: [each for each in ask(running, "messages") if each["type"] == "RaftTick"], "the first tick")
    assert cli.main(["messages", "--window", "0.2", "--json", *at]) == 0
    (ticks,) = (each for each in json.loads(capsys.readouterr().out) if each["type"] == "RaftTick")
    assert 0.0 <= ticks["rate"] <= ticks["count"] / 0.2
    assert cli.main(["tasks", "PICKY", *at]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:-1]] == ["picky.1", "picky.2"]
    for wrong in (["messages", "--window", "61", *at], ["tasks", "--limit", "0", *at]):
        assert cli.main(wrong) != 0
        assert capsys.readouterr().err.startswith("swarmlet: ")


@pytest.mark.parametrize("part", ["store", "raft", "raft/log"])
def test_a_manager_whose_store_or_log_was_restarted_by_hand_leads_again_with_all_it_had(
    running: Node, part: str
) -> None:
    details = {"act": "restart", "path": f"/cluster/node/manager/{part}", "write": True}
    term = ask(running, "raft")["raft"]["term"]
    assert "/cluster/node/manager begins a new life" in ask(running, "act", **details)

    def leads() -> Any:
        found = ask(running, "raft")
        core, store = found.get("raft"), found.get("store")
        anew = isinstance(core, dict) and core.get("leading") and core["term"] > term
        return anew and running.info().control_available and isinstance(store, dict) and store["objects"]

    assert until(leads)["services"] == 2
    made = running.control("CreateService", service("after", 0), control_pb2.CreateServiceResponse)
    gone = control_pb2.RemoveServiceRequest(service_id=made.service.id)
    running.control("RemoveService", gone, control_pb2.RemoveServiceResponse)
    assert not [each for each in ask(running, "crashes") if each["path"].startswith("/cluster")]


def test_a_manager_that_does_not_lead_explains_and_plans_from_its_own_view_and_says_who_leads(tmp_path: Path) -> None:
    with node(tmp_path, "m1") as leader, node(tmp_path, "m2") as follower:
        leader.init()
        follower.join(leader.info().remote_managers[0].addr, token=leader.join_token("manager"))
        follower.wait_ready()
        spec = service("picky", 1)
        spec.spec.task.placement.constraints.append("node.labels.rack==x")
        leader.control("CreateService", spec, control_pb2.CreateServiceResponse)

        def explained() -> Any:
            if not any("picky" in each["name"] for each in ask(follower, "waiting")["tasks"]):
                return None
            found = ask(follower, "explain", name="picky")
            known = (
                any("rack" in each["why"] for each in found["waits"]) and not found["behind"] and not found["because"]
            )
            return found if known else None

        found = until(explained)
        assert (found["kind"], found["behind"], found["because"]) == ("service", [], {})
        assert [each["who"] for each in found["waits"]] == ["scheduler"]
        (addr,) = (each["addr"] for each in ask(follower, "raft")["raft"]["peers"] if each["leader"])
        assert found["elsewhere"] == f"this node does not lead its swarm: ask on the leader's node, m1 ({addr})"
        planned = ask(follower, "plan", action="rm", name="m1")
        assert (planned["id"], planned["elsewhere"]) == (leader.info().node_id, found["elsewhere"])
        assert {**ask(leader, "plan", action="rm", name="m1"), "elsewhere": planned["elsewhere"]} == planned
        for what, details in (("explain", {"name": "nope"}), ("plan", {"action": "rm", "name": "nope"})):
            with pytest.raises(ValueError, match=r"no such (service, task or )?node: nope"):
                ask(follower, what, **details)
