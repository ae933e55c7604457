"""What each route asks of the cluster and answers, without HTTP."""

from __future__ import annotations

import dataclasses
import json
import urllib.parse
from typing import Any

import pytest

from runtime.engine_api import errors, resolve
from runtime.engine_api.backend import SystemInfo
from runtime.engine_api.errors import ApiError, status_and_text
from runtime.engine_api.routes import system
from runtime.errors import Code, Refused
from runtime.protocol.cluster import CODES, ClusterError, RemoteManager, SwarmInfo
from runtime.wire.pb import control_pb2 as pb
from runtime.wire.pb.objects_pb2 import Network
from tests.unit.engine_api import recorded
from tests.unit.engine_api.fake import NODE_ID, FakeBackend, a_cluster, a_node, no_manager
from tests.unit.engine_api.support import ask


def filtered(**values: Any) -> str:
    return "?filters=" + urllib.parse.quote(json.dumps(values))


# Errors


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.INVALID_ARGUMENT, 400), (Code.FAILED_PRECONDITION, 400), (Code.OUT_OF_RANGE, 400),
        (Code.UNAUTHENTICATED, 401), (Code.PERMISSION_DENIED, 403), (Code.NOT_FOUND, 404), (Code.ALREADY_EXISTS, 409),
        (Code.UNIMPLEMENTED, 501), (Code.UNAVAILABLE, 503), (Code.UNKNOWN, 500), (Code.DEADLINE_EXCEEDED, 500),
        (Code.CANCELLED, 500), (Code.ABORTED, 500), (Code.RESOURCE_EXHAUSTED, 500), (Code.INTERNAL, 500),
        (Code.DATA_LOSS, 500),
    ],
)  # fmt: skip
def test_a_refusal_of_the_control_service_keeps_grpcs_prefix(code: Code, status: int) -> None:
    assert status_and_text(Refused(code, "why")) == (status, f"rpc error: code = {code.title} desc = why")


@pytest.mark.parametrize("kind", sorted(CODES))
def test_every_kind_of_cluster_error_has_a_status_and_no_prefix(kind: str) -> None:
    assert status_and_text(ClusterError(kind, "why")) == (errors.STATUS_OF_KIND[kind], "why")


def test_a_failure_tells_its_type_and_nothing_that_it_might_hold() -> None:
    status, text = status_and_text(RuntimeError("secret"))
    assert status == 500
    assert "RuntimeError" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/services", None), ("GET", "/services/web", None), ("GET", "/nodes", None), ("GET", "/tasks", None),
        ("POST", "/services/create", recorded.CLI_CREATE), ("DELETE", "/services/web", None),
        ("POST", "/services/web/update?version=1", recorded.CLI_CREATE), ("GET", "/tasks/x", None),
        ("POST", "/nodes/x/update?version=1", {"Role": "worker", "Availability": "active"}),
    ],
)  # fmt: skip
def test_without_a_manager_everything_that_needs_one_is_503_in_one_step(method: str, path: str, body: Any) -> None:
    backend = FakeBackend()
    for call in ("ListServices", "GetService", "ListNodes", "ListTasks", "CreateService", "GetTask", "GetNode"):
        backend.refusals[call] = no_manager()
    assert ask(backend, method, path, body) == (503, "This node is not a swarm manager.")
    assert len(backend.asked) == 1


# Resolution


def test_an_id_is_found_with_one_call() -> None:
    backend = FakeBackend()
    web = backend.add_service("web")
    assert ask(backend, "GET", f"/services/{web.id}")[1]["ID"] == web.id
    assert [method for method, _ in backend.asked] == ["GetService"]


def test_a_name_is_found_after_the_id_and_before_the_prefix() -> None:
    backend = FakeBackend()
    web = backend.add_service("web")
    backend.add_service("other", "web0" + "0" * 21)
    assert ask(backend, "GET", "/services/web")[1]["ID"] == web.id
    assert [method for method, _ in backend.asked] == ["GetService", "ListServices"]
    assert list(backend.requests("ListServices")[0].filters.names) == ["web"]


def test_a_unique_prefix_of_the_id_is_found_and_one_of_the_name_is_not() -> None:
    backend = FakeBackend()
    web = backend.add_service("web", "abc" + "0" * 22)
    assert ask(backend, "GET", "/services/ab")[1]["ID"] == web.id
    assert ask(backend, "GET", "/services/we") == (404, "service we not found")


