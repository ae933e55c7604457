"""What the tests of this room share: an entropy that repeats, a fixed time, nodes."""

from __future__ import annotations

from runtime.pki.certificates import MANAGER_ROLE, Holder, create_csr
from runtime.pki.keys import new_key
from runtime.pki.root import RootCA, create_root
from tests.seeded import entropy

NOW = 1_790_000_025.0
DAY = 86400.0


def a_root(seed: int = 1, now: float = NOW) -> RootCA:
    return create_root(entropy(seed), now)


def a_node(root: RootCA, role: str = MANAGER_ROLE, *, lifetime: float = 0, now: float = NOW, seed: int = 7) -> bytes:
    source = entropy(seed)
    return root.sign_csr(create_csr(new_key(source)), Holder("node1", role, "cluster1"), lifetime, now, source)
