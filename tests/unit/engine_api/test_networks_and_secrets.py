"""``/networks``, ``/secrets`` and ``/configs``: what is asked of the cluster, what is shown, what is refused."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine_api.errors import ApiError
from runtime.engine_api.routes.network_use import BOTH, NO_FLAG, until_of
from runtime.engine_api.routes.networks import FROM_A_WORKER, HOST_NETWORK, PROCESS
from runtime.errors import Code, Refused
from runtime.wire.pb.objects_pb2 import Config, Network, Secret, Service, Task
from runtime.wire.pb.types_pb2 import RUNNING, SHUTDOWN, PortConfig
from tests.unit.engine_api.fake import NODE_ID, FakeBackend, no_manager
from tests.unit.engine_api.support import ask


def a_network(network_id: str, name: str, **labels: str) -> Network:
    network = Network(id=network_id)
    network.spec.annotations.name = name
    network.spec.annotations.labels.update(labels)
    network.spec.driver_config.name = "overlay"
    return network


def with_networks(*networks: Network) -> FakeBackend:
    backend = FakeBackend()
    backend.networks = {network.id: network for network in networks}
    return backend


HOST_MODE = PortConfig.HOST
NOT_LOCAL = "networks on one node alone are not offered by this daemon, use the driver overlay"
PREDEFINED = {"com.docker.swarm.predefined": "true"}
THREE = (
    a_network("abc1", "front"), a_network("abd2", "back"), a_network("xyz3", "host", **PREDEFINED),
)  # fmt: skip


def names(backend: FakeBackend, **filters: Any) -> Any:
    """The names that ``GET /networks`` lists, or its refusal."""
    query = urllib.parse.urlencode({"filters": json.dumps(filters)}) if filters else ""
    status, shown = ask(backend, "GET", f"/networks?{query}")
    return [network["Name"] for network in shown] if status == 200 else (status, shown)


def test_the_networks_of_the_cluster_are_listed_but_for_its_own() -> None:
    assert names(with_networks(*THREE)) == ["front", "back", "host"]
    assert names(FakeBackend()) == ["host"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"name": ["o"]}, ["front", "host"]),
        ({"name": ["^back$", "zz"]}, ["back"]),
        ({"name": ["^ack"]}, []),
        ({"name": {"ck$": True}}, ["back"]),
        ({"name": ["fr.*"]}, []),
        ({"id": ["ab"]}, ["front", "back"]),
        ({"id": ["d2"]}, ["back"]),
        ({"driver": ["overlay"]}, ["front", "back"]),
        ({"driver": ["bridge"]}, []),
        ({"driver": ["host"]}, ["host"]),
        ({"scope": ["swarm"]}, ["front", "back"]),
        ({"scope": ["local"]}, ["host"]),
        ({"type": ["custom"]}, ["front", "back"]),
        ({"type": ["builtin"]}, ["host"]),
        ({"label": ["a"]}, []),
        ({"name": ["front"], "driver": ["bridge"]}, []),
        ({"type": ["zz"]}, (400, "invalid filter: 'type'='zz'")),
        ({"dangling": ["true"]}, ["back"]),
        ({"dangling": {"1": True}}, ["back"]),
        ({"dangling": ["false"]}, ["front", "host"]),
        ({"dangling": ["0"], "scope": ["swarm"]}, ["front"]),
        ({"dangling": ["maybe"]}, (400, NO_FLAG)),
        ({"dangling": ["true", "false"]}, (400, BOTH)),
        ({"foo": ["x"]}, (400, "Invalid filter 'foo'")),
    ],
)  # fmt: skip
def test_a_list_of_networks_is_filtered(filters: dict[str, Any], expected: Any) -> None:
    backend = with_networks(*THREE)
    on_network(backend, "web", "abc1")
    assert names(backend, **filters) == expected


def on_network(backend: FakeBackend, name: str, network_id: str, address: str = "10.0.1.2/24") -> Service:
    service = backend.add_service(name)
    service.spec.task.networks.add(target=network_id)
    service.endpoint.virtual_ips.add(network_id=network_id, addr=address)
    return service


def test_a_network_that_a_task_is_on_by_itself_and_the_ingress_of_published_ports_do_not_dangle() -> None:
    ingress = a_network("ing", "ingress")
    ingress.spec.ingress = True
    backend = with_networks(*THREE, ingress)
    assert names(backend, dangling=["true"]) == ["front", "back", "ingress"]
    attached = backend.tasks["t1"] = Task(id="t1")
    attached.networks.add().network.id = "abd2"
    backend.add_service("web").endpoint.virtual_ips.add(network_id="ing", addr="10.0.0.2/24")
    assert names(backend, dangling=["true"]) == ["front"]
    assert list(backend.requests("ListTasks")[0].filters.runtimes) == ["attachment"]


def test_labels_are_left_to_the_cluster_to_filter_by() -> None:
    backend = with_networks()
    assert names(backend, label=["a=b", "c"]) == []
    assert dict(backend.requests("ListNetworks")[0].filters.labels) == {"a": "b", "c": ""}


@pytest.mark.parametrize(
    ("target", "name"),
    [("abc1", "front"), ("back", "back"), ("abd", "back"), ("host?scope=swarm", "host"), ("front?verbose=1", "front")],
)
def test_a_network_is_found_by_id_name_or_prefix(target: str, name: str) -> None:
    status, shown = ask(with_networks(*THREE), "GET", f"/networks/{target}")
    assert (status, shown["Name"], shown["Scope"]) == (200, name, "swarm")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("nosuch", (404, "network nosuch not found")),
        ("front?scope=local", (404, "network front not found")),
        ("front?scope=global", (404, "network front not found")),
        ("host?scope=zz", (404, "network host not found")),
        ("ab", (400, "2 matches found based on ID prefix: network ab is ambiguous")),
        ("front?verbose=zz",
         (400, 'invalid value for verbose: zz: strconv.ParseBool: parsing "zz": invalid syntax')),
    ],
)  # fmt: skip
def test_a_network_that_is_not_meant_clearly_is_refused(target: str, expected: Any) -> None:
    assert ask(with_networks(*THREE), "GET", f"/networks/{target}") == expected


def test_two_networks_of_one_name_are_told_apart_by_id_alone() -> None:
    backend = with_networks(a_network("one", "twin"), a_network("two", "twin"))
    assert ask(backend, "GET", "/networks/twin") == (
        400,
        "2 matches found based on name: network twin is ambiguous",
    )
    assert ask(backend, "GET", "/networks/two")[1]["Id"] == "two"


def test_this_machines_own_network_is_found_by_name_and_id_before_the_swarms() -> None:
    backend = with_networks(*THREE)
    status, own = ask(backend, "GET", "/networks/host")
    assert (status, own["Scope"], own["Driver"], own["Containers"]) == (200, "local", "host", {})
    assert re.fullmatch(r"[0-9a-f]{64}", own["Id"])
    assert ask(backend, "GET", f"/networks/{own['Id']}?scope=local") == (200, own)
    assert ask(backend, "GET", "/networks/host?scope=swarm")[1]["Id"] == "xyz3"
    assert ask(backend, "GET", f"/networks/{own['Id']}?scope=swarm") == (404, f"network {own['Id']} not found")
    for network in ("host", own["Id"]):
        refused = ask(backend, "DELETE", f"/networks/{network}")
        assert refused == (403, "host is a pre-defined network and cannot be removed")
    assert backend.requests("RemoveNetwork") == []


def no_manager_here(status: str = "active/worker") -> FakeBackend:
    backend = FakeBackend()
    backend.status = status
    for method in ("ListNetworks", "GetNetwork", "RemoveNetwork", "ListSecrets"):
        backend.refusals[method] = no_manager()
    return backend


def test_a_node_that_is_no_manager_has_its_own_network_alone() -> None:
    backend = no_manager_here()
    assert names(backend) == ["host"]
    assert names(backend, dangling=["true"]) == []
    assert ask(backend, "GET", "/networks/host")[0] == 200
    for method in ("GET", "DELETE"):
        assert ask(backend, method, "/networks/ingress") == (404, "network ingress not found")
    assert ask(backend, "POST", "/networks/prune") == (200, {"NetworksDeleted": None})
    assert ask(backend, "GET", "/secrets") == (503, "This node is not a swarm manager.")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("active/worker", (403, FROM_A_WORKER)),
        ("inactive", (500, "This node is not a swarm manager.")),
    ],
)
def test_a_network_is_not_made_where_no_manager_is(status: str, expected: Any) -> None:
    backend = no_manager_here(status)
    assert ask(backend, "POST", "/networks/create", {"Name": "n", "Driver": "overlay"}) == expected


def test_trouble_of_the_cluster_is_told_and_not_taken_for_an_empty_list() -> None:
    backend = FakeBackend()
    backend.refusals["ListNetworks"] = Refused(Code.UNAVAILABLE, "not now")
    text = "rpc error: code = Unavailable desc = not now"
    assert ask(backend, "GET", "/networks") == (503, text)
    assert ask(backend, "POST", "/networks/prune") == (503, text)


# Pruning


def pruned(backend: FakeBackend, **filters: Any) -> Any:
    """What a prune says that it deleted, or its refusal."""
    query = urllib.parse.urlencode({"filters": json.dumps(filters)}) if filters else ""
    status, shown = ask(backend, "POST", f"/networks/prune?{query}")
    return shown["NetworksDeleted"] if status == 200 else (status, shown)


def test_what_nobody_uses_is_pruned_and_the_swarms_own_networks_stay() -> None:
    ingress = a_network("ing", "ingress")
    ingress.spec.ingress = True
    backend = with_networks(*THREE, ingress)
    assert pruned(backend) == ["front", "back"]
    assert [request.network_id for request in backend.requests("RemoveNetwork")] == ["abc1", "abd2"]


@pytest.mark.parametrize("code", [Code.FAILED_PRECONDITION, Code.NOT_FOUND])
def test_a_network_that_is_in_use_or_gone_is_passed_over(code: Code) -> None:
    backend = with_networks(*THREE)
    backend.refusals["RemoveNetwork"] = Refused(code, "network abc1 is in use by service web")
    assert pruned(backend) is None
    assert len(backend.requests("RemoveNetwork")) == 2


def test_pruning_stops_at_any_other_trouble_and_says_so() -> None:
    backend = with_networks(*THREE)
    backend.refusals["RemoveNetwork"] = Refused(Code.UNKNOWN, "The swarm does not have a leader.")
    status, text = pruned(backend)
    assert (status, text) == (500, "rpc error: code = Unknown desc = The swarm does not have a leader.")
    assert len(backend.requests("RemoveNetwork")) == 1


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"label": ["keep"]}, ["one"]),
        ({"label": ["keep=1"]}, ["one"]),
        ({"label": ["keep=2"]}, None),
        ({"label": ["keep", "more"]}, None),
        ({"label!": ["keep"]}, ["two"]),
        ({"label!": ["keep=2"]}, ["one", "two"]),
        ({"label": ["keep"], "label!": ["keep"]}, None),
        ({"until": ["1800000000"]}, ["one"]),
        ({"until": ["2027-01-15T08:00:00Z"]}, ["one"]),
        ({"until": ["1799999999.5"]}, None),
        ({"until": ["0s"]}, None),
        ({"x": ["1"]}, (400, "Invalid filter 'x'")),
        ({"until": ["1h", "2h"]}, (500, "more than one until filter specified")),
        ({"until": ["x"]}, (500, 'failed to parse value as time or duration: "x"')),
    ],
)
def test_filters_choose_what_is_pruned(filters: dict[str, Any], expected: Any) -> None:
    one, two = a_network("a", "one", keep="1"), a_network("b", "two")
    one.meta.created_at.seconds, two.meta.created_at.seconds = 1_800_000_000, 4_000_000_000
    assert pruned(with_networks(one, two), **filters) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", 400.0),
        ("1m30s", 910.0),
        ("500ms", 999.5),
        ("12", 12.0),
        ("12.5", 12.5),
        ("1970-01-01", 0.0),
        ("1970-01-01T00:01:00", 60.0),
        ("1970-01-01T01:01:00+01:00", 60.0),
    ],
)
def test_until_is_a_duration_back_a_unix_time_or_a_date(text: str, expected: float) -> None:
    assert until_of([text], 1000.0) == pytest.approx(expected)


@given(st.text(max_size=20))
def test_any_until_is_read_or_refused(text: str) -> None:
    try:
        until_of([text], 1000.0)
    except ApiError as error:
        assert error.text == f'failed to parse value as time or duration: "{text}"'


# Who is on a network


def test_a_verbose_view_shows_the_services_on_a_network_and_their_running_tasks() -> None:
    backend = with_networks(*THREE)
    web = on_network(backend, "web", "abc1")
    on_network(backend, "other", "abd2")
    for task_id, state in (("t2", RUNNING), ("t1", RUNNING), ("t3", SHUTDOWN)):
        task = backend.tasks[task_id] = Task(id=task_id, service_id=web.id, node_id=NODE_ID, slot=1)
        task.service_annotations.name = "web"
        task.status.state = state
        attachment = task.networks.add(addresses=[f"10.0.1.{task_id[1]}/24"])
        attachment.network.id = "abc1"
    assert "Services" not in ask(backend, "GET", "/networks/front")[1]
    shown = ask(backend, "GET", "/networks/front?verbose=true")[1]["Services"]
    assert list(shown) == ["web"]
    assert (shown["web"]["VIP"], shown["web"]["Ports"], shown["web"]["LocalLBIndex"]) == ("10.0.1.2", [], 0)
    assert shown["web"]["Tasks"] == [
        {"Name": f"web.1.{each}", "EndpointID": "", "EndpointIP": f"10.0.1.{each[1]}", "Info": {"Host IP": "127.0.0.1"}}
        for each in ("t1", "t2")
    ]


def test_a_verbose_view_of_the_ingress_network_shows_published_ports_and_an_unused_one_nothing() -> None:
    ingress = a_network("ing", "ingress")
    ingress.spec.ingress = True
    backend = with_networks(ingress)
    assert "Services" not in ask(backend, "GET", "/networks/ingress?verbose=true")[1]
    web = backend.add_service("web")
    web.endpoint.virtual_ips.add(network_id="ing", addr="10.0.0.5/24")
    web.endpoint.ports.add(target_port=80, published_port=8080)
    web.endpoint.ports.add(target_port=81, published_port=8081, publish_mode=HOST_MODE)
    shown = ask(backend, "GET", "/networks/ingress?verbose=true")[1]["Services"]["web"]
    assert (shown["VIP"], shown["Ports"], shown["Tasks"]) == ("10.0.0.5", ["Target: 80, Publish: 8080"], [])


@pytest.mark.parametrize("verb", ["connect", "disconnect"])
@pytest.mark.parametrize(
    ("network", "body", "expected"),
    [
        ("front", {}, (400, 'invalid name or ID supplied: ""')),
        ("front", {"Container": "nosuch"}, (404, "No such container: nosuch")),
        ("nosuch", {"Container": "nosuch"}, (404, "No such container: nosuch")),
        ("nosuch", {"Container": "c" * 64}, (404, "network nosuch not found")),
        ("host", {"Container": "c" * 64}, (400, HOST_NETWORK)),
        ("front", {"Container": "c" * 12}, (501, PROCESS)),
    ],
)
def test_a_container_is_not_connected_and_what_is_wrong_is_said_in_the_engines_order(
    verb: str, network: str, body: dict[str, Any], expected: Any
) -> None:
    assert ask(with_a_task(), "POST", f"/networks/{network}/{verb}", body) == expected


def with_a_task() -> FakeBackend:
    backend = with_networks(*THREE)
    task = backend.tasks["t1"] = Task(id="t1", node_id=NODE_ID)
    task.status.state = RUNNING
    task.status.container.container_id = "c" * 64
    return backend


def test_by_force_the_network_is_looked_for_first() -> None:
    body = {"Container": "nosuch", "Force": True}
    assert ask(with_a_task(), "POST", "/networks/nosuch/disconnect", body) == (404, "network nosuch not found")
    assert ask(with_a_task(), "POST", "/networks/front/disconnect", body) == (404, "No such container: nosuch")


def test_a_network_is_created_in_the_swarm() -> None:
    backend = FakeBackend()
    body = {"Name": "front", "Driver": "overlay", "Attachable": True, "IPAM": None, "Options": {"a": "b"}, "Labels": {}}
    status, shown = ask(backend, "POST", "/networks/create", body)
    (request,) = backend.requests("CreateNetwork")
    assert (status, shown) == (201, {"Id": next(iter(backend.networks)), "Warning": ""})
    assert (request.spec.annotations.name, request.spec.driver_config.name) == ("front", "overlay")
    assert (request.spec.attachable, dict(request.spec.driver_config.options)) == (True, {"a": "b"})
    assert ask(backend, "POST", "/networks/create", body) == (409, "network with name front already exists")


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"Name": ""}, 500, "invalid name: "),
        ({"Driver": "nosuch"}, 404, 'plugin "nosuch" not found'),
        ({"Driver": "bridge"}, 501, NOT_LOCAL),
        ({"Driver": ""}, 501, NOT_LOCAL),
        ({"ConfigOnly": True}, 501, NOT_LOCAL),
        ({"Labels": 5}, 400, "invalid JSON: Labels must be an object, got an integer"),
    ],
)  # fmt: skip
def test_a_network_that_this_daemon_cannot_make_is_refused(change: dict[str, Any], status: int, text: str) -> None:
    backend = FakeBackend()
    assert ask(backend, "POST", "/networks/create", {"Name": "n", "Driver": "overlay", **change}) == (status, text)
    assert backend.requests("CreateNetwork") == []


def test_an_overlay_of_one_node_is_refused_in_the_engines_words() -> None:
    body = {"Name": "n", "Driver": "overlay", "Scope": "local"}
    expected = (403, "cannot downgrade network scope for overlay networks")
    assert ask(FakeBackend(), "POST", "/networks/create", body) == expected


@pytest.mark.parametrize("name", ["bridge", "host", "none"])
def test_a_predefined_networks_name_is_taken_for_ever(name: str) -> None:
    answer = ask(with_networks(*THREE), "POST", "/networks/create", {"Name": name, "Driver": "overlay"})
    assert answer == (403, f"{name} is a pre-defined network and cannot be created")


def test_what_the_cluster_does_not_offer_is_its_own_to_say() -> None:
    backend = FakeBackend()
    backend.refusals["CreateNetwork"] = Refused(Code.UNIMPLEMENTED, "this version does not offer networks")
    assert ask(backend, "POST", "/networks/create", {"Name": "n", "Driver": "overlay"}) == (
        501,
        "rpc error: code = Unimplemented desc = this version does not offer networks",
    )


def test_a_network_is_removed_by_the_id_that_was_found() -> None:
    backend = with_networks(*THREE)
    assert ask(backend, "DELETE", "/networks/back") == (204, None)
    assert [request.network_id for request in backend.requests("RemoveNetwork")] == ["abd2"]
    assert ask(backend, "DELETE", "/networks/nosuch") == (404, "network nosuch not found")


# Secrets and configs

KINDS = ("secret", "config")


def an_object(kind: str, object_id: str, name: str) -> Any:
    made: Any = Secret(id=object_id) if kind == "secret" else Config(id=object_id)
    made.spec.annotations.name = name
    made.spec.data = b"abc"
    return made


def with_objects(kind: str, *objects: Any) -> FakeBackend:
    backend = FakeBackend()
    setattr(backend, f"{kind}s", {each.id: each for each in objects})
    return backend


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_is_created_from_its_base64(kind: str) -> None:
    backend = FakeBackend()
    body = {"Name": "s1", "Labels": {"a": "b"}, "Data": base64.b64encode(b"abc").decode()}
    status, shown = ask(backend, "POST", f"/{kind}s/create", body)
    (request,) = backend.requests(f"Create{kind.capitalize()}")
    assert (status, list(shown)) == (201, ["ID"])
    assert (request.spec.annotations.name, request.spec.data) == ("s1", b"abc")


@pytest.mark.parametrize("kind", KINDS)
def test_data_that_is_no_base64_is_refused_and_nothing_is_asked(kind: str) -> None:
    backend = FakeBackend()
    assert ask(backend, "POST", f"/{kind}s/create", {"Name": "s", "Data": "@@"}) == (
        400,
        "invalid JSON: Data is not base64",
    )
    assert backend.asked == []


@pytest.mark.parametrize("kind", KINDS)
def test_templates_are_refused_before_the_version_that_has_them(kind: str) -> None:
    body = {"Name": "s", "Data": "YWJj", "Templating": {"Name": "golang"}}
    assert ask(FakeBackend(), "POST", f"/v1.36/{kind}s/create", body) == (
        400,
        f"{kind} templating is not supported on the specified API version: 1.36",
    )
    assert ask(FakeBackend(), "POST", f"/v1.37/{kind}s/create", body)[0] == 201


@pytest.mark.parametrize("target", ["s1", "id1", "id"])
def test_a_secret_is_shown_without_its_data_and_a_config_with_it(target: str) -> None:
    for kind, data in (("secret", None), ("config", "YWJj")):
        backend = with_objects(kind, an_object(kind, "id1", "s1"))
        status, shown = ask(backend, "GET", f"/{kind}s/{target}")
        assert (status, shown["ID"], shown["Spec"].get("Data")) == (200, "id1", data)
        assert ask(backend, "GET", f"/{kind}s")[1] == [shown]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_there_is_not_found_for_every_request(kind: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/update?version=1")):
        assert ask(FakeBackend(), method, f"/{kind}s/x{path}") == (404, f"{kind} x not found")


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_asks_for_what_its_filters_say(kind: str) -> None:
    backend = FakeBackend()
    given = {"name": ["s"], "id": ["i"], "label": ["a=b"]}
    query = urllib.parse.urlencode({"filters": json.dumps(given)})
    assert ask(backend, "GET", f"/{kind}s?{query}") == (200, [])
    asked = backend.requests(f"List{kind.capitalize()}s")[0].filters
    assert (list(asked.name_prefixes), list(asked.id_prefixes), dict(asked.labels)) == (["s"], ["i"], {"a": "b"})


def test_exact_names_are_a_filter_of_secrets_alone() -> None:
    query = urllib.parse.urlencode({"filters": json.dumps({"names": ["s1"]})})
    backend = with_objects("secret", an_object("secret", "1", "s1"), an_object("secret", "2", "s10"))
    assert [secret["ID"] for secret in ask(backend, "GET", f"/secrets?{query}")[1]] == ["1"]
    assert ask(FakeBackend(), "GET", f"/configs?{query}") == (400, "Invalid filter 'names'")


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_names_its_version(kind: str) -> None:
    backend = with_objects(kind, an_object(kind, "id1", "s1"))
    body = {"Name": "s1", "Labels": {"x": "y"}}
    assert ask(backend, "POST", f"/{kind}s/s1/update?version=7", body) == (200, None)
    (request,) = backend.requests(f"Update{kind.capitalize()}")
    assert getattr(request, f"{kind}_id") == "id1"
    assert getattr(request, f"{kind}_version").index == 7
    assert dict(request.spec.annotations.labels) == {"x": "y"}
    assert ask(backend, "POST", f"/{kind}s/s1/update?version=", body) == (400, f"invalid {kind} version")


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_is_removed_by_the_id_that_was_found(kind: str) -> None:
    backend = with_objects(kind, an_object(kind, "id1", "s1"))
    assert ask(backend, "DELETE", f"/{kind}s/s1") == (204, None)
    (request,) = backend.requests(f"Remove{kind.capitalize()}")
    assert getattr(request, f"{kind}_id") == "id1"
