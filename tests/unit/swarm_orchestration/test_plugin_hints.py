"""Which plugin a task waits for, and which resource that it asks for by name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from runtime.swarm.generic import named
from runtime.swarm.plugin_hints import plugin_hints
from runtime.wire.pb import objects_pb2 as objects
from tests.unit.swarm_orchestration.placing import changed, service, task
from tests.unit.swarm_orchestration.test_filters import with_log, with_plugins, with_volume
from tests.unit.swarm_orchestration.test_scheduling import Bench

NONE = with_plugins()
NFS = with_plugins(("Volume", "nfs"), ("Log", "json-file"))


@pytest.mark.parametrize(
    ("asked", "nodes", "said"),
    [
        (with_volume("nfs"), [], []),
        (with_volume("nfs"), [NFS, NFS], []),
        (with_volume("nfs"), [NONE], ["the volume driver nfs is not there"]),
        (with_volume("nfs"), [NONE, NONE], ["the volume driver nfs is on none of 2 nodes"]),
        (with_volume("nfs"), [NFS, NONE, NONE], ["the volume driver nfs is on 1 of 3 nodes"]),
        (with_log("syslog"), [NFS], ["the log driver syslog is not there"]),
        (with_log("syslog"), [NONE], []),
    ],
)
def test_each_plugin_that_some_node_lacks_is_named(
    asked: objects.Task, nodes: Sequence[objects.Node], said: list[str]
) -> None:
    assert plugin_hints(nodes, asked) == said


def test_several_plugins_are_named_each() -> None:
    asked = with_volume("nfs")
    asked.networks.add().network.driver_state.name = "weave"
    assert plugin_hints([NONE], asked) == [
        "the network driver weave is not there",
        "the volume driver nfs is not there",
    ]


@pytest.mark.parametrize("preassigned", [False, True])
def test_a_task_that_waits_for_a_plugin_says_for_which(preassigned: bool) -> None:
    asked = with_volume("nfs")
    if preassigned:
        asked.node_id = "n"
    bench = Bench(NONE, service(), asked)
    bench.run()
    said = "no suitable node (missing plugin on 1 node); the volume driver nfs is not there"
    assert bench.err("t") == said
    bench.put(changed(NONE, lambda new: new.description.engine.plugins.add(type="Volume", name="nfs")))
    bench.run()
    assert bench.err("t") == ""


def test_a_task_that_waits_for_something_else_does_not_name_its_plugins() -> None:
    asked = with_volume("nfs")
    asked.spec.resources.reservations.nano_cpus = 10**15
    bench = Bench(NFS, service(), asked)
    bench.run()
    assert bench.err("t") == "no suitable node (insufficient resources on 1 node)"


def test_a_task_that_asks_for_a_resource_by_name_waits_and_says_what_to_ask_for() -> None:
    gpus = changed(NONE, lambda new: new.description.resources.generic.append(named("gpu", "a")))
    asked = task("t", generic=[named("gpu", "a")])
    bench = Bench(gpus, service(), asked)
    bench.run()
    assert bench.err("t") == (
        "no suitable node (insufficient resources on 1 node); "
        'gpu is asked for by the name "a", which no task is ever given: ask for a number of them'
    )
