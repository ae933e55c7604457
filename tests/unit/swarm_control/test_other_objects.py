"""Networks, secrets, configs, extensions, resources and volumes."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import any_pb2

from runtime.errors import Code, Refused
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_control.fakes import Swarm, endpoint, ingress, port, refusal, service_spec


def named(name: str, **labels: str) -> types.Annotations:
    return types.Annotations(name=name, labels=labels)


# Networks.


def net(name: str = "n", **fields: Any) -> specs.NetworkSpec:
    return specs.NetworkSpec(**({"annotations": named(name)} | fields))


def ipam(subnet: str, range: str = "", gateway: str = "") -> types.IPAMOptions:
    return types.IPAMOptions(configs=[types.IPAMConfig(subnet=subnet, range=range, gateway=gateway)])


def test_a_network_is_made_and_found_by_id_and_by_name() -> None:
    swarm = Swarm()
    spec = net("Net", driver_config=types.Driver(name="overlay"), ipam=ipam("10.1.0.0/24", "10.1.0.0/25", "10.1.0.1"))
    made = swarm.call("CreateNetwork", spec=spec).network
    assert made.spec == spec
    assert swarm.call("GetNetwork", network_id=made.id).network == made
    assert swarm.call("GetNetwork", name="net").network == made
    assert refusal(swarm, "GetNetwork", name="x") == (Code.NOT_FOUND, "network x not found")
    assert refusal(swarm, "GetNetwork", network_id="x") == (Code.NOT_FOUND, "network x not found")
    assert refusal(swarm, "GetNetwork") == (Code.INVALID_ARGUMENT, "invalid argument")


BAD_NETWORKS = [
    (net(ingress=True, attachable=True), Code.INVALID_ARGUMENT, "ingress network cannot be attachable"),
    (net("a b"), Code.INVALID_ARGUMENT, "name must be valid as a DNS name component"),
    (
        specs.NetworkSpec(annotations=types.Annotations(name="n", labels={"com.docker.swarm.predefined": "true"})),
        Code.PERMISSION_DENIED,
        "label com.docker.swarm.predefined is for internally created predefined networks "
        "and cannot be applied by users",
    ),
    (
        net(ingress=True, driver_config=types.Driver(name="bridge")),
        Code.UNIMPLEMENTED,
        "ingress network driver bridge is not supported",
    ),
    (
        net(driver_config=types.Driver()),
        Code.INVALID_ARGUMENT,
        "driver name: if driver is specified name is required",
    ),
    (net(driver_config=types.Driver(name="weave")), Code.INVALID_ARGUMENT, "plugin weave not found"),
    (net(ipam=types.IPAMOptions(driver=types.Driver(name="x"))), Code.INVALID_ARGUMENT, "plugin x not found"),
    (
        net(ipam=types.IPAMOptions(driver=types.Driver())),
        Code.INVALID_ARGUMENT,
        "driver name: if driver is specified name is required",
    ),
    (net(ipam=ipam("")), Code.INVALID_ARGUMENT, "ipam configuration: invalid subnet "),
    (net(ipam=ipam("10.0.0.0")), Code.INVALID_ARGUMENT, "ipam configuration: invalid subnet 10.0.0.0"),
    (net(ipam=ipam("10.0.0.0/33")), Code.INVALID_ARGUMENT, "ipam configuration: invalid subnet 10.0.0.0/33"),
    (
        net(ipam=ipam("10.0.0.0/24", gateway="10.0.1.1")),
        Code.INVALID_ARGUMENT,
        "ipam configuration: gateway 10.0.1.1 is not in subnet 10.0.0.0/24",
    ),
    (
        net(ipam=ipam("10.0.0.0/24", range="10.0.1.0/25")),
        Code.INVALID_ARGUMENT,
        "ipam configuration: range 10.0.1.0 is not in subnet 10.0.0.0/24",
    ),
    (net(ipam=ipam("10.0.0.0/24", gateway="x")), Code.INVALID_ARGUMENT, "ipam configuration: invalid gateway x"),
    (
        net(ipam=ipam("10.0.0.0/24", gateway="fd00::1")),
        Code.INVALID_ARGUMENT,
        "ipam configuration: gateway fd00::1 is not in subnet 10.0.0.0/24",
    ),
]


@pytest.mark.parametrize(("spec", "code", "text"), BAD_NETWORKS, ids=[text[-30:] for _, _, text in BAD_NETWORKS])
def test_a_bad_network_spec_is_refused(spec: specs.NetworkSpec, code: Code, text: str) -> None:
    assert refusal(Swarm(), "CreateNetwork", spec=spec) == (code, text)


def test_there_is_one_ingress_network_and_one_of_each_name() -> None:
    swarm = Swarm()
    swarm.put(ingress())
    assert refusal(swarm, "CreateNetwork", spec=net("other", ingress=True)) == (
        Code.ALREADY_EXISTS,
        "ingress network (ingressid) is already present",
    )
    assert refusal(swarm, "CreateNetwork", spec=net("INGRESS")) == (
        Code.UNKNOWN,
        "name conflicts with an existing object",
    )


def test_the_ingress_network_goes_when_no_service_needs_it_and_comes_again() -> None:
    swarm = Swarm()
    swarm.put(ingress())
    service = swarm.put(objects.Service(id="s", spec=service_spec(endpoint=endpoint(port(80)))))
    text = "ingress network cannot be removed because service s depends on it"
    assert refusal(swarm, "RemoveNetwork", network_id="ingressid") == (Code.FAILED_PRECONDITION, text)
    swarm.store.write(lambda tx: tx.delete(objects.Service, service.id))
    swarm.put(objects.Service(id="h", spec=service_spec("h", endpoint=endpoint(port(80, host=True)))))
    swarm.call("RemoveNetwork", name="ingress")
    assert swarm.call("CreateNetwork", spec=net("ingress2", ingress=True)).network.id


def test_a_network_in_use_stays() -> None:
    swarm = Swarm()
    made = swarm.call("CreateNetwork", spec=net()).network
    spec = service_spec()
    spec.task.networks.add(target=made.id)
    swarm.put(objects.Service(id="s", spec=spec))
    by_service = f"network {made.id} is in use by service s"
    assert refusal(swarm, "RemoveNetwork", network_id=made.id) == (Code.FAILED_PRECONDITION, by_service)
    swarm.store.write(lambda tx: tx.delete(objects.Service, "s"))
    task = objects.Task(id="t", spec=spec.task, desired_state=types.RUNNING)
    task.status.state = types.RUNNING
    stopping = swarm.put(task)
    by_task = f"network {made.id} is in use by task t"
    assert refusal(swarm, "RemoveNetwork", network_id=made.id) == (Code.FAILED_PRECONDITION, by_task)
    stopping.desired_state = types.REMOVE
    swarm.store.write(lambda tx: tx.update(stopping))
    swarm.call("RemoveNetwork", network_id=made.id)
    assert swarm.store.count(objects.Network) == 0


def test_a_predefined_network_is_not_removed() -> None:
    swarm = Swarm()
    labels = {"com.docker.swarm.predefined": "true"}
    spec = specs.NetworkSpec(annotations=types.Annotations(name="host", labels=labels))
    swarm.put(objects.Network(id="p", spec=spec))
    text = "host (p) is a swarm predefined network and cannot be removed"
    assert refusal(swarm, "RemoveNetwork", network_id="p") == (Code.FAILED_PRECONDITION, text)


# Secrets and configs.


@pytest.mark.parametrize("kind", ["Secret", "Config"])
def test_labels_change_and_nothing_else(kind: str) -> None:
    swarm = Swarm()
    field = kind.lower()
    spec = {"annotations": named("s1", a="1"), "data": b"x"}
    made = getattr(swarm.call(f"Create{kind}", spec=spec), field)

    def update(**changes: Any) -> Any:
        fields = {f"{field}_id": made.id, f"{field}_version": made.meta.version, "spec": spec | changes}
        return swarm.call(f"Update{kind}", **fields)

    for change in ({"annotations": named("s2")}, {"data": b"y"}):
        with pytest.raises(Refused, match="only updates to Labels are allowed"):
            update(**change)
    updated = getattr(update(annotations=named("s1", b="2"), data=b""), field)
    assert dict(updated.spec.annotations.labels) == {"b": "2"}
    held = swarm.store.get(getattr(objects, kind), made.id)
    assert held.spec.data == b"x"
    with pytest.raises(Refused, match="update out of sequence"):
        update()


@pytest.mark.parametrize(("kind", "limit"), [("Secret", 512_000), ("Config", 1_024_000)])
def test_data_has_bounds(kind: str, limit: int) -> None:
    swarm = Swarm()
    text = f"{kind.lower()} data must be larger than 0 and less than {limit} bytes"
    for data in (b"", b"x" * limit):
        spec = {"annotations": named("s"), "data": data}
        assert refusal(swarm, f"Create{kind}", spec=spec) == (Code.INVALID_ARGUMENT, text)
    swarm.call(f"Create{kind}", spec={"annotations": named("s"), "data": b"x" * (limit - 1)})


@pytest.mark.parametrize("kind", ["Secret", "Config"])
def test_names_are_checked_and_unique_in_any_case(kind: str) -> None:
    swarm = Swarm()
    assert refusal(swarm, f"Create{kind}", spec={"annotations": named("-"), "data": b"x"}) == (
        Code.INVALID_ARGUMENT,
        "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
    )
    swarm.call(f"Create{kind}", spec={"annotations": named("s1"), "data": b"x"})
    assert refusal(swarm, f"Create{kind}", spec={"annotations": named("S1"), "data": b"x"}) == (
        Code.ALREADY_EXISTS,
        f"{kind.lower()} S1 already exists",
    )


@pytest.mark.parametrize("kind", ["Secret", "Config"])
def test_what_services_refer_to_is_not_removed(kind: str) -> None:
    swarm = Swarm()
    field = kind.lower()
    made = getattr(swarm.call(f"Create{kind}", spec={"annotations": named("s1"), "data": b"x"}), field)
    for name in ("web", "api"):
        spec = service_spec(name)
        getattr(spec.task.container, f"{field}s").add(**{f"{field}_id": made.id, f"{field}_name": "s1"})
        swarm.put(objects.Service(id=name, spec=spec))
    text = f"{field} 's1' is in use by the following services: api, web"
    assert refusal(swarm, f"Remove{kind}", **{f"{field}_id": made.id}) == (Code.INVALID_ARGUMENT, text)
    swarm.call("RemoveService", service_id="api")
    text = f"{field} 's1' is in use by the following service: web"
    assert refusal(swarm, f"Remove{kind}", **{f"{field}_id": made.id}) == (Code.INVALID_ARGUMENT, text)
    swarm.call("RemoveService", service_id="web")
    swarm.call(f"Remove{kind}", **{f"{field}_id": made.id})
    gone = (Code.NOT_FOUND, f"{field} {made.id} not found")
    assert refusal(swarm, f"Remove{kind}", **{f"{field}_id": made.id}) == gone
    assert refusal(swarm, f"Get{kind}", **{f"{field}_id": made.id}) == gone


def test_the_data_of_a_secret_never_leaves_and_that_of_a_config_does() -> None:
    swarm = Swarm()
    spec = {"annotations": named("s1"), "data": b"hush"}
    secret = swarm.call("CreateSecret", spec=spec).secret
    fields = {"secret_id": secret.id, "secret_version": secret.meta.version, "spec": spec}
    answers = [secret, swarm.call("UpdateSecret", **fields), swarm.call("GetSecret", secret_id=secret.id)]
    answers.append(swarm.call("ListSecrets"))
    assert not [answer for answer in answers if b"hush" in answer.SerializeToString()]
    assert swarm.store.get(objects.Secret, secret.id).spec.data == b"hush"
    config = swarm.call("CreateConfig", spec=spec).config
    assert config.spec.data == swarm.call("GetConfig", config_id=config.id).config.spec.data == b"hush"
    assert swarm.call("ListConfigs").configs[0].spec.data == b"hush"


def test_a_driver_provides_a_secret_without_data() -> None:
    swarm = Swarm(secret_drivers=("vault",))
    spec = {"annotations": named("s1"), "driver": types.Driver(name="vault")}
    assert swarm.call("CreateSecret", spec=spec).secret.spec.driver.name == "vault"
    for driver, text in (("", "secret driver must have a name"), ("other", "plugin other not found")):
        spec = {"annotations": named("s2"), "driver": types.Driver(name=driver)}
        assert refusal(swarm, "CreateSecret", spec=spec) == (Code.INVALID_ARGUMENT, text)


def test_internal_secrets_are_not_listed() -> None:
    swarm = Swarm()
    swarm.put(objects.Secret(id="i", internal=True, spec=specs.SecretSpec(annotations=named("i"), data=b"x")))
    assert not swarm.call("ListSecrets").secrets
    assert not swarm.call("ListSecrets", filters={"names": ["i"]}).secrets


# Extensions and resources.


def test_resources_need_a_registered_kind_and_a_name_of_their_own() -> None:
    swarm = Swarm()
    extension = swarm.call("CreateExtension", annotations=named("Widget"), description="d").extension
    assert swarm.call("GetExtension", extension_id=extension.id).extension.description == "d"
    create = {"annotations": named("r1"), "kind": "Widget", "payload": any_pb2.Any(value=b"1")}
    made = swarm.call("CreateResource", **create).resource
    assert swarm.call("GetResource", resource_id=made.id).resource.payload.value == b"1"
    invalid = Code.INVALID_ARGUMENT
    assert refusal(swarm, "CreateResource", **create | {"kind": "widget"}) == (
        invalid,
        "Kind widget is not registered",
    )
    assert refusal(swarm, "CreateResource", **create) == (
        Code.ALREADY_EXISTS,
        "A resource with name r1 already exists",
    )
    assert refusal(swarm, "CreateResource", kind="Widget")[0] is invalid
    assert refusal(swarm, "CreateResource", annotations=named("r2"))[0] is invalid
    assert refusal(swarm, "CreateExtension")[0] is invalid
    assert refusal(swarm, "CreateExtension", annotations=named("widget"))[0] is Code.ALREADY_EXISTS


def test_an_extension_stays_while_resources_of_its_kind_exist() -> None:
    swarm = Swarm()
    extension = swarm.call("CreateExtension", annotations=named("Widget")).extension
    resource = swarm.call("CreateResource", annotations=named("r1"), kind="Widget").resource
    text = "extension 'Widget' is in use by the following resource: r1"
    assert refusal(swarm, "RemoveExtension", extension_id=extension.id) == (Code.INVALID_ARGUMENT, text)
    swarm.call("RemoveResource", resource_id=resource.id)
    swarm.call("RemoveExtension", extension_id=extension.id)
    assert refusal(swarm, "GetExtension", extension_id=extension.id)[0] is Code.NOT_FOUND
    assert refusal(swarm, "RemoveResource", resource_id=resource.id)[0] is Code.NOT_FOUND


def test_a_resource_update_replaces_what_is_given() -> None:
    swarm = Swarm()
    swarm.call("CreateExtension", annotations=named("Widget"))
    made = swarm.call("CreateResource", annotations=named("r1", a="1"), kind="Widget").resource
    base = {"resource_id": made.id, "resource_version": made.meta.version}
    updated = swarm.call("UpdateResource", **base, payload=any_pb2.Any(value=b"2")).resource
    assert (updated.payload.value, dict(updated.annotations.labels)) == (b"2", {"a": "1"})
    assert refusal(swarm, "UpdateResource", **base) == (Code.INVALID_ARGUMENT, "update out of sequence")
    base["resource_version"] = updated.meta.version
    assert refusal(swarm, "UpdateResource", **base, annotations=named("r2"))[0] is Code.INVALID_ARGUMENT
    again = swarm.call("UpdateResource", **base, annotations=named("r1", b="2")).resource
    assert (again.payload.value, dict(again.annotations.labels)) == (b"2", {"b": "2"})


# Volumes.


def volume(name: str = "v", **fields: Any) -> specs.VolumeSpec:
    given: dict[str, Any] = {
        "annotations": named(name),
        "driver": types.Driver(name="csi"),
        "access_mode": types.VolumeAccessMode(mount=types.VolumeAccessMode.MountVolume()),
    }
    return specs.VolumeSpec(**(given | fields))


def test_a_volume_needs_driver_name_and_access_type() -> None:
    swarm = Swarm()
    for spec in (
        specs.VolumeSpec(annotations=named("v"), access_mode=volume().access_mode),
        specs.VolumeSpec(annotations=named("v"), driver=types.Driver(name="csi")),
        volume(""),
        volume(access_mode=types.VolumeAccessMode()),
        volume(secrets=[types.VolumeSecret(key="k", secret="gone")]),
    ):
        assert refusal(swarm, "CreateVolume", spec=spec)[0] is Code.INVALID_ARGUMENT
    made = swarm.call("CreateVolume", spec=volume()).volume
    assert swarm.call("GetVolume", volume_id=made.id).volume.spec == volume()
    assert refusal(swarm, "CreateVolume", spec=volume("V")) == (Code.ALREADY_EXISTS, "volume V already exists")


def test_only_labels_and_availability_of_a_volume_change() -> None:
    swarm = Swarm()
    made = swarm.call("CreateVolume", spec=volume()).volume
    base = {"volume_id": made.id, "volume_version": made.meta.version}
    for spec in (volume("w"), volume(group="g"), volume(driver=types.Driver(name="x"))):
        assert refusal(swarm, "UpdateVolume", **base, spec=spec)[0] is Code.INVALID_ARGUMENT
    wanted = volume(availability=specs.VolumeSpec.DRAIN, annotations=named("v", a="b"))
    assert swarm.call("UpdateVolume", **base, spec=wanted).volume.spec == wanted


def test_a_volume_is_marked_first_and_deleted_by_force() -> None:
    swarm = Swarm()
    made = swarm.call("CreateVolume", spec=volume()).volume
    published = objects.Volume(id="p", spec=volume("p"), publish_status=[types.VolumePublishStatus(node_id="n")])
    swarm.put(published)
    assert refusal(swarm, "RemoveVolume", volume_id="p")[0] is Code.FAILED_PRECONDITION
    swarm.call("RemoveVolume", volume_id=made.id)
    assert swarm.store.get(objects.Volume, made.id).pending_delete
    swarm.call("RemoveVolume", volume_id="p", force=True)
    assert swarm.store.get(objects.Volume, "p") is None
