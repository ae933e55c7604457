"""The keeper's tasks: started once, stopped, reaped, and nothing of them left behind.

Rules owned here:
1. A task is let into its program only after its record (pid, start time, boot) is synced; nobody hears of a start
   before. Starts of one turn share one sync. A second start of an id answers with the record there is.
2. When a task's first process ends, the rest of its process group, its control group and whatever of it escaped to us
   (we are the subreaper) is killed. The group is killed before the first process is reaped: until then its number
   can't be another's.
3. An exit is written down and told; if the disk refuses, it is told nevertheless and written as soon as it can be.
Imported by the keeper: standard library and msgpack only.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from runtime.executor import procfs, spawn
from runtime.executor.cgroups import Cgroups
from runtime.executor.journal import Journal, Record
from runtime.executor.keeper_commands import Command
from runtime.executor.keeper_output import GrowthWaiter, Output
from runtime.executor.logfile import LogWriter, remove_logs
from runtime.executor.reactor import Reactor, Timer

DRAIN = 2.0  # seconds to wait for the end of output that somebody beyond our reach holds open
RETRY = 1.0
STRAY_WATCH = 5.0
CLEAR_TRIES = 250  # every 20 ms
PROBE_OUTPUT_MAX = 4096
Reply = Callable[[Any], None]


class Refusal(Exception):
    """A call that is not carried out; ``code`` is for programs: temporary, unknown, invalid, version."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Running:
    """A task between its start and its end."""

    __slots__ = (
        "child", "commands", "error", "grace", "kill_timer", "output", "record", "signal", "spec", "starters",
        "waiters",
    )  # fmt: skip

    def __init__(self, record: Record, spec: spawn.Spec, child: spawn.Child) -> None:
        self.record = record
        self.spec = spec
        self.child = child
        self.signal = int(spec["signal"])
        self.grace = float(spec["grace"])
        self.output: Output | None = None
        self.error: tuple[str, int] | None = None
        self.starters: list[Reply] = []
        self.waiters: list[Reply] = []
        self.commands: list[Command] = []
        self.kill_timer: Timer | None = None

    @property
    def begun(self) -> bool:
        """Whether it is known to be in its program."""
        return self.child.error_fd < 0 and self.error is None


class Probe:
    """A command run beside a task, in its surroundings."""

    __slots__ = ("child", "data", "reply", "timed_out", "timer")

    def __init__(self, child: spawn.Child, reply: Reply) -> None:
        self.child = child
        self.data = b""
        self.reply = reply
        self.timed_out = False
        self.timer: Timer | None = None


