"""A service of actors: placed over a swarm, failed over when their node is cut off, asked where they are.

    python examples/actor_service.py            # five nodes under virtual time, in a blink
    python examples/actor_service.py real DIR   # one real node: docker -H unix://... service ls, logs, scale
"""
import sys

from swarmlet import Actor, ActorExecutor, MixedExecutor, Node, TestCluster, handles


class Counter(Actor):  # a task: made with its place, which says who it is and carries what it says
    def __init__(self, place):
        super().__init__()
        self.place, self.count = place, int(place.env.get("FROM", "0"))

    def started(self):
        self.place.log(f"{self.place.service}.{self.place.slot} counts on {self.place.node} from {self.count}")
        self.every(1.0, "tick")

    @handles(str)
    def told(self, what):
        self.count += what == "tick"
        if what == "fail":
            raise RuntimeError("told to fail")  # the task's failure: the swarm starts another one
        return self.count


ACTORS = {"counter": Counter}  # the image actor/counter; nothing that is not named here can run


def counters(c):
    """Where the actors are: every node has its own below /tasks."""
    found = {}
    for host in c.swarm.hosts:
        for path in sorted(host.stage.cells):
            if path.startswith("/tasks/"):
                found.setdefault(host.name, []).append((path.split(".")[1], host.stage.at(path)))
    return found


def simulated():
    with TestCluster(managers=1, workers=4, seed=7, actors=ACTORS) as c:
        service = c.create_service("counter", 4, image="actor/counter", constraints=["node.role==worker"])
        c.wait_running(service, 4)
        c.advance(10)
        for node, actors in counters(c).items():
            print(node, {slot: c.swarm.simulator.ask(at, "?") for slot, at in actors})
        c.partition({"worker-1"})  # it is taken for down, and its actor is started elsewhere; there it counts on
        c.advance(40)
        c.wait_running(service, 4)
        print("cut off:", {node: sorted(slot for slot, _ in actors) for node, actors in counters(c).items()})
        c.heal()
        c.run_until(lambda: "worker-1" not in counters(c))  # told that its task is to end
        print("healed: ", {node: sorted(slot for slot, _ in actors) for node, actors in counters(c).items()})
        counters(c)["worker-2"][0][1].tell("fail")
        c.advance(2)
        c.wait_running(service, 4)
        print("\n".join(sorted(task.status.err for task in c.tasks(service) if task.status.err)))


def real(directory):
    with Node(directory, executor=MixedExecutor(ActorExecutor(ACTORS))) as node:
        if node.info().local_node_state == "inactive":
            node.init()
        docker = f"docker -H unix://{node.api_socket} service"
        print(f"{docker} create --name counter --replicas 3 --env FROM=100 actor/counter\n{docker} logs -f counter")
        input("Enter ends it.\n")


if __name__ == "__main__":
    real(sys.argv[2]) if sys.argv[1:2] == ["real"] else simulated()
