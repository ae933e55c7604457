"""The commands that look into a running node: each asks its introspection socket and prints the answer.

Rules it owns: ``--json`` prints the answer as it came; acts ask for confirmation and are undone when the command ends;
what the node refuses is one sentence and exit code 1.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from runtime.introspection import client, domain, recording, render, render_domain, render_waits, sequence
from runtime.introspection.client import Link
from swarmlet.errors import EXIT_OK, StartError
from swarmlet.options import LookOptions

PROXY: Final = "/cluster/node/manager/proxy"


def run(asked: LookOptions) -> int:
    """One command; its exit code. StartError with what is wrong."""
    try:
        return _COMMANDS[asked.command](asked)
    except BrokenPipeError:
        raise  # whoever read our output is gone: the command line's own matter
    except (client.NoAnswer, ValueError, OSError) as error:
        raise StartError(str(error)) from None
    except KeyboardInterrupt:
        return EXIT_OK  # whoever looked has seen enough; what was begun ends with the connection


def _show(asked: LookOptions, value: Any, text: Callable[[Any], str]) -> int:
    print(json.dumps(value, indent=2, default=str) if asked.as_json else text(value))
    return EXIT_OK


def _tree(asked: LookOptions) -> int:
    return _show(asked, client.ask(asked.socket, "tree", states=asked.as_json), render.tree)


def _top(asked: LookOptions) -> int:
    with Link(asked.socket) as link:
        before = link.ask("tree")
        time.sleep(asked.typed["window"])
        after = link.ask("tree")
    found = render.window(before, after)
    return _show(asked, found, lambda value: render.top(value, asked.typed["rows"]))


def _crashes(asked: LookOptions) -> int:
    value = client.ask(asked.socket, "crashes", path=asked.typed["path"])
    return _show(asked, value, lambda found: render.crashes(found, asked.typed["tracebacks"]))


def _raft(asked: LookOptions) -> int:
    window = asked.typed["window"]
    with Link(asked.socket) as link:
        before = link.ask("raft") if window else None
        if window:
            time.sleep(window)
        value = link.ask("raft")
    return _show(asked, value, lambda found: render_domain.raft(found, before))


def _waiting(asked: LookOptions) -> int:
    return _show(asked, client.ask(asked.socket, "waiting", limit=asked.typed["limit"]), render_domain.waiting)


def _waits(asked: LookOptions) -> int:
    return _show(asked, client.ask(asked.socket, "waits"), render_domain.waits)


def _beliefs(asked: LookOptions) -> int:
    """What this socket's node says; with another socket the side that it does not know comes from there."""
    value = client.ask(asked.socket, "beliefs", node=asked.typed["node"])
    for side in ("agent", "manager"):
        other = asked.typed[side]
        if other and value[side] is None:
            value[side] = client.ask(other, "beliefs", node=value["node"])[side]
    if value["differ"] is None and value["agent"] is not None and value["manager"] is not None:
        value["differ"] = domain.disagreements(value["agent"], value["manager"])
    return _show(asked, value, render_domain.beliefs)


def _explain(asked: LookOptions) -> int:
    value = client.ask(asked.socket, "explain", kind=asked.typed["kind"], name=asked.typed["name"])
    return _show(asked, value, render_waits.explanation)


def _plan(asked: LookOptions) -> int:
    value = client.ask(asked.socket, "plan", action=asked.typed["action"], name=asked.typed["name"])
    return _show(asked, value, render_waits.plan)


# One actor


def _actor(asked: LookOptions) -> int:
    typed = asked.typed
    act = next((name for name in ("restart", "suspend", "resume") if typed[name] not in (False, None)), "")
    if not act:
        return _show(asked, client.ask(asked.socket, "actor", path=typed["path"]), render.actor)
    if not typed["yes"] and not _confirmed(f"{act} {typed['path']}"):
        return EXIT_OK
    details = {"seconds": typed["suspend"]} if act == "suspend" else {}
    with Link(asked.socket) as link:
        print(link.ask("act", act=act, path=typed["path"], write=True, **details))
        if act == "suspend":
            print("it is resumed at Ctrl-C")
            sys.stdout.flush()
            time.sleep(typed["suspend"])
    return EXIT_OK


def _log_level(asked: LookOptions) -> int:
    typed = asked.typed
    if not typed["yes"] and not _confirmed(f"log {typed['logger']} at level {typed['level']}"):
        return EXIT_OK
    wanted = {name: typed[name] for name in ("logger", "level", "seconds")}
    with Link(asked.socket) as link:
        print(link.ask("act", act="log-level", write=True, **wanted))
        print("it ends at Ctrl-C", flush=True)
        time.sleep(typed["seconds"])
    return EXIT_OK


def _confirmed(act: str) -> bool:
    print(f"{act} of a running node? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# Traces


def _trace(asked: LookOptions) -> int:
    typed = asked.typed
    if typed["load"] is not None:
        head, records = recording.load(typed["load"])
        return _show(asked, records, lambda found: f"{_drawn(typed)(found)}\n{head.get('end', '')}".rstrip())
    records, end = _follow(asked)
    if typed["save"] is not None:
        recording.save(typed["save"], records, **end)
        print(f"{len(records)} messages are in {typed['save']}", file=sys.stderr)
    _show(asked, records, _drawn(typed))
    if typed["follow"] and any(each["receiver"] == PROXY for each in records):
        print(f"what {PROXY} passed on goes on under the same trace id at the manager that leads", file=sys.stderr)
    dropped = f", {end['dropped']} more were dropped" if end.get("dropped") else ""
    print(f"{end.get('end', 'interrupted')}{dropped}", file=sys.stderr)
    return EXIT_OK


def _follow(asked: LookOptions) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    names = ("paths", "types", "count", "rate", "seconds", "everything", "bodies", "follow")
    records: list[dict[str, Any]] = []
    end: dict[str, Any] = {}
    with Link(asked.socket) as link:
        try:
            for piece in link.follow("trace", **{name: asked.typed[name] for name in names}):
                records += piece.get("more", ())
                if "end" in piece:
                    end = {key: piece[key] for key in ("end", "dropped", "taken")}
        except KeyboardInterrupt:
            end = {"end": "interrupted"}
    records.sort(key=lambda each: each["told"])  # they came as they were finished
    return records, end


def _drawn(typed: Mapping[str, Any]) -> Callable[[list[dict[str, Any]]], str]:
    if typed["mermaid"]:
        return sequence.mermaid
    return sequence.text if typed["sequence"] else sequence.table


def _console(asked: LookOptions) -> int:
    try:
        from swarmlet.console import run
    except ModuleNotFoundError as missing:
        if missing.name is None or not missing.name.startswith(("textual", "rich")):
            raise
        raise StartError("the console needs the extra 'console': pip install 'swarmlet[console]'") from None
    return run.run(asked.socket, **asked.typed)


_COMMANDS: Final[Mapping[str, Callable[[LookOptions], int]]] = {
    "tree": _tree,
    "top": _top,
    "actor": _actor,
    "crashes": _crashes,
    "raft": _raft,
    "trace": _trace,
    "waiting": _waiting,
    "waits": _waits,
    "beliefs": _beliefs,
    "explain": _explain,
    "plan": _plan,
    "log-level": _log_level,
    "console": _console,
}
