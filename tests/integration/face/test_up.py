"""``swarmlet up`` over a real node whose tasks are entries in a table."""

from __future__ import annotations

import io
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.wire.pb import types_pb2
from swarmlet import up
from swarmlet.errors import StartError
from swarmlet.options import UpOptions
from swarmlet.up_view import Snapshot
from tests.integration.face.worlds import NOTHING, Machine, Traces

GOOD = "services: {web: {image: host, command: run, deploy: {replicas: 3, restart_policy: {delay: 100ms}}}}\n"
SECONDS = 60.0
BAD = "services: {web: {image: host, command: exit 3, deploy: {replicas: 1, restart_policy: {delay: 100ms}}}}\n"


class Run:
    """One run of the command: its exit code and what it printed. The time of ``--for`` is over when ``until`` holds of
    what the run sees, however long that takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, short_path: Path) -> None:
        self.directory = short_path
        self.machine = Machine()
        (short_path / "run").mkdir(mode=0o700, exist_ok=True)
        self.environ = {"XDG_STATE_HOME": str(short_path / "state"), "XDG_RUNTIME_DIR": str(short_path / "run")}
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path / "run"))
        monkeypatch.setattr(up, "ProcessExecutor", lambda **_settings: self.machine.factory)
        self.text = ""
        self._until: Callable[[Snapshot], bool] = converged
        self._time = 0.0
        look = up.Session._look

        def looks(session: up.Session) -> Snapshot | None:
            snapshot = look(session)
            if snapshot is not None and self._until(snapshot):
                self._time += 2 * SECONDS
            return snapshot

        monkeypatch.setattr(up.Session, "_look", looks)
        monkeypatch.setattr(up, "monotonic", lambda: self._time)

    def __call__(self, content: str, until: Callable[[Snapshot], bool], then: Any = None) -> int:
        self._until = until
        file = self.directory / "st.yml"
        file.write_text(content, encoding="utf-8")
        out = Watched(then or {})
        try:
            return up.run(UpOptions(file, seconds=SECONDS), self.environ, out)
        finally:
            self.text = out.getvalue()


def converged(snapshot: Snapshot) -> bool:
    return bool(snapshot.services) and all(each.converged for each in snapshot.services)


def never(snapshot: Snapshot) -> bool:
    return False


class Watched(io.StringIO):
    """Calls something when a text is printed."""

    def __init__(self, then: dict[str, Any]) -> None:
        super().__init__()
        self._then = then

    def write(self, text: str) -> int:
        for word in [word for word in self._then if word in text]:
            self._then.pop(word)()
        return super().write(text)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, short_path: Path) -> Run:
    return Run(monkeypatch, short_path)


def test_a_good_file_converges_and_ends_with_0(run: Run) -> None:
    before = Traces()
    assert run(GOOD, converged) == 0
    assert "created service st_web\n" in run.text
    for slot in (1, 2, 3):
        assert f"st_web.{slot} running\n" in run.text
    assert "st_web: 3/3 converged\n" in run.text
    assert "docker -H unix://" in run.text
    assert "docker swarm join --token SWMTKN-1-" in run.text
    assert "all tasks are stopped" in run.text
    assert before.left() == NOTHING


def test_a_bad_file_ends_with_1_and_says_why(run: Run) -> None:
    assert run(BAD, lambda snapshot: "exit (3)" in str(snapshot.services)) == 1
    assert "st_web: 0/1 not converged\n" in run.text
    assert "non-zero exit (3)" in run.text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_all_tasks_says_so_and_shows_in_the_exit_code(run: Run, number: int, code: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert run(GOOD, never, {"st_web.3 running": lambda: os.kill(os.getpid(), number)}) == code
    assert "stopping all tasks\n" in run.text
    assert "all tasks are stopped" in run.text
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_run_resumes_the_same_swarm(run: Run) -> None:
    assert run(GOOD, converged) == 0
    first = run.text
    assert run(GOOD, converged) == 0
    assert "created service" not in run.text
    token = [line for line in first.splitlines() if "--token" in line]
    assert token == [line for line in run.text.splitlines() if "--token" in line]


def test_what_ended_in_an_earlier_run_is_no_news(run: Run) -> None:
    once = "services: {web: {image: host, command: exit 3, deploy: {replicas: 1, restart_policy: {condition: none}}}}\n"
    assert run(once, lambda snapshot: any(task.status.state == types_pb2.FAILED for task in snapshot.tasks)) == 1
    assert "st_web.1 failed: task: non-zero exit (3)\n" in run.text
    assert run(GOOD, converged) == 0
    assert "failed" not in run.text


def test_a_changed_file_updates_and_removes(run: Run) -> None:
    assert run(GOOD, converged) == 0
    quick = "{image: host, command: run, deploy: {restart_policy: {delay: 100ms}}}"
    assert run(f"services: {{db: {quick}, web: {quick}}}\n", converged) == 0
    assert "updated service st_web\n" in run.text
    assert "created service st_db\n" in run.text
    assert run(f"services: {{db: {quick}}}\n", converged) == 0
    assert "removed service st_web\n" in run.text


def test_a_job_and_a_changed_secret_converge(run: Run) -> None:
    restarts = "restart_policy: {delay: 100ms}"
    content = (
        "secrets: {key: {file: key}}\n"
        "services:\n"
        f"  job: {{image: host, command: exit 0, deploy: {{mode: replicated-job, {restarts}}}}}\n"
        "  web: {image: host, command: run, secrets: [key],\n"
        f"    deploy: {{mode: global, {restarts}, update_config: {{monitor: 100ms}}}}}}\n"
    )
    (run.directory / "key").write_bytes(b"one")
    assert run(content, converged) == 0
    assert "created secret st_key\n" in run.text
    assert "st_job: 1/1 converged\n" in run.text
    (run.directory / "key").write_bytes(b"two")
    assert run(content, converged) == 0
    assert "created secret st_key.2 in place of st_key\n" in run.text
    assert "updated service st_web\n" in run.text
    assert "updated service st_job\n" not in run.text


def test_the_same_file_is_not_run_twice_at_once(run: Run) -> None:
    refused: list[str] = []

    def again() -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(60)

    def second() -> None:
        from swarmlet import Node, places

        state = places.up_state(run.environ, run.directory / "st.yml", "st")
        try:
            Node(state, executor=Machine().factory).start()
        except StartError as error:
            refused.append(str(error))

    assert run(GOOD, converged, {"created service": again}) == 0
    assert "in use by another swarmlet process" in refused[0]


def test_a_file_that_is_wrong_is_refused_before_anything_starts(run: Run) -> None:
    with pytest.raises(StartError) as refused:
        run("services: {web: {image: host, volumes: [a:b], fly: 1}}", never)
    assert "st.yml cannot be deployed:\n  services.web.volumes: a process sees" in str(refused.value)
    assert "\n  services.web.fly: is no field" in str(refused.value)
    assert not (run.directory / "state").exists()


def test_a_file_that_is_not_there_is_said(run: Run) -> None:
    with pytest.raises(StartError, match=r"cannot read .*none\.yml: No such file"):
        up.run(UpOptions(run.directory / "none.yml"), run.environ, io.StringIO())


def test_a_process_cannot_run_among_containers(run: Run) -> None:
    file = run.directory / "st.yml"
    file.write_text("services: {web: {image: host, command: run}}", encoding="utf-8")
    with pytest.raises(StartError, match="st_web: the image host is a process; with --executor docker none can run"):
        up.run(UpOptions(file, executor="docker"), run.environ, io.StringIO())
    assert not (run.directory / "state").exists()


def test_variables_come_from_the_environment_and_from_the_env_file_beside(run: Run) -> None:
    (run.directory / ".env").write_text("N=2\nIMAGE=none\n", encoding="utf-8")
    run.environ["IMAGE"] = "host"
    text = "services: {web: {image: $IMAGE, command: run, deploy: {replicas: '$N'}}}"
    file = run.directory / "v.yml"
    file.write_text(text, encoding="utf-8")
    stack = up.read_stack(UpOptions(file), run.environ)
    assert (stack.services[0].task.container.image, stack.services[0].replicated.replicas) == ("host", 2)
    (run.directory / ".env").write_text("1=2\n", encoding="utf-8")
    with pytest.raises(StartError, match=r"cannot read .*\.env: line 1"):
        up.read_stack(UpOptions(file), run.environ)


def test_a_listen_address_that_is_taken_is_said(run: Run) -> None:
    file = run.directory / "st.yml"
    file.write_text(GOOD, encoding="utf-8")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        out = io.StringIO()
        options = UpOptions(file, listen=f"127.0.0.1:{taken.getsockname()[1]}", seconds=1.0)
        assert up.run(options, run.environ, out) == 1
    assert "address already in use" in out.getvalue()
