"""A published service of processes on two machines: each of them takes connections, wherever the tasks are."""

from __future__ import annotations

import subprocess
import sys

from tests.interop.fixtures import Start
from tests.interop.peers import Peer, Swarmlet
from tests.waiting import until

AT_BETA = "node.hostname==beta"
ASK = (
    "import sys, urllib.request as http\n"
    "direct = http.build_opener(http.ProxyHandler({}))\n"  # whatever proxies this machine has
    "print(direct.open(sys.argv[1], timeout=20).read().decode())\n"
)
SERVE = (
    "import http.server, os, socket\n"
    "class Handler(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200); self.end_headers(); self.wfile.write(socket.gethostname().encode())\n"
    "    def log_message(self, *_): pass\n"
    "http.server.ThreadingHTTPServer(('', int(os.environ['PORT'])), Handler).serve_forever()\n"
)


ASK_UDP = (
    "import socket, sys\n"
    "client = socket.socket(type=socket.SOCK_DGRAM)\n"
    "client.settimeout(5)\n"
    "client.connect((sys.argv[1], 5353))\n"  # so that answers from elsewhere are not heard
    "client.send(b'who?')\n"
    "print(client.recv(100).decode())\n"
)
SERVE_UDP = (
    "import os, socket\n"
    "server = socket.socket(type=socket.SOCK_DGRAM)\n"
    "server.bind(('', int(os.environ['PORT'])))\n"
    "while True:\n"
    "    data, client = server.recvfrom(100)\n"
    "    server.sendto(socket.gethostname().encode(), client)\n"
)


def ask(here: Peer, address: str) -> str:
    """Who answers at port 8080 of an address, asked from a machine; "" if nobody does."""
    return _said(here, ASK, f"http://{address}:8080/")


def _said(here: Peer, program: str, *arguments: str) -> str:
    command = ["nsenter", f"--net=/run/netns/{here.namespace}", sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip()


def two(start: Start) -> tuple[Peer, Peer]:
    """A manager, alpha, and a worker, beta."""
    manager, worker = start(Swarmlet, "alpha"), start(Swarmlet, "beta")
    manager.init()
    worker.join(manager)
    manager.wait_state(worker, "ready")
    return manager, worker


def test_every_node_takes_connections_for_tasks_on_any_node(start: Start) -> None:
    manager, worker = two(start)
    manager.docker(
        "service", "create", "--detach", "--name", "web", "--publish", "8080:80", "--constraint", AT_BETA,
        "host", "python3", "-c", SERVE,
    )  # fmt: skip
    manager.wait_tasks("web", 1, at=worker)
    for address in (manager.address, worker.address):
        until(lambda address=address: ask(manager, address) == "beta", f"beta's task answers at {address}")  # type: ignore[misc]
    manager.docker("service", "update", "--detach", "--constraint-rm", AT_BETA, "--replicas", "4", "web")
    until(lambda: {ask(worker, worker.address) for _ in range(4)} == {"alpha", "beta"}, "tasks of both answer")
    manager.docker("service", "rm", "web")
    until(lambda: ask(manager, worker.address) == "", "nobody listens any more")


def test_every_node_takes_datagrams_for_tasks_on_any_node(start: Start) -> None:
    manager, worker = two(start)
    manager.docker(
        "service", "create", "--detach", "--name", "dns", "--publish", "5353:53/udp", "--constraint", AT_BETA,
        "host", "python3", "-c", SERVE_UDP,
    )  # fmt: skip
    manager.wait_tasks("dns", 1, at=worker)
    for address in (manager.address, worker.address):
        asked = f"beta's task answers from {address}"
        until(lambda address=address: _said(worker, ASK_UDP, address) == "beta", asked)  # type: ignore[misc]
    manager.docker("service", "update", "--detach", "--constraint-rm", AT_BETA, "--replicas", "4", "dns")
    until(lambda: {_said(worker, ASK_UDP, manager.address) for _ in range(4)} == {"alpha", "beta"}, "both answer")
    manager.docker("service", "rm", "dns")
    until(lambda: _said(manager, ASK_UDP, worker.address) == "", "nobody listens any more")
