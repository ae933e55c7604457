"""The commands that change a swarm for its operator, against whole swarms in virtual time."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runtime.swarm import rebalancing
from runtime.swarm.labels import REBALANCE
from runtime.wire.pb import types_pb2
from swarmlet import TestCluster, operate, operate_rebalance
from swarmlet.engine_link import Engine
from swarmlet.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_TIMED_OUT, StartError
from swarmlet.operator_options import OperatorOptions, Where
from tests.unit.swarm_orchestration.little_store import LittleStore

JOB = {"ContainerSpec": {"Image": "host", "Command": ["x"]}}


@dataclass
class Operator:
    """Somebody who types commands. ``meanwhile`` is done once, at the first rest of a command, ``always`` at each, and
    ``crossed`` once just before a service is changed; after ``dies_after`` requests the command dies."""

    cluster: TestCluster
    lines: list[str] = field(default_factory=list)
    meanwhile: Callable[[], None] | None = None
    always: Callable[[], None] | None = None
    crossed: Callable[[], None] | None = None
    dies_after: int | None = None

    def engine(self) -> Engine:
        return Engine(self._carry, lambda: self.cluster.time, self._rest)

    def run(self, command: str, **typed: Any) -> int:
        given = {"timeout": 60.0, "detach": False, **typed}
        self.lines = []
        return operate.carry_out(self.engine(), OperatorOptions(command, Where(), given), self.lines.append)

    def _carry(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        if self.crossed is not None and method == "POST" and target.startswith("/services/"):
            act, self.crossed = self.crossed, None
            act()
        answer = self.cluster.api().request(method, target, json.loads(body) if body else None)
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                raise KeyboardInterrupt  # before it heard the answer
        return answer.status, answer.body

    def _rest(self, seconds: float) -> None:
        act, self.meanwhile = self.meanwhile, None
        for each in (act, self.always):
            if each is not None:
                each()
        self.cluster.advance(seconds)


def spec_of(c: TestCluster, service: str) -> Any:
    return c.api().get(f"/services/{service}").value["Spec"]


def everywhere(c: TestCluster, name: str) -> None:
    c.create_service(name, spec={"Mode": {"Global": {}}})


# Stop and start


def test_services_that_are_stopped_end_and_run_again_as_many_as_before() -> None:
    with TestCluster(managers=1, workers=3, seed=1) as c:
        c.create_service("web", 4)
        everywhere(c, "agent")
        c.wait_running("web", 4)
        c.wait_running("agent", 4)
        operator = Operator(c)
        assert operator.run("stop", services=["web", "agent"]) == EXIT_OK
        assert (c.running("web"), c.running("agent")) == (0, 0)
        assert operator.lines[:2] == ["web is stopped: it had 4 replicas", "agent is stopped on every node"]
        c.stop(c.leader)
        c.restart("manager-1")
        c.advance(20)
        assert operator.run("start", services=["agent", "web"]) == EXIT_OK
        assert (c.running("web"), c.running("agent")) == (4, 4)
        assert spec_of(c, "web").get("Labels") in ({}, None)


def test_a_global_service_that_is_stopped_gets_no_task_on_a_node_that_joins() -> None:
    with TestCluster(managers=1, workers=2, seed=2) as c:
        everywhere(c, "agent")
        c.wait_running("agent", 3)
        c.stop("worker-2")
        c.advance(30)
        assert Operator(c).run("stop", services=["agent"]) == EXIT_OK
        c.restart("worker-2")
        c.advance(30)
        assert c.running("agent") == 0


def test_a_job_and_an_unknown_service_are_refused_and_others_are_stopped_all_the_same() -> None:
    with TestCluster(managers=1, workers=1, seed=3) as c:
        c.create_service("web", 1)
        c.create_service("job", spec={"Mode": {"ReplicatedJob": {}}, "TaskTemplate": JOB})
        c.wait_running("web", 1)
        operator = Operator(c)
        with pytest.raises(StartError, match="service nosuch not found"):
            operator.run("stop", services=["web", "nosuch"])
        assert c.running("web") == 1
        assert operator.run("stop", services=["job", "web"]) == EXIT_FAILED
        assert c.running("web") == 0
        assert operator.lines[0].startswith("job is left as it is: job is a job: it ends by itself")


def test_who_waits_in_vain_is_told_for_what(capsys: pytest.CaptureFixture[str]) -> None:
    with TestCluster(managers=1, workers=1, seed=4) as c:
        c.create_service("web", 2, spec={"Labels": {}})
        c.wait_running("web", 2)
        operator = Operator(c)
        operator.run("stop", services=["web"])
        for node in c.api().get("/nodes").value:
            spec = {**node["Spec"], "Availability": "pause"}
            c.api().post(f"/nodes/{node['ID']}/update?version={node['Version']['Index']}", spec)
        assert operator.run("start", services=["web"], timeout=5.0) == EXIT_TIMED_OUT
        assert capsys.readouterr().err == (
            "swarmlet: after 5 s: web: 0 of 2 tasks run; "
            "2 pending (no suitable node (2 nodes not available for new tasks))\n"
        )


def test_somebody_who_starts_a_service_while_it_is_stopped_ends_the_waiting() -> None:
    with TestCluster(managers=1, workers=1, seed=5) as c:
        c.create_service("web", 2)
        c.wait_running("web", 2)
        operator = Operator(c, meanwhile=lambda: c.scale("web", 3))
        assert operator.run("stop", services=["web"]) == EXIT_OK
        c.wait_running("web", 3)
        assert operator.run("start", services=["web"]) == EXIT_OK
        assert operator.lines == ["web is not stopped: it has 3 replicas"]


def test_a_manager_that_is_away_for_a_while_does_not_end_the_waiting() -> None:
    with TestCluster(managers=3, seed=6) as c:
        c.create_service("web", 3)
        c.wait_running("web", 3)
        operator = Operator(c, meanwhile=lambda: c.crash(c.leader))
        assert operator.run("stop", services=["web"]) == EXIT_OK
        assert c.running("web") == 0


# Rotate

UPDATE = {"Parallelism": 1, "Delay": 0, "Monitor": 1_000_000_000, "FailureAction": "pause"}


def payload(c: TestCluster, kind: str, name: str, data: bytes) -> str:
    body = {"Name": name, "Data": base64.b64encode(data).decode(), "Labels": {"team": "a"}}
    return str(c.api().post(f"/{kind}s/create", body).value["ID"])


def user(c: TestCluster, name: str, kind: str, id: str, of: str, *, command: tuple[str, ...] = (), **spec: Any) -> None:
    """A service of two tasks that has a secret or config."""
    file = {"Name": "key", "UID": "0", "GID": "0", "Mode": 0o400}
    reference = {"File": file, f"{kind.capitalize()}ID": id, f"{kind.capitalize()}Name": of}
    container = {"Image": "host", "Command": [*command], f"{kind.capitalize()}s": [reference]}
    template = {"ContainerSpec": container, "RestartPolicy": {"Condition": "any", "Delay": 500_000_000}}
    c.create_service(name, 2, spec={"TaskTemplate": template, "UpdateConfig": UPDATE, **spec})


def had(c: TestCluster, service: str) -> set[str]:
    """The names of the secrets that a service's running tasks have."""
    live = [task for task in c.tasks(service) if task.status.state == task.desired_state == types_pb2.RUNNING]
    return {each.secret_name for task in live for each in task.spec.container.secrets}


