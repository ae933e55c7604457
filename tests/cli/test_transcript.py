"""The same docker commands against dockerd and against swarmlet: what is alike, and what is known to differ."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmlet.host import free_port
from tests.cli import transcript
from tests.integration.daemon.program import Daemon
from tests.interop.lab import Lab, missing
from tests.interop.peers import Dockerd, Swarmlet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not transcript.program(), reason="no docker command line 28.2 on this machine"),
]


class Alone(Daemon):
    """A daemon of ours on the loopback address."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, "127.0.0.1", "--hostname", "m1", "--stop-tasks-on-exit")
        self.port = free_port("127.0.0.1")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    daemon = Alone(tmp_path / "d")
    daemon.start()
    yield daemon
    assert daemon.process is not None
    daemon.process.terminate()
    daemon.process.wait(60)


def test_there_are_at_least_120_commands_and_each_difference_has_its_reason() -> None:
    commands = [line for line in transcript.script() if not line.startswith("@")]
    assert len(commands) >= 120
    assert [each.command for each in transcript.read()] == commands
    known = transcript.differences()
    transcript.expected(transcript.read(), known)
    assert all(len(each.why) > 20 for each in known)
    recorded = {(entry.command, nth): entry for entry, nth in transcript.numbered(transcript.read())}
    same = [
        each.command
        for each in known
        if transcript.Entry(each.command, each.code, each.out, each.err) == recorded[each.command, each.nth]
    ]
    assert same == []


def test_swarmlet_answers_as_dockerd_was_recorded(alone: Alone, tmp_path: Path) -> None:
    wanted = transcript.expected(transcript.read(), transcript.differences())
    found = list(transcript.run(alone, tmp_path))
    transcript.check_alike(wanted, found)


@pytest.mark.root
@pytest.mark.skipif(bool(missing()), reason=missing() or "real peers can be had here")
def test_dockerd_and_swarmlet_answer_alike_but_for_the_known_differences() -> None:
    answers = {}
    for kind in (Dockerd, Swarmlet):
        with contextlib.ExitStack() as stack:
            lab = Lab()
            stack.callback(lab.end)
            answers[kind.kind] = list(transcript.run(transcript.begin(kind(lab, "m1")), lab.root))
    transcript.check_alike(transcript.read(), answers["dockerd"], "dockerd answers otherwise than it was recorded")
    wanted = transcript.expected(answers["dockerd"], transcript.differences())
    transcript.check_alike(wanted, answers["swarmlet"], "swarmlet answers otherwise than is known")
