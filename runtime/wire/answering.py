"""What both transports do around a handler, and the texts of the answers that no handler gives."""

from __future__ import annotations

import logging

from runtime.errors import Code, Refused
from runtime.wire.inbound import InboundCall
from runtime.wire.port import Handler

logger = logging.getLogger("swarmlet.wire")


def serve_call(handler: Handler, call: InboundCall) -> None:
    """Runs a handler. What it refuses is answered so; an exception is logged and answered with INTERNAL, in words
    that give nothing away: it never ends the transport, and the caller never waits for an answer that won't come."""
    try:
        handler(call)
    except Refused as refused:
        call.fail(refused)
    except Exception as error:
        logger.exception("the handler of %s failed", call.method)
        call.fail(Refused(Code.INTERNAL, f"the handler of {call.method} failed with {type(error).__name__}"))


def unknown_method(path: str) -> Refused:
    """For a method without a route, in gRPC's usual words: SwarmKit's fall-backs look at the code."""
    service, _, name = path.rpartition("/")
    return Refused(Code.UNIMPLEMENTED, f"unknown method {name} for service {service.lstrip('/')}")


def malformed(path: str) -> Refused:
    """For bytes that are not the method's message."""
    return Refused(Code.INTERNAL, f"the request of {path} is not a valid message")
