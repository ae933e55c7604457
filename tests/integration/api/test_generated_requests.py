"""Ten thousand generated requests at every endpoint of a real node: each is answered as the engine would answer it, the
node lives on, and what is secret in them shows up nowhere."""

from __future__ import annotations

import base64
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from runtime.engine_api import openapi
from runtime.engine_api.router import ROUTES
from runtime.engine_api.routes import later
from tests.integration.api.clients import BASE, ask, init_body, session
from tests.integration.face.worlds import node

REQUESTS = 10_000
REFUSED_EACH = 20  # whatever is not offered is refused before anything is read
CANARY = "canary-5c1d7e"
ENCODED = base64.b64encode(CANARY.encode()).decode().rstrip("=")
CHANGES_THE_SWARM = {"POST /swarm/init": 60, "POST /swarm/join": 30, "POST /swarm/leave": 15, "POST /swarm/unlock": 60}
DOCKERS_OWN = re.compile(
    r"rpc error: code = (Unknown|DeadlineExceeded) desc = |"
    r"Invalid (role|membership|desired-state) filter|unsupported registryAuthFrom|unrecognized rollback option|"
    r"network .* not found|tail value must be|negative tail values|subnet size is out of range|invalid CIDR|"
    r"Datapath port number|service does not use container tasks|service does not have a previous spec|"
    r"plugin spec must be set|runtime type|unsupported runtime|invalid Availability|invalid name: |"
    r"invalid join token|manager stopped: |swarm component could not be started|update out of sequence|"
    r"remote CA does not match fingerprint|failed to parse value as time|more than one until filter|"
    r"^Cannot kill container: .* does not support signal|^Invalid escape keys|^Couldn't find PID field|^ps: ",
    re.S,
)
PATHS = ("web", "m1", "key", "conf", "nosuch")


class Fuzzed:
    """A node in a swarm with a service, a secret and a config, and a client of it."""

    def __init__(self, socket: str) -> None:
        self.client = session(socket)
        self.statuses: Counter[int] = Counter()
        self.bad: list[str] = []
        self.begin()

    def begin(self) -> None:
        """A swarm with something in it."""
        status, text = ask(self.client, "POST", "/swarm/init", init_body())
        assert status in (200, 503), text
        ask(self.client, "POST", "/secrets/create", {"Name": "key", "Data": base64.b64encode(CANARY.encode()).decode()})
        ask(self.client, "POST", "/configs/create", {"Name": "conf", "Data": "aGVsbG8="})
        spec = {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "host", "Args": ["run"]}}}
        ask(self.client, "POST", "/services/create", spec, headers={"X-Registry-Auth": CANARY})

    def in_swarm(self) -> None:
        """Founds another swarm where the last request ended this one."""
        state = self.client.get(BASE + "/_ping", timeout=60).headers.get("Swarm", "")
        if state == "inactive":
            self.begin()

    def send(self, route: str, case: Any) -> None:
        """One request, and what has to be true of its answer."""
        if route in CHANGES_THE_SWARM:
            self.in_swarm()
        sent = case.as_transport_kwargs(base_url="http://localhost")
        sent["url"] = BASE + sent["url"].removeprefix("http://localhost")
        sent["headers"] = {key: str(value).encode() for key, value in (sent.get("headers") or {}).items()}
        try:
            answer = self.client.request(**sent, stream=route in openapi.STREAMS, timeout=60)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, UnicodeError):
            return  # no client can send it
        self.statuses[answer.status_code] += 1
        if route in openapi.STREAMS and answer.status_code == 200:
            answer.close()
            return
        self.look(route, answer)

    def look(self, route: str, answer: requests.Response) -> None:
        """Wrong statuses, texts that no engine says, failures of our own, secrets."""
        text = answer.text
        if CANARY in text or ENCODED in text:
            self.bad.append(f"{route}: a secret in {text[:300]}")
        if answer.status_code >= 400 and not route.startswith("HEAD "):
            message = json.loads(text)["message"]
            if answer.status_code == 500 and not DOCKERS_OWN.search(message):
                self.bad.append(f"{route}: 500 {message[:300]}")
            if "internal error" in message:
                self.bad.append(f"{route}: {answer.status_code} {message[:300]}")
        if answer.status_code not in (200, 201, 204, 400, 403, 404, 409, 500, 501, 503, 401):
            self.bad.append(f"{route}: status {answer.status_code}")


@pytest.fixture
def fuzzed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Fuzzed]:
    caplog.set_level(logging.DEBUG, "swarmlet")
    with node(tmp_path, "m1") as running:
        yield Fuzzed(str(running.api_socket))


def operations() -> list[Any]:
    """Every route as schemathesis understands it, by ``METHOD /path``."""
    document = json.loads(json.dumps(openapi.document(ROUTES, "test")))
    found = [result.ok() for result in schemathesis.openapi.from_dict(document).get_all_operations()]
    assert len(found) == len(ROUTES)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ten_thousand_requests_are_answered_and_tell_no_secret(
    fuzzed: Fuzzed, caplog: pytest.LogCaptureFixture
) -> None:
    every = operations()
    each = REQUESTS // 28  # those without anything to say are asked once
    for operation in every:
        route = f"{operation.method.upper()} {operation.path.replace('{id}', '*')}"
        fuzzed.in_swarm()
        fuzz(fuzzed, operation, route, CHANGES_THE_SWARM.get(route, REFUSED_EACH if route in later.ROUTES else each))
        if route not in CHANGES_THE_SWARM:
            named(fuzzed, operation, route)
    assert fuzzed.bad == []
    assert fuzzed.statuses.total() - fuzzed.statuses[501] >= REQUESTS
    fuzzed.in_swarm()
    assert ask(fuzzed.client, "GET", "/info")[1]["Swarm"]["LocalNodeState"] == "active"
    assert CANARY not in caplog.text
    assert ENCODED not in caplog.text


def fuzz(fuzzed: Fuzzed, operation: Any, route: str, count: int) -> None:
    """So many generated requests of one route."""

    @settings(
        max_examples=count, database=None, phases=[Phase.generate], derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def send(case: Any) -> None:
        fuzzed.send(route, case)

    hypothesis.seed(1)(send)()


def named(fuzzed: Fuzzed, operation: Any, route: str) -> None:
    """The same route with things that are there."""
    if "*" not in route or route.startswith("DELETE"):
        return
    for name in PATHS:
        answer = fuzzed.client.request(
            route.partition(" ")[0], BASE + operation.path.replace("{id}", name), timeout=60,
            stream=route in openapi.STREAMS, headers={"Content-Type": "application/json"},
        )  # fmt: skip
        if route not in openapi.STREAMS:
            fuzzed.look(route, answer)
        answer.close()


def test_the_document_names_every_route_and_is_served(tmp_path: Path) -> None:
    with node(tmp_path, "m1") as running:
        status, served = ask(session(str(running.api_socket)), "GET", "/openapi.json")
    assert status == 200
    told = {f"{method.upper()} {path}" for path, methods in served["paths"].items() for method in methods}
    assert told == {route.replace("*", "{id}") for route in ROUTES}


@pytest.mark.parametrize("table", [openapi.BODIES, openapi.QUERIES, openapi.HEADERS])
def test_what_is_written_by_hand_is_of_routes_that_are_there(table: dict[str, Any]) -> None:
    assert set(table) <= set(ROUTES)
    assert set(openapi.STREAMS) <= set(ROUTES)
