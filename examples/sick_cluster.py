"""A swarm that is ill in every way at once, and the one command that answers each question about it.

    python examples/sick_cluster.py [--pictures DIR] [--stay]

Three managers live in this process, with a stuck actor, an actor that waits for it, a crash loop, a follower that does
not follow, a slow disk, a task that fits nowhere and an agent that is not told anything. Each command runs as a program
of its own, as an engineer would type it, and has ten seconds. ``--pictures`` saves the console's pages as SVG.
"""

import argparse
import asyncio
import contextlib
import html
import logging
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.introspection.client import Link
from runtime.stage import Actor, Address, Answer, Policy, handles
from runtime.wire.pb import control_pb2, specs_pb2
from swarmlet import Node, ProcessExecutor

LIMIT_S = 10.0
FOLLOWER = "/cluster/node/manager/raft"
SESSION = "/cluster/node/agent/session"
LOG = "/cluster/node/manager/raft/log"


class Stuck(Actor):
    """Waits for something that does not come, as no actor may."""

    policy = Policy(own_thread=True)

    def __init__(self, go_on: threading.Event) -> None:
        super().__init__()
        self.go_on = go_on

    @handles(str)
    def order(self, message: str) -> str:
        self.go_on.wait(600)
        return message


class Waits(Actor):
    """Asks the stuck one."""

    def __init__(self, other: Address) -> None:
        super().__init__()
        self.other = other

    def started(self) -> None:
        self.ask(self.other, "an order", self._answered, 600.0)

    def _answered(self, answer: Answer) -> None:
        return None


class Crashes(Actor):
    """Fails over whatever it is told, and tells itself again."""

    policy = Policy(max_restarts=10_000)

    def started(self) -> None:
        self.after(0.2, 7)

    @handles(int)
    def count(self, message: int) -> float:
        return message / 0


class SlowDatabase:
    """A database whose writes take their time."""

    def __init__(self, inner: Any, seconds: float) -> None:
        self._inner = inner
        self._seconds = seconds

    def write(self, *arguments: Any, **details: Any) -> Any:
        """As the one within, later."""
        time.sleep(self._seconds)
        return self._inner.write(*arguments, **details)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Patient:
    """The three nodes. The last of the managers is the follower that does not follow."""

    def __init__(self, nodes: list[Node]) -> None:
        self.leader, self.second, self.third = nodes
        self.go_on = threading.Event()
        self._links: list[Link] = []

    def fall_ill(self) -> None:
        """All of it."""
        stuck = self.leader.mount("stuck", Stuck, self.go_on)
        for text in ("one", "two", "three"):
            stuck.tell(text)
        self.leader.mount("waits", Waits, stuck)
        self.leader.mount("crashes", Crashes)
        self.create("picky", 2, "node.labels.rack==7")
        self.create("web", 3)
        self.suspend(self.third, FOLLOWER)
        self.suspend(self.leader, SESSION)
        log: Any = self.leader.stage.cells[LOG].instance
        log.log._db = SlowDatabase(log.log._db, 0.15)
        for number in range(3):
            self.create(f"later{number}", 0)

    def suspend(self, node: Node, path: str) -> None:
        """Holds an actor's messages back, as ``swarmlet actor --suspend`` does, for as long as this is open."""
        link = Link(node.introspection_socket)
        self._links.append(link)
        link.ask("act", act="suspend", path=path, seconds=300, write=True)

    def create(self, name: str, replicas: int, *constraints: str) -> None:
        """A service of processes that sleep."""
        spec = specs_pb2.ServiceSpec()
        spec.annotations.name = name
        spec.task.container.image = "host"
        spec.task.container.args.extend(("sleep", "1000"))
        spec.task.placement.constraints.extend(constraints)
        spec.replicated.replicas = replicas
        self.leader.control(
            "CreateService", control_pb2.CreateServiceRequest(spec=spec), control_pb2.CreateServiceResponse
        )

    def recover(self) -> None:
        """Lets everything go on."""
        self.go_on.set()
        for link in self._links:
            link.close()


@dataclass(frozen=True)
class Question:
    """``shows`` is what has to be in the answer, ``of`` who is asked (the leader, if nobody is named); ``meanwhile``
    happens while the command runs."""

    text: str
    command: list[str]
    shows: tuple[str, ...]
    meanwhile: Callable[[], None] = lambda: None
    of: Node | None = None


def questions(patient: Patient) -> list[Question]:
    """The eight, one about the disk, and two of managers that do not lead: of whom one does not follow either."""
    worker = patient.second.info().node_id
    return [
        Question(
            "Which actor is behind, since when, on what message?", ["top", "--window", "1"], ("/stuck", "str for")
        ),
        Question("What crashed, how often, with which message?", ["crashes"], ("/crashes", "int", "ZeroDivisionError")),
        Question("Why is this task not running, and who would act next?", ["explain", "picky"], ("scheduler", "rack")),
        Question("Is there a leader, who follows, how far behind?", ["raft"], ("leader", "LAG", "in term")),
        Question(
            "What happened to this request, step by step?",
            ["trace", "--type", "Control", "--follow", "--sequence", "--seconds", "6", "--count", "25"],
            ("control", "store", "Write", "Propose", "Append"),
            lambda: patient.create("asked", 0),
        ),
        Question("What does the agent believe, what the manager?", ["beliefs"], ("different minds", "not told of it")),
        Question("Who waits for whom?", ["waits"], ("/waits", "/stuck")),
        Question("What would happen without this node?", ["plan", "node", "rm", worker], ("would move",)),
        Question("Is the disk slow?", ["actor", LOG], ("Append", "BUSY P50")),
        Question("Why, of a follower?", ["explain", "picky"], ("scheduler", "rack", "leader's node, m1"),
                 of=patient.second),
        Question("Is that follower to be believed?", ["raft"], ("MAY BE OLD", f"{FOLLOWER}: suspended"),
                 of=patient.third),
    ]  # fmt: skip


