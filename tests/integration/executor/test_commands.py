"""Commands beside real process tasks: what they have of the task, what goes in and out, how they end."""

from __future__ import annotations

import os
import pathlib
import socket
import threading
from typing import Any

import pytest

from runtime.errors import Code, Refused
from runtime.executor import frames, procfs
from runtime.executor.inspection import NotBegun, RunCommand, Session, Top
from runtime.executor.keeper import SOCKET
from runtime.executor.port import Done
from tests.integration.executor.conftest import Bench, own, task
from tests.processes import alive
from tests.waiting import until


class Ran:
    """A command and what is heard of it."""

    def __init__(self, bench: Bench, controller: Any, *argv: str, **how: Any) -> None:
        self.said: dict[int, bytes] = {1: b"", 2: b""}
        self.codes: list[int | None] = []
        self.over = threading.Event()
        question = RunCommand(argv, on_output=self._output, on_exit=self._exit, **how)
        self.begun: Any = bench.do(lambda done: controller.look(question, done))

    def _output(self, stream: int, data: bytes) -> None:
        assert not self.codes, "nothing comes after the end"
        self.said[stream] += data

    def _exit(self, code: int | None) -> None:
        self.codes.append(code)
        self.over.set()

    @property
    def session(self) -> Session:
        assert not isinstance(self.begun, (NotBegun, Refused)), self.begun
        session: Session = self.begun
        return session

    def end(self) -> int | None:
        assert self.over.wait(60), "it does not end"
        (code,) = self.codes
        return code

    def write(self, data: bytes) -> None:
        taken = threading.Event()
        self.session.write(data, taken.set)
        assert taken.wait(60), "it is not taken"


@pytest.fixture
def controller(bench: Bench) -> Any:
    made = task("t", "sleep", "600")
    made.spec.container.env.extend(["A=task", "B=task"])
    made.spec.container.dir = "/usr"
    return bench.started(made)


