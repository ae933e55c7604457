"""One process task, as its agent drives it: the port's Controller over the keeper.

Every operation is a coroutine on the I/O loop; its outcome is told once. Texts are those that people know from a
container engine (``task: non-zero exit (3)``, ``starting container failed: ...``).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from runtime.errors import Code, Refused
from runtime.executor import usage
from runtime.executor.accounts import account_of
from runtime.executor.health import HealthRules, watch_health
from runtime.executor.inspection import Look, NotBegun, OnLooked, RunCommand, SendSignal, TakeUsage, Top
from runtime.executor.journal import Record
from runtime.executor.keeper import KNOWS_NO, LOGS
from runtime.executor.keeper_client import KeeperClient, KeeperRefused, KeeperUnavailable
from runtime.executor.log_reading import read_log
from runtime.executor.logfile import Position
from runtime.executor.payload_files import payload_environment, remove_payloads, write_payloads
from runtime.executor.port import (
    CONTROLLER_CLOSED,
    Already,
    Done,
    Failed,
    LogOptions,
    OnDone,
    OnEnd,
    OnLine,
    Outcome,
    Rejected,
    TaskContext,
)
from runtime.executor.process_plan import Plan
from runtime.executor.process_session import begin
from runtime.executor.procfs import TASK_MARK
from runtime.executor.ps import run_ps
from runtime.executor.task_ports import TaskPorts, as_record, environment, from_record
from runtime.executor.work import Loop, Work
from runtime.wire.pb import objects_pb2, types_pb2

DRAIN_S = 2.0
NO_READING = "configured logging driver does not support reading"
NOT_RUNNABLE = 126
UNKNOWN_EXIT = -1  # a container status's exit code where nobody knows it


def _outcome(result: Any) -> Outcome:
    """What a coroutine's end means for the task."""
    if isinstance(result, Done | Already | Failed):
        return result
    if result == CONTROLLER_CLOSED:
        return Failed(CONTROLLER_CLOSED)
    if result == "cancelled" or isinstance(result, asyncio.CancelledError):
        return Failed("cancelled", cancelled=True)
    if isinstance(result, KeeperUnavailable):
        return Failed(str(result), temporary=True)
    if isinstance(result, KeeperRefused):
        return Failed(result.text, temporary=result.code == "temporary")
    return Failed(f"{type(result).__name__}: {result}")


def _looked(result: Any) -> Any:
    """What a coroutine's end means for who looks."""
    if isinstance(result, Refused):
        return result
    if isinstance(result, KeeperRefused):
        if result.text.startswith(KNOWS_NO):
            return Refused(
                Code.UNIMPLEMENTED, f"{result.text}: it is of an older version, and stays while its tasks run"
            )
        code = Code.FAILED_PRECONDITION if result.code == "unknown" else Code.UNAVAILABLE
        return Refused(code, result.text)
    if result in (CONTROLLER_CLOSED, "cancelled") or isinstance(result, KeeperUnavailable):
        return Refused(Code.UNAVAILABLE, str(result))
    if isinstance(result, Failed):
        return Refused(Code.UNAVAILABLE, result.text)
    if isinstance(result, BaseException):
        return Refused(Code.UNKNOWN, f"{type(result).__name__}: {result}")
    return result


