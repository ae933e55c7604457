"""Control groups of both versions over directories made for the purpose."""

from __future__ import annotations

import pathlib

import pytest

from runtime.executor.cgroups import CONTROLLERS, detect, settings

LIMITS = {"nano_cpus": 1_500_000_000, "memory": 1 << 20, "pids": 9}


def proc(root: pathlib.Path, mounts: list[tuple[str, str, str]], groups: str) -> str:
    """A /proc/self with these mounts (point, type, options)."""
    lines = [f"30 20 0:1 / {root / point} rw - {kind} none {options}\n" for point, kind, options in mounts]
    (root / "mountinfo").write_text("".join(lines))
    (root / "cgroup").write_text(groups)
    return str(root)


def unified(root: pathlib.Path, controllers: str = "cpuset cpu io memory pids") -> str:
    for place in ("v2", "v2/unit", "v2/unit/main"):
        (root / place).mkdir()
        (root / place / "cgroup.controllers").write_text(controllers)
    return proc(root, [("v2", "cgroup2", "rw")], "0::/unit/main\n")


def test_version_two_makes_one_group_a_task_below_our_own(tmp_path: pathlib.Path) -> None:
    groups = detect("n", unified(tmp_path))
    base = tmp_path / "v2/unit/main/swarmlet-n"
    assert (groups.bases, groups.reason) == ({"": str(base)}, "")
    assert (base.parent / "cgroup.subtree_control").read_text(encoding="utf-8") == "+cpu +memory +pids"
    assert (base / "cgroup.subtree_control").read_text(encoding="utf-8") == "+cpu +memory +pids"
    paths = groups.create("t", LIMITS)
    assert paths == [str(base / "t")]
    written = {path.name: path.read_text(encoding="utf-8") for path in (base / "t").iterdir()}
    assert written == {"cpu.max": "150000 100000", "memory.max": str(1 << 20), "pids.max": "9"}


def test_version_two_tries_the_parent_where_our_own_group_may_have_no_children(tmp_path: pathlib.Path) -> None:
    where = unified(tmp_path)
    (tmp_path / "v2/unit/main/cgroup.subtree_control").mkdir()  # a write to it fails
    groups = detect("n", where)
    assert groups.bases == {"": str(tmp_path / "v2/unit/swarmlet-n")}
    assert not (tmp_path / "v2/unit/main/swarmlet-n").exists()


def test_version_one_makes_a_group_in_each_controller(tmp_path: pathlib.Path) -> None:
    for controller in CONTROLLERS:
        (tmp_path / controller).mkdir()
    (tmp_path / "memory/mine").mkdir()
    mounts = [(controller, "cgroup", f"rw,{controller}") for controller in CONTROLLERS]
    groups = detect("n", proc(tmp_path, mounts, "4:memory:/mine\n3:pids:/elsewhere\n2:cpu:/\n"))
    assert groups.bases == {
        "cpu": str(tmp_path / "cpu/swarmlet-n"),
        "memory": str(tmp_path / "memory/mine/swarmlet-n"),
        "pids": str(tmp_path / "pids/swarmlet-n"),
    }
    paths = groups.create("t", {"pids": 5})
    assert (tmp_path / "pids/swarmlet-n/t/pids.max").read_text(encoding="utf-8") == "5"
    assert list((tmp_path / "cpu/swarmlet-n/t").iterdir()) == []
    for path in paths:
        pathlib.Path(path, "cgroup.procs").write_text("7\n8\n")
    assert groups.members(paths) == [7, 8]
    assert not groups.remove(paths)
    for path in paths:
        for file in pathlib.Path(path).iterdir():
            file.unlink()
    assert groups.remove(paths)
    assert groups.remove(paths)
    assert groups.members(paths) == []


def test_an_empty_version_two_beside_version_one_is_passed_over(tmp_path: pathlib.Path) -> None:
    unified(tmp_path, controllers="hugetlb")
    for controller in CONTROLLERS:
        (tmp_path / controller).mkdir()
    mounts = [("v2", "cgroup2", "rw"), *((controller, "cgroup", controller) for controller in CONTROLLERS)]
    groups = detect("n", proc(tmp_path, mounts, "0::/\n"))
    assert sorted(groups.bases) == sorted(CONTROLLERS)


@pytest.mark.parametrize(
    ("mounts", "reason"),
    [([], "there is no controller cpu"), ([("cpu", "cgroup", "cpu")], "there is no controller memory")],
)
def test_without_control_groups_there_is_a_reason(
    tmp_path: pathlib.Path, mounts: list[tuple[str, str, str]], reason: str
) -> None:
    (tmp_path / "cpu").mkdir()
    groups = detect("n", proc(tmp_path, mounts, ""))
    assert not groups.available
    assert groups.reason == reason
    assert list((tmp_path / "cpu").iterdir()) == []


def test_a_group_that_cannot_be_limited_leaves_nothing(tmp_path: pathlib.Path) -> None:
    groups = detect("n", unified(tmp_path))
    groups.bases["cpu"] = str(tmp_path / "mountinfo")  # no directory can be made there
    with pytest.raises(OSError, match="mountinfo"):
        groups.create("t", {})
    assert not (tmp_path / "v2/unit/main/swarmlet-n/t").exists()


def test_a_limit_that_is_not_asked_for_is_not_written() -> None:
    assert settings("cpu", {}) == []
    assert settings("", {"pids": 3}) == [("pids.max", "3")]
    assert settings("cpu", {"nano_cpus": 1}) == [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "1000")]
