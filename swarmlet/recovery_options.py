"""The flags of the commands that save a manager and bring one back."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import Refused
from runtime.pki.unlock_key import parse_unlock_key
from swarmlet.errors import UsageError

COMMANDS = ("recover", "backup", "restore")


@dataclass(frozen=True, slots=True)
class RecoverOptions:
    """``swarmlet recover``: the data roots of the managers that survived; ``pick`` is one of them or None."""

    data_roots: tuple[Path, ...]
    pick: Path | None
    yes: bool
    unlock_key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """``swarmlet backup``: the new file, and the introspection socket of the node (empty: the daemon's usual one)."""

    file: Path
    socket: str


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """``swarmlet restore``: a backup, and the new data root."""

    file: Path
    data_root: Path
    as_new_cluster: bool
    unlock_key: bytes = field(default=b"", repr=False)


def add(commands: Any) -> None:
    """Adds a parser for each of the commands."""
    recover = _command(commands, "recover", "make a new cluster of a manager that survived the loss of its quorum")
    recover.add_argument("data_roots", nargs="+", type=Path, metavar="DATA-ROOT", help="of each surviving manager")
    recover.add_argument("--pick", type=Path, metavar="DATA-ROOT", help="the one to use (default: the newest log)")
    recover.add_argument("--yes", action="store_true", help="do it; without this nothing is changed")
    _unlock_flag(recover)
    backup = _command(commands, "backup", "put a backup of a running manager into a new file")
    backup.add_argument("file", type=Path, metavar="FILE", help="made with mode 0600; it must not be there yet")
    backup.add_argument("--socket", default="", metavar="PATH", help="introspection socket of the node")
    restore = _command(commands, "restore", "make a data root of a backup")
    restore.add_argument("file", type=Path, metavar="FILE")
    restore.add_argument("--data-root", type=Path, required=True, metavar="DIR", help="new, or empty")
    restore.add_argument(
        "--as-new-cluster", action="store_true", help="as the only manager, whoever were managers beside it"
    )
    _unlock_flag(restore)


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    return parser


def _unlock_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--unlock-key-file", type=Path, metavar="FILE", help="holds the managers' unlock key")


def checked(typed: argparse.Namespace, default_socket: Path) -> RecoverOptions | BackupOptions | RestoreOptions:
    """The options of one call, checked."""
    if typed.command == "backup":
        socket = typed.socket or str(default_socket)
        return BackupOptions(typed.file.absolute(), socket)
    key = _unlock_key(typed.unlock_key_file)
    if typed.command == "restore":
        return RestoreOptions(typed.file, typed.data_root, typed.as_new_cluster, key)
    roots = tuple(root.absolute() for root in typed.data_roots)
    if len(set(roots)) != len(roots):
        raise UsageError("a data root is given twice")
    return RecoverOptions(roots, typed.pick.absolute() if typed.pick is not None else None, typed.yes, key)


def _unlock_key(file: Path | None) -> bytes:
    if file is None:
        return b""
    try:
        return parse_unlock_key(file.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the unlock key from {file}: {error}") from None
    except Refused as refused:
        raise UsageError(f"{file} holds no unlock key: {refused.text}") from None
