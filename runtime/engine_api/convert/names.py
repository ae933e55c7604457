"""Field names in any case, as Go reads them: docker-py writes ``replicated``, the engine's field is ``Replicated``.

Rules: a name written exactly wins over the same name in another case; keys of maps (labels, options) are people's own
and stay as they are, with everything below them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from runtime.engine_api import openapi

MAPS: Final = frozenset(("AuxAddress", "AuxiliaryAddresses", "DriverOpts", "Labels", "Options", "Sysctls"))
MORE: Final = (
    "AppArmor", "CredentialSpec", "DiscreteResourceSpec", "File", "GenericResources", "NamedResourceSpec",
    "NetworkAttachmentSpec", "NoNewPrivileges", "OomScoreAdj", "PluginSpec", "Privileges", "Registry",
    "SELinuxContext", "Seccomp", "StartInterval", "UnlockKey",
)  # fmt: skip

TERMINAL: Final = "TTY"
"""Of a service; of a command it is ``Tty``, and read by this name too."""


def _names(schema: openapi.Schema) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        yield name
        yield from _names(field)
    if "items" in schema:
        yield from _names(schema["items"])


NAMES: Final[dict[str, str]] = {name.lower(): name for body in openapi.BODIES.values() for name in _names(body)} | {
    name.lower(): name for name in (*MORE, TERMINAL)
}


def exact(value: Any) -> Any:
    """``value`` with every known field name in the engine's own case."""
    if isinstance(value, list):
        return [exact(item) for item in value]
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    fields: dict[str, Any] = value
    for key, item in fields.items():
        name = NAMES.get(key.lower(), key)
        if name == key or name not in fields:
            out[name] = item if name in MAPS and isinstance(item, dict) else exact(item)
    return out
