"""Tasks that are actors, through the executor's port: how they start, how they end, and what is said of it."""

from __future__ import annotations

import pytest

from actors.task_supervisor_actor import GIVE_UP_AFTER, LOST
from runtime.executor.actor import NO_READING
from runtime.executor.actor_plan import TaskPlace
from runtime.executor.port import CONTROLLER_CLOSED, Already, Done, Failed, LogOptions, Rejected, Stream
from runtime.stage import Actor, ActorUnavailable
from runtime.wire.pb import types_pb2
from tests.messages.actor_bench import ACTORS, Asked, Bench, Lines, Plain, task, with_ping
from tests.unit.executor.builders import context


@pytest.fixture
def bench() -> Bench:
    return Bench()


def failed(outcome: object) -> Failed:
    assert isinstance(outcome, Failed)
    return outcome


# Starting


def test_a_task_runs_below_the_supervisor_under_its_own_name(bench: Bench) -> None:
    _, start = bench.started(task("t1"))
    assert isinstance(start.outcome, Done)
    assert start.outcome.container_status is not None
    assert len(start.outcome.container_status.container_id) == 64
    assert start.outcome.port_status is None
    assert bench.actors == ["/tasks/svc.1.t1"]


def test_an_actor_is_given_its_place(bench: Bench) -> None:
    made = task("t1", "actor/plain", "a", "b")
    made.spec.container.env.extend(["HOST={{.Node.Hostname}}", "TWO=2", "TWO"])
    made.spec.container.labels["tier"] = "front"
    made.spec.container.secrets.add(secret_id="s", secret_name="password").file.name = "db"
    made.spec.container.configs.add(config_id="c", config_name="settings")
    made.assigned_generic_resources.add().named_resource_spec.MergeFrom(
        types_pb2.NamedGenericResource(kind="gpu", value="one")
    )
    bench.started(made, context({"s": b"hunter22", "c": b"x=1"}))
    place: TaskPlace = bench.answer("place")
    assert (place.task_id, place.service_id, place.service, place.slot) == ("t1", "service", "svc", 1)
    assert (place.node_id, place.node) == ("node", "box")
    assert place.args == ("a", "b")
    assert dict(place.env) == {"HOST": "box", "DOCKER_RESOURCE_GPU": "one"}
    assert dict(place.labels) == {"tier": "front"}
    assert place.secret("db") == b"hunter22"
    assert place.config("settings") == b"x=1"
    with pytest.raises(KeyError):
        place.secret("password")
    assert "hunter22" not in repr(place)
    assert "TWO" not in repr(place)
    assert place.at("/tasks").path == "/tasks"


def test_what_it_is_given_cannot_be_changed(bench: Bench) -> None:
    bench.started(task("t1"))
    place: TaskPlace = bench.answer("place")
    with pytest.raises(AttributeError):
        place.slot = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        place.env["A"] = "b"  # type: ignore[index]


def test_a_registration_may_have_arguments_of_its_own(bench: Bench) -> None:
    bench.started(task("t1", "actor/more"))
    assert bench.answer("more") == ("a", 2)


@pytest.mark.parametrize(
    ("image", "kind"),
    [("actor/plain", "Plain"), ("actor/plain:latest", "Plain"), ("actor/plain:v2", "Patient")],
)
def test_a_tag_is_part_of_the_name_but_latest_is_none(bench: Bench, image: str, kind: str) -> None:
    bench.started(task("t1", image))
    assert bench.stage.cells["/tasks/svc.1.t1"].cls.__name__ == kind


def test_starting_again_starts_nothing(bench: Bench) -> None:
    controller, _ = bench.started(task("t1"))
    bench.run(5)
    began = bench.stage.cells["/tasks/svc.1.t1"].begun
    assert isinstance(bench.ask(controller.prepare).outcome, Already)
    assert isinstance(bench.ask(bench.controller(task("t1")).start).outcome, Already)
    assert bench.stage.cells["/tasks/svc.1.t1"].begun == began


