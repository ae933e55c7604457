"""What labels ask for: how values are read, and what is refused."""

from __future__ import annotations

import pytest

from runtime.errors import Code, Refused
from runtime.swarm.labels import (
    LOST_AFTER,
    REMOVE_AFTER,
    START_AFTER,
    check_node_labels,
    check_service_labels,
    seconds_of,
    starts_after,
)
from runtime.wire.pb import specs_pb2 as specs


def test_names_stand_between_commas_each_once() -> None:
    assert starts_after({START_AFTER: " db, cache,,db "}) == ("db", "cache")
    assert starts_after({}) == ()


@pytest.mark.parametrize(("value", "seconds"), [("90s", 90.0), ("1h30m", 5400.0), ("0", 0.0), ("500ms", 0.5)])
def test_durations_are_read(value: str, seconds: float) -> None:
    assert seconds_of({LOST_AFTER: value}, LOST_AFTER) == seconds


@pytest.mark.parametrize("value", ["", "soon", "-3s", "5", "721h"])
def test_what_cannot_be_read_counts_as_absent_and_is_refused_when_written(value: str) -> None:
    for key in (LOST_AFTER, REMOVE_AFTER):
        assert seconds_of({key: value}, key) is None
        with pytest.raises(Refused, match=f"label {key}: ") as refused:
            check_node_labels({key: value})
        assert refused.value.code is Code.INVALID_ARGUMENT


def test_a_label_that_names_no_service_is_refused() -> None:
    with pytest.raises(Refused, match=r"label swarmlet.start-after: names no service"):
        check_service_labels({START_AFTER: " , "})


def test_a_message_is_the_same_after_its_labels_were_asked() -> None:
    """Asked by brackets, a map of a message would take the key in."""
    spec = specs.NodeSpec()
    assert seconds_of(spec.annotations.labels, LOST_AFTER) is None
    check_node_labels(spec.annotations.labels)
    check_service_labels(spec.annotations.labels)
    assert starts_after(spec.annotations.labels) == ()
    assert spec == specs.NodeSpec()


def test_labels_of_others_are_no_concern() -> None:
    check_node_labels({"swarmlet": "x", "lost-after": "soon"})
    check_service_labels({"start-after": ""})
