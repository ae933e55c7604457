"""Health checks of tasks: a command run beside the task again and again, with the engine's rules and defaults.

A failure within the start period does not count until the first success; after ``retries`` failures in a row the task
is unhealthy. The checks are the daemon's: while there is none, a task runs unchecked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from runtime.wire.pb import types_pb2

Probe = Callable[[list[str], float], Awaitable[bool]]
INTERVAL, TIMEOUT, START_INTERVAL, RETRIES = 30.0, 30.0, 5.0, 3


class HealthRules:
    """A HealthConfig with its defaults filled in; seconds."""

    def __init__(self, config: types_pb2.HealthConfig) -> None:
        def seconds(name: str, default: float) -> float:
            given: float = getattr(config, name).ToNanoseconds() / 1e9
            return given if given > 0 else default

        test = list(config.test)
        self.argv = ["/bin/sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:]
        self.interval = seconds("interval", INTERVAL)
        self.timeout = seconds("timeout", TIMEOUT)
        self.start_period = seconds("start_period", 0.0)
        self.start_interval = seconds("start_interval", START_INTERVAL)
        self.retries = config.retries if config.retries > 0 else RETRIES


async def watch_health(
    rules: HealthRules, probe: Probe, healthy: Callable[[], None], *, was_healthy: bool = False
) -> None:
    """Returns when the task is unhealthy; ``healthy`` is called after each success. ``was_healthy``: its start period
    is over, for it has been healthy before."""
    began = asyncio.get_running_loop().time()
    failures, starting = 0, rules.start_period > 0 and not was_healthy
    while failures < rules.retries:
        await asyncio.sleep(rules.start_interval if starting else rules.interval)
        good = await probe(rules.argv, rules.timeout)
        if good:
            failures, starting = 0, False
            healthy()
            continue
        starting = starting and asyncio.get_running_loop().time() - began < rules.start_period
        failures += 0 if starting else 1
