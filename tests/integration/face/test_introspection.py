"""Asking a stage about itself over its socket: bounded, redacted, never in the way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from runtime.engine_api.sockets import ListenError
from runtime.introspection import client, protocol, render
from runtime.introspection.server import CONNECTIONS_MAX, IntrospectionServer
from runtime.stage import Actor, Stage, handles
from runtime.stage.cell import Life
from runtime.wire.loop import IoLoop
from tests.waiting import until


class Block:
    """Makes an actor busy until it is told."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()


class Worker(Actor):
    """Counts, fails and waits as told."""

    def snapshot(self) -> dict[str, Any]:
        return {"count": 3, "join_token": "SWMTKN-1-x", "note": "uses SWMKEY-1-abc", "data": b"12345"}

    @handles(Block)
    def block(self, message: Block) -> None:
        message.begun.set()
        message.go_on.wait(90)

    @handles(str)
    def text(self, message: str) -> str:
        if message == "fail":
            raise RuntimeError("as told")
        return message


class Unprintable(Actor):
    def snapshot(self) -> dict[str, Any]:
        raise RuntimeError("cannot say")


def wait(loop: IoLoop, work: Any) -> None:
    ended = threading.Event()
    outcome: list[Any] = []
    loop.submit(work, lambda result: (outcome.append(result), ended.set())[1])
    assert ended.wait(60)
    if isinstance(outcome[0], BaseException):
        raise outcome[0]


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage(name="shown")
    yield stage
    assert stage.close()


@pytest.fixture
def path(stage: Stage, tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "i.sock")
    with IoLoop("introspection-test") as loop:
        server = IntrospectionServer(stage, path)
        wait(loop, server.start())
        yield path
        wait(loop, server.stop())
        assert not Path(path).exists()


def running(stage: Stage, *paths: str) -> None:
    """Returns once all of these have begun."""
    until(lambda: all(path in stage.cells and stage.cells[path].life is Life.RUNNING for path in paths))


def test_a_row_shows_life_mailbox_and_counts(stage: Stage, path: str) -> None:
    worker = stage.mount("worker", Worker)
    for text in ("a", "b"):
        worker.ask(text).result(60)
    until(lambda: client.ask(path, "tree")["actors"][0]["handled"] == 2)  # counted when its turn is over
    (row,) = client.ask(path, "tree")["actors"]
    assert (row["path"], row["actor"], row["state"], row["handled"]) == ("/worker", "Worker", "running", 2)
    assert (row["depth"], row["restarts"], row["last_error"], row["handling"]) == (0, 0, "", "")


def test_a_busy_actor_shows_what_it_does_and_what_waits(stage: Stage, path: str) -> None:
    worker = stage.mount("worker", Worker)
    block = Block()
    worker.tell(block)
    assert block.begun.wait(60)
    for _ in range(3):
        worker.tell("x")
    (row,) = client.ask(path, "tree")["actors"]
    assert (row["handling"], row["depth"], row["highest"]) == ("Block", 3, 3)
    assert row["oldest_s"] >= 0
    block.go_on.set()


