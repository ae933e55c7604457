"""Asking about a task of another node: answers, a command as a session, bounds, and every end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from runtime.engine_api import remote_access
from runtime.engine_api.questions import Landing
from runtime.engine_api.remote_access import ASK, NOT_OFFERED, SAY, RemoteAccess
from runtime.errors import Code, Refused
from runtime.executor.inspection import NotBegun, RunCommand, TakeUsage, Top
from runtime.swarm import task_access as rules
from runtime.swarm.membership import LOST_LEADERSHIP
from runtime.wire.pb import access_pb2 as pb


class Upload:
    def __init__(self, done: Callable[[Any], None]) -> None:
        self.done = done
        self.items: list[pb.ToTask] = []
        self.cancelled = False

    def send(self, item: pb.ToTask) -> bool:
        self.items.append(item)
        return True

    def cancel(self) -> None:
        self.cancelled = True


class Channel:
    """The way to this node's manager, which the test plays."""

    def __init__(self) -> None:
        self.request: Any = None
        self.uploads: list[Upload] = []
        self.cancelled = False
        self.on_item: Callable[[Any], None] = lambda item: None
        self.on_end: Callable[[Any], None] = lambda refused: None

    def stream(self, method: str, request: Any, *, on_item: Any, on_end: Any) -> Callable[[], None]:
        assert method == ASK
        self.request, self.on_item, self.on_end = request, on_item, on_end

        def cancel() -> None:
            self.cancelled = True

        return cancel

    def upload(self, method: str, *, done: Any) -> Upload:
        assert method == SAY
        self.uploads.append(Upload(done))
        return self.uploads[-1]

    async def say(self, **what: Any) -> None:
        self.on_item(pb.FromTask(access_id="a1", **what))
        await turns()


async def turns() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


class Heard:
    """What a command said, and its end."""

    def __init__(self, tty: bool = False) -> None:
        self.output: list[tuple[int, bytes]] = []
        self.exits: list[int | None] = []
        self.question = RunCommand(
            ("sh",), tty=tty, stdin=True,
            on_output=lambda stream, data: self.output.append((stream, data)), on_exit=self.exits.append,
        )  # fmt: skip


def over(talk: Callable[[Channel], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(talk(Channel()), 10))


def asking(channel: Channel, question: Any) -> asyncio.Future[Any]:
    made: Any = channel
    landing = Landing(asyncio.get_running_loop())
    return asyncio.ensure_future(remote_access.ask(made, landing, "t1", question))


async def begun(channel: Channel, heard: Heard) -> tuple[RemoteAccess, Upload]:
    asked = asking(channel, heard.question)
    await turns()
    await channel.say(asked=True)
    await channel.say(begun=77)
    session = await asked
    assert isinstance(session, RemoteAccess)
    assert session.pid == 77
    return session, channel.uploads[0]


def kinds(upload: Upload) -> list[str | None]:
    assert all(each.access_id == "a1" for each in upload.items)
    return [each.WhichOneof("what") for each in upload.items]


# Answers


def test_a_question_has_one_answer() -> None:
    async def talk(channel: Channel) -> None:
        asked = asking(channel, Top("aux"))
        await turns()
        assert channel.request == pb.AccessQuestion(task_id="t1", top="aux")
        await channel.say(asked=True)
        await channel.say(processes=pb.Processes(titles=pb.Cells(text=["PID"])))
        assert (await asked).titles == ("PID",)
        assert channel.cancelled
        assert channel.uploads == []

    over(talk)


def test_without_a_question_it_is_whether_one_could_be_asked() -> None:
    async def talk(channel: Channel) -> None:
        asked = asking(channel, None)
        await turns()
        assert channel.request.reach
        await channel.say(done=True)
        assert await asked is None

    over(talk)


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        (Refused(Code.UNAVAILABLE, "the node of this task, w1, is down"), "the node of this task, w1, is down"),
        (Refused(Code.UNIMPLEMENTED, "the node of this task is a dockerd"), "the node of this task is a dockerd"),
        (Refused(Code.UNIMPLEMENTED, "unknown service swarmlet.v1.TaskAccess"), NOT_OFFERED),
        (Refused(Code.UNIMPLEMENTED, "Method not found!"), NOT_OFFERED),
        (Refused(Code.UNAVAILABLE, LOST_LEADERSHIP), rules.LEADER_GONE),
        (None, "the task's node answered with what is no answer"),
    ],
)  # fmt: skip
def test_a_refusal_on_the_way_is_raised_and_a_leader_of_another_kind_has_a_sentence(
    refused: Refused | None, text: str
) -> None:
    async def talk(channel: Channel) -> None:
        asked = asking(channel, TakeUsage())
        await turns()
        channel.on_end(refused)
        with pytest.raises(Refused) as caught:
            await asked
        assert caught.value.text == text

    over(talk)


def test_a_refusal_of_the_node_is_raised_and_one_that_cannot_begin_answers_so() -> None:
    async def talk(channel: Channel) -> None:
        asked = asking(channel, TakeUsage())
        await turns()
        await channel.say(refused=pb.Refusal(code=9, text="it does not run"))
        with pytest.raises(Refused, match="it does not run"):
            await asked
        asked = asking(channel, Heard().question)
        await turns()
        await channel.say(not_begun=pb.NotBegun(text="no such file", code=127))
        assert await asked == NotBegun("no such file", 127)

    over(talk)


def test_nobody_waits_for_ever_and_who_gives_up_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_access, "ANSWER_S", 0.0)

    async def talk(channel: Channel) -> None:
        with pytest.raises(Refused) as caught:
            await asking(channel, TakeUsage())
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        assert channel.cancelled

    over(talk)


