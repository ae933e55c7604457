"""The two transports agree: whatever a handler does, its caller sees the same over memory and over sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.wire.pb import dispatcher_pb2, logs_pb2
from runtime.wire.port import Call, Channel
from runtime.wire.services import path
from tests.unit.wire.authority import authority
from tests.unit.wire.worlds import MemoryWorld, Outcome, SocketWorld, World

HEARTBEAT, SESSION, PUBLISH = (
    path("Dispatcher", "Heartbeat"),
    path("Dispatcher", "Session"),
    path("LogBroker", "PublishLogs"),
)
Script = list[tuple[str, Any]]

codes = st.sampled_from([code for code in Code if code is not Code.OK])
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)
endings = st.one_of(
    st.just(("end", None)),
    st.tuples(st.just("fail"), st.tuples(codes, texts)),
    st.just(("crash", None)),
)
scripts = st.builds(
    lambda items, ending, rest: [("send", item) for item in items] + [ending] + [("send", item) for item in rest],
    st.lists(st.integers(0, 200_000), max_size=12),
    endings,
    st.lists(st.integers(0, 10), max_size=2),
)


def perform(call: Call, script: Script) -> None:
    """Does what a script says; returns of calls after the ending must all be False."""
    for step, argument in script:
        if step == "send":
            call.send(dispatcher_pb2.SessionMessage(RootCA=b"x" * argument))
        elif step == "end":
            call.end()
        elif step == "fail":
            call.fail(Refused(*argument))
        else:
            raise LookupError("by script")


class Stand:
    """One world with a server that performs the script of the moment."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.script: Script = []
        self.received: list[str] = []
        handlers = {SESSION: lambda call: perform(call, self.script), HEARTBEAT: self.unary, PUBLISH: self.upload}
        self.channel: Channel = world.connect(world.serve(handlers), authority().worker())

    def unary(self, call: Call) -> None:
        step, argument = self.script[0]
        if step == "fail":
            call.fail(Refused(*argument))
        elif step == "crash":
            raise LookupError("by script")
        call.reply(dispatcher_pb2.HeartbeatResponse())

    def upload(self, call: Call) -> None:
        received: list[str] = []

        def end(refused: Refused | None) -> None:
            self.received = [*received, str(refused)]
            call.reply(logs_pb2.PublishLogsResponse())

        call.receive(lambda item: received.append(item.subscription_id), end)  # type: ignore[attr-defined]

    def stream(self, script: Script) -> tuple[list[int], str]:
        self.script = script
        outcome = Outcome()
        self.channel.stream(SESSION, dispatcher_pb2.SessionRequest(), on_item=outcome.item, on_end=outcome.done)
        self.world.wait(lambda: outcome.over, 60.0)
        return [len(item.RootCA) for item in outcome.items], str(outcome.result)

    def ask(self, script: Script) -> str:
        self.script = script
        return str(self.world.ask(self.channel, HEARTBEAT, dispatcher_pb2.HeartbeatRequest()))

    def push(self, names: list[str]) -> tuple[list[str], str]:
        outcome = Outcome()
        upload = self.channel.upload(PUBLISH, done=outcome.done)
        for name in names:
            assert upload.send(logs_pb2.PublishLogsMessage(subscription_id=name))
        upload.finish()
        self.world.wait(lambda: outcome.over, 60.0)
        return self.received, str(outcome.result)


@pytest.fixture(scope="module")
def stands() -> Iterator[tuple[Stand, Stand]]:
    sockets = SocketWorld()
    yield Stand(MemoryWorld()), Stand(sockets)
    sockets.close()


agreeing = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@agreeing
@given(script=scripts)
def test_streams_agree(stands: tuple[Stand, Stand], script: Script) -> None:
    memory, sockets = (stand.stream(script) for stand in stands)
    assert memory == sockets
    sent = [argument for step, argument in script if step == "send"]
    assert memory[0] == sent[: len(memory[0])]


@agreeing
@given(ending=endings)
def test_unary_calls_agree(stands: tuple[Stand, Stand], ending: tuple[str, Any]) -> None:
    memory, sockets = (stand.ask([ending]) for stand in stands)
    assert memory == sockets


@agreeing
@given(names=st.lists(texts, max_size=20))
def test_uploads_agree(stands: tuple[Stand, Stand], names: list[str]) -> None:
    memory, sockets = (stand.push(names) for stand in stands)
    assert memory == sockets == ([*names, "None"], "")


@agreeing
@given(
    metadata=st.lists(st.tuples(st.sampled_from(["a", "b", "trace-id"]), st.text("xyz019-_", max_size=9)), max_size=5)
)
def test_metadata_agree(stands: tuple[Stand, Stand], metadata: list[tuple[str, str]]) -> None:
    seen: list[Any] = []
    for stand in stands:
        stand.script = [("end", None)]
        stand.unary = lambda call: seen.append(dict(call.metadata)) or call.reply(dispatcher_pb2.HeartbeatResponse())  # type: ignore[method-assign]
        server = stand.world.serve({HEARTBEAT: stand.unary}, name="metadata")
        channel = stand.world.connect(server, authority().worker(), name="asker")
        assert not isinstance(
            stand.world.ask(channel, HEARTBEAT, dispatcher_pb2.HeartbeatRequest(), metadata=metadata), Refused
        )
        channel.close()
        server.close(0.0)
    assert seen[0] == seen[1]
    assert {key: list(values) for key, values in seen[0].items()} == {
        key: [value for name, value in metadata if name == key] for key in dict(metadata)
    }
