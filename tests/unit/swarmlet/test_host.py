"""What the machine says of itself."""

from __future__ import annotations

import pytest

from swarmlet import host
from tests.ipv6 import IPV6


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", IPV6])
def test_to_itself_the_machine_speaks_from_the_loopback_address(address: str) -> None:
    assert host.source_address(address) == ("::1" if ":" in address else "127.0.0.1")


@pytest.mark.parametrize("address", ["", "nonsense:", "localhost"])
def test_where_it_cannot_speak_to_there_is_no_address(address: str) -> None:
    assert host.source_address(address) == ""
