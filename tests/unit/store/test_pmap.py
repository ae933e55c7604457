"""The persistent map against a plain dictionary."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from runtime.store.pmap import BLOCK, LOAD, PersistentMap

KEYS = st.text(alphabet="abcdef", max_size=3)


@given(st.lists(st.lists(st.tuples(KEYS, st.integers() | st.none()), max_size=40), max_size=8))
def test_every_version_stays_what_it_was(versions: list[list[tuple[str, int | None]]]) -> None:
    current: PersistentMap[int] = PersistentMap()
    model: dict[str, int] = {}
    history = [(current, dict(model))]
    for changes in versions:
        edit = current.edit()
        for key, value in changes:
            if value is not None:
                edit.set(key, value)
                model[key] = value
            elif key in model:
                edit.delete(key)
                del model[key]
            assert len(edit) == len(model)
            assert edit.get(key) == model.get(key)
        current = edit.freeze()
        history.append((current, dict(model)))
    for version, expected in history:
        assert {key: version.get(key) for key in version} == expected
        assert len(version) == len(expected)
        assert sorted(version.values()) == sorted(expected.values())


def test_it_grows_and_keeps_everything() -> None:
    edit = PersistentMap[int]().edit()
    for number in range(5000):
        edit.set(f"key-{number}", number)
    frozen = edit.freeze()
    assert [frozen.get(f"key-{number}") for number in range(5000)] == list(range(5000))
    assert len(frozen) == 5000


def test_an_edit_that_changes_nothing_is_the_same_version() -> None:
    base = PersistentMap[int]()
    assert base.edit().freeze() is base


def test_an_edit_goes_on_after_it_was_frozen_without_touching_what_it_gave() -> None:
    edit = PersistentMap[int]().edit()
    edit.set("a", 1)
    first = edit.freeze()
    edit.set("a", 2)
    edit.set("b", 3)
    second = edit.freeze()
    assert (first.get("a"), first.get("b"), second.get("a"), second.get("b")) == (1, None, 2, 3)
    assert "b" in second
    assert "b" not in first


def pieces(version: PersistentMap[int]) -> set[int]:
    """The blocks and buckets of a version, by identity."""
    return {id(block) for block in version._blocks} | {id(bucket) for block in version._blocks for bucket in block}


def test_versions_of_a_large_map_stay_what_they_were() -> None:
    """Enough entries for many blocks, with the map growing on the way."""
    dice = Random(5)
    current, model = PersistentMap[int](), dict[str, int]()
    history = []
    for number in range(40):
        edit = current.edit()
        for key in (f"key-{dice.randrange(9000)}" for _ in range(dice.choice([1, 30, 900]))):
            if key in model and dice.random() < 0.3:
                edit.delete(key)
                del model[key]
            else:
                edit.set(key, number)
                model[key] = number
        current = edit.freeze()
        history.append((current, dict(model)))
    assert len(model) > BLOCK * LOAD
    for version, expected in history:
        assert {key: version.get(key) for key in version} == expected
        assert (len(version), sorted(version.values())) == (len(expected), sorted(expected.values()))


def test_a_change_of_a_large_map_shares_all_but_one_bucket_and_its_block() -> None:
    edit = PersistentMap[int]().edit()
    for number in range(50_000):
        edit.set(f"key-{number}", number)
    before = edit.freeze()
    edit = before.edit()
    edit.set("key-7", 0)
    after = edit.freeze()
    assert len(pieces(after) - pieces(before)) == 2
    assert (before.get("key-7"), after.get("key-7")) == (7, 0)
