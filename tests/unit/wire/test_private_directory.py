"""The directory of a transport's sockets: private, gone at the end, and after a kill gone with the next one."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.wire import private_directory
from runtime.wire.private_directory import PREFIX, PrivateDirectory, remove_left_over

HOLD = (
    "import sys\n"
    "from runtime.wire.private_directory import PrivateDirectory\n"
    "made = PrivateDirectory(sys.argv[1])\n"
    "open(made.path + '/s1', 'w').close()\n"
    "print(made.path, flush=True)\n"
    "sys.stdin.read()\n"
)


def test_it_is_private_and_goes_with_what_is_in_it(tmp_path: Path) -> None:
    made = PrivateDirectory(str(tmp_path))
    assert stat.S_IMODE(os.stat(made.path).st_mode) == 0o700
    Path(made.path, "s1").touch()
    made.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_one_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    theirs = Path(holder.stdout.readline().strip())
    mine = PrivateDirectory(str(tmp_path))
    assert theirs.joinpath("s1").exists()
    holder.kill()
    holder.communicate()
    remove_left_over(str(tmp_path))
    assert list(tmp_path.iterdir()) == [Path(mine.path)]
    mine.remove()


def test_what_is_not_such_a_directory_stays(tmp_path: Path) -> None:
    kept = [tmp_path / "api.sock", tmp_path / "exec", tmp_path / f"{PREFIX}file", tmp_path / f"{PREFIX}link"]
    kept[0].touch()
    kept[1].mkdir()
    kept[2].touch()
    kept[3].symlink_to(kept[1])
    made = PrivateDirectory(str(tmp_path))
    made.remove()
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert kept[1].is_dir()


@pytest.mark.parametrize("lost_after_lock", [True, False])
def test_one_that_is_taken_for_a_left_over_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost_after_lock: bool
) -> None:
    lock = private_directory._locked
    robbed: list[str] = []

    def slow(path: str) -> int:
        if robbed:
            return lock(path)
        robbed.append(path)
        if not lost_after_lock:
            os.rmdir(path)
        found = lock(path)
        os.rmdir(path)
        return found

    monkeypatch.setattr(private_directory, "_locked", slow)
    made = PrivateDirectory(str(tmp_path))
    assert made.path not in robbed
    assert [str(each) for each in tmp_path.iterdir()] == [made.path]
    made.remove()


def test_in_the_temporary_directory_nothing_of_others_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_directory.tempfile, "gettempdir", lambda: str(tmp_path))
    other = tmp_path / f"{PREFIX}other"
    other.mkdir()
    PrivateDirectory().remove()
    assert list(tmp_path.iterdir()) == [other]


def test_a_temporary_directory_with_a_long_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("t" * 100)
    long.mkdir()
    monkeypatch.setattr(private_directory.tempfile, "gettempdir", lambda: str(long))
    made = PrivateDirectory()
    assert Path(made.path).parent == Path("/tmp")
    assert len(f"{made.path}/c12345678") <= 107
    made.remove()
    assert list(long.iterdir()) == []


def test_a_parent_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PrivateDirectory(str(tmp_path / "gone"))


def test_where_nothing_can_be_locked_it_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("runtime.wire.private_directory.fcntl.flock", no_locks)
    with pytest.raises(OSError, match="No locks available"):
        PrivateDirectory(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
