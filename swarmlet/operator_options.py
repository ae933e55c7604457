"""The flags of the commands that change a swarm for its operator, over the Engine API."""

from __future__ import annotations

import argparse
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from swarmlet.errors import UsageError

COMMANDS: Final = ("stop", "start", "rotate", "drain", "rebalance", "exec")
TIMEOUT_MAX_S: Final = 1e7
MOVES_MAX: Final = 10_000
TLS_PORT: Final = 2376


@dataclass(frozen=True, slots=True)
class Where:
    """Where the API is: ``socket``, or ``host`` and ``port`` with the directory of the client's certificates."""

    socket: str = ""
    host: str = ""
    port: int = 0
    certificates: Path = Path()

    def __str__(self) -> str:
        return self.socket or f"{self.host}:{self.port}"


def where(url: str, environ: Mapping[str, str], default_socket: str) -> Where:
    """What ``-H`` says, else DOCKER_HOST, else the socket of the daemon that this user runs. UsageError if it is no
    place that can be asked."""
    url = url or environ.get("DOCKER_HOST", "")
    scheme, found, rest = url.partition("://")
    if not url or (scheme == "unix" and rest):
        return Where(socket=rest or default_socket)
    if url.startswith("/"):
        return Where(socket=url)
    if scheme != "tcp" or not found:
        raise UsageError(f"invalid host {url!r}: it must be unix://PATH or tcp://ADDR:PORT")
    if not environ.get("DOCKER_TLS_VERIFY"):
        raise UsageError(f"{url} is asked with certificates only: set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH")
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port or TLS_PORT
    except ValueError:
        host, port = None, 0
    if not host:
        raise UsageError(f"invalid host {url!r}: it must be tcp://ADDR:PORT")
    home = Path(environ.get("HOME", "/")) / ".docker"
    return Where(host=host, port=port, certificates=Path(environ.get("DOCKER_CERT_PATH") or home))


@dataclass(frozen=True, slots=True)
class OperatorOptions:
    """What a command that changes a swarm was started with; ``typed`` are the flags of its own."""

    command: str
    where: Where
    typed: Mapping[str, Any] = field(default_factory=dict)


def add(commands: Any) -> None:
    """Adds a parser for each of the commands."""
    for name, text in (
        ("stop", "stop services without removing them: their tasks end, their settings stay"),
        ("start", "start services again that were stopped"),
    ):
        parser = _command(commands, name, text)
        parser.add_argument("services", nargs="+", metavar="SERVICE")
        parser.add_argument("-d", "--detach", action="store_true", help="do not wait until its tasks ended or run")
        _timeout(parser)

    _rotate(_command(commands, "rotate", "new data for a secret or config, and all services moved to it in turn"))
    drain = _command(commands, "drain", "have a node give up its tasks, and wait until they run elsewhere")
    drain.add_argument("node", metavar="NODE")
    drain.add_argument("--wait", action="store_true", help="until its tasks ended and their replacements run")
    drain.add_argument("--undo", action="store_true", help="it takes tasks again")
    _timeout(drain)
    _rebalance(_command(commands, "rebalance", "move tasks to where the scheduler would place them now, a few at most"))
    _exec(_command(commands, "exec", "run a command beside a task, wherever in the swarm it is"))


def _rebalance(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only of these")
    add("--apply", action="store_true", help="do it; without this nothing is changed")
    add("--max-moves", type=int, default=10, metavar="N", help="move no more tasks (10)")
    add("--socket", default="", metavar="PATH",
        help="introspection socket of a manager, which plans (default: of the daemon that this user runs)")  # fmt: skip
    _timeout(parser)


def _exec(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-i", "--interactive", action="store_true", help="give it our input")
    add("-t", "--tty", action="store_true", help="give it a terminal")
    add("-u", "--user", default="", metavar="USER")
    add("-w", "--workdir", default="", metavar="DIR")
    add("-e", "--env", action="append", default=[], metavar="NAME=VALUE")
    add("task", metavar="TASK|SERVICE.SLOT", help="a task's id or name, web.1, or a container's id")
    add("words", nargs=argparse.REMAINDER, metavar="COMMAND ...")


def _rotate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("kind", choices=("secret", "config"))
    add("name", metavar="NAME", help="of all its versions: NAME, NAME.v2, NAME.v3 and so on")
    add("file", nargs="?", default="", metavar="FILE|-",
        help="the new data, - for standard input; without it: go on with the newest version there is")  # fmt: skip
    add("--keep", type=int, default=1, metavar="N", help="how many older versions stay (1, to roll back to)")
    add("--jobs", action="store_true", help="update jobs too, which runs them anew")
    add("--dry-run", action="store_true", help="say what would be done; nothing is changed")
    _timeout(parser)


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.add_argument(
        "-H", "--host", default="", metavar="URL",
        help="the Engine API of a manager, unix://PATH or tcp://ADDR:PORT (default: $DOCKER_HOST, else the daemon's "
        "that this user runs)",
    )  # fmt: skip
    return parser


def _timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="wait no longer (600)")


def checked(typed: argparse.Namespace, environ: Mapping[str, str], api: str, introspection: str) -> OperatorOptions:
    """The options of one call; the sockets are those of the daemon that this user runs. UsageError with what is
    wrong."""
    own = {name: value for name, value in vars(typed).items() if name not in ("command", "host")}
    if not 0 < own.get("timeout", 1.0) <= TIMEOUT_MAX_S:
        raise UsageError("--timeout needs a number of seconds greater than 0")
    if typed.command == "exec" and not own["words"]:
        raise UsageError("swarmlet exec needs a command to run")
    if own.get("keep", 0) < 0:
        raise UsageError("--keep needs a number of versions, 0 or more")
    if not 1 <= own.get("max_moves", 1) <= MOVES_MAX:
        raise UsageError(f"--max-moves needs a number from 1 to {MOVES_MAX}")
    if "socket" in own:
        own["socket"] = own["socket"] or introspection
    if own.get("wait") and own.get("undo"):
        raise UsageError("--undo waits for nothing: tasks that left stay where they are")
    return OperatorOptions(typed.command, where(typed.host, environ, api), own)
