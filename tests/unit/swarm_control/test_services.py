"""Services: what may be created, what an update may change, and how versions and counts move."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import any_pb2, duration_pb2

from runtime.errors import Code
from runtime.swarm.control import METHODS
from runtime.swarm.identity import is_id
from runtime.wire.pb import control_pb2 as control
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_control.fakes import Swarm, endpoint, ingress, port, refusal, service_spec


@pytest.fixture
def swarm() -> Swarm:
    made = Swarm()
    made.put(ingress())
    return made


def create(swarm: Swarm, spec: specs.ServiceSpec) -> objects.Service:
    made: objects.Service = swarm.call("CreateService", spec=spec).service
    return made


def test_a_new_service_has_an_id_a_version_and_spec_version_zero(swarm: Swarm) -> None:
    service = create(swarm, service_spec())
    assert is_id(service.id)
    assert service.meta.version.index == swarm.store.version
    assert service.HasField("spec_version")
    assert service.spec_version.index == 0
    assert service.spec == service_spec()
    assert not service.HasField("job_status")


def test_a_new_job_knows_when_it_first_ran(swarm: Swarm) -> None:
    service = create(swarm, service_spec(replicated_job=specs.ReplicatedJob(max_concurrent=1, total_completions=2)))
    assert service.job_status.last_execution.seconds == int(swarm.store.now)
    assert service.job_status.job_iteration.index == 0


def test_a_service_without_a_name_gets_two_words_that_nobody_has(swarm: Swarm) -> None:
    names = [create(swarm, service_spec("")).spec.annotations.name for _ in range(5)]
    assert len(set(names)) == 5
    assert all(name.count("_") == 1 for name in names)


def test_a_transaction_that_runs_twice_makes_the_same_service() -> None:
    first, second = Swarm(), Swarm()
    entry = METHODS["CreateService"]
    run = entry.prepare(control.CreateServiceRequest(spec=service_spec("")), first.ctx)  # type: ignore[union-attr]
    assert first.store.write(run) == second.store.write(run)


def test_a_taken_name_is_refused_in_any_case_of_letters(swarm: Swarm) -> None:
    create(swarm, service_spec("web"))
    text = "name conflicts with an existing object: service WEB already exists"
    assert refusal(swarm, "CreateService", spec=service_spec("WEB")) == (Code.ALREADY_EXISTS, text)


def test_a_request_without_what_it_needs_is_invalid(swarm: Swarm) -> None:
    for method, fields in (
        ("CreateService", {}),
        ("GetService", {}),
        ("UpdateService", {"service_id": "x", "spec": service_spec()}),
        ("UpdateService", {"service_version": types.Version(), "spec": service_spec()}),
        ("UpdateService", {"service_id": "x", "service_version": types.Version()}),
        ("RemoveService", {}),
    ):
        assert refusal(swarm, method, **fields) == (Code.INVALID_ARGUMENT, "invalid argument")


def container(**fields: Any) -> specs.TaskSpec:
    return specs.TaskSpec(container=specs.ContainerSpec(**({"image": "nginx"} | fields)))


def global_service() -> specs.ServiceSpec:
    fields: dict[str, Any] = {"global": specs.GlobalService()}
    return service_spec(**fields)


def secret_ref(target: str = "t", **fields: Any) -> types.SecretReference:
    given: dict[str, Any] = {"secret_id": "s", "secret_name": "n", "file": types.FileTarget(name=target)}
    return types.SecretReference(**(given | fields))


def health(**fields: Any) -> specs.TaskSpec:
    return container(healthcheck=types.HealthConfig(**fields))


MINUS = duration_pb2.Duration(seconds=-1)
NANO = duration_pb2.Duration(nanos=1)
LIMITS = types.ResourceRequirements
INVALID_TASKS: list[tuple[specs.TaskSpec, Code, str]] = [
    (specs.TaskSpec(), Code.INVALID_ARGUMENT, "TaskSpec: missing runtime"),
    (
        specs.TaskSpec(attachment=specs.NetworkAttachmentSpec()),
        Code.UNIMPLEMENTED,
        "RuntimeSpec: unimplemented runtime in service spec",
    ),
    (container(image=""), Code.INVALID_ARGUMENT, "ContainerSpec: image reference must be provided"),
    (
        container(image="BAD IMAGE"),
        Code.INVALID_ARGUMENT,
        'ContainerSpec: "BAD IMAGE" is not a valid repository/tag',
    ),
    (
        container(mounts=[types.Mount(target="/a"), types.Mount(target="/a")]),
        Code.INVALID_ARGUMENT,
        "ContainerSpec: duplicate mount point: /a",
    ),
    (
        container(mounts=[types.Mount(target="/serviceid"), types.Mount(target="/{{.Service.ID}}")]),
        Code.INVALID_ARGUMENT,
        "ContainerSpec: duplicate mount point: /serviceid",
    ),
    (health(interval=NANO), Code.INVALID_ARGUMENT, "ContainerSpec: Interval in HealthConfig cannot be less than 1ms"),
    (health(timeout=NANO), Code.INVALID_ARGUMENT, "ContainerSpec: Timeout in HealthConfig cannot be less than 1ms"),
    (
        health(start_period=MINUS),
        Code.INVALID_ARGUMENT,
        "ContainerSpec: StartPeriod in HealthConfig cannot be less than 1ms",
    ),
    (health(retries=-1), Code.INVALID_ARGUMENT, "ContainerSpec: Retries in HealthConfig cannot be negative"),
    (
        container(env=["A=b", "X={{.Nope}}"]),
        Code.INVALID_ARGUMENT,
        'expanding env failed: expanding env "X={{.Nope}}": template: expansion:1:2: executing "expansion" at <.Nope>: '
        "can't evaluate field Nope in type *template.Context",
    ),
    (container(secrets=[secret_ref(secret_id="")]), Code.INVALID_ARGUMENT, "malformed secret reference"),
    (
        container(secrets=[types.SecretReference(secret_id="s", secret_name="n")]),
        Code.INVALID_ARGUMENT,
        "malformed secret reference, no target provided",
    ),
    (
        container(secrets=[secret_ref("")]),
        Code.INVALID_ARGUMENT,
        "malformed file secret reference, invalid target file name provided",
    ),
    (
        container(secrets=[secret_ref(secret_name="a"), secret_ref(secret_name="b")]),
        Code.INVALID_ARGUMENT,
        "secret references 'a' and 'b' have a conflicting target: 't'",
    ),
    (
        container(configs=[types.ConfigReference(config_id="c")]),
        Code.INVALID_ARGUMENT,
        "malformed config reference",
    ),
    (
        container(
            privileges=types.Privileges(credential_spec=types.Privileges.CredentialSpec(config="c")),
            configs=[types.ConfigReference(config_id="c", config_name="n", file=types.FileTarget(name="f"))],
        ),
        Code.INVALID_ARGUMENT,
        "CredentialSpec: config c is not among the configs with a runtime target",
    ),
    (
        specs.TaskSpec(generic=specs.GenericRuntimeSpec(kind="ab")),
        Code.INVALID_ARGUMENT,
        'Generic runtime: Invalid name "ab"',
    ),
    (
        specs.TaskSpec(generic=specs.GenericRuntimeSpec(kind="Container")),
        Code.INVALID_ARGUMENT,
        "Generic runtime: Container is a reserved name",
    ),
    (
        container(configs=[types.ConfigReference(config_id="c", config_name="n")]),
        Code.INVALID_ARGUMENT,
        "malformed config reference, no target provided",
    ),
    (
        specs.TaskSpec(generic=specs.GenericRuntimeSpec(kind="actor")),
        Code.INVALID_ARGUMENT,
        "Generic runtime: TypeUrl is required in the payload",
    ),
    (
        specs.TaskSpec(generic=specs.GenericRuntimeSpec(kind="actor", payload=any_pb2.Any(type_url="t"))),
        Code.INVALID_ARGUMENT,
        "Generic runtime: Payload must not be empty",
    ),
]


@pytest.mark.parametrize(("task", "code", "text"), INVALID_TASKS, ids=[text[:40] for _, _, text in INVALID_TASKS])
def test_an_invalid_task_spec_is_refused_in_known_words(
    swarm: Swarm, task: specs.TaskSpec, code: Code, text: str
) -> None:
    assert refusal(swarm, "CreateService", spec=service_spec(task=task)) == (code, text)


RESOURCE_TEXTS = [
    (types.Resources(nano_cpus=1), "invalid cpu value 1e-09: Must be at least 0.001"),
    (types.Resources(nano_cpus=-5_000_000), "invalid cpu value -0.005: Must be at least 0.001"),
    (types.Resources(memory_bytes=1), "invalid memory value 1: Must be at least 4MiB"),
]


@pytest.mark.parametrize(("resources", "text"), RESOURCE_TEXTS)
@pytest.mark.parametrize("kind", ["limits", "reservations"])
def test_too_small_resources_are_refused(swarm: Swarm, resources: types.Resources, text: str, kind: str) -> None:
    task = container()
    getattr(task.resources, kind).CopyFrom(resources)
    assert refusal(swarm, "CreateService", spec=service_spec(task=task)) == (Code.INVALID_ARGUMENT, text)


def test_a_named_generic_request_is_taken_as_dockerd_takes_it(swarm: Swarm) -> None:
    gpu = types.GenericResource(named_resource_spec=types.NamedGenericResource(kind="gpu", value="a"))
    task = container()
    task.resources.reservations.generic.append(gpu)
    made = swarm.call("CreateService", spec=service_spec(task=task)).service
    assert list(made.spec.task.resources.reservations.generic) == [gpu]


def test_an_unreadable_constraint_is_an_unknown_error(swarm: Swarm) -> None:
    task = container()
    task.placement.constraints.append("node.id=1")
    assert refusal(swarm, "CreateService", spec=service_spec(task=task)) == (
        Code.UNKNOWN,
        "constraint expected one operator from ==, !=",
    )


UPDATES = types.UpdateConfig
INVALID_SPECS: list[tuple[specs.ServiceSpec, str]] = [
    (service_spec("-web"), "name must be valid as a DNS name component"),
    (service_spec("a" * 64), "name must be 63 characters or fewer"),
    (service_spec(update=UPDATES(delay=MINUS)), "TaskSpec: update-delay cannot be negative"),
    (service_spec(update=UPDATES(monitor=MINUS)), "TaskSpec: update-monitor cannot be negative"),
    (
        service_spec(update=UPDATES(max_failure_ratio=1.5)),
        "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
    ),
    (service_spec(rollback=UPDATES(delay=MINUS)), "TaskSpec: rollback-delay cannot be negative"),
    (service_spec(replicated_job=specs.ReplicatedJob(), update=UPDATES()), "Jobs may not have an update config"),
    (service_spec(replicated=specs.ReplicatedService(replicas=1 << 63)), "Number of replicas must be non-negative"),
    (
        service_spec(replicated_job=specs.ReplicatedJob(max_concurrent=1 << 63)),
        "Maximum concurrent jobs must not be negative",
    ),
    (
        service_spec(replicated_job=specs.ReplicatedJob(total_completions=1 << 63)),
        "Total completed jobs must not be negative",
    ),
    (
        service_spec(endpoint=endpoint(port(80), dnsrr=True)),
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
    ),
    (
        service_spec(endpoint=endpoint(port(80), port(80, host=True))),
        "EndpointSpec: duplicate published ports provided",
    ),
]


@pytest.mark.parametrize(("spec", "text"), INVALID_SPECS, ids=[text[:40] for _, text in INVALID_SPECS])
def test_an_invalid_service_spec_is_refused_in_known_words(swarm: Swarm, spec: specs.ServiceSpec, text: str) -> None:
    assert refusal(swarm, "CreateService", spec=spec) == (Code.INVALID_ARGUMENT, text)


def test_a_service_without_a_mode_is_refused(swarm: Swarm) -> None:
    spec = service_spec()
    spec.ClearField("replicated")
    assert refusal(swarm, "CreateService", spec=spec) == (Code.INVALID_ARGUMENT, "Unrecognized service mode")


def test_valid_specs_of_every_mode_and_runtime_are_taken(swarm: Swarm) -> None:
    generic = specs.GenericRuntimeSpec(kind="actor", payload=any_pb2.Any(type_url="t", value=b"v"))
    for number, spec in enumerate(
        (
            global_service(),
            service_spec(global_job=specs.GlobalJob()),
            service_spec(task=specs.TaskSpec(generic=generic)),
            service_spec(endpoint=endpoint(port(0), port(0), port(53), port(53, protocol=types.PortConfig.UDP))),
            service_spec(task=health(interval=duration_pb2.Duration(nanos=1_000_000))),
            service_spec(task=container(env=["S={{.Task.Slot}}", 'L={{index .Service.Labels "x"}}', "plain"])),
        )
    ):
        spec.annotations.name = f"s{number}"
        assert create(swarm, spec).spec == spec


CONFLICTS = [
    (port(80), port(80), "an ingress port"),
    (port(80), port(80, host=True), "an ingress port"),
    (port(80, host=True), port(80), "a host-published port"),
]


@pytest.mark.parametrize(("held", "wanted", "how"), CONFLICTS)
def test_a_port_of_another_service_is_refused(
    swarm: Swarm, held: types.PortConfig, wanted: types.PortConfig, how: str
) -> None:
    web = create(swarm, service_spec(endpoint=endpoint(held)))
    text = f"port '80' is already in use by service 'web' ({web.id}) as {how}"
    other = service_spec("other", endpoint=endpoint(wanted))
    assert refusal(swarm, "CreateService", spec=other) == (Code.INVALID_ARGUMENT, text)


def test_an_allocated_port_is_refused_too(swarm: Swarm) -> None:
    holder = objects.Service(id="h", spec=service_spec("h", endpoint=endpoint(port(0))))
    holder.endpoint.ports.append(port(30000))
    swarm.put(holder)
    spec = service_spec("other", endpoint=endpoint(port(30000)))
    assert "port '30000' is already in use by service 'h'" in refusal(swarm, "CreateService", spec=spec)[1]


def test_host_ports_and_other_protocols_do_not_conflict(swarm: Swarm) -> None:
    create(swarm, service_spec("a", endpoint=endpoint(port(80, host=True), port(53))))
    create(swarm, service_spec("b", endpoint=endpoint(port(80, host=True), port(53, protocol=types.PortConfig.UDP))))
    assert swarm.store.count(objects.Service) == 2


def test_dnsrr_services_need_no_ingress_network() -> None:
    bare = Swarm()
    assert create(bare, service_spec(endpoint=endpoint(port(80, host=True), dnsrr=True))).id


def test_ingress_ports_need_an_ingress_network() -> None:
    bare = Swarm()
    spec = service_spec(endpoint=endpoint(port(80)))
    text = "service needs ingress network, but no ingress network is present"
    assert refusal(bare, "CreateService", spec=spec) == (Code.FAILED_PRECONDITION, text)
    create(bare, service_spec(endpoint=endpoint(port(80, host=True))))


def test_a_service_is_not_attached_to_the_ingress_network_by_hand(swarm: Swarm) -> None:
    task = container()
    task.networks.add(target="ingressid")
    text = 'Service cannot be explicitly attached to the ingress network "ingress"'
    assert refusal(swarm, "CreateService", spec=service_spec(task=task)) == (Code.INVALID_ARGUMENT, text)


def test_references_must_name_what_is_there(swarm: Swarm) -> None:
    spec = specs.SecretSpec(annotations=types.Annotations(name="n"), data=b"x")
    swarm.put(objects.Secret(id="s", spec=spec))
    assert create(swarm, service_spec("ok", task=container(secrets=[secret_ref()]))).id
    gone = [secret_ref("1", secret_id="x", secret_name="x"), secret_ref("2", secret_name="renamed")]
    bad = service_spec("bad", task=container(secrets=gone))
    assert refusal(swarm, "CreateService", spec=bad) == (Code.INVALID_ARGUMENT, "secrets not found: x, renamed")
    config = types.ConfigReference(config_id="c", config_name="cfg", runtime=types.RuntimeTarget())
    bad = service_spec("bad", task=container(configs=[config]))
    assert refusal(swarm, "CreateService", spec=bad) == (Code.INVALID_ARGUMENT, "config not found: cfg")


def update(swarm: Swarm, service: objects.Service, spec: specs.ServiceSpec, **fields: Any) -> objects.Service:
    given = {"service_id": service.id, "service_version": service.meta.version, "spec": spec} | fields
    updated: objects.Service = swarm.call("UpdateService", **given).service
    return updated


def test_an_update_keeps_the_old_spec_and_takes_the_presented_version_as_spec_version(swarm: Swarm) -> None:
    first = create(swarm, service_spec())
    first.update_status.state = types.UpdateStatus.COMPLETED
    first = swarm.store.write(lambda tx: tx.update(first))
    second = update(swarm, first, service_spec(replicated=specs.ReplicatedService(replicas=5)))
    assert second.spec.replicated.replicas == 5
    assert second.previous_spec == first.spec
    assert second.previous_spec_version.index == 0
    assert second.spec_version == first.meta.version
    assert second.meta.version.index > first.meta.version.index
    assert not second.HasField("update_status")


def test_an_update_from_an_old_version_is_out_of_sequence(swarm: Swarm) -> None:
    first = create(swarm, service_spec())
    update(swarm, first, first.spec)
    stale = {"service_id": first.id, "service_version": first.meta.version, "spec": first.spec}
    assert refusal(swarm, "UpdateService", **stale) == (Code.UNKNOWN, "update out of sequence")


def test_what_may_not_change_is_refused(swarm: Swarm) -> None:
    service = create(swarm, service_spec())
    base = {"service_id": service.id, "service_version": service.meta.version}
    renamed = service_spec("other")
    assert refusal(swarm, "UpdateService", **base, spec=renamed) == (
        Code.UNIMPLEMENTED,
        "renaming services is not supported",
    )
    global_mode = global_service()
    assert refusal(swarm, "UpdateService", **base, spec=global_mode) == (
        Code.UNIMPLEMENTED,
        "service mode change is not allowed",
    )
    networked = service_spec()
    networked.networks.add(target="n")
    assert refusal(swarm, "UpdateService", **base, spec=networked)[0] is Code.UNIMPLEMENTED
    networked.task.networks.add(target="n")
    assert update(swarm, service, networked).spec == networked


def test_cluster_volumes_are_refused_by_their_mounts_and_who_has_some_already_may_be_scaled(swarm: Swarm) -> None:
    def mounted(replicas: int, target: str = "/data") -> specs.ServiceSpec:
        spec = service_spec()
        spec.replicated.replicas = replicas
        spec.task.container.mounts.add(type=types.Mount.CLUSTER, source="group:fast", target=target)
        return spec

    refused = (Code.UNIMPLEMENTED, 'this version does not offer cluster volumes ("group:fast" at /data)')
    assert refusal(swarm, "CreateService", spec=mounted(1)) == refused
    service = create(swarm, service_spec())
    base = {"service_id": service.id, "service_version": service.meta.version}
    assert refusal(swarm, "UpdateService", **base, spec=mounted(1)) == refused
    theirs = objects.Service()
    theirs.CopyFrom(service)
    theirs.spec.CopyFrom(mounted(1))
    service = swarm.store.write(lambda tx: tx.update(theirs))
    scaled = update(swarm, service, mounted(0))
    assert scaled.spec.replicated.replicas == 0
    base = {"service_id": service.id, "service_version": scaled.meta.version}
    assert refusal(swarm, "UpdateService", **base, spec=mounted(1, "/other"))[0] is Code.UNIMPLEMENTED


def after(name: str, *others: str) -> specs.ServiceSpec:
    spec = service_spec(name)
    spec.annotations.labels["swarmlet.start-after"] = ",".join(others)
    return spec


def test_a_service_that_starts_after_none_or_in_a_circle_is_refused(swarm: Swarm) -> None:
    empty = "label swarmlet.start-after: names no service; give names of services, between commas"
    assert refusal(swarm, "CreateService", spec=after("a", "")) == (Code.INVALID_ARGUMENT, empty)
    a, b = create(swarm, after("a", "b")), create(swarm, service_spec("b"))
    circle = "label swarmlet.start-after: b would start after a would start after b, so none of them ever would"
    version = b.meta.version
    assert refusal(swarm, "UpdateService", service_id=b.id, service_version=version, spec=after("b", "a")) == (
        Code.INVALID_ARGUMENT,
        circle,
    )
    update(swarm, a, service_spec("a"))
    assert update(swarm, b, after("b", "a")).spec.annotations.labels


def test_a_rollback_into_a_circle_is_refused(swarm: Swarm) -> None:
    a = update(swarm, create(swarm, after("a", "b")), service_spec("a"))
    create(swarm, after("b", "a"))
    code, text = roll_back(swarm, a)
    assert (code, text.split(": ", 1)[0]) == (Code.INVALID_ARGUMENT, "label swarmlet.start-after")


def test_an_update_of_an_unknown_service_is_not_found(swarm: Swarm) -> None:
    fields = {"service_id": "gone", "service_version": types.Version(index=1), "spec": service_spec()}
    assert refusal(swarm, "UpdateService", **fields) == (Code.NOT_FOUND, "service gone not found")


def test_a_service_keeps_its_own_ports_and_may_not_take_others(swarm: Swarm) -> None:
    create(swarm, service_spec("a", endpoint=endpoint(port(80))))
    service = create(swarm, service_spec("b", endpoint=endpoint(port(81))))
    service = update(swarm, service, service_spec("b", endpoint=endpoint(port(81), port(82))))
    taken = service_spec("b", endpoint=endpoint(port(80)))
    base = {"service_id": service.id, "service_version": service.meta.version}
    assert "port '80' is already in use" in refusal(swarm, "UpdateService", **base, spec=taken)[1]


def test_a_rollback_exchanges_specs_and_their_versions(swarm: Swarm) -> None:
    first = create(swarm, service_spec())
    second = update(swarm, first, service_spec(replicated=specs.ReplicatedService(replicas=5)))
    back = update(swarm, second, second.spec, rollback=control.UpdateServiceRequest.PREVIOUS)
    assert (back.spec, back.spec_version) == (first.spec, first.spec_version)
    assert (back.previous_spec, back.previous_spec_version) == (second.spec, second.spec_version)
    assert back.update_status.state == types.UpdateStatus.ROLLBACK_STARTED
    assert back.update_status.message == "manually requested rollback"
    assert back.update_status.started_at.seconds == int(swarm.store.now)
    again = update(swarm, back, back.spec, rollback=control.UpdateServiceRequest.PREVIOUS)
    assert (again.spec, again.spec_version) == (second.spec, second.spec_version)


def test_a_rollback_needs_a_previous_spec(swarm: Swarm) -> None:
    service = create(swarm, service_spec())
    fields = {"service_id": service.id, "service_version": service.meta.version, "spec": service.spec}
    assert refusal(swarm, "UpdateService", **fields, rollback=control.UpdateServiceRequest.PREVIOUS) == (
        Code.FAILED_PRECONDITION,
        f"service {service.id} does not have a previous spec",
    )


def roll_back(swarm: Swarm, service: objects.Service) -> tuple[Code, str]:
    fields = {"service_id": service.id, "service_version": service.meta.version, "spec": service.spec}
    return refusal(swarm, "UpdateService", **fields, rollback=control.UpdateServiceRequest.PREVIOUS)


def test_a_rollback_does_not_take_a_port_that_another_service_got_meanwhile(swarm: Swarm) -> None:
    first = create(swarm, service_spec("a", endpoint=endpoint(port(80))))
    second = update(swarm, first, service_spec("a", endpoint=endpoint(port(81))))
    other = create(swarm, service_spec("b", endpoint=endpoint(port(80))))
    text = f"port '80' is already in use by service 'b' ({other.id}) as an ingress port"
    assert roll_back(swarm, second) == (Code.INVALID_ARGUMENT, text)


def test_a_rollback_needs_what_the_previous_spec_names(swarm: Swarm) -> None:
    secret = swarm.call("CreateSecret", spec={"annotations": {"name": "n"}, "data": b"x"}).secret
    first = create(swarm, service_spec("a", task=container(secrets=[secret_ref(secret_id=secret.id)])))
    second = update(swarm, first, service_spec("a"))
    swarm.call("RemoveSecret", secret_id=secret.id)
    assert roll_back(swarm, second) == (Code.INVALID_ARGUMENT, "secret not found: n")
    network = swarm.call("CreateNetwork", spec={"annotations": {"name": "net"}}).network
    attached = service_spec("b")
    attached.task.networks.add(target=network.id)
    third = update(swarm, create(swarm, attached), service_spec("b"))
    swarm.call("RemoveNetwork", network_id=network.id)
    text = f"network {network.id} of the previous spec does not exist any more"
    assert roll_back(swarm, third) == (Code.FAILED_PRECONDITION, text)


def test_every_update_of_a_job_is_a_new_iteration(swarm: Swarm) -> None:
    job = create(swarm, service_spec(replicated_job=specs.ReplicatedJob(max_concurrent=1, total_completions=1)))
    swarm.store.now += 60
    again = update(swarm, job, job.spec)
    assert again.job_status.job_iteration.index == 1
    assert again.job_status.last_execution.seconds == job.job_status.last_execution.seconds + 60
    back = update(swarm, again, again.spec, rollback=control.UpdateServiceRequest.PREVIOUS)
    assert back.job_status.job_iteration.index == 2


def test_removal_is_at_once_and_once(swarm: Swarm) -> None:
    service = create(swarm, service_spec())
    swarm.call("RemoveService", service_id=service.id)
    assert swarm.store.get(objects.Service, service.id) is None
    text = f"service {service.id} not found"
    assert refusal(swarm, "RemoveService", service_id=service.id) == (Code.NOT_FOUND, text)
    assert refusal(swarm, "GetService", service_id=service.id) == (Code.NOT_FOUND, text)


def test_defaults_are_shown_on_request_and_never_stored(swarm: Swarm) -> None:
    service = create(swarm, service_spec())
    shown = swarm.call("GetService", service_id=service.id, insert_defaults=True).service.spec
    assert shown.task.restart.delay.seconds == 5
    assert swarm.call("GetService", service_id=service.id).service.spec == service.spec == service_spec()


def task(
    id: str, service_id: str, state: types.TaskState, desired: types.TaskState, iteration: int = 0
) -> objects.Task:
    made = objects.Task(id=id, service_id=service_id, desired_state=desired, status=types.TaskStatus(state=state))
    made.job_iteration.index = iteration
    return made


STATUS_MODES = [
    (service_spec(replicated=specs.ReplicatedService(replicas=7)), (7, 2, 0)),
    (global_service(), (1, 2, 0)),
    (service_spec(replicated_job=specs.ReplicatedJob(max_concurrent=3, total_completions=9)), (3, 2, 1)),
    (service_spec(global_job=specs.GlobalJob()), (1, 2, 1)),
]


@pytest.mark.parametrize(("spec", "counts"), STATUS_MODES, ids=["replicated", "global", "replicated-job", "global-job"])
def test_statuses_count_by_mode(swarm: Swarm, spec: specs.ServiceSpec, counts: tuple[int, int, int]) -> None:
    service = objects.Service(id="s", spec=spec)
    service.job_status.job_iteration.index = 2
    swarm.put(service)
    swarm.put(task("1", "s", types.RUNNING, types.RUNNING, 2))
    swarm.put(task("2", "s", types.RUNNING, types.SHUTDOWN, 2))
    swarm.put(task("3", "s", types.COMPLETE, types.COMPLETE, 2))
    swarm.put(task("4", "s", types.PREPARING, types.COMPLETE, 2))
    swarm.put(task("5", "s", types.COMPLETE, types.COMPLETE, 1))
    swarm.put(task("6", "other", types.RUNNING, types.RUNNING, 2))
    status = swarm.call("ListServiceStatuses", services=["s"]).statuses[0]
    assert (status.desired_tasks, status.running_tasks, status.completed_tasks) == counts


def test_an_unknown_service_wants_nothing_but_its_tasks_are_counted(swarm: Swarm) -> None:
    swarm.put(task("1", "gone", types.RUNNING, types.REMOVE))
    statuses = swarm.call("ListServiceStatuses", services=["gone", "never"]).statuses
    assert [(each.service_id, each.desired_tasks, each.running_tasks) for each in statuses] == [
        ("gone", 0, 1),
        ("never", 0, 0),
    ]
