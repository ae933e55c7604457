"""``/networks``, ``/secrets`` and ``/configs``: what is asked of the cluster, what is shown, what is refused."""

from __future__ import annotations

import base64
import json
import urllib.parse
from typing import Any

import pytest

from runtime.errors import Code, Refused
from runtime.wire.pb.objects_pb2 import Config, Network, Secret
from tests.unit.engine_api.fake import FakeBackend, no_manager
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
    assert names(with_networks(*THREE)) == ["front", "back"]
    assert names(FakeBackend()) == []


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"name": ["o"]}, ["front"]),
        ({"name": ["^back$", "zz"]}, ["back"]),
        ({"name": ["^ack"]}, []),
        ({"name": {"ck$": True}}, ["back"]),
        ({"name": ["fr.*"]}, []),
        ({"id": ["ab"]}, ["front", "back"]),
        ({"id": ["d2"]}, ["back"]),
        ({"driver": ["overlay"]}, ["front", "back"]),
        ({"driver": ["bridge"]}, []),
        ({"scope": ["swarm"]}, ["front", "back"]),
        ({"scope": ["local"]}, []),
        ({"type": ["custom"]}, ["front", "back"]),
        ({"type": ["builtin"]}, []),
        ({"name": ["front"], "driver": ["bridge"]}, []),
        ({"type": ["zz"]}, (400, "invalid filter 'type=[zz]'")),
        ({"dangling": ["true"]}, (501, "the filter dangling is not offered by this version of the daemon")),
        ({"foo": ["x"]}, (400, "Invalid filter 'foo'")),
    ],
)  # fmt: skip
def test_a_list_of_networks_is_filtered(filters: dict[str, Any], expected: Any) -> None:
    assert names(with_networks(*THREE), **filters) == expected


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


def test_a_node_that_cannot_ask_the_cluster_says_so_and_lists_nothing() -> None:
    for path, method in (("/networks", "ListNetworks"), ("/networks/x", "GetNetwork"), ("/secrets", "ListSecrets")):
        backend = FakeBackend()
        backend.refusals[method] = no_manager()
        assert ask(backend, "GET", path) == (503, "This node is not a swarm manager.")


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