def test_a_client_that_goes_before_the_answer_lets_go() -> None:
    async def talk(channel: Channel) -> None:
        asked = asking(channel, Heard().question)
        await turns()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert channel.cancelled
        await channel.say(begun=77)

    over(talk)


# A command


def test_what_it_says_is_heard_and_said_to_be_taken_until_its_end() -> None:
    async def talk(channel: Channel) -> None:
        heard = Heard()
        _, upload = await begun(channel, heard)
        await channel.say(output=pb.Output(stream=1, data=b"out"))
        await channel.say(output=pb.Output(stream=2, data=b"err"))
        assert [each.taken for each in upload.items] == [rules.cost(b"out"), rules.cost(b"err")]
        await channel.say(exit=pb.Exit(code=3, known=True))
        await channel.say(output=pb.Output(stream=1, data=b"late"))
        channel.on_end(None)
        await turns()
        assert heard.output == [(1, b"out"), (2, b"err")]
        assert heard.exits == [3]
        assert upload.cancelled

    over(talk)


def test_while_it_is_held_nothing_is_said_to_be_taken() -> None:
    async def talk(channel: Channel) -> None:
        session, upload = await begun(channel, Heard())
        session.hold(True)
        await channel.say(output=pb.Output(stream=1, data=b"a"))
        await channel.say(output=pb.Output(stream=1, data=b"b"))
        assert upload.items == []
        session.hold(False)
        assert [each.taken for each in upload.items] == [2 * rules.cost(b"a")]

    over(talk)


def test_input_goes_in_pieces_within_the_window_and_is_done_when_it_was_taken() -> None:
    async def talk(channel: Channel) -> None:
        session, upload = await begun(channel, Heard())
        done: list[str] = []
        data = bytes(range(256)) * (2 * rules.WINDOW // 256)
        session.write(data, lambda: done.append("first"))
        session.write(b"more", lambda: done.append("second"))
        session.end_input()
        sent = 0
        while sent < len(upload.items):
            item = upload.items[sent]
            sent += 1
            assert sum(rules.cost(each.input) for each in upload.items[sent - 1 :]) <= rules.WINDOW
            if item.WhichOneof("what") == "input":
                await channel.say(taken=rules.cost(item.input))
        assert b"".join(each.input for each in upload.items) == data + b"more"
        assert kinds(upload)[-1] == "input_end"
        assert kinds(upload).count("input_end") == 1
        assert done == ["first", "second"]
        session.write(b"behind the end", lambda: done.append("nothing"))
        assert done[-1] == "nothing"

    over(talk)


def test_sizes_are_handed_on_as_numbers_that_fit() -> None:
    async def talk(channel: Channel) -> None:
        session, upload = await begun(channel, Heard())
        session.resize(24, 80)
        session.resize(-1, 1 << 40)
        assert [(each.size.rows, each.size.columns) for each in upload.items] == [(24, 80), (0, 65535)]

    over(talk)


@pytest.mark.parametrize("tty", [False, True])
def test_what_breaks_it_is_said_where_its_output_goes(tty: bool) -> None:
    async def talk(channel: Channel) -> None:
        heard = Heard(tty)
        session, _ = await begun(channel, heard)
        done: list[str] = []
        session.write(b"x", lambda: done.append("let go"))
        channel.on_end(Refused(Code.ABORTED, rules.LEADER_GONE))
        await turns()
        assert heard.output == [(1 if tty else 2, f"\r\nthe command was ended: {rules.LEADER_GONE}\r\n".encode())]
        assert heard.exits == [None]
        assert done == ["let go"]
        session.write(b"y", lambda: done.append("over"))
        assert done[-1] == "over"

    over(talk)


def test_a_node_that_ends_it_says_why() -> None:
    async def talk(channel: Channel) -> None:
        heard = Heard()
        await begun(channel, heard)
        await channel.say(refused=pb.Refusal(code=4, text=rules.ENDED_IDLE))
        assert rules.ENDED_IDLE.encode() in heard.output[0][1]
        assert heard.exits == [None]
        assert channel.cancelled

    over(talk)


def test_an_upload_that_came_too_late_is_no_trouble_and_one_that_breaks_is() -> None:
    async def talk(channel: Channel) -> None:
        heard = Heard()
        _, upload = await begun(channel, heard)
        upload.done(Refused(Code.NOT_FOUND, "unknown access ID"))
        await turns()
        assert heard.exits == []
        await channel.say(exit=pb.Exit(code=0, known=True))
        assert heard.exits == [0]
        other = Heard()
        _, upload = await begun(channel, other)
        channel.uploads[-1].done(Refused(Code.UNAVAILABLE, "connection reset"))
        await turns()
        assert other.exits == [None]

    over(talk)


@pytest.mark.parametrize("taken", [1, rules.cost(b"x") + 1, 1 << 31])
def test_a_node_that_takes_what_was_not_sent_ends_it(taken: int) -> None:
    async def talk(channel: Channel) -> None:
        heard = Heard()
        session, _ = await begun(channel, heard)
        session.write(b"x", lambda: None)
        await channel.say(taken=taken)
        assert heard.exits == [None]

    over(talk)


def test_closing_ends_it_once() -> None:
    async def talk(channel: Channel) -> None:
        heard = Heard()
        session, upload = await begun(channel, heard)
        session.close()
        session.close()
        assert channel.cancelled
        assert upload.cancelled
        assert heard.exits == [None]

    over(talk)
