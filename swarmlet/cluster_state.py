"""What lasts of the cluster layer, on a node's disk: ``docker-state.json`` and the state directory around it.

Rules owned here (dockerd's): a join that was under way goes on at the remote address; token and keys are never
written; state that is not ours or cannot be understood is refused by name and left as it is.
"""

from __future__ import annotations

from dataclasses import fields

from runtime.disk.data_root import clear_data_root, inspect_data_root
from runtime.disk.errors import ForeignState, StateDamaged
from runtime.disk.port import Files
from runtime.disk.state_files import DockerState, StateFiles
from runtime.protocol.cluster import ClusterError
from runtime.protocol.node import StartConfig

_KEPT = tuple(field.name for field in fields(DockerState))


class FileClusterState:
    """``runtime.protocol.node.ClusterState`` over the files of a disk."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def load(self) -> StartConfig | None:
        """What was saved; None when this node is in no swarm, after leftovers of a failed attempt were cleared.

        ``ClusterError`` when the data root is another program's, damaged, or holds a raft log without certificate.
        """
        try:
            state = inspect_data_root(self._files)
        except (ForeignState, StateDamaged) as error:
            raise ClusterError("plain", str(error)) from error
        if state is None:
            return None
        # The token is gone: this helps a node that has its certificate and had not been ready yet.
        join_addr = state.remote_addr if state.join_in_progress else ""
        return StartConfig(**{name: getattr(state, name) for name in _KEPT}, join_addr=join_addr)

    def save(self, config: StartConfig) -> None:
        """Replaces ``docker-state.json``."""
        state = DockerState(**{name: getattr(config, name) for name in _KEPT})
        StateFiles(self._files).save_docker_state(state)

    def clear(self) -> None:
        """Removes everything that this node kept of its swarm; what is another program's stays and is refused."""
        try:
            clear_data_root(self._files)
        except ForeignState as error:
            raise ClusterError("plain", str(error)) from error
