"""What containers of a compose file mount, and which networks they are on."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToDict

from runtime.executor.container_plan import make_plan
from runtime.wire.pb import types_pb2
from swarmlet import compose
from swarmlet.compose_networks import CHOSEN, NOT_CHOSEN
from swarmlet.compose_values import ComposeError
from tests.unit.executor.builders import context, task
from tests.unit.executor.test_container_plan import SETTINGS

VOLUMES = {
    "data": None,
    "fast": {"driver": "nvme", "driver_opts": {"size": 5}, "labels": ["a=b"], "name": "speedy"},
    "there": {"external": True},
    "old": {"external": {"name": "older"}},
}
LABELS = {"com.docker.stack.namespace": "st"}


def load(service: dict[str, Any], *, local: bool = False, **sections: Any) -> compose.Stack:
    content = {"services": {"web": {"image": "busybox", **service}}, **sections}
    return compose.load(yaml.safe_dump(content), "st", {"HOME": "/home/me"}, None, "/srv/app", local)


def mounts(*entries: Any, **service: Any) -> list[types_pb2.Mount]:
    stack = load({"volumes": list(entries), **service}, volumes=VOLUMES)
    assert stack.warnings == ()
    return list(stack.services[0].task.container.mounts)


def faults(service: dict[str, Any], **settings: Any) -> list[str]:
    with pytest.raises(ComposeError) as refused:
        load(service, **settings)
    return refused.value.faults


def shown(mount: types_pb2.Mount) -> dict[str, Any]:
    return MessageToDict(mount, preserving_proto_field_name=True)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("/data", {"type": "VOLUME", "target": "/data"}),
        ("data:/data:ro", {"type": "VOLUME", "source": "st_data", "target": "/data", "readonly": True,
                           "volume_options": {"labels": LABELS}}),
        ("data:/data:nocopy,rw", {"type": "VOLUME", "source": "st_data", "target": "/data",
                                  "volume_options": {"nocopy": True, "labels": LABELS}}),
        ("fast:/f", {"type": "VOLUME", "source": "speedy", "target": "/f", "volume_options": {
            "labels": {"a": "b", **LABELS}, "driver_config": {"name": "nvme", "options": {"size": "5"}}}}),
        ("there:/t", {"type": "VOLUME", "source": "there", "target": "/t"}),
        ("old:/t", {"type": "VOLUME", "source": "older", "target": "/t"}),
        ("/etc/hosts:/h:ro", {"type": "BIND", "source": "/etc/hosts", "target": "/h", "readonly": True}),
        ("./conf:/c", {"type": "BIND", "source": "/srv/app/conf", "target": "/c"}),
        ("../x:/c:rslave,cached", {"type": "BIND", "source": "/srv/x", "target": "/c",
                                   "bind_options": {"propagation": "RSLAVE"}}),
        ("~/x:/c", {"type": "BIND", "source": "/home/me/x", "target": "/c"}),
        ({"type": "bind", "source": "rel", "target": "/c", "read_only": True,
          "bind": {"propagation": "shared", "create_host_path": True}},
         {"type": "BIND", "source": "/srv/app/rel", "target": "/c", "readonly": True,
          "bind_options": {"propagation": "SHARED", "createmountpoint": True}}),
        ({"type": "volume", "source": "there", "target": "/v", "volume": {"nocopy": True, "subpath": "a/b"}},
         {"type": "VOLUME", "source": "there", "target": "/v", "volume_options": {"nocopy": True, "subpath": "a/b"}}),
        ({"type": "volume", "target": "/v"}, {"type": "VOLUME", "target": "/v"}),
        ({"type": "tmpfs", "target": "/t", "tmpfs": {"size": "1m", "mode": "1777"}},
         {"type": "TMPFS", "target": "/t", "tmpfs_options": {"size_bytes": "1048576", "mode": 0o1777}}),
    ],
)  # fmt: skip
def test_an_entry_of_volumes_is_a_mount_that_the_engine_can_make(entry: Any, expected: dict[str, Any]) -> None:
    (mount,) = mounts(entry)
    assert {"type": "BIND", **shown(mount)} == expected
    made = task("t", "run", image="busybox")
    made.spec.container.mounts.add().CopyFrom(mount)
    plan = make_plan(made, context(), SETTINGS)
    assert plan.create["HostConfig"]["Mounts"][0]["Target"] == mount.target


def test_what_is_in_memory_is_a_tmpfs() -> None:
    assert [shown(each) for each in mounts(tmpfs=["/run", "/tmp:size=2k,mode=700"])] == [
        {"type": "TMPFS", "target": "/run"},
        {"type": "TMPFS", "target": "/tmp", "tmpfs_options": {"size_bytes": "2048", "mode": 0o700}},
    ]
    assert [each.target for each in mounts(tmpfs="/one")] == ["/one"]


@pytest.mark.parametrize(
    ("service", "fault"),
    [
        ({"volumes": ["nosuch:/x"]}, "volumes[0]: the file's section volumes has no 'nosuch'"),
        ({"volumes": ["a:b:c:d"]}, "must be [SOURCE:]TARGET[:MODE]"),
        ({"volumes": [":/x"]}, "must be [SOURCE:]TARGET[:MODE]"),
        ({"volumes": ["data:rel"]}, "the target must be an absolute path, not 'rel'"),
        ({"volumes": ["data:/x", "/etc:/x/"]}, "something else is mounted at /x/ already"),
        ({"volumes": ["/x"], "tmpfs": "/x"}, "something else is mounted at /x already"),
        ({"volumes": ["data:/x:z"]}, "the mode 'z' cannot be had by a volume of a service"),
        ({"volumes": ["data:/x:rshared"]}, "the mode 'rshared' cannot be had by a volume"),
        ({"volumes": ["/a:/x:nocopy"]}, "the mode 'nocopy' cannot be had by a bind"),
        ({"volumes": [{"type": "npipe", "target": "/x"}]}, "must be one of volume, bind, tmpfs, not 'npipe'"),
        ({"volumes": [{"type": "bind", "target": "/x"}]}, "is no place on this machine"),
        ({"volumes": [{"type": "tmpfs", "source": "a", "target": "/x"}]}, "source: a tmpfs has none"),
        ({"volumes": [{"type": "bind", "source": "/a", "target": "/x", "volume": {"nocopy": True}}]},
         "volume: is not for a bind"),
        ({"volumes": [{"type": "volume", "target": "/x", "nosuch": 1}]}, "nosuch: is no field"),
        ({"volumes": [{"type": "bind", "source": "/a", "target": "/x", "bind": {"selinux": "z"}}]},
         "selinux: is no field"),
        ({"tmpfs": "/x:uid=3"}, "the option 'uid=3' of a tmpfs cannot be had by a service"),
    ],
)  # fmt: skip
def test_what_cannot_be_mounted_is_a_fault_with_its_place(service: dict[str, Any], fault: str) -> None:
    assert any(fault in each for each in faults(service, volumes=VOLUMES)), faults(service, volumes=VOLUMES)


def test_an_external_volume_has_no_driver_of_the_file() -> None:
    (fault,) = faults({}, volumes={"v": {"external": True, "driver": "x"}})
    assert fault == "volumes.v.driver: is not for an external volume, which is there already"


def test_without_a_directory_a_path_beside_the_file_is_nowhere() -> None:
    with pytest.raises(ComposeError, match="is no place on this machine"):
        compose.load("services: {w: {image: b, volumes: ['./x:/x']}}", "st", {})


# Networks


NETWORKS = {"back": {"internal": True, "labels": {"a": "b"}}, "out": {"external": True, "name": "shared"}, "more": None}


def test_without_local_networks_a_network_is_a_fault_that_says_what_to_do() -> None:
    (fault,) = faults({"networks": ["back"]}, networks=NETWORKS)
    assert fault == f"services.web.networks[0]: {NOT_CHOSEN}"
    stack = load({"networks": ["default"]})
    assert (stack.networks, list(stack.services[0].task.networks)) == ((), [])
    assert load({}, networks=NETWORKS).warnings == (f"networks: is left out: {NOT_CHOSEN}",)


def test_services_are_on_their_networks_under_their_names_and_aliases() -> None:
    service = {"networks": {"back": {"aliases": ["db", "web"]}, "out": None}}
    stack = load(service, local=True, networks=NETWORKS)
    assert stack.warnings == ()
    on = stack.services[0].task.networks
    assert [(each.target, list(each.aliases)) for each in on] == [("back", ["web", "db"]), ("out", ["web"])]
    back, out = stack.networks
    assert (back.name, out.name, out.spec) == ("st_back", "shared", None)
    assert back.spec is not None
    assert (back.spec.internal, back.spec.driver_config.name) == (True, "overlay")
    assert dict(back.spec.annotations.labels) == {"a": "b", **LABELS}


def test_one_that_names_no_network_is_on_the_stacks_own() -> None:
    stack = load({}, local=True)
    assert [each.target for each in stack.services[0].task.networks] == ["default"]
    assert [(each.key, each.name) for each in stack.networks] == [("default", "st_default")]
    named = load({}, local=True, networks={"default": {"name": "mine"}})
    assert [each.name for each in named.networks] == ["mine"]
    assert (
        load({"networks": ["out"]}, local=True, networks={"out": {"external": {"name": "o"}}}).networks[0].name == "o"
    )


@pytest.mark.parametrize(
    ("service", "networks", "fault"),
    [
        ({"networks": ["nosuch"]}, {}, "services.web.networks[0]: the file's section networks has no 'nosuch'"),
        ({"networks": {"back": {"ipv4_address": "10.0.0.2"}}}, NETWORKS, "ipv4_address: is no field"),
        ({}, {"n": {"driver": "macvlan"}}, "networks.n.driver: must be overlay"),
        ({}, {"n": {"driver_opts": {"encrypted": ""}}}, f"networks.n.driver_opts: {CHOSEN}"),
        ({}, {"n": {"ipam": {"config": [{"subnet": "10.9.0.0/24"}]}}}, f"networks.n.ipam: {CHOSEN}"),
        ({}, {"n": {"nosuch": 1}}, "networks.n.nosuch: is no field"),
    ],
)
def test_what_a_network_of_one_node_cannot_have_is_a_fault(service: Any, networks: Any, fault: str) -> None:
    found = faults(service, local=True, networks=networks)
    assert any(fault in each for each in found), found
