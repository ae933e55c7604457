"""What a compose file says of a service whose tasks are containers, beyond what it may say of a process.

Rule owned here: what ``docker stack deploy`` would honour and this does not is a fault that says so, never left out.
"""

from __future__ import annotations

from typing import Final

from runtime.wire.pb import specs_pb2
from swarmlet.compose_values import Place

HONOURED: Final = (
    "cap_add", "cap_drop", "dns", "dns_opt", "dns_search", "extra_hosts", "hostname", "read_only", "stdin_open",
    "sysctls", "tmpfs", "tty", "volumes",
)  # fmt: skip
"""Fields that a process is refused."""
NOT_HERE: Final = "is not honoured for containers by swarmlet up; docker stack deploy at a daemon may do so"


def add(place: Place, container: specs_pb2.ContainerSpec) -> None:
    """Takes over what a container can be given."""
    container.hostname = place.at("hostname").text()
    container.read_only = place.at("read_only").flag()
    container.open_stdin = place.at("stdin_open").flag()
    container.tty = place.at("tty").flag()
    container.capability_add.extend(place.at("cap_add").texts())
    container.capability_drop.extend(place.at("cap_drop").texts())
    for key, value in place.at("sysctls").pairs().items():
        container.sysctls[key] = value or ""
    for item in place.at("extra_hosts").items():
        host, _, address = item.text().replace("=", ":", 1).partition(":")
        if not host or not address:
            item.fault(f"must be HOST:IP, not {item.text()!r}")
        container.hosts.append(f"{address.strip('[]')} {host}")
    given = {key: _texts(place.at(key)) for key in ("dns", "dns_search", "dns_opt")}
    if any(given.values()):
        dns = container.dns_config
        dns.nameservers.extend(given["dns"])
        dns.search.extend(given["dns_search"])
        dns.options.extend(given["dns_opt"])


def _texts(place: Place) -> list[str]:
    return [place.text()] if isinstance(place.value, str) else list(place.texts())
