"""The node's membership and the cluster's settings: ``/swarm``."""

from __future__ import annotations

from typing import Final

from runtime.engine_api.call import EMPTY, Answer, Call, answer
from runtime.engine_api.convert import fields, swarm
from runtime.wire.pb.control_pb2 import KeyRotation

CLUSTER_NAME: Final = "default"


async def inspect(call: Call) -> Answer:
    """``GET /swarm``."""
    return answer(swarm.swarm_to_json(await call.backend.swarm_inspect()))


async def init(call: Call) -> Answer:
    """``POST /swarm/init``: the answer is the node id as a JSON string."""
    body = call.json()
    if call.version < (1, 39):
        body.pop("DefaultAddrPool", None)
        body.pop("SubnetSize", None)
    if call.version < (1, 40):
        body.pop("DataPathPort", None)
    return answer(await call.backend.swarm_init(swarm.init_from_json(body)))


async def join(call: Call) -> Answer:
    """``POST /swarm/join``."""
    await call.backend.swarm_join(swarm.join_from_json(call.json()))
    return EMPTY


async def leave(call: Call) -> Answer:
    """``POST /swarm/leave``."""
    await call.backend.swarm_leave(call.loose("force"))
    return EMPTY


async def update(call: Call) -> Answer:
    """``POST /swarm/update``: the body is the complete new spec, in which the cluster's one name may be left out."""
    spec = swarm.spec_from_json(call.json(), "")
    spec.annotations.name = spec.annotations.name or CLUSTER_NAME
    version = call.object_version("swarm")
    rotation = KeyRotation(
        worker_join_token=call.strict("rotateWorkerToken", plainly=True),
        manager_join_token=call.strict("rotateManagerToken", plainly=True),
        manager_unlock_key=call.strict("rotateManagerUnlockKey", plainly=True),
    )
    await call.backend.swarm_update(version, spec, rotation)
    return EMPTY


async def unlock_key(call: Call) -> Answer:
    """``GET /swarm/unlockkey``."""
    return answer({"UnlockKey": await call.backend.swarm_unlock_key()})


async def unlock(call: Call) -> Answer:
    """``POST /swarm/unlock``."""
    await call.backend.swarm_unlock(fields.text(call.json(), "UnlockKey", ""))
    return EMPTY


ROUTES = {
    "GET /swarm": inspect,
    "POST /swarm/init": init,
    "POST /swarm/join": join,
    "POST /swarm/leave": leave,
    "POST /swarm/update": update,
    "GET /swarm/unlockkey": unlock_key,
    "POST /swarm/unlock": unlock,
}