@pytest.mark.parametrize("seed", range(5))
def test_two_starts_at_once_are_one(seed: int) -> None:
    bench = Bench(seed)
    controller = bench.controller(task("t1"))
    controller.prepare(lambda _: None)
    first, second = Asked(controller.start), Asked(bench.controller(task("t1")).start)
    bench.run()
    assert isinstance(first.outcome, Done)
    assert isinstance(second.outcome, (Done, Already))
    assert Lines(controller).texts == ["started"]


@pytest.mark.parametrize("seed", range(5))
def test_a_start_that_fails_is_the_tasks_end(seed: int) -> None:
    bench = Bench(seed)
    controller, start = bench.started(task("t1", "actor/plain", "fail"))
    outcome = failed(start.outcome)
    assert outcome.text == "starting actor failed: RuntimeError: cannot start"
    assert outcome.exit_code == 1
    assert not outcome.temporary
    assert failed(bench.ask(controller.wait).outcome).text == outcome.text
    assert bench.actors == []


def test_words_of_an_error_are_told_without_the_secrets(bench: Bench) -> None:
    made = task("t1", "actor/plain", "fail in init")
    made.spec.container.secrets.add(secret_id="s", secret_name="password")
    controller, start = bench.started(made, context({"s": b"hunter22\n"}))
    assert failed(start.outcome).text == "starting actor failed: ValueError: cannot begin with (hidden)"
    assert "hunter22" not in "".join(Lines(controller).texts)


def test_nor_does_the_node_tell_them(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    made = task("t1")
    made.spec.container.secrets.add(secret_id="s", secret_name="password")
    controller, _ = bench.started(made, context({"s": b"hunter22"}))
    asked = bench.stage.at(bench.actors[0]).ask("fail over hunter22")
    bench.run(1)
    with pytest.raises(ActorUnavailable) as told:
        asked.result(0)
    (crash,) = bench.stage.observations.crashes
    for text in (str(told.value), crash.error, crash.traceback, caplog.text, repr(bench.executor._hidden.keys())):
        assert "hunter22" not in text
    assert crash.error == "ValueError: over (hidden)"
    bench.ask(controller.remove)
    assert bench.executor._hidden == {}


@pytest.mark.parametrize("kind", ["secrets", "configs"])
def test_what_the_node_was_not_given_keeps_a_task_from_starting(bench: Bench, kind: str) -> None:
    made = task("t1")
    if kind == "secrets":
        made.spec.container.secrets.add(secret_id="gone", secret_name="x")
    else:
        made.spec.container.configs.add(config_id="gone", config_name="x")
    _, start = bench.started(made)
    assert failed(start.outcome).text == "starting actor failed: a secret or config is not on this node: gone"
    assert bench.actors == []


def test_a_task_that_exits_as_it_starts_has_started_all_the_same(bench: Bench) -> None:
    controller, start = bench.started(task("t1", "actor/plain", "exit"))
    assert isinstance(start.outcome, Done)
    assert failed(bench.ask(controller.wait).outcome).text == "task: non-zero exit (3)"


# Ends


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("end", ""),
        ("exit 0", ""),
        ("leave", ""),
        ("sys.exit 0", ""),
        ("exit 3", "task: non-zero exit (3)"),
        ("sys.exit 4", "task: non-zero exit (4)"),
        ("sys.exit words", "task: non-zero exit (1): SystemExit: words"),
        ("fail two\nlines", "task: non-zero exit (1): ValueError: two lines"),
        ("fail " + "x" * 1000, "task: non-zero exit (1): ValueError: " + "x" * 288 + "..."),
    ],
)
def test_how_an_actor_ends_is_how_its_task_ends(bench: Bench, message: str, text: str) -> None:
    controller, _ = bench.started(task("t1"))
    waited = bench.ask(controller.wait)
    assert waited.outcomes == []
    bench.tell(message, 1)
    if text:
        assert failed(waited.outcome).text == text
        assert failed(waited.outcome).exit_code == int(text.split("(")[1].split(")")[0])
    else:
        assert isinstance(waited.outcome, Done)
    assert bench.actors == [], "it does not come back"
    assert bench.ask(controller.wait).outcome == waited.outcome, "asked again, the answer is the same"


