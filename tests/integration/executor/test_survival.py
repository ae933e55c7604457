"""Who dies first: the daemon, the keeper or the machine. No task twice, none forgotten, no exit code invented."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from runtime.executor import procfs
from runtime.executor.frames import VERSION, Decoder, encode
from runtime.executor.journal import Journal
from runtime.executor.keeper import LOST_WITH_BOOT, LOST_WITH_KEEPER, Keeper, read_place
from runtime.executor.port import Already, Done, Failed, LogOptions, Stream
from tests.integration.executor.conftest import Answer, Bench, own, processes_of
from tests.processes import alive
from tests.waiting import until

DAEMON = """
import sys, threading
from runtime.executor.process import ProcessExecutor
from runtime.wire.loop import IoLoop
from tests.unit.executor.builders import context, task
directory, run_dir, linger = sys.argv[1:4]
loop = IoLoop().start()
seconds = None if linger == "None" else float(linger)
executor = ProcessExecutor(loop, directory=directory, run_dir=run_dir, linger=seconds)
for name, command in zip(*[iter(sys.argv[4:])] * 2):
    started = threading.Event()
    executor.controller(task(name, "sh", "-c", command), context()).start(lambda _: started.set())
    started.wait()
print("up", flush=True)
threading.Event().wait()
"""


def killed_daemon(bench: Bench, linger: float | None, *commands: str) -> None:
    """A daemon in a process of its own that started these tasks and was killed with SIGKILL."""
    program = [sys.executable, "-c", DAEMON, bench.directory, bench.run_dir, str(linger)]
    for number, command in enumerate(commands):
        program += [own(f"t{number}"), command]
    daemon = subprocess.Popen(program, stdout=subprocess.PIPE, cwd=pathlib.Path(__file__).parents[3])
    assert daemon.stdout is not None
    assert daemon.stdout.readline() == b"up\n"
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()


def test_a_daemon_with_another_run_directory_finds_its_tasks_keeper(bench: Bench) -> None:
    killed_daemon(bench, None, "sleep 60")
    keeper, (task, *_) = bench.keeper(), processes_of("t0")
    bench.run_dir = str(bench.root / "elsewhere")
    bench.boot()
    outcome = bench.do(bench.controller("t0", "ignored").start)
    assert isinstance(outcome, Already)
    assert (bench.keeper(), alive(task)) == (keeper, True)
    assert read_place(bench.directory) == (keeper, str(bench.root / "run" / "keeper.sock"))


def test_a_keeper_whose_run_directory_is_gone_is_named_with_its_process(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    killed_daemon(bench, None, "sleep 60")
    keeper = bench.keeper()
    os.unlink(bench.root / "run" / "keeper.sock")
    monkeypatch.setattr("runtime.executor.keeper.LOCK_WAIT", 0.1)
    with pytest.raises(BlockingIOError, match=rf"cannot be reached \(process {keeper} at .*/run/keeper.sock\)"):
        Keeper(bench.directory, str(tmp_path))
    os.kill(keeper, signal.SIGTERM)
    until(lambda: not alive(keeper), "its end, although its socket is gone")


def test_what_a_lock_does_not_say_is_nothing(tmp_path: pathlib.Path) -> None:
    assert read_place(str(tmp_path)) == (0, "")
    for content in (b"", b"12", b"x /y", b"12 "):
        (tmp_path / "keeper.lock").write_bytes(content)
        assert read_place(str(tmp_path)) == (0, "")


def test_a_killed_daemons_task_is_found_again_and_is_the_same(bench: Bench) -> None:
    killed_daemon(bench, None, "echo before; while :; do sleep 0.02; echo tick; done")
    (first,) = [pid for pid in processes_of("t0") if procfs.session(pid) == pid]
    bench.boot()
    controller = bench.controller("t0", "ignored")
    outcome = bench.do(controller.start)
    assert isinstance(outcome, Already)
    assert outcome.container_status is not None
    assert outcome.container_status.pid == first
    assert until(lambda: bench.lines(controller), "its first line")[0].data == b"before\n"
    assert bench.do(controller.shutdown).container_status.exit_code == 143


def test_an_exit_while_there_was_no_daemon_is_told_to_the_next(bench: Bench, tmp_path: pathlib.Path) -> None:
    flag = tmp_path / "flag"
    killed_daemon(bench, None, f"while ! test -e {flag}; do sleep 0.01; done; echo last; exit 9")
    flag.touch()
    until(lambda: not processes_of("t0"), "it ends")
    until(lambda: not bench.keeper(), "the keeper ends, for there is nothing to keep")
    bench.boot()
    controller = bench.controller("t0", "ignored")
    assert isinstance(bench.do(controller.start), Already)
    assert bench.do(controller.wait).exit_code == 9
    assert [line.data for line in bench.lines(controller)] == [b"last\n"]


def test_tasks_end_when_the_host_said_so_and_died(bench: Bench) -> None:
    killed_daemon(bench, 0.0, "sleep 60", "sleep 60")
    until(lambda: not processes_of("t0") and not processes_of("t1"), "both end")
    until(lambda: not bench.keeper(), "the keeper ends")


def test_a_daemon_that_comes_back_in_time_keeps_lingering_tasks(bench: Bench) -> None:
    killed_daemon(bench, 300.0, "sleep 60")
    assert isinstance(bench.do(bench.controller("t0", "ignored").start), Already)


def test_a_killed_keepers_tasks_are_killed_and_their_exit_codes_unknown(bench: Bench) -> None:
    controller = bench.started("t", "sh", "-c", "setsid sleep 60 & sleep 60")
    until(lambda: len(processes_of("t")) == 3, "all have begun")
    answer = Answer()
    controller.wait(answer)
    os.kill(bench.keeper(), signal.SIGKILL)
    outcome = answer.get()
    assert isinstance(outcome, Failed)
    assert (outcome.text, outcome.exit_code, outcome.temporary) == (LOST_WITH_KEEPER, None, False)
    assert processes_of("t") == []
    (orphan,) = bench.executor.orphans()
    assert (orphan.task_id, orphan.text) == (own("t"), LOST_WITH_KEEPER)
    assert bench.executor.orphans() == []
    assert isinstance(bench.do(controller.start), Already)


def test_a_stop_under_way_survives_its_keeper(bench: Bench) -> None:
    controller = bench.started("t", "sh", "-c", "trap '' TERM; echo up; sleep 60")
    until(lambda: bench.lines(controller), "the trap is set")
    answer = Answer()
    controller.shutdown(answer)
    os.kill(bench.keeper(), signal.SIGKILL)
    outcome = answer.get()
    assert isinstance(outcome, Done)
    assert outcome.container_status is not None
    assert outcome.container_status.exit_code == -1
    assert processes_of("t") == []


def test_a_followed_log_ends_when_the_keeper_is_lost(bench: Bench) -> None:
    import threading

    controller = bench.started("t", "sh", "-c", "echo up; sleep 60")
    lines: list[bytes] = []
    over = threading.Event()
    controller.logs(LogOptions(follow=True), lambda line: lines.append(line.data), lambda _: over.set())
    until(lambda: lines, "the first line")
    os.kill(bench.keeper(), signal.SIGKILL)
    assert over.wait(60)
    assert lines == [b"up\n"]


def test_a_keeper_that_is_told_to_end_stops_its_tasks_first(bench: Bench) -> None:
    controller = bench.started("t", "sh", "-c", "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done")
    until(lambda: bench.lines(controller), "the trap is set")
    answer = Answer()
    controller.wait(answer)
    os.kill(bench.keeper(), signal.SIGTERM)
    assert answer.get().exit_code == 5  # type: ignore[union-attr]
    said = bench.lines(controller, LogOptions(streams=[Stream.STDOUT]))
    assert [line.data for line in said] == [b"up\n", b"bye\n"]


def test_the_keeper_is_in_a_session_of_its_own_and_ignores_an_interrupt(bench: Bench) -> None:
    bench.started("t", "sleep", "60")
    keeper = bench.keeper()
    assert procfs.session(keeper) != os.getsid(0)
    os.kill(keeper, signal.SIGINT)
    os.kill(keeper, signal.SIGHUP)
    assert isinstance(bench.do(bench.controller("t", "ignored").start), Already)
    assert bench.keeper() == keeper


def journal_with(bench: Bench, **changes: object) -> None:
    os.makedirs(bench.directory, exist_ok=True)
    journal = Journal(os.path.join(bench.directory, "journal"))
    record = {
        "id": own("t"), "state": "running", "pid": os.getpid(), "start": procfs.start_time(os.getpid()),
        "boot": procfs.boot_id(), "cgroups": [], "started_ns": 1, "code": None, "error": "", "lost": "",
    }  # fmt: skip
    journal.put({**record, **changes})
    journal.sync()
    journal.close()


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"boot": "another"}, LOST_WITH_BOOT), ({"start": 1}, LOST_WITH_KEEPER)],
)
def test_a_number_that_is_another_process_by_now_is_left_alone(
    bench: Bench, changes: dict[str, object], text: str
) -> None:
    """The record names this very process: if that were killed, nobody would be left to say so."""
    journal_with(bench, **changes)
    bench.boot()
    controller = bench.controller("t", "ignored")
    assert isinstance(bench.do(controller.start), Already)
    assert bench.do(controller.wait).text == text


def test_orphans_are_told_without_anybody_asking_for_their_task(bench: Bench) -> None:
    journal_with(bench, boot="another")
    executor = bench.boot()
    assert [orphan.task_id for orphan in until(executor.orphans, "the keeper was asked")] == [own("t")]


def test_a_keeper_killed_between_fork_and_record_leaves_no_process(bench: Bench) -> None:
    """What waits for the keeper's word ends when the keeper does: the pipe's last writer is gone."""
    from runtime.executor import spawn

    held = spawn.spawn({"argv": ["sleep", "60"], "env": {}, "cwd": "/"}, (256, 256))
    other = spawn.spawn({"argv": ["sleep", "60"], "env": {}, "cwd": "/"}, (256, 256))
    for child in (held, other):
        child.abandon()
        for fd in (child.error_fd, child.stdout_fd, child.stderr_fd):
            os.close(fd)
    assert [os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) for child in (other, held)] == [125, 125]


def exchange(bench: Bench, *frames: bytes) -> list[object]:
    """What the keeper answers to these frames, until it closes or has answered each."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(60)
        peer.connect(os.path.join(bench.run_dir, "keeper.sock"))
        peer.sendall(b"".join(frames))
        decoder = Decoder()
        answers: list[object] = []
        while len(answers) < len(frames) and (data := peer.recv(65536)):
            answers += decoder.feed(data)
        return answers


