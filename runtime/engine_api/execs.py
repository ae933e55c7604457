"""Commands beside tasks, of this node or of another: made, started once, looked at, forgotten.

Rules owned here: an instance is known by 64 hexadecimal digits; it is started once; what it says waits for a slow
reader up to a bound, beyond which the command itself is held; what nobody reads is dropped and the command goes on.
Ended ones are remembered while there are not too many newer ones. All end with this daemon.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections import deque
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

from runtime.engine_api import frames
from runtime.engine_api.errors import ApiError
from runtime.executor.inspection import NotBegun, RunCommand, Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runtime.engine_api.jsonio import JsonObject
    from runtime.engine_api.questions import Landing

KEPT: Final = 1000
DETACH_KEYS: Final = "ctrl-p,ctrl-q"
HOLD_BYTES: Final = 1 << 20
"""Of output that waits for a reader, at which the command is held; it goes on when half of it is read."""


@dataclasses.dataclass(frozen=True, slots=True)
class ExecConfig:
    """What is asked for."""

    argv: tuple[str, ...]
    env: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    directory: str = ""
    user: str = ""
    tty: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach_keys: str = ""
    size: tuple[int, int] = (0, 0)


class DetachKeys:
    """Looks for keys by which somebody at a terminal leaves a command running: ``ctrl-p,ctrl-q`` unless told otherwise.
    What may be the beginning of them waits for what follows."""

    def __init__(self, keys: str) -> None:
        names = (keys or DETACH_KEYS).split(",")
        self._keys = bytes(ord(name[-1].upper()) ^ 64 if name.startswith("ctrl-") else ord(name) for name in names)
        self._seen = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What goes on to the command, and whether the keys were pressed: nothing behind them counts."""
        data, self._seen = self._seen + data, b""
        at = data.find(self._keys)
        if at >= 0:
            return data[:at], True
        for length in range(min(len(data), len(self._keys) - 1), 0, -1):
            if data.endswith(self._keys[:length]):
                self._seen = data[-length:]
                return data[:-length], False
        return data, False