class Tasks:
    """All of them. ``turn_ended`` has to be called after each turn of the loop."""

    def __init__(
        self, reactor: Reactor, journal: Journal, logs: str, cgroups: Cgroups, boot: str, nofile: tuple[int, int]
    ) -> None:
        self.journal = journal
        self.running: dict[str, Running] = {}
        self.draining: dict[str, Output] = {}
        self.clearing = 0
        self._reactor = reactor
        self._logs = logs
        self._cgroups = cgroups
        self._boot = boot
        self._nofile = nofile
        self._by_pid: dict[int, Running | Probe | Command] = {}
        self._held: list[Running] = []
        self._after_sync: list[Callable[[], None]] = []
        self._retrying = False
        self._scan = False
        self._stray_watch = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing of what ran is left to do."""
        return not self.running and not self.draining and not self.clearing

    def directory(self, task_id: str) -> str:
        """Where a task's log files are."""
        return os.path.join(self._logs, task_id)

    # Calls

    def start(self, spec: spawn.Spec, reply: Reply) -> None:
        """Starts it, unless it was started before. ``reply`` gets the record once it is in its program (or failed to
        get there: ``error`` and ``code``), or a Refusal."""
        task_id = spec["id"]
        running = self.running.get(task_id)
        if running is not None and not running.begun:
            running.starters.append(reply)
        elif task_id in self.journal.records:
            reply({**self.journal.records[task_id], "already": True})
        else:
            self._start(spec).starters.append(reply)

    def stop(self, task_id: str, number: int, grace: float, reply: Reply) -> None:
        """Signals its process group; after ``grace`` seconds kills it. ``reply`` gets the record at its end."""
        running = self.running.get(task_id)
        if running is None:
            reply(self.journal.records.get(task_id))
            return
        running.waiters.append(reply)
        self._stop(running, number, grace)

    def stop_all(self) -> None:
        """Stops each with its own signal and grace period."""
        for running in list(self.running.values()):
            self._stop(running, running.signal, running.grace)

    def wait(self, task_id: str, reply: Reply) -> None:
        """``reply`` gets the record at its end; None if there is no such task."""
        running = self.running.get(task_id)
        if running is None:
            reply(self.journal.records.get(task_id))
        else:
            running.waiters.append(reply)

    def remove(self, task_id: str, reply: Reply) -> None:
        """Kills it and forgets it, with its logs."""
        running = self.running.get(task_id)
        if running is not None:
            running.waiters.append(lambda _: self.remove(task_id, reply))
            self._stop(running, signal.SIGKILL, 0.0)
            return
        output = self.draining.get(task_id)
        if output is not None:
            output.end()
        remove_logs(self.directory(task_id))
        self.journal.drop(task_id)
        self._after_sync.append(lambda: reply(None))

    def grown(self, task_id: str, waiter: GrowthWaiter) -> None:
        """``waiter`` hears when the log is longer than it knows: True if it has ended, None if it has not begun."""
        output = self._output(task_id)
        if output is None:
            waiter.reply(True if task_id in self.journal.records else None)
        else:
            output.grown(waiter)

    def written(self, task_id: str) -> None:
        """What the task has said until now is in its log when this returns."""
        output = self._output(task_id)
        if output is not None:
            output.drain()

    def cancel(self, task_id: str, reply: Reply, waiter: GrowthWaiter | None) -> None:
        """Somebody waits no more."""
        output = self._output(task_id)
        if waiter is not None and output is not None:
            output.forget(waiter)
        running = self.running.get(task_id)
        if running is not None and reply in running.waiters:
            running.waiters.remove(reply)

    def probe(self, task_id: str, argv: list[str], timeout: float, reply: Reply) -> None:
        """Runs a command as the task runs; ``reply`` gets ``code`` (None: not within ``timeout``) and ``output``."""
        running = self.running.get(task_id)
        if running is None:
            raise Refusal("unknown", f"task {task_id} does not run")
        spec = {**running.spec, "argv": argv, "merge": True}
        child = self._spawn(spec)
        probe = Probe(child, reply)
        self._by_pid[child.pid] = probe
        try:
            self._cgroups.enter(running.record["cgroups"], child.pid)
        except OSError as error:
            _complain(f"the probe of {task_id} stays outside of its control group: {error}")
        self._reactor.watch(child.stdout_fd, lambda: self._probe_output(probe))
        probe.timer = self._reactor.after(timeout, lambda: self._probe_late(probe))
        child.go()

    def signal(self, task_id: str, number: int) -> None:
        """Sends a signal to its first process alone."""
        running = self.running.get(task_id)
        if running is None:
            raise Refusal("unknown", f"task {task_id} does not run")
        _kill_process(running.record["pid"], number)

    def run(self, task_id: str, spec: spawn.Spec, fds: list[int], begun: Reply) -> Command:
        """Runs a command beside a task, as that runs but for what ``spec`` has (argv, env, cwd, account, tty)."""
        running = self.running.get(task_id)
        if running is None:
            raise Refusal("unknown", f"task {task_id} does not run")
        whole = {**running.spec, **spec, "fds": fds}
        child = self._spawn(whole)
        command = Command(self._reactor, whole, child, begun)
        self._by_pid[child.pid] = command
        running.commands = [each for each in running.commands if each.code is None]
        running.commands.append(command)
        try:
            self._cgroups.enter(running.record["cgroups"], child.pid)
        except OSError as error:
            command.kill()
            raise Refusal("temporary", f"the task's control group takes no command: {error.strerror}") from error
        child.go()
        return command

    def _output(self, task_id: str) -> Output | None:
        running = self.running.get(task_id)
        return running.output if running is not None else self.draining.get(task_id)

    # Starting

    def _spawn(self, spec: spawn.Spec) -> spawn.Child:
        try:
            return spawn.spawn(spec, self._nofile)
        except OSError as error:
            raise Refusal("temporary", f"no new process: {error.strerror}") from error

    def _start(self, spec: spawn.Spec) -> Running:
        task_id = spec["id"]
        child = self._spawn(spec)
        try:
            cgroups = self._enter(spec, child.pid)
        except OSError as error:
            child.abandon()
            for fd in (child.error_fd, child.stdout_fd, child.stderr_fd):
                os.close(fd)
            raise Refusal("temporary", f"limits cannot be set: {error.strerror}: {error.filename}") from error
        record = {
            "id": task_id, "state": "running", "pid": child.pid, "start": child.start, "boot": self._boot,
            "cgroups": cgroups, "started_ns": time.time_ns(), "code": None, "error": "", "lost": "",
            "ports": spec.get("ports", []),
        }  # fmt: skip
        running = Running(record, spec if spec.get("probes") else _without_env(spec), child)
        writer = LogWriter(self.directory(task_id), int(spec["log_bytes"]), int(spec["log_files"]))
        running.output = Output(
            self._reactor, writer, child.stdout_fd, child.stderr_fd, lambda: self._output_ended(task_id)
        )
        self.running[task_id] = self._by_pid[child.pid] = running
        self._reactor.watch(child.error_fd, lambda: self._started(running))
        self.journal.put(record)
        self._held.append(running)
        return running

    def _enter(self, spec: spawn.Spec, pid: int) -> list[str]:
        if not self._cgroups.available:
            return []
        paths = self._cgroups.create(spec["id"], spec.get("limits", {}))
        try:
            self._cgroups.enter(paths, pid)
        except OSError:
            self._cgroups.remove(paths)
            raise
        return paths

    def _started(self, running: Running) -> None:
        """The error pipe says something, or closed: the program has begun."""
        data = running.child.begun(self._reactor.forget)
        if data:  # it ends now; its starters hear of it then
            running.error = spawn.explain(data, running.spec)
        if data != b"":
            return
        starters, running.starters = running.starters, []
        for reply in starters:
            reply(running.record)

    # Stopping

    def _stop(self, running: Running, number: int, grace: float) -> None:
        if running.kill_timer is not None:
            running.kill_timer.cancel()
        if grace <= 0 or number == signal.SIGKILL:
            self._kill(running)
            return
        _signal_group(running.record["pid"], number)
        running.kill_timer = self._reactor.after(grace, lambda: self._kill(running))

    def _kill(self, running: Running) -> None:
        _signal_group(running.record["pid"], signal.SIGKILL)
        self._kill_members(running.record["cgroups"])

    def _kill_members(self, cgroups: list[str]) -> None:
        for pid in self._cgroups.members(cgroups):
            _kill_process(pid)

    # Reaping

    def reap(self) -> None:
        """Takes every child that has ended."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            known = self._by_pid.pop(ended.si_pid, None)
            if known is not None and not isinstance(known, Command):  # what a command leaves is its task's
                _signal_group(ended.si_pid, signal.SIGKILL)
            os.waitpid(ended.si_pid, 0)
            code = ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status
            if isinstance(known, Running):
                self._ended(known, code)
            elif isinstance(known, Command):
                known.ended(code)
            elif known is not None:
                self._probe_ended(known, code)
            elif time.monotonic() < self._stray_watch:
                self._scan = True

    def _ended(self, running: Running, code: int) -> None:
        self._started(running)
        task_id = running.record["id"]
        text, code = running.error or ("", code)
        for command in running.commands:
            command.kill()
        record = {**running.record, "state": "exited", "code": code, "error": text, "ended_ns": time.time_ns()}
        running.child.abandon()
        if running.kill_timer is not None:
            running.kill_timer.cancel()
        del self.running[task_id]
        if running in self._held:  # killed before it was let go
            self._held.remove(running)
        self.journal.put(record)
        if running.output is not None:
            running.output.drain()  # so that who hears of the end finds all output in the log
        if running.output is not None and not running.output.ended:
            self.draining[task_id] = running.output
            self._reactor.after(DRAIN, running.output.end)
        self._clear(record["cgroups"], tries=CLEAR_TRIES)
        replies = running.starters + running.waiters
        self._after_sync.append(lambda: _tell(replies, record))

    def _clear(self, cgroups: list[str], tries: int) -> None:
        """Kills what is left of a task in its control groups and removes them; without any, looks for strays."""
        if not cgroups:
            self._scan = True
            self._stray_watch = time.monotonic() + STRAY_WATCH
            return
        self._kill_members(cgroups)
        if self._cgroups.remove(cgroups):
            return
        if tries == 0:
            _complain(f"{cgroups[0]} cannot be removed: there are processes in it that do not end")
            return
        self.clearing += 1
        self._reactor.after(0.02, lambda: self._clear_again(cgroups, tries - 1))

    def _clear_again(self, cgroups: list[str], tries: int) -> None:
        self.clearing -= 1
        self._clear(cgroups, tries)

    def _output_ended(self, task_id: str) -> None:
        self.draining.pop(task_id, None)

    def kill_strays(self, everything: bool = False) -> None:
        """Kills what came to us as the subreaper and belongs to no task that runs (``everything``: to any)."""
        sessions = {running.record["pid"]: task_id for task_id, running in self.running.items()}
        for pid in procfs.children(os.getpid()):
            if pid in self._by_pid and not everything:
                continue
            owner = procfs.task_of(pid) or sessions.get(procfs.session(pid), "")
            if everything or (owner and owner not in self.running):
                _kill_process(pid)

    # Probes

    def _probe_output(self, probe: Probe) -> None:
        try:
            data = os.read(probe.child.stdout_fd, 65536)
        except BlockingIOError:
            return
        probe.data = (probe.data + data)[:PROBE_OUTPUT_MAX]
        if not data:
            self._reactor.forget(probe.child.stdout_fd)
            os.close(probe.child.stdout_fd)
            probe.child.stdout_fd = -1

    def _probe_late(self, probe: Probe) -> None:
        probe.timed_out = True
        _signal_group(probe.child.pid, signal.SIGKILL)

    def _probe_ended(self, probe: Probe, code: int) -> None:
        if probe.child.stdout_fd >= 0:
            self._probe_output(probe)
        if probe.child.stdout_fd >= 0:
            self._reactor.forget(probe.child.stdout_fd)
            os.close(probe.child.stdout_fd)
        os.close(probe.child.error_fd)
        if probe.timer is not None:
            probe.timer.cancel()
        probe.reply({"code": None if probe.timed_out else code, "output": probe.data})

    # Turns

    def turn_ended(self) -> None:
        """Syncs what the turn has written, lets go who waited for it, and answers."""
        if self._held or self._after_sync:
            self._sync()
        if self._scan:
            self._scan = False
            self.kill_strays()

    def _sync(self) -> None:
        held, self._held = self._held, []
        try:
            self.journal.sync()
        except OSError as error:
            self._not_synced(held, error)
        else:
            for running in held:
                running.child.go()
        # Answers may make new ones (a removal that waited for an end); those wait for the next turn.
        answers, self._after_sync = self._after_sync, []
        for answer in answers:
            answer()
        if self._after_sync or self._held:
            self._reactor.after(0.0, lambda: None)

    def _not_synced(self, held: list[Running], error: OSError) -> None:
        for running in held:
            task_id = running.record["id"]
            self.journal.revert(task_id)
            del self.running[task_id]
            del self._by_pid[running.record["pid"]]
            self._abandon(running)
            for reply in running.starters + running.waiters:
                reply(Refusal("temporary", f"the start cannot be written down: {error.strerror}"))
        if self.journal.dirty and not self._retrying:
            self._retrying = True
            self._reactor.after(RETRY, self._retry)

    def _abandon(self, running: Running) -> None:
        child = running.child
        child.abandon()
        child.close_errors(self._reactor.forget)
        if running.output is not None:
            running.output.end()
            remove_logs(self.directory(running.record["id"]))
        self._clear(running.record["cgroups"], tries=CLEAR_TRIES)

    def _retry(self) -> None:
        self._retrying = False
        self._after_sync.append(lambda: None)


def _tell(replies: list[Reply], record: Record) -> None:
    for reply in replies:
        reply(record)


def _without_env(spec: spawn.Spec) -> spawn.Spec:
    return {key: value for key, value in spec.items() if key != "env"}


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        _kill_process(pid, number)  # it has not made its group yet, or is gone
    except PermissionError as error:
        _complain(f"process group {pid} cannot be signalled: {error}")


def _kill_process(pid: int, number: int = signal.SIGKILL) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        _complain(f"process {pid} cannot be signalled: {error}")


def _complain(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n")
