"""The commands that look into a running node: each asks its introspection socket and prints the answer.

Rules it owns: ``--json`` prints the answer as it came; acts ask for confirmation and are undone when the command ends;
what the node refuses, and what it answers in another version's way, is one sentence and exit code 1. A trace that was
cut off is shown and saved as far as it came.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from runtime.introspection import client, domain, lines, recording, render, render_domain, render_waits, sequence
from runtime.introspection.client import Link
from swarmlet import look_options
from swarmlet.errors import EXIT_FAILED, EXIT_OK, StartError
from swarmlet.options import LookOptions

PROXY: Final = "/cluster/node/manager/proxy"


def run(asked: LookOptions) -> int:
    """One command; its exit code. StartError with what is wrong."""
    try:
        return _COMMANDS[asked.command](asked)
    except BrokenPipeError:
        raise  # whoever read our output is gone: the command line's own matter
    except (client.NoAnswer, ValueError) as error:
        raise StartError(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise StartError(f"{where}{error.strerror or error}") from None
    except KeyboardInterrupt:
        return EXIT_OK  # whoever looked has seen enough; what was begun ends with the connection


def _show(asked: LookOptions, value: Any, text: Callable[[Any], str]) -> int:
    if asked.as_json:
        print(json.dumps(value, indent=2, default=_bytes))
        return EXIT_OK
    try:
        shown = text(value)
    except (LookupError, TypeError, AttributeError):
        raise StartError("the node is of another version and answers in its way: --json prints it as it came") from None
    print(lines.plain(lines.harmless(shown), sys.stdout.encoding))
    return EXIT_OK


def _bytes(value: Any) -> str:
    """Within the bodies of a trace: msgpack knows bytes, JSON does not."""
    return base64.b64encode(value).decode("ascii")


def _tree(asked: LookOptions) -> int:
    return _show(asked, client.ask(asked.socket, "tree", states=asked.as_json), render.tree)


def _top(asked: LookOptions) -> int:
    with Link(asked.socket) as link:
        before = link.ask("tree")
        time.sleep(asked.typed["window"])
        after = link.ask("tree")
    found = render.window(before, after)
    return _show(asked, found, lambda value: render.top(value, asked.typed["rows"]))


def _clear(asked: LookOptions) -> int:
    return _show(asked, client.ask(asked.socket, "clear"), render.cleared)


def _messages(asked: LookOptions) -> int:
    window = asked.typed["window"]
    with Link(asked.socket) as link:
        value, begun = link.ask("messages"), time.monotonic()
        if window:
            time.sleep(window)
            before, value = value, link.ask("messages")
            value = render.with_rates(before, value, time.monotonic() - begun)
    return _show(asked, value, render.messages)


def _tasks(asked: LookOptions) -> int:
    value = client.ask(asked.socket, "tasks", **asked.typed)
    return _show(asked, value, render_domain.tasks)


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
    act = look_options.act_of(typed)
    if not act:
        return _one_actor(asked)
    details = _details(act, typed)
    if not typed["yes"] and not _confirmed(f"{act} {typed['path']}"):
        return EXIT_OK
    with Link(asked.socket) as link:
        _done(asked, link.ask("act", act=act, path=typed["path"], write=True, **details),
              "it is resumed at Ctrl-C" if act == "suspend" else "")  # fmt: skip
        if act == "suspend":
            link.outlast(typed["suspend"])
    return EXIT_OK


def _details(act: str, typed: Mapping[str, Any]) -> dict[str, Any]:
    """What an act needs besides the path. ValueError if a trace does not have the message."""
    if act == "suspend":
        return {"seconds": typed["suspend"]}
    if act != "send":
        return {}
    _, records = recording.load(typed["send"])
    told = [each["body"] for each in records if each["receiver"] == typed["path"] and "body" in each]
    if not 1 <= typed["number"] <= len(told):
        raise ValueError(f"{typed['send']} has {len(told)} messages that {typed['path']} was told, with their bodies")
    return {"message": told[typed["number"] - 1]}


def _one_actor(asked: LookOptions) -> int:
    path, window = asked.typed["path"], asked.typed["window"]
    with Link(asked.socket) as link:
        before = link.ask("actor", path=path) if window else None
        if window:
            time.sleep(window)
        value = link.ask("actor", path=path)
    if before is not None and "clock" in before:
        value["windows"] = [render.actor_window(before, value)]
        value["messages"] = render.with_rates(before["messages"], value["messages"], value["clock"] - before["clock"])
    return _show(asked, value, render.actor)


def _log_level(asked: LookOptions) -> int:
    typed = asked.typed
    if not typed["yes"] and not _confirmed(f"log {typed['logger']} at level {typed['level']}"):
        return EXIT_OK
    wanted = {name: typed[name] for name in ("logger", "level", "seconds")}
    with Link(asked.socket) as link:
        _done(asked, link.ask("act", act="log-level", write=True, **wanted), "it ends at Ctrl-C")
        link.outlast(typed["seconds"])
    return EXIT_OK


def _done(asked: LookOptions, done: str, rest: str) -> None:
    """Says what an act did, at once: the command may go on."""
    text = "\n".join(filter(None, (done, rest)))
    print(json.dumps({"done": done}) if asked.as_json else text, flush=True)


def _confirmed(act: str) -> bool:
    print(f"{act} of a running node? [y/N] ", end="", flush=True, file=sys.stderr)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# Traces


def _trace(asked: LookOptions) -> int:
    typed = asked.typed
    if typed["load"] is not None:
        head, records = recording.load(typed["load"])
        return _show(asked, records, lambda found: f"{_drawn(typed)(found)}\n{head.get('end', '')}".rstrip())
    if typed["save"] is not None:
        recording.check_place(typed["save"])  # before the trace, not when it is over
    records, end = _follow(asked)
    _show(asked, records, _drawn(typed))
    if typed["follow"] and any(each["receiver"] == PROXY for each in records):
        print(f"what {PROXY} passed on goes on under the same trace id at the manager that leads", file=sys.stderr)
    dropped = f", {end['dropped']} more were dropped" if end.get("dropped") else ""
    print(f"{end['end']}{dropped}", file=sys.stderr)
    if typed["save"] is not None:
        recording.save(typed["save"], records, **end)
        print(f"{len(records)} messages are in {typed['save']}", file=sys.stderr)
    return EXIT_FAILED if "lost" in end else EXIT_OK


def _follow(asked: LookOptions) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    names = ("paths", "types", "count", "rate", "seconds", "everything", "bodies", "follow")
    records: list[dict[str, Any]] = []
    end: dict[str, Any] = {}
    with Link(asked.socket) as link:
        pieces = link.follow("trace", **{name: asked.typed[name] for name in names})
        next(pieces)  # a refusal, or nobody there, is no trace
        try:
            for piece in pieces:
                records += piece.get("more", ())
                if "end" in piece:
                    end = {key: piece[key] for key in ("end", "dropped", "taken")}
        except KeyboardInterrupt:
            end = {"end": "interrupted"}
        except client.NoAnswer as lost:
            end = {"end": f"the trace is cut off: {lost}", "lost": True}
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
    "clear": _clear,
    "messages": _messages,
    "crashes": _crashes,
    "raft": _raft,
    "trace": _trace,
    "tasks": _tasks,
    "waiting": _waiting,
    "waits": _waits,
    "beliefs": _beliefs,
    "explain": _explain,
    "plan": _plan,
    "log-level": _log_level,
    "console": _console,
}