def test_an_ambiguous_name_or_prefix_is_refused_with_the_number() -> None:
    backend = FakeBackend()
    for index in range(3):
        backend.nodes[f"x{index}"] = a_node(f"x{index}", "twin")
    assert ask(backend, "GET", "/nodes/twin") == (400, "node twin is ambiguous (3 matches found)")
    assert ask(backend, "GET", "/nodes/x") == (400, "node x is ambiguous (3 matches found)")


@pytest.mark.parametrize("kind", ["service", "node", "task"])
def test_what_is_not_there_is_404_in_the_engines_words(kind: str) -> None:
    assert ask(FakeBackend(), "GET", f"/{kind}s/nosuch") == (404, f"{kind} nosuch not found")


def test_a_deadline_in_the_first_lookup_is_the_answer_and_not_a_reason_to_look_on() -> None:
    backend = FakeBackend()
    backend.refusals["GetService"] = Refused(Code.DEADLINE_EXCEEDED, "context deadline exceeded")
    status, text = ask(backend, "GET", "/services/web")
    assert (status, text) == (500, "rpc error: code = DeadlineExceeded desc = context deadline exceeded")
    assert len(backend.asked) == 1


def test_a_service_found_by_name_is_asked_for_again_when_defaults_are_wanted() -> None:
    backend = FakeBackend()
    web = backend.add_service("web")
    assert ask(backend, "GET", "/services/web?insertDefaults=true")[0] == 200
    first, second = backend.requests("GetService")
    assert (first.service_id, first.insert_defaults) == ("web", True)
    assert (second.service_id, second.insert_defaults) == (web.id, True)


def test_every_kind_names_requests_that_exist() -> None:
    for kind in (resolve.NODE, resolve.SERVICE, resolve.TASK, resolve.SECRET, resolve.CONFIG, resolve.NETWORK):
        assert kind.get_request(**{kind.id_field: "x"})
        assert kind.list_request(filters=kind.list_request.Filters(names=["a"], id_prefixes=["b"]))
        assert hasattr(getattr(pb, kind.get + "Response")(), kind.one)
        assert hasattr(getattr(pb, kind.list + "Response")(), kind.many)


# Services


def test_a_create_answers_the_id_and_asks_for_the_converted_spec() -> None:
    backend = FakeBackend()
    status, answer = ask(backend, "POST", "/services/create", recorded.CLI_CREATE)
    assert (status, answer) == (201, {"ID": next(iter(backend.services))})
    (request,) = backend.requests("CreateService")
    assert request.spec.annotations.name == "web"
    assert request.spec.replicated.replicas == 1
    assert not request.spec.task.container.HasField("pull_options")


def test_pull_credentials_are_stored_as_they_came_and_never_shown() -> None:
    backend = FakeBackend()
    ask(backend, "POST", "/services/create", recorded.CLI_CREATE, {"X-Registry-Auth": "eyJ9"})
    (request,) = backend.requests("CreateService")
    assert request.spec.task.container.pull_options.registry_auth == "eyJ9"
    assert "eyJ9" not in json.dumps(ask(backend, "GET", "/services/web")[1])


def test_a_refused_create_is_told_as_the_cluster_tells_it() -> None:
    backend = FakeBackend()
    backend.refusals["CreateService"] = Refused(
        Code.ALREADY_EXISTS, "name conflicts with an existing object: service web already exists"
    )
    assert ask(backend, "POST", "/services/create", recorded.CLI_CREATE) == (
        409,
        "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service web already exists",
    )


def test_nothing_is_asked_of_the_cluster_for_a_spec_that_cannot_be_converted() -> None:
    backend = FakeBackend()
    assert ask(backend, "POST", "/services/create", {"Name": 5})[0] == 400
    assert ask(backend, "POST", "/services/create")[0] == 400
    assert backend.asked == []


