"""Generic resources: their syntax, and that nothing is lost or made by claiming and reclaiming."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.swarm.generic import (
    available,
    claim,
    discrete,
    environment,
    has_enough,
    is_named,
    kind_of,
    named,
    parse,
    reclaim,
    request_of,
)
from runtime.wire.pb import types_pb2 as types

Resource = types.GenericResource

KINDS = st.sampled_from(["gpu", "ssd", "fpga"])


@st.composite
def offers(draw: st.DrawFn) -> list[Resource]:
    made: list[Resource] = []
    for kind in draw(st.lists(KINDS, unique=True)):
        if draw(st.booleans()):
            made.append(discrete(kind, draw(st.integers(1, 5))))
        else:
            values = draw(st.lists(st.sampled_from("abcde"), min_size=1, unique=True))
            made.extend(named(kind, value) for value in values)
    return made


REQUESTS = st.lists(st.builds(discrete, KINDS, st.integers(0, 3)), max_size=3)


def counts(resources: list[Resource]) -> dict[str, int]:
    return {kind: available(resources, kind) for kind in ("gpu", "ssd", "fpga")}


def test_one_number_is_discrete_and_anything_else_a_set() -> None:
    assert parse("gpu=3") == [discrete("gpu", 3)]
    assert parse(" gpu = a , ssd=2,gpu=b,gpu=a\n") == [named("gpu", "a"), named("gpu", "b"), discrete("ssd", 2)]
    assert parse('"gpu=a","gpu=b"') == [named("gpu", "a"), named("gpu", "b")]
    assert parse("") == []


@pytest.mark.parametrize(
    "text", ["gpu", "gpu=", "=1", "a=b=c", "gpu=1,", "gpu=-1", "gpu=1,gpu=2", "gpu=a,gpu=1", "gpu=1\nssd=2", "gpu==1"]
)
def test_bad_syntax_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="could not parse GenericResource") as caught:
        parse(text)
    assert caught.value.code is Code.INVALID_ARGUMENT


@given(st.text(alphabet='gs=,1-2 "\n', max_size=20))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        kinds = [kind_of(resource) for resource in parse(text)]
    except Refused:
        kinds = ["refused"]
    assert all(kinds)


def test_a_named_request_is_refused() -> None:
    with pytest.raises(Refused):
        request_of(named("gpu", "a"))


@given(offers(), REQUESTS)
def test_claiming_splits_what_is_free_into_taken_and_left(free: list[Resource], requests: list[Resource]) -> None:
    if not has_enough(free, requests):
        with pytest.raises(AssertionError):
            claim(free, requests)
        return
    before = [resource.SerializeToString() for resource in free]
    assigned, left = claim(free, requests)
    for kind, total in counts(free).items():
        wanted = sum(request_of(request)[1] for request in requests if kind_of(request) == kind)
        assert available(assigned, kind) == wanted
        assert available(left, kind) == total - wanted
    assert [resource.SerializeToString() for resource in free] == before


@given(offers(), REQUESTS)
def test_reclaiming_undoes_claiming(free: list[Resource], requests: list[Resource]) -> None:
    if has_enough(free, requests):
        assigned, left = claim(free, requests)
        key = Resource.SerializeToString
        assert sorted(map(key, reclaim(left, assigned, free))) == sorted(map(key, free))


@given(offers(), offers(), offers())
def test_never_more_is_free_than_is_offered(
    free: list[Resource], back: list[Resource], offered: list[Resource]
) -> None:
    result = reclaim(free, back, offered)
    offered_counts = counts(offered)
    assert all(number <= offered_counts[kind] for kind, number in counts(result).items())
    values = {resource.named_resource_spec.value for resource in result if is_named(resource)}
    assert values <= {resource.named_resource_spec.value for resource in offered if is_named(resource)}


def test_a_kind_that_changed_between_number_and_set_starts_anew() -> None:
    offered = [named("gpu", "a"), named("gpu", "b")]
    assert reclaim([discrete("gpu", 1)], [], offered) == offered
    assert reclaim([named("gpu", "a")], [], [discrete("gpu", 4)]) == [discrete("gpu", 4)]


def test_named_values_are_taken_from_the_front() -> None:
    free = [named("gpu", "a"), named("gpu", "b"), named("gpu", "c")]
    assert claim(free, [discrete("gpu", 2)]) == (free[:2], free[2:])


def test_a_container_is_told_what_it_got() -> None:
    assigned = [named("gpu", "u1"), discrete("ssd", 2), named("gpu", "u2")]
    assert environment(assigned) == ["DOCKER_RESOURCE_GPU=u1,u2", "DOCKER_RESOURCE_SSD=2"]