def answer(patient: Patient, question: Question, within: float) -> tuple[str, float]:
    """The command's output, and how long it took; TimeoutExpired beyond the limit."""
    socket = (question.of or patient.leader).introspection_socket
    command = [sys.executable, "-m", "swarmlet", *question.command, "--socket", socket]
    begun = time.monotonic()
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603
    try:
        if "trace" in question.command:
            while patient.leader.stage.tracer is None and running.poll() is None:
                time.sleep(0.05)
        question.meanwhile()
        output, _ = running.communicate(timeout=within - (time.monotonic() - begun))
    finally:
        running.kill()
        running.wait()
    return output, time.monotonic() - begun


def ask_all(patient: Patient, within: float) -> list[str]:
    """Prints question, command, answer and seconds; what was not answered."""
    missing = []
    for question in questions(patient):
        output, seconds = answer(patient, question, within)
        print(f"\n== {question.text}\n$ swarmlet {' '.join(question.command)}    ({seconds:.1f} s)\n{output.rstrip()}")
        missing += [f"{question.command[0]}: {text!r}" for text in question.shows if text not in output]
    return missing


# A page for each question: its name, what it is about, the keys that make it say so, and what it then says.
PAGES = (
    ("tree", "", ("s", "s", "s", "S"), "suspended"), ("crashes", "", (), "ZeroDivisionError"),
    ("waiting", "", (), "no suitable node"), ("explain", "picky", (), "no node has the label rack"),
    ("raft", "", (), "replicate"), ("trace", "/cluster/node/manager/store", ("d",), "Commits "),
    ("beliefs", "", (), "of different minds"), ("waits", "", (), "/stuck"),
    ("plan", "m2", (), "if node m2 were removed"), ("actor", LOG, (), "Append"),
)  # fmt: skip
PICTURE_S = 30.0


def at_home(svg: str) -> str:
    """A picture that fetches no font from elsewhere when somebody looks at it."""
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def on_picture(svg: str) -> str:
    """The text of a picture."""
    return html.unescape(svg).replace("\xa0", " ")


def save_pictures(patient: Patient, directory: Path) -> None:
    """The console's pages as SVG files."""
    from swarmlet.console.app import Console
    from swarmlet.console.pages import JUMPS
    from swarmlet.console.source import Source

    async def show() -> None:
        app = Console(Source(patient.leader.introspection_socket, patient.leader.api_socket))
        async with app.run_test(size=(110, 30)) as pilot:
            for name, subject, keys, text in PAGES:
                app.open(JUMPS[name](subject))
                for _ in range(100):
                    await pilot.pause(0.05)
                    if app._fetched is not None:
                        break
                if name == "trace":
                    while patient.leader.stage.tracer is None:
                        await pilot.pause(0.05)
                    await asyncio.to_thread(patient.create, "drawn", 0)
                await pilot.press(*keys)
                await pilot.pause(2.2)  # two refreshes: what is counted over a window is there
                limit = time.monotonic() + PICTURE_S
                while text not in on_picture(app.export_screenshot()) and time.monotonic() < limit:
                    await pilot.pause(0.5)
                (directory / f"console-{name}.svg").write_text(at_home(app.export_screenshot()), encoding="utf-8")

    asyncio.run(show())


@contextlib.contextmanager
def patients() -> Iterator[Patient]:
    """Three managers, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="sick-") as root, contextlib.ExitStack() as stack:
        nodes = []
        for name in ("m1", "m2", "m3"):
            executor = ProcessExecutor(linger=5.0)
            state, run = Path(root) / name / "state", Path(root) / name / "run"
            state.parent.mkdir(mode=0o700)
            nodes.append(stack.enter_context(Node(state, run_dir=run, executor=executor, name=name, hostname=name)))
        first = nodes[0]
        first.init()
        for other in nodes[1:]:
            other.join(first.info().remote_managers[0].addr, token=first.join_token("manager"))
            other.wait_ready(60)
        patient = Patient(nodes)
        stack.callback(patient.recover)
        patient.fall_ill()
        yield patient


def main() -> int:
    """All questions; 1 if one of them was not answered."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    parser.add_argument("--within", type=float, default=LIMIT_S, metavar="SECONDS", help="for each answer")
    parser.add_argument("--stay", action="store_true", help="until Ctrl-C, to look around")
    typed = parser.parse_args()
    logging.getLogger("swarmlet").addHandler(logging.NullHandler())  # what fails here is asked for, not logged
    with patients() as patient:
        missing = ask_all(patient, typed.within)
        if typed.pictures is not None:
            typed.pictures.mkdir(parents=True, exist_ok=True)
            save_pictures(patient, typed.pictures)
        if typed.stay:
            print(f"\nswarmlet console --socket {patient.leader.introspection_socket}", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    print(f"\nnot in the answers: {', '.join(missing)}" if missing else "\nevery question was answered")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
