"""Crash points: the documentation's list is the code's, and a swarm outlives the death of a node at each of them."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

from tests.simulation.plan import Planned
from tests.simulation.swarm_run import SwarmSimulation

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTED = re.findall(
    r"^\| `([a-z_.]+)` \| (?!rare:)", (ROOT / "docs/crash-points.md").read_text(encoding="utf-8"), re.MULTILINE
)
MODES = ("kill", "lost", "torn")
SEED = 2

# What it takes for these has runs of its own, in the tests of locked managers and of recovery.
ELSEWHERE = {"dek.after_rotate", "dek.before_rotate", "dek.half_reencrypted", "force.after_write", "force.before_write"}


def named_in_code() -> Iterator[str]:
    """Every constant that is given to ``failpoint``, or to what hands it on: ``before_sync=``, ``_note()``."""
    for top in ("actors", "runtime", "swarmlet"):
        for path in sorted((ROOT / top).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                given = [k.value for k in node.keywords if k.arg == "before_sync"]
                if name == "failpoint" or (name == "_note" and path.name == "tasks.py"):
                    given += node.args[:1]
                for argument in given:
                    yield from texts(argument)


def texts(argument: ast.expr) -> list[str]:
    """The names that an expression may be; a snapshot's kind is one of two."""
    if isinstance(argument, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "*" for part in argument.values]
        return ["".join(map(str, parts)).replace("*", kind) for kind in ("snap", "install")]
    return [argument.value] if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else []


def faults() -> list[Planned]:
    """What it takes to come to the points: snapshots, managers that leave and come back, a new root, an election."""
    return [
        Planned(0, 1.0, "frequent snapshots", 0.0, {}),
        Planned(1, 4.0, "role change", 14.0, {"host": 1}),
        Planned(2, 6.0, "role change", 18.0, {"host": 2}),
        Planned(3, 8.0, "task killed", 0.0, {"host": 0, "actor": 0}),
        Planned(4, 9.0, "root rotation", 0.0, {}),
        Planned(5, 44.0, "leader cut off", 12.0, {}),
    ]


def die_at(point: str, mode: str) -> None:
    simulation = SwarmSimulation(SEED, faults(), point=point, mode=mode, seconds=60.0).run()
    assert simulation.died >= 1, f"nobody came to {point}"


REACHED = sorted(set(DOCUMENTED) - ELSEWHERE)


def test_the_documented_points_are_those_of_the_code_and_at_least_thirty() -> None:
    code = sorted(named_in_code())
    assert len(code) == len(set(code)), "a name is used twice"
    assert sorted(DOCUMENTED) == code
    assert len(code) >= 30


def test_a_run_comes_to_every_point_but_those_that_have_runs_of_their_own() -> None:
    simulation = SwarmSimulation(SEED, faults(), seconds=60.0).run()
    assert sorted(set(DOCUMENTED) - set(simulation.points)) == sorted(ELSEWHERE)


def test_a_node_dies_at_a_point_and_the_swarm_comes_to_rest() -> None:
    die_at("append.after_write_before_sync", "torn")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("point", REACHED)
def test_a_node_dies_at_each_point_in_each_way_and_the_swarm_comes_to_rest(point: str, mode: str) -> None:
    die_at(point, mode)


def test_points_with_runs_of_their_own_are_named_in_those() -> None:
    tests = "\n".join(
        path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if path.name != pathlib.Path(__file__).name
    )
    assert [point for point in sorted(ELSEWHERE) if f'"{point}"' not in tests] == []
