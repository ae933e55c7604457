"""Runs that failed once, kept as data: the seed and the very faults that it took, whatever the seed draws today.

    {"system": "swarm", "seed": 0, "why": "...", "faults": [{"number": 3, "at": 1.5, "kind": "crash", ...}, ...]}

``python -m tests.simulation.simulate swarm 100 --keep`` writes one for each seed that fails, with its shrunk faults.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.simulation.plan import Planned

HERE = pathlib.Path(__file__).parent / "kept"


@dataclass(frozen=True, slots=True)
class Kept:
    """One run; ``why`` says for people what went wrong in it."""

    system: str
    seed: int
    why: str
    faults: tuple[Planned, ...]


def save(kept: Kept, directory: pathlib.Path = HERE) -> pathlib.Path:
    """Writes a run, over one of the same system and seed; the file."""
    path = directory / f"{kept.system}-{kept.seed}.json"
    directory.mkdir(exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(kept), indent=1) + "\n", encoding="utf-8")
    return path


def load(path: pathlib.Path) -> Kept:
    """What ``save`` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return Kept(found["system"], found["seed"], found["why"], tuple(_fault(each) for each in found["faults"]))


def all_kept(directory: pathlib.Path = HERE) -> Sequence[pathlib.Path]:
    """The files, in the order of their names."""
    return sorted(directory.glob("*.json"))


def _fault(found: dict[str, Any]) -> Planned:
    args = {name: tuple(value) if isinstance(value, list) else value for name, value in found["args"].items()}
    return Planned(found["number"], found["at"], found["kind"], found["seconds"], args)
