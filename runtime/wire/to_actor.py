"""From the wire to actors: a call becomes a question to whoever lives at an address."""

from __future__ import annotations

import re

from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.protocol.wire import Incoming
from runtime.stage.address import Address
from runtime.stage.answers import ActorUnavailable, Answer, Reply
from runtime.wire.port import Call, Handler, Headers, Metadata

TRACE = "swarmlet-trace"
"""The metadata by which a call goes on with its caller's trace id; other kinds of nodes neither send nor read it."""
TRACE_ID = re.compile("[0-9a-f]{1,13}")


def trace_header(trace: int, metadata: Metadata = {}) -> Headers:  # noqa: B006 - never changed
    """What a call takes along, unless its metadata have it already."""
    return () if TRACE in metadata else ((TRACE, f"{trace:x}"),)


def trace_of(metadata: Metadata) -> int:
    """The caller's trace id; 0 if it sent none, or what cannot be one."""
    values = metadata.get(TRACE, ())
    return int(values[0], 16) if len(values) == 1 and TRACE_ID.fullmatch(values[0]) else 0


def to_actor(address: Address) -> Handler:
    """A handler that asks ``address``. Whoever calls hears of an actor that is not there (UNAVAILABLE) or that failed
    over the call (INTERNAL), without anything of its inner state."""

    def handle(call: Call) -> None:
        def answered(answer: Answer) -> None:
            if answer.error is not None:
                call.fail(_refusal(answer.error, call.method))
            elif isinstance(answer.value, Message):
                call.reply(answer.value)

        address.send(Incoming(call), None, Reply(answered), trace_of(call.metadata))

    return handle


def _refusal(error: BaseException, method: str) -> Refused:
    if isinstance(error, ActorUnavailable):
        return Refused(Code.UNAVAILABLE, f"{method} is not available on this node now")
    if isinstance(error, Refused):
        return error
    return Refused(Code.INTERNAL, f"the handler of {method} failed with {type(error).__name__}")