def test_the_first_word_about_its_end_counts(bench: Bench) -> None:
    controller, _ = bench.started(task("t1"))
    place: TaskPlace = bench.answer("place")
    place.exit(5)
    place.exit(6)
    assert failed(bench.ask(controller.wait).outcome).exit_code == 5
    place.exit(7)  # of one that is gone: nothing
    assert failed(bench.ask(controller.wait).outcome).exit_code == 5


@pytest.mark.parametrize("code", [-1, 256])
def test_an_exit_code_is_a_byte(bench: Bench, code: int) -> None:
    bench.started(task("t1"))
    with pytest.raises(ValueError, match="0 to 255"):
        bench.answer("place").exit(code)


def test_an_actor_that_comes_back_in_its_place_keeps_its_task_running(bench: Bench) -> None:
    controller, _ = bench.started(task("t1", "actor/tough"))
    waited = Asked(controller.wait)
    bench.tell("fail once", 1)
    assert waited.outcomes == []
    assert bench.actors == ["/tasks/svc.1.t1"]
    texts = Lines(controller).texts
    assert texts.count("started") == 2
    assert "ValueError: once" in texts


def test_one_that_fails_too_often_fails_its_task(bench: Bench) -> None:
    controller, _ = bench.started(task("t1", "actor/tough"))
    waited = Asked(controller.wait)
    for _ in range(6):
        assert waited.outcomes == []
        bench.tell("fail again", 5)
    assert failed(waited.outcome).text == "task: non-zero exit (1): ValueError: again"
    assert bench.actors == []


# Stopping


def test_one_that_knows_nothing_of_stopping_is_stopped_at_once(bench: Bench) -> None:
    controller, _ = bench.started(task("t1"))
    waited, stop = Asked(controller.wait), bench.ask(controller.shutdown)
    assert isinstance(stop.outcome, Done)
    assert isinstance(waited.outcome, Done)
    assert bench.actors == []
    assert Lines(controller).texts == ["started", "stopped"]


def test_one_that_wants_to_end_itself_has_its_grace_period(bench: Bench) -> None:
    made = task("t1", "actor/patient")
    made.spec.container.stop_grace_period.FromSeconds(5)
    controller, _ = bench.started(made)
    stop = bench.ask(controller.shutdown, 2.9)
    assert stop.outcomes == []
    bench.run(0.2)
    assert isinstance(stop.outcome, Done)
    assert stop.outcome.container_status is not None
    assert stop.outcome.container_status.exit_code == 7
    assert "stopping within 5 s" in Lines(controller).texts


def test_beyond_its_grace_period_it_is_stopped(bench: Bench) -> None:
    made = task("t1", "actor/patient")
    made.spec.container.stop_grace_period.FromSeconds(2)
    controller, _ = bench.started(made)
    stop = bench.ask(controller.shutdown, 1.9)
    assert stop.outcomes == []
    bench.run(0.2)
    assert isinstance(stop.outcome, Done)
    assert stop.outcome.container_status is not None
    assert stop.outcome.container_status.exit_code == 137
    assert bench.actors == []


def test_terminating_waits_for_nothing(bench: Bench) -> None:
    controller, _ = bench.started(task("t1", "actor/patient"))
    stop = Asked(controller.shutdown)
    kill = bench.ask(controller.terminate)
    assert isinstance(kill.outcome, Done)
    assert isinstance(stop.outcome, Done)
    assert kill.outcome.container_status is not None
    assert kill.outcome.container_status.exit_code == 137


def test_stopping_twice_is_told_once(bench: Bench) -> None:
    controller, _ = bench.started(task("t1", "actor/patient"))
    first, second = Asked(controller.shutdown), Asked(controller.shutdown)
    bench.run(3.1)
    assert isinstance(first.outcome, Done)
    assert isinstance(second.outcome, Done)
    assert [text for text in Lines(controller).texts if text.startswith("stopping")] == ["stopping within 10 s"]


def test_what_was_not_started_never_will_be_once_it_was_stopped(bench: Bench) -> None:
    controller = bench.controller(task("t1"))
    controller.prepare(lambda _: None)
    assert isinstance(bench.ask(controller.shutdown).outcome, Done)
    assert isinstance(bench.ask(controller.start).outcome, Already)
    assert bench.actors == []


