"""Everything in this folder needs root and dockerd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.fixtures import FAILED, lab, start
from tests.interop.lab import missing

__all__ = ["lab", "start"]
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks this folder's tests; without what they need they are skipped with the reason."""
    here = [item for item in items if HERE in item.path.parents]
    reason = missing() if here else ""
    for item in here:
        item.add_marker("root")
        item.add_marker(pytest.mark.timeout(240))
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when in ("setup", "call"):  # type: ignore[attr-defined]
        item.stash[FAILED] = report.failed  # type: ignore[attr-defined]
    return report