def names(c: TestCluster, kind: str = "secret") -> list[str]:
    return sorted(each["Spec"]["Name"] for each in c.api().get(f"/{kind}s").value)


@pytest.fixture
def typed(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What is typed for new data of the secret ``token``."""

    def make(data: bytes, kind: str = "secret", **more: Any) -> dict[str, Any]:
        file = tmp_path / "data"
        file.write_bytes(data)
        base = {"kind": kind, "name": "token", "file": str(file), "keep": 1, "jobs": False, "dry_run": False}
        return {**base, **more}

    return make


def test_all_users_get_the_new_data_one_after_the_other_and_old_versions_go(typed: Any) -> None:
    with TestCluster(managers=1, workers=2, seed=11) as c:
        id = payload(c, "secret", "token", b"one")
        user(c, "web", "secret", id, "token")
        user(c, "api", "secret", id, "token")
        c.create_service("other", 1)
        c.wait_running("web", 2)
        c.wait_running("api", 2)
        before = {task.id for task in c.tasks("other")}
        operator = Operator(c)
        assert operator.run("rotate", **typed(b"two")) == EXIT_OK
        assert had(c, "web") == had(c, "api") == {"token.v2"}
        assert names(c) == ["token", "token.v2"]
        assert operator.run("rotate", **typed(b"three")) == EXIT_OK
        assert had(c, "web") == had(c, "api") == {"token.v3"}
        assert names(c) == ["token.v2", "token.v3"]
        assert {task.id for task in c.tasks("other")} == before
        (spec,) = spec_of(c, "web")["TaskTemplate"]["ContainerSpec"]["Secrets"]
        assert spec["File"] == {"Name": "key", "UID": "0", "GID": "0", "Mode": 0o400}
        c.api().post(f"/services/web/update?rollback=previous&version={version_of(c, 'web')}", spec_of(c, "web"))
        c.run_until(lambda: had(c, "web") == {"token.v2"})


def version_of(c: TestCluster, service: str) -> int:
    return int(c.api().get(f"/services/{service}").value["Version"]["Index"])


def test_the_same_command_again_changes_nothing(typed: Any) -> None:
    with TestCluster(managers=1, workers=1, seed=12) as c:
        user(c, "web", "secret", payload(c, "secret", "token", b"one"), "token")
        c.wait_running("web", 2)
        operator = Operator(c)
        assert operator.run("rotate", **typed(b"two")) == EXIT_OK
        tasks, version = {task.id for task in c.tasks("web")}, version_of(c, "web")
        assert operator.run("rotate", **typed(b"two")) == EXIT_OK
        assert operator.lines == ["token.v2 has this data already", "web has token.v2"]
        assert ({task.id for task in c.tasks("web")}, version_of(c, "web")) == (tasks, version)
        assert operator.run("rotate", **typed(b"", file="")) == EXIT_OK
        assert operator.lines[0] == "no new data was given: token.v2 is the newest version"


@pytest.mark.parametrize("requests", [4, 5, 7, 8, 12, 20])
def test_a_rotation_that_dies_anywhere_is_gone_on_with_by_the_same_command(typed: Any, requests: int) -> None:
    with TestCluster(managers=1, workers=1, seed=13) as c:
        id = payload(c, "secret", "token", b"one")
        for name in ("api", "web"):
            user(c, name, "secret", id, "token")
            c.wait_running(name, 2)
        operator = Operator(c, dies_after=requests)
        assert operator.run("rotate", **typed(b"two")) == EXIT_INTERRUPTED
        operator.dies_after = None
        assert operator.run("rotate", **typed(b"two")) == EXIT_OK
        assert had(c, "web") == had(c, "api") == {"token.v2"}
        assert names(c) == ["token", "token.v2"]


def test_an_update_that_pauses_ends_the_rotation_which_goes_on_once_the_cause_is_mended(typed: Any) -> None:
    with TestCluster(managers=1, workers=1, seed=14) as c:
        id = payload(c, "secret", "token", b"one")
        for name in ("api", "web"):
            user(c, name, "secret", id, "token")
            c.wait_running(name, 2)
        break_it(c, "api", "exit", "1")
        operator = Operator(c)
        with pytest.raises(StartError, match=r"api: its update is paused: .*; not looked at yet: web\. The same comm"):
            operator.run("rotate", **typed(b"two"))
        assert had(c, "web") == {"token"}
        assert names(c) == ["token", "token.v2"], "nothing that is in use was removed"
        break_it(c, "api")
        assert operator.run("rotate", **typed(b"two")) == EXIT_OK
        assert had(c, "web") == had(c, "api") == {"token.v2"}


def break_it(c: TestCluster, service: str, *command: str) -> None:
    """Has the next tasks of a service run something else; those that run are left to the next update."""
    spec = spec_of(c, service)
    spec["TaskTemplate"]["ContainerSpec"]["Command"] = [*command]
    spec["UpdateConfig"] = {**UPDATE, "Delay": 0}
    c.api().post(f"/services/{service}/update?version={version_of(c, service)}", spec)


def test_a_service_that_is_rolled_back_is_told_and_tried_again_the_next_time(typed: Any) -> None:
    with TestCluster(managers=1, workers=1, seed=15) as c:
        back = {**UPDATE, "FailureAction": "rollback"}
        user(c, "web", "secret", payload(c, "secret", "token", b"one"), "token", UpdateConfig=back)
        c.wait_running("web", 2)
        operator = Operator(c, always=lambda: fail_new(c, "web", "token.v2"))
        with pytest.raises(StartError, match="web: it was rolled back: rollback completed"):
            operator.run("rotate", **typed(b"two"))
        assert had(c, "web") == {"token"}
        operator.always = None
        assert operator.run("rotate", **typed(b"two")) == EXIT_OK
        assert had(c, "web") == {"token.v2"}


def fail_new(c: TestCluster, service: str, secret: str) -> None:
    """Kills what runs with this version."""
    for task in c.tasks(service):
        has = any(each.secret_name == secret for each in task.spec.container.secrets)
        if has and task.status.state == task.desired_state == types_pb2.RUNNING:
            c.kill_task(task.id)


def test_a_dry_run_says_all_of_it_and_changes_nothing(typed: Any) -> None:
    with TestCluster(managers=1, workers=1, seed=16) as c:
        id = payload(c, "secret", "token", b"one")
        user(c, "web", "secret", id, "token")
        user(c, "job", "secret", id, "token", Mode={"ReplicatedJob": {}}, UpdateConfig=None)
        c.wait_running("web", 2)
        operator = Operator(c)
        before = (version_of(c, "web"), c.api().get("/secrets").value)
        assert operator.run("rotate", **typed(b"two", dry_run=True, keep=0)) == EXIT_OK
        assert operator.lines == [
            "secret token: token",
            "would create token.v2, unless token has this data already",
            "would update web from token to token.v2",
            "would leave job as it is: it is a job, which an update would run anew (--jobs)",
            "Nothing was changed.",
        ]
        assert (version_of(c, "web"), c.api().get("/secrets").value) == before


def test_configs_rotate_as_secrets_do_and_other_peoples_changes_in_between_are_kept(typed: Any) -> None:
    with TestCluster(managers=3, seed=17) as c:
        user(c, "web", "config", payload(c, "config", "token", b"one"), "token")
        c.wait_running("web", 2)
        operator = Operator(c, crossed=lambda: c.scale("web", 4))
        assert operator.run("rotate", **typed(b"two", "config", keep=0)) == EXIT_OK
        c.wait_running("web", 4)
        assert names(c, "config") == ["token.v2"]
        (reference,) = spec_of(c, "web")["TaskTemplate"]["ContainerSpec"]["Configs"]
        assert reference["ConfigName"] == "token.v2"


def test_no_line_no_error_and_no_option_holds_the_data_of_a_secret(
    typed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = b"s3cr3t-of-mine"
    hidden = (data.decode(), base64.b64encode(data).decode())
    with TestCluster(managers=1, seed=18) as c:
        user(c, "web", "secret", payload(c, "secret", "token", b"one"), "token")
        operator = Operator(c)
        given = typed(data)
        assert operator.run("rotate", **given) == EXIT_OK
        told = [*operator.lines, repr(given)]
        c.stop("manager-1")
        c.restart("manager-1")
        with pytest.raises(StartError) as caught:
            operator.run("rotate", **typed(data, name="nosuch"))
        told += [repr(caught.value), *capsys.readouterr()]
    assert not [line for line in told for each in hidden if each in line]


@pytest.mark.parametrize("content", [b"", b"x" * 512_000])
def test_data_that_no_secret_may_have_is_refused_before_anything_is_done(typed: Any, content: bytes) -> None:
    with (
        TestCluster(managers=1, seed=19) as c,
        pytest.raises(StartError, match="secret data must be larger than 0 and less than 512000 bytes"),
    ):
        Operator(c).run("rotate", **typed(content))


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path, typed: Any) -> None:
    with (
        TestCluster(managers=1, seed=20) as c,
        pytest.raises(StartError, match=r"cannot read .*missing: No such file or directory"),
    ):
        Operator(c).run("rotate", **typed(b"x", file=str(tmp_path / "missing")))


# Drain


def drain(operator: Operator, node: str, **typed: Any) -> int:
    return operator.run("drain", node=node, **{"wait": True, "undo": False, **typed})


def test_a_node_is_drained_when_all_it_had_runs_elsewhere() -> None:
    with TestCluster(managers=1, workers=2, seed=31) as c:
        c.create_service("web", 6)
        everywhere(c, "agent")
        c.wait_running("web", 6)
        c.wait_running("agent", 3)
        operator = Operator(c)
        assert drain(operator, "worker-1") == EXIT_OK
        assert c.running("web") == 6
        assert "worker-1" not in [*c.nodes_of("web"), *c.nodes_of("agent")]
        assert operator.lines[0] == "worker-1 is being drained; back with: swarmlet drain --undo worker-1"
        assert operator.lines[-1] == "worker-1 is drained: 2 tasks run elsewhere, or are not wanted any more"
        assert drain(operator, "worker-1") == EXIT_OK
        assert operator.lines[0].startswith("worker-1 is drained already")
        assert drain(operator, "worker-1", wait=False, undo=True) == EXIT_OK
        c.wait_running("agent", 3)
        assert drain(operator, "worker-1", wait=False, undo=True) == EXIT_OK
        assert operator.lines == ["worker-1 takes tasks already"]


def test_a_drain_that_cannot_end_says_which_task_holds_it_up_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    with TestCluster(managers=1, workers=1, seed=32) as c:
        c.create_service("web", 1, constraints=["node.hostname==worker-1"])
        c.wait_running("web", 1)
        operator = Operator(c)
        assert drain(operator, "worker-1", timeout=5.0) == EXIT_TIMED_OUT
        assert capsys.readouterr().err.startswith(
            "swarmlet: worker-1 after 5 s: 1 task not running elsewhere: web.1 is pending (no suitable node ("
        )
        assert drain(operator, "worker-1", timeout=5.0) == EXIT_TIMED_OUT, "and so it is the next time"


def test_who_takes_a_drain_back_ends_the_waiting() -> None:
    with TestCluster(managers=1, workers=1, seed=33) as c:
        c.create_service("web", 1, constraints=["node.hostname==worker-1"])
        c.wait_running("web", 1)

        def back() -> None:
            assert drain(Operator(c), "worker-1", wait=False, undo=True) == EXIT_OK

        operator = Operator(c, meanwhile=back)
        assert drain(operator, "worker-1") == EXIT_OK
        assert operator.lines[-1] == "worker-1 is not drained any more: somebody has it take tasks again"


def test_a_node_that_is_gone_for_good_is_drained_once_its_tasks_run_elsewhere() -> None:
    with TestCluster(managers=1, workers=2, seed=34) as c:
        c.create_service("web", 3)
        c.wait_running("web", 3)
        c.crash("worker-2")
        c.run_until(lambda: "worker-2" not in c.nodes_of("web"))
        operator = Operator(c)
        assert drain(operator, "worker-2") == EXIT_OK
        assert "worker-2 is down: nobody can say whether 1 task still runs there" in operator.lines
        assert c.running("web") == 3


def test_a_node_that_is_not_there_is_a_sentence() -> None:
    with TestCluster(managers=1, seed=35) as c, pytest.raises(StartError, match="node nosuch not found"):
        drain(Operator(c), "nosuch")


# Rebalance


def planner(c: TestCluster) -> Callable[..., Any]:
    """What a manager's node answers when it is asked for moves: by the view that the leader has."""

    def plan(*, services: list[str], without: list[str], limit: int) -> Any:
        store = LittleStore()
        for method, held in (
            ("Nodes", "nodes"),
            ("Services", "services"),
            ("Tasks", "tasks"),
            ("Clusters", "clusters"),
        ):
            store.put(*getattr(c.control(f"List{method}"), held))
        return rebalancing.plan(store.view, services, limit, c.time, without)

    return plan


def rebalance(operator: Operator, *services: str, **typed: Any) -> int:
    given = {"services": [*services], "apply": True, "max_moves": 10, "socket": "", "timeout": 60.0, **typed}
    operator.lines = []
    options = OperatorOptions("rebalance", Where(), given)
    engine = operator.engine()
    return operate_rebalance.rebalance(engine, options, operator.lines.append, planner(operator.cluster))


def crowded(c: TestCluster, **services: Any) -> None:
    """A swarm that worker-2 comes back to: its tasks are all elsewhere."""
    c.stop("worker-2")
    c.advance(30)
    for name, (replicas, update) in services.items():
        c.create_service(name, replicas, spec={"UpdateConfig": {"Monitor": 1_000_000_000, **update}})
        c.wait_running(name, replicas)
    c.restart("worker-2")
    c.advance(30)


STOP, START = {"Order": "stop-first"}, {"Order": "start-first"}


def test_a_node_that_came_back_gets_its_share_and_the_specs_stay_what_they_were() -> None:
    with TestCluster(managers=1, workers=2, seed=41) as c:
        crowded(c, web=(6, STOP), sf=(4, START), one=(1, STOP), two=(1, START))
        before = {name: spec_of(c, name) for name in ("web", "sf", "one", "two")}
        operator = Operator(c)
        assert rebalance(operator, apply=False) == EXIT_OK
        assert operator.lines[-1] == "Nothing was changed. Add --apply to do it."
        assert {name: spec_of(c, name) for name in before} == before
        assert rebalance(operator) == EXIT_OK
        assert operator.lines[-1].endswith("moved; nothing more is to be moved")
        assert sorted(Counter(c.nodes_of("web")).values()) == [2, 2, 2]
        assert sorted(Counter(c.nodes_of("sf")).values()) == [1, 1, 2]
        loads = Counter(name for service in before for name in c.nodes_of(service))
        assert max(loads.values()) - min(loads.values()) <= 1
        assert {name: spec_of(c, name) for name in before} == before
        assert rebalance(operator) == EXIT_OK
        assert operator.lines == ["0 moved; nothing more is to be moved"]


def test_start_first_never_has_a_task_less_and_stop_first_never_one_more() -> None:
    with TestCluster(managers=1, workers=2, seed=42) as c:
        crowded(c, web=(6, STOP), sf=(6, START))
        seen: dict[str, set[int]] = {"web": set(), "sf": set()}

        def look() -> None:
            for name, counts in seen.items():
                counts.add(c.running(name))

        assert rebalance(Operator(c, always=look)) == EXIT_OK
        assert min(seen["sf"]) == 6
        assert max(seen["web"]) == 6


def test_no_more_is_moved_than_may_be_and_only_of_the_services_that_were_named() -> None:
    with TestCluster(managers=1, workers=2, seed=43) as c:
        crowded(c, web=(6, STOP), api=(6, STOP))
        operator = Operator(c)
        before = {task.id for task in c.tasks("api")}
        assert rebalance(operator, "web", max_moves=1) == EXIT_OK
        assert operator.lines[-1] == "1 moved, which is as many as may be (--max-moves)"
        assert sorted(Counter(c.nodes_of("web")).values()) == [1, 2, 3]
        assert {task.id for task in c.tasks("api")} == before


def test_between_two_moves_of_a_service_lies_its_update_delay() -> None:
    with TestCluster(managers=1, workers=2, seed=44) as c:
        crowded(c, web=(6, {**STOP, "Delay": 40_000_000_000}))
        begun = c.time
        assert rebalance(Operator(c)) == EXIT_OK
        assert sorted(Counter(c.nodes_of("web")).values()) == [2, 2, 2]
        assert 40 <= c.time - begun < 80


@pytest.mark.parametrize("requests", [10, 12, 14, 18])
def test_a_move_whose_command_dies_is_taken_back_by_the_next_one_or_ends_by_itself(requests: int) -> None:
    with TestCluster(managers=1, workers=2, seed=45) as c:
        crowded(c, web=(6, STOP), one=(1, STOP))
        operator = Operator(c, dies_after=requests)
        with pytest.raises(KeyboardInterrupt):
            rebalance(operator)
        operator.dies_after = None
        assert rebalance(operator) == EXIT_OK
        assert sorted(Counter(c.nodes_of("web")).values()) == [2, 2, 2]
        assert c.running("one") == 1
        for name in ("web", "one"):
            assert REBALANCE not in (spec_of(c, name).get("Labels") or {})
            assert not (spec_of(c, name)["TaskTemplate"].get("Placement") or {}).get("Constraints")


def test_a_service_whose_move_goes_wrong_gets_its_spec_back_and_the_others_are_moved() -> None:
    with TestCluster(managers=1, workers=2, seed=46) as c:
        crowded(c, bad=(1, STOP), web=(6, STOP), one=(1, STOP))
        before = spec_of(c, "bad")
        operator = Operator(c, always=lambda: fail_moved(c, "bad"))
        assert rebalance(operator, "bad", timeout=20.0) == EXIT_FAILED
        assert any(line.startswith("bad is left: ") for line in operator.lines)
        assert spec_of(c, "bad") == before
        operator.always = None
        assert rebalance(operator, "web") == EXIT_OK
        assert sorted(Counter(c.nodes_of("web")).values()) == [2, 2, 2]


def fail_moved(c: TestCluster, service: str) -> None:
    """Kills what runs on worker-2."""
    names = {node.id: node.description.hostname for node in c.control("ListNodes").nodes}
    for task in c.tasks(service):
        if names.get(task.node_id) == "worker-2" and task.status.state == task.desired_state == types_pb2.RUNNING:
            c.kill_task(task.id)


def test_who_writes_a_spec_anew_during_a_move_ends_it_and_his_spec_stays() -> None:
    with TestCluster(managers=1, workers=2, seed=47) as c:
        crowded(c, web=(6, STOP))

        def deploy() -> None:
            spec = {**spec_of(c, "web"), "Labels": {"mine": "yes"}, "Mode": {"Replicated": {"Replicas": 3}}}
            c.api().post(f"/services/web/update?version={version_of(c, 'web')}", spec)

        operator = Operator(c, meanwhile=deploy)
        assert rebalance(operator) == EXIT_FAILED
        assert "web is left: somebody changed it meanwhile" in operator.lines
        assert spec_of(c, "web")["Labels"] == {"mine": "yes"}
        assert spec_of(c, "web")["Mode"] == {"Replicated": {"Replicas": 3}}


def test_a_plan_of_another_swarm_is_not_carried_out() -> None:
    with TestCluster(managers=1, seed=48) as c:
        engine, typed = (
            Operator(c).engine(),
            {"services": [], "apply": True, "max_moves": 1, "socket": "", "timeout": 1},
        )
        options = OperatorOptions("rebalance", Where(), typed)
        with pytest.raises(StartError, match="is of another swarm than the manager that is asked"):
            operate_rebalance.rebalance(
                engine, options, print, lambda **_: {"cluster": "other", "moves": [], "left": []}
            )