def test_the_keeper_answers_only_who_greets_it_right(bench: Bench) -> None:
    bench.started("t", "sleep", "60")
    hello = {"version": VERSION, "directory": os.path.realpath(bench.directory), "linger": None}
    (answer,) = exchange(bench, encode([1, "record", {"id": own("t")}]))
    assert answer == [1, False, {"code": "invalid", "text": "the first call has to be hello"}]
    (answer,) = exchange(bench, encode([1, "hello", {**hello, "version": 99}]))
    assert answer == [1, False, {"code": "version", "text": f"this keeper speaks version {VERSION}, not 99"}]
    (answer,) = exchange(bench, encode([1, "hello", {**hello, "directory": "/else"}]))
    assert answer[1] is False  # type: ignore[index]
    answers = exchange(
        bench, encode([1, "hello", hello]), encode([2, "nothing", {}]), encode([3, "record", {"id": own("t")}])
    )
    assert [each[1] for each in answers] == [True, False, True]  # type: ignore[index]
    bad = exchange(bench, encode([1, "hello", hello]), encode([2, "start", {"spec": {"id": "../x"}}]))
    assert bad[1][1] is False  # type: ignore[index]
    assert os.stat(os.path.join(bench.run_dir, "keeper.sock")).st_mode & 0o777 == 0o600


