"""What is asked of an engine for the containers of one executor; shared by its controllers.

Rules owned here: a pull goes on though whoever asked for it is interrupted, and tasks that want the same image share
one; so does a start, so that a repeated one can never start a container a second time. What is gone counts as stopped
and removed. Runs on one asyncio loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from runtime.executor.container_config import TASK_LABEL
from runtime.executor.container_plan import OWNER_LABEL, Plan
from runtime.executor.container_state import ContainerState
from runtime.executor.engine_client import EngineClient, EngineRefused, EngineUnavailable, Query, lines_of
from runtime.executor.engine_session import begin
from runtime.executor.inspection import Look, Processes, RunCommand, SendSignal, TakeUsage, Top
from runtime.executor.local_networks import LocalNetwork

START_S, REMOVE_S, STOP_SLACK_S, STOP_MAX_S = 300.0, 120.0, 60.0, 3600.0
GONE, UNCHANGED, CONFLICT, TROUBLE = 404, 304, 409, 500
NO_IMAGE = "no such image"
USED = ("read", "pids_stats", "cpu_stats", "memory_stats", "blkio_stats", "networks")

log = logging.getLogger("swarmlet.executor")


class Shared:
    """Work that several may wait for, and that goes on when they do not."""

    def __init__(self) -> None:
        self._tasks: dict[object, asyncio.Task[Any]] = {}
        self._waiting: dict[object, int] = {}

    async def run(self, key: object, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Its result; begun only if nobody has begun it."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.get_running_loop().create_task(work())
            task.add_done_callback(lambda ended: self._over(key, ended))
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]

    def abandon(self, key: object) -> None:
        """Breaks it off, unless somebody waits for it."""
        task = self._tasks.get(key)
        if task is not None and key not in self._waiting:
            task.cancel()

    def close(self) -> None:
        """Breaks off all of it."""
        for task in self._tasks.values():
            task.cancel()

    def _over(self, key: object, task: asyncio.Task[Any]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled():
            task.exception()  # whoever waits has it; with nobody waiting it is of no interest


class EngineContainers:
    """The containers that bear ``owner``. ``prefer_offline``: images that are here are not pulled.

    What one engine does otherwise than another: ``makes_sources`` (of bind mounts, where they are missing),
    ``checks_health`` (it does not, unless it is told to each time).
    """

    def __init__(self, client: EngineClient, owner: str, *, prefer_offline: bool = False) -> None:
        self.client = client
        self.owner = owner
        self._prefer_offline = prefer_offline
        self.makes_sources = False
        self.checks_health = False
        self._shared = Shared()

    async def all(self) -> list[dict[str, Any]]:
        """Every container of ours, as the engine lists it."""
        return await self._listed([f"{OWNER_LABEL}={self.owner}"])

    async def alive(self) -> list[dict[str, Any]]:
        """Those of them that were started and have not ended."""
        return [each for each in await self.all() if each.get("State") not in ("exited", "created", "dead")]

    async def find(self, task_id: str) -> str:
        """The container of a task: its id, empty if there is none."""
        found = await self._listed([f"{OWNER_LABEL}={self.owner}", f"{TASK_LABEL}={task_id}"])
        return str(found[0]["Id"]) if found else ""

    async def _listed(self, labels: list[str]) -> list[dict[str, Any]]:
        filters = json.dumps({"label": labels})
        return await self._look("/containers/json", {"all": "1", "filters": filters}) or []

    async def inspect(self, container: str) -> ContainerState | None:
        """How it stands; None if it is gone."""
        found = await self._look(f"/containers/{container}/json")
        return None if found is None else ContainerState.of(found)

    async def _look(self, path: str, query: Query | None = None) -> Any:
        """What the engine shows, None if it has none; one that cannot say is asked again."""
        try:
            return await self.client.call("GET", path, query=query)
        except EngineRefused as refused:
            if refused.status == GONE:
                return None
            if refused.status >= TROUBLE:
                raise EngineUnavailable(refused.text) from refused
            raise

    async def make(self, plan: Plan) -> str:
        """Makes a task's container; its id, also if an earlier request has made it."""
        return str(await self._shared.run(("make", plan.task_id), lambda: self._make(plan)))

    async def _make(self, plan: Plan) -> str:
        try:
            made = await self.client.call("POST", "/containers/create", query={"name": plan.name}, body=plan.create)
        except EngineRefused as refused:
            if refused.text.lower().startswith(NO_IMAGE) and plan.image is not None:  # as clients know it
                raise EngineRefused(GONE, f"No such image: {plan.image.text}") from None
            if refused.status != CONFLICT:
                raise
            return await self._made_before(plan, refused)
        for warning in made.get("Warnings") or ():
            log.warning("container %s: %s", plan.name, warning)
        return str(made["Id"])

    async def _made_before(self, plan: Plan, refused: EngineRefused) -> str:
        """Somebody has the name: this very task, whose container may still be in the making, or somebody else."""
        found = await self.find(plan.task_id)
        if found:
            return found
        if await self.inspect(plan.name) is not None:
            raise refused
        raise EngineUnavailable(f"the container {plan.name} is in the making")

    async def start(self, container: str, before: Callable[[], Awaitable[None]]) -> bool:
        """Starts a container that was never started, when ``before`` is done; False if it runs already. EngineRefused
        with the reason, and whatever ``before`` raises."""
        return bool(await self._shared.run(("start", container), partial(self._start, container, before)))

    async def _start(self, container: str, before: Callable[[], Awaitable[None]]) -> bool:
        await before()
        try:
            await self.client.call("POST", f"/containers/{container}/start", seconds=START_S)
        except EngineRefused as refused:
            if refused.status == UNCHANGED:
                return False
            raise
        return True

    async def stop(self, container: str, grace: int | None) -> None:
        """Its stop signal, SIGKILL after ``grace`` seconds (None: those that it was made with); returns when it has
        ended."""
        query = {} if grace is None else {"t": str(grace)}
        seconds = STOP_MAX_S if grace is None else grace + STOP_SLACK_S
        await self._unless_gone("POST", f"/containers/{container}/stop", query, seconds)

    async def kill(self, container: str) -> None:
        """SIGKILL; what does not run is fine."""
        await self._unless_gone("POST", f"/containers/{container}/kill", {"signal": "KILL"}, None, CONFLICT)

    async def check_health(self, container: str) -> None:
        """Has Podman look after a container's health, which leaves that to systemd; what it finds, it shows."""
        try:
            await self.client.call("GET", f"/libpod/containers/{container}/healthcheck")
        except EngineRefused as refused:
            log.debug("the health of container %s is not known: %s", container, refused)

    async def look(self, container: str, question: Look) -> Any:
        """The engine's answer to a question about a container that runs. EngineRefused."""
        path = f"/containers/{container}"
        match question:
            case Top(arguments):
                found = await self.client.call("GET", f"{path}/top", query={"ps_args": arguments})
                if found is None:
                    raise EngineRefused(TROUBLE, "the container engine cannot list its processes")
                rows = tuple(tuple(map(str, row)) for row in found.get("Processes") or ())
                return Processes(tuple(map(str, found.get("Titles") or ())), rows)
            case TakeUsage():
                found = await self.client.call("GET", f"{path}/stats", query={"stream": "0", "one-shot": "1"})
                return {part: found[part] for part in USED if part in found}
            case RunCommand():
                return await begin(self.client, container, question)
            case SendSignal(number):
                await self.client.call("POST", f"{path}/kill", query={"signal": str(number)})
                return None

    async def remove(self, container: str) -> None:
        """Removes it with its anonymous volumes, running or not."""
        await self._unless_gone("DELETE", f"/containers/{container}", {"v": "1", "force": "1"}, REMOVE_S)

    async def _unless_gone(
        self, method: str, path: str, query: dict[str, str], seconds: float | None, *fine: int
    ) -> None:
        try:
            await self.client.call(method, path, query=query, seconds=seconds)
        except EngineRefused as refused:
            if refused.status not in (GONE, UNCHANGED, *fine):
                raise

    # Networks

    async def join_networks(self, container: str, plan: Plan) -> None:
        """A container that was not started yet is on all networks of its plan. EngineRefused."""
        for network in plan.networks:
            body = {"Container": container, "EndpointConfig": network.endpoint}
            try:
                if plan.create["HostConfig"].get("NetworkMode") != network.name:
                    await self.client.call("POST", f"/networks/{network.name}/connect", body=body)
            except EngineRefused as refused:
                if "already" not in refused.text:  # it was on it before
                    raise

    async def make_networks(self, plan: Plan) -> None:
        """The networks of a plan are there. EngineRefused."""
        for network in plan.networks:
            await self._shared.run(("network", network.name), partial(self._make_network, network))

    async def _make_network(self, network: LocalNetwork) -> None:
        if await self._look(f"/networks/{network.name}") is not None:
            return
        try:
            await self.client.call("POST", "/networks/create", body=network.create(OWNER_LABEL, self.owner))
        except EngineRefused as refused:
            if refused.status != CONFLICT:
                raise

    async def leave_networks(self, plan: Plan) -> None:
        """Networks of a plan that no container of ours is on any more are removed; one in use stays."""
        for network in plan.networks:
            filters = json.dumps({"network": [network.name]})
            if not await self._look("/containers/json", {"all": "1", "filters": filters}):
                try:
                    await self.client.call("DELETE", f"/networks/{network.name}")
                except EngineRefused as refused:
                    log.debug("the network %s stays: %s", network.name, refused)

    # Images

    async def pull(self, plan: Plan) -> None:
        """Has the image of a plan here, newest content of its name. A pull that fails is told and no more: whether the
        image is here shows when the container is made."""
        if plan.image is None or self._prefer_offline:
            return
        if plan.image.digest and await self.has_image(plan.image.text):
            return
        try:
            await self._shared.run(_pull_key(plan), lambda: self._pull(plan))
        except EngineRefused as refused:
            log.warning("the image %s is not pulled: %s", plan.image.text, refused)

    def abandon(self, plan: Plan) -> None:
        """Nobody wants this plan's image any more."""
        self._shared.abandon(_pull_key(plan))

    def close(self) -> None:
        """Ends what goes on by itself."""
        self._shared.close()

    async def has_image(self, name: str) -> bool:
        """Whether an image is here."""
        return await self._look(f"/images/{name}/json") is not None

    async def _pull(self, plan: Plan) -> None:
        assert plan.image is not None
        query = {"fromImage": plan.image.name, "tag": plan.image.pulled}
        headers = {"X-Registry-Auth": plan.registry_auth} if plan.registry_auth else None
        async with self.client.stream("POST", "/images/create", query=query, headers=headers) as pieces:
            async for line in lines_of(pieces):
                told = json.loads(line)
                if told.get("error"):
                    raise EngineRefused(500, str((told.get("errorDetail") or {}).get("message") or told["error"]))


def _pull_key(plan: Plan) -> object:
    return "pull", plan.image, plan.registry_auth
