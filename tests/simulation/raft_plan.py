"""The kinds of faults of the consensus simulation, after the ranges of TigerBeetle's and FoundationDB's."""

from __future__ import annotations

import random
from typing import Any

from tests.simulation.plan import Kind


def _member(rng: random.Random) -> dict[str, Any]:
    return {"member": rng.randrange(5)}


def _two(rng: random.Random) -> dict[str, Any]:
    one, other = rng.sample(range(5), 2)
    return {"member": one, "other": other}


def _some(rng: random.Random) -> dict[str, Any]:
    return {"members": tuple(sorted(rng.sample(range(5), rng.randint(1, 2))))}


def _rate(most: float) -> Any:
    return lambda rng: {"rate": round(rng.uniform(0.01, most), 3)}


def _crash(rng: random.Random) -> dict[str, Any]:
    return {"member": rng.randrange(5), "mode": rng.choice(("kill", "lost", "torn"))}


def _slow(rng: random.Random) -> dict[str, Any]:
    return {"member": rng.randrange(5), "sync": round(rng.uniform(0.01, 2.0), 3)}


def _drift(rng: random.Random) -> dict[str, Any]:
    return {"member": rng.randrange(5), "rate": round(rng.uniform(0.95, 1.05), 3)}


KINDS = {
    "loss": Kind((1, 2), (2.0, 30.0), _rate(0.3)),
    "duplication": Kind((1, 2), (2.0, 30.0), _rate(0.2)),
    "reordering": Kind((1, 2), (2.0, 30.0), _rate(0.5)),
    "partition": Kind((1, 5), (0.1, 15.0), _some),
    "one-way partition": Kind((1, 3), (0.1, 15.0), _some),
    "partial partition": Kind((1, 4), (0.1, 15.0), _two),
    "leader cut off": Kind((1, 3), (0.1, 15.0)),
    "clog": Kind((1, 3), (0.1, 5.0), _some),
    "crash": Kind((1, 8), (0.05, 8.0), _crash),
    "crash of all": Kind((1, 1), (0.05, 3.0), _crash),
    "pause": Kind((1, 5), (0.1, 15.0), _member),
    "starvation": Kind((1, 8), (0.01, 0.5), _member),
    "drift": Kind((1, 2), (10.0, 60.0), _drift),
    "slow disk": Kind((1, 3), (1.0, 15.0), _slow),
    "sync error": Kind((1, 2), (0.1, 0.1), _member),
    "leader transfer": Kind((1, 4), (0.0, 0.0), _member),
    "member removed": Kind((1, 2), (1.0, 10.0), _member),
    "one-entry messages": Kind((1, 1), (60.0, 60.0)),
    "frequent snapshots": Kind((1, 1), (60.0, 60.0)),
}
