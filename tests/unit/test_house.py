"""The house's own rules: who may import whom, and that the real world is reached through a node's world alone."""

from __future__ import annotations

import ast
import functools
import pathlib
import re
from collections.abc import Callable, Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROOMS = (
    "stage",
    "protocol",
    "raft",
    "store",
    "swarm",
    "pki",
    "disk",
    "wire",
    "executor",
    "engine_api",
    "introspection",
    "operations",
)
PURE = ("raft", "store", "swarm", "pki")
ONLY_IN = {
    "pykka": ("runtime/stage",),
    "plyvel": ("runtime/disk",),
    "grpc": ("runtime/wire",),
    "prometheus_client": ("runtime/introspection",),
    "textual": ("swarmlet/console",),
    "aiohttp": ("runtime/engine_api", "runtime/executor", "runtime/wire"),
}
# What reaches past a node's world: actors and the pure rooms may not so much as import them.
REAL_WORLD = {
    "asyncio", "multiprocessing", "os", "random", "secrets", "selectors", "signal", "socket", "ssl", "subprocess",
    "tempfile", "threading", "time", "uuid",
}  # fmt: skip
# Imported for a type alone: a seeded generator is handed in.
TYPES_ONLY = {"random"}


@functools.cache
def nodes(top: str) -> list[tuple[str, list[ast.AST]]]:
    """Every file below ``top`` that is not generated, with all nodes of its syntax tree."""
    named = [(path.relative_to(ROOT).as_posix(), path) for path in sorted((ROOT / top).rglob("*.py"))]
    return [
        (name, list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))))
        for name, path in named
        if "/pb/" not in name
    ]


def sources(*tops: str) -> Iterator[tuple[str, list[ast.AST]]]:
    for top in tops:
        yield from nodes(top)


@functools.cache
def imported(types: bool = False) -> list[tuple[str, int, str]]:
    """Every module imported anywhere (file, line, module); those under TYPE_CHECKING only with ``types``."""
    found = []
    for name, tree in sources("swarmlet", "actors", "runtime"):
        hidden = {
            id(inner)
            for node in tree
            if not types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in tree:
            if id(node) in hidden:
                continue
            if isinstance(node, ast.Import):
                found += [(name, node.lineno, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found.append((name, node.lineno, node.module or "(relative)"))
                found += [(name, node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def violations(forbidden: Callable[[str, str], bool], types: bool = False) -> list[str]:
    return [f"{name}:{line} imports {module}" for name, line, module in imported(types) if forbidden(name, module)]


def test_the_face_stands_on_actors_and_actors_on_the_runtime_never_the_other_way() -> None:
    def forbidden(name: str, module: str) -> bool:
        top = module.split(".")[0]
        if name.startswith("runtime/"):
            return top in ("actors", "swarmlet")
        return name.startswith("actors/") and top == "swarmlet"

    assert violations(forbidden) == []


def test_pure_rooms_import_no_sibling() -> None:
    def forbidden(name: str, module: str) -> bool:
        parts = name.split("/")
        if parts[0] != "runtime" or parts[1] not in PURE:
            return False
        siblings = tuple(f"runtime.{room}" for room in ROOMS if room not in (parts[1], "wire"))
        outside_pb = module.startswith("runtime.wire") and not module.startswith("runtime.wire.pb")
        return module.startswith(siblings) or (outside_pb and module != "runtime.wire")

    assert violations(forbidden) == []


def test_below_the_engine_api_nobody_knows_it_not_even_for_a_type() -> None:
    below = tuple(f"runtime/{room}/" for room in ROOMS if room not in ("engine_api", "introspection"))

    assert (
        violations(lambda name, module: name.startswith(below) and module.startswith("runtime.engine_api"), True) == []
    )


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_stays_in_its_room(library: str) -> None:
    def forbidden(name: str, module: str) -> bool:
        return module.split(".")[0] == library and not name.startswith(ONLY_IN[library])

    assert violations(forbidden) == []


def test_actors_and_pure_rooms_reach_the_real_world_only_through_their_world() -> None:
    def forbidden(name: str, module: str) -> bool:
        inside = name.startswith(("actors/", *(f"runtime/{room}/" for room in (*PURE, "operations"))))
        return inside and module.split(".")[0] in REAL_WORLD - TYPES_ONLY

    assert violations(forbidden) == []


def test_no_clock_no_dice_and_no_sleep_outside_the_world() -> None:
    """``random`` may be imported for its class; its module's functions, and calls on clocks, are the world's."""
    allowed = ("Random", "SystemRandom")
    found = [
        f"{name}:{node.lineno} {ast.unparse(node)}"
        for name, tree in sources("actors", *(f"runtime/{room}" for room in PURE))
        for node in tree
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("random", "time", "datetime")
        and node.attr not in allowed
        and (node.value.id != "datetime" or node.attr in ("now", "utcnow", "today"))
    ]
    assert found == []


def test_no_actor_keeps_a_set_of_objects_which_would_be_gone_through_in_another_order_each_time() -> None:
    """Strings and numbers have hashes that a seed fixes, other objects have addresses."""
    kept = [
        f"{name}:{node.lineno} set[{node.slice.id}]"
        for name, found in sources("actors")
        for node in found
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id == "set"
        and isinstance(node.slice, ast.Name)
        and node.slice.id.lstrip("_")[:1].isupper()
    ]
    assert kept == []


def test_no_exception_is_kept_to_be_raised_again_and_again() -> None:
    """One that was raised holds the frames that it passed through, and each further time adds some."""
    made = re.compile(r"(Refused|NotSent|[A-Z]\w*(Error|Exception))$")
    found = [
        f"{name}:{node.lineno} {ast.unparse(node)}"
        for name, tree in sources("swarmlet", "actors", "runtime")
        for module in tree
        if isinstance(module, (ast.Module, ast.ClassDef))
        for node in module.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and isinstance(node.value, ast.Call)
        and made.search(ast.unparse(node.value.func))
    ]
    assert found == []


def test_no_pickle_no_eval_no_shell() -> None:
    names = {"eval", "exec", "os.system", "os.popen"}
    found = [
        f"{name}:{node.lineno}"
        for name, tree in sources("swarmlet", "actors", "runtime")
        for node in tree
        if isinstance(node, ast.Call)
        and (ast.unparse(node.func) in names or any(k.arg == "shell" for k in node.keywords))
    ]
    found += violations(lambda _name, module: module.split(".")[0] in ("pickle", "shelve", "marshal"))
    assert found == []
