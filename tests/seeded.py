"""Entropy that a test can repeat."""

from __future__ import annotations

import random
from collections.abc import Callable


def entropy(seed: int = 1) -> Callable[[int], bytes]:
    """So many bytes at a time, always the same ones for a seed."""
    return random.Random(seed).randbytes
