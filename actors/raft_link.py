"""One call that stays open and carries every message to a manager of our kind, which costs a third of a call for each.

It is SwarmKit's StreamRaftMessage with a word in its metadata: each request is a message of its own, and the answer
comes when the call ends. Only whoever has said the same word to us before is called so; others get a call for each
message, as SwarmKit has it.

What was sent before the call ended may be lost, and nobody says what: that is one loss to the consensus, which asks
anew from there. Not an actor: RaftPeer owns the sending side, RaftTransportActor the receiving one.
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message as Protobuf

from runtime.errors import Refused
from runtime.raft.codec import write_message
from runtime.raft.types import Message
from runtime.wire.pb import raft_pb2
from runtime.wire.port import Channel, Headers, Metadata
from runtime.wire.services import path

STREAM = path("Raft", "StreamRaftMessage")
LINK: Headers = (("swarmlet-raft-link", "1"),)


class RaftLink:
    """``headers`` hold for every message of it; ``ended`` hears how it ended."""

    __slots__ = ("_upload", "headers")

    def __init__(self, channel: Channel, headers: Headers, ended: Callable[[Protobuf | Refused], None]) -> None:
        self.headers = headers
        self._upload = channel.upload(STREAM, done=ended, metadata=(*headers, *LINK))

    def send(self, message: Message) -> None:
        """One more; if too much waits already the call fails, and says so."""
        request = raft_pb2.StreamRaftMessageRequest()
        write_message(message, request.message)
        self._upload.send(request)

    def finish(self) -> None:
        """Ends it after what was sent."""
        self._upload.finish()

    def break_off(self) -> None:
        """Ends it now."""
        self._upload.cancel()


def is_link(metadata: Metadata) -> bool:
    """Whether each request of a call is a message of its own."""
    return metadata.get(LINK[0][0]) == (LINK[0][1],)
