"""KeyManagerActor renews the keys of overlay networks in the cluster object, while this manager leads.

It makes those that are missing at its start and replaces the oldest of each sort every twelve hours. Sessions bring
them to the nodes (DispatcherActor); it tells nobody anything itself.
"""

from __future__ import annotations

from typing import Any

from actors.store_watcher import StoreWatcher
from runtime.protocol.manager import LeaderContext
from runtime.stage import Answer, GiveUp, Policy, handles
from runtime.store.view import View
from runtime.swarm.bootstrap_keys import ROTATE_EVERY_S, changing_keys, has_keys
from runtime.wire.pb import objects_pb2

TRY_AGAIN = 10.0


class _Rotate:
    """Twelve hours have passed."""


class _Again:
    """Another try at what the store refused."""

    def __init__(self, rotate: bool) -> None:
        self.rotate = rotate


class KeyManagerActor(StoreWatcher):
    """Lives below the leader."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self._rotations = 0
        self._trouble = ""

    def started(self) -> None:
        self.begin(self.view)
        self.every(ROTATE_EVERY_S, _Rotate())

    def snapshot(self) -> dict[str, Any]:
        return {"rotations": self._rotations, "trouble": self._trouble}

    def begin(self, view: View) -> None:
        cluster = view.get(objects_pb2.Cluster, self.context.cluster_id)
        if cluster is not None and not has_keys(cluster):
            self._change(rotate=False)

    @handles(_Rotate)
    def rotate(self, message: _Rotate) -> None:
        """The oldest keys go."""
        self._change(rotate=True)

    @handles(_Again)
    def again(self, message: _Again) -> None:
        """The same once more."""
        self._change(rotate=message.rotate)

    def _change(self, *, rotate: bool) -> None:
        step = changing_keys(self.context.cluster_id, self.world.entropy, rotate=rotate)
        self.write(step, lambda answer: self._changed(rotate, answer))

    def _changed(self, rotate: bool, answer: Answer) -> None:
        if answer.error is not None:
            self._trouble = str(answer.error)
            self.after(TRY_AGAIN, _Again(rotate))
        else:
            self._trouble = ""
            self._rotations += rotate
