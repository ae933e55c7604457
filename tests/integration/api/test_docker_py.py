"""docker-py as a client of a node: swarm, nodes, services, tasks, secrets, configs, networks, logs, events."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError, NotFound
from docker.types import (
    ConfigReference,
    EndpointSpec,
    Resources,
    RestartPolicy,
    RollbackConfig,
    SecretReference,
    ServiceMode,
    UpdateConfig,
)

from swarmlet import Node
from swarmlet.host import free_port
from tests.integration.api.clients import docker_client
from tests.integration.face.worlds import node
from tests.waiting import until

Client = docker.DockerClient


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node(tmp_path_factory.mktemp("docker-py"), "m1") as made:
        client = docker_client(made)
        listen = f"127.0.0.1:{free_port('127.0.0.1')}"
        assert client.swarm.init(advertise_addr="127.0.0.1", listen_addr=listen)
        client.close()
        yield made


@pytest.fixture
def client(running: Node) -> Iterator[Client]:
    made = docker_client(running)
    yield made
    for service in made.services.list():
        service.remove()
    made.close()


def create(client: Client, name: str, *args: str, **more: Any) -> Any:
    return client.services.create("host", command=None, args=list(args or ("run",)), name=name, **more)


def running_tasks(service: Any) -> list[Any]:
    return [task for task in service.tasks({"desired-state": "running"}) if task["Status"]["State"] == "running"]


def test_the_swarm_is_read_updated_and_its_tokens_are_rotated(client: Client) -> None:
    swarm = client.swarm
    swarm.reload()
    assert swarm.attrs["DefaultAddrPool"] == ["10.0.0.0/8"]
    assert swarm.attrs["Spec"]["Name"] == "default"
    before = swarm.attrs["JoinTokens"]
    assert swarm.update(rotate_worker_token=True, task_history_retention_limit=7)
    swarm.reload()
    assert swarm.attrs["JoinTokens"]["Worker"] != before["Worker"]
    assert swarm.attrs["JoinTokens"]["Manager"] == before["Manager"]
    assert swarm.attrs["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"] == 7
    assert client.swarm.get_unlock_key()["UnlockKey"] == ""


def test_a_second_init_and_a_leave_without_force_are_refused(client: Client) -> None:
    with pytest.raises(APIError) as twice:
        client.swarm.init(advertise_addr="127.0.0.1")
    assert twice.value.status_code == 503
    with pytest.raises(APIError) as left:
        client.swarm.leave()
    assert left.value.status_code == 503


def test_nodes_are_listed_and_their_spec_is_what_was_written(client: Client) -> None:
    (only,) = client.nodes.list(filters={"role": "manager"})
    assert client.nodes.list(filters={"role": "worker"}) == []
    assert only.attrs["ManagerStatus"]["Leader"] is True
    spec = {"Availability": "active", "Role": "manager", "Labels": {"zone": "a"}}
    assert only.update(spec)
    only.reload()
    assert only.attrs["Spec"] == spec
    assert [each.id for each in client.nodes.list(filters={"id": only.id})] == [only.id]
    with pytest.raises(APIError):
        client.nodes.list(filters={"role": "bogus"})


def test_a_service_is_created_scaled_updated_and_removed(client: Client) -> None:
    service = create(client, "web", labels={"a": "b"}, mode=ServiceMode("replicated", 2), env=["A=1"])
    until(lambda: len(running_tasks(service)) == 2, "two run")
    assert service.name == "web"
    assert service.attrs["Spec"]["Labels"] == {"a": "b"}
    assert [each.id for each in client.services.list(filters={"label": "a=b"})] == [service.id]
    assert client.services.list(filters={"name": "nosuch"}) == []
    assert service.scale(3)
    until(lambda: len(running_tasks(service)) == 3, "three run")
    service.reload()
    version = service.version
    assert service.update(env=["A=2"], mode=ServiceMode("replicated", 3))
    service.reload()
    assert service.version > version
    assert service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=2"]
    assert service.attrs["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=1"]
    service.remove()
    with pytest.raises(NotFound):
        service.reload()


def test_a_plain_service_is_as_it_was_created_and_forced_updates_replace_its_tasks(client: Client) -> None:
    service = create(client, "plain")
    until(lambda: len(running_tasks(service)) == 1, "it runs")
    before = {task["ID"] for task in service.tasks()}
    assert service.force_update()
    service.reload()
    assert service.attrs["Spec"]["TaskTemplate"]["ForceUpdate"] > 0
    until(lambda: {task["ID"] for task in running_tasks(service)} - before, "another task runs")


def test_everything_that_docker_py_can_say_of_a_service_comes_back(client: Client) -> None:
    service = create(
        client, "rich", mode=ServiceMode("replicated", 0), hostname="h", workdir="/tmp", user="root",
        container_labels={"c": "d"}, stop_grace_period=1_000_000_000, init=True,
        restart_policy=RestartPolicy("on-failure", delay=5, max_attempts=3, window=7),
        update_config=UpdateConfig(parallelism=2, delay=1, failure_action="rollback", order="start-first"),
        rollback_config=RollbackConfig(parallelism=3, failure_action="pause", order="stop-first"),
        resources=Resources(cpu_limit=500_000_000, mem_limit=64 << 20),
        constraints=["node.role == manager"], preferences=[("spread", "node.labels.z")], maxreplicas=4,
        endpoint_spec=EndpointSpec(mode="dnsrr"),
    )  # fmt: skip
    spec = service.attrs["Spec"]
    template = spec["TaskTemplate"]
    assert template["ContainerSpec"]["Hostname"] == "h"
    assert template["ContainerSpec"]["Dir"] == "/tmp"
    assert template["ContainerSpec"]["Labels"] == {"c": "d"}
    assert template["ContainerSpec"]["StopGracePeriod"] == 1_000_000_000
    assert template["ContainerSpec"]["Init"] is True
    assert template["RestartPolicy"] == {"Condition": "on-failure", "Delay": 5, "MaxAttempts": 3, "Window": 7}
    assert template["Placement"]["Constraints"] == ["node.role == manager"]
    assert template["Placement"]["MaxReplicas"] == 4
    assert template["Resources"]["Limits"] == {"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20}
    assert (spec["UpdateConfig"]["Parallelism"], spec["UpdateConfig"]["Order"]) == (2, "start-first")
    assert spec["RollbackConfig"]["Parallelism"] == 3
    assert spec["EndpointSpec"]["Mode"] == "dnsrr"


def test_a_global_service_runs_on_the_node(client: Client) -> None:
    service = create(client, "everywhere", mode="global")
    (task,) = until(lambda: running_tasks(service), "it runs")
    assert "Slot" not in task
    assert task["NodeID"] == client.nodes.list()[0].id


def test_names_that_are_taken_and_things_that_are_missing_are_refused(client: Client) -> None:
    create(client, "web", mode=ServiceMode("replicated", 0))
    with pytest.raises(APIError) as taken:
        create(client, "web")
    assert taken.value.status_code == 409
    for find in (client.services.get, client.nodes.get, client.secrets.get, client.configs.get, client.networks.get):
        with pytest.raises(NotFound):
            find("nosuch")


@pytest.mark.parametrize("size", [1_540_000, 3_000_000])
def test_a_service_that_no_log_entry_holds_is_refused_and_the_manager_goes_on(client: Client, size: int) -> None:
    with pytest.raises(APIError, match="raft message is too large") as refused:
        create(client, "fat", container_labels={"x": "y" * size})
    assert refused.value.status_code == 400
    assert client.services.list() == []
    assert client.info()["Swarm"]["ControlAvailable"]
    create(client, "thin", mode=ServiceMode("replicated", 0)).remove()


def test_secrets_come_back_without_their_data(client: Client) -> None:
    secret = client.secrets.create(name="key", data=b"hidden", labels={"a": "b"})
    secret.reload()
    assert secret.name == "key"
    assert "Data" not in secret.attrs["Spec"]
    assert [each.id for each in client.secrets.list(filters={"names": ["key"]})] == [secret.id]
    reference = SecretReference(secret.id, "key")
    service = create(client, "user", secrets=[reference], mode=ServiceMode("replicated", 0))
    (kept,) = service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"]
    assert kept == {"File": {"Name": "key", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": secret.id,
                    "SecretName": "key"}  # fmt: skip
    with pytest.raises(APIError) as used:
        secret.remove()
    assert "is in use by the following service: user" in str(used.value)
    service.remove()
    assert secret.remove()
    with pytest.raises(NotFound):
        client.secrets.get(secret.id)


def test_configs_come_back_with_their_data(client: Client) -> None:
    config = client.configs.create(name="conf", data=b"shown", templating={"name": "golang"})
    config.reload()
    assert config.attrs["Spec"]["Data"] == "c2hvd24="
    assert config.attrs["Spec"]["Templating"] == {"Name": "golang"}
    service = create(client, "user", configs=[ConfigReference(config.id, "conf")], mode=ServiceMode("replicated", 0))
    assert service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"]["Configs"][0]["ConfigName"] == "conf"
    service.remove()
    assert config.remove()


def test_scaling_is_no_update_but_docker_pys_first_one_writes_the_defaults_and_replaces_tasks(client: Client) -> None:
    """As at dockerd: its ``scale`` reads the spec with the defaults in it, and writes that. The next one changes the
    number alone."""
    service = create(client, "web", mode=ServiceMode("replicated", 1))

    def update() -> Any:
        service.reload()
        return service.attrs.get("UpdateStatus")

    spec = client.api.inspect_service(service.id)["Spec"]
    spec["Mode"]["Replicated"]["Replicas"] = 2
    path = client.api._url("/services/{0}/update", service.id)
    version = client.api.inspect_service(service.id)["Version"]["Index"]
    client.api._post_json(path, data=spec, params={"version": version}).raise_for_status()
    until(lambda: len(running_tasks(service)) == 2, "two tasks run")
    assert update() is None
    assert "RestartPolicy" not in service.attrs["Spec"]["TaskTemplate"]
    assert service.scale(1)
    until(update, "the update is shown")
    assert service.attrs["Spec"]["TaskTemplate"]["RestartPolicy"]["Condition"] == "any"
    assert service.scale(3)
    until(lambda: len(running_tasks(service)) == 3, "three tasks run")
    assert update() is None


def test_networks_are_pruned_found_unused_and_shown_with_their_services(client: Client) -> None:
    used, unused = (client.networks.create(name, driver="overlay") for name in ("used", "unused"))
    assert [each.name for each in client.networks.list(filters={"scope": "local"})] == ["host"]
    create(client, "web", networks=["used"])
    dangling = {each.name for each in client.networks.list(filters={"dangling": True})}
    assert {"unused", "ingress"} <= dangling
    assert "used" not in dangling
    assert client.networks.prune(filters={"until": "1h"}) == {"NetworksDeleted": None}
    assert client.networks.prune() == {"NetworksDeleted": ["unused"]}
    shown = client.api.inspect_network(used.id, verbose=True)["Services"]["web"]
    assert shown["VIP"].startswith("10.0.")
    with pytest.raises(NotFound):
        unused.reload()
    with pytest.raises(NotFound, match="No such container: nosuch"):
        used.connect("nosuch")


def test_networks_of_the_swarm_are_made_listed_and_removed(client: Client) -> None:
    network = client.networks.create("front", driver="overlay", labels={"a": "b"})
    network.reload()
    assert (network.attrs["Scope"], network.attrs["Driver"]) == ("swarm", "overlay")
    assert [each.name for each in client.networks.list(filters={"label": "a=b"})] == ["front"]
    network.remove()
    with pytest.raises(NotFound):
        client.networks.get(network.id)


def test_logs_of_a_service_are_read_and_followed_until_the_client_hangs_up(client: Client, running: Node) -> None:
    service = create(client, "talks", "say hello")
    until(lambda: running_tasks(service), "it runs")
    assert isinstance(b"".join(service.logs(stdout=True, stderr=True)), bytes)
    followed = service.logs(stdout=True, stderr=True, follow=True)
    until(lambda: broker(running)["subscriptions"] >= 1, "the broker has the subscription")
    followed.close()
    del followed  # a generator that never began keeps its connection until it is gone, from Python 3.13 on
    client.api.close()  # docker-py keeps the connection of a stream; closing it is how its users hang up
    until(lambda: broker(running)["subscriptions"] == 0, "the broker has let go of it")


def broker(running: Node) -> dict[str, Any]:
    return state_of(running, "/cluster/node/manager/leader/log_broker")


def state_of(running: Node, path: str) -> dict[str, Any]:
    cell = running._assembly.stage.cells[path]  # type: ignore[union-attr]
    snapshot: dict[str, Any] = cell.instance.snapshot()
    return snapshot


def test_events_of_the_swarm_are_heard(client: Client, running: Node) -> None:
    listener = docker_client(running)
    heard: list[dict[str, Any]] = []
    stream = listener.events(decode=True, filters={"type": ["service"]})
    thread = threading.Thread(target=lambda: heard.extend(_first(stream, 2)), daemon=True)
    thread.start()
    until(lambda: state_of(running, "/cluster/events")["subscribers"] >= 1, "somebody listens")
    create(client, "loud", mode=ServiceMode("replicated", 0)).remove()
    thread.join(60)
    assert (heard[0]["Type"], heard[0]["Action"]) == ("service", "create")
    assert heard[0]["Actor"]["Attributes"] == {"name": "loud"}
    assert heard[0]["scope"] == "swarm"
    stream.close()
    listener.close()


def _first(stream: Any, count: int) -> list[dict[str, Any]]:
    found = []
    for event in stream:
        found.append(event)
        if len(found) == count:
            break
    return found


def test_the_daemon_says_what_clients_look_for(client: Client) -> None:
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.45"
    info = client.info()
    assert info["Swarm"]["ControlAvailable"] is True
    assert info["Swarm"]["RemoteManagers"][0]["NodeID"] == info["Swarm"]["NodeID"]
    assert isinstance(client.df()["Containers"], list)
    assert client.volumes.list() == []


def test_another_node_leaves_and_is_out_of_the_swarm(tmp_path: Path) -> None:
    with node(tmp_path, "m2") as made:
        client = docker_client(made)
        client.swarm.init(advertise_addr="127.0.0.1", listen_addr=f"127.0.0.1:{free_port('127.0.0.1')}")
        assert client.swarm.leave(force=True)
        assert client.info()["Swarm"]["LocalNodeState"] == "inactive"
        with pytest.raises(APIError) as out:
            client.services.list()
        assert out.value.status_code == 503
        client.close()
