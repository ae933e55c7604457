"""What an operator has to hear of without asking: the sentences that ``docker info`` shows as warnings.

Rules owned here: an update or a rollback that is paused is told until the service is updated again, an update that is
being rolled back because it failed until the rollback ended, a published port as long as a node cannot listen on it, an
external CA (by the manager that leads) while nodes wait for it. At
most `SHOWN_MAX` services and as many nodes are named.
"""

from __future__ import annotations

from typing import Final

from runtime.swarm import ingress_blocked
from runtime.swarm.ports import View
from runtime.swarm.update_steps import FAILURE
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

SHOWN_MAX: Final = 10
_PAUSED: Final = (types.UpdateStatus.PAUSED, types.UpdateStatus.ROLLBACK_PAUSED)


def warnings(view: View) -> list[str]:
    """One sentence for each service whose update went wrong, by name, and one for those that are left out; then one for
    each node that cannot listen on what is published."""
    troubled = sorted(
        (service for service in view.all(objects.Service) if is_troubled(service)),
        key=lambda service: service.spec.annotations.name,
    )
    blocked = ingress_blocked.warnings(view)
    told = [f"WARNING: Service {each.spec.annotations.name}: {each.update_status.message}" for each in troubled]
    left = len(told) - SHOWN_MAX
    more = [f"WARNING: {left} more services whose updates failed"] if left > 0 else []
    return [*told[:SHOWN_MAX], *more, *blocked[:SHOWN_MAX]]


def authority_warning(text: str, waiting: int) -> list[str]:
    """Of external CAs that do not sign, with the last of their reasons; none where there is no text."""
    nodes = "1 node waits" if waiting == 1 else f"{waiting} nodes wait"
    return [f"WARNING: {nodes} for a certificate: {text}"] if text else []


def is_troubled(service: objects.Service) -> bool:
    """Whether the service's update failed and nobody has done anything about it yet."""
    status = service.update_status
    if status.state in _PAUSED:
        return True
    return status.state == types.UpdateStatus.ROLLBACK_STARTED and FAILURE in status.message