def test_output_comes_by_its_streams_and_then_the_exit_code(bench: Bench, controller: Any) -> None:
    ran = Ran(bench, controller, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert ran.session.pid > 0
    assert ran.end() == 3
    assert ran.said == {1: b"out\n", 2: b"err\n"}


def test_it_has_what_the_task_has_but_for_what_it_is_given(bench: Bench, controller: Any) -> None:
    ran = Ran(bench, controller, "sh", "-c", "pwd; echo $A $B $C $SWARMLET_TASK_ID", env=("B=own", "C=own"))
    assert ran.end() == 0
    assert ran.said[1] == f"/usr\ntask own own {own('t')}\n".encode()
    elsewhere = Ran(bench, controller, "pwd", directory="/tmp")
    assert elsewhere.end() == 0
    assert elsewhere.said[1] == b"/tmp\n"


def test_it_counts_as_a_process_of_the_task(bench: Bench, controller: Any) -> None:
    ran = Ran(bench, controller, "sleep", "61")
    found = bench.do(lambda done: controller.look(Top("-eo pid,args"), done))
    assert str(ran.session.pid) in {row[0] for row in found.rows}
    ran.session.close()
    assert ran.end() is None
    until(lambda: not alive(ran.session.pid), "it is killed")


def test_what_is_written_reaches_it_and_then_the_end(bench: Bench, controller: Any) -> None:
    ran = Ran(bench, controller, "cat", stdin=True)
    data = os.urandom(1 << 20)
    ran.write(data)
    ran.session.end_input()
    assert ran.end() == 0
    assert ran.said[1] == data
    ran.write(b"late")  # to one that is gone: nothing
    ran.session.resize(1, 1)


def test_without_input_there_is_none_to_read(bench: Bench, controller: Any) -> None:
    ran = Ran(bench, controller, "cat")
    assert ran.end() == 0


def test_input_that_nobody_reads_any_more_is_no_error(bench: Bench, controller: Any) -> None:
    ran = Ran(bench, controller, "sh", "-c", "exec 0<&-; sleep 0.3; exit 2", stdin=True)
    ran.write(b"x" * (1 << 20))
    assert ran.end() == 2


def test_a_reader_that_does_not_take_holds_the_command_and_nothing_is_lost(bench: Bench, controller: Any) -> None:
    ran = Ran(bench, controller, "sh", "-c", "head -c 3000000 /dev/zero; echo done >&2")
    ran.session.hold(True)
    ran.session.hold(False)
    assert ran.end() == 0
    assert len(ran.said[1]) == 3_000_000
    assert ran.said[2] == b"done\n"


def test_a_terminal_is_one(bench: Bench, controller: Any) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && stty size; read line; stty size; echo got $line $TERM"
    ran = Ran(bench, controller, "sh", "-c", script, tty=True, stdin=True, size=(11, 22))
    until(lambda: b"11 22\r\n" in ran.said[1], "it begins")
    ran.session.resize(33, 44)
    ran.session.end_input()  # a terminal has no end
    ran.write(b"word\n")
    assert ran.end() == 0
    assert ran.said[1].replace(b"word\r\n", b"", 1) == b"11 22\r\n33 44\r\ngot word xterm\r\n"


def test_an_interrupt_from_a_terminal_is_a_signal(bench: Bench, controller: Any) -> None:
    ran = Ran(bench, controller, "sh", "-c", "echo up; exec sleep 600", tty=True, stdin=True)
    until(lambda: b"up" in ran.said[1], "it begins")
    ran.write(b"\x03")
    assert ran.end() == 130


@pytest.mark.parametrize(
    ("argv", "how", "text", "code"),
    [
        (("no-such-program",), {}, 'exec: "no-such-program": executable file not found in $PATH', 127),
        (("/etc/passwd",), {}, 'exec: "/etc/passwd": permission denied', 126),
        (("true",), {"directory": "/nowhere"}, 'chdir to cwd ("/nowhere") set in config failed', 127),
        (("true",), {"user": "nosuchuser"}, "unable to find user nosuchuser: no matching entries", 126),
        (("true", "a\0b"), {}, "a zero byte", 126),
        (("true",), {"env": ("=x",)}, "a variable without a name", 126),
    ],
)
def test_what_cannot_begin_says_why(
    bench: Bench, controller: Any, argv: tuple[str, ...], how: dict[str, Any], text: str, code: int
) -> None:
    ran = Ran(bench, controller, *argv, **how)
    assert isinstance(ran.begun, NotBegun)
    assert text in ran.begun.text
    assert ran.begun.code == code
    assert ran.codes == []


@pytest.mark.usefixtures("root_only")
def test_another_user_has_a_terminal_of_its_own(bench: Bench, controller: Any) -> None:
    ran = Ran(bench, controller, "sh", "-c", "id -un; echo x > $(tty)", user="nobody", tty=True)
    assert ran.end() == 0
    assert ran.said[1] == b"nobody\r\nx\r\n"


def test_the_end_of_the_task_ends_it(bench: Bench, controller: Any) -> None:
    ran = Ran(bench, controller, "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    assert isinstance(bench.do(controller.shutdown), Done)
    assert ran.end() == 137
    late = Ran(bench, controller, "true")
    assert isinstance(late.begun, Refused)
    assert late.begun.code is Code.FAILED_PRECONDITION


def test_its_own_end_is_not_the_tasks(bench: Bench, controller: Any) -> None:
    for _ in range(3):
        assert Ran(bench, controller, "true").end() == 0
    assert bench.do(lambda done: controller.look(Top(), done)).rows


def test_what_it_leaves_behind_is_the_tasks_and_holds_its_end_up_for_a_moment_only(
    bench: Bench, controller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.executor.process_session.DRAIN_S", 0.2)
    ran = Ran(bench, controller, "sh", "-c", "sleep 62 & exit 0")
    assert ran.end() == 0
    found = bench.do(lambda done: controller.look(Top("-eo pid,args"), done))
    assert "sleep 62" in {row[1] for row in found.rows}
    bench.do(controller.shutdown)
    until(lambda: not [pid for pid, _ in procfs.marked(frozenset([own("t")])) if alive(pid)], "all of it ends")


def test_a_connection_that_ends_ends_what_it_ran(bench: Bench, controller: Any) -> None:
    ran = Ran(bench, controller, "sleep", "600")
    bench.close()
    ran.session.close()
    until(lambda: not alive(ran.session.pid), "it is killed")
    assert bench.keeper(), "and the task goes on"


def test_many_at_once_are_told_apart(bench: Bench, controller: Any) -> None:
    every = [Ran(bench, controller, "sh", "-c", f"echo {number}; exit {number}") for number in range(12)]
    assert [(ran.end(), ran.said[1]) for ran in every] == [(n, f"{n}\n".encode()) for n in range(12)]


def hello(bench: Bench) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(str(pathlib.Path(bench.run_dir, SOCKET)))
    arguments = {"version": frames.VERSION, "directory": os.path.realpath(bench.directory), "linger": None}
    peer.sendall(frames.encode([1, "hello", arguments]))
    assert peer.recv(1 << 20)
    return peer


@pytest.mark.parametrize("indices", [[0, 0, 0], [5, 6, 7], ["x"], [-1, -1, -1]])
def test_descriptors_that_did_not_come_close_the_connection_and_the_keeper_goes_on(
    bench: Bench, controller: Any, indices: list[Any]
) -> None:
    keeper = bench.keeper()
    with hello(bench) as peer:
        spec = {"argv": ["true"], "env": {}, "cwd": "/"}
        peer.sendall(frames.encode([2, "run", {"id": own("t"), "spec": spec, "fds": indices}]))
        assert peer.recv(1 << 16) == b""
    pathlib.Path(bench.directory, "keeper.log").write_text("")  # it complains of that, as it should
    assert bench.keeper() == keeper
    assert Ran(bench, controller, "true").end() == 0


def test_descriptors_that_nobody_takes_are_closed(bench: Bench, controller: Any) -> None:
    keeper = bench.keeper()

    def opened() -> int:
        return len(os.listdir(f"/proc/{keeper}/fd"))

    before = opened()
    for _ in range(5):
        with hello(bench) as peer:
            socket.send_fds(peer, [frames.encode([2, "record", {"id": own("t")}])], [0, 1, 2])
            assert peer.recv(1 << 16)
    assert Ran(bench, controller, "true").end() == 0
    until(lambda: opened() <= before, "nothing stays open")
