"""``swarmlet up COMPOSE-FILE``: a node in this process, a swarm of its own, the file's services in it.

Rules it owns: each compose file has its own state directory, so a second run resumes its swarm; the end always stops
all tasks and says so: Ctrl-C exits 130, SIGTERM 143, ``--for`` 0 if everything had converged and 1 with the reasons if
not.
"""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, Final, TextIO

from google.protobuf.timestamp_pb2 import Timestamp

from runtime.errors import Refused
from runtime.stage import RealClock
from runtime.swarm.process_spec import runs_processes
from runtime.wire.pb import control_pb2, objects_pb2, types_pb2
from swarmlet import compose, deployment, places
from swarmlet.compose_values import ComposeError
from swarmlet.compose_variables import parse_env_file
from swarmlet.convergence import judge, task_name
from swarmlet.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_TERMINATED, StartError
from swarmlet.executors import ContainerExecutor, ExecutorFactory, ProcessExecutor
from swarmlet.node import Node
from swarmlet.options import UpOptions
from swarmlet.up_logs import LogFollower
from swarmlet.up_view import Screen, Snapshot, changes, table

POLL_S: Final = 0.25
READY_S: Final = 60.0
_EXITS: Final = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: EXIT_TERMINATED, signal.SIGHUP: EXIT_TERMINATED}


def run(options: UpOptions, environ: Mapping[str, str], out: TextIO | None = None) -> int:
    """Runs the command to its end; the exit code. Raises StartError."""
    screen = Screen(out or sys.stdout, live=(out or sys.stdout).isatty() and not options.plain)
    stack = read_stack(options, environ)
    screen.say([f"warning: {text}" for text in stack.warnings])
    _refuse_processes(stack, options)
    state = places.up_state(environ, options.file, stack.name)
    signals = Signals()
    with signals:
        node = Node(state, listen=options.listen, executor=make_executor(options), name=stack.name)
        node.start()
        try:
            code = Session(node, stack, screen, signals, options).run(str(options.file))
        finally:
            screen.say(["stopping all tasks"], footer=[])
            node.stop(tasks="stop")
        screen.say([f"all tasks are stopped; the swarm is kept in {state} and goes on with the next run"])
    return code


def _refuse_processes(stack: compose.Stack, options: UpOptions) -> None:
    for spec in stack.services if options.executor != "process" else ():
        if runs_processes(spec.task):
            image, name = spec.task.container.image, spec.annotations.name
            raise StartError(f"{name}: the image {image} is a process; with --executor {options.executor} none can run")


def make_executor(options: UpOptions) -> ExecutorFactory:
    """How the stack's tasks are run."""
    if options.executor == "process":
        return ProcessExecutor(linger=0.0)
    socket = options.engine_socket or None
    return ContainerExecutor(socket, options.executor, local_networks=options.local_networks)


def read_stack(options: UpOptions, environ: Mapping[str, str]) -> compose.Stack:
    """The stack of the compose file. StartError with everything that is wrong with it."""
    path = options.file
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise StartError(f"cannot read {path}: {reason}") from None
    beside = path.resolve().parent
    name = options.name or compose.stack_name(path.resolve())
    try:
        variables, local = _variables(beside, environ), options.local_networks
        return compose.load(text, name, variables, lambda file: _read_beside(beside, file), str(beside), local)
    except ComposeError as error:
        lines = "\n".join(f"  {fault}" for fault in error.faults)
        raise StartError(f"{path} cannot be deployed:\n{lines}") from None


