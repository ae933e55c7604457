"""The tree of actors in ARCHITECTURE.md is the tree that lives."""

from __future__ import annotations

import pathlib
import re

from swarmlet.testing.swarm import Swarm, replicated

TEXT = (pathlib.Path(__file__).resolve().parents[2] / "ARCHITECTURE.md").read_text(encoding="utf-8")
FOR_A_WHILE = ("/raft/join", "/watch/stream-*", "/updater-*", "/access/command-*")
"""Those that are there only while something is under way."""


def documented() -> set[str]:
    """Paths in the fenced tree: a line is a name, indented below its parent, or the names of leaves with dots between;
    in brackets behind a name are its children."""
    tree = TEXT.partition("## The tree")[2].partition("```\n")[2].partition("```")[0]
    paths: list[str] = []
    found: set[str] = set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = line.strip() if " · " in line else re.split(r"\s{2,}", line.strip())[0]
        for name in names.split(" · "):
            own, _, child = name.partition(" (")
            path = "/".join([*paths[:depth], own])
            found.add(path)
            if child:
                found.add(f"{path}/{child.removesuffix(')')}")
        paths[depth:] = [names.partition(" (")[0]]
    return found


def test_the_documented_tree_is_the_one_that_lives() -> None:
    swarm = Swarm(1)
    (host,) = swarm.boot()
    host.init()
    swarm.wait_running(host, host.control("CreateService", spec=replicated("web", 1)).service.id, 1)
    assert host.stage is not None
    living = {re.sub(r"/task-[a-z0-9]{25}$", "/task-ID", path) for path in host.stage.cells}
    assert living - documented() == set()
    assert sorted(path for path in documented() - living if not path.endswith(FOR_A_WHILE)) == []
