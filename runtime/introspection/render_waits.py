"""Explanations and plans as text."""

from __future__ import annotations

from typing import Any, Final

from runtime.introspection.render_domain import behind

MOVES_SHOWN: Final = 50


def explanation(value: dict[str, Any]) -> str:
    """What ``explain`` was answered: how it stands, then each wait with who acts next."""
    lines = [*behind(value), f"{value['kind']} {value['name'] or value['id']} ({value['id']}): {value['state']}"]
    for wait in value["waits"]:
        when = f" (at the latest in {wait['seconds']:.1f} s)" if wait["seconds"] is not None else ""
        lines.append(f"  {wait['who']}: {wait['why']}{when}")
        more = wait["count"] - len(wait["subjects"])
        lines.append(f"      {', '.join(wait['subjects'])}" + (f" and {more} more" if more else ""))
    if not value["waits"]:
        lines.append("  nothing waits")
    because = value.get("because", {})
    lines += [f"  {path} did not answer{_why(because.get(path, ''))}: it may know more" for path in value["silent"]]
    lines += _elsewhere(value)
    return "\n".join(lines)


def plan(value: dict[str, Any]) -> str:
    """What ``plan`` was answered: where each task would go, and what would end."""
    did = {"drain": "drained", "rm": "removed"}[value["action"]]
    moves, ends = value["moves"], value["ends"]
    would = f"{_tasks(len(moves))} would move, {len(ends)} would end"
    lines = [*behind(value), f"if node {value['name'] or value['id']} were {did}: {would}"]
    lines += [f"  warning: {text}" for text in value["warnings"]]
    for move in moves[:MOVES_SHOWN]:
        where = f"to {move['to']}" if move["to"] else f"nowhere yet: {move['waits'] or 'it would wait'}"
        lines.append(f"  {move['task']} {where}")
    if len(moves) > MOVES_SHOWN:
        lines.append(f"  and {len(moves) - MOVES_SHOWN} more")
    lines += [f"  {end['task']} ends: {end['why']}" for end in ends]
    return "\n".join([*lines, *_elsewhere(value)])


def _elsewhere(value: dict[str, Any]) -> list[str]:
    """Who would know more."""
    return [f"  as far as it is known here: {value['elsewhere']}"] if value.get("elsewhere") else []


def _why(because: str) -> str:
    return f" ({because})" if because else ""


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