def test_removing_ends_it_and_forgets_it_with_its_log(bench: Bench) -> None:
    controller, _ = bench.started(task("t1", "actor/patient"))
    removed = bench.ask(controller.remove, 3.1)
    assert isinstance(removed.outcome, Done)
    assert bench.actors == []
    assert isinstance(bench.ask(controller.remove).outcome, Done), "of what is gone too"
    assert Lines(bench.controller(task("t1"))).texts == []
    assert failed(bench.ask(controller.wait).outcome).text == LOST


def test_all_are_stopped_each_with_its_own_grace_period(bench: Bench) -> None:
    bench.started(task("t1", "actor/patient"))
    bench.started(task("t2"))
    bench.controller(task("t3")).prepare(lambda _: None)
    done: list[float] = []
    bench.executor.stop_all(lambda: done.append(bench.simulator.time))
    bench.run(2.9)
    assert bench.actors == ["/tasks/svc.1.t1"]
    assert done == []
    bench.run(0.2)
    assert len(done) == 1
    bench.executor.stop_all(lambda: done.append(0.0))
    bench.run()
    assert len(done) == 2, "with nothing left it is said at once"


def test_an_actor_that_does_not_return_is_given_up_in_so_many_words(bench: Bench) -> None:
    controller, _ = bench.started(task("t1"))
    cell = bench.stage.cells["/tasks/svc.1.t1"]
    assert cell.idle.acquire(blocking=False), "its thread is held: no turn of it comes"
    cell.handling = ("fail", None, None, 0.0, 0)
    waited, stop = Asked(controller.wait), Asked(controller.shutdown)
    bench.run(GIVE_UP_AFTER + 0.1)
    text = "task: non-zero exit (137): the actor has not returned from str: it goes on until it does"
    assert failed(stop.outcome).text == text
    assert failed(waited.outcome).text == text
    assert not failed(stop.outcome).temporary
    assert isinstance(bench.ask(controller.remove).outcome, Done), "its record goes, whatever it does"
    cell.handling = None
    cell.idle.release()
    cell.control(lambda: None)
    bench.run()
    assert bench.actors == [], "it ends when it returns"


# Health


def test_a_task_with_a_health_check_has_started_when_it_answers(bench: Bench) -> None:
    controller = bench.controller(with_ping(task("t1", "actor/pinged"), interval=2))
    controller.prepare(lambda _: None)
    start = bench.ask(controller.start, 1.9)
    assert start.outcomes == []
    bench.run(0.2)
    assert isinstance(start.outcome, Done)


@pytest.mark.parametrize(("trouble", "after"), [(False, 2 + 2 * 2), (1, 2 + 2 * 3)])
def test_one_that_is_not_well_three_times_is_ended(bench: Bench, trouble: bool | int, after: float) -> None:
    """Refusals are counted as they come, silence after the time-out (1 s, after each of which 2 s pass)."""
    made = with_ping(task("t1", "actor/pinged"), interval=2, timeout=1)
    made.spec.container.healthcheck.retries = 3
    controller = bench.controller(made)
    controller.prepare(lambda _: None)
    Asked(controller.start)
    bench.run(2.1)
    waited = Asked(controller.wait)
    bench.tell(trouble, after - 0.5)
    assert waited.outcomes == []
    bench.run(1.5)
    assert failed(waited.outcome).text == "task: non-zero exit (137): dockerexec: unhealthy container"
    assert bench.actors == []


def test_one_that_recovers_in_time_goes_on(bench: Bench) -> None:
    controller = bench.controller(with_ping(task("t1", "actor/pinged"), interval=1))
    controller.prepare(lambda _: None)
    Asked(controller.start)
    bench.run(1.1)
    waited = Asked(controller.wait)
    for _ in range(3):
        bench.tell(False, 2)
        bench.tell(True, 1)
    assert waited.outcomes == []


