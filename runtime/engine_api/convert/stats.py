"""What a container uses, as clients of an engine are shown it.

Rules: what ``docker stats`` computes needs two readings, so a document holds this one and the one before; of a
container that does not run there is one without any, as the engine has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runtime.engine_api.convert import common

if TYPE_CHECKING:
    from runtime.engine_api.convert.local import Container
    from runtime.engine_api.jsonio import JsonObject
    from runtime.executor.inspection import Usage

BLKIO: Final = (
    "io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive",
    "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive",
)  # fmt: skip
NO_CPU: Final[JsonObject] = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}


def stats_to_json(container: Container, now: Usage | None, before: Usage | None) -> JsonObject:
    """One document; ``now`` is None for one that does not run, ``before`` for the first."""
    taken, earlier = now or {}, before or {}
    nothing: list[JsonObject] | None = [] if now is not None else None
    out: JsonObject = {
        "read": taken.get("read", common.ZERO_TIME),
        "preread": earlier.get("read", common.ZERO_TIME),
        "pids_stats": taken.get("pids_stats", {}),
        "blkio_stats": {**dict.fromkeys(BLKIO, nothing), **taken.get("blkio_stats", {})},
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": taken.get("cpu_stats", NO_CPU),
        "precpu_stats": earlier.get("cpu_stats", NO_CPU),
        "memory_stats": taken.get("memory_stats", {}),
        "name": f"/{container.name}",
        "id": container.id,
    }
    common.keep(out, networks=taken.get("networks"))
    return out
