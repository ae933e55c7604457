"""The daemon's side of the keeper: finds it or starts it, and asks again whatever was under way when it is lost.

Every call of the keeper may be repeated (a start is idempotent, a wait answers again), so a caller sees nothing of a
keeper that died but the fate of its tasks. Runs on one asyncio loop; nothing here may be called from another thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgpack

import runtime
from runtime.executor.frames import VERSION, BrokenFrame, Decoder, encode
from runtime.executor.journal import Record
from runtime.executor.keeper import JOURNAL, SOCKET, read_place
from runtime.executor.procfs import OPEN_FILES_MARK, TASK_MARK

LOSSES_MAX = 5  # in a row, each within a second of its start
KEEPER_LOG = "keeper.log"
KEEPER_LOG_MAX = 1 << 20
SOCKET_PATH_MAX = 107


class Clock(Protocol):
    """The part of a node's clock that is needed here."""

    def monotonic(self) -> float:
        """Seconds."""


class KeeperUnavailable(Exception):
    """There is no keeper and none can be started; trying again later may help."""


class KeeperRefused(Exception):
    """The keeper's refusal of a call."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class _Lost(Exception):
    """The connection ended before the answer."""


class _Link:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self.lost = False
        self._task = asyncio.get_running_loop().create_task(self._receive())

    async def call(self, method: str, arguments: dict[str, Any]) -> Any:
        """One call; _Lost, KeeperRefused. If cancelled, the keeper is told to forget it."""
        if self.lost:
            raise _Lost
        self._number += 1
        number = self._number
        future = self._calls[number] = asyncio.get_running_loop().create_future()
        self._writer.write(encode([number, method, arguments]))
        try:
            return await future
        finally:
            if self._calls.pop(number, None) is not None and not self.lost:
                self._number += 1
                self._writer.write(encode([self._number, "cancel", {"call": number}]))

    async def close(self) -> None:
        """Ends the connection; what is under way is lost."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._end()

    async def _receive(self) -> None:
        decoder = Decoder()
        try:
            while data := await self._reader.read(256 << 10):
                for number, good, result in decoder.feed(data):
                    future = self._calls.pop(number, None)
                    if future is not None and not future.done():
                        _settle(future, good, result)
        except (OSError, BrokenFrame, ValueError):
            pass  # an end like any other: the calls under way hear of it
        finally:
            self._end()

    def _end(self) -> None:
        self.lost = True
        calls, self._calls = self._calls, {}
        for future in calls.values():
            if not future.done():
                future.set_exception(_Lost())
        self._writer.close()