def test_one_that_never_is_well_has_not_started(bench: Bench) -> None:
    made = with_ping(task("t1", "actor/pinged"), interval=1)
    made.spec.container.healthcheck.retries = 2
    controller = bench.controller(made)
    controller.prepare(lambda _: None)
    start = Asked(controller.start)
    bench.run()
    bench.tell(False, 3)
    assert failed(start.outcome).text == "task: non-zero exit (137): dockerexec: unhealthy container"


# Logs


def test_lines_are_read_in_order_with_their_streams(bench: Bench) -> None:
    controller, _ = bench.started(task("t1"))
    place: TaskPlace = bench.answer("place")
    place.log("two\nlines")
    place.log("an error", error=True)
    place.log("")
    lines = Lines(controller)
    assert lines.texts == ["started", "two", "lines", "an error", ""]
    assert lines.ends == [None]
    assert [line.stream for line in lines.lines].index(Stream.STDERR) == 3
    stamps = [line.timestamp_ns for line in lines.lines]
    assert stamps == sorted(set(stamps))


def test_a_follower_hears_more_until_the_task_ends(bench: Bench) -> None:
    controller, _ = bench.started(task("t1"))
    follower = Lines(controller, LogOptions(follow=True, tail=-1))
    assert follower.texts == []
    bench.answer("place").log("more")
    assert follower.texts == ["more"]
    assert follower.ends == []
    bench.tell("end")
    assert follower.texts == ["more", "stopped"]
    assert follower.ends == [None]


def test_the_traceback_of_a_failure_is_on_the_error_stream(bench: Bench) -> None:
    controller, _ = bench.started(task("t1"))
    bench.tell("fail badly")
    lines = Lines(controller, LogOptions(streams=(Stream.STDERR,)))
    assert lines.texts[0] == "Traceback (most recent call last):"
    assert lines.texts[-1] == "ValueError: badly"


def test_no_log_is_kept_where_none_is_asked_for(bench: Bench) -> None:
    made = task("t1")
    made.spec.log_driver.name = "none"
    controller, _ = bench.started(made)
    lines = Lines(controller)
    assert (lines.lines, lines.ends) == ([], [NO_READING])


def test_each_task_has_a_log_of_its_own(bench: Bench) -> None:
    first, _ = bench.started(task("t1"))
    bench.answer("place").log("mine")
    second, _ = bench.started(task("t2"))
    assert Lines(first).texts == ["started", "mine"]
    assert Lines(second).texts == ["started"]


# Lives


def test_a_task_of_an_earlier_life_is_neither_found_nor_started_again(bench: Bench) -> None:
    bench.started(task("t1"))
    bench.next_life()
    controller = bench.controller(task("t1"))
    assert failed(bench.ask(controller.start).outcome).text == LOST
    assert failed(bench.ask(controller.wait).outcome).text == LOST
    assert isinstance(bench.ask(controller.shutdown).outcome, Done)
    assert isinstance(bench.ask(controller.remove).outcome, Done)
    assert bench.actors == []
    assert Lines(controller).texts == []


def test_a_supervisor_that_fails_takes_its_tasks_along_and_says_so(bench: Bench) -> None:
    controller, _ = bench.started(task("t1"))
    waited = bench.ask(controller.wait)
    cell = bench.stage.cells["/tasks"]
    cell.control(lambda: cell.failed(RuntimeError("ours"), None))
    bench.run(1)
    assert failed(waited.outcome).text == "exit code unknown: their supervisor failed"
    assert bench.actors == []
    assert failed(bench.ask(bench.controller(task("t1")).start).outcome).text == LOST
    _, start = bench.started(task("t2"))
    assert isinstance(start.outcome, Done)


def test_a_stage_that_ends_leaves_nobody_waiting(bench: Bench) -> None:
    controller, _ = bench.started(task("t1"))
    waited = bench.ask(controller.wait)
    bench.stage.cells["/tasks"].request_stop()
    bench.run()
    assert failed(waited.outcome).text == "exit code unknown: their program ends"
    late = bench.ask(controller.wait)
    assert failed(late.outcome).temporary, "nobody is there who could know"


