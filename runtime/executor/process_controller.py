"""One process task, as its agent drives it: the port's Controller over the keeper.

Every operation is a coroutine on the I/O loop; its outcome is told once. Texts are those that people know from a
container engine (``task: non-zero exit (3)``, ``starting container failed: ...``).
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from runtime.errors import Code, Refused
from runtime.executor import usage
from runtime.executor.accounts import account_of
from runtime.executor.coroutine_controller import DRAIN_S, CoroutineController, not_running, why_not_given
from runtime.executor.health import HealthRules, watch_health
from runtime.executor.inspection import Look, NotBegun, RunCommand, SendSignal, TakeUsage, Top
from runtime.executor.journal import Record
from runtime.executor.keeper import KNOWS_NO, LOGS
from runtime.executor.keeper_client import KeeperClient, KeeperRefused, KeeperUnavailable
from runtime.executor.log_reading import read_log
from runtime.executor.logfile import Position
from runtime.executor.payload_files import payload_environment, remove_payloads, write_payloads
from runtime.executor.port import (
    Already,
    Done,
    Failed,
    LogOptions,
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
from runtime.wire.pb import types_pb2

NO_READING = "configured logging driver does not support reading"
NOT_RUNNABLE = 126
UNKNOWN_EXIT = -1  # a container status's exit code where nobody knows it


class ProcessController(CoroutineController):
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
        super().__init__(loop)
        self._client = client
        self._plan = plan
        self._context = context
        self._payloads = payloads
        self._task_ports = ports or TaskPorts()

    # The port

    def logs(self, options: LogOptions, on_line: OnLine, on_end: OnEnd) -> Work:
        """As the port's."""
        if not self._plan.spec["log_files"]:
            work = Work(on_end)
            work.ended(NO_READING)
            return work
        directory = os.path.join(self._client.directory, LOGS, self._plan.task_id)
        return self._read(read_log(directory, options, on_line, self._grown, self._written), on_end)

    @staticmethod
    def own_failure(error: Any) -> Failed | None:
        """As the base's."""
        if isinstance(error, KeeperUnavailable):
            return Failed(str(error), temporary=True)
        return Failed(error.text, temporary=error.code == "temporary") if isinstance(error, KeeperRefused) else None

    @staticmethod
    def own_refusal(error: Any) -> Refused | None:
        """As the base's."""
        if isinstance(error, KeeperUnavailable):
            return Refused(Code.UNAVAILABLE, str(error))
        if not isinstance(error, KeeperRefused):
            return None
        if error.text.startswith(KNOWS_NO):
            text = f"{error.text}: it is of an older version, and stays while its tasks run"
            return Refused(Code.UNIMPLEMENTED, text)
        return Refused(Code.FAILED_PRECONDITION if error.code == "unknown" else Code.UNAVAILABLE, error.text)

    # Looking at it

    async def _look(self, question: Look) -> Any:
        record = await self._client.call("record", id=self._plan.task_id) if self._client.kept else None
        if record is None or record["state"] != "running":
            raise not_running()
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
            return Failed(f"starting container failed: {why_not_given(error)}")
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

    async def _shutdown(self) -> Outcome:
        return await self._stop(self._plan.stop_signal, self._plan.grace)

    async def _terminate(self) -> Outcome:
        return await self._stop(signal.SIGKILL, 0.0)

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
        await self._shutdown()
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
