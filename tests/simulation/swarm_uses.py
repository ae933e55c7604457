"""What the people of a whole swarm under simulation ask of it while faults strike: updates that fail and are rolled
back, jobs, jobs by the clock, services that start after others, secrets in use, patience with nodes and their removal,
many new managers at once, managers that lock themselves.

Each is drawn from the seed as a fault is (``swarm_plan.uses``), counts once it was carried out, and has what must
hold of it in ``swarm_use_rules`` (at each change) or in ``unmet`` (at rest).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from runtime.errors import Refused
from runtime.pki.key_file import decode_key_file, is_encrypted
from runtime.pki.unlock_key import format_unlock_key
from runtime.protocol.cluster import Info, Unlock
from runtime.stage.answers import Answer
from runtime.swarm.labels import LOST_AFTER, REMOVE_AFTER, SCHEDULE, START_AFTER
from runtime.wire.pb import control_pb2, specs_pb2
from runtime.wire.pb import types_pb2 as types
from swarmlet.testing.host import Host
from swarmlet.testing.swarm import replicated
from tests.simulation.plan import Planned
from tests.simulation.raft_invariants import Violation
from tests.simulation.swarm_operator import AGAIN_S, Operator

KEY_FILE = "certificates/swarm-node.key"
GOOD, BAD = ("sleep", "1000000"), ("exit", "1", "after", "0.3")
TRIES = 8
FAILED_UPDATES = (types.UpdateStatus.PAUSED, types.UpdateStatus.ROLLBACK_PAUSED)
GOING_ON = (types.UpdateStatus.UPDATING, types.UpdateStatus.ROLLBACK_STARTED)
Change = Callable[[Any], None]


class Uses(Operator):
    """Asks. ``payloads`` are the secrets and configs that were made, ``locking`` says that managers may be locked."""

    def __init__(self, seed: int, managers: int, workers: int, rng: random.Random) -> None:
        super().__init__(seed, managers, workers, rng)
        self.injected: Counter[str] = Counter()
        self.payloads: dict[str, bytes] = {}
        self.wrong: list[str] = []
        self.locking = False
        self.removable: set[str] = set()
        for host in self.hosts:
            self._look_into(host)

    def _once(self, kind: str) -> Callable[[], None]:
        """Counts one fault when it is first called."""
        uncounted = [kind]

        def struck() -> None:
            while uncounted:
                self.injected[uncounted.pop()] += 1

        return struck

    def _dice(self, fault: Planned) -> random.Random:
        return random.Random(fault.args["dice"])

    def change_service(
        self, service_id: str, change: Change, done: Callable[[], None] = lambda: None, tries: int = TRIES
    ) -> None:
        """Replaces what it reads, until it was taken or the service is gone. ``done`` hears that it was carried out."""

        def again() -> None:
            if tries > 1:
                self.simulator.set(AGAIN_S, lambda: self.change_service(service_id, change, done, tries - 1))

        def updated(answer: Answer) -> None:
            if answer.error is None:
                done()
            else:
                again()

        def read(answer: Answer) -> None:
            if answer.error is not None:
                again()
                return
            spec = specs_pb2.ServiceSpec()
            spec.CopyFrom(answer.value.service.spec)
            change(spec)
            version = answer.value.service.meta.version
            update = control_pb2.UpdateServiceRequest(service_id=service_id, service_version=version, spec=spec)
            self.ask("UpdateService", update, updated)

        self.ask("GetService", control_pb2.GetServiceRequest(service_id=service_id), read)

    def create_service(self, spec: specs_pb2.ServiceSpec, then: Callable[[str], None], tries: int = TRIES) -> None:
        """``then`` hears the id of a service that was made, by this call or by one before it that had no answer."""

        def made(answer: Answer) -> None:
            named = [each.id for each in self.watcher.model.tables["service"].values() if _same_name(each.spec, spec)]
            if answer.error is None or named:
                then(answer.value.service.id if answer.error is None else named[0])
            elif tries > 1:
                self.simulator.set(AGAIN_S, lambda: self.create_service(spec, then, tries - 1))

        self.ask("CreateService", control_pb2.CreateServiceRequest(spec=spec), made)

    def remove_service(self, service_id: str) -> None:
        """Tried until it is gone."""

        def removed(answer: Answer) -> None:
            if answer.error is not None and service_id in self.watcher.model.tables["service"]:
                self.simulator.set(AGAIN_S, lambda: self.remove_service(service_id))

        self.ask("RemoveService", control_pb2.RemoveServiceRequest(service_id=service_id), removed)

    # Updates

    def _rolling_update(self, fault: Planned) -> bool:
        """A service is updated, twice now and then, to what cannot run now and then."""
        dice = self._dice(fault)
        service_id = dice.choice(self.scaled)
        self.change_service(service_id, _another_version(dice), self._once(fault.kind))
        if dice.random() < 0.5:
            change = _another_version(dice)
            self.simulator.set(dice.uniform(0.5, 10.0), lambda: self.change_service(service_id, change, tries=2))
        return False

    def repair(self) -> None:
        """As a person would: what was paused or cannot run is updated to what can; no job by the clock stays."""
        for service in list(self.watcher.model.tables["service"].values()):
            if SCHEDULE in service.spec.annotations.labels:
                self.remove_service(service.id)
            state = service.update_status.state if service.HasField("update_status") else None
            broken = tuple(service.spec.task.container.command) == BAD and state not in GOING_ON
            if service.id in self.scaled and (broken or state in FAILED_UPDATES):
                self.change_service(service.id, _repaired, tries=1)

    def _updates_unmet(self, tables: Any) -> str:
        for service_id in self.scaled:
            service = tables["service"][service_id]
            name = service.spec.annotations.name
            if service.HasField("update_status") and service.update_status.state in (*GOING_ON, *FAILED_UPDATES):
                return f"the update of {name} is {types.UpdateStatus.UpdateState.Name(service.update_status.state)}"
            for task in tables["task"].values():
                runs = task.service_id == service_id and task.status.state == task.desired_state == types.RUNNING
                if runs and task.spec.container != service.spec.task.container:
                    return f"task {task.id} of {name} is not up to date"
        return ""

    # Jobs

    def _job(self, fault: Planned) -> bool:
        """A job, here and there or on every node, that is run anew now and then."""
        dice = self._dice(fault)
        spec = _job_spec(f"job-{fault.number}", dice)
        struck = self._once(fault.kind)

        def anew(spec: Any) -> None:
            spec.task.force_update += 1

        def made(service_id: str) -> None:
            struck()
            if dice.random() < 0.5:
                self.simulator.set(dice.uniform(0.5, 15.0), lambda: self.change_service(service_id, anew, tries=3))

        self.create_service(spec, made)
        return False

    def _job_by_the_clock(self, fault: Planned) -> bool:
        """A job that runs every ten seconds, for a while."""
        spec = _job_spec(f"clock-{fault.number}", self._dice(fault))
        spec.annotations.labels[SCHEDULE] = "@every 10s"
        struck = self._once(fault.kind)

        def made(service_id: str) -> None:
            self.simulator.set(fault.seconds, lambda: end(service_id))

        def end(service_id: str) -> None:
            service = self.watcher.model.tables["service"].get(service_id)
            if service is not None and service.job_status.job_iteration.index > 0:
                struck()
            self.remove_service(service_id)

        self.create_service(spec, made)
        return False

    def _jobs_unmet(self, tables: Any) -> str:
        for service in tables["service"].values():
            name, mode = service.spec.annotations.name, service.spec.WhichOneof("mode")
            if name.startswith("clock-"):
                return f"{name} is not removed yet"
            if mode not in ("replicated_job", "global_job"):
                continue
            done = {
                task.slot if mode == "replicated_job" else task.node_id
                for task in tables["task"].values()
                if task.service_id == service.id
                and task.job_iteration.index == service.job_status.job_iteration.index
                and task.status.state == types.COMPLETE
            }
            due = set(range(service.spec.replicated_job.total_completions))
            lacking = (due if mode == "replicated_job" else set(tables["node"])) - done
            if lacking:
                return (
                    f"{name} is not complete: {sorted(lacking)} of iteration {service.job_status.job_iteration.index}"
                )
        return ""

    # Order of starts, secrets

    def _start_order(self, fault: Planned) -> bool:
        """Two services, the second of which starts after the first and may be made before it."""
        dice, struck = self._dice(fault), self._once(fault.kind)
        first = replicated(f"guest-first-{fault.number}", dice.randint(1, 2))
        second = replicated(f"guest-second-{fault.number}", dice.randint(1, 3))
        second.annotations.labels[START_AFTER] = first.annotations.name

        def made(service_id: str) -> None:
            struck()
            self.simulator.set(fault.seconds, lambda: self.remove_service(service_id))

        for spec in (first, second):
            at = dice.uniform(0.0, 8.0)
            self.simulator.set(at, lambda spec=spec: self.create_service(spec, made))  # type: ignore[misc]
        return False

    def _secrets(self, fault: Planned) -> bool:
        """A service that has a secret and a config; somebody tries to remove them before it, and after it."""
        dice, struck = self._dice(fault), self._once(fault.kind)
        spec = replicated(f"guest-keeper-{fault.number}", dice.randint(1, 3))
        data = f"payload of {fault.number}".encode()

        def with_secret(answer: Answer) -> None:
            if answer.error is not None:
                return
            given = answer.value.secret
            self.payloads[given.id] = data
            given_name = given.spec.annotations.name
            reference = spec.task.container.secrets.add(secret_id=given.id, secret_name=given_name)
            reference.file.name = "key"
            annotations = types.Annotations(name=f"config-{fault.number}")
            config = specs_pb2.ConfigSpec(annotations=annotations, data=data[::-1])
            self.ask("CreateConfig", control_pb2.CreateConfigRequest(spec=config), with_config)

        def with_config(answer: Answer) -> None:
            if answer.error is not None:
                return
            given = answer.value.config
            self.payloads[given.id] = data[::-1]
            reference = spec.task.container.configs.add(config_id=given.id, config_name=given.spec.annotations.name)
            reference.file.name = "conf"
            self.create_service(spec, made)

        def made(service_id: str) -> None:
            struck()
            secret_id = spec.task.container.secrets[0].secret_id
            config_id = spec.task.container.configs[0].config_id
            self.simulator.set(fault.seconds, lambda: self.remove_service(service_id))
            for at in (fault.seconds / 2, fault.seconds, fault.seconds + AGAIN_S):
                self.simulator.set(at, lambda: self._try_to_remove(secret_id, config_id))

        annotations = types.Annotations(name=f"secret-{fault.number}")
        secret = specs_pb2.SecretSpec(annotations=annotations, data=data)
        self.ask("CreateSecret", control_pb2.CreateSecretRequest(spec=secret), with_secret)
        return False

    def _try_to_remove(self, secret_id: str, config_id: str) -> None:
        self.ask("RemoveSecret", control_pb2.RemoveSecretRequest(secret_id=secret_id), lambda _answer: None)
        self.ask("RemoveConfig", control_pb2.RemoveConfigRequest(config_id=config_id), lambda _answer: None)

    def _look_into(self, host: Host) -> None:
        """What starts on a machine is given its secrets and configs as they were made."""
        build = host.executor.controller

        def controller(task: Any, context: Any) -> Any:
            made = build(task, context)
            container = task.spec.container
            if container.secrets or container.configs:
                start = made.start

                def looked(done: Any) -> Any:
                    self._compare_payloads(host, task, context)
                    return start(done)

                made.start = looked  # type: ignore[method-assign]
            return made

        host.executor.controller = controller  # type: ignore[method-assign]

    def _compare_payloads(self, host: Host, task: Any, context: Any) -> None:
        for read, ids in (
            (context.secret, [each.secret_id for each in task.spec.container.secrets]),
            (context.config, [each.config_id for each in task.spec.container.configs]),
        ):
            for id in ids:
                try:
                    found = read(id)
                except (KeyError, Refused) as error:
                    self.wrong.append(f"task {task.id} starts on {host.name} without {id}: {error}")
                else:
                    if found != self.payloads[id]:
                        self.wrong.append(f"task {task.id} starts on {host.name} with another {id}")

    # Nodes

    def _label(self, host: Host, key: str, value: str, done: Callable[[], None]) -> None:
        self.with_node(
            host.name,
            lambda node: self.update_node(node, lambda spec: spec.annotations.labels.update({key: value}), done),
        )

    def _patience(self, fault: Planned) -> bool:
        """A worker that may be out of touch for a while is."""
        workers = [host for host in self.hosts if host.stage is not None and host.name.startswith("worker")]
        if not workers:
            return False
        dice, struck = self._dice(fault), self._once(fault.kind)
        host, away = workers[fault.args["host"] % len(workers)], dice.uniform(16.0, 40.0)

        def labelled() -> None:
            if self.faulty:
                struck()
                self.leave_alone(host, away)

        self._label(host, LOST_AFTER, f"{dice.randint(5, 60)}s", labelled)
        return False

    def _removal(self, fault: Planned) -> bool:
        """A worker that is down for long is to be removed; it is set up anew once it was."""
        workers = [host for host in self.hosts if host.stage is not None and host.name.startswith("worker")]
        if not workers:
            return False
        dice, struck = self._dice(fault), self._once(fault.kind)
        host = workers[fault.args["host"] % len(workers)]

        def labelled() -> None:
            if self.faulty and host.stage is not None:
                if host.name not in self.removable:
                    self.removable.add(host.name)
                    self._look_for(host)
                struck()
                self.go_down(host, "kill", fault.seconds)

        self._label(host, REMOVE_AFTER, f"{dice.randint(1, 10)}s", labelled)
        return False

    def _look_for(self, host: Host) -> None:
        """Sets a machine up anew that the swarm has removed."""
        nodes = self.watcher.model.tables["node"].values()
        if host.name not in self.damaged and not any(node.description.hostname == host.name for node in nodes):
            self.damaged[host.name] = host
            self.set_up_anew(host)
        self.simulator.set(AGAIN_S, lambda: self._look_for(host))

    def _promotions(self, fault: Planned) -> bool:
        """All workers are to be managers, at once, and workers again."""
        struck = self._once(fault.kind)
        workers = [host.name for host in self.hosts if host.name.startswith("worker")]

        def turn(role: int, done: Callable[[], None] = lambda: None) -> None:
            for name in () if self.damaged else workers:
                self.with_node(
                    name, lambda node: self.update_node(node, lambda spec: setattr(spec, "desired_role", role), done)
                )

        def back() -> None:
            if self.faulty:
                turn(types.WORKER)

        for at in (0.0, 4.0, 8.0):  # nobody may lead just now
            self.simulator.set(at, lambda: turn(types.MANAGER, struck) if self.faulty else None)
        self.simulator.set(9.0 + fault.seconds, back)
        return False

    # Managers that lock themselves

    def _autolock(self, fault: Planned) -> bool:
        """Managers lock themselves; now and then another key, or none any more. Whoever is locked is unlocked."""
        dice, struck = self._dice(fault), self._once(fault.kind)
        if not self.locking:
            self.locking = True
            self._unlock_all()

        def lock(on: bool) -> Change:
            return lambda spec: setattr(spec.encryption_config, "auto_lock_managers", on)

        self.update_cluster(lock(True), struck)
        rotation = control_pb2.KeyRotation(manager_unlock_key=True)
        for at in sorted(dice.uniform(3.0, 30.0) for _ in range(dice.randint(0, 2))):
            self.simulator.set(at, lambda: self.update_cluster(lambda spec: None, rotation=rotation))
        if dice.random() < 0.3:
            self.simulator.set(dice.uniform(10.0, 30.0), lambda: self.update_cluster(lock(False)))
        return False

    def _unlock_all(self) -> None:
        for host in self.hosts:
            self._unlock(host)
        self.simulator.set(AGAIN_S, self._unlock_all)

    def _unlock(self, host: Host) -> None:
        keys = [format_unlock_key(key) for key in self.watcher.model.unlock_keys]

        def tried(answer: Answer) -> None:
            if answer.error is not None and keys and host.stage is not None:
                self.ask_host(host, Unlock(keys.pop()), tried)

        def told(answer: Answer) -> None:
            if answer.error is None and answer.value.local_node_state == "locked" and keys:
                self.ask_host(host, Unlock(keys.pop()), tried)

        if host.stage is not None:
            self.ask_host(host, Info(), told)

    def _locks_unmet(self, tables: Any) -> str:
        """At rest the key files of managers, and of nobody else, stand under the present key."""
        if not self.locking:
            return ""
        (cluster,) = tables["cluster"].values()
        locks = cluster.spec.encryption_config.auto_lock_managers
        for host in self.hosts:
            data, manages = host.disk.files.read(KEY_FILE), host.cell("/cluster/node/manager/store") is not None
            if data is None:
                return f"{host.name} has no key"
            if is_encrypted(data) != (locks and manages):
                return f"the key of {host.name} is {'' if is_encrypted(data) else 'not '}encrypted"
            if is_encrypted(data):
                try:
                    decode_key_file(data, self.watcher.model.unlock_keys[-1])
                except Refused:
                    return f"the key of {host.name} is encrypted by another key than the present one"
        return ""

    # What must hold

    def unmet(self, tables: Any) -> str:
        """What people asked for that is not yet so; empty at rest."""
        if self.wrong:
            raise Violation(self.wrong[0])
        return self._jobs_unmet(tables) or self._updates_unmet(tables) or self._locks_unmet(tables)

    # As those do it who strike

    def leave_alone(self, host: Host, seconds: float) -> None:
        """Nobody reaches a machine for so long."""
        raise NotImplementedError

    def go_down(self, host: Host, mode: str, seconds: float) -> None:
        """A machine's daemon is gone for so long."""
        raise NotImplementedError