def test_a_service_that_asks_for_a_resource_by_name_is_made_with_a_warning() -> None:
    named = {"NamedResourceSpec": {"Kind": "gpu", "Value": "a"}}
    spec = {**recorded.CLI_CREATE, "TaskTemplate": {**recorded.CLI_CREATE["TaskTemplate"]}}
    spec["TaskTemplate"]["Resources"] = {"Reservations": {"GenericResources": [named]}}
    said = 'gpu is asked for by the name "a", which no task is ever given: ask for a number of them'
    backend = FakeBackend()
    assert said in ask(backend, "POST", "/services/create", spec)[1]["Warnings"]
    assert said in ask(backend, "POST", "/services/web/update?version=1", spec)[1]["Warnings"]


def test_clients_below_1_30_are_told_that_no_digest_was_recorded() -> None:
    backend = FakeBackend()
    text = (
        "image busybox:latest could not be accessed on a registry to record\nits digest. "
        "Each node will access busybox:latest independently,\n"
        "possibly leading to different nodes running different\nversions of the image.\n"
    )
    assert ask(backend, "POST", "/v1.29/services/create", recorded.CLI_CREATE)[1]["Warnings"] == [text]
    assert ask(backend, "POST", "/v1.29/services/web/update?version=1", recorded.CLI_CREATE)[1] == {"Warnings": [text]}
    pinned = {"TaskTemplate": {"ContainerSpec": {"Image": "b@sha256:0"}}}
    assert "Warnings" not in ask(backend, "POST", "/v1.29/services/create", pinned)[1]


def a_network(network_id: str, name: str) -> Network:
    network = Network(id=network_id)
    network.spec.annotations.name = name
    return network


def with_networks(*targets: Any) -> dict[str, Any]:
    return {
        "Name": "w",
        "TaskTemplate": {"ContainerSpec": {"Image": "b"}, "Networks": [{"Target": target} for target in targets]},
    }


def test_networks_are_named_by_id_name_or_prefix_and_stored_by_id() -> None:
    backend = FakeBackend()
    backend.networks = {"abc1": a_network("abc1", "front"), "def2": a_network("def2", "back")}
    assert ask(backend, "POST", "/services/create", with_networks("front", "def2", "ab"))[0] == 201
    (request,) = backend.requests("CreateService")
    assert [network.target for network in request.spec.task.networks] == ["abc1", "def2", "abc1"]


@pytest.mark.parametrize(("target", "warned"), [("host", False), ("front", True)])
def test_processes_on_the_nodes_own_network_are_warned_of_nothing(target: str, warned: bool) -> None:
    backend = FakeBackend()
    backend.networks = {"abc1": a_network("abc1", "front"), "def2": a_network("def2", "host")}
    backend.networks["def2"].spec.driver_config.name = "host"
    backend.add_service("web")
    spec = with_networks(target)
    spec["TaskTemplate"]["ContainerSpec"] = {"Image": "host", "Args": ["true"]}
    made = ask(backend, "POST", "/services/create", spec)[1].get("Warnings") or []
    changed = ask(backend, "POST", "/services/web/update?version=12", spec)[1]["Warnings"] or []
    for warnings in (made, changed):
        assert any("no isolation" in each for each in warnings) is warned


def test_an_unknown_network_is_a_plain_error_and_a_local_one_is_forbidden() -> None:
    backend = FakeBackend()
    backend.local_networks["docker_gwbridge"] = "docker_gwbridge"
    assert ask(backend, "POST", "/services/create", with_networks("nosuch")) == (500, "network nosuch not found")
    assert ask(backend, "POST", "/services/create", with_networks("")) == (500, "network  not found")
    assert ask(backend, "POST", "/services/create", with_networks("docker_gwbridge")) == (
        403,
        "The network docker_gwbridge cannot be used with services. Only networks scoped to the swarm can be used, "
        "such as those created with the overlay driver.",
    )
    assert backend.requests("CreateService") == []


@pytest.mark.parametrize("networks", [5, "x", [5], [{"Target": 5}]])
def test_networks_of_a_wrong_type_are_refused_with_their_path(networks: Any) -> None:
    body = {"TaskTemplate": {"ContainerSpec": {"Image": "b"}, "Networks": networks}}
    status, text = ask(FakeBackend(), "POST", "/services/create", body)
    assert status == 400
    assert text.startswith("invalid JSON: TaskTemplate.Networks")