def test_a_client_that_talks_nonsense_is_closed_and_nobody_else(bench: Bench) -> None:
    bench.started("t", "sleep", "60")
    assert exchange(bench, b"GET / HTTP/1.1\r\n\r\n") == []
    assert exchange(bench, encode("hello")) == []
    assert isinstance(bench.do(bench.controller("t", "ignored").start), Already)
    log = pathlib.Path(bench.directory, "keeper.log")
    assert log.read_text(encoding="utf-8").count("a client that sent nonsense is closed") == 2
    log.write_text("")


def test_a_keeper_imports_nothing_big(bench: Bench) -> None:
    program = "import sys; import runtime.executor.keeper; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {
        "google.protobuf",
        "grpc",
        "pykka",
        "asyncio",
        "aiohttp",
        "logging",
        "subprocess",
        "threading",
        "dataclasses",
    }
    assert not heavy & set(loaded.stdout.split())


def test_a_directory_whose_run_directory_is_too_long_says_so(bench: Bench) -> None:
    bench.run_dir = os.path.join(bench.run_dir, "x" * 120)
    bench.boot()
    outcome = bench.do(bench.controller("t", "true").start)
    assert isinstance(outcome, Failed)
    assert outcome.temporary
    assert "choose a shorter run directory" in outcome.text


def test_two_executors_share_one_keeper(bench: Bench) -> None:
    first = bench.executor
    bench.started("a", "sleep", "60")
    bench.boot()
    bench.started("b", "sleep", "60")
    bench.close(first)
    assert alive(bench.keeper())
    assert len(processes_of("a") + processes_of("b")) == 2
