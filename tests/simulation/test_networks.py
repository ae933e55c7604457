"""Networks, secrets and published ports through a change of leaders: nothing is given twice, nothing is lost."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from swarmlet import TestCluster


def held(cluster: TestCluster) -> list[tuple[str, str]]:
    """Every address that a service, a task that has not ended, or a node has."""
    services = cluster.control("ListServices").services
    found = [(each.network_id, each.addr) for one in services for each in one.endpoint.virtual_ips]
    live = [one for one in cluster.control("ListTasks").tasks if one.status.state <= 512]
    nodes = cluster.control("ListNodes").nodes
    for attachments in [*(one.networks for one in live), *(one.attachments for one in nodes)]:
        found += [(each.network.id, address) for each in attachments for address in each.addresses]
    return found


def service(name: str, network: str, secret: str) -> dict[str, Any]:
    file = {"Name": "key", "UID": "0", "GID": "0", "Mode": 0o400}
    container = {
        "Image": "host",
        "Command": ["run"],
        "Secrets": [{"File": file, "SecretID": secret, "SecretName": "key"}],
    }
    return {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": container, "Networks": [{"Target": network}]},
        "Mode": {"Replicated": {"Replicas": 4}},
        "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80}]},
    }


def created_at_last(cluster: TestCluster, spec: dict[str, Any]) -> str:
    """The id of a service that is asked for until there is a leader who makes it."""
    for _ in range(10):
        answer = cluster.api().post("/services/create", spec)
        if answer.status == 201:
            return str(answer.value["ID"])
        assert "does not have a leader" in answer.message
        cluster.advance(5)
    raise AssertionError("nobody leads")


@pytest.mark.parametrize("seed", range(3))
def test_the_next_leader_goes_on_with_what_the_last_one_gave(seed: int) -> None:
    with TestCluster(managers=3, workers=2, seed=seed) as cluster:
        network = cluster.api().post("/networks/create", {"Name": "back", "Driver": "overlay"}).value["Id"]
        data = base64.b64encode(b"hidden").decode()
        secret = cluster.api().post("/secrets/create", {"Name": "key", "Data": data}).value["ID"]
        first = cluster.api().post("/services/create", service("first", network, secret)).value["ID"]
        cluster.wait_running(first, 4)
        before = held(cluster)
        assert len(before) == len(set(before)) >= 2 + 8 + 5
        (port,) = cluster.control("GetService", service_id=first).service.endpoint.ports
        cluster.crash(cluster.leader)
        second = created_at_last(cluster, service("second", network, secret))
        cluster.wait_running(second, 4, within=120)
        now = held(cluster)
        assert len(now) == len(set(now))
        (other,) = cluster.control("GetService", service_id=second).service.endpoint.ports
        assert (port.published_port, other.published_port) == (30000, 30001)
        assert list(cluster.control("GetService", service_id=first).service.endpoint.ports) == [port]
        refused = cluster.api().delete(f"/secrets/{secret}")
        assert (refused.status, refused.message.partition("desc = ")[2]) == (
            400,
            "secret 'key' is in use by the following services: first, second",
        )