class CommandLine:
    """A connection to the keeper over which descriptors go along; what was run over it ends with it."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._decoder = Decoder()
        self._number = 0

    async def connect(self, path: str) -> None:
        """OSError if nobody of ours listens there."""
        await asyncio.get_running_loop().sock_connect(self._peer, path)
        if _peer_user(self._peer) not in (0, os.geteuid()):
            raise PermissionError(1, "somebody else listens there", path)

    async def call(self, method: str, fds: Sequence[int] = (), /, **arguments: Any) -> Any:
        """One call at a time. KeeperRefused, OSError if the keeper is gone."""
        loop = asyncio.get_running_loop()
        self._number += 1
        frame = encode([self._number, method, arguments])
        sent = socket.send_fds(self._peer, [frame], fds) if fds else 0
        await loop.sock_sendall(self._peer, frame[sent:])
        while data := await loop.sock_recv(self._peer, 64 << 10):
            for _, good, result in self._decoder.feed(data):
                if not good:
                    raise KeeperRefused(result["code"], result["text"])
                return result
        raise ConnectionResetError("the keeper is gone")

    @property
    def number(self) -> int:
        """The number of the newest call."""
        return self._number

    def close(self) -> None:
        """Ends the connection; again is nothing."""
        self._peer.close()


def _settle(future: asyncio.Future[Any], good: bool, result: Any) -> None:
    if good:
        future.set_result(result)
    else:
        future.set_exception(KeeperRefused(result["code"], result["text"]))


class KeeperClient:
    """``on_records`` hears all the keeper's records after each connect, ``linger`` is told to it."""

    def __init__(
        self,
        directory: str,
        run_dir: str,
        linger: float | None,
        clock: Clock,
        on_records: Callable[[list[Record]], None],
    ) -> None:
        self.directory = os.path.realpath(directory)
        self._run_dir = os.path.realpath(run_dir)
        self._socket = os.path.join(self._run_dir, SOCKET)
        self._linger = linger
        self._clock = clock
        self._on_records = on_records
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()
        self._closed = False

    @property
    def kept(self) -> bool:
        """Whether a keeper has ever had anything to do for this directory."""
        return os.path.exists(os.path.join(self.directory, JOURNAL))

    async def call(self, method: str, **arguments: Any) -> Any:
        """The keeper's answer. KeeperUnavailable, KeeperRefused."""
        losses = 0
        while losses < LOSSES_MAX:
            link = await self._connected()
            began = self._clock.monotonic()
            try:
                return await link.call(method, arguments)
            except _Lost:
                losses = losses + 1 if self._clock.monotonic() - began < 1.0 else 1
                await asyncio.sleep(0.05 * losses)
        raise KeeperUnavailable(f"the keeper of {self.directory} ended {losses} times in a row")

    async def line(self) -> CommandLine:
        """A connection of its own to the keeper that is there, for one command. KeeperUnavailable, KeeperRefused."""
        await self._connected()
        for path in self._places():
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            line = CommandLine(peer)
            try:
                await line.connect(path)
                await line.call("hello", version=VERSION, directory=self.directory, linger=self._linger)
            except OSError:
                line.close()
                continue
            except BaseException:
                line.close()
                raise
            return line
        raise KeeperUnavailable(f"the keeper of {self.directory} cannot be reached")

    async def close(self) -> None:
        """Lets go of the keeper: its tasks linger."""
        self._closed = True
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _connected(self) -> _Link:
        async with self._connecting:
            self._refuse_if_closed()
            if self._link is None or self._link.lost:
                link = await self._connect()
                try:
                    self._refuse_if_closed()  # as it may be by now
                except KeeperUnavailable:
                    await link.close()
                    raise
                self._link = link
            return self._link

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise KeeperUnavailable("the executor is closed")

    async def _connect(self) -> _Link:
        if len(os.fsencode(self._socket)) > SOCKET_PATH_MAX:
            raise KeeperUnavailable(f"{self._socket} is too long for a socket; choose a shorter run directory")
        for launches in range(3):
            for path in self._places():
                try:
                    return await self._greet(*await asyncio.open_unix_connection(path))
                except (FileNotFoundError, ConnectionError, _Lost):
                    continue
            await self._launch(launches)
        raise KeeperUnavailable(f"a keeper for {self.directory} was started but cannot be reached")

    def _places(self) -> list[str]:
        """Where the directory's keeper may listen: below our run directory, or below that of the daemon which started
        it."""
        other = read_place(self.directory)[1]
        return [self._socket, *([other] if other not in ("", self._socket) else [])]

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Link:
        if _owner(writer) not in (0, os.geteuid()):
            writer.close()
            raise KeeperUnavailable(f"{writer.get_extra_info('peername')} belongs to another user")
        link = _Link(reader, writer)
        hello = {"version": VERSION, "directory": self.directory, "linger": self._linger}
        try:
            told = await link.call("hello", hello)
        except KeeperRefused as refused:
            await link.close()
            raise KeeperUnavailable(refused.text) from refused
        self._on_records(told["records"])
        return link

    async def _launch(self, launches: int) -> None:
        loop = asyncio.get_running_loop()
        status = await loop.run_in_executor(None, launch, self.directory, self._run_dir)
        if status != "ready" and launches:
            raise KeeperUnavailable(f"no keeper can be started: {status or 'it ended at once'}")


def _owner(writer: asyncio.StreamWriter) -> int:
    """The user whose process listens at the other end."""
    return _peer_user(writer.get_extra_info("socket"))


def _peer_user(peer: Any) -> int:
    return int(struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


def launch(directory: str, run_dir: str) -> str:
    """Starts a keeper and waits until it listens: ``ready``, or what is wrong. Blocks for some ten milliseconds."""
    os.makedirs(directory, 0o700, exist_ok=True)
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        with _keeper_log(directory) as log:
            process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                # Without ``site``: it starts faster and smaller, and finds the very packages that we have.
                [sys.executable, "-S", "-s", "-m", "runtime.executor.keeper", directory, run_dir, str(write)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(write,), start_new_session=True, cwd="/",
                env=_environment(),
            )  # fmt: skip
    finally:
        os.close(write)
    try:
        process.wait()
        with os.fdopen(read, "rb") as status:
            return status.read().decode("utf-8", "replace")
    except OSError as error:
        return str(error)


def _keeper_log(directory: str) -> Any:
    path = os.path.join(directory, KEEPER_LOG)
    too_long = os.path.exists(path) and os.path.getsize(path) > KEEPER_LOG_MAX
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb" if too_long else "ab", buffering=0)


def _environment() -> dict[str, str]:
    """Nothing of the host's environment but where to find programs and modules, and whose task we are ourselves."""
    places = [Path(next(iter(runtime.__path__))).parent, Path(msgpack.__file__).parents[1]]
    kept = {name: os.environ[name] for name in ("PATH", TASK_MARK, OPEN_FILES_MARK) if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(str(place) for place in places)}
