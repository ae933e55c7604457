"""Bodies as plain values and back, traces as files, and a recorded trace replayed into a message test."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
from google.protobuf import descriptor_pool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.introspection import recording
from runtime.introspection.bodies import SECRET_FIELDS, NotReplayable, from_plain, scrub, to_plain
from runtime.introspection.tracing import TraceRequest
from runtime.protocol.agent import Assignments, SessionUp
from runtime.protocol.cluster import ConfigEvent, ConfigEventKind, Control
from runtime.protocol.manager import LeaderReady, MembersChanged
from runtime.protocol.node import NodeChanged, StartConfig
from runtime.protocol.raft import MemberStatus
from runtime.protocol.store import Commits, Write
from runtime.stage.simulator import Simulator
from runtime.store.changes import Action, Change
from runtime.store.events import Commit
from runtime.store.view import Published, View
from runtime.wire.pb import ca_pb2, control_pb2, dispatcher_pb2, objects_pb2, raftpb_pb2
from tests.unit.introspection.chain import Chain, Link

STAGE = Simulator(1).node("n1")


def there_and_back(message: Any) -> Any:
    return from_plain(msgpack.unpackb(msgpack.packb(to_plain(message)), strict_map_key=False), STAGE.at)


@pytest.mark.parametrize(
    "message",
    [
        LeaderReady(),
        NodeChanged("swarm-manager", True),
        ConfigEvent(ConfigEventKind.NODE_READY, ("a", 1, 2**80, None)),
        MembersChanged({7: MemberStatus(7, "n", "10.0.0.1:2377", True, False)}),
        Control("ListNodes", control_pb2.ListNodesRequest()),
        ConfigEvent(ConfigEventKind.NODE_READY, objects_pb2.Task),
        Assignments(dispatcher_pb2.AssignmentsMessage(applies_to="5", results_in="6")),
    ],
)
def test_a_message_is_made_again_as_it_was(message: Any) -> None:
    assert there_and_back(message) == message


def test_addresses_are_found_again_by_their_path() -> None:
    assert there_and_back(STAGE.at("/a/b")) == STAGE.at("/a/b")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.floats(allow_nan=False),
        lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=10,
    )
)
def test_plain_parts_come_back_as_they_were(value: Any) -> None:
    assert there_and_back(value) == value


@pytest.mark.parametrize(
    ("message", "because"),
    [
        (Write(lambda tx: None), "a function belongs to its process"),
        (StartConfig(join_token="SWMTKN-1-x"), "it is a secret"),
        (ConfigEvent(ConfigEventKind.NODE_READY, b"12345"), "5 bytes are not kept"),
    ],
)
def test_what_cannot_or_may_not_be_kept_is_said_when_it_is_missed(message: Any, because: str) -> None:
    kept = to_plain(message)
    assert b"SWMTKN" not in msgpack.packb(kept)
    with pytest.raises(NotReplayable, match=because):
        from_plain(kept, STAGE.at)


def test_every_secret_field_is_one_of_a_message_that_exists() -> None:
    assert raftpb_pb2.Entry  # and with it every other message
    assert ca_pb2.IssueNodeCertificateRequest
    for name in SECRET_FIELDS:
        assert descriptor_pool.Default().FindFieldByName(name).full_name == name


def test_no_secret_of_a_cluster_or_an_assignment_is_kept() -> None:
    cluster = objects_pb2.Cluster(id="c")
    cluster.root_ca.ca_key = b"hush-1"
    cluster.root_ca.root_rotation.ca_key = b"hush-2"
    cluster.root_ca.join_tokens.worker = "hush-3"
    cluster.unlock_keys.add(key=b"hush-4")
    cluster.spec.ca_config.signing_ca_key = b"hush-5"
    message = dispatcher_pb2.AssignmentsMessage()
    message.changes.add().assignment.secret.spec.data = b"hush-6"
    task = message.changes.add().assignment.task
    task.spec.container.pull_options.registry_auth = "hush-7"
    task.spec.container.image = "kept"
    plain = msgpack.packb([to_plain(cluster), to_plain(message)])
    assert b"hush" not in plain
    assert b"kept" in plain
    assert cluster.root_ca.ca_key == b"hush-1", "what is shown is a copy"


def test_what_looks_like_a_token_is_hidden_wherever_it_stands() -> None:
    task = objects_pb2.Task()
    task.spec.container.env.extend(("A=SWMTKN-1-hush", "B=kept"))
    task.spec.container.hostname = "SWMKEY-1-hush"
    task.spec.container.labels["join"] = "with SWMTKN-1-hush"
    plain = msgpack.packb([to_plain(task), to_plain(ConfigEvent(ConfigEventKind.NODE_READY, "SWMTKN-1-hush"))])
    assert b"hush" not in plain
    assert b"B=kept" in plain
    assert task.spec.container.env[0] == "A=SWMTKN-1-hush", "what is shown is a copy"


def test_assignments_are_kept_without_their_secrets() -> None:
    message = dispatcher_pb2.AssignmentsMessage()
    message.changes.add().assignment.secret.spec.data = b"hush"
    message.changes.add().assignment.task.id = "t"
    plain = msgpack.packb(to_plain(Assignments(message)))
    assert b"hush" not in plain
    made = from_plain(msgpack.unpackb(plain), STAGE.at)
    assert [each.assignment.WhichOneof("item") for each in made.message.changes] == ["secret", "task"]


@pytest.mark.parametrize("name", ["google.protobuf.Any.Nope", "no.such.Message", "", 5])
def test_a_kind_that_is_none_is_refused(name: object) -> None:
    with pytest.raises(NotReplayable):
        from_plain({"$kind": name}, STAGE.at)


def test_a_message_of_the_wire_is_made_in_a_process_that_did_not_load_it(tmp_path: Path) -> None:
    path = tmp_path / "t"
    records = [{**RECORD, "body": to_plain(Control("ListNodes", control_pb2.ListNodesRequest()))}]
    recording.save(path, records)
    program = (
        "import sys; from pathlib import Path; from runtime.introspection import recording, bodies;"
        "head, records = recording.load(Path(sys.argv[1]));"
        "print(type(bodies.from_plain(records[0]['body'], None).request).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "ListNodesRequest", done.stderr


RECORD = {"told": 0.0, "begun": 0.0, "took": 0.0, "trace": 1, "sender": "", "receiver": "/a", "type": "T",
          "outcome": "ok"}  # fmt: skip


def test_scrubbing_reaches_into_maps() -> None:
    cluster = objects_pb2.Cluster()
    cluster.blacklisted_certificates["n"].expiry.seconds = 5
    scrub(cluster)
    assert cluster.blacklisted_certificates["n"].expiry.seconds == 5


@pytest.mark.parametrize(
    "plain",
    [
        {"$data": "os:system", "fields": {}},
        {"$data": "runtime.errors:nothing", "fields": {}},
        {"$data": "runtime.nowhere:X", "fields": {}},
        {"$data": "runtime.introspection.bodies:importlib", "fields": {}},
        {"$enum": "runtime.protocol.manager:LeaderReady", "value": 1},
        {"$protobuf": "docker.swarmkit.v1.Nothing", "data": b""},
        {"$protobuf": "docker.swarmkit.v1.Task", "data": b"\xff\xff"},
        {"$what": 1},
        {"$view": 1},
        {"plain": 1},
    ],
)
def test_a_file_names_no_code_but_our_messages(plain: Any) -> None:
    with pytest.raises(NotReplayable):
        from_plain(plain, STAGE.at)


def recorded(tmp_path: Path) -> Path:
    chain = Chain()
    trace = chain.trace(TraceRequest(paths=("/middle",), bodies=True))
    chain.send(1, 2, 3)
    path = tmp_path / "one.trace"
    recording.save(path, [recording.plain(each) for each in trace.take()], node="n1")
    return path


def test_a_saved_trace_is_its_owners_alone_and_is_read_as_it_was(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    head, records = recording.load(path)
    assert head["node"] == "n1"
    assert len(records) == 6
    assert records[0]["sender"] == "/first"


def test_a_recorded_trace_is_replayed_into_a_message_test(tmp_path: Path) -> None:
    _, records = recording.load(recorded(tmp_path))
    simulator = Simulator(2)
    stage = simulator.node("test")
    probe = stage.probe("next")
    under_test = stage.mount("under-test", Link, probe.address)
    assert recording.replay(records, "/middle", under_test, stage.at, ("tests.",)) == []
    simulator.settle()
    assert [message.number for message in probe.messages] == [1, 2, 3]


def test_what_cannot_be_replayed_is_named() -> None:
    stage = Simulator(2).node("test")
    records = [
        {"receiver": "/a", "sender": "", "type": "Write", "body": to_plain(Write(lambda tx: None))},
        {"receiver": "/a", "sender": "", "type": "SessionUp"},
        {"receiver": "/b", "sender": "", "type": "SessionUp"},
    ]
    assert recording.replay(records, "/a", stage.at("/a"), stage.at) == [
        "Write: a function belongs to its process",
        "SessionUp: its body was not recorded",
    ]
    assert SessionUp


def service_of(name: str, replicas: int) -> objects_pb2.Service:
    service = objects_pb2.Service(id=name)
    service.spec.annotations.name = name
    service.spec.replicated.replicas = replicas
    return service


def told_commits(*commits: tuple[int, Change]) -> list[dict[str, Any]]:
    """Each by itself, as they were recorded by somebody whose store held more."""
    kept = View(1)
    told = [Commits((Commit(version, (change,), kept.at(version)),)) for version, change in commits]
    return [{**RECORD, "type": "Commits", "body": to_plain(each)} for each in told]


SERVICE = objects_pb2.Service
ONE, MORE = service_of("web", 1), service_of("web", 5)
GONE = service_of("never-seen", 2)
COMMITTED = told_commits(
    (7, Change(Action.CREATE, SERVICE, None, ONE)),
    (9, Change(Action.UPDATE, SERVICE, ONE, MORE)),
    (10, Change(Action.REMOVE, SERVICE, GONE, None)),
    (11, Change(Action.UPDATE, SERVICE, service_of("db", 1), service_of("db", 2))),
)


def test_commits_are_told_again_over_a_store_of_the_tests_own() -> None:
    """Also of what that store does not have: a trace begins somewhere."""
    simulator, published = Simulator(2), Published()
    probe = simulator.node("test").probe("a")
    stage = simulator.node("other")
    assert recording.replay(COMMITTED, "/a", probe.address, stage.at, published=published) == []
    simulator.settle()
    commits = [message.commits[0] for message in probe.messages]
    assert [each.version for each in commits] == [7, 9, 10, 11]
    seen = [{s.id: s.spec.replicated.replicas for s in each.view.all(SERVICE)} for each in commits]
    assert seen == [{"web": 1}, {"web": 5}, {"web": 5}, {"web": 5, "db": 2}]
    assert published.view is commits[-1].view
    assert commits[1].events[0].old == ONE
    assert commits[1].kinds == {SERVICE}


def test_commits_without_a_store_are_named() -> None:
    stage = Simulator(2).node("test")
    (first, *_) = recording.replay(COMMITTED, "/a", stage.at("/a"), stage.at)
    assert first == "Commits: a commit holds the whole store: give the replay one of the test's own"


@pytest.mark.parametrize("content", [b"", b"hello", msgpack.packb({"format": "else"}), msgpack.packb(5)])
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no recorded trace"):
        recording.load(path)


def test_a_trace_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(msgpack.packb({"format": recording.FORMAT, "version": 9}))
    with pytest.raises(ValueError, match="version 9"):
        recording.load(path)


def test_a_trace_takes_the_place_of_one_that_others_could_read_and_is_private(tmp_path: Path) -> None:
    (tmp_path / "one.trace").write_text("older")
    (tmp_path / "one.trace").chmod(0o644)
    path = recorded(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["one.trace"]


def test_a_trace_that_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recorded(tmp_path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        recording.save(path, [])
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["one.trace"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_that_was_cut_anywhere_is_no_trace(tmp_path: Path, data: st.DataObject) -> None:
    whole = recorded(tmp_path).read_bytes()
    kept = data.draw(st.integers(0, len(whole) - 1))
    (tmp_path / "cut").write_bytes(whole[:kept])
    with pytest.raises(ValueError, match=r"no recorded trace|was cut"):
        recording.load(tmp_path / "cut")


@pytest.mark.parametrize("record", [5, {}, {"told": "x"}, {"told": 1.0, "begun": 1.0}])
def test_what_is_no_message_of_a_trace_is_refused(tmp_path: Path, record: object) -> None:
    path = tmp_path / "x"
    path.write_bytes(msgpack.packb({"format": recording.FORMAT, "version": recording.VERSION}) + msgpack.packb(record))
    with pytest.raises(ValueError, match="no message of a trace"):
        recording.load(path)