def test_an_update_presents_the_version_and_the_complete_spec() -> None:
    backend = FakeBackend()
    web = backend.add_service("web")
    status, answer = ask(backend, "POST", "/services/web/update?version=12", recorded.CLI_CREATE)
    assert (status, answer) == (200, {"Warnings": None})
    (request,) = backend.requests("UpdateService")
    assert (request.service_id, request.service_version.index, request.rollback) == (web.id, 12, 0)
    assert request.spec.task.container.args == ["sleep", "1d"]


def test_a_rollback_is_asked_for_by_name() -> None:
    backend = FakeBackend()
    backend.add_service("web")
    ask(backend, "POST", "/services/web/update?version=12&rollback=previous", recorded.CLI_CREATE)
    assert ask(backend, "POST", "/services/web/update?version=1&rollback=none", recorded.CLI_CREATE)[0] == 200
    assert [request.rollback for request in backend.requests("UpdateService")] == [1, 0]
    assert ask(backend, "POST", "/services/web/update?version=1&rollback=zz", recorded.CLI_CREATE) == (
        500,
        "unrecognized rollback option zz",
    )


def kept_auth(query: str, header: str | None = None) -> Any:
    backend = FakeBackend()
    web = backend.add_service("web")
    web.spec.task.container.pull_options.registry_auth = "present"
    web.previous_spec.task.container.pull_options.registry_auth = "before"
    headers = {"X-Registry-Auth": header} if header else None
    status, text = ask(backend, "POST", f"/services/web/update?version=1{query}", recorded.CLI_CREATE, headers)
    if status != 200:
        return status, text
    return backend.requests("UpdateService")[0].spec.task.container.pull_options.registry_auth


@pytest.mark.parametrize(
    ("query", "header", "expected"),
    [
        ("", None, "present"),
        ("&registryAuthFrom=spec", None, "present"),
        ("&registryAuthFrom=previous-spec", None, "before"),
        ("&registryAuthFrom=previous-spec", "new", "new"),
        ("&registryAuthFrom=zz", None, (500, "unsupported registryAuthFrom value")),
        ("&registryAuthFrom=zz", "new", "new"),
    ],
)
def test_an_update_keeps_the_credentials_it_names_unless_it_brings_new_ones(
    query: str, header: str | None, expected: Any
) -> None:
    assert kept_auth(query, header) == expected


def test_credentials_of_a_previous_spec_that_is_not_there_are_an_error() -> None:
    backend = FakeBackend()
    backend.add_service("web")
    path = "/services/web/update?version=1&registryAuthFrom=previous-spec"
    assert ask(backend, "POST", path, recorded.CLI_CREATE) == (500, "service does not have a previous spec")


def test_an_update_of_a_service_without_containers_is_an_error() -> None:
    backend = FakeBackend()
    backend.add_service("plug").spec.task.generic.kind = "plugin"
    assert ask(backend, "POST", "/services/plug/update?version=1", recorded.CLI_CREATE) == (
        500,
        "service does not use container tasks",
    )


@pytest.mark.parametrize(("query", "shown"), [("", ""), ("?version=zz", "zz"), ("?version=-1", "-1")])
def test_an_update_without_a_version_is_refused_before_anything_is_asked(query: str, shown: str) -> None:
    backend = FakeBackend()
    assert ask(backend, "POST", f"/services/web/update{query}", recorded.CLI_CREATE) == (
        400,
        f"invalid service version '{shown}': strconv.ParseUint: parsing \"{shown}\": invalid syntax",
    )
    assert backend.asked == []


def test_an_update_out_of_sequence_keeps_the_text_that_scripts_match() -> None:
    backend = FakeBackend()
    backend.add_service("web")
    backend.refusals["UpdateService"] = Refused(Code.UNKNOWN, "update out of sequence")
    assert ask(backend, "POST", "/services/web/update?version=1", recorded.CLI_CREATE) == (
        500,
        "rpc error: code = Unknown desc = update out of sequence",
    )


def test_a_removal_resolves_and_answers_nothing() -> None:
    backend = FakeBackend()
    web = backend.add_service("web")
    assert ask(backend, "DELETE", "/services/web") == (200, None)
    assert backend.requests("RemoveService")[0].service_id == web.id
    assert ask(backend, "DELETE", "/services/web") == (404, "service web not found")


