"""What is done to a whole swarm under simulation: one method for each kind of fault (``swarm_plan``).

A method returns False if there was nobody to strike: then the fault does not count.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from runtime.disk.data_root import RAFT_DATABASE
from runtime.protocol.cluster import Update
from runtime.protocol.raft import TransferLeadership
from runtime.stage.answers import Answer, Reply
from runtime.stage.cell import Cell
from runtime.wire.pb import control_pb2, specs_pb2
from runtime.wire.pb import types_pb2 as types
from swarmlet.testing.host import Host
from tests.simulation.plan import Planned
from tests.simulation.swarm_clients import RAFT, STORE
from tests.simulation.swarm_uses import Uses

SELDOM = ("join", "demote", "install", "ca", "node", "conf")
"""Crash points that a run comes to a few times at most."""


SYNCS_WITHIN = 60.0
"""Seconds within which a disk whose next syncs are to fail is written to, or is never."""
AHEAD_MAX = 120.0
"""Seconds by which clocks go ahead in runs with a new root: one that a leader makes an hour ahead holds in an hour."""


class NodeDied(BaseException):
    """The machine is gone in the middle of a handler: nothing behind it runs."""


class Faults(Uses):
    """Strikes. ``point`` is a crash point at which the node that comes to it ends, by ``mode``, ``deaths`` times in
    all; ``points`` counts how often each was come to."""

    def __init__(
        self, seed: int, managers: int, workers: int, rng: random.Random, point: str, mode: str, deaths: int
    ) -> None:
        super().__init__(seed, managers, workers, rng)
        self.points: Counter[str] = Counter()
        self.died = 0
        self._point, self._mode, self._deaths = point, mode, deaths
        self._points: list[tuple[str, str, float]] = []
        self._rare: set[str] = set()
        self._looks: list[Callable[[], None]] = []
        self.faults: list[Planned] = []
        self.damaged = {}

    def inject(self, fault: Planned) -> None:
        """Strikes, unless the time of faults is over. What only may strike from here on (a point is come to, a sync is
        made, a request is granted) says False, and is counted when it does."""
        if not self.faulty:
            return
        done = getattr(self, "_" + fault.kind.replace(" ", "_").replace("-", "_"))(fault)
        if done is not False:
            self.injected[fault.kind] += 1

    def _when_it_strikes(self, kind: str, count: Callable[[], int], seconds: float) -> bool:
        """Counts one fault if ``count`` has grown within so many seconds, or before all faults end."""
        before, struck = count(), self._once(kind)

        def look() -> None:
            if look in self._looks:
                self._looks.remove(look)
                if count() > before:
                    struck()

        self._looks.append(look)
        self.simulator.set(seconds, look)
        return False

    def look_what_struck(self) -> None:
        """The time of faults is over."""
        for look in list(self._looks):
            look()

    def _host(self, fault: Planned, name: str = "host", prefix: str = "") -> Host | None:
        hosts = [host for host in self.hosts if host.stage is not None and host.name.startswith(prefix)]
        return hosts[fault.args[name] % len(hosts)] if hosts else None

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self.simulator.set(seconds, lambda: call() if self.faulty else None)

    def _each_link(self, change: Callable[[Any], None]) -> None:
        for number, one in enumerate(self.hosts):
            for other in self.hosts[number + 1 :]:
                change(self.swarm.network.link(one.ip, other.ip))

    def _loss(self, fault: Planned) -> bool:
        self._each_link(lambda link: setattr(link, "drop", fault.args["rate"]))
        self._later(fault.seconds, lambda: self._each_link(lambda link: setattr(link, "drop", 0.0)))
        return self._when_it_strikes(fault.kind, lambda: self.swarm.network.lost, fault.seconds)

    def _duplication(self, fault: Planned) -> bool:
        self._each_link(lambda link: setattr(link, "duplicate", fault.args["rate"]))
        self._later(fault.seconds, lambda: self._each_link(lambda link: setattr(link, "duplicate", 0.0)))
        return self._when_it_strikes(fault.kind, lambda: self.swarm.network.repeated, fault.seconds)

    def _latency(self, fault: Planned) -> None:
        self._each_link(lambda link: setattr(link, "jitter", fault.args["rate"]))
        self._later(fault.seconds, lambda: self._each_link(lambda link: setattr(link, "jitter", 0.002)))

    def _cut(self, pairs: list[tuple[str, str]], seconds: float) -> None:
        network = self.swarm.network
        for source, target in pairs:
            network.half_open(source, target)

        def mend() -> None:
            for source, target in pairs:
                network.heal(source, target)

        self._later(seconds, mend)

    def _partition(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None:
            return False
        self._cut_off(host, fault.seconds)
        return None

    def leave_alone(self, host: Host, seconds: float) -> None:
        self._cut_off(host, seconds)

    def go_down(self, host: Host, mode: str, seconds: float) -> None:
        self._down(host, mode, seconds)

    def _cut_off(self, host: Host, seconds: float) -> None:
        others = [other.ip for other in self.hosts if other is not host]
        self._cut([pair for ip in others for pair in ((host.ip, ip), (ip, host.ip))], seconds)

    def _one_way_partition(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None:
            return False
        self._cut([(host.ip, other.ip) for other in self.hosts if other is not host], fault.seconds)
        return None

    def _partial_partition(self, fault: Planned) -> bool | None:
        one, other = self._host(fault), self._host(fault, "other")
        if one is None or other is None or one is other:
            return False
        self._cut([(one.ip, other.ip), (other.ip, one.ip)], fault.seconds)
        return None

    def _leader_cut_off(self, fault: Planned) -> bool | None:
        leaders = [host for host in self.hosts if host.leads()]
        if not leaders:
            return False
        self._cut_off(leaders[0], fault.seconds)
        return None

    def _leader_transfer(self, fault: Planned) -> bool | None:
        leaders = [host for host in self.hosts if host.leads()]
        if not leaders or leaders[0].stage is None:
            return False
        leaders[0].stage.at(RAFT).send(TransferLeadership(), None, Reply(lambda _answer: None), 0)
        return None

    def _clog(self, fault: Planned) -> bool | None:
        """Some are held back one after the other, and let go in another order: nothing is lost, much is late."""
        hosts = [host for host in self.hosts if host.stage is not None]
        chosen = sorted({place % len(hosts) for place in fault.args["hosts"]}) if len(hosts) > 1 else []
        if not chosen:
            return False
        step = fault.seconds / (2 * len(chosen))
        order = list(chosen)
        random.Random(fault.args["order"]).shuffle(order)
        for number, place in enumerate(chosen):
            host, until = hosts[place], fault.seconds / 2 + step * (order.index(place) + 1)
            self._later(step * number, lambda host=host, left=until - step * number: self._cut_off(host, left))  # type: ignore[misc]
        return None

    def _reset(self, fault: Planned) -> bool:
        one, other = self._host(fault), self._host(fault, "other")
        if one is None or other is None or one is other:
            return False
        return self.swarm.network.reset(one.ip, other.ip) > 0

    def _down(self, host: Host, mode: str, seconds: float) -> None:
        power = None if mode == "kill" else self.rng.getrandbits(32)
        host.crash(power, lose_all=mode == "lost")
        lives = host.lives
        self.simulator.set(seconds, lambda: host.boot() if host.stage is None and host.lives == lives else None)

    def _crash(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None:
            return False
        self._down(host, fault.args["mode"], fault.seconds)
        return None

    def _crash_of_all(self, fault: Planned) -> None:
        for host in self.hosts:
            if host.stage is not None:
                self._down(host, fault.args["mode"], fault.seconds * self.rng.random())

    def _crash_at_a_point(self, fault: Planned) -> bool:
        """The next point that this host comes to ends it."""
        host = self._host(fault)
        if host is not None:
            self._points.append((host.name, fault.args["mode"], fault.seconds))
        return False

    def at_point(self, name: str) -> None:
        cell = self.simulator.current
        if cell is None or not self.faulty:
            return
        self.points[name] += 1
        seldom = name.partition(".")[0] in SELDOM
        if name == self._point and self.died < self._deaths and (seldom or self.rng.random() < 0.1):
            host = self.swarm.host(cell.stage.world.name)
            if host.stage is cell.stage:
                self.died += 1
                self._down(host, self._mode, 2.0)
                raise NodeDied(name)
        for point in self._points:
            if point[0] == cell.stage.world.name and self.rng.random() < 0.3:
                self._points.remove(point)
                host = self.swarm.host(point[0])
                if host.stage is cell.stage:
                    self.injected["crash at a point"] += 1
                    self._down(host, point[1], point[2])
                    raise NodeDied(name)

    def _actor(self, fault: Planned) -> bool:
        host = self._host(fault)
        if host is None or host.stage is None:
            return False
        cells = sorted(host.stage.cells)
        cell = host.stage.cells[cells[fault.args["actor"] % len(cells)]]
        struck = self._once(fault.kind)

        def fail() -> None:
            if cell.instance is not None:
                struck()
            cell.failed(RuntimeError("injected"), None)

        cell.control(fail)
        return False

    def _pause(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None or host.stage is None:
            return False
        self.simulator.pause(host.stage, fault.seconds)
        self.held_still += fault.seconds
        return None

    def _starvation(self, fault: Planned) -> bool:
        host = self._host(fault)
        if host is None or host.stage is None:
            return False
        cells = sorted(host.stage.cells)
        cell = host.stage.cells[cells[fault.args["actor"] % len(cells)]]
        self._slow(cell, fault, self._once(fault.kind))
        return False

    def _slow(self, cell: Cell, fault: Planned, struck: Callable[[], None]) -> None:
        def wait() -> float:
            struck()
            return float(fault.args["delay"]) * self.rng.random()

        self.simulator.slow(cell, wait)
        self.simulator.set(fault.seconds, lambda: self.simulator.slow(cell, None))

    def _slow_disk(self, fault: Planned) -> bool:
        host, struck = self._host(fault), self._once(fault.kind)
        if host is None:
            return False
        for path in ("/cluster/node/manager/raft/log", "/cluster/node/agent"):
            cell = host.cell(path)
            if cell is not None:
                self._slow(cell, fault, struck)
        return False

    def _skew(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None:
            return False
        step = fault.args["step"]
        if any(each.kind == "root rotation" for each in self.faults):
            step = min(step, AHEAD_MAX)
        host.clock.skew += step
        return None

    def _drift(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None:
            return False
        host.clock.drift(fault.args["rate"])
        return None

    def _disk_full(self, fault: Planned) -> bool:
        host = self._host(fault)
        if host is None:
            return False
        self.swarm.disk_full(host.name)

        def free() -> None:
            host.disk.files.fail_after = None
            for _name, image in host.disk.images:
                image.heal()

        self.simulator.set(fault.seconds, free)
        disk = host.disk
        refused = lambda: sum(image.refused_writes for _name, image in disk.images)  # noqa: E731
        return self._when_it_strikes(fault.kind, refused, fault.seconds)

    def _sync_error(self, fault: Planned) -> bool:
        host = self._host(fault)
        if host is None:
            return False
        for _name, image in host.disk.images:
            image.sync_error_at(self.rng.randrange(3))
        disk = host.disk
        failed = lambda: sum(image.failed_syncs for _name, image in disk.images)  # noqa: E731
        return self._when_it_strikes(fault.kind, failed, SYNCS_WITHIN)

    def _bit_flip(self, fault: Planned) -> bool | None:
        """One bit of a manager's log, snapshot or state is another when it starts again: it may serve nothing of that,
        and its machine is set up anew. Only one at a time: what the majority holds must be there."""
        hosts = self.damageable()
        if not hosts:
            return False
        host = hosts[fault.args["host"] % len(hosts)]
        host.crash()
        host.disk.image(RAFT_DATABASE).corrupt(random.Random(fault.args["bit"]))
        self.damaged[host.name] = host
        lives = host.lives
        self.simulator.set(fault.seconds, lambda: host.boot() if host.stage is None and host.lives == lives else None)
        self.simulator.set(fault.seconds + 5.0, lambda: self.look_at_damage(host))
        return None

    def damageable(self) -> list[Host]:
        """The managers that are up, and not on their way out: such a one has no log any more. None of them while the
        group can lose none."""
        if self.damaged or not self._can_lose_one():
            return []
        nodes = self.watcher.model.tables["node"].values()
        managers = {node.description.hostname for node in nodes if node.role == types.MANAGER}
        return [host for host in self.up() if host.cell(STORE) is not None and host.name in managers]

    def _can_lose_one(self) -> bool:
        """Whether the group is large enough, and nobody is on the way into it or out of it. A node that was promoted
        while it was down has the role, and is no member yet; one that listens is a member, and has no vote yet."""
        nodes = list(self.watcher.model.tables["node"].values())
        settled = all(node.role == node.spec.desired_role for node in nodes)
        managers = sum(1 for node in nodes if node.role == types.MANAGER)
        return settled and managers >= 3 and self.voters() == managers

    def _rare_path(self, fault: Planned) -> bool:
        """From now on this legal path is taken now and then; it counts when it is."""
        self._rare.add(fault.args["path"])
        return False

    def take_rare(self, path: str) -> bool:
        """Whether to take it this time."""
        if path not in self._rare or not self.faulty or self.rng.random() >= 0.25:
            return False
        self.injected[f"rare {path}"] += 1
        return True

    def _task_killed(self, fault: Planned) -> bool | None:
        host = self._host(fault)
        if host is None or not host.executor.running:
            return False
        host.executor.kill(host.executor.running[fault.args["actor"] % len(host.executor.running)])
        return None

    # Changes by an operator

    def _drain(self, fault: Planned) -> bool:
        host = self._host(fault)
        if host is None:
            return False

        struck = self._once(fault.kind)

        def available(how: int) -> None:
            change = lambda spec: setattr(spec, "availability", how)  # noqa: E731
            self.with_node(host.name, lambda node: self.update_node(node, change, struck))

        available(specs_pb2.NodeSpec.DRAIN)
        self.simulator.set(fault.seconds, lambda: available(specs_pb2.NodeSpec.ACTIVE))
        return False

    def _role_change(self, fault: Planned) -> bool:
        """A manager is demoted, or a worker promoted, and back."""
        host = self._host(fault)
        if host is None or host is self.first or self.damaged:
            return False
        struck = self._once(fault.kind)

        def turn() -> None:
            if self.damaged:
                return

            def flip(spec: Any) -> None:
                spec.desired_role = types.WORKER if spec.desired_role == types.MANAGER else types.MANAGER

            self.with_node(host.name, lambda node: self.update_node(node, flip, struck))

        turn()
        self._later(fault.seconds, turn)
        return False

    def _token_rotation(self, fault: Planned) -> bool:
        struck = self._once(fault.kind)
        rotation = control_pb2.KeyRotation(worker_join_token=True, manager_join_token=self.rng.random() < 0.5)

        def listed(answer: Answer) -> None:
            if answer.error is None and answer.value.clusters:
                cluster = answer.value.clusters[0]
                up = self.up()
                message = Update(cluster.meta.version.index, cluster.spec, rotation)
                host = self.rng.choice(up) if up else None
                self.ask_host(host, message, lambda answer: struck() if answer.error is None else None)

        self.ask("ListClusters", control_pb2.ListClustersRequest(), listed)
        return False

    def _frequent_snapshots(self, fault: Planned) -> bool:
        def often(spec: Any) -> None:
            spec.raft.snapshot_interval, spec.raft.log_entries_for_slow_followers = 8, 3

        self.update_cluster(often, self._once(fault.kind))
        return False

    def _root_rotation(self, fault: Planned) -> bool:
        self.rotate_root(self._once(fault.kind))
        return False
