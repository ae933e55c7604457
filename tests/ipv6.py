"""Machines without IPv6: what tests of it ask for."""

from __future__ import annotations

import socket

import pytest


def _missing() -> str:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return ""
    except OSError as error:
        return f"no IPv6 here: {error.strerror}"


MISSING = _missing()
needs_ipv6 = pytest.mark.skipif(bool(MISSING), reason=MISSING or "there is IPv6 here")
IPV6 = pytest.param("::1", marks=needs_ipv6)