def _same_name(one: specs_pb2.ServiceSpec, other: specs_pb2.ServiceSpec) -> bool:
    return one.annotations.name == other.annotations.name


def _job_spec(name: str, dice: random.Random) -> specs_pb2.ServiceSpec:
    spec = replicated(name, 0, "exit", "0", "after", str(round(dice.uniform(0.0, 4.0), 1)))
    spec.task.restart.condition = types.RestartPolicy.ON_FAILURE
    if dice.random() < 0.3:
        spec.global_job.SetInParent()
    else:
        spec.replicated_job.total_completions = dice.randint(1, 5)
        spec.replicated_job.max_concurrent = dice.randint(1, 3)
    return spec


def _another_version(dice: random.Random) -> Change:
    value, bad, config = dice.getrandbits(30), dice.random() < 0.3, types.UpdateConfig()
    config.parallelism, config.order = dice.randint(0, 2), dice.choice((0, 1))
    config.delay.FromMilliseconds(dice.choice((0, 500, 3000)))
    config.monitor.FromMilliseconds(dice.choice((500, 2000, 5000)))
    actions = types.UpdateConfig.FailureAction
    config.failure_action = actions.Value("ROLLBACK" if bad else dice.choice(("PAUSE", "CONTINUE", "ROLLBACK")))

    def change(spec: Any) -> None:
        spec.update.CopyFrom(config)
        spec.task.container.env[:] = [f"VERSION={value}"]
        spec.task.container.command[:] = BAD if bad else GOOD

    return change


def _repaired(spec: Any) -> None:
    spec.task.force_update += 1
    spec.task.container.command[:] = GOOD
    spec.update.failure_action = types.UpdateConfig.CONTINUE
