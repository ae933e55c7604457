"""The console over a real node: its answers, its streams, what it says when the daemon is gone, and a real terminal."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("textual")

from swarmlet import Node
from swarmlet.console.engine import Engine, EngineError
from swarmlet.console.pages import PAGES, EventsPage, LogsPage, Page, TracePage
from swarmlet.console.source import Forwarded, Lost, Source
from swarmlet.console.views import Table
from swarmlet.errors import StartError
from tests.integration.daemon.program import Daemon, service
from tests.integration.face.worlds import node
from tests.waiting import until


@pytest.fixture
def running(short_path: Path) -> Iterator[Node]:
    with node(short_path) as made:
        made.init()
        yield made


@pytest.fixture
def source(running: Node) -> Iterator[Source]:
    source = Source(running.introspection_socket)
    yield source
    source.drop()


def api(made: Node, root: Path) -> Daemon:
    found = Daemon(root)
    found.socket = made.api_socket
    (root / "log").touch()
    return found


@pytest.mark.parametrize("name", list(PAGES))
def test_every_page_has_something_to_show_of_a_running_node(source: Source, name: str) -> None:
    page: Page = PAGES[name]()
    shown = page.show(page.fetch(source))
    page.close()
    assert isinstance(shown, str) == page.is_text or name == "trace"
    if isinstance(shown, Table) and name in ("tree", "messages", "nodes"):
        assert shown.rows
        assert all(len(row.cells) == len(shown.columns) for row in shown.rows)


def test_a_service_its_tasks_its_events_and_a_trace_of_what_happens(
    running: Node, source: Source, short_path: Path
) -> None:
    events, trace = EventsPage(), TracePage("/cluster/node/manager/store")
    for page in (events, trace):
        page.fetch(source)
    assert running.stage is not None
    stage = running.stage
    until(lambda: stage.tracer is not None, "the trace has begun")
    until(lambda: (heard := stage.cells["/cluster/events"].instance) and heard.snapshot()["subscribers"] == 1)
    made = api(running, short_path)
    assert made.call("POST", "/services/create", service("web", 2, "run"))[0] == 201
    made.wait_running("web", 2)
    until(lambda: "service  create   web" in events.show(events.fetch(source)))
    records, _ = until(lambda: (found := trace.fetch(source)) and found[0] and found)
    assert {record["receiver"] for record in records} >= {"/cluster/node/manager/store"}
    trace.diagram = True
    assert "▶" in str(trace.show(trace.fetch(source)))
    tasks = PAGES["tasks"]()
    shown = tasks.show(tasks.fetch(source))
    assert isinstance(shown, Table)
    assert [row.cells[:3] for row in shown.rows] == [("web.1", "running", "running"), ("web.2", "running", "running")]
    for page in (events, trace):
        page.close()
    until(lambda: stage.tracer is None)


def test_a_refusal_is_in_the_daemons_own_words(running: Node) -> None:
    with pytest.raises(EngineError, match="service nope not found"):
        Engine(running.api_socket).get("/services/nope")


def test_the_logs_page_follows_a_service_and_ends_when_it_is_left(
    source: Source, running: Node, short_path: Path
) -> None:
    made = api(running, short_path)
    assert made.call("POST", "/services/create", service("web", 1, "run"))[0] == 201
    made.wait_running("web", 1)
    page = LogsPage("web")
    page.fetch(source)
    assert page.follower is not None
    page.close()
    thread = page.follower._thread
    assert thread is not None
    thread.join(60)
    assert not thread.is_alive()


def test_a_node_that_is_gone_is_lost_and_one_that_is_back_is_found(short_path: Path) -> None:
    made = node(short_path)
    source = Source(made.introspection_socket)
    with pytest.raises(Lost, match="no node answers"):
        source.ask("tree")
    with made:
        assert source.ask("tree")["actors"]
    with pytest.raises(Lost):
        source.ask("tree")
    with node(short_path):
        assert source.ask("tree")["actors"]
    source.drop()


@pytest.mark.parametrize("host", ["", "-oProxyCommand=x"])
def test_what_is_no_host_is_not_handed_to_ssh(host: str) -> None:
    with pytest.raises(StartError, match="no host for ssh"):
        Forwarded(host, "/a", "/b")


SSH = """#!/bin/sh
echo "$@" >> {log}
[ -e {down} ] && exit 255
for each in "$@"; do case "$each" in *.sock:*) touch "${{each%%:*}}";; esac; done
exec sleep 60
"""


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for ssh: notes its arguments, makes the sockets' files, and fails while ``down`` is there."""
    script = tmp_path / "ssh"
    script.write_text(SSH.format(log=tmp_path / "log", down=tmp_path / "down"))
    script.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_an_ssh_that_ended_is_begun_again_without_asking_for_a_password(fake_ssh: Path) -> None:
    forwarded = Forwarded("there", "/a", "/b")
    try:
        forwarded.renew()
        assert len((fake_ssh / "log").read_text(encoding="utf-8").splitlines()) == 1, "one that lives is left alone"
        forwarded._ssh.kill()
        forwarded._ssh.wait()
        source = Source(forwarded.introspection, forwarded.api, forwarded.renew)
        with pytest.raises(Lost, match="no node answers"):  # a file is no socket, but ssh is there again
            source.ask("tree")
        first, second = (fake_ssh / "log").read_text(encoding="utf-8").splitlines()
        assert "BatchMode=yes" not in first
        assert "BatchMode=yes" in second
        assert forwarded._ssh.poll() is None
    finally:
        forwarded.close()
    assert not forwarded.directory.exists()