def test_a_list_of_services_asks_for_prefixes_labels_and_containers() -> None:
    backend = FakeBackend()
    backend.add_service("web")
    backend.add_service("db")
    assert [s["Spec"]["Name"] for s in ask(backend, "GET", "/services" + filtered(name={"we": True}))[1]] == ["web"]
    ask(backend, "GET", "/services" + filtered(id=["x"], label=["a", "b=c"], runtime=["plugin"]))
    first, second = (request.filters for request in backend.requests("ListServices"))
    assert list(first.runtimes) == ["container"]
    assert (list(second.id_prefixes), dict(second.labels), list(second.runtimes)) == (
        ["x"], {"a": "", "b": "c"}, ["plugin"],
    )  # fmt: skip


def test_a_list_by_mode_keeps_that_mode_and_an_unknown_mode_keeps_none() -> None:
    backend = FakeBackend()
    backend.add_service("web")
    everywhere = backend.add_service("agent")
    getattr(everywhere.spec, "global").SetInParent()
    shown = ask(backend, "GET", "/services" + filtered(mode=["global"]))[1]
    assert [item["Spec"]["Name"] for item in shown] == ["agent"]
    assert ask(backend, "GET", "/services" + filtered(mode=["bogus"])) == (200, [])


def test_statuses_are_there_when_asked_for_and_only_then() -> None:
    backend = FakeBackend()
    web = backend.add_service("web")
    backend.add_service("db")
    backend.statuses = [
        pb.ListServiceStatusesResponse.ServiceStatus(service_id=web.id, desired_tasks=2, running_tasks=1)
    ]
    assert "ServiceStatus" not in ask(backend, "GET", "/services")[1][0]
    counts = {item["Spec"]["Name"]: item.get("ServiceStatus") for item in ask(backend, "GET", "/services?status=1")[1]}
    assert counts == {"web": {"RunningTasks": 1, "DesiredTasks": 2, "CompletedTasks": 0}, "db": None}
    assert "ServiceStatus" not in ask(backend, "GET", "/v1.40/services?status=1")[1][0]
    assert ask(backend, "GET", "/services?status=zz") == (
        400,
        'invalid value for status: zz: strconv.ParseBool: parsing "zz": invalid syntax',
    )


def test_a_jobs_status_stands_behind_its_counts_as_the_engine_has_it() -> None:
    backend = FakeBackend()
    job = backend.add_service("job")
    job.spec.replicated_job.max_concurrent = 1
    job.job_status.SetInParent()
    backend.statuses = [pb.ListServiceStatusesResponse.ServiceStatus(service_id=job.id, completed_tasks=2)]
    (shown,) = ask(backend, "GET", "/services?status=true")[1]
    assert list(shown)[-2:] == ["ServiceStatus", "JobStatus"]


def test_an_empty_list_asks_for_no_statuses() -> None:
    backend = FakeBackend()
    assert ask(backend, "GET", "/services?status=true") == (200, [])
    assert backend.requests("ListServiceStatuses") == []


# Nodes


def test_nodes_are_listed_by_their_filters() -> None:
    backend = FakeBackend()
    assert [item["ID"] for item in ask(backend, "GET", "/nodes")[1]] == [NODE_ID]
    given = {"role": ["Manager"], "membership": ["accepted"], "label": ["a=b"], "node.label": ["c"], "name": ["v"]}
    ask(backend, "GET", "/nodes" + filtered(**given))
    wanted = backend.requests("ListNodes")[1].filters
    assert (list(wanted.roles), list(wanted.memberships), list(wanted.name_prefixes)) == ([1], [1], ["v"])
    assert (dict(wanted.labels), dict(wanted.node_labels)) == ({"a": "b"}, {"c": ""})


@pytest.mark.parametrize("key", ["role", "membership"])
def test_an_unknown_role_or_membership_is_refused(key: str) -> None:
    assert ask(FakeBackend(), "GET", "/nodes" + filtered(**{key: ["bogus"]})) == (500, f"Invalid {key} filter: 'bogus'")


