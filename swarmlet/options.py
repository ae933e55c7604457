"""The command line: commands, flags, the configuration file, and what they come to.

Rules it owns: flags are named as dockerd's; a configuration file has the same names in JSON (``hosts`` and
``node-generic-resources`` in the plural, as lists) and may say nothing that a flag says too; ``tcp://`` needs all four
TLS flags; whatever is wrong with what was typed is a UsageError (exit code 2), before anything is started or written.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from swarmlet import __version__, look_options, operator_options, places, recovery_options
from swarmlet.errors import UsageError

LOG_FORMATS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warn", "error", "fatal")
DEFAULT_TLS_PORT: Final = 2376
TICK_MAX: Final = 3600
EXECUTORS: Final = ("process", "docker", "podman")
PROCESS_ONLY: Final = ("task-user", "require-limits")
_PLURAL: Final[Mapping[str, str]] = {"hosts": "host", "node-generic-resources": "node-generic-resource"}


@dataclass(frozen=True, slots=True)
class TlsHost:
    """A TCP address of the Engine API; only with client certificates."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """What ``swarmlet daemon`` was started with, checked and completed."""

    data_root: Path
    exec_root: Path
    unix_hosts: tuple[str, ...]
    tls_hosts: tuple[TlsHost, ...] = ()
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = field(default="", repr=False)
    pidfile: str = ""
    group: str = ""
    default_advertise_addr: str = ""
    heartbeat_tick: int = 1
    election_tick: int = 10
    generic_resources: tuple[str, ...] = ()
    log_level: str = "info"
    log_format: str = "text"
    metrics: tuple[str, int] | None = None
    hostname: str = ""
    executor: str = "process"
    engine_socket: str = ""
    local_networks: bool = False
    task_user: str = ""
    require_limits: bool = False
    stop_tasks_on_exit: bool = False
    remote_exec: bool = True


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What ``swarmlet up`` was started with. ``seconds`` is None for until interrupted."""

    file: Path
    listen: str = "127.0.0.1:0"
    seconds: float | None = None
    name: str = ""
    plain: bool = False
    executor: str = "process"
    engine_socket: str = ""
    local_networks: bool = False


@dataclass(frozen=True, slots=True)
class LookOptions:
    """What a command that looks into a running node was started with; ``typed`` are the flags of its own."""

    command: str
    socket: str
    as_json: bool = False
    typed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VersionOptions:
    """``swarmlet version``."""


RecoveryOptions = recovery_options.RecoverOptions | recovery_options.BackupOptions | recovery_options.RestoreOptions
OperatorOptions = operator_options.OperatorOptions
Options = DaemonOptions | UpOptions | LookOptions | RecoveryOptions | OperatorOptions | VersionOptions


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\nSee '{self.prog} --help'.")


def parse(arguments: Sequence[str], environ: Mapping[str, str], uid: int) -> Options:
    """The options of one call. Raises UsageError; ``--help`` and ``--version`` end the process, as argparse does."""
    typed, unknown = _parser().parse_known_args(arguments)
    if unknown:
        raise UsageError(f"unrecognized arguments: {' '.join(unknown)}\nSee 'swarmlet {typed.command} --help'.")
    commands: dict[str, Callable[[argparse.Namespace, Mapping[str, str], int], Options]] = {
        "daemon": _daemon,
        "up": _up,
        **dict.fromkeys(look_options.COMMANDS, _look),
        **dict.fromkeys(recovery_options.COMMANDS, _recovery),
        **dict.fromkeys(operator_options.COMMANDS, _operator),
        "version": lambda _typed, _environ, _uid: VersionOptions(),
    }
    return commands[typed.command](typed, environ, uid)


def _parser() -> _Parser:
    top = _Parser(prog="swarmlet", description="Docker swarm mode as a tree of supervised actors.", allow_abbrev=False)
    top.add_argument("-v", "--version", action="version", version=f"swarmlet {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _daemon_flags(commands.add_parser("daemon", help="run a node for good", allow_abbrev=False))
    up = commands.add_parser("up", help="run a node here and deploy a compose file", allow_abbrev=False)
    up.add_argument("file", type=Path, metavar="COMPOSE-FILE")
    up.add_argument("--listen", default="127.0.0.1:0", metavar="ADDR[:PORT]", help="where other nodes reach this one")
    up.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="end by itself after this time")
    up.add_argument("--name", default="", help="name of the stack (default: the file's)")
    _executor_flags(up)
    up.add_argument("--plain", action="store_true", help="plain lines, also on a terminal")
    look_options.add(commands)
    recovery_options.add(commands)
    operator_options.add(commands)
    commands.add_parser("version", help="print the version", allow_abbrev=False)
    return top


