"""The command line as a process: exit codes, sentences, signals, what an import costs."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def swarmlet(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swarmlet", *arguments],
        capture_output=True, text=True, timeout=120, cwd=ROOT, env={**os.environ, **environ}, check=False,
    )  # fmt: skip


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT, check=True
    )
    return done.stdout


class Daemon:
    """A daemon process in directories of its own."""

    def __init__(self, tmp_path: pathlib.Path) -> None:
        self.root = tmp_path
        self.socket = str(tmp_path / "run" / "api.sock")
        self.process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "tests.cli.memory_daemon", "daemon", "--data-root", str(self.root / "data"),
                "--exec-root", str(self.root / "run"), *arguments,
            ],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self.process

    def until_listening(self) -> None:
        assert self.process is not None
        assert self.process.stderr is not None
        seen = ""
        while "listens on" not in seen:  # not by select: lines that come together are read together
            line = self.process.stderr.readline()
            assert line, f"it did not come up: {seen}"
            seen += line

    def get(self, target: str) -> str:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(60)
            link.connect(self.socket)
            link.sendall(f"GET {target} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            answer = b""
            while piece := link.recv(65536):
                answer += piece
        return answer.decode()

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)
        if self.process is not None and self.process.stderr is not None:
            self.process.stderr.close()


@pytest.fixture
def daemon(tmp_path: pathlib.Path) -> Iterator[Daemon]:
    found = Daemon(tmp_path)
    yield found
    found.end()


def test_an_import_starts_nothing_and_loads_next_to_nothing() -> None:
    heavy = "grpc", "pykka", "plyvel", "aiohttp", "yaml", "google", "cryptography", "asyncio"
    code = (
        "import threading, signal, logging, os\n"
        "before = (len(os.listdir('/proc/self/fd')), signal.getsignal(signal.SIGINT), logging.root.handlers[:])\n"
        "import sys, swarmlet\n"
        "assert threading.active_count() == 1\n"
        "after = (len(os.listdir('/proc/self/fd')), signal.getsignal(signal.SIGINT), logging.root.handlers[:])\n"
        "assert before == after\n"
        f"print([name for name in {heavy!r} if name in sys.modules])\n"
    )
    assert python(code) == "[]\n"


def test_importing_a_node_starts_nothing_and_keeps_the_interpreters_settings() -> None:
    code = (
        "import sys, threading, signal, logging, os\n"
        "interval, fds = sys.getswitchinterval(), len(os.listdir('/proc/self/fd'))\n"
        "from swarmlet import Node, AsyncNode, ProcessExecutor\n"
        "print(threading.active_count(), sys.getswitchinterval() == interval, logging.root.handlers,\n"
        "      signal.getsignal(signal.SIGINT) is signal.default_int_handler,\n"
        "      len(os.listdir('/proc/self/fd')) == fds)\n"
    )
    assert python(code) == "1 True [] True True\n"


def test_a_nodes_actors_start_before_the_http_library_is_loaded() -> None:
    code = (
        "import sys\n"
        "import swarmlet.daemon, actors.node_actor\n"
        "print([name for name in ('aiohttp', 'yaml', 'textual') if name in sys.modules])\n"
    )
    assert python(code) == "[]\n"


def test_a_daemon_loads_the_http_library_without_the_machines_authorities_and_leaves_the_environment_alone() -> None:
    code = (
        "import os, ssl, sys\n"
        "os.environ.pop('SSL_CERT_FILE', None)\n"
        "os.environ['SSL_CERT_DIR'] = '/somewhere'\n"
        "before = dict(os.environ)\n"
        "contexts, make = [], ssl.create_default_context\n"
        "ssl.create_default_context = lambda *given, **named: contexts.append(make(*given, **named)) or contexts[-1]\n"
        "from swarmlet import daemon\n"
        "daemon._load_http_library()\n"
        "read = [each.cert_store_stats()['x509'] for each in contexts]\n"
        "print('aiohttp' in sys.modules, os.environ == before, read)\n"
    )
    assert python(code) == "True True [0]\n"


def test_every_public_name_is_there_and_no_other() -> None:
    import swarmlet

    assert all(getattr(swarmlet, name) is not None for name in swarmlet.__all__)
    assert dir(swarmlet) == sorted(swarmlet.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nodes'"):
        swarmlet.Nodes  # noqa: B018


def test_the_version_is_printed() -> None:
    done = swarmlet("version")
    assert done.returncode == 0
    assert done.stdout.startswith("swarmlet 0.")
    assert swarmlet("--version").stdout.split()[0] == "swarmlet"


@pytest.mark.parametrize("arguments", [(), ("fly",), ("daemon", "--fly"), ("up",), ("daemon", "-H", "tcp://0.0.0.0:1")])
def test_a_usage_error_is_one_sentence_and_exits_2(arguments: tuple[str, ...]) -> None:
    done = swarmlet(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("swarmlet: ")
    assert "Traceback" not in done.stderr


def test_help_is_no_error() -> None:
    done = swarmlet("daemon", "--help")
    assert done.returncode == 0
    for flag in ("--data-root", "--exec-root", "--tlsverify", "--swarm-raft-election-tick", "--stop-tasks-on-exit"):
        assert flag in done.stdout


def test_without_a_node_the_tree_says_so_and_exits_1(tmp_path: pathlib.Path) -> None:
    done = swarmlet("tree", "--socket", str(tmp_path / "i.sock"))
    assert done.returncode == 1
    assert done.stderr == f"swarmlet: no node answers at {tmp_path}/i.sock: is it running, and is this its socket?\n"


def test_a_bad_compose_file_exits_1_with_all_its_faults(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "bad.yml"
    file.write_text("services: {web: {image: host, volumes: [a], fly: 1}}", encoding="utf-8")
    done = swarmlet("up", str(file), XDG_STATE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "services.web.volumes" in done.stderr
    assert "services.web.fly" in done.stderr
    assert os.listdir(tmp_path) == ["bad.yml"]


def test_a_daemon_serves_shows_its_tree_and_ends_at_sigterm(daemon: Daemon, tmp_path: pathlib.Path) -> None:
    pidfile = tmp_path / "pid"
    process = daemon.start("--pidfile", str(pidfile), "--log-level", "info")
    daemon.until_listening()
    assert pidfile.read_text(encoding="utf-8") == str(process.pid)
    assert daemon.get("/_ping").endswith("\r\n\r\nOK")
    shown = swarmlet("tree", "--socket", str(tmp_path / "run" / "introspection.sock"))
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[1].startswith("cluster ")
    as_json = swarmlet("tree", "--json", "--socket", str(tmp_path / "run" / "introspection.sock"))
    paths = {row["path"] for row in json.loads(as_json.stdout)["actors"]}
    assert {"/cluster", "/cluster/connection"} <= paths
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert not pidfile.exists()
    assert os.listdir(tmp_path / "run") == []


def test_a_second_daemon_on_the_same_data_root_is_refused(daemon: Daemon, tmp_path: pathlib.Path) -> None:
    daemon.start()
    daemon.until_listening()
    done = swarmlet("daemon", "--data-root", str(tmp_path / "data"), "--exec-root", str(tmp_path / "other"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"swarmlet: the data root {tmp_path}/data is in use by another swarmlet process"
    )


def test_a_pidfile_of_a_living_process_is_refused_and_a_dead_ones_replaced(
    daemon: Daemon, tmp_path: pathlib.Path
) -> None:
    pidfile = tmp_path / "pid"
    pidfile.write_text(str(os.getpid()))
    done = swarmlet(
        "daemon", "--data-root", str(tmp_path / "d"), "--exec-root", str(tmp_path / "e"), "-p", str(pidfile)
    )
    assert done.returncode == 1
    assert f"process with PID {os.getpid()} is still running" in done.stderr
    assert pidfile.read_text(encoding="utf-8") == str(os.getpid())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(60)
    pidfile.write_text(str(gone.pid))
    process = daemon.start("-p", str(pidfile))
    daemon.until_listening()
    assert pidfile.read_text(encoding="utf-8") == str(process.pid)


def test_another_programs_swarm_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "data" / "raft" / "wal-v3-encrypted").mkdir(parents=True)
    (tmp_path / "data").chmod(0o700)
    done = swarmlet("daemon", "--data-root", str(tmp_path / "data"), "--exec-root", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "raft/wal-v3-encrypted belongs to the swarm of another program" in done.stderr
    assert "Traceback" not in done.stderr


def test_certificates_that_cannot_be_read_are_named(tmp_path: pathlib.Path) -> None:
    done = swarmlet(
        "daemon", "-H", "tcp://127.0.0.1:0", "--tlsverify", "--tlscacert", "/no/ca", "--tlscert", "/no/cert",
        "--tlskey", "/no/key", "--data-root", str(tmp_path / "d"), "--exec-root", str(tmp_path / "e"),
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot use /no/ca, /no/cert and /no/key for TLS" in done.stderr


def test_a_reader_that_goes_away_is_no_traceback(daemon: Daemon, tmp_path: pathlib.Path) -> None:
    daemon.start()
    daemon.until_listening()
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-u", "-m", "swarmlet", "tree", "--socket", str(tmp_path / "run" / "introspection.sock")],
        stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120, cwd=ROOT, check=False,
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


def test_the_example_of_embedding_is_short() -> None:
    lines = (ROOT / "examples/embed_supervisor.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60
