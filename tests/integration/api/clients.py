"""HTTP clients of a node's unix socket."""

from __future__ import annotations

import json
from typing import Any

import docker
import requests
from docker.transport import UnixHTTPAdapter

from swarmlet import Node
from swarmlet.host import free_port

BASE = "http+docker://localhost"


def session(socket: str) -> requests.Session:
    """A session whose requests to ``BASE`` reach the socket."""
    made = requests.Session()
    made.mount("http+docker://", UnixHTTPAdapter(f"http+unix://{socket}", timeout=60))
    return made


def ask(client: requests.Session, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
    """One request; status and decoded body."""
    answer = client.request(method, BASE + path, json=body, timeout=60, **more)
    return answer.status_code, json.loads(answer.text) if answer.text.strip() else None


def docker_client(node: Node) -> docker.DockerClient:
    """docker-py as its users make it."""
    return docker.DockerClient(base_url=f"unix://{node.api_socket}", timeout=60)


def init_body() -> dict[str, Any]:
    """A swarm on the loopback address, at a port of its own."""
    return {"ListenAddr": f"127.0.0.1:{free_port('127.0.0.1')}", "AdvertiseAddr": "127.0.0.1", "Spec": {}}