def test_what_is_cancelled_is_told_once_and_the_task_goes_on(bench: Bench) -> None:
    controller, _ = bench.started(task("t1"))
    waited = bench.ask(controller.wait)
    waited.operation.cancel()
    waited.operation.cancel()
    assert failed(waited.outcome).cancelled
    again = Asked(controller.wait)
    bench.tell("exit 2")
    assert failed(again.outcome).exit_code == 2
    assert len(waited.outcomes) == 1


def test_who_waits_no_more_is_forgotten(bench: Bench) -> None:
    """Each update of a task breaks its wait off and begins another."""
    controller, _ = bench.started(task("t1"))
    for _ in range(50):
        bench.ask(controller.wait).operation.cancel()
    supervisor = bench.stage.cells["/tasks"].instance
    assert len(supervisor._tasks["t1"].waiting) <= 1  # type: ignore[union-attr]


def test_a_closed_controller_answers_that_and_stops_nothing(bench: Bench) -> None:
    controller, _ = bench.started(task("t1"))
    waited, follower = Asked(controller.wait), Lines(controller, LogOptions(follow=True))
    closed = bench.ask(controller.close)
    assert isinstance(closed.outcome, Done)
    assert failed(waited.outcome).text == CONTROLLER_CLOSED
    assert follower.ends == [CONTROLLER_CLOSED]
    for begin in (controller.prepare, controller.start, controller.wait, controller.shutdown, controller.remove):
        assert failed(bench.ask(begin).outcome).text == CONTROLLER_CLOSED
    assert failed(bench.ask(lambda done: controller.update(task("t1"), done)).outcome).text == CONTROLLER_CLOSED
    assert Lines(controller).ends == [CONTROLLER_CLOSED]
    assert bench.actors == ["/tasks/svc.1.t1"]


def test_a_closed_executor_takes_nothing(bench: Bench) -> None:
    controller, _ = bench.started(task("t1"))
    done: list[bool] = []
    bench.executor.close(lambda: done.append(True))
    bench.executor.close(lambda: done.append(True))
    assert done == [True, True]
    assert failed(bench.ask(controller.wait).outcome).text == CONTROLLER_CLOSED
    with pytest.raises(Rejected, match="closed"):
        bench.controller(task("t2"))


def test_nothing_is_left_of_many_tasks(bench: Bench) -> None:
    for number in range(20):
        controller, _ = bench.started(task(f"t{number}"))
        bench.ask(controller.remove)
    assert bench.actors == []
    supervisor = bench.stage.cells["/tasks"].instance
    assert supervisor._tasks == {}  # type: ignore[union-attr]
    assert supervisor._by_path == {}  # type: ignore[union-attr]
    assert bench.stage._watchers == {}
    assert bench.executor._logs == {}


def test_the_supervisor_shows_its_tasks(bench: Bench) -> None:
    controller, _ = bench.started(task("t1", "actor/patient"))
    supervisor = bench.stage.cells["/tasks"].instance
    assert supervisor is not None
    assert supervisor.snapshot() == {"tasks": {"svc.1.t1": "running"}}
    stop = Asked(controller.shutdown)
    bench.run()
    assert supervisor.snapshot() == {"tasks": {"svc.1.t1": "stopping"}}
    bench.run(4)
    assert isinstance(stop.outcome, Done)
    assert supervisor.snapshot() == {"tasks": {"svc.1.t1": "ended (7)"}}


def test_a_node_says_which_actors_it_has(bench: Bench) -> None:
    labels = bench.executor.describe().engine.labels
    assert labels["swarmlet.executor"] == "actor"
    assert labels["swarmlet.actors"] == "more,patient,pinged,plain,plain:v2,tough"
    assert bench.executor.names == tuple(sorted(ACTORS))


@pytest.mark.parametrize("name", ["", "Upper", "a b", "x:latest", "a,b", "-x", "a/b"])
def test_a_name_that_no_image_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        Bench(actors={name: Plain})


def test_only_actors_can_be_registered() -> None:
    with pytest.raises(TypeError, match="class of actors"):
        Bench(actors={"x": dict})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="class of actors"):
        Bench(actors={"x": Actor.__new__})  # type: ignore[dict-item]
