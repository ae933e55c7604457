"""A host application with a swarm inside: its tasks are actors of its own, and their number follows a queue."""
import tempfile
import time

from runtime.executor.memory import MemoryExecutor
from runtime.wire.pb import control_pb2 as pb
from swarmlet import Actor, GivenExecutor, Node, handles


class Queue(Actor):  # jobs that wait: "take" hands one out, every question is answered with how many are left
    left = 60

    @handles(str)
    def asked(self, what):
        self.left -= what == "take" and self.left > 0
        return self.left


class Worker(Actor):  # what a task is here: it takes ten jobs a second
    def started(self):
        self.every(0.1, "work")

    @handles(str)
    def work(self, message):
        self.tell(queue, "take")


class Workers(MemoryExecutor):  # the host's own executor: to start a task is to mount a worker in the node's tree
    def __init__(self, place):
        super().__init__(lambda delay, call: place.loop.call_soon(lambda: place.loop.loop.call_later(delay, call)))

    def launch(self, task):
        if task.id not in self.tasks:
            node.mount(f"worker_{task.id}", Worker)
        return super().launch(task)

    def stop(self, task, *, kill):
        if node.running and (worker := node.stage.cells.get(f"/worker_{task.id}")) is not None:
            worker.request_stop()
        super().stop(task, kill=kill)


def scale(service, replicas):  # the autoscaling hook
    service = node.control("GetService", pb.GetServiceRequest(service_id=service.id), pb.GetServiceResponse).service
    if service.spec.replicated.replicas != replicas:
        service.spec.replicated.replicas = replicas
        change = pb.UpdateServiceRequest(service_id=service.id, service_version=service.meta.version, spec=service.spec)
        node.control("UpdateService", change, pb.UpdateServiceResponse)


with tempfile.TemporaryDirectory() as root, Node(root + "/n", executor=GivenExecutor(Workers), on_event=print) as node:
    node.init()
    queue, new = node.mount("queue", Queue), pb.CreateServiceRequest()
    new.spec.annotations.name, new.spec.task.container.image, new.spec.replicated.replicas = "workers", "host", 1
    service = node.control("CreateService", new, pb.CreateServiceResponse).service
    while depth := queue.ask("depth").result(5):
        scale(service, min(8, 1 + depth // 10))
        time.sleep(0.2)
    print(f"all jobs are done; {len(node.introspect('tree')['actors'])} actors", flush=True)
