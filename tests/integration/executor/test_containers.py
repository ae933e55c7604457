"""Tasks as containers of an engine: how they are made, started, end and are found again."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import Code
from runtime.executor import container
from runtime.executor.container import SYSTEMD, NoEngine
from runtime.executor.container_controller import ContainerController
from runtime.executor.inspection import Inspectable, Look, NotShown, Processes, SendSignal, Showing, TakeUsage, Top
from runtime.executor.mixed import MixedExecutor as Mixed
from runtime.executor.port import CONTROLLER_CLOSED, Already, Done, Failed
from runtime.wire.loop import IoLoop
from runtime.wire.pb import objects_pb2, types_pb2
from swarmlet import ActorExecutor, ContainerExecutor, Node, StartError
from swarmlet.executors import engine_socket
from tests.integration.executor.container_bench import ContainerBench, container_task
from tests.waiting import until


@pytest.fixture
def bench(loop: IoLoop, short_path: Path) -> Iterator[ContainerBench]:
    made = ContainerBench(loop, short_path)
    yield made
    made.end()


def checked(identity: str) -> objects_pb2.Task:
    made = container_task(identity, "sleep", "9")
    made.spec.container.healthcheck.test.extend(["CMD-SHELL", "true"])
    return made


@pytest.mark.parametrize("code", [0, 3, 137])
def test_an_exit_code_is_told_as_often_as_it_is_asked_for(bench: ContainerBench, code: int) -> None:
    controller = bench.started("t", "sleep")
    bench.engine.exit("t", code)
    for _ in range(2):
        outcome = bench.do(controller.wait)
        assert outcome.container_status.exit_code == code
        assert outcome.container_status.pid == 0
        if code:
            assert (outcome.text, outcome.exit_code) == (f"task: non-zero exit ({code})", code)
        else:
            assert isinstance(outcome, Done)


def test_a_wait_hears_of_the_end_by_an_event(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.followed()
    before = bench.engine.looks("t")
    answer, _ = bench.begin(controller.wait)
    until(lambda: bench.engine.looks("t") == before + 1, "it has looked and waits")
    bench.engine.exit("t", 7)
    assert answer.get().text == "task: non-zero exit (7)"  # type: ignore[union-attr]
    assert bench.engine.looks("t") == before + 2


def test_preparing_and_starting_again_is_already(bench: ContainerBench) -> None:
    controller = bench.controller("t", "sleep")
    assert bench.do(controller.prepare) == Done()
    assert isinstance(bench.do(controller.prepare), Already)
    first = bench.do(controller.start)
    assert isinstance(first, Done)
    assert bench.do(controller.start) == Already(first.container_status, first.port_status)
    assert bench.engine.of("t").starts == 1


def test_what_has_ended_is_not_started_again(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.engine.exit("t", 3)
    outcome = bench.do(controller.start)
    assert isinstance(outcome, Already)
    assert outcome.container_status is not None
    assert outcome.container_status.exit_code == 3
    assert bench.engine.of("t").starts == 1


def test_a_command_that_is_missing_is_a_failed_start_with_its_exit_code(bench: ContainerBench) -> None:
    controller = bench.controller("t", "missing")
    bench.do(controller.prepare)
    outcome = bench.do(controller.start)
    text = 'starting container failed: exec: "missing": executable file not found in $PATH'
    assert (outcome.text, outcome.exit_code, outcome.temporary) == (text, 127, False)


def test_an_image_that_is_nowhere_is_named(bench: ContainerBench) -> None:
    outcome = bench.do(bench.controller(container_task("t", "x", image="nosuch:1")).prepare)
    assert outcome == Failed("No such image: nosuch:1")


def test_a_bind_whose_source_is_missing_is_told_in_the_engines_words(bench: ContainerBench) -> None:
    made = container_task("t", "x")
    made.spec.container.mounts.add(type=types_pb2.Mount.BIND, source=str(bench.root / "nosuch"), target="/x")
    outcome = bench.do(bench.controller(made).prepare)
    assert outcome.text == f'invalid mount config for type "bind": bind source path does not exist: {bench.root}/nosuch'
    assert not outcome.temporary


def test_an_image_is_pulled_with_the_credentials_of_its_service(bench: ContainerBench) -> None:
    bench.engine.registry.add("private/app:2")
    made = container_task("t", "x", image="private/app:2")
    made.spec.container.pull_options.registry_auth = "dG9rZW4="
    assert bench.do(bench.controller(made).prepare) == Done()
    assert bench.engine.auth == ["dG9rZW4="]


def test_what_is_here_under_its_digest_is_not_pulled(bench: ContainerBench) -> None:
    image = f"busybox@sha256:{'a' * 64}"
    bench.engine.images.add(image)
    assert bench.do(bench.controller(container_task("t", "x", image=image)).prepare) == Done()
    assert bench.engine.auth == []


def test_a_pull_goes_on_while_nobody_waits_and_is_joined_again(bench: ContainerBench) -> None:
    bench.engine.registry.add("app:1")
    pull = bench.engine.hold("/images/create")
    controller = bench.controller(container_task("t", "x", image="app:1"))
    answer, operation = bench.begin(controller.prepare)
    assert pull.met.wait(60)
    operation.cancel()
    assert answer.get() == Failed("cancelled", cancelled=True)
    again, _ = bench.begin(controller.prepare)
    until(lambda: bench.executor._containers._shared._waiting, "the second one waits too")
    assert pull.hold is not None
    pull.hold.set()
    assert again.get() == Done()
    assert len(bench.engine.auth) == 1


def test_a_shutdown_breaks_off_a_pull_that_nobody_else_waits_for(bench: ContainerBench) -> None:
    pull = bench.engine.hold("/images/create")
    controller = bench.controller(container_task("t", "x", image="app:1"))
    answer, operation = bench.begin(controller.prepare)
    assert pull.met.wait(60)
    operation.cancel()
    answer.get()
    assert bench.do(controller.shutdown) == Done()
    assert pull.hold is not None
    pull.hold.set()
    bench.engine.images.add("app:1")
    assert bench.do(controller.prepare) == Done()
    assert bench.engine.count("/images/create") == 2


def test_a_task_with_a_health_check_has_started_once_it_is_healthy(bench: ContainerBench) -> None:
    controller = bench.controller(checked("t"))
    bench.do(controller.prepare)
    bench.followed()
    answer, _ = bench.begin(controller.start)
    until(lambda: bench.engine.count("/start") and bench.engine.of("t").health == "starting", "it runs")
    assert not answer.outcomes
    bench.engine.health("t", "healthy")
    assert isinstance(answer.get(), Done)


@pytest.mark.parametrize("while_starting", [True, False])
def test_an_unhealthy_task_is_stopped_and_says_why(bench: ContainerBench, while_starting: bool) -> None:
    controller = bench.controller(checked("t"))
    bench.do(controller.prepare)
    bench.followed()
    answer, _ = bench.begin(controller.start)
    until(lambda: bench.engine.count("/start") and bench.engine.of("t").health == "starting", "it runs")
    if not while_starting:
        bench.engine.health("t", "healthy")
        assert isinstance(answer.get(), Done)
        answer, _ = bench.begin(controller.wait)
    bench.engine.health("t", "unhealthy")
    outcome = answer.get()
    assert isinstance(outcome, Failed)
    assert outcome.text == "task: non-zero exit (143): dockerexec: unhealthy container"
    assert outcome.exit_code == 143


def test_a_container_that_somebody_removes_is_a_failed_task(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.followed()
    answer, _ = bench.begin(controller.wait)

    async def remove() -> None:
        container = bench.engine.of("t")
        del bench.engine.containers[container.id]
        bench.engine._say(container, "destroy")

    bench.engine.run(remove())
    assert answer.get() == Failed("dockerexec: container destroyed")
    assert bench.do(controller.shutdown) == Done()
    assert bench.do(controller.remove) == Done()


def test_shutdown_stops_it_with_its_own_grace_period(bench: ContainerBench) -> None:
    made = container_task("t", "sleep")
    made.spec.container.stop_grace_period.FromSeconds(3)
    controller = bench.started(made)
    outcome = bench.do(controller.shutdown)
    assert outcome.container_status.exit_code == 143
    assert bench.engine.of("t").body["StopTimeout"] == 3
    assert bench.do(controller.shutdown) == outcome


def test_terminate_kills_it_and_again_is_nothing(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    for _ in range(2):
        assert bench.do(controller.terminate).container_status.exit_code == 137


def test_remove_leaves_nothing_and_again_is_nothing(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    for _ in range(2):
        assert bench.do(controller.remove) == Done()
    assert bench.engine.containers == {}


def test_a_closed_controller_answers_so_and_stops_nothing(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    answer, _ = bench.begin(controller.wait)
    assert bench.do(controller.close) == Done()
    assert answer.get() == Failed(CONTROLLER_CLOSED)
    assert bench.do(controller.wait) == Failed(CONTROLLER_CLOSED)
    assert bench.engine.of("t").status == "running"


def test_a_name_that_somebody_else_has_is_a_conflict(bench: ContainerBench) -> None:
    bench.started("t", "sleep")
    bench.engine.of("t").body["Labels"]["swarmlet.owner"] = "another"
    outcome = bench.do(bench.controller("t", "sleep").prepare)
    assert outcome.text.startswith('Conflict. The container name "/web.1.t" is already in use')
    assert not outcome.temporary


def test_the_next_daemon_finds_what_runs(bench: ContainerBench) -> None:
    bench.started("t", "sleep")
    bench.close()
    bench.boot()
    controller = bench.controller("t", "sleep")
    assert isinstance(bench.do(controller.prepare), Already)
    assert isinstance(bench.do(controller.start), Already)
    bench.engine.exit("t", 4)
    assert bench.do(controller.wait).text == "task: non-zero exit (4)"
    assert bench.engine.of("t").starts == 1


def test_stopping_all_stops_ones_own_alone(bench: ContainerBench) -> None:
    bench.started("mine", "sleep")
    first = bench.executor
    bench.boot(directory=str(bench.root / "other"))
    bench.started("theirs", "sleep")
    bench.executor = first
    bench.stop_all()
    assert (bench.engine.of("mine").status, bench.engine.of("theirs").status) == ("exited", "running")


# What nobody knows any more


def test_what_a_node_let_go_of_is_removed_once_its_tasks_are_known(bench: ContainerBench) -> None:
    for identity in ("kept", "open", "gone"):
        bench.started(identity, "sleep")
    bench.close()
    bench.boot()
    bench.controller("open", "sleep")
    bench.followed()
    assert len(bench.engine.containers) == 3, "nothing goes before the node has said what it has"
    bench.executor.known(frozenset({"kept"}))
    until(lambda: len(bench.engine.containers) == 2, "one is removed")
    assert {bench.engine.of(identity).status for identity in ("kept", "open")} == {"running"}


def test_what_a_swarm_that_was_left_has_is_removed_when_the_engine_is_back(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.engine.down()
    assert bench.do(controller.remove).temporary
    bench.do(controller.close)
    bench.executor.known(frozenset())
    assert len(bench.engine.containers) == 1
    bench.engine.up()
    until(lambda: not bench.engine.containers, "it is removed")


def test_what_belongs_to_another_node_is_left_alone(bench: ContainerBench) -> None:
    bench.started("theirs", "sleep")
    bench.boot(directory=str(bench.root / "other"))
    bench.followed()
    bench.started("mine", "sleep")
    bench.do(bench.executor._controllers[0].close)
    bench.executor.known(frozenset())
    until(lambda: len(bench.engine.containers) == 1, "one is removed")
    assert bench.engine.of("theirs").status == "running"


def test_stopping_all_ends_also_while_the_engine_is_away(bench: ContainerBench, caplog: Any) -> None:
    bench.started("t", "sleep")
    bench.engine.down()
    bench.stop_all()
    assert "the tasks cannot be stopped: Cannot connect to the Docker daemon" in caplog.text


# Looking at it


def look(bench: ContainerBench, controller: ContainerController, question: Look) -> Any:
    return bench.do(lambda done: controller.look(question, done))


def test_questions_are_answered_by_the_engine(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    assert isinstance(controller, Inspectable)
    assert look(bench, controller, Top("-eo pid")) == Processes(("PID", "CMD"), (("1", "-eo pid"),))
    assert look(bench, controller, TakeUsage()) == {"read": "now", "cpu_stats": {"x": 1}}
    assert look(bench, controller, SendSignal(10)) is None
    assert bench.engine.of("t").signals == ["10"]


def test_a_question_that_the_engine_cannot_answer_is_refused_in_its_words(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    refused = look(bench, controller, Top("bad"))
    assert (refused.code, refused.text) == (Code.UNKNOWN, "ps: exit status 1")
    bench.engine.down()
    assert look(bench, controller, Top()).code is Code.UNAVAILABLE
    bench.do(controller.close)
    assert look(bench, controller, Top()).text == CONTROLLER_CLOSED


def test_what_else_the_engine_has_is_shown_as_it_shows_it(bench: ContainerBench) -> None:
    assert isinstance(bench.executor, Showing)

    def shown(path: str, **query: str) -> Any:
        return bench.do(lambda done: bench.executor.show(path, query, done))

    assert shown("/images/busybox%3Alatest/json", size="1") == {"Id": "busybox:latest"}
    assert shown("/images/nosuch/json") == NotShown(404, "No such image")
    bench.engine.down()
    assert shown("/images/json").code is Code.UNAVAILABLE


def test_an_executor_of_actors_and_containers_shows_what_the_engine_has(bench: ContainerBench) -> None:
    actors = ActorExecutor({}).executor()
    assert isinstance(Mixed(actors, bench.executor), Showing)
    assert not isinstance(Mixed(actors, actors), Showing)


@pytest.mark.parametrize("question", [Top(), TakeUsage(), SendSignal(9)])
def test_what_does_not_run_is_said_to(bench: ContainerBench, question: Look) -> None:
    controller = bench.controller("t", "sleep")
    unmade = look(bench, controller, question)
    bench.do(controller.prepare)
    unstarted = look(bench, controller, question)
    bench.do(controller.start)
    bench.engine.exit("t", 0)
    for refused in (unmade, unstarted, look(bench, controller, question)):
        assert refused.code is Code.FAILED_PRECONDITION


# Secrets and configs


def with_payloads(identity: str) -> objects_pb2.Task:
    made = container_task(identity, "sleep")
    secret, config = made.spec.container.secrets.add(), made.spec.container.configs.add()
    secret.secret_id, secret.file.name, secret.file.mode = "s", "token", 0o400
    config.config_id, config.file.name, config.file.mode = "c", "/etc/app.conf", 0o444
    return made


def mounts(bench: ContainerBench) -> dict[str, Path]:
    return {each["Target"]: Path(each["Source"]) for each in bench.engine.of("t").body["HostConfig"]["Mounts"]}


def test_a_secret_is_in_its_file_from_the_start_to_the_end_alone(bench: ContainerBench) -> None:
    controller = bench.controller(with_payloads("t"), payloads={"s": b"secret", "c": b"config"})
    bench.do(controller.prepare)
    files = mounts(bench)
    assert set(files) == {"/run/secrets/token", "/etc/app.conf"}
    assert [file.read_bytes() for file in files.values()] == [b"", b""]
    bench.do(controller.start)
    assert files["/run/secrets/token"].read_bytes() == b"secret"
    assert files["/etc/app.conf"].read_bytes() == b"config"
    assert stat.S_IMODE(files["/run/secrets/token"].stat().st_mode) == 0o400
    assert stat.S_IMODE(files["/etc/app.conf"].stat().st_mode) == 0o444
    assert stat.S_IMODE(files["/etc/app.conf"].parent.stat().st_mode) == 0o700
    bench.engine.exit("t", 0)
    bench.do(controller.wait)
    assert not any(file.exists() for file in files.values())


def test_a_secret_that_is_not_on_the_node_fails_the_start_and_leaves_no_file(bench: ContainerBench) -> None:
    controller = bench.controller(with_payloads("t"), payloads={"s": b"secret"})
    bench.do(controller.prepare)
    outcome = bench.do(controller.start)
    assert outcome == Failed("starting container failed: a secret or config is not on this node: c")
    assert not any(file.exists() for file in mounts(bench).values())
    assert bench.engine.of("t").starts == 0


def test_the_files_of_a_start_under_way_are_not_touched_by_another(bench: ContainerBench) -> None:
    controller = bench.controller(with_payloads("t"), payloads={"s": b"secret", "c": b"config"})
    bench.do(controller.prepare)
    slow = bench.engine.hold("/start")
    answer, operation = bench.begin(controller.start)
    assert slow.met.wait(60)
    file = mounts(bench)["/run/secrets/token"]
    before = file.stat().st_ino
    operation.cancel()
    answer.get()
    again, _ = bench.begin(controller.start)
    until(lambda: bench.executor._containers._shared._waiting, "the second one waits too")
    assert file.stat().st_ino == before
    assert slow.hold is not None
    slow.hold.set()
    assert isinstance(again.get(), Done | Already)
    assert file.read_bytes() == b"secret"


def test_files_that_a_reboot_took_away_are_written_again(bench: ContainerBench) -> None:
    bench.do(bench.controller(with_payloads("t"), payloads={"s": b"secret", "c": b"config"}).prepare)
    file = mounts(bench)["/run/secrets/token"]
    bench.close()
    os.unlink(file)
    bench.boot()
    controller = bench.controller(with_payloads("t"), payloads={"s": b"secret", "c": b"config"})
    assert isinstance(bench.do(controller.start), Done)
    assert file.read_bytes() == b"secret"


def test_files_of_what_is_gone_are_removed_by_the_next_daemon(bench: ContainerBench) -> None:
    for identity in ("t", "u"):
        made = with_payloads(identity)
        bench.do(bench.controller(made, payloads={"s": b"secret", "c": b"config"}).prepare)
    gone = bench.engine.of("u")
    bench.close()
    del bench.engine.containers[gone.id]
    bench.boot()
    directory = mounts(bench)["/etc/app.conf"].parent
    until(lambda: not directory.with_name("u").exists(), "the files are gone")
    assert directory.exists()


# Ports


def test_ports_are_told_where_they_are_on_the_machine(bench: ContainerBench) -> None:
    made = container_task("t", "sleep")
    made.endpoint.ports.add(target_port=80, published_port=8080)
    made.endpoint.ports.add(target_port=81, published_port=8081, publish_mode=types_pb2.PortConfig.HOST)
    controller = bench.controller(made)
    bench.do(controller.prepare)
    outcome = bench.do(controller.start)
    found = {port.target_port: port.published_port for port in outcome.port_status.ports}
    assert found == {80: 49153, 81: 8081}
    assert all(port.publish_mode == types_pb2.PortConfig.HOST for port in outcome.port_status.ports)


# Networks


def on_networks(identity: str, *names: str) -> objects_pb2.Task:
    made = container_task(identity, "sleep")
    for name in names:
        attachment = made.networks.add(aliases=[f"alias-{name}"])
        attachment.network.id = f"id-{name}"
        attachment.network.spec.annotations.name = name
        attachment.network.spec.internal = name == "inner"
    return made


def test_networks_of_the_swarm_are_the_engines_own_where_that_was_chosen(bench: ContainerBench) -> None:
    bench.close()
    bench.boot(local_networks=True)
    controllers = [bench.started(on_networks(identity, "front", "inner")) for identity in ("t", "u")]
    front, inner = (f"swarmlet-{bench.executor.owner[:12]}-id-{name}" for name in ("front", "inner"))
    assert {name: body["Internal"] for name, body in bench.engine.networks.items()} == {front: False, inner: True}
    container = bench.engine.of("t")
    assert container.body["HostConfig"]["NetworkMode"] == front
    aliases = ["web", "tasks.web", "alias-front"]
    assert container.body["NetworkingConfig"] == {"EndpointsConfig": {front: {"Aliases": aliases}}}
    assert container.joined == {inner: {"Aliases": ["web", "tasks.web", "alias-inner"]}}
    bench.do(controllers[0].remove)
    assert set(bench.engine.networks) == {front, inner}, "somebody is on them"
    bench.do(controllers[1].remove)
    assert bench.engine.networks == {}


def test_a_container_that_was_half_connected_is_on_all_its_networks_when_it_starts(bench: ContainerBench) -> None:
    bench.close()
    bench.boot(local_networks=True)
    controller = bench.controller(on_networks("t", "front", "back", "inner"))
    bench.do(controller.prepare)
    bench.engine.cut("/connect", after=True)
    assert bench.do(controller.start).temporary
    bench.engine.networks.clear()
    assert isinstance(bench.do(controller.start), Done)
    assert len(bench.engine.of("t").joined) == 2
    assert len(bench.engine.networks) == 3


def test_a_network_that_cannot_be_joined_fails_the_start(bench: ContainerBench) -> None:
    bench.close()
    bench.boot(local_networks=True)
    controller = bench.controller(on_networks("t", "front", "back"))
    bench.do(controller.prepare)
    bench.engine.fail("/connect", 404, "no available IPv4 addresses")
    assert bench.do(controller.start).text == "starting container failed: no available IPv4 addresses"
    assert bench.engine.of("t").starts == 0


# The engine as a node


def test_an_engine_that_never_was_there_is_an_error_that_names_its_socket(loop: IoLoop, short_path: Path) -> None:
    bench = ContainerBench(loop, short_path)
    bench.end()
    with pytest.raises(NoEngine, match=rf"Cannot connect to the Docker daemon at unix://{bench.engine.path}"):
        bench.boot(directory=str(short_path / "new"))


def test_a_node_starts_without_its_engine_as_it_knew_it(bench: ContainerBench) -> None:
    known = bench.executor.describe()
    bench.close()
    bench.engine.down()
    bench.boot()
    assert bench.executor.describe() == known
    assert bench.do(bench.controller("t", "sleep").prepare).temporary
    bench.engine.info["NCPU"] = 16
    bench.engine.up()
    until(lambda: bench.executor.describe().resources.nano_cpus == 16_000_000_000, "the engine is met again")
    assert isinstance(bench.do(bench.controller("t", "sleep").prepare), Done)


@pytest.mark.skipif(os.path.isdir(SYSTEMD), reason="Podman has systemd check the health of containers here")
def test_podman_is_told_to_look_after_the_health(bench: ContainerBench) -> None:
    bench.close()
    bench.engine.version["Components"] = [{"Name": "Podman Engine"}]
    bench.boot()
    made = checked("t")
    made.spec.container.healthcheck.interval.FromMilliseconds(1)
    controller = bench.controller(made)
    bench.do(controller.prepare)
    assert isinstance(bench.do(controller.start), Done)
    answer, _ = bench.begin(controller.wait)
    bench.engine.podman_finds = "unhealthy"
    assert answer.get().text.endswith("dockerexec: unhealthy container")  # type: ignore[union-attr]


def test_podman_is_not_let_to_make_the_sources_of_binds(bench: ContainerBench) -> None:
    bench.close()
    bench.engine.version["Components"] = [{"Name": "Podman Engine"}]
    bench.boot()
    made = container_task("t", "x")
    made.spec.container.mounts.add(type=types_pb2.Mount.BIND, source=str(bench.root / "nosuch"), target="/x")
    outcome = bench.do(bench.controller(made).prepare)
    assert outcome.text == f'invalid mount config for type "bind": bind source path does not exist: {bench.root}/nosuch'
    assert bench.engine.count("/containers/create") == 0


def test_a_disk_that_takes_nothing_does_not_keep_the_engine_from_being_followed(
    bench: ContainerBench, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def full(path: str, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    bench.followed()
    bench.engine.down()
    monkeypatch.setattr(container, "write_whole", full)
    bench.engine.info["NCPU"] = 9
    bench.engine.up()
    until(lambda: bench.executor.describe().resources.nano_cpus == 9_000_000_000, "the engine is met again")
    assert "cannot be kept for the next start" in caplog.text


def test_a_node_whose_engine_is_not_there_does_not_start_and_says_why(short_path: Path) -> None:
    node = Node(
        short_path / "state", executor=ContainerExecutor(str(short_path / "none.sock")), run_dir=short_path / "r"
    )
    with pytest.raises(StartError, match=r"Cannot connect to the Docker daemon at unix://.*none\.sock"):
        node.start()


@pytest.mark.parametrize(
    ("engine", "environ", "uid", "expected"),
    [
        ("docker", {}, 0, "/var/run/docker.sock"),
        ("docker", {"XDG_RUNTIME_DIR": "/nosuch"}, 1000, "/var/run/docker.sock"),
        ("podman", {"XDG_RUNTIME_DIR": "/run/user/0"}, 0, "/run/podman/podman.sock"),
        ("podman", {"XDG_RUNTIME_DIR": "/run/user/1"}, 1, "/run/user/1/podman/podman.sock"),
    ],
)
def test_engines_are_looked_for_where_they_usually_listen(
    engine: str, environ: dict[str, str], uid: int, expected: str
) -> None:
    assert engine_socket(engine, environ, uid) == expected


@pytest.mark.parametrize("api", ["", "1.24", "nonsense"])
def test_what_is_no_engine_or_too_old_is_refused(bench: ContainerBench, api: str) -> None:
    bench.close()
    bench.engine.api = api
    with pytest.raises(NoEngine, match="container engine"):
        bench.boot()
