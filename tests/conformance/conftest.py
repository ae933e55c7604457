"""Says at the end how many of the recorded scenarios replayed without a difference."""

from __future__ import annotations

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line: files passed of all that were run."""
    ran = {
        outcome: [each for each in terminalreporter.getreports(outcome) if "test_scenarios.py" in each.nodeid]
        for outcome in ("passed", "failed")
    }
    total = sum(len(reports) for reports in ran.values())
    if total:
        terminalreporter.write_line(f"recorded scenarios: {len(ran['passed'])} of {total} files without a difference")
