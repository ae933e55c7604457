"""Tasks as real processes: how they start, end, are stopped and what they leave."""

from __future__ import annotations

import os
import pathlib
import pwd
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator

import pytest

from runtime.executor import procfs
from runtime.executor.port import CONTROLLER_CLOSED, Already, Done, Failed
from runtime.wire.pb import objects_pb2, types_pb2
from tests.integration.executor.conftest import Answer, Bench, own, processes_of, task
from tests.processes import alive
from tests.waiting import until


@pytest.mark.parametrize("code", [0, 3, 255])
def test_an_exit_code_is_told_as_often_as_it_is_asked_for(bench: Bench, code: int) -> None:
    controller = bench.started("t", "sh", "-c", f"exit {code}")
    for _ in range(2):
        outcome = bench.do(controller.wait)
        assert outcome.container_status.exit_code == code
        assert outcome.container_status.pid == 0
        if code:
            assert (outcome.text, outcome.exit_code) == (f"task: non-zero exit ({code})", code)
        else:
            assert isinstance(outcome, Done)


def test_a_signal_is_an_exit_code_above_128(bench: Bench) -> None:
    outcome = bench.do(bench.started("t", "sh", "-c", "kill -SEGV $$").wait)
    assert outcome.exit_code == 128 + signal.SIGSEGV


def test_preparing_and_starting_again_is_already(bench: Bench) -> None:
    controller = bench.controller("t", "sleep", "60")
    assert bench.do(controller.prepare) == Done()
    first = bench.do(controller.start)
    assert isinstance(first, Done)
    again = bench.do(controller.start)
    assert again == Already(first.container_status, first.port_status)
    assert isinstance(bench.do(controller.prepare), Already)
    assert len(processes_of("t")) == 1


def test_starts_at_the_same_time_are_one_process(bench: Bench) -> None:
    answers = [Answer() for _ in range(5)]
    for answer in answers:
        bench.controller("t", "sleep", "60").start(answer)
    pids = {answer.get().container_status.pid for answer in answers}  # type: ignore[union-attr]
    assert len(pids) == 1
    assert processes_of("t") == list(pids)


@pytest.mark.parametrize(
    ("command", "directory", "text", "code"),
    [
        ("no-such-command", "", 'exec: "no-such-command": executable file not found in $PATH', 127),
        ("/no/such", "", 'exec: "/no/such": no such file or directory', 127),
        ("/etc/passwd", "", 'exec: "/etc/passwd": permission denied', 126),
        ("true", "/no/dir", 'chdir to cwd ("/no/dir") set in config failed: no such file or directory', 127),
        ("true", "/etc/passwd", 'chdir to cwd ("/etc/passwd") set in config failed: not a directory', 126),
    ],
)
def test_what_cannot_be_started_says_why(bench: Bench, command: str, directory: str, text: str, code: int) -> None:
    made = task("t", command)
    made.spec.container.dir = directory
    controller = bench.controller(made)
    for operation in (controller.start, controller.start, controller.wait):
        outcome = bench.do(operation)
        assert isinstance(outcome, Failed)
        assert (outcome.text, outcome.exit_code) == (f"starting container failed: {text}", code)


def test_a_stop_sends_the_stop_signal_to_the_whole_group(bench: Bench) -> None:
    made = task(
        "t", "sh", "-c", "trap 'exit 7' USR1; (trap 'echo child' USR1; sleep 60) & echo up; while :; do wait; done"
    )
    made.spec.container.stop_signal = "SIGUSR1"
    controller = bench.started(made)
    until(lambda: bench.lines(controller), "the trap is set")
    outcome = bench.do(controller.shutdown)
    assert outcome.container_status.exit_code == 7
    until(lambda: not processes_of("t"), "nothing is left")
    assert bench.do(controller.shutdown) == outcome


