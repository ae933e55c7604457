"""The flags of the commands that look into a running node, and act on it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from runtime.introspection.levels import LEVELS, LOGGERS
from swarmlet.errors import UsageError

COMMANDS: Final = (
    "tree", "top", "actor", "messages", "crashes", "raft", "trace", "tasks", "waiting", "waits", "beliefs", "explain",
    "plan", "log-level", "clear", "console",
)  # fmt: skip
INTERVAL_MIN_S: Final = 1.0
WINDOW_MAX_S: Final = 60.0
ACTS: Final = ("restart", "suspend", "resume", "send")


def add(commands: Any) -> None:
    """Adds a parser for each of the commands."""
    _command(commands, "tree", "print the live actor tree of a running node")
    top = _command(commands, "top", "what the actors of a running node do, over a window of time")
    top.add_argument("--window", type=float, default=2.0, metavar="SECONDS", help="what is compared (1 to 60)")
    top.add_argument("--rows", type=int, default=20, metavar="N", help="the N that are behind or busiest")
    _actor(_command(commands, "actor", "one actor: its state, its messages, its crashes; or act on it"))
    messages = _command(commands, "messages", "what all actors did, by message type: how many, how long they took")
    messages.add_argument("--window", type=float, default=1.0, metavar="SECONDS",
                          help="to count messages over (up to 60); 0: do not")  # fmt: skip
    crashes = _command(commands, "crashes", "the last failures, each with the message that did it")
    crashes.add_argument("path", nargs="?", default="", metavar="PATH", help="of this actor only")
    crashes.add_argument("--tracebacks", action="store_true", help="where each happened")
    raft = _command(commands, "raft", "consensus, store, dispatcher and certificate of a running node")
    raft.add_argument(
        "--window", type=float, default=1.0, metavar="SECONDS", help="to count writes over (up to 60); 0: do not"
    )
    tasks = _command(commands, "tasks", "the tasks of all services (on a manager)")
    tasks.add_argument(
        "text", nargs="?", default="", metavar="TEXT", help="only those with this in a cell, in any case"
    )
    tasks.add_argument("--limit", type=int, default=500, metavar="N", help="the first N, by service and slot")
    waiting = _command(commands, "waiting", "the tasks that wait, and why (on a manager)")
    waiting.add_argument("--limit", type=int, default=200, metavar="N", help="the N that wait longest")
    _command(commands, "waits", "which actors wait for an answer, from whom, since when")
    beliefs = _command(commands, "beliefs", "what a node's agent believes of its tasks, and what the manager does")
    beliefs.add_argument("node", nargs="?", default="", metavar="NODE", help="default: the node that is asked")
    for side in ("agent", "manager"):
        beliefs.add_argument(f"--{side}", default="", metavar="PATH", help=f"socket to ask for the {side}'s side")
    _trace(_command(commands, "trace", "messages as they are handled, up to a limit"))
    explained = _command(commands, "explain", "what a service, a task or a node waits for, and who acts next")
    explained.add_argument("name", metavar="SERVICE|TASK|NODE", help="its name, its id or the beginning of its id")
    kinds = ("service", "task", "node")
    explained.add_argument("--kind", choices=kinds, default="", help="where the name may mean several")
    planned = _command(commands, "plan", "what would happen; nothing is changed")
    planned.add_argument("subject", choices=["node"], help="what of the swarm")
    planned.add_argument("action", choices=["rm", "drain"], help="what is done to it: as docker node rm, or drained")
    planned.add_argument("name", metavar="NODE", help="its name, its id or the beginning of its id")
    _log_level(_command(commands, "log-level", "have a running node log more, or less, for a while"))
    _command(commands, "clear", "end all traces, suspensions and log levels that anybody began")
    _console(_command(commands, "console", "all of it in a terminal, live (needs the extra 'console')"))


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.add_argument(
        "--socket",
        default="",
        metavar="PATH",
        help="introspection socket of the node (default: of the daemon that this user runs)",
    )
    if name == "console":
        parser.set_defaults(json=False)  # it prints nothing: each of its pages is a command of its own
    else:
        parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


def _actor(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("path", metavar="PATH", help="as swarmlet tree shows it, from the top: /cluster/node/agent")
    add("--window", type=float, default=1.0, metavar="SECONDS", help="to count messages over (up to 60); 0: do not")
    add("--restart", action="store_true", help="begin a new life")
    add("--suspend", type=float, metavar="SECONDS", help="hold its messages back for a while, or until Ctrl-C")
    add("--resume", action="store_true", help="let its messages go again")
    add("--send", type=Path, metavar="TRACE", help="tell it a message of a saved trace again (in test mode)")
    add("--number", type=int, default=1, metavar="N", help="which of the messages that it was told there")
    add("--write", action="store_true", help="allow what changes the running node")
    add("--yes", action="store_true", help="do not ask for confirmation")


def _log_level(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("level", choices=LEVELS)
    add("--logger", default=LOGGERS, metavar="NAME", help=f"default: {LOGGERS}, which is all of them")
    add("--seconds", type=float, default=60.0, help="for so long (at most 600), or until Ctrl-C")
    add("--write", action="store_true", help="allow what changes the running node")
    add("--yes", action="store_true", help="do not ask for confirmation")


def _console(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--api", default="", metavar="PATH", help="socket of the node's API (default: as the node says)")
    add("--ssh", default="", metavar="HOST", help="a node on another machine: --socket and --api are paths there")
    add("--write", action="store_true", help="allow what changes the running node, each after a question")


def _trace(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="actors, as patterns: '/cluster/node/manager/*'")
    add("--type", dest="types", action="append", default=[], metavar="NAME", help="message types, as patterns")
    add("--count", type=int, default=100, help="end after so many messages (default: 100)")
    add("--rate", type=int, default=1000, help="end if more than this come in a second (1000)")
    add("--seconds", type=float, default=60.0, help="end after this time (60)")
    add("--follow", action="store_true", help="with each message that fits also everything that came of it")
    add("--everything", action="store_true", help="no filter at all")
    add("--sequence", action="store_true", help="as a sequence diagram")
    add("--mermaid", action="store_true", help="as a sequence diagram in Mermaid's language")
    add("--bodies", action="store_true", help="keep the messages themselves (for --save), without secrets")
    add("--save", type=Path, metavar="FILE", help="write the trace to a file, to be shown or replayed")
    add("--load", type=Path, metavar="FILE", help="show a trace that was saved")


def act_of(own: Mapping[str, Any]) -> str:
    """The first act that was typed; empty if there is none. A suspension of no seconds is one too."""
    return next((name for name in ACTS if own[name] is not None and own[name] is not False), "")


def checked(command: str, own: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was typed, if it can be done; UsageError with what is wrong."""
    if command == "actor":
        acts = [name for name in ACTS if own[name] is not None and own[name] is not False]
        if len(acts) > 1:
            raise UsageError(f"one act at a time, not {' and '.join(acts)}")
        if acts and not own["write"]:
            raise UsageError(f"--{acts[0]} changes the running node: it needs --write too")
    if command == "log-level" and not own["write"]:
        raise UsageError("log-level changes the running node: it needs --write too")
    if command == "console" and own["ssh"] and not own["api"]:
        raise UsageError("--ssh needs --api too: the path of the API's socket on the other machine")
    if command in ("raft", "actor", "messages") and not 0 <= own["window"] <= WINDOW_MAX_S:
        raise UsageError("the window is a number of seconds up to 60, or 0")
    if command == "top" and not (INTERVAL_MIN_S <= own["window"] <= WINDOW_MAX_S and own["rows"] > 0):
        raise UsageError("the window is 1 to 60 seconds, and at least one row is shown")
    made = ("paths", "types", "follow", "everything", "bodies", "save")
    if command == "trace" and own["load"] is not None and any(own[name] for name in made):
        raise UsageError("a trace is loaded or made, not both")
    if command == "trace" and own["sequence"] and own["mermaid"]:
        raise UsageError("a sequence diagram in text or in Mermaid's language, not both")
    return own
