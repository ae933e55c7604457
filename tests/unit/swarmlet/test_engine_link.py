"""The Engine API as operators' commands ask it: where it is, what it refuses, changes that cross others'."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runtime.wire.port import MANAGER
from swarmlet import options
from swarmlet.engine_link import ATTEMPTS, Engine, Refused, _context, connect
from swarmlet.errors import StartError, UsageError
from swarmlet.operator_options import OperatorOptions, Where, where
from tests.unit.wire.authority import Authority

SEQUENCE = "rpc error: code = Unknown desc = update out of sequence"


class Daemon:
    """A daemon that has one service and answers as it is told to."""

    def __init__(self, *, crossed: int = 0) -> None:
        self.version = 1
        self.spec: dict[str, Any] = {"Name": "web", "Labels": {}}
        self.crossed = crossed
        self.asked: list[tuple[str, str]] = []
        self.rested = 0.0

    def __call__(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        self.asked.append((method, target))
        if method == "GET":
            return 200, json.dumps({"ID": "s1", "Version": {"Index": self.version}, "Spec": self.spec}).encode()
        if self.crossed:
            self.crossed -= 1
            self.version += 1
            self.spec["Labels"][f"other-{self.version}"] = "kept"
        if not target.endswith(f"version={self.version}"):
            return 500, json.dumps({"message": SEQUENCE}).encode()
        self.spec = json.loads(body)
        self.version += 1
        return 200, b"{}"

    def engine(self) -> Engine:
        return Engine(self, lambda: self.rested, self._rest)

    def _rest(self, seconds: float) -> None:
        self.rested += seconds


def labelled(service: Any) -> Any:
    return {**service["Spec"], "Labels": {**service["Spec"]["Labels"], "mine": "yes"}}


def test_a_change_that_crosses_others_is_made_anew_on_what_they_left_and_none_is_lost() -> None:
    daemon = Daemon(crossed=3)
    daemon.engine().update("services", "web", labelled)
    assert daemon.spec["Labels"] == {"mine": "yes", **{f"other-{n}": "kept" for n in (2, 3, 4)}}
    assert daemon.rested > 0


def test_who_is_crossed_every_time_says_so_in_the_end() -> None:
    daemon = Daemon(crossed=1000)
    with pytest.raises(StartError, match=f"web is changed by others all the time: {ATTEMPTS} attempts"):
        daemon.engine().update("services", "web", labelled)
    assert "mine" not in daemon.spec["Labels"]


def test_no_change_sends_nothing() -> None:
    daemon = Daemon()
    assert daemon.engine().update("services", "a/b", lambda service: None)["ID"] == "s1"
    assert daemon.asked == [("GET", "/services/a%2Fb")]


@pytest.mark.parametrize(
    ("body", "text"), [(b'{"message":"no such thing"}', "no such thing"), (b"<html>", "status 404")]
)
def test_a_refusal_has_the_daemons_own_words(body: bytes, text: str) -> None:
    with pytest.raises(Refused, match=text) as caught:
        Engine(lambda method, target, sent: (404, body)).get("/services/x")
    assert caught.value.status == 404


def test_another_refusal_of_a_change_is_not_tried_again() -> None:
    asked = []

    def carry(method: str, target: str, body: bytes) -> tuple[int, bytes]:
        asked.append(method)
        return (200, b'{"ID":"x","Version":{"Index":1},"Spec":{}}') if method == "GET" else (400, b'{"message":"bad"}')

    with pytest.raises(Refused, match="bad"):
        Engine(carry).update("services", "x", lambda found: {})
    assert asked == ["GET", "POST"]


def test_filters_are_sent_as_docker_sends_them() -> None:
    asked = []

    def carry(method: str, target: str, body: bytes) -> tuple[int, bytes]:
        asked.append(target)
        return 200, b"null\n"

    assert Engine(carry).tasks(service="s1") == []
    assert asked == ["/tasks?filters=%7B%22service%22%3A+%5B%22s1%22%5D%7D"]


def test_an_answer_that_is_no_json_is_a_sentence() -> None:
    with pytest.raises(StartError, match="/info: the answer is no JSON"):
        Engine(lambda method, target, body: (200, b"<html>")).get("/info")


# Where it is


def test_the_flag_goes_before_the_environment_and_that_before_the_own_daemon() -> None:
    environ = {"DOCKER_HOST": "unix:///env.sock"}
    assert where("unix:///flag.sock", environ, "/own.sock") == Where(socket="/flag.sock")
    assert where("/flag.sock", environ, "/own.sock") == Where(socket="/flag.sock")
    assert where("", environ, "/own.sock") == Where(socket="/env.sock")
    assert where("", {}, "/own.sock") == Where(socket="/own.sock")


def test_over_tcp_it_is_asked_with_certificates_only() -> None:
    with pytest.raises(UsageError, match="certificates only"):
        where("tcp://10.0.0.1:2376", {}, "/own.sock")
    secured = {"DOCKER_TLS_VERIFY": "1", "HOME": "/home/me"}
    assert where("tcp://10.0.0.1", secured, "") == Where("", "10.0.0.1", 2376, pathlib.Path("/home/me/.docker"))
    chosen = where("tcp://[::1]:99", {**secured, "DOCKER_CERT_PATH": "/certs"}, "")
    assert (chosen.host, chosen.port, str(chosen.certificates)) == ("::1", 99, "/certs")


@pytest.mark.parametrize("url", ["ssh://me@there", "tcp://", "tcp://h:port", "tcp://h:99999", "nonsense", "unix://"])
def test_what_is_no_place_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="invalid host"):
        where(url, {"DOCKER_TLS_VERIFY": "1"}, "/own.sock")


def test_an_authority_is_taken_as_docker_takes_it_whatever_python_is_stricter_about(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    chain, key = authority.issue("n1", MANAGER)
    for name, data in (("ca.pem", authority.pem), ("cert.pem", chain), ("key.pem", key)):
        (tmp_path / name).write_bytes(data)
    make = ssl.create_default_context

    def as_python_3_13(**named: Any) -> ssl.SSLContext:
        made = make(**named)
        made.verify_flags |= ssl.VERIFY_X509_STRICT
        return made

    monkeypatch.setattr(ssl, "create_default_context", as_python_3_13)
    context = _context(tmp_path)
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_certificates_that_cannot_be_read_are_a_sentence(tmp_path: pathlib.Path) -> None:
    with pytest.raises(StartError, match=r"cannot use the certificates in .*ca.pem, cert.pem, key.pem"):
        connect(Where("", "127.0.0.1", 1, tmp_path))


@contextlib.contextmanager
def answering(path: pathlib.Path, answer: bytes) -> Iterator[list[bytes]]:
    """Somebody who answers one request at a socket."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            link, _ = listener.accept()
            with link:
                heard.append(link.recv(65536))
                link.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield heard
        thread.join(10)


