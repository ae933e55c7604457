"""The commands that change a swarm for its operator: over the Engine API, so any manager will do, and whoever leads.

Rules it owns: what the daemon refuses is one sentence and exit code 1; who waits in vain is told for what, with exit
code 124; who interrupts ends the waiting, not what was begun, and is told so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from swarmlet import engine_link, operate_drain, operate_exec, operate_rebalance, operate_rotate, operate_stop
from swarmlet.engine_link import Engine
from swarmlet.errors import EXIT_INTERRUPTED, EXIT_TIMED_OUT, StartError
from swarmlet.operator_options import OperatorOptions
from swarmlet.waiting import TimedOut

Command = Callable[[Engine, OperatorOptions, Callable[[str], None]], int]
_COMMANDS: Final[Mapping[str, Command]] = {
    "drain": operate_drain.drain,
    "exec": operate_exec.execute,
    "rebalance": operate_rebalance.rebalance,
    "rotate": operate_rotate.rotate,
    "stop": operate_stop.stop,
    "start": operate_stop.start,
}


def run(asked: OperatorOptions) -> int:
    """One command; its exit code. StartError with what is wrong."""
    return carry_out(engine_link.connect(asked.where), asked, lambda line: print(line, flush=True))


def carry_out(engine: Engine, asked: OperatorOptions, say: Callable[[str], None]) -> int:
    """The command against an API that is connected; ``say`` takes its lines."""
    try:
        return _COMMANDS[asked.command](engine, asked, say)
    except engine_link.Refused as refused:
        raise StartError(str(refused)) from None
    except TimedOut as late:
        _complain([str(late)])
        return EXIT_TIMED_OUT
    except KeyboardInterrupt:
        _complain(["interrupted: what was asked of the swarm goes on"])
        return EXIT_INTERRUPTED


def _complain(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"swarmlet: {line}", file=sys.stderr)