class ProcessController:
    """``payloads`` is the directory for files of secrets and configs."""

    def __init__(
        self,
        loop: Loop,
        client: KeeperClient,
        plan: Plan,
        context: TaskContext,
        payloads: str,
        ports: TaskPorts | None = None,
    ) -> None:
        self._loop = loop
        self._client = client
        self._plan = plan
        self._context = context
        self._payloads = payloads
        self._task_ports = ports or TaskPorts()
        self._open: list[Work] = []
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    # The port

    def update(self, task: objects_pb2.Task, done: OnDone) -> Work:
        """As the port's: nothing of a process changes."""
        return self._begin(self._updated(), done)

    def prepare(self, done: OnDone) -> Work:
        """As the port's: there is a keeper afterwards."""
        return self._begin(self._prepare(), done)

    def start(self, done: OnDone) -> Work:
        """As the port's."""
        return self._begin(self._start(), done)

    def wait(self, done: OnDone) -> Work:
        """As the port's; watches the task's health meanwhile."""
        return self._begin(self._wait(), done)

    def shutdown(self, done: OnDone) -> Work:
        """As the port's."""
        return self._begin(self._stop(self._plan.stop_signal, self._plan.grace), done)

    def terminate(self, done: OnDone) -> Work:
        """As the port's."""
        return self._begin(self._stop(signal.SIGKILL, 0.0), done)

    def remove(self, done: OnDone) -> Work:
        """As the port's."""
        return self._begin(self._remove(), done)

    def close(self, done: OnDone) -> Work:
        """As the port's."""
        self._closed = True
        for work in self._open:
            work.cancel(CONTROLLER_CLOSED)
        work = Work(lambda result: done(_outcome(result)))
        work.ended(Done())
        return work

    def logs(self, options: LogOptions, on_line: OnLine, on_end: OnEnd) -> Work:
        """As the port's."""

        def ended(result: Any) -> None:
            quiet = result is None or result == "cancelled"
            on_end(None if quiet else _outcome(result).text)  # type: ignore[union-attr]  # never Done here

        if not self._plan.spec["log_files"]:
            work = Work(on_end)
            work.ended(NO_READING)
            return work
        directory = os.path.join(self._client.directory, LOGS, self._plan.task_id)
        return self._run(read_log(directory, options, on_line, self._grown, self._written), ended)

    # Looking at it

    def look(self, question: Look, done: OnLooked) -> Work:
        """As ``Inspectable.look``."""
        return self._run(self._look(question), lambda result: done(_looked(result)))

    async def _look(self, question: Look) -> Any:
        record = await self._client.call("record", id=self._plan.task_id) if self._client.kept else None
        if record is None or record["state"] != "running":
            raise Refused(Code.FAILED_PRECONDITION, "the task does not run")
        loop = asyncio.get_running_loop()
        match question:
            case Top(arguments):
                return await run_ps(arguments, await loop.run_in_executor(None, usage.members, record))
            case TakeUsage():
                return await loop.run_in_executor(None, usage.take, record)
            case RunCommand():
                return await self._run_command(question, record)
            case SendSignal(number):
                return await self._client.call("signal", id=self._plan.task_id, signal=number)

    async def _run_command(self, question: RunCommand, record: Record) -> Any:
        plan = self._plan
        account = plan.account
        if question.user:
            try:
                account = account_of(question.user, [], None)
            except Rejected as rejected:
                return NotBegun(rejected.text, NOT_RUNNABLE)
        env = {**environment(from_record(record.get("ports", ())), plan.spec["env"]), **plan.spec["env"]}
        env.update(payload_environment(self._payloads, plan))
        if question.user:
            env.update(HOME=account.home, USER=account.name, LOGNAME=account.name)
        if question.tty:
            env.setdefault("TERM", "xterm")
        for entry in question.env:
            name, equals, value = entry.partition("=")
            if equals:
                env[name] = value
            else:
                env.pop(name, None)
        env[TASK_MARK] = plan.task_id
        if "" in env or any("\0" in word for word in (*question.argv, *env, *env.values(), question.directory)):
            return NotBegun("exec failed: a variable without a name, or a zero byte", NOT_RUNNABLE)
        spec = {
            "argv": list(question.argv), "env": env, "cwd": question.directory or plan.spec["cwd"], "tty": question.tty,
            "uid": account.uid, "gid": account.gid, "groups": account.groups,
        }  # fmt: skip
        return await begin(self._client, plan.task_id, spec, account.uid, question)

    # Operations

    def _begin(self, coro: Coroutine[Any, Any, Outcome], done: OnDone) -> Work:
        return self._run(coro, lambda result: done(_outcome(result)))

    def _run(self, coro: Coroutine[Any, Any, Any], finish: Callable[[Any], None]) -> Work:
        work = Work(finish)
        if self._closed:
            coro.close()
            work.ended(Failed(CONTROLLER_CLOSED))
            return work
        self._open = [each for each in self._open if not each.over]
        self._open.append(work)
        work.begin(self._loop, coro)
        return work

    async def _updated(self) -> Outcome:
        return Done()

    async def _prepare(self) -> Outcome:
        record = await self._client.call("record", id=self._plan.task_id)
        return Done() if record is None else Already(self._status(record), self._ports(record))

    async def _start(self) -> Outcome:
        try:
            spec = self._plan.spec
            known = await self._client.call("record", id=self._plan.task_id)
            if known is None:
                added = write_payloads(self._payloads, self._plan, self._context.secret, self._context.config)
                targets = [port.target_port for port in self._plan.ingress]
                given = self._task_ports.assign(
                    self._plan.task_id, targets, {port.published_port for port in self._plan.ingress}
                )
                env = {**environment(given, spec["env"]), **spec["env"], **added}
                spec = {**spec, "env": env, "ports": as_record(given)}
        except (KeyError, Refused, OSError) as error:
            self._clear()
            return Failed(f"starting container failed: {_why(error)}")
        record = await self._client.call("start", spec=spec)
        status = self._status(record)
        if record["error"]:
            self._clear()
            return Failed(f"starting container failed: {record['error']}", record["code"], container_status=status)
        # One that was begun before is watched until it is healthy all the same; the engine lets it pass.
        if self._plan.health is not None and record["state"] == "running":
            return await self._until_healthy()
        ports = self._ports(record)
        return Already(status, ports) if record.get("already") else Done(status, ports)

    async def _wait(self) -> Outcome:
        if self._plan.health is None:
            return self._exit(await self._client.call("wait", id=self._plan.task_id))
        return await self._watched(None)

    async def _stop(self, number: int, grace: float) -> Outcome:
        record = None
        if self._client.kept:
            await self._drain(grace)
            record = await self._client.call("stop", id=self._plan.task_id, signal=int(number), grace=grace)
        self._clear()
        return Done() if record is None else Done(self._status(record))

    async def _drain(self, grace: float) -> None:
        """Gives those who forward connections the time to hear that this task takes no new ones."""
        if self._plan.ingress and grace > 0:
            record = await self._client.call("record", id=self._plan.task_id)
            if record is not None and record["state"] == "running":
                await asyncio.sleep(DRAIN_S)

    def _clear(self) -> None:
        remove_payloads(self._payloads, self._plan.task_id)
        self._task_ports.release(self._plan.task_id)

    async def _remove(self) -> Outcome:
        await self._stop(self._plan.stop_signal, self._plan.grace)
        if self._client.kept:
            await self._client.call("remove", id=self._plan.task_id)
        return Done()

    async def _written(self) -> None:
        try:
            await self._client.call("written", id=self._plan.task_id)
        except (KeeperRefused, KeeperUnavailable):
            return  # an older keeper, or none: what the files hold is what there is

    async def _grown(self, position: Position) -> bool | None:
        ended: bool | None = await self._client.call("grown", id=self._plan.task_id, position=list(position))
        return ended

    # Health

    async def _until_healthy(self) -> Outcome:
        healthy = asyncio.Event()
        return await self._watched(healthy)

    async def _watched(self, healthy: asyncio.Event | None) -> Outcome:
        """Until the task has ended, whose health is watched meanwhile; with ``healthy``, until that is set."""
        assert self._plan.health is not None
        loop = asyncio.get_running_loop()
        seen = healthy or asyncio.Event()
        end = loop.create_task(self._client.call("wait", id=self._plan.task_id))
        rules = HealthRules(self._plan.health)
        sick = loop.create_task(watch_health(rules, self._probe, seen.set, was_healthy=healthy is None))
        well = loop.create_task((healthy or asyncio.Event()).wait())
        tasks = (end, sick, well)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if end.done():
                return self._exit(end.result())
            if well.done():
                record = await self._client.call("record", id=self._plan.task_id)
                return Done() if record is None else Done(self._status(record), self._ports(record))
            sick.result()
            return await self._unhealthy()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _unhealthy(self) -> Outcome:
        plan = self._plan
        record = await self._client.call("stop", id=plan.task_id, signal=plan.stop_signal, grace=plan.grace)
        code = record["code"] if record is not None and record["code"] is not None else 137
        text = f"task: non-zero exit ({code}): dockerexec: unhealthy container"
        return Failed(text, code, container_status=None if record is None else self._status(record))

    async def _probe(self, argv: list[str], seconds: float) -> bool:
        try:
            result = await self._client.call("probe", id=self._plan.task_id, argv=argv, timeout=seconds)
        except KeeperRefused as refused:
            if refused.code == "unknown":  # it has ended: whoever waits for that says so
                await asyncio.Event().wait()
            return False
        return bool(result["code"] == 0)

    # Outcomes

    def _exit(self, record: Record | None) -> Outcome:
        """What an end means; nobody reads the task's secrets any more."""
        self._clear()
        if record is None:
            return Failed("exit code unknown: the task is gone")
        status = self._status(record)
        if record["lost"]:
            return Failed(record["lost"], container_status=status)
        if record["error"]:
            return Failed(f"starting container failed: {record['error']}", record["code"], container_status=status)
        code = record["code"]
        if code:
            return Failed(f"task: non-zero exit ({code})", code, container_status=status)
        return Done(status)

    def _ports(self, record: Record) -> types_pb2.PortStatus:
        """The task's own ports of this host: those published here, and those that connections are forwarded to."""
        status = types_pb2.PortStatus()
        status.CopyFrom(self._plan.ports)
        given = from_record(record.get("ports", ()))
        for port in self._plan.ingress:
            if port.target_port in given:
                added = status.ports.add(protocol=port.protocol, target_port=port.target_port, name=port.name)
                added.published_port = given[port.target_port]
                added.publish_mode = types_pb2.PortConfig.HOST
        return status

    def _status(self, record: Record) -> types_pb2.ContainerStatus:
        running = record["state"] == "running"
        code = 0 if running else record["code"] if record["code"] is not None else UNKNOWN_EXIT
        return types_pb2.ContainerStatus(
            container_id=self._plan.container_id, pid=record["pid"] if running else 0, exit_code=code
        )


def _why(error: Exception) -> str:
    if isinstance(error, Refused):
        return error.text
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}"
    return f"a secret or config is not on this node: {error.args[0]}"
