"""Recorded scenarios of the Raft library that SwarmKit stands on, replayed against our core without a difference."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "conformance"
SCENARIOS = sorted((FOLDER / "raft").glob("*.txt"))

if not SCENARIOS:
    pytest.skip(f"no recorded scenarios beside the repository ({FOLDER.name}/raft)", allow_module_level=True)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_recorded_scenario_replays_without_a_difference(path: Path) -> None:
    from tests.conformance.adapter import Adapter, replay

    result = replay.run_scenario(path, Adapter)
    assert not result.failures, "\n".join(str(failure) for failure in result.failures)
