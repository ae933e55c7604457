"""The process executor: tasks are processes of this machine, kept by the keeper, one a node.

Making one starts nothing, unless an earlier life has left tasks behind: then their keeper is found (or started, to
bury what it left) at once. ``close`` lets the tasks linger as the executor was told; ``stop_all`` ends them.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from runtime.executor.cgroups import detect
from runtime.executor.journal import Record
from runtime.executor.keeper_client import Clock, KeeperClient
from runtime.executor.payload_files import clear_payloads, payload_root
from runtime.executor.port import Orphan, Rejected, TaskContext
from runtime.executor.process_controller import ProcessController
from runtime.executor.process_plan import PlanSettings, make_plan
from runtime.executor.task_ports import TaskPorts, from_record
from runtime.executor.work import Loop
from runtime.wire.pb import objects_pb2, types_pb2

EXECUTOR_LABEL, LIMITS_LABEL = "swarmlet.executor", "swarmlet.limits"
PLUGINS = (("Log", "json-file"), ("Log", "local"), *(("Network", name) for name in ("bridge", "host", "overlay")))


class _Monotonic:
    """The clock of an executor that was given none."""

    def monotonic(self) -> float:
        return time.monotonic()


class ProcessExecutor:
    """The port's Executor.

    - ``directory``: the keeper's journal and the logs (0700); ``run_dir``: its socket, a short path.
    - ``generic_resources``: ``KIND=NUMBER`` or ``KIND=NAME``, as dockerd's ``--node-generic-resource``.
    - ``task_user``: who tasks run as unless their service says otherwise. ``require_limits``: reject tasks whose
      limits can't be enforced here.
    - ``linger``: seconds that tasks go on without a daemon; None is without limit.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        directory: str,
        run_dir: str,
        generic_resources: Sequence[str] = (),
        task_user: str | None = None,
        require_limits: bool = False,
        linger: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._loop = loop
        os.makedirs(directory, 0o700, exist_ok=True)
        label = f"{zlib.crc32(os.path.realpath(directory).encode()):08x}"
        found = detect(f"{label}-look")  # the keeper makes its own groups
        found.close()
        self.limits_reason = found.reason
        self._settings = PlanSettings(task_user, require_limits, found.reason, dict(os.environ))
        self._client = KeeperClient(directory, run_dir, linger, clock or _Monotonic(), self._records)
        self._payloads = payload_root(run_dir)
        self._ports = TaskPorts()
        self._description = describe_machine(parse_generic_resources(generic_resources), found.reason)
        self._controllers: list[ProcessController] = []
        self._orphans: list[Orphan] = []
        self._told: set[str] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._met = False
        if self._client.kept:
            loop.submit(self._client.call("record", id=""), lambda _: None)
        else:
            clear_payloads(self._payloads, ())

    def describe(self) -> types_pb2.NodeDescription:
        """As the port's. The engine label ``swarmlet.limits`` says whether limits are enforced, and if not why."""
        return self._description

    def controller(self, task: objects_pb2.Task, context: TaskContext) -> ProcessController:
        """As the port's."""
        if self._closed:
            raise Rejected("the executor is closed")
        plan = make_plan(task, context, self._settings)
        controller = ProcessController(self._loop, self._client, plan, context, self._payloads, self._ports)
        with self._lock:
            self._controllers = [each for each in self._controllers if not each.closed]
            self._controllers.append(controller)
        return controller

    def orphans(self) -> Sequence[Orphan]:
        """As the port's: tasks whose keeper died before them."""
        with self._lock:
            orphans, self._orphans = self._orphans, []
        return orphans

    def stop_all(self, done: Callable[[], None]) -> None:
        """As the port's. Starts no keeper where there is nothing to stop."""
        if not self._client.kept:
            done()
            return
        self._loop.submit(self._stop_all(), lambda _: done())

    async def _stop_all(self) -> None:
        await self._client.call("stop_all")
        clear_payloads(self._payloads, ())

    def close(self, done: Callable[[], None]) -> None:
        """As the port's."""
        with self._lock:
            self._closed = True
            controllers, self._controllers = self._controllers, []
        for controller in controllers:
            controller.close(lambda _: None)
        self._loop.submit(self._client.close(), lambda _: done())

    def _records(self, records: list[Record]) -> None:
        running = {record["id"]: from_record(record.get("ports", ())) for record in records if _runs(record)}
        for task_id, ports in running.items():
            self._ports.restore(task_id, ports.values())
        if not self._met:  # later ones may be about to start, with their files in place
            self._met = True
            clear_payloads(self._payloads, running)
        lost = [Orphan(record["id"], record["lost"]) for record in records if record["lost"]]
        with self._lock:
            self._orphans += [orphan for orphan in lost if orphan.task_id not in self._told]
            self._told.update(orphan.task_id for orphan in lost)


def _runs(record: Record) -> bool:
    return bool(record["state"] == "running" and not record["lost"])


def describe_machine(generic: Sequence[types_pb2.GenericResource], limits_reason: str) -> types_pb2.NodeDescription:
    """This machine as a node."""
    labels = {
        EXECUTOR_LABEL: "process",
        LIMITS_LABEL: f"not enforced: {limits_reason}" if limits_reason else "enforced",
    }
    return types_pb2.NodeDescription(
        platform=types_pb2.Platform(architecture=platform.machine(), os="linux"),
        resources=types_pb2.Resources(
            nano_cpus=len(os.sched_getaffinity(0)) * 1_000_000_000,
            memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            generic=generic,
        ),
        engine=types_pb2.EngineDescription(
            engine_version=importlib.metadata.version("swarmlet"),
            labels=labels,
            plugins=[types_pb2.PluginDescription(type=kind, name=name) for kind, name in PLUGINS],
        ),
    )


def parse_generic_resources(entries: Sequence[str]) -> list[types_pb2.GenericResource]:
    """``KIND=NUMBER`` is that many, ``KIND=NAME`` (once for each) is one with a name; ValueError if neither."""
    found = []
    for entry in entries:
        kind, equals, value = entry.partition("=")
        if not equals or not kind or not value:
            raise ValueError(f"could not parse GenericResource: {entry!r} should be KIND=VALUE")
        each: Any = types_pb2.GenericResource()
        if value.isdigit():
            each.discrete_resource_spec.kind, each.discrete_resource_spec.value = kind, int(value)
        else:
            each.named_resource_spec.kind, each.named_resource_spec.value = kind, value
        found.append(each)
    return found
