"""The command line and the configuration file; and where things lie."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import pytest

from runtime.wire.private_directory import PrivateDirectory
from swarmlet import options, places
from swarmlet.errors import StartError, UsageError
from swarmlet.options import DaemonOptions, LookOptions, TlsHost, UpOptions, VersionOptions

ENVIRON = {"HOME": "/home/me", "TMPDIR": "/tmp/x"}
TLS = ["--tlsverify", "--tlscacert", "ca", "--tlscert", "cert", "--tlskey", "key"]


def daemon(*arguments: str, uid: int = 1000) -> DaemonOptions:
    found = options.parse(["daemon", *arguments], ENVIRON, uid)
    assert isinstance(found, DaemonOptions)
    return found


def config(tmp_path: pathlib.Path, content: Any) -> str:
    path = tmp_path / "daemon.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_root_has_the_systems_directories_and_never_the_engines_socket() -> None:
    found = daemon(uid=0)
    assert found.data_root == pathlib.Path("/var/lib/swarmlet")
    assert found.exec_root == pathlib.Path("/run/swarmlet")
    assert found.unix_hosts == ("/run/swarmlet/api.sock",)


def test_everybody_else_has_the_xdg_directories(short_path: pathlib.Path) -> None:
    assert daemon().data_root == pathlib.Path("/home/me/.local/share/swarmlet")
    environ = {"XDG_DATA_HOME": "/data", "XDG_RUNTIME_DIR": str(short_path)}
    short_path.chmod(0o700)
    found = options.parse(["daemon"], environ, os.getuid() or 0)
    assert isinstance(found, DaemonOptions)
    if os.getuid() != 0:
        assert found.data_root == pathlib.Path("/data/swarmlet")
    assert places.runtime_directory(environ, os.getuid()) == short_path / "swarmlet"


def test_without_a_usable_runtime_directory_a_private_one_is_taken(tmp_path: pathlib.Path) -> None:
    for runtime in ("", "relative", str(tmp_path / "missing")):
        environ = {"XDG_RUNTIME_DIR": runtime, "TMPDIR": "/t"}
        assert places.runtime_directory(environ, 7) == pathlib.Path("/t/swarmlet-7")
    tmp_path.chmod(0o777)
    shared = {"XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": "/t"}
    assert places.runtime_directory(shared, os.getuid()) == pathlib.Path(f"/t/swarmlet-{os.getuid()}")


def test_where_a_socket_has_no_room_another_directory_is_taken(tmp_path: pathlib.Path) -> None:
    long, longest = f"/{'t' * 53}", f"/{'t' * 52}"
    assert places.runtime_directory({"TMPDIR": long}, 7) == pathlib.Path("/tmp/swarmlet-7")
    assert places.runtime_directory({"TMPDIR": longest}, 7) == pathlib.Path(longest, "swarmlet-7")
    found = places.run_directory({"TMPDIR": longest}, 2**32 - 2, tmp_path)
    assert places.check_socket_path(str(found / PrivateDirectory.LONGEST))
    mine = tmp_path / ("r" * 60)
    mine.mkdir(0o700)
    environ = {"XDG_RUNTIME_DIR": str(mine), "TMPDIR": "/t"}
    assert places.runtime_directory(environ, os.getuid()) == pathlib.Path(f"/t/swarmlet-{os.getuid()}")


def test_a_private_directory_is_made_so_and_a_foreign_one_is_refused(tmp_path: pathlib.Path) -> None:
    inner = tmp_path / "a" / "b"
    places.make_private(inner, os.getuid())
    assert inner.stat().st_mode & 0o777 == 0o700
    inner.chmod(0o770)
    with pytest.raises(StartError, match="can be written by others"):
        places.make_private(inner, os.getuid())
    inner.chmod(0o700)
    if os.getuid() == 0:
        os.chown(inner, 4242, 4242)
    with pytest.raises(StartError, match="belongs to the user with id"):
        places.make_private(inner, os.getuid() + 1 if os.getuid() else 1)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "a")
    with pytest.raises(StartError, match="no directory"):
        places.make_private(link, os.getuid())


def test_a_home_is_needed_when_nothing_else_is_said() -> None:
    with pytest.raises(StartError, match="HOME"):
        places.data_root({}, 1)


def test_the_state_of_up_depends_on_the_files_place(tmp_path: pathlib.Path) -> None:
    first = places.up_state(ENVIRON, tmp_path / "a.yml", "hello")
    assert first == places.up_state(ENVIRON, tmp_path / "." / "a.yml", "hello")
    assert first != places.up_state(ENVIRON, tmp_path / "b" / "a.yml", "hello")
    assert str(first).startswith("/home/me/.local/state/swarmlet/up/hello-")


def test_every_flag_reaches_its_option() -> None:
    found = daemon(
        "-H", "unix:///a.sock", "-H", "tcp://127.0.0.1:2376", *TLS, "--data-root", "/d", "--exec-root", "/e",
        "--pidfile", "/p", "--group", "g", "--swarm-default-advertise-addr", "eth0", "--swarm-raft-heartbeat-tick", "2",
        "--swarm-raft-election-tick", "20", "--node-generic-resource", "gpu=2", "--node-generic-resource", "gpu=a",
        "--log-level", "warn", "--hostname", "h", "--log-format", "json",
        "--metrics-addr", ":9323", "--executor", "process", "--task-user", "u", "--require-limits",
        "--stop-tasks-on-exit", "--no-remote-exec",
    )  # fmt: skip
    assert found == DaemonOptions(
        data_root=pathlib.Path("/d"),
        exec_root=pathlib.Path("/e"),
        unix_hosts=("/a.sock",),
        tls_hosts=(TlsHost("127.0.0.1", 2376),),
        tls_ca="ca",
        tls_cert="cert",
        tls_key="key",
        pidfile="/p",
        group="g",
        default_advertise_addr="eth0",
        heartbeat_tick=2,
        election_tick=20,
        generic_resources=("gpu=2", "gpu=a"),
        log_level="warn",
        hostname="h",
        log_format="json",
        metrics=("127.0.0.1", 9323),
        task_user="u",
        require_limits=True,
        remote_exec=False,
        stop_tasks_on_exit=True,
    )
    assert daemon("--debug").log_level == "debug"


def test_up_has_the_executors_of_the_daemon() -> None:
    found = options.parse(["up", "a.yml", "--executor", "docker", "--engine-socket", "/e.sock"], ENVIRON, 1)
    assert isinstance(found, UpOptions)
    assert (found.executor, found.engine_socket) == ("docker", "/e.sock")


def test_an_engine_is_named_with_its_socket() -> None:
    found = daemon("--executor", "podman", "--engine-socket", "unix:///p.sock")
    assert (found.executor, found.engine_socket) == ("podman", "/p.sock")
    plain = daemon("--executor", "docker")
    assert (plain.engine_socket, plain.local_networks) == ("", False)
    assert daemon("--executor", "docker", "--local-networks").local_networks
    up = options.parse(["up", "a.yml", "--executor", "docker", "--local-networks"], ENVIRON, 1)
    assert isinstance(up, UpOptions)
    assert up.local_networks


@pytest.mark.parametrize(
    ("host", "expected"),
    [("tcp://:1", ("127.0.0.1", 1)), ("tcp://10.0.0.1", ("10.0.0.1", 2376)), ("tcp://[::1]:5", ("::1", 5))],
)
def test_tcp_hosts_have_defaults(host: str, expected: tuple[str, int]) -> None:
    (found,) = daemon("-H", host, *TLS).tls_hosts
    assert (found.host, found.port) == expected


@pytest.mark.parametrize("left_out", ["--tlsverify", "--tlscacert", "--tlscert", "--tlskey"])
def test_tcp_without_all_of_tls_is_refused_and_says_what_is_missing(left_out: str) -> None:
    given = list(TLS)
    at = given.index(left_out)
    del given[at : at + (1 if left_out == "--tlsverify" else 2)]
    with pytest.raises(UsageError, match=left_out):
        daemon("-H", "tcp://127.0.0.1:1", *given)


@pytest.mark.parametrize(
    ("arguments", "because"),
    [
        ((), "COMMAND"),
        (("fly",), "invalid choice"),
        (("daemon", "--frobnicate"), "unrecognized arguments: --frobnicate\nSee 'swarmlet daemon --help'"),
        (("daemon", "--data"), "unrecognized"),
        (("daemon", "-H", "http://x"), "invalid host"),
        (("daemon", "-H", "/a.sock"), "invalid host"),
        (("daemon", "-H", "unix://rel.sock"), "absolute"),
        (("daemon", "-H", "unix:///" + "x" * 107), "too long: 108 bytes, at most 107"),
        (("daemon", "-H", "unix:///a", "-H", "unix:///a"), "twice"),
        (("daemon", "-H", "tcp://x:99999", *TLS), "invalid host"),
        (("daemon", "-H", "tcp://a:b:c", *TLS), "invalid host"),
        (("daemon", "--log-level", "loud"), "invalid logging level"),
        (("daemon", "--executor", "crio"), "no executor 'crio'; there are: process, docker, podman"),
        (("daemon", "--engine-socket", "/s"), "needs --executor"),
        (("daemon", "--local-networks"), "needs --executor"),
        (("up", "a.yml", "--local-networks"), "needs --executor"),
        (("daemon", "--executor", "docker", "--engine-socket", "tcp://x"), "must be unix://PATH"),
        (("daemon", "--executor", "docker", "--engine-socket", "/" + "x" * 107), "too long"),
        (("daemon", "--executor", "docker", "--task-user", "me"), "--task-user is for the process executor"),
        (("daemon", "--executor", "podman", "--require-limits"), "not for podman"),
        (("daemon", "--node-generic-resource", "gpu"), "KIND="),
        (("daemon", "--swarm-raft-heartbeat-tick", "0"), "from 1 to"),
        (("daemon", "--swarm-raft-heartbeat-tick", "x"), "invalid int"),
        (("daemon", "--swarm-raft-election-tick", "1"), "greater"),
        (("daemon", "--config-file", "/nowhere/daemon.json"), "cannot read"),
        (("up",), "COMPOSE-FILE"),
        (("up", "a.yml", "--executor", "x"), "no executor 'x'"),
        (("up", "a.yml", "--for", "-1"), "--for"),
        (("up", "a.yml", "--for", "nan"), "--for"),
        (("up", "a.yml", "--for", "soon"), "invalid float"),
        (("tree", "--socket", "/" + "x" * 107), "too long"),
    ],
)
def test_a_usage_error_says_what_is_wrong(arguments: tuple[str, ...], because: str) -> None:
    with pytest.raises(UsageError, match=because):
        options.parse(arguments, ENVIRON, 1000)


def test_a_path_of_107_bytes_is_still_a_socket() -> None:
    path = "/" + "x" * 106
    assert daemon("-H", f"unix://{path}").unix_hosts == (path,)


def test_a_configuration_file_has_the_flags_names(tmp_path: pathlib.Path) -> None:
    file = config(
        tmp_path,
        {
            "hosts": ["unix:///a.sock"],
            "data-root": "/d",
            "debug": True,
            "node-generic-resources": ["gpu=1"],
            "swarm-raft-heartbeat-tick": 3,
            "stop-tasks-on-exit": True,
        },
    )
    found = daemon("--config-file", file, "--hostname", "h")
    assert found.unix_hosts == ("/a.sock",)
    assert (found.data_root, found.log_level, found.hostname) == (pathlib.Path("/d"), "debug", "h")
    assert (found.generic_resources, found.heartbeat_tick, found.stop_tasks_on_exit) == (("gpu=1",), 3, True)


def test_what_flag_and_file_both_say_is_refused(tmp_path: pathlib.Path) -> None:
    file = config(tmp_path, {"data-root": "/d", "hosts": ["unix:///a"]})
    with pytest.raises(UsageError) as refused:
        daemon("--config-file", file, "--data-root", "/x", "-H", "unix:///b")
    text = str(refused.value)
    assert "specified both as a flag and in the configuration file" in text
    assert "data-root: (from flag: /x, from file: /d)" in text
    assert "hosts: (from flag: ['unix:///b'], from file: ['unix:///a'])" in text


@pytest.mark.parametrize(
    ("content", "because"),
    [
        ("{", "no valid JSON"),
        ("[]", "must hold an object"),
        ({"fly": 1, "swim": 2}, "don't match any configuration option: fly, swim"),
        ({"config-file": "x"}, "don't match"),
        ({"debug": "yes"}, "debug must be true or false"),
        ({"hosts": "unix:///a"}, "hosts must be a list of texts"),
        ({"hosts": [1]}, "hosts must be a list of texts"),
        ({"data-root": 5}, "data-root must be a text"),
        ({"swarm-raft-heartbeat-tick": True}, "must be a whole number"),
    ],
)
def test_a_configuration_file_that_makes_no_sense_is_refused(
    tmp_path: pathlib.Path, content: Any, because: str
) -> None:
    with pytest.raises(UsageError, match=because):
        daemon("--config-file", config(tmp_path, content))


def test_the_other_commands_have_their_options(tmp_path: pathlib.Path) -> None:
    assert options.parse(["up", "a.yml", "--for", "20", "--listen", "eth0"], ENVIRON, 1) == UpOptions(
        pathlib.Path("a.yml"), "eth0", 20.0
    )
    assert options.parse(["tree", "--json", "--socket", "/a"], ENVIRON, 1) == LookOptions("tree", "/a", True)
    assert options.parse(["tree"], ENVIRON, 0) == LookOptions("tree", "/run/swarmlet/introspection.sock")
    assert options.parse(["version"], ENVIRON, 1) == VersionOptions()


def test_the_tls_key_is_in_no_repr() -> None:
    assert "secret-key" not in repr(daemon("-H", "tcp://a:1", *TLS[:-1], "secret-key"))


def look(*arguments: str) -> LookOptions:
    found = options.parse(list(arguments), ENVIRON, 0)
    assert isinstance(found, LookOptions)
    return found


def test_the_commands_that_look_inside_have_flags_of_their_own() -> None:
    assert look("top", "--window", "5").typed == {"window": 5.0, "rows": 20}
    assert look("crashes", "/cluster").typed == {"path": "/cluster", "tracebacks": False}
    assert look("explain", "web").typed == {"name": "web", "kind": ""}
    assert look("plan", "node", "rm", "n").typed == {"subject": "node", "action": "rm", "name": "n"}
    assert look("actor", "/a", "--suspend", "3", "--write").typed["suspend"] == 3.0
    levels = {"level": "debug", "logger": "swarmlet", "seconds": 5.0, "write": True, "yes": False}
    assert look("log-level", "debug", "--seconds", "5", "--write").typed == levels
    traced = look("trace", "/a/*", "--type", "Write", "--count", "5").typed
    assert (traced["paths"], traced["types"], traced["count"]) == (["/a/*"], ["Write"], 5)


@pytest.mark.parametrize(
    ("typed", "because"),
    [
        (["actor", "/a", "--restart"], "needs --write too"),
        (["actor", "/a", "--restart", "--resume", "--write"], "one act at a time"),
        (["log-level", "debug"], "needs --write too"),
        (["log-level", "loud", "--write"], "invalid choice"),
        (["trace", "--load", "t", "--type", "X"], "loaded or made"),
        (["trace", "/a", "--sequence", "--mermaid"], "not both"),
        (["top", "--window", "0.1"], "1 to 60 seconds"),
        (["top", "--window", "1e400"], "1 to 60 seconds"),
        (["actor", "/a", "--window", "61"], "up to 60, or 0"),
        (["actor", "/a", "--suspend", "0"], "needs --write too"),
        (["top", "--rows", "0"], "at least one row"),
        (["trace", "/a", "--load", "x"], "loaded or made, not both"),
        (["trace", "--count", "many"], "invalid int value"),
    ],
)
def test_what_a_look_cannot_do_is_an_error_of_usage(typed: list[str], because: str) -> None:
    with pytest.raises(UsageError, match=because):
        options.parse(typed, ENVIRON, 0)