def test_an_actor_that_does_not_answer_is_shown_as_such(
    stage: Stage, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.introspection.asks.STATE_DEADLINE_S", 0.05)
    worker = stage.mount("worker", Worker)
    block = Block()
    worker.tell(block)
    assert block.begun.wait(60)
    value = client.ask(path, "actor", path="/worker")
    assert (value["snapshot"], value["handling"]) == ("(no answer in time)", "Block")
    block.go_on.set()


def test_declared_state_is_shown_without_secrets(stage: Stage, path: str) -> None:
    stage.mount("worker", Worker)
    running(stage, "/worker")
    (row,) = client.ask(path, "tree", states=True)["actors"]
    assert row["snapshot"] == {"count": 3, "join_token": "(hidden)", "note": "uses (hidden)", "data": "(5 bytes)"}


def test_a_state_that_cannot_be_shown_fails_nobody(stage: Stage, path: str) -> None:
    stage.mount("odd", Unprintable)
    running(stage, "/odd")
    value = client.ask(path, "actor", path="/odd")
    assert value["snapshot"] == "(its snapshot failed: RuntimeError: cannot say)"
    assert (value["state"], value["restarts"]) == ("running", 0)


def test_figures_by_message_type_and_crashes_are_there(stage: Stage, path: str) -> None:
    worker = stage.mount("worker", Worker)
    worker.ask("a").result(60)
    with pytest.raises(Exception, match="as told"):
        worker.ask("fail").result(60)
    value = client.ask(path, "actor", path="/worker")
    (figures,) = value["messages"]
    assert (figures["type"], figures["count"], figures["failed"]) == ("str", 2, 1)
    assert value["last_error"] == "RuntimeError: as told"
    (crash,) = client.ask(path, "crashes")
    assert (crash["path"], crash["message"], crash["state"]["join_token"]) == ("/worker", "str", "(hidden)")


def test_nobody_at_a_path_is_said(stage: Stage, path: str) -> None:
    with pytest.raises(ValueError, match="nobody lives at '/x'"):
        client.ask(path, "actor", path="/x")


def exchange(path: str, *frames: bytes) -> list[Any]:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(path)
        for frame in frames:
            link.sendall(frame)
        link.shutdown(socket.SHUT_WR)
        received = b""
        while piece := link.recv(65536):
            received += piece
    return list(split(received))


def split(received: bytes) -> Iterator[dict[str, Any]]:
    """The maps in frames."""
    while received:
        length = protocol.frame_length(received[: protocol.HEAD.size], protocol.ANSWER_MAX)
        body, received = received[protocol.HEAD.size :][:length], received[protocol.HEAD.size + length :]
        yield protocol.decode(body)


def frame(body: bytes) -> bytes:
    return protocol.HEAD.pack(len(body)) + body


@pytest.mark.parametrize(
    ("sent", "because"),
    [
        (frame(b"hello"), "one msgpack map"),
        (frame(msgpack.packb([])), "one msgpack map"),
        (frame(b"\xc1"), "one msgpack map"),
        (frame(b"\x91" * 5000), "one msgpack map"),
        (protocol.encode({}), "version None is not spoken here; version 2 is"),
        (protocol.encode({"version": 1, "ask": "tree"}), "version 1 is not spoken here"),
        (protocol.encode({"version": 2}), "says in 'ask'"),
        (protocol.encode({"version": 2, "ask": "fly"}), "nothing is known of 'fly'"),
        (protocol.encode({"version": 2, "ask": "trace"}), "this would trace everything"),
        (protocol.encode({"version": 2, "ask": "act", "act": "restart"}), "ask for it in write mode"),
        (protocol.HEAD.pack(protocol.REQUEST_MAX + 1), "too long"),
    ],
)
def test_a_request_that_makes_no_sense_is_answered_with_why(stage: Stage, path: str, sent: bytes, because: str) -> None:
    (answer,) = exchange(path, sent)
    assert answer["ok"] is False
    assert because in answer["error"]


def test_requests_of_one_connection_are_answered_in_their_order(stage: Stage, path: str) -> None:
    stage.mount("worker", Worker)
    good = protocol.encode({"version": 2, "ask": "tree"})
    assert [each["ok"] for each in exchange(path, good, frame(b"bad"), good)] == [True, False, True]


def test_connections_are_bounded(stage: Stage, path: str) -> None:
    links = [socket.socket(socket.AF_UNIX) for _ in range(CONNECTIONS_MAX)]
    try:
        for link in links:
            link.settimeout(60)
            link.connect(path)
            link.sendall(protocol.encode({"version": 2, "ask": "tree"}))
            assert link.recv(65536)
        with pytest.raises(ValueError, match="connections are open already"):
            client.ask(path, "tree")
    finally:
        for link in links:
            link.close()


def test_a_refusal_is_heard_although_the_request_could_not_be_sent(tmp_path: Path) -> None:
    path = str(tmp_path / "busy.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with client.Link(path) as link:
            served, _ = listener.accept()
            served.sendall(protocol.refusal("too many are here"))
            served.close()
            with pytest.raises(ValueError, match="too many are here"):
                link.ask("tree")


def test_a_live_server_is_not_replaced_and_a_stale_socket_is(stage: Stage, path: str, tmp_path: Path) -> None:
    stale = str(tmp_path / "stale.sock")
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(stale)
    with IoLoop("other") as loop:
        with pytest.raises(ListenError, match="another process listens"):
            wait(loop, IntrospectionServer(stage, path).start())
        second = IntrospectionServer(stage, stale)
        wait(loop, second.start())
        assert client.ask(stale, "tree")["actors"] == []
        wait(loop, second.stop())
        wait(loop, second.stop())
    assert client.ask(path, "tree")["actors"] == []


def test_a_stop_ends_open_connections(stage: Stage, tmp_path: Path) -> None:
    path = str(tmp_path / "j.sock")
    with IoLoop("other") as loop, socket.socket(socket.AF_UNIX) as link:
        server = IntrospectionServer(stage, path)
        wait(loop, server.start())
        link.settimeout(60)
        link.connect(path)
        link.sendall(protocol.encode({"version": 2, "ask": "tree"}))
        assert link.recv(65536)
        wait(loop, server.stop())
        assert link.recv(10) == b""


def test_nobody_at_the_socket_is_said_clearly(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.sock")
    with pytest.raises(client.NoAnswer, match=f"no node answers at {missing}: is it running"):
        client.ask(missing, "tree")
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(missing)
    with pytest.raises(client.NoAnswer, match="no node answers"):
        client.ask(missing, "tree")


def test_something_else_at_the_socket_is_said_clearly(tmp_path: Path) -> None:
    path = str(tmp_path / "else.sock")
    answers = [b"220 mail ready\n", b"", frame(b"{}"), frame(msgpack.packb({})), frame(msgpack.packb(5))]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            for answer in answers:
                link, _ = listener.accept()
                link.recv(1000)
                link.sendall(answer)
                link.close()

        serving = threading.Thread(target=serve)
        serving.start()
        for answer in answers:
            with pytest.raises(client.NoAnswer, match="no node of swarmlet" if answer else "hung up"):
                client.ask(path, "tree")
        serving.join(60)


def test_a_socket_that_never_answers_has_a_deadline(tmp_path: Path) -> None:
    path = str(tmp_path / "mute.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(client.NoAnswer, match=r"within 0\.05 s"):
            client.ask(path, "tree", timeout_s=0.05)


def test_the_printed_tree_is_drawn_and_aligned(stage: Stage, path: str) -> None:
    class Parent(Actor):
        def started(self) -> None:
            self.spawn("first", Worker)
            self.spawn("second", Worker)

    stage.mount("parent", Parent)
    running(stage, "/parent", "/parent/first", "/parent/second")
    lines = render.tree(client.ask(path, "tree")).splitlines()
    assert [line.split("  ")[0].rstrip() for line in lines[:4]] == ["ACTOR", "parent", "├─ first", "└─ second"]
    assert len({line.index("running") for line in lines[1:4]}) == 1
    assert lines[0].index("STATE") == lines[1].index("running")
    assert lines[-1].startswith("3 actors, ")


@pytest.mark.parametrize(
    ("what", "details", "text"),
    [
        ("explain", {"name": "web"}, "does not lead its swarm"),
        ("explain", {"kind": "volume", "name": "x"}, "a service, a task or a node"),
        ("plan", {"action": "drain", "name": "n"}, "does not lead its swarm"),
        ("plan", {"action": "explode", "name": "n"}, "to drain or to rm"),
    ],
)
def test_what_only_a_leader_can_explain_is_refused_elsewhere(
    stage: Stage, path: str, what: str, details: dict[str, str], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        client.ask(path, what, **details)


class Place(Actor):
    """Stands at a path, with what is below it, and declares a state."""

    def __init__(self, state: dict[str, Any], *below: str) -> None:
        super().__init__()
        self.state, self.rest = state, below

    def started(self) -> None:
        if self.rest:
            self.spawn(self.rest[0], Place, self.state, *self.rest[1:])

    def snapshot(self) -> dict[str, Any]:
        return self.state


PEER = {"raft id": "7", "node": "n7", "addr": "10.0.0.7:2377"}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"leader": "", "peers": []}, "nobody does now: swarmlet raft says"),
        ({"leader": "7", "peers": [PEER]}, r"ask on the leader's node, n7 \(10\.0\.0\.7:2377\)"),
        ({"leader": "8", "peers": [PEER, "(3 more)"]}, "ask on the leader's node$"),
        ({"loaded": False}, "ask on the leader's node$"),
    ],
)
def test_who_does_not_lead_says_who_does(stage: Stage, path: str, state: dict[str, Any], said: str) -> None:
    stage.mount("cluster", Place, state, "node", "manager", "raft")
    running(stage, "/cluster/node/manager/raft")
    with pytest.raises(ValueError, match=said):
        client.ask(path, "explain", name="web")


@pytest.mark.parametrize(
    ("state", "said"), [("locked", "docker swarm unlock opens it"), ("inactive", "in no swarm"), ("active", "now$")]
)
def test_who_runs_no_manager_says_why(stage: Stage, path: str, state: str, said: str) -> None:
    stage.mount("cluster", Place, {"state": state})
    running(stage, "/cluster")
    with pytest.raises(ValueError, match=said):
        client.ask(path, "waiting")
