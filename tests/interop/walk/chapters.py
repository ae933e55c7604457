"""All chapters, and how one is walked through."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from tests.interop.lab import Lab
from tests.interop.peers import Peer
from tests.interop.walk import external, keys, lock, membership, recovery, roles, services, shown, trouble
from tests.interop.walk.walker import Walk

CHAPTERS: dict[str, Callable[[Walk], None]] = {
    **membership.CHAPTERS,
    **roles.CHAPTERS,
    **trouble.CHAPTERS,
    **keys.CHAPTERS,
    **external.CHAPTERS,
    **lock.CHAPTERS,
    **recovery.CHAPTERS,
    **shown.CHAPTERS,
    **services.CHAPTERS,
}


def walk(kind: type[Peer], chapter: str) -> Walk:
    """On machines of its own, which are gone afterwards. What was walked is shown if it cannot go on."""
    lab = Lab()
    done = Walk(kind, lab)
    try:
        CHAPTERS[chapter](done)
    except Exception:
        sys.stdout.write(f"--- {kind.kind} could not go on in {chapter}\n{traceback.format_exc()}\n")
        sys.stdout.write("\n".join(entry.text() for entry in done.entries[-6:]))
        for peer in done.peers.values():
            sys.stdout.write(f"\n--- log of {peer.name}\n{peer.tail(25)}\n")
        raise
    finally:
        lab.end()
    return done
