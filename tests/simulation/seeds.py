"""Which seeds run always, and which with the suite that takes its time."""

from __future__ import annotations

from typing import Any

import pytest


def seeds(always: int, all_told: int) -> list[Any]:
    """Seeds from 0 for ``parametrize``; those behind the first ``always`` are slow."""
    return [pytest.param(seed, marks=() if seed < always else pytest.mark.slow) for seed in range(all_told)]