def test_a_node_is_updated_with_its_version_and_complete_spec() -> None:
    backend = FakeBackend()
    body = {"Labels": {"a": "b"}, "Role": "worker", "Availability": "drain"}
    assert ask(backend, "POST", "/nodes/vm/update?version=9", body) == (200, None)
    (request,) = backend.requests("UpdateNode")
    assert (request.node_id, request.node_version.index) == (NODE_ID, 9)
    assert (request.spec.desired_role, request.spec.availability, request.spec.membership) == (0, 2, 1)


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/nodes/vm/update", {}, "invalid node version '': strconv.ParseUint: parsing \"\": invalid syntax"),
        ("/nodes/vm/update?version=1", {}, 'invalid Role: ""'),
        ("/nodes/vm/update?version=1", None, 'invalid Role: ""'),
        ("/nodes/vm/update?version=1", {"Role": "manager"}, 'invalid Availability: ""'),
    ],
)
def test_a_bad_update_of_a_node_is_refused(path: str, body: Any, text: str) -> None:
    assert ask(FakeBackend(), "POST", path, body) == (400, text)


@pytest.mark.parametrize(("query", "force"), [("", False), ("?force=1", True), ("?force=0", False)])
def test_a_node_is_removed_by_force_or_not(query: str, force: bool) -> None:
    backend = FakeBackend()
    assert ask(backend, "DELETE", f"/nodes/vm{query}") == (200, None)
    (request,) = backend.requests("RemoveNode")
    assert (request.node_id, request.force) == (NODE_ID, force)


# Tasks


def test_tasks_are_listed_with_services_and_nodes_resolved() -> None:
    backend = FakeBackend()
    web = backend.add_service("web")
    made = backend.add_task(web)
    given = {
        "service": {"web": True}, "node": ["vm"], "desired-state": ["Running"], "_up-to-date": {"true": True},
        "label": ["a=b"], "name": ["web.1"], "id": ["t"],
    }  # fmt: skip
    assert [item["ID"] for item in ask(backend, "GET", "/tasks" + filtered(**given))[1]] == [made.id]
    (request,) = backend.requests("ListTasks")
    wanted = request.filters
    assert (list(wanted.service_ids), list(wanted.node_ids)) == ([web.id], [NODE_ID])
    assert (list(wanted.desired_states), wanted.up_to_date) == ([512], True)
    assert list(wanted.runtimes) == ["container", ""]
    assert (list(wanted.name_prefixes), dict(wanted.labels)) == (["web.1"], {"a": "b"})


def test_tasks_of_another_runtime_are_listed_when_asked_for() -> None:
    backend = FakeBackend()
    ask(backend, "GET", "/tasks" + filtered(runtime=["attachment"]))
    assert list(backend.requests("ListTasks")[0].filters.runtimes) == ["attachment"]


@pytest.mark.parametrize(
    ("given", "status", "text"),
    [
        ({"service": ["nosuch"]}, 404, "service nosuch not found"),
        ({"node": ["nosuch"]}, 404, "node nosuch not found"),
        ({"desired-state": ["bogus"]}, 500, "Invalid desired-state filter: 'bogus'"),
        ({"_up-to-date": ["zz"]}, 400, "invalid filter '_up-to-date=[zz]'"),
        ({"bogus": ["x"]}, 400, "Invalid filter 'bogus'"),
    ],
)
def test_a_filter_of_tasks_that_means_nothing_is_refused(given: dict[str, Any], status: int, text: str) -> None:
    backend = FakeBackend()
    assert ask(backend, "GET", "/tasks" + filtered(**given)) == (status, text)
    assert backend.requests("ListTasks") == []


def test_a_task_is_found_by_id_name_or_prefix() -> None:
    backend = FakeBackend()
    made = backend.add_task(backend.add_service("web"))
    for term in (made.id, f"web.1.{made.id}", made.id[:24]):
        assert ask(backend, "GET", f"/tasks/{term}")[1]["ID"] == made.id


# The swarm


def test_an_init_answers_the_node_id_as_a_json_string() -> None:
    backend = FakeBackend()
    body = {"ListenAddr": "0.0.0.0:2377", "DefaultAddrPool": ["10.0.0.0/8"], "SubnetSize": 26, "DataPathPort": 5000}
    assert ask(backend, "POST", "/swarm/init", body) == (200, NODE_ID)
    ((_, request),) = backend.did
    assert (request.default_addr_pool, request.subnet_size, request.data_path_port) == (("10.0.0.0/8",), 26, 5000)