class Exec:
    """One instance. Lives on the event loop."""

    def __init__(self, container_id: str, config: ExecConfig) -> None:
        self.id = secrets.token_hex(32)
        self.container_id = container_id
        self.config = config
        self.begun = False
        self.running = False
        self.exit_code: int | None = None
        self.pid = 0
        self.session: Session | None = None
        self.ends_with_client = False
        """Whether a client that goes, other than by its keys, ends it."""
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._read = False
        self._held = False
        self._over = False
        self._left = False
        self._filled = asyncio.Event()
        self._decided = asyncio.Event()
        self._keys = DetachKeys(config.detach_keys) if config.tty else None

    def to_json(self) -> JsonObject:
        """As ``GET /exec/{id}/json`` shows it."""
        config = self.config
        return {
            "ID": self.id,
            "Running": self.running,
            "ExitCode": self.exit_code,
            "ProcessConfig": {
                "tty": config.tty,
                "entrypoint": config.argv[0],
                "arguments": list(config.argv[1:]),
                "privileged": False,
                **({"user": config.user} if config.user else {}),
            },
            "OpenStdin": config.stdin,
            "OpenStderr": config.stderr,
            "OpenStdout": config.stdout,
            "CanRemove": False,
            "ContainerID": self.container_id,
            "DetachKeys": config.detach_keys,
            "Pid": self.pid,
        }

    # Starting

    def claim(self) -> None:
        """Whoever calls this is to start it, and nobody else. Raises ApiError 409 where somebody has."""
        if self.begun:
            state = "is already running" if self.running else "has already run"
            raise ApiError(409, f"Error: Exec command {self.id} {state}")
        self.begun = True

    async def start(
        self,
        landing: Landing,
        run: Callable[[RunCommand], Awaitable[Session | NotBegun]],
        detached: bool,
        size: tuple[int, int],
    ) -> NotBegun | None:
        """Has the claimed command begin; what it is refused with, if it cannot. Errors of ``run`` are raised, and it
        may be claimed again then."""
        config, self.running = self.config, True
        self._read = not detached
        shown = {stream for stream, wanted in ((1, config.stdout or config.tty), (2, config.stderr)) if wanted}

        def on_output(stream: int, data: bytes) -> None:
            landing.put(self._came, frames.frame(stream, data) if not config.tty else data)

        question = RunCommand(
            config.argv,
            config.env,
            config.directory,
            config.user,
            config.tty,
            config.stdin and not detached,
            bool(shown) and not detached,
            size if size != (0, 0) else config.size,
            lambda stream, data: on_output(stream, data) if stream in shown else None,
            lambda code: landing.put(self._ended, code),
        )
        try:
            begun = await run(question)
            self.session = None if isinstance(begun, NotBegun) else begun
        except BaseException:
            self.begun = self.running = False
            raise
        finally:
            self._decided.set()
        if isinstance(begun, NotBegun):
            self._came((begun.text + "\r\n").encode() if config.tty else frames.frame(1, f"{begun.text}\r\n".encode()))
            self._ended(begun.code)
            return begun
        self.pid = begun.pid
        return None

    # What it says

    def _came(self, piece: bytes) -> None:
        if not self._read or self._over:
            return
        self._pieces.append(piece)
        self._bytes += len(piece)
        if self._bytes > HOLD_BYTES:
            self._hold(True)
        self._filled.set()

    def _hold(self, held: bool) -> None:
        if held is not self._held and self.session is not None:
            self._held = held
            self.session.hold(held)

    def _ended(self, code: int | None) -> None:
        self.running, self._over = False, True
        self.exit_code = code if code is not None else 137
        self._filled.set()

    async def output(self) -> AsyncGenerator[bytes, None]:
        """All that it says, once, framed unless it has a terminal. Whoever stops reading has the rest dropped."""
        try:
            while True:
                while self._pieces:
                    piece = self._pieces.popleft()
                    self._bytes -= len(piece)
                    if self._bytes < HOLD_BYTES // 2:
                        self._hold(False)
                    yield piece
                if self._over or self._left:
                    return
                self._filled.clear()
                await self._filled.wait()
        finally:
            self._read = False
            self._pieces.clear()
            self._hold(False)
            if self.session is not None:
                self.session.end_input()
                if self.ends_with_client and not self._left:
                    self.session.close()

    async def take(self, data: bytes) -> None:
        """Input, or its end if there is none; returns when the command has taken it."""
        await self._decided.wait()
        if self.session is None or not self.config.stdin:
            return
        if not data:
            self.session.end_input()
            return
        if self._keys is not None:
            data, left = self._keys.feed(data)
            if left:
                self._left = True
                self._filled.set()
        loop = asyncio.get_running_loop()
        taken = loop.create_future()
        self.session.write(data, lambda: _soon(loop, taken))
        await taken


def _soon(loop: asyncio.AbstractEventLoop, taken: asyncio.Future[None]) -> None:
    loop.call_soon_threadsafe(lambda: None if taken.done() else taken.set_result(None))


class Execs:
    """All instances of this daemon."""

    def __init__(self) -> None:
        self._known: dict[str, Exec] = {}

    def make(self, container_id: str, config: ExecConfig) -> Exec:
        """A new one; the oldest that are not running go."""
        made = Exec(container_id, config)
        self._known[made.id] = made
        for old in [each for each in self._known.values() if not each.running][: max(0, len(self._known) - KEPT)]:
            del self._known[old.id]
        return made

    def get(self, exec_id: str) -> Exec | None:
        """The one of that id."""
        return self._known.get(exec_id)

    def of(self, container_id: str) -> list[str]:
        """The ids of those that run beside a container."""
        return [each.id for each in self._known.values() if each.container_id == container_id and each.running]

    def close(self) -> None:
        """Ends all that run."""
        known, self._known = self._known, {}
        for each in known.values():
            if each.session is not None:
                each.session.close()
