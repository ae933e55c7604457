"""The operator of a whole swarm under simulation: what a person does by the control API, tried until it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.disk.memory import MemoryDisk
from runtime.protocol.cluster import Info
from runtime.stage.answers import Answer
from runtime.wire.pb import control_pb2, objects_pb2, specs_pb2
from runtime.wire.pb import types_pb2 as types
from swarmlet.testing.host import Host
from tests.simulation.swarm_clients import Clients

AGAIN_S = 2.0


class Operator(Clients):
    """``damaged`` are the machines whose disk was damaged and that were not set up anew yet; ``noticed`` counts those
    that said so."""

    damaged: dict[str, Host]
    noticed = 0

    def update_node(
        self, node: objects_pb2.Node, change: Callable[[Any], None], done: Callable[[], None] = lambda: None
    ) -> None:
        """``done`` hears that it was carried out."""
        spec = specs_pb2.NodeSpec()
        spec.CopyFrom(node.spec)
        change(spec)
        request = control_pb2.UpdateNodeRequest(node_id=node.id, node_version=node.meta.version, spec=spec)
        self.ask("UpdateNode", request, lambda answer: done() if answer.error is None else None)

    def with_node(self, name: str, then: Callable[[objects_pb2.Node], None]) -> None:
        def listed(answer: Answer) -> None:
            if answer.error is None:
                for node in answer.value.nodes:
                    if node.description.hostname == name:
                        then(node)

        self.ask("ListNodes", control_pb2.ListNodesRequest(), listed)

    def update_cluster(
        self,
        change: Callable[[Any], None],
        done: Callable[[], None] = lambda: None,
        tries: int = 5,
        rotation: control_pb2.KeyRotation | None = None,
    ) -> None:
        """Tried again when whoever was asked is no manager, or another change came between. ``done`` hears that it was
        carried out."""

        def again(answer: Answer) -> None:
            if answer.error is not None and tries > 1:
                self.simulator.set(2.0, lambda: self.update_cluster(change, done, tries - 1, rotation))

        def updated(answer: Answer) -> None:
            again(answer)
            if answer.error is None:
                done()

        def listed(answer: Answer) -> None:
            again(answer)
            if answer.error is None and answer.value.clusters:
                cluster = answer.value.clusters[0]
                spec = specs_pb2.ClusterSpec()
                spec.CopyFrom(cluster.spec)
                change(spec)
                request = control_pb2.UpdateClusterRequest(
                    cluster_id=cluster.id, cluster_version=cluster.meta.version, spec=spec, rotation=rotation
                )
                self.ask("UpdateCluster", request, updated)

        self.ask("ListClusters", control_pb2.ListClustersRequest(), listed)

    def activate(self) -> None:
        """Nothing stays drained."""

        def listed(answer: Answer) -> None:
            for node in answer.value.nodes if answer.error is None else ():
                if node.spec.availability != specs_pb2.NodeSpec.ACTIVE:
                    self.update_node(node, lambda spec: setattr(spec, "availability", specs_pb2.NodeSpec.ACTIVE))

        self.ask("ListNodes", control_pb2.ListNodesRequest(), listed)

    def rotate_root(self, done: Callable[[], None] = lambda: None) -> None:
        """Another root CA, in place of one that is being moved to if there is one."""

        def force(spec: Any) -> None:
            spec.ca_config.force_rotate += 1

        self.update_cluster(force, done)

    # A machine whose disk is damaged

    def look_at_damage(self, host: Host) -> None:
        """Asks a machine that was started over a damaged disk what it says, and sets it up anew if it is in error."""
        if self.damaged.get(host.name) is not host:
            return

        def told(answer: Answer) -> None:
            if answer.error is None and answer.value.local_node_state == "error":
                self.noticed += 1
                self.set_up_anew(host)
            else:
                self.simulator.set(AGAIN_S, lambda: self.look_at_damage(host))

        self.ask_host(host, Info(), told)

    def set_up_anew(self, host: Host) -> None:
        """Nothing of it is kept; the swarm forgets it before it joins again."""
        if host.stage is not None:
            host.crash()
        host.disk = MemoryDisk()
        host.executor.power_off()
        self._forget(host)

    def _forget(self, host: Host) -> None:
        """Demotes and removes what the swarm knows under this machine's name, then has the machine join."""

        def listed(answer: Answer) -> None:
            if answer.error is not None:
                self._forget_later(host)
                return
            known = [node for node in answer.value.nodes if node.description.hostname == host.name]
            if not known:
                self._join_anew(host)
                return
            for node in known:
                self._forget_node(node)
            self._forget_later(host)

        self.ask("ListNodes", control_pb2.ListNodesRequest(), listed)

    def _forget_later(self, host: Host) -> None:
        self.simulator.set(AGAIN_S, lambda: self._forget(host))

    def _forget_node(self, node: objects_pb2.Node) -> None:
        """Removed, unless it is a member of the quorum: then it is demoted first."""

        def removed(answer: Answer) -> None:
            if answer.error is not None and node.spec.desired_role == types.MANAGER:
                self.update_node(node, lambda spec: setattr(spec, "desired_role", types.WORKER))

        self.watcher.model.rules.forgotten.add(node.id)
        self.ask("RemoveNode", control_pb2.RemoveNodeRequest(node_id=node.id, force=True), removed)

    def _join_anew(self, host: Host) -> None:
        def again() -> None:
            self.simulator.set(AGAIN_S, lambda: self._join_anew(host))

        def joined(answer: Answer) -> None:
            if answer.error is None or "already part of a swarm" in str(answer.error):
                self._tidy(host)
            else:
                again()

        def listed(answer: Answer) -> None:
            leaders = [each for each in self.hosts if each.leads()]
            if answer.error is not None or not answer.value.clusters or not leaders:
                again()
                return
            if host.stage is None:
                host.boot()
            tokens = answer.value.clusters[0].root_ca.join_tokens
            token = tokens.manager if host.name.startswith("manager") else tokens.worker
            self.ask_host(host, host.join_message(leaders[0], token), joined)

        self.ask("ListClusters", control_pb2.ListClustersRequest(), listed)

    def _tidy(self, host: Host) -> None:
        """A join that came to nothing may have left a node behind: it is removed, as one does."""

        def again() -> None:
            self.simulator.set(AGAIN_S, lambda: self._tidy(host))

        def told(info: Answer) -> None:
            def listed(answer: Answer) -> None:
                if info.error is not None or answer.error is not None or not info.value.node_id:
                    again()
                    return
                left = [
                    node
                    for node in answer.value.nodes
                    if node.description.hostname in (host.name, "") and node.id != info.value.node_id
                ]
                for node in left:
                    self._forget_node(node)
                if left:
                    again()
                else:
                    self.damaged.pop(host.name, None)

            self.ask("ListNodes", control_pb2.ListNodesRequest(), listed)

        self.ask_host(host, Info(), told)
