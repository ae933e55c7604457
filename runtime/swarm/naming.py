"""Names: what may be one, what a task is called, and what a nameless service gets.

Rules owned here: services and networks follow name rule A (a DNS label), secrets and configs rule B; a task is named
after its service, its slot (or its node) and its id; the runtime of a task spec has a name of its own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Final

from runtime.errors import invalid
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs

NAME_LENGTH_MAX: Final = 63
SECRET_NAME_LENGTH_MAX: Final = 64
ATTEMPTS_MAX = 10_000

# The same language as ^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$, which backtracks exponentially in a backtracking engine.
_DNS_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")
_SECRET_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")

_FIRST: Final = (
    "able", "amber", "ample", "apt", "azure", "bold", "brisk", "bronze", "calm", "candid", "civil", "clear",
    "coral", "crisp", "deft", "dewy", "early", "easy", "even", "fair", "firm", "fleet", "fond", "frank", "fresh",
    "frosty", "gentle", "glad", "golden", "grand", "hardy", "hazel", "humble", "ivory", "jade", "jolly", "keen",
    "kind", "level", "light", "lively", "loyal", "lucid", "lunar", "mellow", "merry", "mild", "modest", "neat",
    "nimble", "noble", "olive", "open", "patient", "plain", "plucky", "prime", "proud", "quick", "quiet", "rapid",
    "ready", "rosy", "royal", "rustic", "sage", "sharp", "silent", "silver", "simple", "sleek", "smart", "snug",
    "solar", "solid", "spry", "steady", "still", "stout", "sunny", "swift", "tidy", "tranquil", "true", "trusty",
    "vivid", "warm", "wise", "witty", "zesty",
)  # fmt: skip
_SECOND: Final = (
    "acorn", "alder", "anchor", "anvil", "aspen", "badger", "bay", "beacon", "beech", "birch", "bison", "brook",
    "canyon", "cedar", "cliff", "clover", "comet", "cove", "crane", "creek", "delta", "dune", "eagle", "elm",
    "ember", "falcon", "fern", "finch", "fjord", "forge", "fox", "gale", "garnet", "glacier", "glen", "grove",
    "gull", "harbor", "hare", "hawk", "heath", "heron", "hill", "island", "jay", "kestrel", "lagoon", "lake",
    "lantern", "larch", "lark", "linden", "lynx", "maple", "marsh", "meadow", "mesa", "moose", "nova", "oak",
    "orbit", "orchid", "osprey", "otter", "owl", "pebble", "pine", "plover", "pond", "poplar", "prairie", "quarry",
    "quartz", "raven", "reef", "ridge", "river", "robin", "sail", "sparrow", "spruce", "stone", "stork", "summit",
    "swallow", "teal", "thistle", "tide", "trail", "valley", "walnut", "willow", "wren", "yarrow",
)  # fmt: skip


def check_name(name: str) -> None:
    """Name rule A, for services and networks; refused with the texts that clients know."""
    if not name:
        raise invalid("meta: name must be provided")
    if not _DNS_LABEL.fullmatch(name):
        raise invalid("name must be valid as a DNS name component")
    if len(name) > NAME_LENGTH_MAX:
        raise invalid(f"name must be {NAME_LENGTH_MAX} characters or fewer")


def check_secret_name(name: str) -> None:
    """Name rule B, for secrets and configs."""
    if not name:
        raise invalid("name must be provided")
    if len(name) > SECRET_NAME_LENGTH_MAX or not _SECRET_NAME.fullmatch(name):
        raise invalid(
            f"invalid name, only {SECRET_NAME_LENGTH_MAX} [a-zA-Z0-9-_.] characters allowed, "
            "and the start and end character must be [a-zA-Z0-9]"
        )


def task_name(task: objects.Task) -> str:
    """``service.slot.id``; tasks without a slot (global services, first of a job) carry their node's id instead."""
    if task.annotations.name:
        return task.annotations.name
    place = str(task.slot) if task.slot else task.node_id
    return f"{task.service_annotations.name}.{place}.{task.id}"


def runtime_name(spec: specs.TaskSpec) -> str | None:
    """``container``, ``attachment`` or the lower-cased kind of a generic runtime; nothing when there is none."""
    kind = spec.WhichOneof("runtime")
    return spec.generic.kind.lower() if kind == "generic" else kind


def random_name(rng: random.Random, taken: Callable[[str], bool] = lambda name: False) -> str:
    """Two words, for a service that came without a name.

    ``taken`` says whether a name is in use; after a few collisions a number is appended, so that this always ends.
    """
    for attempt in range(ATTEMPTS_MAX):
        name = f"{rng.choice(_FIRST)}_{rng.choice(_SECOND)}"
        if attempt >= 8:
            name += str(rng.randrange(10 ** min(attempt // 8, 9)))
        if not taken(name):
            return name
    raise RuntimeError(f"{ATTEMPTS_MAX} names in a row were taken")