def _daemon_flags(parser: argparse.ArgumentParser) -> None:
    """Defaults are absent here: only so can flags and configuration file be told apart."""
    add = parser.add_argument
    absent = argparse.SUPPRESS
    add("--config-file", default="", metavar="FILE", help="flags by their names, in JSON")
    add("-H", "--host", action="append", default=absent, metavar="URL", help="unix://PATH, or tcp://ADDR:PORT with TLS")
    for name in ("tlscacert", "tlscert", "tlskey"):
        add(f"--{name}", default=absent, metavar="FILE")
    add("--data-root", default=absent, metavar="DIR", help="where the node keeps its swarm")
    add("--exec-root", default=absent, metavar="DIR", help="where the node keeps its sockets")
    add("-p", "--pidfile", default=absent, metavar="FILE")
    add("-G", "--group", default=absent, help="group that may use the unix sockets")
    add("--swarm-default-advertise-addr", default=absent, metavar="ADDR")
    add("--swarm-raft-heartbeat-tick", type=int, default=absent, metavar="TICKS")
    add("--swarm-raft-election-tick", type=int, default=absent, metavar="TICKS")
    add("--node-generic-resource", action="append", default=absent, metavar="KIND=VALUE")
    add("-l", "--log-level", default=absent, metavar="LEVEL", help=", ".join(LOG_LEVELS))
    add("--log-format", default=absent, metavar="FORMAT", help=", ".join(LOG_FORMATS))
    add("--metrics-addr", default=absent, metavar="[ADDR]:PORT", help="where Prometheus finds /metrics")
    add("--hostname", default=absent)
    _executor_flags(parser)
    add(
        "--task-user", default=absent, metavar="USER", help="user that tasks run as unless their service says otherwise"
    )
    for name in ("tlsverify", "debug", "require-limits", "stop-tasks-on-exit", "no-remote-exec"):
        short = ("-D",) if name == "debug" else ()
        add(*short, f"--{name}", action="store_true", default=absent)


def _executor_flags(parser: argparse.ArgumentParser) -> None:
    add, absent = parser.add_argument, argparse.SUPPRESS
    add("--executor", default=absent, metavar="KIND", help=", ".join(EXECUTORS))
    add("--engine-socket", default=absent, metavar="PATH", help="where the container engine listens")
    add("--local-networks", action="store_true", default=absent, help="networks are each node's own, at its engine")


_TYPES: Final[Mapping[str, type]] = {
    "host": list, "node-generic-resource": list, "tlsverify": bool, "debug": bool, "require-limits": bool,
    "stop-tasks-on-exit": bool, "no-remote-exec": bool, "local-networks": bool, "swarm-raft-heartbeat-tick": int,
    "swarm-raft-election-tick": int,
    **dict.fromkeys(
        ("tlscacert", "tlscert", "tlskey", "data-root", "exec-root", "pidfile", "group", "log-level", "hostname",
         "log-format", "metrics-addr",
         "executor", "engine-socket", "task-user", "swarm-default-advertise-addr"), str,
    ),
}  # fmt: skip


