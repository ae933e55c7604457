"""Questions from an event loop: answers from foreign threads, deadlines, and what is freed when nobody waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine_api.questions import Landing, Questions
from runtime.errors import Code, Refused
from runtime.stage.answers import Answer, AskTimeout, Reply

FAR = 3600.0


class Mailbox:
    """Stands for an address: keeps what is sent until the test answers it."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.replies: list[Reply] = []

    def send(self, message: Any, sender: Any, reply: Reply, trace: int) -> None:
        self.messages.append(message)
        self.replies.append(reply)


class Desk:
    """Questions on the running loop, and the wake-ups that they cost."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.wakeups = 0
        self.mailbox: Any = Mailbox()
        self.landing = Landing(loop)
        self.questions = Questions(loop, self.landing)
        wake = loop.call_soon_threadsafe

        def counted(*arguments: Any) -> Any:
            self.wakeups += 1
            return wake(*arguments)

        vars(loop)["call_soon_threadsafe"] = counted

    def ask(self, message: Any, seconds: float = FAR) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self.questions.ask(self.mailbox, message, seconds))

    async def sent(self, count: int) -> list[Reply]:
        """The replies to the questions of the tasks just made, which are sent in the loop's next round."""
        await asyncio.sleep(0)
        assert len(self.mailbox.replies) == count
        return list(self.mailbox.replies)


def on_a_loop(talk: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        desk = Desk()
        await asyncio.wait_for(talk(desk), 10)
        assert desk.questions.waiting == 0

    asyncio.run(run())


def in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_an_answer_from_a_foreign_thread_completes_the_question() -> None:
    async def talk(desk: Desk) -> None:
        asked = desk.ask("what?")
        (reply,) = await desk.sent(1)
        assert (desk.mailbox.messages, asked.done(), desk.questions.waiting) == (["what?"], False, 1)
        in_a_thread(lambda: reply.set(42))
        assert await asked == 42

    on_a_loop(talk)


def test_an_answer_may_come_before_the_question_is_waited_for() -> None:
    async def talk(desk: Desk) -> None:
        class AtOnce(Mailbox):
            def send(self, message: Any, sender: Any, reply: Reply, trace: int) -> None:
                reply.set(message)

        desk.mailbox = AtOnce()
        assert await desk.ask("echo") == "echo"

    on_a_loop(talk)


def test_what_is_answered_as_an_error_is_raised() -> None:
    async def talk(desk: Desk) -> None:
        asked = desk.ask("what?")
        (reply,) = await desk.sent(1)
        reply.fail(Refused(Code.NOT_FOUND, "no such thing"))
        with pytest.raises(Refused, match="no such thing"):
            await asked

    on_a_loop(talk)


def test_any_kind_of_exception_can_be_an_answer() -> None:
    async def talk(desk: Desk) -> None:
        asked = desk.ask("what?")
        (reply,) = await desk.sent(1)
        reply.fail(KeyError("k"))
        with pytest.raises(KeyError):
            await asked

    on_a_loop(talk)


def test_a_question_without_an_answer_ends_at_its_deadline_and_a_late_answer_is_dropped() -> None:
    async def talk(desk: Desk) -> None:
        with pytest.raises(Refused) as caught:
            await desk.ask("what?", 0.001)
        assert (caught.value.code, caught.value.text) == (Code.DEADLINE_EXCEEDED, "context deadline exceeded")
        assert desk.questions.waiting == 0
        desk.mailbox.replies[0].set("late")
        await asyncio.sleep(0)

    on_a_loop(talk)


def test_each_question_has_the_deadline_it_was_asked_with() -> None:
    async def talk(desk: Desk) -> None:
        long = desk.ask("long")
        short = desk.ask("short", 0.001)
        middle = desk.ask("middle", 0.002)
        for overdue in (short, middle):
            with pytest.raises(Refused):
                await overdue
        assert not long.done()
        desk.mailbox.replies[0].set("in time")
        assert await long == "in time"

    on_a_loop(talk)


def test_a_deadline_met_inside_names_no_actor() -> None:
    async def talk(desk: Desk) -> None:
        asked = desk.ask("what?")
        (reply,) = await desk.sent(1)
        reply.fail(AskTimeout("/cluster/node/manager/store", 20.0))
        with pytest.raises(Refused) as caught:
            await asked
        assert caught.value.text == "context deadline exceeded"

    on_a_loop(talk)


def test_a_question_that_nobody_waits_for_any_more_is_forgotten() -> None:
    async def talk(desk: Desk) -> None:
        asked = desk.ask("what?")
        (reply,) = await desk.sent(1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert desk.questions.waiting == 0
        reply.set("late")
        await asyncio.sleep(0)

    on_a_loop(talk)


def test_answers_that_come_together_share_one_wakeup() -> None:
    async def talk(desk: Desk) -> None:
        asked = [desk.ask(number) for number in range(100)]
        replies = await desk.sent(100)

        def answer_all() -> None:
            for number, reply in enumerate(replies):
                reply.set(number)

        in_a_thread(answer_all)
        assert await asyncio.gather(*asked) == list(range(100))
        assert desk.wakeups == 1

    on_a_loop(talk)


def test_no_answer_is_lost_between_many_threads() -> None:
    async def talk(desk: Desk) -> None:
        for _ in range(20):
            desk.mailbox = Mailbox()
            asked = [desk.ask(number) for number in range(160)]
            replies = await desk.sent(160)

            def some(part: int, replies: list[Reply] = replies) -> None:
                for number in range(part, 160, 8):
                    replies[number].set(number)

            threads = [threading.Thread(target=some, args=(part,)) for part in range(8)]
            for thread in threads:
                thread.start()
            assert await asyncio.gather(*asked) == list(range(160))
            for thread in threads:
                thread.join()

    on_a_loop(talk)


@given(st.lists(st.integers(), max_size=30))
def test_what_is_handed_over_arrives_in_order(values: list[int]) -> None:
    async def talk(desk: Desk) -> None:
        came: list[int] = []
        done = asyncio.Event()

        def hand_over() -> None:
            for value in values:
                desk.landing.put(came.append, value)
            desk.landing.put(lambda _: done.set(), None)

        in_a_thread(hand_over)
        await done.wait()
        assert came == values

    on_a_loop(talk)


def test_one_receiver_that_raises_keeps_nothing_from_the_others() -> None:
    async def talk(desk: Desk) -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
        came: list[int] = []
        done = asyncio.Event()
        desk.landing.put(lambda value: came.append(1 // value), 0)
        desk.landing.put(came.append, 2)
        desk.landing.put(lambda _: done.set(), None)
        await done.wait()
        assert came == [2]
        assert [type(error) for error in told] == [ZeroDivisionError]

    on_a_loop(talk)


def test_a_loop_that_is_closed_hears_nothing_and_does_no_harm() -> None:
    loop = asyncio.new_event_loop()
    landing = Landing(loop)
    loop.close()
    heard: list[int] = []
    for value in range(3):
        landing.put(heard.append, value)
    assert heard == []


def test_an_answer_is_given_out_once() -> None:
    async def talk(desk: Desk) -> None:
        asked = desk.ask("what?")
        (reply,) = await desk.sent(1)
        reply.set(1)
        reply.set(2)
        assert await asked == 1
        assert Answer(1).get() == 1

    on_a_loop(talk)