def test_a_socket_is_asked_in_plain_http(short_path: pathlib.Path) -> None:
    path = short_path / "api"
    with answering(path, b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"ok"') as heard:
        assert connect(Where(socket=str(path))).get("/info", a="b c") == "ok"
    assert heard[0].startswith(b"GET /info?a=b+c HTTP/1.1\r\n")


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.touch()])
def test_nobody_there_is_a_sentence_with_the_place(
    short_path: pathlib.Path, make: Callable[[pathlib.Path], None]
) -> None:
    make(short_path / "api")
    with pytest.raises(StartError, match=rf"no answer from {short_path}/api: "):
        connect(Where(socket=str(short_path / "api"))).get("/info")


def test_who_hangs_up_in_the_middle_is_a_sentence(short_path: pathlib.Path) -> None:
    path = short_path / "api"
    with (
        answering(path, b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{"),
        pytest.raises(StartError, match="no answer"),
    ):
        connect(Where(socket=str(path))).get("/info")


# The flags


def parsed(*arguments: str) -> OperatorOptions:
    found = options.parse(list(arguments), {"XDG_RUNTIME_DIR": "", "TMPDIR": "/t"}, 1000)
    assert isinstance(found, OperatorOptions)
    return found


def test_a_command_asks_the_daemon_that_this_user_runs_unless_told_otherwise() -> None:
    assert parsed("stop", "web").where == Where(socket="/t/swarmlet-1000/api.sock")
    found = parsed("start", "-H", "unix:///x.sock", "--timeout", "5", "-d", "web", "db")
    assert found.where == Where(socket="/x.sock")
    assert found.typed == {"services": ["web", "db"], "timeout": 5.0, "detach": True}


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_time_to_wait_is_a_number_of_seconds(seconds: str) -> None:
    with pytest.raises(UsageError, match="--timeout needs a number of seconds"):
        parsed("stop", "--timeout", seconds, "web")


def test_who_plans_a_rebalance_is_the_daemon_that_this_user_runs_unless_told_otherwise() -> None:
    assert parsed("rebalance").typed == {
        "services": [], "apply": False, "max_moves": 10, "timeout": 600.0,
        "socket": "/t/swarmlet-1000/introspection.sock",
    }  # fmt: skip
    assert parsed("rebalance", "--socket", "/x", "web").typed["socket"] == "/x"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["rebalance", "--max-moves", "0"], "--max-moves needs a number from 1 to 10000"),
        (["rotate", "secret", "x", "--keep", "-1"], "--keep needs a number of versions, 0 or more"),
        (["rotate", "network", "x"], "invalid choice"),
        (["drain", "n1", "--wait", "--undo"], "--undo waits for nothing"),
        (["stop"], "the following arguments are required: SERVICE"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(arguments: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        parsed(*arguments)