def _daemon(typed: argparse.Namespace, environ: Mapping[str, str], uid: int) -> DaemonOptions:
    flags = {name.replace("_", "-"): value for name, value in vars(typed).items()}
    file = flags.pop("config-file")
    del flags["command"]
    given = {**(read_config_file(Path(file), flags) if file else {}), **flags}
    exec_root = Path(given.get("exec-root") or places.exec_root(environ, uid)).absolute()
    unix, tls = _hosts(given, exec_root)
    heartbeat = _tick(given, "swarm-raft-heartbeat-tick", 1)
    election = _tick(given, "swarm-raft-election-tick", 10)
    if election <= heartbeat:
        raise UsageError("swarm-raft-election-tick must be greater than swarm-raft-heartbeat-tick")
    level = given.get("log-level", "info")
    if level not in LOG_LEVELS:
        raise UsageError(f"invalid logging level: {level}; it must be one of {', '.join(LOG_LEVELS)}")
    if given.get("log-format", "text") not in LOG_FORMATS:
        raise UsageError(f"invalid log format: {given['log-format']}; it must be one of {', '.join(LOG_FORMATS)}")
    executor = _executor(given)
    return DaemonOptions(
        data_root=Path(given.get("data-root") or places.data_root(environ, uid)).absolute(),
        exec_root=exec_root,
        unix_hosts=unix,
        tls_hosts=tls,
        tls_ca=given.get("tlscacert", ""),
        tls_cert=given.get("tlscert", ""),
        tls_key=given.get("tlskey", ""),
        pidfile=given.get("pidfile", ""),
        group=given.get("group", ""),
        default_advertise_addr=given.get("swarm-default-advertise-addr", ""),
        heartbeat_tick=heartbeat,
        election_tick=election,
        generic_resources=_generic(given.get("node-generic-resource", ())),
        log_level="debug" if given.get("debug") else level,
        log_format=given.get("log-format", "text"),
        metrics=_metrics(given["metrics-addr"]) if given.get("metrics-addr") else None,
        hostname=given.get("hostname", ""),
        executor=executor,
        engine_socket=_engine_socket(given, executor),
        local_networks=_local_networks(given, executor),
        task_user=given.get("task-user", ""),
        require_limits=bool(given.get("require-limits")),
        stop_tasks_on_exit=bool(given.get("stop-tasks-on-exit")),
        remote_exec=not given.get("no-remote-exec"),
    )


def _executor(given: Mapping[str, Any]) -> str:
    """The kind of executor; what only processes have is refused with another."""
    executor = str(given.get("executor", "process"))
    if executor not in EXECUTORS:
        raise UsageError(f"there is no executor {executor!r}; there are: {', '.join(EXECUTORS)}")
    for name in PROCESS_ONLY if executor != "process" else ():
        if given.get(name):
            raise UsageError(f"--{name} is for the process executor, not for {executor}")
    return executor


def _engine_socket(given: Mapping[str, Any], executor: str) -> str:
    """The path of the engine's socket, also given as ``unix://PATH``; empty for the usual place."""
    text = str(given.get("engine-socket", ""))
    path = text.removeprefix("unix://")
    if text and executor == "process":
        raise UsageError("--engine-socket needs --executor docker or podman")
    if "://" in path:
        raise UsageError(f"invalid engine socket {text!r}: it must be unix://PATH")
    return places.check_socket_path(str(Path(path).absolute())) if path else ""


def _local_networks(given: Mapping[str, Any], executor: str) -> bool:
    if given.get("local-networks") and executor == "process":
        raise UsageError("--local-networks needs --executor docker or podman")
    return bool(given.get("local-networks"))


