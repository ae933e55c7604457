"""The kinds of faults of the whole system's simulation."""

from __future__ import annotations

import random
from typing import Any

from tests.simulation.plan import Kind, Planned


def _any(rng: random.Random) -> dict[str, Any]:
    return {"host": rng.randrange(1000)}


def _two(rng: random.Random) -> dict[str, Any]:
    return {"host": rng.randrange(1000), "other": rng.randrange(1000)}


def _rate(most: float) -> Any:
    return lambda rng: {"rate": round(rng.uniform(0.01, most), 3)}


def _crash(rng: random.Random) -> dict[str, Any]:
    return {"host": rng.randrange(1000), "mode": rng.choice(("kill", "lost", "torn"))}


def _actor(rng: random.Random) -> dict[str, Any]:
    return {"host": rng.randrange(1000), "actor": rng.randrange(10_000)}


def _slow(rng: random.Random) -> dict[str, Any]:
    return {"host": rng.randrange(1000), "delay": round(rng.uniform(0.01, 2.0), 3)}


def _starved(rng: random.Random) -> dict[str, Any]:
    return {**_actor(rng), "delay": round(rng.uniform(0.01, 0.5), 3)}


def _skew(rng: random.Random) -> dict[str, Any]:
    return {"host": rng.randrange(1000), "step": round(rng.uniform(-3600.0, 3600.0), 1)}


def _some(rng: random.Random) -> dict[str, Any]:
    return {"hosts": tuple(rng.randrange(1000) for _ in range(rng.randint(2, 4))), "order": rng.randrange(1000)}


def _bit(rng: random.Random) -> dict[str, Any]:
    return {"host": rng.randrange(1000), "bit": rng.getrandbits(32)}


def _dice(rng: random.Random) -> dict[str, Any]:
    return {"host": rng.randrange(1000), "dice": rng.getrandbits(32)}


def _drift(rng: random.Random) -> dict[str, Any]:
    return {"host": rng.randrange(1000), "rate": round(rng.uniform(0.95, 1.05), 3)}


KINDS = {
    "loss": Kind((1, 2), (2.0, 20.0), _rate(0.3)),
    "duplication": Kind((1, 2), (2.0, 20.0), _rate(0.2)),
    "latency": Kind((1, 2), (2.0, 20.0), _rate(0.5)),
    "partition": Kind((1, 4), (0.1, 30.0), _any),
    "one-way partition": Kind((1, 3), (0.1, 20.0), _any),
    "partial partition": Kind((1, 3), (0.1, 20.0), _two),
    "leader cut off": Kind((1, 2), (1.0, 30.0)),
    "leader transfer": Kind((1, 3)),
    "clog": Kind((1, 2), (1.0, 10.0), _some),
    "reset": Kind((1, 5), (0.0, 0.0), _two),
    "crash": Kind((1, 5), (0.1, 15.0), _crash),
    "crash of all": Kind((1, 1), (0.1, 5.0), _crash),
    "crash at a point": Kind((2, 5), (0.1, 5.0), _crash),
    "actor": Kind((3, 12), (0.0, 0.0), _actor),
    "pause": Kind((1, 4), (0.1, 20.0), _any),
    "starvation": Kind((1, 6), (1.0, 10.0), _starved),
    "skew": Kind((1, 2), (0.0, 0.0), _skew),
    "drift": Kind((1, 2), (0.0, 0.0), _drift),
    "slow disk": Kind((1, 3), (1.0, 10.0), _slow),
    "disk full": Kind((1, 2), (1.0, 10.0), _any),
    "sync error": Kind((1, 2), (0.0, 0.0), _any),
    "bit flip": Kind((1, 1), (0.1, 5.0), _bit),
    "task killed": Kind((1, 6), (0.0, 0.0), _actor),
    "drain": Kind((1, 2), (2.0, 20.0), _any),
    "role change": Kind((1, 2), (5.0, 20.0), _any),
    "token rotation": Kind((1, 2), (0.0, 0.0)),
    "root rotation": Kind((1, 1)),
    "frequent snapshots": Kind((1, 1), (0.0, 0.0)),
}

USES = {
    "rolling update": Kind((1, 2), (0.0, 0.0), _dice),
    "job": Kind((1, 2), (0.0, 0.0), _dice),
    "job by the clock": Kind((2, 2), (25.0, 40.0), _dice),
    "start order": Kind((1, 1), (15.0, 40.0), _dice),
    "secrets": Kind((3, 3), (5.0, 30.0), _dice),
    "patience": Kind((1, 1), (0.0, 0.0), _dice),
    "removal": Kind((2, 2), (25.0, 45.0), _dice),
    "promotions": Kind((1, 1), (5.0, 20.0), _dice),
    "autolock": Kind((1, 1), (0.0, 0.0), _dice),
}
"""What is asked of the swarm besides (``swarm_uses``)."""
USED = 0.23
"""The share of seeds that each is drawn in."""

RARE = (
    "raft.one_entry_messages",
    "peer.full_queue",
    "peer.early_timeout",
    "peer.calls",
    "peer.link_lost",
    "snapshot.tiny_pieces",
    "store.short_history",
    "dispatcher.one_change",
    "snapshot.tiny_parts",
)
"""The legal but unusual paths of the code (``rare("...")``); each may be taken in half of the seeds."""
STRUCK = (*KINDS, *USES, *(f"rare {path}" for path in RARE))
"""All that is counted."""


def rare_paths(seed: int) -> list[Planned]:
    """Those of this seed, as faults of their own: they can be left out one by one."""
    on = [path for path in RARE if random.Random(f"{seed}/rare/{path}").random() < 0.5]
    return [Planned(1000 + RARE.index(path), 0.0, "rare path", 0.0, {"path": path}) for path in on]


def uses(seed: int, seconds: float) -> list[Planned]:
    """What is asked of the swarm in this seed, drawn apart from its faults, which stay what they were."""
    drawn = []
    for place, (name, kind) in enumerate(USES.items()):
        rng = random.Random(f"{seed}/use/{name}")
        for number in range(rng.randint(*kind.often) if rng.random() < USED else 0):
            at, lasts = rng.uniform(0.0, seconds), rng.uniform(*kind.lasting)
            drawn.append(Planned(2000 + 10 * place + number, at, name, lasts, kind.args(rng)))
    return drawn
