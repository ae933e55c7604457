"""A trace of a running node, by the command line, becomes a message test: saved, shown, loaded, told again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from runtime.introspection import recording
from runtime.wire.pb import control_pb2
from swarmlet import cli
from tests.integration.face.worlds import node, service
from tests.messages.test_control_actor import ControlBench
from tests.waiting import until

CONTROL = "/cluster/node/manager/control"


def test_what_a_running_node_was_asked_is_asked_again_of_an_actor_under_test(
    short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = str(short_path / "tuesday.trace")
    with node(short_path) as running:
        running.init()
        asked = ["trace", CONTROL, "--type", "Control", "--bodies", "--count", "2", "--save", saved]
        ended: list[int] = []
        command = [*asked, "--socket", running.introspection_socket]
        tracing = threading.Thread(target=lambda: ended.append(cli.main(command)))
        tracing.start()
        until(lambda: running.stage is not None and running.stage.tracer is not None)
        for name in ("web", "db"):
            running.control("CreateService", service(name, 0), control_pb2.CreateServiceResponse)
        tracing.join(60)
        assert ended == [0]
    shown = capsys.readouterr()
    assert "2 messages were traced" in shown.err
    for flags, text in (([], CONTROL), (["--sequence"], "Control"), (["--mermaid"], "sequenceDiagram")):
        assert cli.main(["trace", "--load", saved, *flags]) == 0
        assert text in capsys.readouterr().out

    sent_by_hand(short_path, saved, capsys)

    _, records = recording.load(Path(saved))
    bench = ControlBench()
    assert recording.replay(records, CONTROL, bench.control, bench.stage.at) == []
    bench.simulator.settle()
    made = bench.call("ListServices", control_pb2.ListServicesRequest()).services
    assert {each.spec.annotations.name for each in made} == {"web", "db"}


def sent_by_hand(short_path: Path, saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The second message once more, to a node in test mode; a node that is none refuses."""
    with node(short_path, "t1", test_mode=True) as running, node(short_path, "t2") as other:
        running.init()
        command = ["actor", CONTROL, "--send", saved, "--write", "--yes", "--socket"]
        assert cli.main([*command, running.introspection_socket, "--number", "2"]) == 0
        assert f"{CONTROL} was told a Control" in capsys.readouterr().out
        listed = control_pb2.ListServicesRequest(), control_pb2.ListServicesResponse
        (made,) = until(lambda: running.control("ListServices", *listed).services)
        assert made.spec.annotations.name == "db"
        assert cli.main([*command, running.introspection_socket, "--number", "3"]) == 1
        assert f"{saved} has 2 messages that {CONTROL} was told" in capsys.readouterr().err
        other.init()
        assert cli.main([*command, other.introspection_socket]) == 1
        assert "messages are sent by hand in test mode only" in capsys.readouterr().err
        assert not other.control("ListServices", *listed).services
