"""The Engine API as tests of whole daemons ask it, swarmlet's and dockerd's."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path
from typing import Any

from swarmlet.unix_http import UnixConnection

LATE = "Timeout was reached before node joined"
"""How a join is answered that takes longer than the engine lets anybody wait; it goes on."""


class EngineClient:
    """Part of whatever has a daemon's ``socket``; each request has a connection of its own."""

    socket: str | Path
    api = "v1.45"

    def call(self, method: str, path: str, body: Any = None, timeout: float = 120.0) -> tuple[int, Any]:
        """One request; status and decoded body."""
        connection = UnixConnection(str(self.socket), timeout)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/{self.api}{path}", data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            if "json" not in (response.getheader("Content-Type") or ""):
                return response.status, content
            return response.status, json.loads(content) if content.strip() else None
        finally:
            connection.close()

    def get(self, path: str, **filters: str) -> Any:
        """A GET that must succeed; ``desired_state="running"`` is the filter ``desired-state``."""
        query = ""
        if filters:
            wanted = {name.replace("_", "-"): {value: True} for name, value in filters.items()}
            query = "?filters=" + urllib.parse.quote(json.dumps(wanted))
        status, answer = self.call("GET", path + query)
        assert status == 200, f"GET {path} at {self.socket}: {status} {answer}"
        return answer
