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


class HealthCount:
    """What a row of checks says. ``was_healthy``: its start period is over, for it has been healthy before."""

    def __init__(self, rules: HealthRules, now: float, was_healthy: bool = False) -> None:
        self._rules = rules
        self._began = now
        self._failures = 0
        self._starting = rules.start_period > 0 and not was_healthy

    @property
    def sick(self) -> bool:
        """Whether too many failed in a row."""
        return self._failures >= self._rules.retries

    @property
    def pause(self) -> float:
        """Seconds until the next check."""
        return self._rules.start_interval if self._starting else self._rules.interval

    def note(self, good: bool, now: float) -> None:
        """Counts one check."""
        if good:
            self._failures, self._starting = 0, False
            return
        self._starting = self._starting and now - self._began < self._rules.start_period
        self._failures += 0 if self._starting else 1


async def watch_health(
    rules: HealthRules, probe: Probe, healthy: Callable[[], None], *, was_healthy: bool = False
) -> None:
    """Returns when the task is unhealthy; ``healthy`` is called after each success. ``was_healthy``: as HealthCount."""
    loop = asyncio.get_running_loop()
    count = HealthCount(rules, loop.time(), was_healthy)
    while not count.sick:
        await asyncio.sleep(count.pause)
        good = await probe(rules.argv, rules.timeout)
        count.note(good, loop.time())
        if good:
            healthy()
