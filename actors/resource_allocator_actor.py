"""ResourceAllocatorActor serves nodes that ask for a place on a network for a container of theirs, and give it back.

Nodes talk to it over the wire, and it to the store. It decides nothing: ``runtime/swarm/resource_api`` does.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from actors.serving import Serving, serves
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Write
from runtime.stage import Policy
from runtime.swarm.identity import new_id
from runtime.swarm.resource_api import attach_network, detach_network
from runtime.wire.port import Call


class ResourceAllocatorActor(Serving):
    """Lives below the leader, as long as this manager leads."""

    policy = Policy()

    def __init__(self, context: LeaderContext) -> None:
        super().__init__()
        self.context = context

    @serves("ResourceAllocator", "AttachNetwork")
    def attach(self, call: Call) -> Message | None:
        """Makes an attachment; the answer is its id."""
        request: Any = call.request
        step = attach_network(request, call.identity.node_id, new_id(self.world.entropy))
        self.forward(self.context.store, Write(step))
        return None

    @serves("ResourceAllocator", "DetachNetwork")
    def detach(self, call: Call) -> Message | None:
        """Takes one back."""
        request: Any = call.request
        self.forward(self.context.store, Write(detach_network(request, call.identity.node_id)))
        return None
