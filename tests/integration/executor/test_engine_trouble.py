"""An engine that is away, restarts, is slow, refuses, or loses answers: nothing is lost, and nothing runs twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.executor.engine_client import EngineClient, EngineRefused, EngineUnavailable
from runtime.executor.port import Already, Done, Failed
from runtime.wire.loop import IoLoop
from tests.integration.executor.container_bench import ContainerBench
from tests.integration.executor.fake_engine import FakeEngine
from tests.waiting import until


@pytest.fixture
def bench(loop: IoLoop, short_path: Path) -> Iterator[ContainerBench]:
    made = ContainerBench(loop, short_path)
    yield made
    made.end()


OPERATIONS = ("prepare", "start", "shutdown", "terminate", "remove")


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_engine_that_is_away_fails_an_operation_for_a_while(bench: ContainerBench, name: str) -> None:
    controller = bench.started("t", "sleep")
    bench.engine.down()
    outcome = bench.do(getattr(controller, name))
    assert isinstance(outcome, Failed)
    assert outcome.temporary
    assert "Cannot connect to the Docker daemon" in outcome.text
    bench.engine.up()
    assert not isinstance(bench.do(getattr(controller, name)), Failed)


@pytest.mark.parametrize("after", [False, True])
def test_a_start_whose_answer_is_lost_is_made_once(bench: ContainerBench, after: bool) -> None:
    controller = bench.controller("t", "sleep")
    bench.do(controller.prepare)
    bench.engine.cut("/start", after=after)
    assert bench.do(controller.start).temporary
    outcome = bench.do(controller.start)
    assert type(outcome) is (Already if after else Done)
    assert bench.engine.of("t").starts == 1


def test_a_start_that_is_broken_off_goes_on_and_is_not_made_again(bench: ContainerBench) -> None:
    controller = bench.controller("t", "sleep")
    bench.do(controller.prepare)
    slow = bench.engine.hold("/start")
    answer, operation = bench.begin(controller.start)
    assert slow.met.wait(60)
    operation.cancel()
    assert answer.get() == Failed("cancelled", cancelled=True)
    again, _ = bench.begin(controller.start)
    assert slow.hold is not None
    slow.hold.set()
    assert isinstance(again.get(), Done | Already)
    assert bench.engine.count("/start") == 1
    assert bench.engine.of("t").starts == 1


@pytest.mark.parametrize("after", [False, True])
def test_a_container_whose_making_is_cut_off_is_made_once(bench: ContainerBench, after: bool) -> None:
    controller = bench.controller("t", "sleep")
    bench.engine.cut("/containers/create", after=after)
    assert bench.do(controller.prepare).temporary
    assert type(bench.do(controller.prepare)) is (Already if after else Done)
    assert len(bench.engine.containers) == 1


def test_a_name_that_is_taken_by_what_is_still_in_the_making_is_tried_again(bench: ContainerBench) -> None:
    bench.engine.fail("/containers/create", 409, 'Conflict. The container name "/web.1.t" is already in use')
    controller = bench.controller("t", "sleep")
    outcome = bench.do(controller.prepare)
    assert (outcome.text, outcome.temporary) == ("the container web.1.t is in the making", True)
    assert bench.do(controller.prepare) == Done()


def test_whoever_waits_goes_on_waiting_through_a_restart_of_the_engine(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.followed()
    answer, _ = bench.begin(controller.wait)
    bench.engine.down()
    bench.engine.exit("t", 5)
    bench.engine.up()
    outcome = answer.get()
    assert isinstance(outcome, Failed)
    assert (outcome.text, outcome.temporary) == ("task: non-zero exit (5)", False)


def test_an_end_that_was_missed_between_two_streams_of_events_is_seen(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.followed()
    before = bench.engine.looks("t")
    answer, _ = bench.begin(controller.wait)
    until(lambda: bench.engine.looks("t") > before, "it has looked and waits")

    async def end_silently() -> None:
        bench.engine.of("t").status = "exited"

    bench.engine.run(end_silently())
    assert not answer.outcomes
    for listener in list(bench.engine._listeners):
        bench.engine._loop.call_soon(lambda listener=listener: listener.put_nowait(None))  # type: ignore[misc]
    assert isinstance(answer.get(), Done)


def test_an_end_whose_event_the_engine_dropped_is_seen_later(bench: ContainerBench) -> None:
    bench.close()
    bench.boot(look_again=0.05)
    controller = bench.started("t", "sleep")
    before = bench.engine.looks("t")
    answer, _ = bench.begin(controller.wait)
    until(lambda: bench.engine.looks("t") > before, "it has looked and waits")
    before = bench.engine.looks("t")
    listed = bench.engine.count("/containers/json")
    until(lambda: bench.engine.count("/containers/json") > listed + 2, "what runs is listed")
    assert bench.engine.looks("t") <= before + 1, "what runs is not looked at each time"

    async def end_silently() -> None:
        bench.engine.of("t").status = "exited"

    bench.engine.run(end_silently())
    assert isinstance(answer.get(), Done)


def test_events_that_are_none_are_followed_anew(bench: ContainerBench) -> None:
    bench.followed()
    bench.engine.fail("/events", 500, "no events today", times=2)
    bench.engine.down()
    bench.engine.up()
    bench.followed()
    assert bench.engine.count("/events") >= 4


def test_an_engine_that_cannot_say_how_it_stands_is_asked_again(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.followed()
    bench.engine.fail("/json", 500, "database is locked", times=1)
    answer, _ = bench.begin(controller.wait)
    bench.engine.exit("t", 0)
    assert isinstance(answer.get(), Done)


def test_a_stop_that_the_engine_cannot_carry_out_is_tried_again(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.engine.fail("/stop", 500, "tried to kill container, but did not receive an exit event")
    outcome = bench.do(controller.shutdown)
    assert outcome.temporary
    assert "did not receive an exit event" in outcome.text
    assert bench.do(controller.shutdown).container_status.exit_code == 143


def test_what_cannot_be_stopped_is_removed_all_the_same(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.engine.fail("/stop", 500, "no")
    assert bench.do(controller.remove) == Done()
    assert bench.engine.containers == {}


def test_a_removal_that_is_under_way_elsewhere_is_waited_for(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.engine.fail("DELETE", 409, "removal of container t is already in progress")
    assert bench.do(controller.remove).temporary
    assert bench.do(controller.remove) == Done()


def test_a_stop_whose_answer_is_lost_is_a_stop_all_the_same(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.engine.cut("/stop", after=True)
    assert bench.do(controller.shutdown).temporary
    assert bench.do(controller.shutdown).container_status.exit_code == 143


def ask(loop: IoLoop, client: EngineClient, path: str) -> object:
    return FakeEngine.run_on(loop, client.call("GET", path))


def test_an_engine_that_says_nothing_is_away(bench: ContainerBench) -> None:
    client = EngineClient(str(bench.engine.path), answer_s=0.2)
    slow = bench.engine.hold("/images/x/json")
    try:
        with pytest.raises(EngineUnavailable, match="does not answer"):
            ask(bench.loop, client, "/images/x/json")
    finally:
        assert slow.hold is not None
        slow.hold.set()
        FakeEngine.run_on(bench.loop, client.close())


def test_a_refusal_has_the_engines_own_words(bench: ContainerBench) -> None:
    client = EngineClient(str(bench.engine.path))
    with pytest.raises(EngineRefused) as caught:
        ask(bench.loop, client, "/containers/nosuch/json")
    assert (caught.value.status, caught.value.text) == (404, "No such container: nosuch")
    FakeEngine.run_on(bench.loop, client.close())
    with pytest.raises(EngineUnavailable, match="closed"):
        ask(bench.loop, client, "/info")
