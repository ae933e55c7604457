"""A supervisor program with a swarm inside: it keeps N copies of a command running, here or on machines that join.

    python examples/embed_supervisor.py 3 python3 -c 'import time; time.sleep(60)'

It prints the copies as they come and go, until interrupted or until SUPERVISOR_SECONDS are over; then everything stops.
"""

import os
import sys
import tempfile
import time

from runtime.wire.pb import control_pb2, specs_pb2, types_pb2
from swarmlet import Node, ProcessExecutor


def service(replicas: int, command: list[str]) -> control_pb2.CreateServiceRequest:
    spec = specs_pb2.ServiceSpec()
    spec.annotations.name = "supervised"
    spec.task.container.image = "host"  # a task is a process of the machine that it is placed on
    spec.task.container.args.extend(command)
    spec.task.restart.condition = types_pb2.RestartPolicy.ANY
    spec.task.restart.delay.seconds = 1
    spec.replicated.replicas = replicas
    return control_pb2.CreateServiceRequest(spec=spec)


def watch(node: Node, seconds: float) -> None:
    shown: dict[str, str] = {}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        tasks = node.control("ListTasks", control_pb2.ListTasksRequest(), control_pb2.ListTasksResponse).tasks
        for task in tasks:
            state = types_pb2.TaskState.Name(task.status.state)
            if shown.get(task.id) != state:
                shown[task.id] = state
                print(f"copy {task.slot}: {state.lower()} {task.status.err}".rstrip(), flush=True)
        time.sleep(0.1)


def main() -> None:
    if len(sys.argv) < 3 or not sys.argv[1].isdigit():
        sys.exit(f"usage: python {sys.argv[0]} COPIES COMMAND [ARGUMENT...]")
    replicas, command = int(sys.argv[1]), sys.argv[2:]
    with tempfile.TemporaryDirectory() as state_dir, Node(state_dir, executor=ProcessExecutor(linger=5.0)) as node:
        node.init()
        print(f"docker -H unix://{node.api_socket} service ls", flush=True)
        node.control("CreateService", service(replicas, command), control_pb2.CreateServiceResponse)
        try:
            watch(node, float(os.environ.get("SUPERVISOR_SECONDS", "inf")))
        except KeyboardInterrupt:
            print("stopping", flush=True)


if __name__ == "__main__":
    main()