def read_config_file(path: Path, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a configuration file by their flags' names. UsageError for names that are none, values of a
    wrong type, and settings that a flag gives too."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read the configuration file {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the configuration file {path} is no valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"the configuration file {path} must hold an object")
    names: dict[str, str] = {_PLURAL.get(name, name): name for name in content}
    unknown = [shown for name, shown in names.items() if name not in _TYPES]
    if unknown:
        raise _config(path, f"the following directives don't match any configuration option: {', '.join(unknown)}")
    both = [
        f"{shown}: (from flag: {flags[name]}, from file: {content[shown]})"
        for name, shown in names.items()
        if name in flags
    ]
    if both:
        raise _config(
            path,
            "the following directives are specified both as a flag and in the configuration file: " + ", ".join(both),
        )
    for name, shown in names.items():
        _check_type(path, shown, content[shown], _TYPES[name])
    return {name: content[shown] for name, shown in names.items()}


def _config(path: Path, text: str) -> UsageError:
    return UsageError(f"unable to configure the daemon with file {path}: {text}")


def _check_type(path: Path, name: str, value: Any, kind: type) -> None:
    items = value if isinstance(value, list) else []
    if type(value) is not kind or not all(isinstance(item, str) for item in items):
        what = {list: "a list of texts", bool: "true or false", int: "a whole number", str: "a text"}[kind]
        raise _config(path, f"{name} must be {what}")


def _hosts(given: Mapping[str, Any], exec_root: Path) -> tuple[tuple[str, ...], tuple[TlsHost, ...]]:
    unix: list[str] = []
    tls: list[TlsHost] = []
    urls: list[str] = given.get("host") or [f"unix://{exec_root / places.API_SOCKET}"]
    for url in urls:
        scheme, found, rest = url.partition("://")
        if scheme == "unix" and found:
            unix.append(places.check_socket_path(rest))
        elif scheme == "tcp" and found:
            tls.append(_tls_host(url, rest, given))
        else:
            raise UsageError(f"invalid host {url!r}: it must be unix://PATH or tcp://ADDR:PORT")
    if len(set(unix)) < len(unix) or len(set(tls)) < len(tls):
        raise UsageError("the same host is given twice")
    return tuple(unix), tuple(tls)


def _tls_host(url: str, rest: str, given: Mapping[str, Any]) -> TlsHost:
    missing = [name for name in ("tlsverify", "tlscacert", "tlscert", "tlskey") if not given.get(name)]
    if missing:
        raise UsageError(
            f"{url} would give anybody who reaches it the rights of this daemon; it needs "
            + ", ".join(f"--{name}" for name in missing)
        )
    match = re.fullmatch(r"(\[[^\]]+\]|[^:/\[\]]*)(?::(\d{1,5}))?/?", rest)
    if match is None or not 0 <= int(match[2] or DEFAULT_TLS_PORT) <= 65535:
        raise UsageError(f"invalid host {url!r}: it must be tcp://ADDR:PORT")
    return TlsHost(match[1].strip("[]") or "127.0.0.1", int(match[2] or DEFAULT_TLS_PORT))


def _metrics(text: str) -> tuple[str, int]:
    """Nobody is asked for a password there: without an address it is the loopback one."""
    match = re.fullmatch(r"(\[[^\]]+\]|[^:/\[\]\s]*):(\d{1,5})", text)
    if match is None or not 0 <= int(match[2]) <= 65535:
        raise UsageError(f"invalid metrics-addr {text!r}: it must be ADDR:PORT, or :PORT for 127.0.0.1")
    return match[1].strip("[]") or "127.0.0.1", int(match[2])


def _tick(given: Mapping[str, Any], name: str, default: int) -> int:
    value = given.get(name, default)
    if not 1 <= value <= TICK_MAX:
        raise UsageError(f"{name} must be from 1 to {TICK_MAX}, not {value}")
    return int(value)


def _generic(values: Sequence[str]) -> tuple[str, ...]:
    for value in values:
        if not re.fullmatch(r"[^=\s]+=[^=\s]+", value):
            raise UsageError(f"invalid node-generic-resource {value!r}: it must be KIND=NUMBER or KIND=NAME")
    return tuple(values)


def _up(typed: argparse.Namespace, environ: Mapping[str, str], uid: int) -> UpOptions:
    if typed.seconds is not None and not 0 < typed.seconds < 1e9:
        raise UsageError("--for needs a number of seconds greater than 0")
    given = {name.replace("_", "-"): value for name, value in vars(typed).items()}
    executor = _executor(given)
    socket = _engine_socket(given, executor)
    local = _local_networks(given, executor)
    return UpOptions(typed.file, typed.listen, typed.seconds, typed.name, typed.plain, executor, socket, local)


def _recovery(typed: argparse.Namespace, environ: Mapping[str, str], uid: int) -> Options:
    socket = places.exec_root(environ, uid) / places.INTROSPECTION_SOCKET
    return recovery_options.checked(typed, socket)


def _operator(typed: argparse.Namespace, environ: Mapping[str, str], uid: int) -> Options:
    root = places.exec_root(environ, uid)
    api, introspection = str(root / places.API_SOCKET), str(root / places.INTROSPECTION_SOCKET)
    return operator_options.checked(typed, environ, api, introspection)


def _look(typed: argparse.Namespace, environ: Mapping[str, str], uid: int) -> LookOptions:
    default = places.exec_root(environ, uid) / places.INTROSPECTION_SOCKET if not typed.socket else Path(typed.socket)
    own = {name: value for name, value in vars(typed).items() if name not in ("command", "socket", "json")}
    socket = places.check_socket_path(str(default.absolute()))
    return LookOptions(typed.command, socket, typed.json, look_options.checked(typed.command, own))