def _variables(beside: Path, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment over the ``.env`` file beside the compose file."""
    file = beside / ".env"
    try:
        found = parse_env_file(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return environ
    except (OSError, ValueError) as error:
        raise StartError(f"cannot read {file}: {error}") from None
    return {**{name: value for name, value in found.items() if value is not None}, **environ}


def _read_beside(beside: Path, file: str) -> bytes:
    return (beside / file).read_bytes()


class Signals:
    """Catches the signals that end the command; restores what was there before. A second one changes nothing: the tasks
    are being stopped, and leaving them behind is what nobody wants."""

    def __init__(self) -> None:
        self.caught: signal.Signals | None = None
        self.happened = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        for number in _EXITS:
            self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.caught is None:
            self.caught = signal.Signals(number)
        self.happened.set()

    @property
    def exit_code(self) -> int:
        """The exit code of the signal that was caught."""
        assert self.caught is not None
        return _EXITS[self.caught]


class Session:
    """One run over a node that is up."""

    def __init__(self, node: Node, stack: compose.Stack, screen: Screen, signals: Signals, options: UpOptions) -> None:
        self.node = node
        self.stack = stack
        self.screen = screen
        self.signals = signals
        self.options = options
        self.trouble = ""
        self._shown: dict[str, str] = {}
        self._names: dict[str, str] = {}
        since = Timestamp()
        since.FromNanoseconds(int(RealClock().now() * 1e9))
        backend = node.assembly.backend
        assert backend is not None
        self._logs = LogFollower(node.assembly.loop, backend, since)

    def run(self, file: str) -> int:
        """Deploys and shows until a signal or the time's end; the exit code."""
        begun = monotonic()
        try:
            self._into_swarm()
            self._pass_over_earlier_runs()
            self.screen.say(self._greeting(file))
            self.screen.say(deployment.deploy(self.node, self.stack))
        except (Refused, TimeoutError) as error:
            text = error.text if isinstance(error, Refused) else str(error)
            self.screen.say([f"error: {text}"], footer=[])
            return self.signals.exit_code if self.signals.caught is not None else EXIT_FAILED
        snapshot: Snapshot | None = None
        try:
            while not self.signals.happened.is_set():
                snapshot = self._look() or snapshot
                left = None if self.options.seconds is None else begun + self.options.seconds - monotonic()
                if left is not None and left <= 0:
                    return self._verdict(snapshot)
                self.signals.happened.wait(POLL_S if left is None else min(POLL_S, left))
        finally:
            self._logs.close()
        self.screen.say([f"caught {self.signals.caught.name}" if self.signals.caught else ""], footer=[])
        return self.signals.exit_code

    def _into_swarm(self) -> None:
        """Founds the swarm of this file, or waits until the node is back in it."""
        if self.node.info().local_node_state == "inactive":
            self.node.init()
        self.node.wait_ready(READY_S)

    def _pass_over_earlier_runs(self) -> None:
        """Tasks that have ended by now are no news."""
        _, self._shown = changes({}, [task for task in self._all_tasks() if task.status.state > types_pb2.RUNNING])

    def _greeting(self, file: str) -> list[str]:
        cluster = self.node.inspect()
        managers = self.node.control("ListNodes", control_pb2.ListNodesRequest(), control_pb2.ListNodesResponse)
        addr = next((each.manager_status.addr for each in managers.nodes if each.HasField("manager_status")), "")
        return [
            f"stack {self.stack.name} from {file}",
            f"reach this swarm:   docker -H unix://{self.node.api_socket} service ls",
            f"see its actors:     swarmlet tree --socket {self.node.introspection_socket}",
            f"add a worker:       docker swarm join --token {cluster.root_ca.join_tokens.worker} {addr}",
        ]

    def _look(self) -> Snapshot | None:
        """Reads the stack's state and shows what is new. None when it cannot be read now; the reason is told once."""
        try:
            services = deployment.stack_services(self.node, self.stack.name)
            tasks = self._tasks(services)
            nodes = self.node.control("ListNodes", control_pb2.ListNodesRequest(), control_pb2.ListNodesResponse).nodes
        except Refused as refused:
            if refused.text != self.trouble:
                self.trouble = refused.text
                self.screen.say([f"the manager does not answer: {refused.text}"])
            return None
        self.trouble = ""
        self._logs.follow(tuple(sorted(service.id for service in services)))
        snapshot = Snapshot(tuple(judge(services, tasks, nodes)), tuple(tasks))
        lines, self._shown = changes(self._shown, tasks)
        self._names.update((task.id, task_name(task)) for task in tasks)
        size = shutil.get_terminal_size()
        self.screen.say([*lines, *self._output()], table(snapshot, size.columns, size.lines))
        return snapshot

    def _tasks(self, services: list[objects_pb2.Service]) -> list[objects_pb2.Task]:
        ids = {service.id for service in services}
        return [task for task in self._all_tasks() if task.service_id in ids]

    def _all_tasks(self) -> list[objects_pb2.Task]:
        answer = self.node.control("ListTasks", control_pb2.ListTasksRequest(), control_pb2.ListTasksResponse)
        return list(answer.tasks)

    def _output(self) -> list[str]:
        lines, trouble = self._logs.take()
        shown = [f"{self._names.get(task_id, task_id[:12])} | {text}" for task_id, text in lines]
        return [*shown, f"output cannot be followed: {trouble}"] if trouble else shown

    def _verdict(self, snapshot: Snapshot | None) -> int:
        """The end of ``--for``: says how it stands, and why not better."""
        if snapshot is None:
            self.screen.say([f"not converged: the manager does not answer: {self.trouble}"], footer=[])
            return EXIT_FAILED
        lines: list[str] = []
        for each in snapshot.services:
            lines.append(
                f"{each.name}: {each.running}/{each.wanted} " + ("converged" if each.converged else "not converged")
            )
            lines.extend(f"  {reason}" for reason in each.reasons)
        missing = len(self.stack.services) - len(snapshot.services)
        if missing:
            lines.append(f"{missing} services of the file are not there")
        self.screen.say(lines, footer=[])
        good = not missing and all(each.converged for each in snapshot.services)
        return EXIT_OK if good else EXIT_FAILED
