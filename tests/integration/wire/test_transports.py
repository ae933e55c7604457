"""What the port promises, over both transports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime.errors import Code, NotSent, Refused
from runtime.wire.authorise import forward_headers
from runtime.wire.pb import ca_pb2, control_pb2, dispatcher_pb2, logs_pb2
from runtime.wire.port import CA_NAME, MANAGER, WORKER, Access, Call, Credentials, Identity, StreamLimits
from runtime.wire.services import path
from tests.hostile import raw
from tests.unit.wire.authority import CLUSTER, authority, stranger
from tests.unit.wire.worlds import MemoryWorld, Outcome, Recorder, SocketWorld, World

HEARTBEAT = path("Dispatcher", "Heartbeat")
SESSION = path("Dispatcher", "Session")
ROOT = path("CA", "GetRootCACertificate")
UNLOCK = path("CA", "GetUnlockKey")
ISSUE = path("NodeCA", "IssueNodeCertificate")
PUBLISH = path("LogBroker", "PublishLogs")
GET_NODE = path("Control", "GetNode")
Beat = dispatcher_pb2.HeartbeatRequest


@pytest.fixture(params=["memory", "sockets"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made: World = MemoryWorld() if request.param == "memory" else SocketWorld()
    yield made
    made.close()


def echo(call: Call) -> None:
    """Answers a heartbeat with a period as long as the session id."""
    assert isinstance(call.request, dispatcher_pb2.HeartbeatRequest)
    answer = dispatcher_pb2.HeartbeatResponse()
    answer.period.seconds = len(call.request.session_id)
    call.reply(answer)


def test_a_unary_call_is_answered_under_the_callers_identity(world: World) -> None:
    seen: list[Identity] = []

    def handler(call: Call) -> None:
        seen.append(call.identity)
        echo(call)

    server = world.serve({HEARTBEAT: handler})
    channel = world.connect(server, authority().worker("worker7"))
    answer = world.ask(channel, HEARTBEAT, Beat(session_id="four"))
    assert answer.period.seconds == 4
    (identity,) = seen
    assert (identity.node_id, identity.role, identity.organization) == ("worker7", WORKER, CLUSTER)
    assert identity.remote_addr.rpartition(":")[2].isdecimal()
    assert not identity.forwarded
    assert not identity.local


def test_a_refusal_arrives_with_its_code_and_text(world: World) -> None:
    def handler(call: Call) -> None:
        raise Refused(Code.NOT_FOUND, "node abc — not found")

    server = world.serve({HEARTBEAT: handler})
    answer = world.ask(world.connect(server, authority().worker()), HEARTBEAT, Beat())
    assert (answer.code, answer.text) == (Code.NOT_FOUND, "node abc — not found")


def test_a_handler_that_crashes_is_an_internal_error_and_the_server_lives_on(world: World) -> None:
    def handler(call: Call) -> None:
        if call.request == Beat(session_id="bad"):
            raise ZeroDivisionError("secret detail")
        echo(call)

    server = world.serve({HEARTBEAT: handler})
    channel = world.connect(server, authority().worker())
    answer = world.ask(channel, HEARTBEAT, Beat(session_id="bad"))
    assert answer.code is Code.INTERNAL
    assert "ZeroDivisionError" in answer.text
    assert "secret" not in answer.text
    assert world.ask(channel, HEARTBEAT, Beat(session_id="x")).period.seconds == 1


def test_an_unknown_method_is_unimplemented(world: World) -> None:
    server = world.serve({HEARTBEAT: echo})
    answer = world.ask(world.connect(server, authority().manager("m2")), UNLOCK, ca_pb2.GetUnlockKeyRequest())
    assert answer.code is Code.UNIMPLEMENTED


def test_the_first_answer_counts(world: World) -> None:
    results: list[bool] = []

    def handler(call: Call) -> None:
        results.append(call.reply(dispatcher_pb2.HeartbeatResponse()))
        results.append(call.reply(dispatcher_pb2.HeartbeatResponse()))
        results.append(call.fail(Refused(Code.ABORTED, "too late")))

    server = world.serve({HEARTBEAT: handler})
    answer = world.ask(world.connect(server, authority().worker()), HEARTBEAT, Beat())
    assert isinstance(answer, dispatcher_pb2.HeartbeatResponse)
    assert results == [True, False, False]


def test_an_upload_of_bytes_that_are_no_message_fails_for_its_sender_and_its_receiver(world: World) -> None:
    ends: list[Refused | None] = []
    server = world.serve({PUBLISH: lambda call: call.receive(lambda item: None, ends.append)})
    outcome = Outcome()
    upload = world.connect(server, authority().worker()).upload(PUBLISH, done=outcome.done, timeout=60.0)
    upload.send(raw(b"\xff\xff\xff"))
    upload.send(logs_pb2.PublishLogsMessage())
    upload.finish()
    world.wait(lambda: outcome.over and bool(ends))
    assert outcome.result.code is Code.INTERNAL
    assert "not a valid message" in outcome.result.text
    assert [end.code for end in ends if end is not None] == [Code.INTERNAL]


def test_without_a_certificate_only_open_methods_answer(world: World) -> None:
    seen: list[Identity] = []

    def root(call: Call) -> None:
        seen.append(call.identity)
        call.reply(ca_pb2.GetRootCACertificateResponse(certificate=b"root"))

    server = world.serve({ROOT: root, HEARTBEAT: echo})
    channel = world.connect(server, Credentials(authority().pem), server_name=CA_NAME)
    assert world.ask(channel, ROOT, ca_pb2.GetRootCACertificateRequest()).certificate == b"root"
    assert (seen[0].node_id, seen[0].role) == ("", "")
    refused = world.ask(channel, HEARTBEAT, Beat())
    assert refused.code is Code.PERMISSION_DENIED
    assert "unauthorized peer role" in refused.text
    assert "no client certificates in request" in refused.text


def test_the_root_can_be_fetched_without_trusting_anybody(world: World) -> None:
    server = world.serve(
        {ROOT: lambda call: call.reply(ca_pb2.GetRootCACertificateResponse(certificate=b"pem"))}
        and {ROOT: _root_handler}
    )
    channel = world.connect(server, None, server_name=None, verify=False)
    assert channel.peer_certificate is None
    assert world.ask(channel, ROOT, ca_pb2.GetRootCACertificateRequest()).certificate == b"pem"
    assert channel.peer_certificate is not None


def _root_handler(call: Call) -> None:
    call.reply(ca_pb2.GetRootCACertificateResponse(certificate=b"pem"))


@pytest.mark.parametrize(
    ("credentials", "method", "text"),
    [
        ("worker", GET_NODE, "remote certificate not part of OUs: [swarm-manager]"),
        ("foreigner", HEARTBEAT, f"remote certificate not part of organization: {CLUSTER}"),
        ("removed", HEARTBEAT, "node removed1 was removed from swarm"),
    ],
)
def test_a_caller_without_the_right_is_denied(world: World, credentials: str, method: str, text: str) -> None:
    callers = {
        "worker": authority().worker(),
        "foreigner": authority().credentials("w", WORKER, organization="elsewhere"),
        "removed": authority().worker("removed1"),
    }
    server = world.serve(
        {HEARTBEAT: echo, GET_NODE: echo}, access=lambda: Access(CLUSTER, blacklist=frozenset({"removed1"}))
    )
    request = Beat() if method == HEARTBEAT else control_pb2.GetNodeRequest()
    answer = world.ask(world.connect(server, callers[credentials]), method, request)
    assert answer.code is Code.PERMISSION_DENIED
    assert text in answer.text


def test_a_removed_node_is_denied_on_a_connection_that_stands(world: World) -> None:
    removed: set[str] = set()
    server = world.serve({HEARTBEAT: echo}, access=lambda: Access(CLUSTER, blacklist=removed))
    channel = world.connect(server, authority().worker("w9"))
    assert world.ask(channel, HEARTBEAT, Beat(session_id="x")).period.seconds == 1
    removed.add("w9")
    assert world.ask(channel, HEARTBEAT, Beat()).code is Code.PERMISSION_DENIED


def test_a_manager_forwards_on_behalf_of_a_worker(world: World) -> None:
    seen: list[Call] = []

    def handler(call: Call) -> None:
        seen.append(call)
        echo(call)

    server = world.serve({HEARTBEAT: handler})
    headers = forward_headers(Identity("worker3", WORKER, CLUSTER, "10.9.8.7:555"))
    channel = world.connect(server, authority().manager("m2"))
    assert world.ask(channel, HEARTBEAT, Beat(session_id="abc"), metadata=headers).period.seconds == 3
    assert seen[0].identity == Identity("worker3", WORKER, CLUSTER, "10.9.8.7:555", forwarded=True)
    assert seen[0].metadata == {"redirect": ("10.9.8.7:555",)}


def test_a_worker_cannot_forward(world: World) -> None:
    server = world.serve({HEARTBEAT: echo})
    headers = forward_headers(Identity("worker3", WORKER, CLUSTER, "10.9.8.7:555"))
    answer = world.ask(world.connect(server, authority().worker()), HEARTBEAT, Beat(), metadata=headers)
    assert answer.code is Code.PERMISSION_DENIED
    assert "unauthorized forwarder role" in answer.text


def test_a_peer_under_another_root_is_not_spoken_to(world: World) -> None:
    server = world.serve({HEARTBEAT: echo}, credentials=stranger().manager())
    channel = world.connect(server, authority().worker())
    answer = world.ask(channel, HEARTBEAT, Beat())
    assert answer.code is Code.UNAVAILABLE
    assert "certificate signed by unknown authority" in answer.text
    assert channel.peer_certificate is not None


def test_a_callers_certificate_of_another_root_is_refused(world: World) -> None:
    server = world.serve({HEARTBEAT: echo})
    certificate, key = stranger().issue("w", WORKER)
    answer = world.ask(world.connect(server, Credentials(authority().pem, certificate, key)), HEARTBEAT, Beat())
    assert answer.code is Code.UNAVAILABLE
    assert "refused this node's certificate" in answer.text


@pytest.mark.parametrize(("start", "end", "text"), [(-9.0, -1.0, "has expired"), (1.0, 9.0, "is not yet valid")])
def test_wrong_time_is_named_with_both_clocks(world: World, start: float, end: float, text: str) -> None:
    late = authority().credentials("m", MANAGER, start=start, end=end)
    server = world.serve({HEARTBEAT: echo}, credentials=late)
    answer = world.ask(world.connect(server, authority().worker()), HEARTBEAT, Beat())
    assert answer.code is Code.UNAVAILABLE
    assert text in answer.text
    assert answer.text.count("Z") == 2


def test_the_server_name_is_checked_and_not_the_host(world: World) -> None:
    server = world.serve({HEARTBEAT: echo}, credentials=authority().worker("w1"))
    answer = world.ask(world.connect(server, authority().worker()), HEARTBEAT, Beat())
    assert answer.code is Code.UNAVAILABLE
    named = world.connect(server, authority().worker(), server_name=WORKER)
    assert world.ask(named, HEARTBEAT, Beat(session_id="x")).period.seconds == 1


def test_nobody_listening_is_connection_refused(world: World) -> None:
    server = world.serve({HEARTBEAT: echo})
    closed: list[bool] = []
    server.close(0.0, lambda: closed.append(True))
    world.wait(lambda: bool(closed))
    answer = world.ask(world.connect(server, authority().worker()), HEARTBEAT, Beat())
    assert answer.code is Code.UNAVAILABLE
    assert "connection refused" in answer.text
    assert isinstance(answer, NotSent), "nothing was sent"


def test_what_was_lost_with_its_connection_may_have_been_carried_out_and_the_next_call_was_not_sent(
    world: World,
) -> None:
    recorder, outcome = Recorder(), Outcome()
    server = world.serve({HEARTBEAT: recorder})
    channel = world.connect(server, authority().worker())
    channel.unary(HEARTBEAT, Beat(), timeout=60.0, done=outcome.done)
    world.wait(lambda: bool(recorder.calls))
    server.close(0.0)
    world.wait(lambda: outcome.over)
    assert isinstance(outcome.result, Refused)
    assert not isinstance(outcome.result, NotSent)
    world.wait(lambda: isinstance(world.ask(channel, HEARTBEAT, Beat()), NotSent))


def test_new_credentials_are_used_by_new_handshakes_and_old_connections_stay(world: World) -> None:
    mine = authority().manager()
    server = world.serve({HEARTBEAT: echo}, credentials=mine)
    old = world.connect(server, authority().worker())
    assert world.ask(old, HEARTBEAT, Beat(session_id="x")).period.seconds == 1
    certificate, key = stranger().issue("manager1", MANAGER)
    assert mine.replace(roots=stranger().pem, certificate=certificate, key=key) == 2
    assert world.ask(old, HEARTBEAT, Beat(session_id="xy")).period.seconds == 2
    new = world.connect(server, stranger().worker())
    assert world.ask(new, HEARTBEAT, Beat(session_id="xyz")).period.seconds == 3
    assert world.ask(world.connect(server, authority().worker()), HEARTBEAT, Beat()).code is Code.UNAVAILABLE


def test_a_deadline_reaches_both_sides(world: World) -> None:
    recorder = Recorder()
    server = world.serve({HEARTBEAT: recorder, ROOT: _root_handler})
    channel = world.connect(server, authority().worker())
    world.ask(channel, ROOT, ca_pb2.GetRootCACertificateRequest())  # so that there is a connection
    answer = world.ask(channel, HEARTBEAT, Beat(), timeout=world.patience / 20)
    assert answer.code is Code.DEADLINE_EXCEEDED
    world.wait(lambda: bool(recorder.cancelled))
    assert not recorder.calls[0].reply(dispatcher_pb2.HeartbeatResponse())


def test_a_cancel_reaches_both_sides_once(world: World) -> None:
    recorder, outcome = Recorder(), Outcome()
    server = world.serve({HEARTBEAT: recorder})
    channel = world.connect(server, authority().worker())
    cancel = channel.unary(HEARTBEAT, Beat(), timeout=60.0, done=outcome.done)
    world.wait(lambda: bool(recorder.calls))
    cancel()
    cancel()
    world.wait(lambda: outcome.over and bool(recorder.cancelled))
    assert outcome.result.code is Code.CANCELLED
    assert len(recorder.cancelled) == 1


def test_a_stream_keeps_order_and_ends_well(world: World) -> None:
    def handler(call: Call) -> None:
        for number in range(300):
            call.send(dispatcher_pb2.SessionMessage(session_id=str(number)))
        call.end()

    outcome = Outcome()
    server = world.serve({SESSION: handler})
    channel = world.connect(server, authority().worker())
    channel.stream(SESSION, dispatcher_pb2.SessionRequest(), on_item=outcome.item, on_end=outcome.done)
    world.wait(lambda: outcome.over)
    assert [item.session_id for item in outcome.items] == [str(number) for number in range(300)]
    assert outcome.result is None


def test_a_stream_that_fails_delivers_what_came_before(world: World) -> None:
    def handler(call: Call) -> None:
        call.send(dispatcher_pb2.SessionMessage(session_id="only"))
        call.fail(Refused(Code.ABORTED, "the dispatcher stops"))

    outcome = Outcome()
    server = world.serve({SESSION: handler})
    channel = world.connect(server, authority().worker())
    channel.stream(SESSION, dispatcher_pb2.SessionRequest(), on_item=outcome.item, on_end=outcome.done)
    world.wait(lambda: outcome.over)
    assert [item.session_id for item in outcome.items] == ["only"]
    assert (outcome.result.code, outcome.result.text) == (Code.ABORTED, "the dispatcher stops")


def test_what_is_sent_is_a_copy(world: World) -> None:
    recorder, outcome = Recorder(), Outcome()
    server = world.serve({SESSION: recorder})
    channel = world.connect(server, authority().worker())
    channel.stream(SESSION, dispatcher_pb2.SessionRequest(), on_item=outcome.item, on_end=outcome.done)
    world.wait(lambda: bool(recorder.calls))
    item = dispatcher_pb2.SessionMessage(session_id="before")
    assert recorder.calls[0].send(item)
    item.session_id = "after"
    world.wait(lambda: bool(outcome.items))
    assert outcome.items[0].session_id == "before"


def test_a_cancelled_stream_tells_the_handler(world: World) -> None:
    recorder, outcome = Recorder(), Outcome()
    server = world.serve({SESSION: recorder})
    channel = world.connect(server, authority().worker())
    cancel = channel.stream(SESSION, dispatcher_pb2.SessionRequest(), on_item=outcome.item, on_end=outcome.done)
    world.wait(lambda: bool(recorder.calls))
    recorder.calls[0].send(dispatcher_pb2.SessionMessage())
    world.wait(lambda: bool(outcome.items))
    cancel()
    world.wait(lambda: outcome.over and bool(recorder.cancelled))
    assert outcome.result.code is Code.CANCELLED
    assert not recorder.calls[0].send(dispatcher_pb2.SessionMessage())
    assert not recorder.calls[0].end()


def test_a_callback_given_after_the_cancel_runs_at_once(world: World) -> None:
    recorder, outcome, late = Recorder(), Outcome(), []
    server = world.serve({HEARTBEAT: recorder})
    cancel = world.connect(server, authority().worker()).unary(HEARTBEAT, Beat(), timeout=60.0, done=outcome.done)
    world.wait(lambda: bool(recorder.calls))
    cancel()
    world.wait(lambda: bool(recorder.cancelled))
    recorder.calls[0].on_cancel(lambda: late.append(True))
    assert late == [True]


def test_a_reader_that_is_too_slow_loses_its_stream_and_is_told(world: World) -> None:
    recorder, outcome = Recorder(), Outcome()
    server = world.serve({SESSION: recorder}, limits=StreamLimits(items_max=8, bytes_max=1 << 20))
    channel = world.connect(server, authority().worker())
    channel.stream(SESSION, dispatcher_pb2.SessionRequest(), on_item=outcome.item, on_end=outcome.done)
    world.wait(lambda: bool(recorder.calls))
    big = dispatcher_pb2.SessionMessage(RootCA=b"x" * 300_000)
    taken = 0
    while recorder.calls[0].send(big):
        taken += 1
        assert taken <= 10_000
    world.wait(lambda: outcome.over)
    assert outcome.result.code is Code.RESOURCE_EXHAUSTED
    assert "too slow" in outcome.result.text
    assert len(recorder.cancelled) == 1


def test_an_upload_arrives_in_order_and_is_answered(world: World) -> None:
    got: list[str] = []

    def handler(call: Call) -> None:
        def end(refused: Refused | None) -> None:
            got.append(f"end {refused}")
            call.reply(logs_pb2.PublishLogsResponse())

        call.receive(lambda item: got.append(item.subscription_id), end)  # type: ignore[attr-defined]

    outcome = Outcome()
    server = world.serve({PUBLISH: handler})
    upload = world.connect(server, authority().worker()).upload(PUBLISH, done=outcome.done)
    for number in range(100):
        assert upload.send(logs_pb2.PublishLogsMessage(subscription_id=str(number)))
    upload.finish()
    world.wait(lambda: outcome.over)
    assert got == [*(str(number) for number in range(100)), "end None"]
    assert isinstance(outcome.result, logs_pb2.PublishLogsResponse)
    assert not upload.send(logs_pb2.PublishLogsMessage())


def test_an_upload_can_be_received_late(world: World) -> None:
    recorder, outcome, got = Recorder(), Outcome(), []
    server = world.serve({PUBLISH: recorder})
    upload = world.connect(server, authority().worker()).upload(PUBLISH, done=outcome.done)
    upload.send(logs_pb2.PublishLogsMessage(subscription_id="early"))
    upload.finish()
    world.wait(lambda: bool(recorder.calls))
    world.settle()
    ends: list[Refused | None] = []
    recorder.calls[0].receive(got.append, ends.append)
    world.wait(lambda: bool(ends))
    assert [item.subscription_id for item in got] == ["early"]
    assert ends == [None]
    recorder.calls[0].reply(logs_pb2.PublishLogsResponse())
    world.wait(lambda: outcome.over)
    with pytest.raises(RuntimeError, match="receiver already"):
        recorder.calls[0].receive(got.append, ends.append)


def test_an_upload_may_be_answered_before_its_end(world: World) -> None:
    ends: list[Refused | None] = []

    def handler(call: Call) -> None:
        call.receive(lambda _: call.fail(Refused(Code.NOT_FOUND, "raft: member was removed")) and None, ends.append)

    outcome = Outcome()
    server = world.serve({PUBLISH: handler})
    upload = world.connect(server, authority().worker()).upload(PUBLISH, done=outcome.done)
    upload.send(logs_pb2.PublishLogsMessage())
    world.wait(lambda: outcome.over and bool(ends))
    assert (outcome.result.code, outcome.result.text) == (Code.NOT_FOUND, "raft: member was removed")
    assert ends[0] is not None
    assert ends[0].code is Code.CANCELLED


@pytest.mark.parametrize("refuse", [False, True])
def test_an_upload_of_one_item_may_be_a_unary_call(world: World, refuse: bool) -> None:
    got: list[str] = []

    def handler(call: Call) -> None:
        if refuse:
            call.fail(Refused(Code.NOT_FOUND, "raft: member was removed"))
            return

        def end(refused: Refused | None) -> None:
            got.append(f"end {refused}")
            call.reply(logs_pb2.PublishLogsResponse())

        call.receive(lambda item: got.append(item.subscription_id), end)  # type: ignore[attr-defined]

    channel = world.connect(world.serve({PUBLISH: handler}), authority().worker())
    answer = world.ask(channel, PUBLISH, logs_pb2.PublishLogsMessage(subscription_id="only"))
    if refuse:
        assert (answer.code, answer.text) == (Code.NOT_FOUND, "raft: member was removed")
    else:
        assert answer == logs_pb2.PublishLogsResponse()
        assert got == ["only", "end None"]


def test_a_broken_off_upload_ends_for_the_receiver(world: World) -> None:
    outcome, got, ends = Outcome(), [], []
    server = world.serve({PUBLISH: lambda call: call.receive(got.append, ends.append)})
    upload = world.connect(server, authority().worker()).upload(PUBLISH, done=outcome.done)
    upload.send(logs_pb2.PublishLogsMessage())
    world.wait(lambda: bool(got))
    upload.cancel()
    world.wait(lambda: outcome.over and bool(ends))
    assert outcome.result.code is Code.CANCELLED
    assert ends[0].code is Code.CANCELLED


def test_a_closed_channel_ends_what_is_under_way_and_takes_nothing_new(world: World) -> None:
    recorder, outcome = Recorder(), Outcome()
    server = world.serve({SESSION: recorder, HEARTBEAT: echo})
    channel = world.connect(server, authority().worker())
    channel.stream(SESSION, dispatcher_pb2.SessionRequest(), on_item=outcome.item, on_end=outcome.done)
    world.wait(lambda: bool(recorder.calls))
    channel.close()
    channel.close()
    world.wait(lambda: outcome.over and bool(recorder.cancelled))
    assert outcome.result.code is Code.CANCELLED
    assert world.ask(channel, HEARTBEAT, Beat()).code is Code.CANCELLED


def test_a_closing_server_lets_calls_finish_within_the_grace(world: World) -> None:
    recorder, outcome, closed = Recorder(), Outcome(), []
    server = world.serve({HEARTBEAT: recorder})
    world.connect(server, authority().worker()).unary(HEARTBEAT, Beat(), timeout=60.0, done=outcome.done)
    world.wait(lambda: bool(recorder.calls))
    server.close(10.0, lambda: closed.append(True))
    world.settle()
    assert not closed
    assert recorder.calls[0].reply(dispatcher_pb2.HeartbeatResponse())
    world.wait(lambda: outcome.over and bool(closed))
    assert isinstance(outcome.result, dispatcher_pb2.HeartbeatResponse)


def test_a_closing_server_cancels_what_outlives_the_grace(world: World) -> None:
    recorder, outcome, closed = Recorder(), Outcome(), []
    server = world.serve({SESSION: recorder})
    channel = world.connect(server, authority().worker())
    channel.stream(SESSION, dispatcher_pb2.SessionRequest(), on_item=outcome.item, on_end=outcome.done)
    world.wait(lambda: bool(recorder.calls))
    server.close(0.1, lambda: closed.append(True))
    server.close(0.1, lambda: closed.append(True))
    world.wait(lambda: outcome.over and len(closed) == 2 and bool(recorder.cancelled))
    assert outcome.result.code in (Code.UNAVAILABLE, Code.CANCELLED)


def test_a_channel_connects_again_after_a_loss(world: World) -> None:
    server = world.serve({HEARTBEAT: echo})
    port = server.address.rpartition(":")[2]
    channel = world.connect(server, authority().worker())
    assert world.ask(channel, HEARTBEAT, Beat(session_id="x")).period.seconds == 1
    closed: list[bool] = []
    server.close(0.0, lambda: closed.append(True))
    world.wait(lambda: bool(closed))
    assert world.ask(channel, HEARTBEAT, Beat()).code is Code.UNAVAILABLE
    again = world.address("server").rpartition(":")[0] + f":{port}"
    from runtime.wire.services import routes

    world.transport("server").serve(
        again, routes({HEARTBEAT: echo}), access=lambda: Access(CLUSTER), credentials=authority().manager()
    )
    answers: list[object] = []

    def answered() -> bool:
        answers.append(world.ask(channel, HEARTBEAT, Beat(session_id="xy")))
        return not isinstance(answers[-1], Refused)

    world.wait(answered)


def test_an_address_is_taken_once(world: World) -> None:
    server = world.serve({HEARTBEAT: echo})
    port = server.address.rpartition(":")[2]
    with pytest.raises(Refused, match="address already in use"):
        world.transport("server").serve(
            world.address("server").rpartition(":")[0] + f":{port}",
            {},
            access=lambda: Access(CLUSTER),
            credentials=authority().manager(),
        )


def test_tls_is_not_optional(world: World) -> None:
    with pytest.raises(ValueError, match="needs credentials"):
        world.transport("server").serve(world.address("server"), {}, access=lambda: Access(CLUSTER))
    with pytest.raises(ValueError, match="without credentials"):
        world.transport("client").connect("127.0.0.1:1", None)


def test_the_wrong_kind_of_answer_is_a_crash_of_the_handler(world: World) -> None:
    server = world.serve({HEARTBEAT: lambda call: call.end() and None, SESSION: _replies})
    channel = world.connect(server, authority().worker())
    assert world.ask(channel, HEARTBEAT, Beat()).code is Code.INTERNAL
    outcome = Outcome()
    channel.stream(SESSION, dispatcher_pb2.SessionRequest(), on_item=outcome.item, on_end=outcome.done)
    world.wait(lambda: outcome.over)
    assert outcome.result.code is Code.INTERNAL


def _replies(call: Call) -> None:
    call.reply(dispatcher_pb2.SessionMessage())


def test_the_control_socket_acts_as_the_node_itself(world: World, tmp_path: object) -> None:
    seen: list[Identity] = []

    def handler(call: Call) -> None:
        seen.append(call.identity)
        call.reply(control_pb2.GetNodeResponse())

    from runtime.wire.services import routes

    address = f"unix:{tmp_path}/control.sock"
    me = Identity("me", MANAGER, CLUSTER, "127.0.0.1:2377", local=True)
    world.transport("server").serve(address, routes({GET_NODE: handler}), access=lambda: Access(CLUSTER, local=me))
    channel = world.transport("server").connect(address, None)
    assert isinstance(world.ask(channel, GET_NODE, control_pb2.GetNodeRequest()), control_pb2.GetNodeResponse)
    assert seen == [me]
    with pytest.raises(Refused, match="address already in use"):
        world.transport("server").serve(address, {}, access=lambda: Access(CLUSTER))