@pytest.mark.parametrize(("version", "pool", "port"), [("1.40", ("p",), 5000), ("1.39", ("p",), 0), ("1.38", None, 0)])
def test_older_clients_cannot_mean_pools_and_data_path_ports(version: str, pool: Any, port: int) -> None:
    backend = FakeBackend()
    body = {"DefaultAddrPool": ["p"], "SubnetSize": 26, "DataPathPort": 5000}
    ask(backend, "POST", f"/v{version}/swarm/init", body)
    request = backend.did[0][1]
    assert (request.default_addr_pool, request.data_path_port) == (pool, port)


def test_join_leave_and_unlock_answer_nothing() -> None:
    backend = FakeBackend()
    assert ask(backend, "POST", "/swarm/join", {"RemoteAddrs": ["a"], "JoinToken": "t"}) == (200, None)
    assert ask(backend, "POST", "/swarm/leave") == (200, None)
    assert ask(backend, "POST", "/swarm/leave?force=1") == (200, None)
    assert ask(backend, "POST", "/swarm/unlock", {"UnlockKey": "SWMKEY-1-x"}) == (200, None)
    assert [what[0] for what in backend.did] == ["join", "leave", "leave", "unlock"]
    assert [what[1] for what in backend.did[1:]] == [False, True, "SWMKEY-1-x"]


def test_a_cluster_error_is_shown_as_it_is() -> None:
    backend = FakeBackend()
    backend.refusals["unlock"] = ClusterError("conflict", "swarm is not locked")
    backend.refusals["join"] = Refused(Code.INVALID_ARGUMENT, "A valid join token is necessary to join this cluster")
    assert ask(backend, "POST", "/swarm/unlock", {}) == (409, "swarm is not locked")
    assert ask(backend, "POST", "/swarm/join", {}) == (
        400,
        "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster",
    )


def test_an_update_of_the_swarm_carries_version_spec_and_rotations() -> None:
    backend = FakeBackend()
    path = "/swarm/update?rotateManagerToken=false&rotateManagerUnlockKey=True&rotateWorkerToken=1&version=10"
    assert ask(backend, "POST", path, {"Labels": {"a": "b"}}) == (200, None)
    ((_, version, spec, rotation),) = backend.did
    assert (version, dict(spec.annotations.labels)) == (10, {"a": "b"})
    assert (rotation.worker_join_token, rotation.manager_join_token, rotation.manager_unlock_key) == (
        True, False, True,
    )  # fmt: skip


@pytest.mark.parametrize(("body", "name"), [({}, "default"), ({"Name": ""}, "default"), ({"Name": "x"}, "x")])
def test_an_update_of_the_swarm_may_leave_its_one_name_out(body: Any, name: str) -> None:
    backend = FakeBackend()
    assert ask(backend, "POST", "/swarm/update?version=10", body)[0] == 200
    assert backend.did[0][2].annotations.name == name


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "invalid swarm version '': strconv.ParseUint: parsing \"\": invalid syntax"),
        ("?version=zz&rotateWorkerToken=zz", "invalid swarm version 'zz': strconv.ParseUint: parsing \"zz\": "
         "invalid syntax"),
        ("?version=5&rotateWorkerToken=zz", "invalid value for rotateWorkerToken: zz"),
    ],
)  # fmt: skip
def test_a_bad_update_of_the_swarm_is_refused_in_the_engines_words(query: str, text: str) -> None:
    backend = FakeBackend()
    assert ask(backend, "POST", f"/swarm/update{query}", {}) == (400, text)
    assert backend.did == []


def test_the_swarm_and_its_unlock_key_are_shown() -> None:
    backend = FakeBackend()
    assert ask(backend, "GET", "/swarm")[1]["JoinTokens"]["Worker"] == "SWMTKN-1-w"
    assert ask(backend, "GET", "/swarm/unlockkey") == (200, {"UnlockKey": ""})
    backend.unlock_key = "SWMKEY-1-k"
    assert ask(backend, "GET", "/swarm/unlockkey") == (200, {"UnlockKey": "SWMKEY-1-k"})


# The daemon


def test_version_names_the_api_and_the_daemon() -> None:
    shown = ask(FakeBackend(), "GET", "/version")[1]
    assert (shown["ApiVersion"], shown["MinAPIVersion"], shown["Version"]) == ("1.45", "1.24", "1.2.3")
    assert (shown["Os"], shown["Arch"], shown["KernelVersion"]) == ("linux", "amd64", "6.1")
    (engine,) = shown["Components"]
    assert (engine["Name"], engine["Version"], engine["Details"]["ApiVersion"]) == ("Engine", "1.2.3", "1.45")


