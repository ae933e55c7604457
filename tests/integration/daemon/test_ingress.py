"""Published services of a real daemon: running tasks answer, and none is missed when they are replaced or die."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading

import pytest

from swarmlet.host import free_port
from tests.integration.daemon.program import Daemon, service

SERVE = (
    "import http.server, os, signal, threading\n"
    "class Handler(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200); self.end_headers(); self.wfile.write(os.environ['SWARMLET_TASK_ID'].encode())\n"
    "    def log_message(self, *_): pass\n"
    "server = http.server.ThreadingHTTPServer(('', int(os.environ['PORT'])), Handler)\n"
    "server.daemon_threads = False\n"  # what is being answered when the stop comes is answered
    "signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())\n"
    "server.serve_forever()\n"
    "server.server_close()\n"
)


def ask(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def answers(port: int, times: int) -> set[str]:
    """Who answers; nobody while there is no task yet."""
    try:
        return {ask(port) for _ in range(times)}
    except (OSError, http.client.HTTPException):
        return set()


@pytest.mark.timeout(300)
def test_every_task_of_a_published_service_answers_and_a_rolling_update_loses_no_connection(daemon: Daemon) -> None:
    port = free_port("0.0.0.0")
    made = service("web", 2, "python3", "-c", SERVE)
    container = made["TaskTemplate"]["ContainerSpec"]
    ready = "import os, socket; socket.create_connection(('127.0.0.1', int(os.environ['PORT'])), 1)"
    container["StopGracePeriod"] = 30_000_000_000  # what is being answered may take its time on a busy machine
    container["Healthcheck"] = {"Test": ["CMD", "python3", "-c", ready], "Interval": 100_000_000, "Retries": 100}
    made["EndpointSpec"] = {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": port}]}
    made["UpdateConfig"] = {"Parallelism": 1, "Order": "start-first", "Monitor": 100_000_000}
    status, answer = daemon.call("POST", "/services/create", made)
    assert status == 201, answer
    daemon.wait_running("web", 2)
    before = daemon.until(lambda: len(found := answers(port, 4)) == 2 and found, "both tasks answer")
    lost: list[str] = []
    over = threading.Event()

    def load() -> None:
        while not over.is_set():
            try:
                ask(port)
            except (OSError, http.client.HTTPException) as error:
                lost.append(repr(error))
            over.wait(0.01)

    loader = threading.Thread(target=load)
    loader.start()
    try:
        _, found = daemon.call("GET", "/services/web")
        made["TaskTemplate"]["ForceUpdate"] = 1
        status, answer = daemon.call("POST", f"/services/web/update?version={found['Version']['Index']}", made)
        assert status == 200, answer
        daemon.until(lambda: len(now := answers(port, 4)) == 2 and not now & before, "two other tasks answer", 120)
    finally:
        over.set()
        loader.join()
    assert lost == []
    assert daemon.call("DELETE", "/services/web")[0] == 200
    daemon.until(lambda: refuses(port), "the port is not listened on")


UDP_SERVE = (
    "import os, socket\n"
    "server = socket.socket(type=socket.SOCK_DGRAM)\n"
    "server.bind(('', int(os.environ['PORT'])))\n"
    "while True:\n"
    "    data, client = server.recvfrom(1000)\n"
    "    server.sendto(str(os.getpid()).encode(), client)\n"
)


class UdpClient:
    """One of a published UDP port, at a port of its own."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(type=socket.SOCK_DGRAM)
        self.socket.settimeout(1.0)
        self.socket.connect(("127.0.0.1", port))

    def ask(self) -> int:
        """The pid of the task that answers, or 0 if none does."""
        try:
            self.socket.send(b"who?")
            return int(self.socket.recv(100))
        except (ConnectionRefusedError, TimeoutError):
            return 0


def test_datagrams_go_to_running_tasks_and_the_clients_of_a_killed_one_move_to_the_other(daemon: Daemon) -> None:
    port = free_port("0.0.0.0")
    made = service("echo", 2, "python3", "-c", UDP_SERVE)
    made["TaskTemplate"]["RestartPolicy"] = {"Condition": "none"}
    made["EndpointSpec"] = {"Ports": [{"Protocol": "udp", "TargetPort": port, "PublishedPort": port}]}
    status, answer = daemon.call("POST", "/services/create", made)
    assert status == 201, answer
    pids = set(daemon.wait_running("echo", 2).values())
    found: dict[int, UdpClient] = {}

    def both_answer() -> bool:
        client = UdpClient(port)  # a client stays with its task, so it takes new ones to reach another
        found.setdefault(client.ask(), client)
        return pids <= found.keys()

    daemon.until(both_answer, "both tasks answer")
    killed, living = pids
    os.kill(killed, signal.SIGKILL)
    daemon.until(lambda: found[killed].ask() == living, "the other task answers")
    daemon.until(lambda: found[living].ask() == living, "the other's client still has its task")
    for client in found.values():
        client.socket.close()
    assert daemon.call("DELETE", "/services/echo")[0] == 200


def test_a_port_that_somebody_has_already_is_a_warning_until_it_is_free(daemon: Daemon) -> None:
    made = service("web", 0, "sleep", "60")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        made["EndpointSpec"] = {"Ports": [{"TargetPort": 80, "PublishedPort": port}]}
        assert daemon.call("POST", "/services/create", made)[0] == 201
        (said,) = daemon.until(lambda: daemon.get("/info")["Warnings"], "it is told")
        assert said.endswith(f"cannot listen on published ports: {port}/tcp: Address already in use")
    daemon.until(lambda: not daemon.get("/info")["Warnings"], "it is not told any more")
    assert not refuses(port)


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # somebody listens, and has nobody to hand it to
    return False
