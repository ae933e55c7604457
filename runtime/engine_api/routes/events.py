"""``/events``: what happens to the swarm's objects, as it happens.

Rules: headers leave at once; ``since`` replays what is kept from then on; a stream with ``until`` ends by itself; one
that cannot go on without a gap says so in its last line.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from runtime.engine_api import events, filters, jsonio
from runtime.engine_api.call import JSON_TYPE, Call, Stream
from runtime.engine_api.errors import bad
from runtime.protocol.cluster import SwarmEvent

SECONDS_DIGITS: Final = 12


async def listen(call: Call) -> Stream:
    """``GET /events``."""
    given = filters.parse(call.query("filters"), events.FILTERS)
    since, until = time_of(call, "since"), time_of(call, "until")
    if since is not None and until is not None and since > until:
        raise bad(f"`since` time ({call.query('since')}) cannot be after `until` time ({call.query('until')})")
    return Stream(JSON_TYPE, pieces(call.backend.events(since, until), given, until))


def time_of(call: Call, key: str) -> int | None:
    """A time in the query, unix seconds with up to nine digits of fraction, in nanoseconds; None if it is absent."""
    text = call.query(key)
    if not text:
        return None
    seconds, _, fraction = text.partition(".")
    digits = seconds.removeprefix("-") + fraction
    if not seconds.removeprefix("-") or not (digits.isascii() and digits.isdecimal()) or len(seconds) > SECONDS_DIGITS:
        raise bad(f'invalid value for "{key}": {text!r} is no unix time')
    return int(seconds) * events.NANOS + int(fraction[:9].ljust(9, "0"))


async def pieces(
    told: AsyncIterator[SwarmEvent], given: filters.Filters, until: int | None
) -> AsyncGenerator[bytes, None]:
    """The stream's lines, up to ``until``. Closing it ends the subscription."""
    try:
        async for event in told:
            if until is not None and event.time_ns > until:
                return
            if events.wanted(event, given):
                yield jsonio.encode(events.event_to_json(event))
    finally:
        close = getattr(told, "aclose", None)
        if close is not None:
            await close()


ROUTES = {"GET /events": listen}
