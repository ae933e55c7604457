"""What an actor says of a moment: to the log with its fields, to whoever listens, and without what is to be hidden."""

from __future__ import annotations

import logging

import pytest

from runtime.stage import Actor, handles
from runtime.stage.observe import Moment
from runtime.stage.simulator import Simulator

log = logging.getLogger("swarmlet.tests")


class Tells(Actor):
    @handles(str)
    def tell_of(self, message: str) -> None:
        about = {"task_id": "t1", "node_id": "", "state": "failed"}
        self.moment(log, "task", "fail", f"it failed: {message}", id="t1", level=logging.WARNING, **about)


def test_a_moment_is_a_line_of_the_log_and_an_event_for_whoever_listens(caplog: pytest.LogCaptureFixture) -> None:
    simulator = Simulator(seed=1)
    stage = simulator.node("n1")
    stage.hide = lambda text: text.replace("hush", "(hidden)")
    heard: list[Moment] = []
    stage.moment_listeners.append(heard.append)
    teller = stage.mount("tells", Tells)
    with caplog.at_level(logging.INFO, logger="swarmlet"):
        teller.tell("hush")
        simulator.settle()
    ((line,), (moment,)) = caplog.records, heard
    assert (line.name, line.levelno, line.getMessage()) == (log.name, logging.WARNING, "it failed: (hidden)")
    fields = {name: getattr(line, name, None) for name in ("node", "actor", "task_id", "node_id", "state")}
    assert fields == {"node": "n1", "actor": "/tells", "task_id": "t1", "node_id": None, "state": None}
    assert (moment.path, moment.type, moment.action, moment.id) == ("/tells", "task", "fail", "t1")
    assert moment.attributes == {"text": "it failed: (hidden)", "task_id": "t1", "state": "failed"}
    assert moment.at == stage.world.clock.now()
