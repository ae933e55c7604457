"""Walks through chapters on both kinds at once; ``--record`` keeps dockerd's answers and swarmlet's differences."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.cli.transcript import Entry
from tests.interop.peers import Dockerd, Peer, Swarmlet
from tests.interop.walk.chapters import CHAPTERS, walk
from tests.interop.walk.compare import known, record, side_by_side, unlike_known
from tests.interop.walk.walker import Walk

LONG = 1.0
"""Seconds from which on it is printed how long a command took."""


def main() -> None:
    """What differs is printed; exit code 1 if something does that is not known."""
    parser = argparse.ArgumentParser(prog="python -m tests.interop.walk", description=__doc__)
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=", ".join(CHAPTERS))
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--only", choices=("dockerd", "swarmlet"))
    given = parser.parse_args()
    kinds: list[type[Peer]] = [kind for kind in (Dockerd, Swarmlet) if given.only in (None, kind.kind)]
    wrong = 0
    for name in given.chapters or CHAPTERS:
        with ThreadPoolExecutor(len(kinds)) as pool:
            walks = dict(zip((kind.kind for kind in kinds), pool.map(partial(walk, chapter=name), kinds), strict=True))
        for kind, done in walks.items():
            times(kind, done)
        if len(walks) == 1:
            show(next(iter(walks.values())).entries)
            continue
        theirs, ours = walks["dockerd"].entries, walks["swarmlet"].entries
        sys.stdout.write("\n".join(side_by_side(theirs, ours)))
        if given.record:
            record(name, theirs, ours)
        news = unlike_known(theirs, ours, known(name))
        wrong += len(news)
        sys.stdout.write(f"--- {name}: {len(theirs)} commands, {len(news)} differ in a way that is not known\n")
    sys.exit(1 if wrong else 0)


def times(kind: str, done: Walk) -> None:
    """What took long."""
    for entry, seconds in zip(done.entries, done.took, strict=True):
        if seconds >= LONG:
            sys.stdout.write(f"{kind} took {seconds:.1f} s: {entry.command}\n")


def show(entries: list[Entry]) -> None:
    """A walk on its own."""
    sys.stdout.write("\n".join(entry.text() for entry in entries))


if __name__ == "__main__":
    main()
