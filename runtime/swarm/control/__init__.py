"""SwarmKit's Control service as pure functions: requests in, answers or transaction functions out.

`METHODS` names every method; `Context` is what they need besides the store. One module a kind of object.
"""

from __future__ import annotations

from runtime.swarm.control.context import Context, Member
from runtime.swarm.control.methods import METHODS, Method, Read, Write

__all__ = ["METHODS", "Context", "Member", "Method", "Read", "Write"]