def test_info_of_a_node_outside_of_any_swarm_is_as_recorded() -> None:
    backend = FakeBackend()
    backend.info = SwarmInfo()
    shown = ask(backend, "GET", "/info")[1]
    assert shown["Swarm"] == {
        "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False, "Error": "",
        "RemoteManagers": None,
    }  # fmt: skip
    assert (shown["Name"], shown["NCPU"], shown["ServerVersion"], shown["Driver"]) == ("vm", 2, "1.2.3", "process")
    assert shown["Warnings"] == ["host"]


def test_info_says_what_this_host_and_executor_can_do_and_nothing_more() -> None:
    class Limiting(FakeBackend):
        async def system(self) -> SystemInfo:
            return dataclasses.replace(await super().system(), features=frozenset({"MemoryLimit", "IPv4Forwarding"}))

    shown = ask(Limiting(), "GET", "/info")[1]
    assert {flag for flag in system.FEATURES if shown[flag]} == {"MemoryLimit", "IPv4Forwarding"}
    assert not any(ask(FakeBackend(), "GET", "/info")[1][flag] for flag in system.FEATURES)
    assert shown["Plugins"] == {"Volume": [], "Network": [], "Authorization": None, "Log": []}


def test_info_of_a_manager_has_its_cluster_and_counts() -> None:
    backend = FakeBackend()
    backend.info = SwarmInfo(
        "active", "n", "10.0.0.1", True, "", (RemoteManager("n", "10.0.0.1:2377"),), 3, 1, a_cluster()
    )
    shown = ask(backend, "GET", "/info")[1]["Swarm"]
    assert shown["RemoteManagers"] == [{"NodeID": "n", "Addr": "10.0.0.1:2377"}]
    assert (shown["Nodes"], shown["Managers"], shown["Cluster"]["ID"]) == (3, 1, "c" * 25)
    assert "JoinTokens" not in shown["Cluster"]
    assert "Warnings" not in shown


@pytest.mark.parametrize(
    ("state", "managers", "warned"),
    [("active", 2, True), ("pending", 2, True), ("active", 1, False), ("active", 3, False), ("error", 2, False),
     ("locked", 2, False)],
)  # fmt: skip
def test_two_managers_are_warned_of_in_both_places(state: str, managers: int, warned: bool) -> None:
    backend = FakeBackend()
    backend.info = SwarmInfo(state, managers=managers, warnings=("own",))
    shown = ask(backend, "GET", "/info")[1]
    expected = ["own", system.TWO_MANAGERS] if warned else ["own"]
    assert shown["Swarm"]["Warnings"] == expected
    assert shown["Warnings"] == ["host", *expected]


def test_a_registry_is_never_asked_and_the_answer_comes_at_once() -> None:
    backend = FakeBackend()
    status, text = ask(backend, "GET", "/distribution/reg.example:5000/a/b/json")
    assert status == 404
    assert text.startswith("reg.example:5000/a/b: ")
    assert backend.asked == []


@pytest.mark.parametrize("name", ["host", "host:latest", "host:x", "actor/counter", "actor/counter:v2"])
def test_the_image_of_processes_or_actors_has_no_digest_and_nobody_is_warned_of_it(name: str) -> None:
    backend = FakeBackend()
    status, shown = ask(backend, "GET", f"/distribution/{name}/json")
    assert (status, shown["Descriptor"]["Digest"], shown["Platforms"]) == (200, "", [])
    spec = {"Name": "w", "TaskTemplate": {"ContainerSpec": {"Image": name, "Args": ["sleep", "1"]}}}
    assert "Warnings" not in ask(backend, "POST", "/v1.29/services/create", spec)[1]


@pytest.mark.parametrize("name", ["hosts", "reg.example/host", "host/a", "actors/x", "actor"])
def test_an_image_that_is_only_called_alike_is_one_of_a_registry(name: str) -> None:
    assert ask(FakeBackend(), "GET", f"/distribution/{name}/json")[0] == 404


def test_an_api_error_says_its_sentence() -> None:
    assert str(ApiError(400, "why")) == "why"
