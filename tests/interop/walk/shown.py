"""What the API shows of a swarm and its nodes, as it is sent, in each state of a machine."""

from __future__ import annotations

import json
from typing import Any

from tests.interop.walk.walker import Walk

SWARM = "info --format '{{json .Swarm}}'"
INIT = "swarm init --advertise-addr {m1} --cert-expiry 100h --dispatcher-heartbeat 7s --default-addr-pool 10.70.0.0/16"
PATHS = (
    "/swarm", "/swarm/unlockkey", "/nodes", "/nodes/x", "/services", "/services/x", "/services/x/logs?stdout=1",
    "/tasks", "/tasks/x", "/secrets", "/secrets/x", "/configs", "/configs/x",
)  # fmt: skip


def shown(w: Walk) -> None:
    """A manager and a worker: out of a swarm, in one, locked, and out of it again."""
    w.start("m1", "w1")
    w("m1", SWARM)
    w("m1", INIT)
    w.tokens_of("m1")
    w("w1", "swarm join --token {worker} {m1}:2377")
    w.settle("m1")
    w.at_each(SWARM)
    w.does("the swarm", lambda: lines(w.peers["m1"].get("/swarm")))
    w.does("its nodes", lambda: lines(sorted((of_swarm(node) for node in w.peers["m1"].get("/nodes")), key=name)))
    w.does("asked of a worker", lambda: asked(w, "w1"))
    w.does(
        "asked of a manager", lambda: asked(w, "m1", "/nodes/x", "/services/x", "/tasks/x", "/secrets/x", "/configs/x")
    )
    w("m1", "swarm update --autolock=true --max-snapshots 2 --snapshot-interval 500 --task-history-limit 7")
    w.does("the swarm", lambda: lines(w.peers["m1"].get("/swarm")))
    w.pause(2.0)
    w.restart("m1")
    w.wait("it is locked", lambda: w.state("m1") == "locked")
    w("m1", SWARM)
    w.does("asked of a locked manager", lambda: asked(w, "m1"))
    w("m1", "swarm leave --force")
    w("m1", SWARM)
    w.does("asked out of a swarm", lambda: asked(w, "m1"))


def lines(answer: Any) -> str:
    """JSON, its keys in order, a line for each value."""
    return json.dumps(answer, indent=1, sort_keys=True)


def asked(w: Walk, at: str, *paths: str) -> str:
    """What these GETs are answered there, or all of ``PATHS``."""
    answers = [(path, *w.peers[at].call("GET", path)) for path in paths or PATHS]
    return "\n".join(f"{path}: {status} {json.dumps(answer)}" for path, status, answer in answers)


def name(node: dict[str, Any]) -> str:
    return str(node["Description"]["Hostname"])


def of_swarm(node: dict[str, Any]) -> dict[str, Any]:
    """A node without what is its engine's."""
    described = node["Description"]
    described.pop("Engine")
    described["Resources"] = sorted(described["Resources"])
    return node


CHAPTERS = {"shown": shown}
