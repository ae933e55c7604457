"""What the decisions of this room need of a store: two protocols, satisfied structurally.

Rules owned here: objects are the classes of ``runtime.wire.pb.objects_pb2`` and a table is named by its class; what a
view hands out is never changed by its reader (copy, change the copy, hand it to ``update``); whatever returns
several objects returns them sorted by id, so that no order of hashing reaches a decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

StoreObject = (
    objects.Node
    | objects.Service
    | objects.Task
    | objects.Network
    | objects.Cluster
    | objects.Secret
    | objects.Config
    | objects.Resource
    | objects.Extension
    | objects.Volume
)
"""Any stored object."""

T = TypeVar("T", bound=StoreObject)
"""One kind of stored object; a kind is named by its class."""

Key = str | int
"""An index key: text, or the number of an enumeration's value."""


def slot_key(service_id: str, slot: int) -> str:
    """The key of index ``slot``: one slot of one service."""
    return f"{service_id}/{slot}"


class View(Protocol):
    """A state of the cluster that stays what it is while it is read."""

    @property
    def version(self) -> int:
        """The raft index of the last change that this view holds."""

    def get(self, kind: type[T], id: str) -> T | None:
        """The object with this id."""

    def find(self, kind: type[T], index: str, key: Key) -> Sequence[T]:
        """The objects under a key of an index (4.1 of SwarmKit's store), sorted by id.

        Indices: ``name`` (any case), ``service``, ``node``, ``slot`` (`slot_key`), ``desired_state``, ``task_state``,
        ``role``, ``membership``, ``runtime``, ``network``, ``secret``, ``config``, ``kind``, ``volume_group``,
        ``driver``.
        """

    def all(self, kind: type[T]) -> Sequence[T]:
        """Every object of a kind, sorted by id."""

    def count(self, kind: type[T]) -> int:
        """How many objects of a kind there are."""

    def prefix(self, kind: type[T], field: Literal["id", "name"], text: str) -> Sequence[T]:
        """The objects whose id or name begins with a text (names in any case), sorted by id."""


class Tx(View, Protocol):
    """A view that sees its own changes, for a function that may run more than once.

    ``create`` and ``update`` store a copy and stamp its ``meta``; read the stored object back with ``get``.
    ``update`` refuses an object whose ``meta.version`` is not the stored one: ``update out of sequence``.
    """

    @property
    def now(self) -> float:
        """The time of this transaction, in seconds since the epoch."""

    def create(self, obj: StoreObject) -> object:
        """Adds an object; refused when its id or its name is taken."""

    def update(self, obj: StoreObject) -> object:
        """Replaces an object by a newer one with the same id."""

    def set_status(self, task: objects.Task, status: types.TaskStatus) -> object:
        """Replaces a task, as this transaction gave it, by one that has another status and is the same otherwise."""

    def delete(self, kind: type[T], id: str) -> object:
        """Removes an object; refused when there is none."""
