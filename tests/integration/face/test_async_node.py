"""The same node for asyncio: the host's loop goes on, and nothing of the node is left on it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import Refused
from runtime.stage import Actor, AskTimeout, handles
from runtime.wire.pb import control_pb2
from swarmlet import AsyncNode, StartError
from tests.integration.face.worlds import NOTHING, Machine, Traces


def make(tmp_path: Path) -> AsyncNode:
    return AsyncNode(tmp_path / "state", run_dir=tmp_path / "run", executor=Machine().factory, hostname="h")


def test_a_node_is_awaited_from_start_to_stop(tmp_path: Path) -> None:
    async def host() -> None:
        before = Traces()
        async with make(tmp_path) as node:
            node_id = await node.init()
            info = await node.wait_ready(60)
            assert info.node_id == node_id
            assert (await node.join_token("manager")).startswith("SWMTKN-1-")
            answer = await node.control("ListNodes", control_pb2.ListNodesRequest(), control_pb2.ListNodesResponse)
            assert [each.id for each in answer.nodes] == [node_id]
            await node.update(rotate="worker manager")
            with pytest.raises(Refused, match="--force"):
                await node.leave()
            await node.leave(force=True)
            assert (await node.info()).local_node_state == "inactive"
            assert node.running
        assert not node.running
        assert before.left() == NOTHING

    asyncio.run(host())


def test_the_hosts_loop_goes_on_meanwhile(tmp_path: Path) -> None:
    async def host() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        async with make(tmp_path) as node:
            after_start = turns
            await node.init()
            assert 0 < after_start < turns
        counting.cancel()

    asyncio.run(host())


class Never:
    """A question that is not answered."""


class Silent(Actor):
    @handles(Never)
    def never(self, message: Never) -> None:
        self.defer()


def test_a_question_has_a_deadline_and_can_be_cancelled(tmp_path: Path) -> None:
    async def host() -> None:
        async with make(tmp_path) as node:
            node.mount("silent", Silent)
            node.node.assembly._cluster = node.node.stage.at("/silent")
            with pytest.raises(AskTimeout, match="no answer from /silent"):
                await node.ask(Never(), 0.01)
            asking = asyncio.create_task(node.ask(Never(), 60))
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    asyncio.run(host())


def test_a_start_that_fails_is_raised_where_it_was_awaited(tmp_path: Path) -> None:
    async def host() -> Any:
        async with make(tmp_path):
            with pytest.raises(StartError, match="in use"):
                await make(tmp_path).start()

    asyncio.run(host())


def test_not_being_ready_says_why(tmp_path: Path) -> None:
    async def host() -> None:
        async with make(tmp_path) as node:
            with pytest.raises(TimeoutError, match="in no swarm"):
                await node.wait_ready(0.0)

    asyncio.run(host())


def test_a_stop_goes_on_when_its_waiter_is_cancelled(tmp_path: Path) -> None:
    async def host() -> None:
        node = await make(tmp_path).start()
        stopping = asyncio.create_task(node.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        await node.stop()  # waits for the one under way
        assert not node.running

    asyncio.run(host())
