"""What an actor can be given, and what is refused by its name; the log in memory; several executors as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.executor.actor import ActorExecutor
from runtime.executor.actor_log import LOG_BYTES, OVERHEAD, ActorLog
from runtime.executor.actor_plan import ActorPlan, make_plan, registry_of
from runtime.executor.logfile import PIECE_MAX
from runtime.executor.memory import MemoryExecutor
from runtime.executor.mixed import MixedExecutor
from runtime.executor.port import LogLine, LogOptions, Rejected, Stream
from runtime.stage.simulator import Simulator
from runtime.wire.pb import objects_pb2, specs_pb2, types_pb2
from tests.messages.actor_bench import ACTORS, task, with_ping
from tests.unit.executor.builders import context
from tests.unit.executor.builders import task as process_task

Change = Callable[[objects_pb2.Task], object]


def plan(made: objects_pb2.Task, limits: list[int] | None = None) -> ActorPlan:
    def log_of(limit: int) -> ActorLog:
        if limits is not None:
            limits.append(limit)
        return ActorLog(limit, lambda: 0.0)

    return make_plan(made, context(), registry_of(ACTORS), log_of)


def container(change: Callable[[specs_pb2.ContainerSpec], object]) -> Change:
    return lambda made: change(made.spec.container)


REFUSED: dict[str, Change] = {
    "command": container(lambda spec: spec.command.append("sh")),
    "user": container(lambda spec: setattr(spec, "user", "nobody")),
    "groups": container(lambda spec: spec.groups.append("adm")),
    "dir": container(lambda spec: setattr(spec, "dir", "/tmp")),
    "stop_signal": container(lambda spec: setattr(spec, "stop_signal", "SIGINT")),
    "init": container(lambda spec: setattr(spec.init, "value", True)),
    "ulimits": container(lambda spec: spec.ulimits.add(name="nofile")),
    "pidsLimit": container(lambda spec: setattr(spec, "pidsLimit", 5)),
    "oom_score_adj": container(lambda spec: setattr(spec, "oom_score_adj", 5)),
    "privileges.no_new_privileges": container(lambda spec: setattr(spec.privileges, "no_new_privileges", True)),
    "resources.limits.nano_cpus": lambda made: setattr(made.spec.resources.limits, "nano_cpus", 1),
    "resources.limits.memory_bytes": lambda made: setattr(made.spec.resources.limits, "memory_bytes", 1),
    "swap_bytes": lambda made: setattr(made.spec.resources.swap_bytes, "value", 1),
    "memory_swappiness": lambda made: setattr(made.spec.resources.memory_swappiness, "value", 1),
    "healthcheck": container(lambda spec: spec.healthcheck.test.extend(["CMD", "curl", "localhost"])),
    "mounts": container(lambda spec: spec.mounts.add(target="/data")),
    "tty": container(lambda spec: setattr(spec, "tty", True)),
    "hostname": container(lambda spec: setattr(spec, "hostname", "x")),
}


@pytest.mark.parametrize("field", REFUSED)
def test_a_field_that_an_actor_cannot_honour_is_refused_by_its_name(field: str) -> None:
    made = task("t")
    REFUSED[field](made)
    with pytest.raises(Rejected) as refused:
        plan(made)
    assert refused.value.text == f"the actor executor cannot honour {field}"


def port(made: objects_pb2.Task) -> None:
    made.endpoint.ports.add(target_port=80, published_port=8080)


def internal(made: objects_pb2.Task) -> None:
    network = made.networks.add().network
    network.spec.annotations.name, network.spec.internal = "back", True


OTHERS: list[tuple[Change, str]] = [
    (port, "the actor executor cannot publish ports: 80"),
    (internal, "the actor executor cannot keep an actor inside the internal network back"),
    (lambda made: setattr(made.spec.log_driver, "name", "syslog"), "cannot honour the log driver syslog"),
    (lambda made: made.spec.log_driver.options.update({"tag": "x"}), "cannot honour the log option tag"),
    (lambda made: made.spec.container.env.append("A={{bad"), "expanding env failed: template: bad"),
    (lambda made: setattr(made.spec.container, "image", "nginx"), 'images like "actor/NAME" only, not "nginx"'),
    (lambda made: setattr(made.spec.container, "image", "actor/"), 'images like "actor/NAME" only, not "actor/"'),
    (
        lambda made: setattr(made.spec.container, "image", "actor/os.system"),
        'no actor "os.system" is registered at this node; there are: more, patient, pinged, plain, plain:v2, tough',
    ),
    (with_ping, "the actor executor cannot honour healthcheck: Plain has no handler of Ping"),
]


@pytest.mark.parametrize(("change", "text"), OTHERS)
def test_what_else_is_refused_says_why(change: Change, text: str) -> None:
    made = task("t")
    change(made)
    with pytest.raises(Rejected) as refused:
        plan(made)
    assert text in refused.value.text


def test_what_is_no_container_is_refused() -> None:
    made = objects_pb2.Task(id="t")
    made.spec.attachment.container_id = "c"
    with pytest.raises(Rejected, match="images like"):
        plan(made)


@pytest.mark.parametrize("test", [["CMD", "ping"], ["CMD-SHELL", "ping"]])
def test_health_is_asked_for_by_ping(test: Sequence[str]) -> None:
    made = task("t", "actor/pinged")
    made.spec.container.healthcheck.test.extend(test)
    assert plan(made).health is not None


@pytest.mark.parametrize("test", [[], ["NONE"]])
def test_no_health_check_is_none(test: Sequence[str]) -> None:
    made = task("t")
    made.spec.container.healthcheck.test.extend(test)
    assert plan(made).health is None


@pytest.mark.parametrize(
    ("options", "limit"),
    [({}, LOG_BYTES), ({"max-size": "2k"}, 2048), ({"max-size": "2k", "max-file": "3"}, 6144)],
)
def test_a_service_says_how_much_of_its_log_is_kept(options: dict[str, str], limit: int) -> None:
    made, limits = task("t"), list[int]()
    made.spec.log_driver.options.update(options)
    plan(made, limits)
    assert limits == [limit]


def test_reservations_are_the_schedulers_and_no_matter_here() -> None:
    made = task("t")
    made.spec.resources.reservations.nano_cpus = 5
    assert plan(made).task_id == "t"


# The log


class Reader:
    def __init__(self, log: ActorLog, **options: Any) -> None:
        self.lines: list[LogLine] = []
        self.ends: list[str | None] = []
        self.operation = log.read(LogOptions(**options), self.lines.append, self.ends.append)

    @property
    def data(self) -> list[bytes]:
        return [line.data for line in self.lines]


def log_of(*lines: str, limit: int = LOG_BYTES) -> ActorLog:
    made = ActorLog(limit, lambda: 1.0)
    for line in lines:
        made.write(line)
    return made


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=30), max_size=40), st.data())
def test_the_last_lines_are_those_that_were_asked_for(lines: list[str], data: st.DataObject) -> None:
    log = log_of(*lines)
    count = data.draw(st.integers(0, 45))
    said = [f"{line}\n".encode() for line in lines]
    assert Reader(log, tail=-count - 1).data == said[max(0, len(said) - count) :]
    assert Reader(log, tail=count).data == said[count:]


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60), st.integers(1, 2000))
def test_the_oldest_lines_go_first_and_never_more_is_kept_than_allowed(sizes: list[int], limit: int) -> None:
    lines = [f"{number}".ljust(size, "x") for number, size in enumerate(sizes)]
    kept = Reader(log_of(*lines, limit=limit)).data
    assert kept == [f"{line}\n".encode() for line in lines[len(lines) - len(kept) :]]
    assert kept, "the newest line is always there"
    assert len(kept) == 1 or sum(len(line) + OVERHEAD for line in kept) <= limit


def test_a_long_line_comes_in_pieces() -> None:
    lines = Reader(log_of("x" * (2 * PIECE_MAX + 5))).lines
    assert [(len(line.data), line.partial) for line in lines] == [(PIECE_MAX, True), (PIECE_MAX, True), (6, False)]


def test_what_is_older_than_asked_for_is_left_out() -> None:
    now = [1.0]
    log = ActorLog(LOG_BYTES, lambda: now[0])
    log.write("old")
    now[0] = 5.0
    log.write("new")
    assert Reader(log, since_ns=2_000_000_000).data == [b"new\n"]


def test_time_stamps_grow_also_when_the_clock_goes_back() -> None:
    now = [5.0]
    log = ActorLog(LOG_BYTES, lambda: now[0])
    log.write("one")
    now[0] = 1.0
    log.write("two")
    first, second = (line.timestamp_ns for line in Reader(log).lines)
    assert first < second


def test_no_line_comes_after_the_end_of_a_reading() -> None:
    log = log_of("one")
    reader, other = Reader(log, follow=True), Reader(log, follow=True)
    reader.operation.cancel()
    reader.operation.cancel()
    log.write("two")
    assert reader.data == [b"one\n"]
    assert reader.ends == [None]
    assert other.data == [b"one\n", b"two\n"]


def test_a_reader_may_end_itself_over_a_line() -> None:
    log = log_of()
    reader = Reader(log, follow=True)
    ended = log.read(LogOptions(follow=True), lambda _: ended.cancel(), lambda _: None)
    log.write("one")
    log.write("two")
    assert reader.data == [b"one\n", b"two\n"]
    assert ended.over


def test_nothing_is_written_after_the_tasks_end() -> None:
    log = log_of("one")
    reader = Reader(log, follow=True)
    log.end()
    log.write("two")
    assert Reader(log, follow=True).data == reader.data == [b"one\n"]
    assert reader.ends == [None]


def test_only_the_chosen_stream_is_read() -> None:
    log = log_of("out")
    log.write("err", Stream.STDERR)
    assert Reader(log, streams=(Stream.STDERR,)).data == [b"err\n"]


# Several as one


def mixed() -> tuple[MixedExecutor, MemoryExecutor, Simulator]:
    from actors.task_supervisor_actor import TaskSupervisorActor

    simulator = Simulator(0)
    others = MemoryExecutor(lambda delay, call: simulator.set(delay, call))
    made = MixedExecutor(ActorExecutor(ACTORS, TaskSupervisorActor, types_pb2.NodeDescription()), others)
    made.enter(simulator.node("n"))
    simulator.run_for(0.1)
    return made, others, simulator


def test_the_image_says_who_runs_a_task() -> None:
    made, others, simulator = mixed()
    for each in (task("a"), process_task("p", "sleep")):
        controller = made.controller(each, context())
        controller.prepare(lambda _: None)
        controller.start(lambda _: None)
    simulator.run_for(1)
    assert others.running == ["p"]
    assert "/tasks/svc.1.a" in simulator.stages[0].cells


def test_a_mixed_node_is_a_node_of_processes_that_has_actors() -> None:
    made, others, _ = mixed()
    labels = made.describe().engine.labels
    assert labels["swarmlet.executor"] == "process"
    assert labels["swarmlet.actors"] == "more,patient,pinged,plain,plain:v2,tough"
    assert "swarmlet.actors" not in others.describe().engine.labels
    assert made.describe().resources == others.describe().resources
    assert made.orphans() == []


def test_all_are_stopped_before_it_is_said_and_it_is_said_once() -> None:
    made, others, simulator = mixed()
    for each in (task("a", "actor/patient"), process_task("p", "sleep")):
        controller = made.controller(each, context())
        controller.prepare(lambda _: None)
        controller.start(lambda _: None)
    simulator.run_for(1)
    done: list[str] = []
    made.stop_all(lambda: done.append("stopped"))
    simulator.run_for(1)
    assert others.running == []
    assert done == []
    simulator.run_for(3)
    assert done == ["stopped"]
    made.close(lambda: done.append("closed"))
    assert done == ["stopped", "closed"]