def test_while_ssh_cannot_be_begun_the_node_is_lost(fake_ssh: Path) -> None:
    forwarded = Forwarded("there", "/a", "/b")
    try:
        (fake_ssh / "down").touch()
        forwarded._ssh.kill()
        forwarded._ssh.wait()
        source = Source(forwarded.introspection, forwarded.api, forwarded.renew)
        for ask in (lambda: source.ask("tree"), source.link, lambda: source.get("/nodes")):
            with pytest.raises(Lost, match="ssh to there ended with 255"):
                ask()
        (fake_ssh / "down").unlink()
        forwarded.renew()
        assert forwarded._ssh.poll() is None
    finally:
        forwarded.close()


def test_an_idle_connection_that_the_node_hung_up_on_is_no_loss(running: Node) -> None:
    source = Source(running.introspection_socket)
    assert source.ask("tree")["actors"]
    assert source._link is not None
    source._link._socket.shutdown(2)
    assert source.ask("tree")["actors"]
    source._link._socket.shutdown(2)
    with pytest.raises(Lost, match="hung up"):  # whether an act was done is not known: it is not asked for twice
        source.ask("act", act="restart", path="/cluster/events", write=True)
    source.drop()


# A real terminal


class Terminal:
    """tmux of a size, with the console in it."""

    def __init__(self, command: str, width: int, height: int) -> None:
        self.name = f"swarmlet-{uuid.uuid4().hex[:8]}"
        self._run("new-session", "-d", "-x", str(width), "-y", str(height), "-s", "c", command)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self.name, "-f", "/dev/null", *arguments], capture_output=True, encoding="utf-8", check=True,
            env={"TERM": "xterm-256color", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "SHELL": "/bin/sh"},
        )  # fmt: skip
        return done.stdout

    def press(self, *keys: str) -> None:
        """Keys by tmux's names."""
        self._run("send-keys", "-t", "c", *keys)

    def screen(self) -> str:
        """What is on it."""
        return self._run("capture-pane", "-p", "-t", "c")

    def shows(self, *texts: str) -> str:
        """Waits until all of it is on the screen."""

        def all_there() -> str:
            screen = self.screen()
            return screen if all(text in screen for text in texts) else ""

        return until(all_there, f"{texts} are shown", tell=self.screen)

    def pid(self) -> int:
        """The process in it."""
        return int(self._run("display-message", "-p", "-t", "c", "#{pane_pid}"))

    def close(self) -> None:
        """Ends it, if it has not ended with the console."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run("kill-server")


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_the_console_ends_with_its_terminal(running: Node) -> None:
    program = Path(sys.executable).with_name("swarmlet")
    terminal = Terminal(f"exec {program} console --socket {running.introspection_socket}", 80, 24)
    try:
        terminal.shows("live", "ACTOR")
        pid = terminal.pid()
        terminal.press(*"123456789")  # it has much to draw when nobody draws it any more
    finally:
        terminal.close()
    until(lambda: not runs(pid), "the console has ended")


def runs(pid: int) -> bool:
    """Whether a process goes on; one that nobody has waited for does not."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
@pytest.mark.parametrize(("width", "height"), [(80, 24), (150, 45)])
def test_the_console_in_a_real_terminal(short_path: Path, width: int, height: int) -> None:
    daemon = Daemon(short_path / "d", "127.0.0.1", "--stop-tasks-on-exit")
    daemon.start()
    daemon.init()
    assert daemon.call("POST", "/services/create", service("web", 2, "sleep", "1000"))[0] == 201
    daemon.wait_running("web", 2)
    program = Path(sys.executable).with_name("swarmlet")
    terminal = Terminal(f"exec {program} console --socket {daemon.root}/run/introspection.sock", width, height)
    try:
        screen = terminal.shows("tree", "live", "ACTOR", "▾ cluster", "0-9 : page")
        assert max(len(line) for line in screen.splitlines()) <= width
        terminal.press("7")
        terminal.shows("services", "web", "2/2")
        terminal.press("8")
        terminal.shows("tasks", "web.1", "web.2")
        terminal.press(":")
        terminal.press("raft", "Enter")
        terminal.shows("in term", "committed", "MEMBER")
        terminal.press("Escape")
        terminal.shows("web.1")
        terminal.press("?")
        terminal.shows("Enter", "deeper")
        terminal.press("Escape")
        daemon.kill()
        terminal.shows("LOST")
        daemon.restart()
        terminal.shows("live", "web.1")
        pid = terminal.pid()
        terminal.press("q")
        until(lambda: not runs(pid), "the console has ended")
    finally:
        terminal.close()
        daemon.stop()
