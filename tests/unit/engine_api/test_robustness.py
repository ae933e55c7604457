"""Whatever a client sends is answered with a sentence, never with a failure, and nothing is half-done by it."""

from __future__ import annotations

import asyncio
import copy
import json
import pathlib
import urllib.parse
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.engine_api import resolve, sockets
from runtime.engine_api.convert import mounts, network, service
from runtime.errors import Code, Refused
from runtime.wire.pb import types_pb2
from runtime.wire.pb.objects_pb2 import Network, Service
from tests.unit.engine_api import recorded
from tests.unit.engine_api.fake import FakeBackend
from tests.unit.engine_api.support import ask, serving

SWARM_SPEC = {
    "Name": "default", "Labels": {"a": "b"}, "Orchestration": {"TaskHistoryRetentionLimit": 5},
    "Raft": {"SnapshotInterval": 1, "KeepOldSnapshots": 0, "LogEntriesForSlowFollowers": 1, "ElectionTick": 10,
             "HeartbeatTick": 1},
    "Dispatcher": {"HeartbeatPeriod": 5},
    "CAConfig": {"NodeCertExpiry": 1, "ExternalCAs": [{"Protocol": "cfssl", "URL": "u", "Options": {}, "CACert": "c"}],
                 "SigningCACert": "x", "SigningCAKey": "y", "ForceRotate": 1},
    "TaskDefaults": {"LogDriver": {"Name": "n"}}, "EncryptionConfig": {"AutoLockManagers": True},
}  # fmt: skip
BODIES: dict[str, Any] = {
    "/services/create": recorded.RICH_SENT,
    "/v1.41/services/create": recorded.GLOBAL_SENT,
    "/services/web/update?version=1": recorded.CLI_CREATE,
    "/swarm/update?version=1": SWARM_SPEC,
    "/swarm/init": {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "", "DataPathAddr": "", "DataPathPort": 0,
                    "ForceNewCluster": False, "Spec": SWARM_SPEC, "AutoLockManagers": False, "Availability": "",
                    "DefaultAddrPool": ["10.0.0.0/8"], "SubnetSize": 24},
    "/swarm/join": {"ListenAddr": "", "AdvertiseAddr": "", "DataPathAddr": "", "RemoteAddrs": ["a:1"], "JoinToken": "t",
                    "Availability": ""},
    "/swarm/unlock": {"UnlockKey": "SWMKEY-1-x"},
    "/nodes/vm/update?version=1": {"Name": "", "Labels": {"a": "b"}, "Role": "manager", "Availability": "active"},
    "/networks/create": {"Name": "n", "Driver": "overlay", "Scope": "swarm", "EnableIPv6": False, "Internal": False,
                         "IPAM": {"Driver": "default", "Options": {}, "Config": [
                             {"Subnet": "10.1.0.0/24", "IPRange": "", "Gateway": "", "AuxiliaryAddresses": {}}]},
                         "Attachable": True, "Ingress": False, "ConfigOnly": False, "ConfigFrom": {"Network": ""},
                         "Options": {"a": "b"}, "Labels": {}},
    "/secrets/create": {"Name": "s", "Labels": {}, "Data": "YWJj", "Driver": {"Name": "d", "Options": {}},
                        "Templating": {"Name": "golang"}},
    "/configs/create": {"Name": "c", "Labels": {}, "Data": "YWJj", "Templating": {"Name": "golang"}},
}  # fmt: skip

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
    | st.sampled_from(["\ud800", "\x00", "manager", "none", "1.2.3.4"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def changed(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of ``body`` with ``value`` at ``path``."""
    if not path:
        return value
    body = copy.deepcopy(body)
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return body


def a_backend() -> FakeBackend:
    """With what the bodies name."""
    backend = FakeBackend()
    backend.add_service("web")
    backend.networks["nid"] = Network(id="nid")
    return backend


@pytest.mark.parametrize("path", sorted(BODIES))
def test_the_bodies_that_are_changed_here_are_good_ones(path: str) -> None:
    assert ask(a_backend(), "POST", path, BODIES[path])[0] in (200, 201)


@settings(max_examples=500)
@given(st.data())
def test_a_body_with_anything_anywhere_is_taken_or_refused_with_a_sentence(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(BODIES)))
    body = BODIES[path]
    sent = changed(body, data.draw(st.sampled_from(places(body))), data.draw(anything))
    backend = a_backend()
    status, answer = ask(backend, "POST", path, sent)
    assert status in (200, 201, 400, 404, 500, 501), (sent, answer)
    if status >= 400:
        assert isinstance(answer, str)
        assert not answer.startswith("internal error"), sent
        changes = [method for method, _ in backend.asked if method.startswith(("Create", "Update", "Remove"))]
        assert (changes, backend.did) == ([], [])


@settings(max_examples=200)
@given(st.sampled_from(["nodes", "services", "tasks", "networks", "secrets", "configs"]), anything, st.booleans())
def test_filters_of_any_shape_are_taken_or_refused_with_a_sentence(kind: str, value: Any, known: bool) -> None:
    filters = {"name": value, "id": value, "label": value} if known else value
    query = urllib.parse.urlencode({"filters": json.dumps(filters)})
    status, answer = ask(FakeBackend(), "GET", f"/{kind}?{query}")
    assert status in (200, 400)
    if status == 400:
        assert "filter" in answer


@settings(max_examples=200)
@given(
    st.sampled_from(["GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS"]),
    st.lists(st.sampled_from(["services", "nodes", "v1.41", "v1.", "v", "*", "", "%2F", "x", "logs", "json", "update"]),
             max_size=5),
    st.text(alphabet="abc=&%;+ftrue", max_size=12),
)  # fmt: skip
def test_any_path_has_an_answer(method: str, parts: list[str], query: str) -> None:
    status, answer = ask(FakeBackend(), method, "/" + "/".join(parts) + "?" + query)
    assert status in (200, 201, 204, 400, 404, 500, 501, 503)
    if status >= 400:
        assert not str(answer).startswith("internal error")


def test_octets_that_are_no_request_are_refused_and_others_are_served(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        async with serving(FakeBackend(), tmp_path) as client:
            for octets in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\x00" * 100):
                reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
                writer.write(octets + b"\r\n\r\n")
                answer = await asyncio.wait_for(reader.read(), 5)
                assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
                writer.close()
            async with client.get("/_ping") as ping:
                assert ping.status == 200

    asyncio.run(run())


def test_octets_that_are_not_utf8_are_replaced_wherever_they_stand(tmp_path: pathlib.Path) -> None:
    backend = FakeBackend()
    body = json.dumps(recorded.CLI_CREATE).encode()
    heads = (
        b"GET /services/\xff\xfe HTTP/1.1\r\n",
        b"GET /services/%ff HTTP/1.1\r\n",
        b"GET /services?filters={%%22name%%22:[%%22\xff%%22]} HTTP/1.1\r\n".replace(b"%%", b"%"),
        b"POST /services/create HTTP/1.1\r\nX-Registry-Auth: \xff\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n" % len(body),
    )

    async def run() -> list[bytes]:
        answers = []
        async with serving(backend, tmp_path):
            for head in heads:
                reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
                writer.write(head + b"Host: x\r\nConnection: close\r\n\r\n" + (body if b"POST" in head else b""))
                answers.append(await asyncio.wait_for(reader.read(), 5))
                writer.close()
        return answers

    answers = asyncio.run(run())
    for answer in answers:
        assert b"internal error" not in answer
    assert [answer.split(b" ", 2)[1] for answer in answers[1:]] == [b"404", b"400", b"201"]
    assert backend.requests("CreateService")[0].spec.task.container.pull_options.registry_auth == "\ufffd"


# What others may have stored, and what changes between two questions


def test_options_of_a_tmpfs_that_another_manager_stored_in_another_form_are_not_shown() -> None:
    for stored in ("not json", '{"an": "object"}'):
        mount = types_pb2.Mount(type=types_pb2.Mount.TMPFS, target="/t")
        mount.tmpfs_options.options = stored
        assert "Options" not in mounts.mount_to_json(mount).get("TmpfsOptions", {})


def test_a_network_that_a_task_carries_is_shown_with_its_addressing_and_its_source() -> None:
    carried = Network(id="n")
    carried.spec.annotations.name = "net"
    carried.spec.network = "local-config"
    carried.spec.ipam.driver.name = "default"
    carried.spec.ipam.configs.add(subnet="10.0.0.0/24", gateway="10.0.0.1")
    spec = network.stored_to_json(carried)["Spec"]
    assert spec["ConfigFrom"] == {"Network": "local-config"}
    assert spec["IPAMOptions"] == {
        "Driver": {"Name": "default"}, "Configs": [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1"}],
    }  # fmt: skip


def test_networks_of_an_old_service_spec_are_shown_where_they_are() -> None:
    old = Service(id="s")
    old.spec.task.container.image = "b"
    old.spec.networks.add(target="net1")
    assert service.service_to_json(old)["Spec"]["Networks"] == [{"Target": "net1"}]


def test_an_update_that_ended_shows_when() -> None:
    done = Service(id="s")
    done.spec.task.container.image = "b"
    done.update_status.state = types_pb2.UpdateStatus.COMPLETED
    done.update_status.completed_at.seconds = 1_800_000_000
    status = service.service_to_json(done)["UpdateStatus"]
    assert (status["State"], "StartedAt" in status) == ("completed", False)
    assert status["CompletedAt"].startswith("2027-01-15T")


def test_an_object_that_goes_away_between_two_questions_is_not_found() -> None:
    class Going(FakeBackend):
        def _GetService(self, request: Any) -> Any:
            raise Refused(Code.NOT_FOUND, "gone")

    backend = Going()
    backend.add_service("web")
    assert ask(backend, "GET", "/services/web?insertDefaults=1") == (404, "service web not found")


def test_a_refusal_while_networks_are_looked_up_is_the_answer() -> None:
    backend = FakeBackend()
    for name in ("a", "b"):
        backend.networks[f"twin{name}"] = Network(id=f"twin{name}")
    body = {"Name": "n", "TaskTemplate": {"ContainerSpec": {"Image": "b"}, "Networks": [{"Target": "twin"}]}}
    assert ask(backend, "POST", "/services/create", body) == (400, "network twin is ambiguous (2 matches found)")
    assert backend.requests("CreateService") == []
    assert resolve.NETWORK.many == "networks"


def test_a_socket_file_that_is_gone_already_is_no_trouble_at_the_end(tmp_path: pathlib.Path) -> None:
    listener = sockets.listen_unix(str(tmp_path / "s"))
    (tmp_path / "s").unlink()
    listener.sock.close()
    listener.remove()
    assert not (tmp_path / "s").exists()
