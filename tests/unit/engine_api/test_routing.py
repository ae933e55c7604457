"""Paths, versions, queries and filters."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine_api import filters, openapi, router, versions
from runtime.engine_api.answering import dispatch
from runtime.engine_api.call import Call
from runtime.engine_api.errors import ApiError, status_and_text
from runtime.engine_api.routes import containers, later, networks, nodes, services, system, tasks
from runtime.errors import Code, Refused
from runtime.wire.pb import types_pb2
from tests.unit.engine_api.fake import FakeBackend
from tests.unit.engine_api.support import ask


@pytest.mark.parametrize(
    ("segment", "version"),
    [
        ("v1.41", (1, 41)),
        ("v1", (1, 0)),
        ("v10.2", (10, 2)),
        ("vx", None),
        ("1.41", None),
        ("v1.", None),
        ("v.1", None),
        ("v1.4.1", None),
        ("v-1.2", None),
        ("v1.²", None),
        ("v1." + "9" * 40, None),
        ("", None),
    ],
)
def test_a_version_is_two_numbers_behind_a_v(segment: str, version: object) -> None:
    assert versions.parse(segment) == version


def test_the_gate_refuses_what_is_too_old_or_too_new_in_the_engines_words() -> None:
    with pytest.raises(versions.TooOld) as old:
        versions.gate((1, 5), "1.5")
    assert old.value.text == (
        "client version 1.5 is too old. Minimum supported API version is 1.24, "
        "please upgrade your client to a newer version"
    )
    with pytest.raises(ApiError) as new:
        versions.gate((1, 99), "1.99")
    assert new.value.text == "client version 1.99 is too new. Maximum supported API version is 1.45"
    for minor in range(24, 46):
        versions.gate((1, minor), f"1.{minor}")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/services", (versions.NEWEST, ["services"])),
        ("/v1.41/services/a", ((1, 41), ["services", "a"])),
        ("/v1.24/services/a%2Fb", ((1, 24), ["services", "a/b"])),
        ("/v1.41", (versions.NEWEST, ["v1.41"])),
        ("/", (versions.NEWEST, [""])),
    ],
)
def test_paths_work_bare_and_below_a_version(path: str, expected: object) -> None:
    assert router.split(path) == expected


@pytest.mark.parametrize(
    ("method", "path", "handler"),
    [
        ("GET", "/services", services.listing),
        ("GET", "/services/create", services.inspect),
        ("POST", "/services/create", services.create),
        ("GET", "/services/web", services.inspect),
        ("GET", "/services/*", services.inspect),
        ("POST", "/services/web/update", services.update),
        ("DELETE", "/nodes/n", nodes.remove),
        ("GET", "/tasks/t", tasks.inspect),
        ("HEAD", "/_ping", system.ping),
        ("GET", "/distribution/busybox/json", system.distribution),
        ("GET", "/distribution/reg.example:5000/a/b/json", system.distribution),
        ("GET", "/images/a/b/json", containers.image),
        ("GET", "/volumes", containers.volumes),
        ("POST", "/volumes/create", later.create_volume),
        ("GET", "/networks", networks.listing),
        ("DELETE", "/networks/x", networks.remove),
    ],
)
def test_a_known_method_and_path_find_their_handler(method: str, path: str, handler: object) -> None:
    assert router.route(method, path.split("/")[1:]) is handler


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nosuch"),
        ("GET", "/"),
        ("PUT", "/services"),
        ("HEAD", "/services"),
        ("POST", "/services/web"),
        ("GET", "/services/"),
        ("GET", "/services/web/"),
        ("GET", "/services/web/update"),
        ("GET", "/services/web/logs/x"),
        ("POST", "/services/*/nosuch"),
        ("GET", "/services//update"),
        ("POST", "/distribution/busybox/json"),
        ("GET", "/distribution//json"),
        ("GET", "/distribution/json"),
        ("GET", "/v1.41"),
        ("GET", "/vx/nodes"),
        ("GET", "//nodes"),
        ("GET", "/images/../info/json"),
        ("GET", "/images/a/./json"),
    ],
)
def test_an_unknown_path_and_a_wrong_method_are_the_same_404(method: str, path: str) -> None:
    assert ask(FakeBackend(), method, path) == (404, "page not found")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_path_is_routed_or_refused_with_a_status(path: str) -> None:
    try:
        _, parts = router.split("/" + path)
        router.route("GET", parts)
    except ApiError as error:
        assert error.status in (400, 404)


@pytest.mark.parametrize("route", sorted(later.ROUTES))
def test_what_is_not_offered_says_so_with_501(route: str) -> None:
    method, _, path = route.partition(" ")
    backend = FakeBackend()
    backend.has_engine = True
    backend.shown = {"/volumes/x": {}, "/images/x/json": {}}
    service = backend.add_service("x")
    task = backend.add_task(service, 1)
    task.status.state, task.status.container.container_id = types_pb2.RUNNING, "x" * 64
    status, text = ask(backend, method, path.replace("*", "x"))
    assert status == 501
    assert text in later.SENTENCES.values()


@pytest.mark.parametrize(
    ("route", "text"),
    [
        *((route, "No such container: x") for route in sorted(later.OF_CONTAINERS)),
        ("DELETE /images/*", "No such image: x:latest"),
        ("DELETE /volumes/*", "get x: no such volume"),
    ],
)
def test_what_there_is_none_of_is_said_so_before_what_is_not_offered(route: str, text: str) -> None:
    method, _, path = route.partition(" ")
    assert ask(FakeBackend(), method, path.replace("*", "x")) == (404, text)


def a_call(query: str) -> Call:
    return Call(FakeBackend(), "GET", ["x"], query)


@pytest.mark.parametrize("value", ["1", "t", "T", "TRUE", "true", "True"])
def test_strict_booleans_are_true_in_gos_spellings(value: str) -> None:
    assert a_call(f"k={value}").strict("k") is True


@pytest.mark.parametrize("query", ["", "k=", "k=0", "k=f", "k=F", "k=FALSE", "k=false", "k=False"])
def test_strict_booleans_are_false_in_gos_spellings_and_when_absent(query: str) -> None:
    assert a_call(query).strict("k") is False


@pytest.mark.parametrize("value", ["zz", "yes", "tRUE", "2"])
def test_a_strict_boolean_refuses_anything_else(value: str) -> None:
    with pytest.raises(ApiError) as caught:
        a_call(f"k={value}").strict("k")
    parser = f'strconv.ParseBool: parsing "{value}": invalid syntax'
    assert (caught.value.status, caught.value.text) == (400, f"invalid value for k: {value}: {parser}")
    with pytest.raises(ApiError, match=f"^invalid value for k: {value}$"):
        a_call(f"k={value}").strict("k", plainly=True)


@pytest.mark.parametrize(
    ("query", "value"),
    [("", False), ("k=", False), ("k=0", False), ("k=No", False), ("k=false", False), ("k=NONE", False),
     ("k=1", True), ("k=zz", True), ("k=True", True), ("k=+0+", False), ("other=1", False)],
)  # fmt: skip
def test_loose_booleans_take_nearly_everything_for_true(query: str, value: bool) -> None:
    assert a_call(query).loose("k") is value


def test_the_first_of_repeated_query_keys_counts_and_escapes_are_decoded() -> None:
    call = a_call("k=a%20b&k=c&plus=x+y")
    assert call.query("k") == "a b"
    assert call.query("plus") == "x y"
    assert call.query("absent") == ""


def test_a_query_of_a_thousand_and_one_fields_is_refused() -> None:
    with pytest.raises(ApiError, match="too many fields"):
        a_call("&".join(f"k{n}=1" for n in range(1001))).query("k")


@pytest.mark.parametrize("value", ["", "zz", "-1", "1.5", "²", "+1", " 1"])
def test_an_object_version_that_is_no_number_is_refused_in_the_engines_words(value: str) -> None:
    call = Call(FakeBackend(), "POST", ["x"], "")
    call._query = {"version": value}
    with pytest.raises(ApiError) as caught:
        call.object_version("service")
    assert caught.value.text == (
        f"invalid service version '{value}': strconv.ParseUint: parsing \"{value}\": invalid syntax"
    )


def test_an_object_version_has_64_bits() -> None:
    assert a_call(f"version={(1 << 64) - 1}").object_version("node") == (1 << 64) - 1
    assert a_call("version=000").object_version("node") == 0
    for value in (str(1 << 64), "9" * 5000):
        with pytest.raises(ApiError, match="value out of range"):
            a_call(f"version={value}").object_version("node")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("null", {}),
        ("{}", {}),
        ('{"id":{"a":true,"b":true}}', {"id": ["a", "b"]}),
        ('{"id":{"a":false}}', {"id": ["a"]}),
        ('{"id":["a","b"],"label":["x=y"]}', {"id": ["a", "b"], "label": ["x=y"]}),
    ],
)
def test_filters_are_read_in_both_forms(text: str, expected: object) -> None:
    assert filters.parse(text, ("id", "label")) == expected


@pytest.mark.parametrize("text", ["zz", "[]", '"x"', '{"id":5}', '{"id":[5]}', '{"id":"a"}', "[" * 100_000])
def test_malformed_filters_are_refused(text: str) -> None:
    with pytest.raises(ApiError, match="invalid filters: ") as caught:
        filters.parse(text, ("id",))
    assert caught.value.status == 400


def test_an_unknown_filter_is_refused_by_name() -> None:
    with pytest.raises(ApiError) as caught:
        filters.parse(json.dumps({"id": ["a"], "bogus": ["b"]}), ("id",))
    assert (caught.value.status, caught.value.text) == (400, "Invalid filter 'bogus'")


def test_labels_without_a_value_stand_for_any() -> None:
    assert filters.labels(["a", "b=c", "d=e=f", "g="]) == {"a": "", "b": "c", "d": "e=f", "g": ""}


@pytest.mark.parametrize(
    ("values", "expected"), [([], False), (["true"], True), (["1"], True), (["False"], False), (["1", "true"], True)]
)
def test_a_boolean_filter_is_true_or_false(values: list[str], expected: bool) -> None:
    assert filters.boolean({"k": values}, "k") is expected


@pytest.mark.parametrize("values", [["zz"], ["true", "false"]])
def test_a_boolean_filter_that_is_neither_is_refused(values: list[str]) -> None:
    with pytest.raises(ApiError, match="invalid filter 'k="):
        filters.boolean({"k": values}, "k")


def dispatched(target: str, method: str = "GET") -> tuple[FakeBackend, Any]:
    backend = FakeBackend()

    async def run() -> Any:
        try:
            return await dispatch(backend, method, target, b"", lambda name: None)
        except Exception as error:
            return status_and_text(error)

    return backend, asyncio.run(run())


@pytest.mark.parametrize("path", ["/nodes", "/v1.41/services", "/tasks", "/secrets", "/configs", "/networks", "/swarm"])
def test_whoever_asks_for_a_consistent_answer_gets_it_behind_a_barrier(path: str) -> None:
    backend, _ = dispatched(f"{path}?consistent=true")
    assert backend.did[0] == ("barrier",)
    for without in (path, f"{path}?consistent=0"):
        backend, _ = dispatched(without)
        assert ("barrier",) not in backend.did


def test_a_barrier_that_is_refused_is_the_answer() -> None:
    backend = FakeBackend()
    backend.refusals["barrier"] = Refused(Code.UNAVAILABLE, "raft: no elected cluster leader")

    async def run() -> None:
        await dispatch(backend, "GET", "/nodes?consistent=1", b"", lambda name: None)

    with pytest.raises(Refused, match="no elected"):
        asyncio.run(run())


def test_what_is_not_read_from_the_store_knows_no_barrier_and_a_bad_flag_is_refused() -> None:
    assert ("barrier",) not in dispatched("/info?consistent=true")[0].did
    assert ("barrier",) not in dispatched("/services/x?consistent=true", "DELETE")[0].did
    backend, answer = dispatched("/nodes?consistent=perhaps")
    assert answer[0] == 400
    assert backend.did == []


def test_the_document_names_the_flag_where_it_counts() -> None:
    def names(route: str) -> list[str]:
        return [parameter["name"] for parameter in openapi.operation(route)["parameters"]]

    assert "consistent" in names("GET /services/*")
    assert "consistent" not in names("GET /info")
    assert "consistent" not in names("POST /services/create")
