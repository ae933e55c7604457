"""The walk through a swarm of several machines: swarmlet answers as dockerd does, but for what is known."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cli import transcript
from tests.interop.peers import Dockerd, Swarmlet
from tests.interop.walk.chapters import CHAPTERS, walk
from tests.interop.walk.compare import known, recorded

RECORDED = tuple(name for name in CHAPTERS if recorded(name))


def test_each_difference_has_its_reason_and_is_one() -> None:
    assert RECORDED
    for chapter in RECORDED:
        answers = {(entry.command, nth): entry for entry, nth in transcript.numbered(recorded(chapter))}
        for each in known(chapter):
            assert len(each.why) > 20, each.command
            ours = transcript.Entry(each.command, each.code, each.out, each.err)
            assert ours != answers[each.command, each.nth], each.command


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not transcript.program(), reason="no docker command line 28.2 on this machine")
@pytest.mark.parametrize("chapter", RECORDED)
def test_both_kinds_answer_alike_but_for_the_known_differences(chapter: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        theirs, ours = pool.map(lambda kind: walk(kind, chapter).entries, (Dockerd, Swarmlet))
    transcript.check_alike(recorded(chapter), theirs, "dockerd answers otherwise than it was recorded")
    wanted = transcript.expected(theirs, known(chapter))
    transcript.check_alike(wanted, ours, "swarmlet answers otherwise than is known")