def test_who_ignores_the_stop_is_killed_after_the_grace_period(bench: Bench) -> None:
    made = task("t", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 60; done")
    made.spec.container.stop_grace_period.FromMilliseconds(200)
    controller = bench.started(made)
    until(lambda: bench.lines(controller), "the trap is set")
    assert bench.do(controller.shutdown).container_status.exit_code == 137
    until(lambda: not processes_of("t"), "nothing is left")


def test_terminate_does_not_ask(bench: Bench) -> None:
    controller = bench.started("t", "sleep", "60")
    assert bench.do(controller.terminate).container_status.exit_code == 137


def test_what_escaped_the_group_ends_with_its_task(bench: Bench) -> None:
    controller = bench.started("t", "sh", "-c", "setsid sh -c 'setsid sleep 60 & sleep 60' & echo up; sleep 60")
    until(lambda: len(processes_of("t")) >= 4, "all have begun")
    bench.do(controller.shutdown)
    until(lambda: not processes_of("t"), "nothing is left")


def test_nothing_is_left_of_a_task_whose_first_process_ended(bench: Bench) -> None:
    controller = bench.started("t", "sh", "-c", "(setsid sleep 60 &) ; sleep 60 & exit 0")
    assert isinstance(bench.do(controller.wait), Done)
    until(lambda: not processes_of("t"), "nothing is left")


def test_a_keeper_has_no_zombie_and_no_descriptor_left_of_ended_tasks(bench: Bench) -> None:
    bench.do(bench.started("first", "true").wait)
    keeper = bench.keeper()
    descriptors = len(os.listdir(f"/proc/{keeper}/fd"))  # it may still have some of the first one's
    controllers = [bench.controller(f"t{number}", "sh", "-c", "echo x; exit 1") for number in range(30)]
    answers = [(Answer(), Answer()) for _ in controllers]
    for controller, (start, _) in zip(controllers, answers, strict=True):
        controller.start(start)
    for controller, (start, wait) in zip(controllers, answers, strict=True):
        assert isinstance(start.get(), Done)
        controller.wait(wait)
    assert {wait.get().exit_code for _, wait in answers} == {1}  # type: ignore[union-attr]
    until(lambda: procfs.children(keeper) == [], "all are reaped")
    until(lambda: len(os.listdir(f"/proc/{keeper}/fd")) <= descriptors, "all is closed")


def test_tasks_see_no_descriptor_of_the_keeper(bench: Bench) -> None:
    bench.started("other", "sleep", "60")
    controller = bench.started("t", "sh", "-c", "ls /proc/$$/fd; ulimit -n")
    bench.do(controller.wait)
    lines = [line.data.decode().strip() for line in bench.lines(controller)]
    assert lines[:3] == ["0", "1", "2"]
    assert int(lines[-1]) == resource_limit()


@pytest.fixture
def inherited() -> Iterator[None]:
    """What a shell without job control leaves to what it starts with ``&``."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("inherited")
def test_a_task_begins_with_no_signal_blocked_or_ignored(bench: Bench) -> None:
    controller = bench.started("t", "grep", "-E", "SigIgn|SigBlk", "/proc/self/status")
    bench.do(controller.wait)
    masks = dict(line.data.decode().split() for line in bench.lines(controller))
    assert sorted(masks) == ["SigBlk:", "SigIgn:"]
    ours = sum(1 << (number - 1) for number in signal.valid_signals())  # the C library keeps two for itself
    assert [int(mask, 16) & ours for mask in masks.values()] == [0, 0]


def resource_limit() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_a_cancelled_wait_says_so_and_the_task_goes_on(bench: Bench) -> None:
    controller = bench.started("t", "sleep", "60")
    answer = Answer()
    operation = controller.wait(answer)
    operation.cancel()
    operation.cancel()
    assert answer.get() == Failed("cancelled", cancelled=True)
    assert len(processes_of("t")) == 1


def test_a_closed_controller_says_so_and_stops_nothing(bench: Bench) -> None:
    controller = bench.started("t", "sleep", "60")
    answer = Answer()
    controller.wait(answer)
    assert bench.do(controller.close) == Done()
    assert answer.get() == Failed(CONTROLLER_CLOSED)
    assert bench.do(controller.start) == Failed(CONTROLLER_CLOSED)
    assert len(processes_of("t")) == 1


def test_removing_forgets_the_task_and_its_log(bench: Bench) -> None:
    controller = bench.started("t", "sh", "-c", "echo x; sleep 60")
    assert bench.do(controller.remove) == Done()
    assert os.listdir(os.path.join(bench.directory, "logs")) == []
    assert bench.do(controller.prepare) == Done()
    for operation in (controller.shutdown, controller.terminate, controller.remove):
        assert bench.do(operation) == Done()


def test_stopping_what_never_ran_starts_no_keeper(bench: Bench) -> None:
    controller = bench.controller("t", "true")
    for operation in (controller.shutdown, controller.terminate, controller.remove):
        assert bench.do(operation) == Done()
    bench.stop_all()
    assert bench.keeper() == 0


def test_all_tasks_are_stopped_each_with_its_own_grace(bench: Bench) -> None:
    stubborn = task("stubborn", "sh", "-c", "trap '' TERM; echo up; sleep 60")
    stubborn.spec.container.stop_grace_period.FromMilliseconds(100)
    controllers = [bench.started(stubborn), bench.started("polite", "sleep", "60")]
    until(lambda: bench.lines(controllers[0]), "the trap is set")
    bench.stop_all()
    assert [bench.do(each.wait).exit_code for each in controllers] == [137, 143]


def test_the_environment_and_directory_are_the_tasks(bench: Bench, tmp_path: pathlib.Path) -> None:
    made = task("t", "sh", "-c", "pwd; echo $A $B; echo ${HOME:+home} $SWARMLET_TASK_ID; id -u")
    made.spec.container.env.extend(["A=1", "B={{.Node.Hostname}}"])
    made.spec.container.dir = str(tmp_path)
    controller = bench.started(made)
    bench.do(controller.wait)
    output = [line.data.decode().strip() for line in bench.lines(controller)]
    assert output == [str(tmp_path), "1 box", f"home {own('t')}", str(os.geteuid())]


@pytest.mark.usefixtures("root_only")
def test_a_task_of_another_user_reads_its_secrets_until_it_ends(bench: Bench, tmp_path: pathlib.Path) -> None:
    go = pathlib.Path(tempfile.gettempdir(), f"swarmlet-go-{tmp_path.name}-{os.getpid()}")
    nobody = pwd.getpwnam("nobody")
    made = task(
        "t",
        "sh",
        "-c",
        "id -u; id -G; cat $SWARMLET_SECRETS/key; stat -c %a:%U $SWARMLET_SECRETS/key; cat $SWARMLET_CONFIGS/c; "
        "while [ ! -e $GO ]; do sleep 0.02; done",
    )
    made.spec.container.user = "nobody"
    made.spec.container.env.append(f"GO={go}")
    made.spec.container.secrets.add(secret_id="s").file.MergeFrom(_file("key", 0o400))
    config = made.spec.container.configs.add(config_id="c")
    config.file.MergeFrom(_file("c", 0o444))
    controller = bench.controller(made, payloads={"s": b"hidden\n", "c": b"plain\n"})
    assert isinstance(bench.do(controller.start), Done)
    secret = pathlib.Path(bench.executor._payloads, own("t"), "secrets", "key")
    assert secret.read_bytes() == b"hidden\n"
    go.touch()
    bench.do(controller.wait)
    go.unlink()
    output = [line.data.decode().strip() for line in bench.lines(controller)]
    assert output == [str(nobody.pw_uid), str(nobody.pw_gid), "hidden", "400:nobody", "plain"]
    assert not secret.parent.parent.exists()


@pytest.mark.parametrize("mode", [0, 0o400, 0o640, 0o100444])
def test_a_file_has_the_permissions_that_were_asked_for_none_too(bench: Bench, mode: int) -> None:
    made = task("t", "sleep", "60")
    made.spec.container.secrets.add(secret_id="s").file.MergeFrom(_file("key", mode))
    assert isinstance(bench.do(bench.controller(made, payloads={"s": b"hidden"}).start), Done)
    secret = pathlib.Path(bench.executor._payloads, own("t"), "secrets", "key")
    assert stat.S_IMODE(secret.stat().st_mode) == mode & 0o777


def with_secret(identity: str) -> objects_pb2.Task:
    made = task(identity, "sleep", "60")
    made.spec.container.secrets.add(secret_id="s").file.MergeFrom(_file("key", 0o400))
    return made


def secret_of(bench: Bench, identity: str) -> pathlib.Path:
    return pathlib.Path(bench.executor._payloads, own(identity), "secrets", "key")


def test_stopping_all_tasks_leaves_no_secret(bench: Bench) -> None:
    for name in ("a", "b"):
        assert isinstance(bench.do(bench.controller(with_secret(name), payloads={"s": b"hidden"}).start), Done)
    bench.stop_all()
    assert not os.path.exists(bench.executor._payloads)


def test_secrets_that_a_lost_daemon_left_are_removed_and_those_of_running_tasks_stay(bench: Bench) -> None:
    assert isinstance(bench.do(bench.controller(with_secret("a"), payloads={"s": b"hidden"}).start), Done)
    left = secret_of(bench, "left")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of a task that is not there any more")
    bench.close()
    bench.boot()
    assert isinstance(bench.do(bench.controller(with_secret("a"), payloads={}).start), Already)
    assert not left.parent.parent.exists()
    assert secret_of(bench, "a").read_bytes() == b"hidden"


def _file(name: str, mode: int) -> types_pb2.FileTarget:
    return types_pb2.FileTarget(name=name, uid="0", gid="0", mode=mode)


def test_a_secret_that_the_node_was_not_given_fails_the_start(bench: Bench) -> None:
    made = task("t", "true")
    made.spec.container.secrets.add(secret_id="gone").file.name = "key"
    outcome = bench.do(bench.controller(made).start)
    assert outcome == Failed("starting container failed: a secret or config is not on this node: gone")


def test_limits_hold_where_this_machine_enforces_them(bench: Bench) -> None:
    if bench.executor.limits_reason:
        pytest.skip(bench.executor.limits_reason)
    made = task("t", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done; echo all")
    made.spec.container.pidsLimit = 5
    controller = bench.started(made)
    outcome = bench.do(controller.wait)
    assert outcome.exit_code == 2
    assert "fork" in " ".join(line.data.decode() for line in bench.lines(controller)).lower()
    until(lambda: not processes_of("t"), "nothing is left")


def test_ulimits_are_set(bench: Bench) -> None:
    made = task("t", "sh", "-c", "ulimit -n; ulimit -c")
    made.spec.container.ulimits.add(name="nofile", soft=77, hard=88)
    made.spec.container.ulimits.add(name="core", soft=0, hard=0)
    controller = bench.started(made)
    bench.do(controller.wait)
    assert [line.data for line in bench.lines(controller)] == [b"77\n", b"0\n"]


# Health


def healthy_task(identity: str, command: str, test: str, retries: int = 2) -> objects_pb2.Task:
    made = task(identity, "sh", "-c", command)
    check = made.spec.container.healthcheck
    check.test.extend(["CMD-SHELL", test])
    check.interval.FromMilliseconds(50)
    check.retries = retries
    return made


def test_a_task_with_a_health_check_has_started_once_it_is_healthy(bench: Bench, tmp_path: pathlib.Path) -> None:
    flag = tmp_path / "flag"
    controller = bench.controller(healthy_task("t", "sleep 60", f"test -e {flag}", retries=1000))
    answer = Answer()
    controller.start(answer)
    until(lambda: processes_of("t"), "it runs")
    assert answer.outcomes == []
    flag.touch()
    assert isinstance(answer.get(), Done)


def test_a_start_that_was_broken_off_is_gone_on_with_until_the_task_is_healthy(
    bench: Bench, tmp_path: pathlib.Path
) -> None:
    flag = tmp_path / "well"
    made = healthy_task("t", "sleep 60", f"test -e {flag}", retries=1000)
    answer = Answer()
    operation = bench.controller(made).start(answer)
    until(lambda: processes_of("t"), "it runs")
    first = min(
        processes_of("t"), key=lambda pid: (procfs.start_time(pid) or sys.maxsize, pid)
    )  # beside it may be checks
    operation.cancel()
    assert answer.get() == Failed("cancelled", cancelled=True)
    again = Answer()
    bench.controller(made).start(again)
    assert again.outcomes == []
    flag.touch()
    outcome = again.get()
    assert isinstance(outcome, Done)
    assert outcome.container_status is not None
    assert outcome.container_status.pid == first


def test_an_unhealthy_task_is_stopped_and_says_so(bench: Bench, tmp_path: pathlib.Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    controller = bench.controller(healthy_task("t", "sleep 60", f"test -e {flag}"))
    assert isinstance(bench.do(controller.start), Done)
    answer = Answer()
    controller.wait(answer)
    flag.unlink()
    outcome = answer.get()
    assert isinstance(outcome, Failed)
    assert (outcome.text, outcome.exit_code) == ("task: non-zero exit (143): dockerexec: unhealthy container", 143)


def test_a_task_that_ends_before_it_is_healthy_has_failed(bench: Bench) -> None:
    outcome = bench.do(bench.controller(healthy_task("t", "exit 4", "false", retries=1000)).start)
    assert (outcome.text, outcome.exit_code) == ("task: non-zero exit (4)", 4)


def test_a_check_that_hangs_is_killed_and_counts_as_a_failure(bench: Bench) -> None:
    made = healthy_task("t", "sleep 60", "sleep 61", retries=1)
    made.spec.container.healthcheck.timeout.FromMilliseconds(50)
    outcome = bench.do(bench.controller(made).start)
    assert outcome.text.endswith("unhealthy container")
    until(lambda: not processes_of("t"), "nothing is left")


def test_outcomes_are_told_once_under_cancels_from_other_threads(bench: Bench) -> None:
    controller = bench.started("t", "sleep", "60")
    answers = [Answer() for _ in range(50)]
    operations = [controller.wait(answer) for answer in answers]
    threads = [threading.Thread(target=operation.cancel) for operation in operations for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answer.get() == Failed("cancelled", cancelled=True) for answer in answers)
    assert alive(processes_of("t")[0])
