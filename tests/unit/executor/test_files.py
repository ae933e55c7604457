"""Frames, the journal and log files: whatever is torn, what was whole before it stays."""

from __future__ import annotations

import errno
import os
import pathlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.executor import journal as journal_module
from runtime.executor.frames import FRAME_MAX, BrokenFrame, Decoder, encode
from runtime.executor.journal import Journal
from runtime.executor.logfile import PIECE_MAX, STDERR, STDOUT, LineSplitter, LogReader, LogWriter, Piece, file_numbers

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**40) | st.text(), lambda each: st.lists(each), max_leaves=6
)


@given(st.lists(VALUES, max_size=5), st.integers(1, 7))
def test_frames_come_out_as_they_went_in_however_they_are_cut(values: list[Any], size: int) -> None:
    data = b"".join(encode(value) for value in values)
    decoder = Decoder()
    assert [v for at in range(0, len(data), size) for v in decoder.feed(data[at : at + size])] == values


@pytest.mark.parametrize("data", [(FRAME_MAX + 1).to_bytes(4, "big"), b"\0\0\0\1\xc1", b"\0\0\0\2\x01\x01"])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(BrokenFrame):
        Decoder().feed(data)


def test_a_frame_beyond_the_limit_is_not_sent() -> None:
    with pytest.raises(BrokenFrame):
        encode(b"x" * (FRAME_MAX + 1))


# The journal


def reopened(path: pathlib.Path) -> dict[str, Any]:
    journal = Journal(str(path))
    journal.close()
    return journal.records


def test_a_journal_keeps_the_last_record_of_each_task(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path))
    journal.put({"id": "a", "pid": 1})
    journal.put({"id": "b", "pid": 2})
    journal.put({"id": "a", "pid": 3})
    journal.drop("b")
    journal.drop("never there")
    journal.sync()
    assert reopened(path) == {"a": {"id": "a", "pid": 3}}
    assert path.stat().st_mode & 0o777 == 0o600


@settings(max_examples=60)
@given(st.data())
def test_a_torn_journal_keeps_all_records_before_the_tear(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "journal")
        journal = Journal(str(path))
        ends = [0]
        for number in range(5):
            journal.put({"id": f"t{number}", "pid": number})
            journal.sync()
            ends.append(path.stat().st_size)
        journal.close()
        cut = data.draw(st.integers(0, ends[-1]))
        path.write_bytes(path.read_bytes()[:cut])
        whole = max(number for number, end in enumerate(ends) if end <= cut)
        journal = Journal(str(path))
        assert sorted(journal.records) == [f"t{number}" for number in range(whole)]
        journal.put({"id": "next"})
        journal.sync()
        journal.close()
        assert sorted(reopened(path)) == ["next", *(f"t{number}" for number in range(whole))]


def test_a_flipped_bit_ends_the_journal_there(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path))
    for name in ("a", "b"):
        journal.put({"id": name})
        journal.sync()
    journal.close()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert list(reopened(path)) == ["a"]


def test_a_journal_is_written_anew_when_most_of_it_is_old(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path), compact_bytes=1000)
    for number in range(500):
        journal.put({"id": "a", "number": number})
        journal.sync()
        assert path.stat().st_size < 1100
    journal.close()
    assert reopened(path) == {"a": {"id": "a", "number": 499}}
    assert os.listdir(tmp_path) == ["journal"]


def test_a_journal_that_somebody_removed_is_written_anew(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "sub" / "journal"
    path.parent.mkdir()
    journal = Journal(str(path))
    journal.put({"id": "a"})
    journal.sync()
    path.unlink()
    path.parent.rmdir()
    journal.ensure_there()
    assert list(reopened(path)) == ["a"]


def test_what_is_written_after_somebody_removed_the_journal_is_in_a_new_one(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "sub" / "journal"
    path.parent.mkdir()
    journal = Journal(str(path))
    for name in "ab":
        journal.put({"id": name})
    journal.sync()
    path.unlink()
    path.parent.rmdir()
    journal.drop("a")
    journal.put({"id": "c"})
    journal.sync()
    assert not journal.dirty
    journal.put({"id": "d"})
    journal.sync()
    assert list(reopened(path)) == ["b", "c", "d"]


def test_a_full_disk_leaves_the_journal_whole_and_the_record_waiting(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path))
    journal.put({"id": "a"})
    journal.sync()
    journal.put({"id": "b"})
    journal.put({"id": "c"})

    def full(fd: int, data: bytes) -> None:
        os.write(fd, bytes(data)[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "_write", full)
        with pytest.raises(OSError, match="No space"):
            journal.sync()
    assert list(reopened(path)) == ["a"]
    journal.revert("c")
    assert journal.dirty
    journal.sync()
    assert sorted(reopened(path)) == ["a", "b"]


# Lines


@given(st.lists(st.binary(max_size=40) | st.just(b"\n") | st.just(b"x" * (PIECE_MAX + 3)), max_size=8))
def test_a_splitter_loses_no_byte_and_cuts_at_newlines_alone(chunks: list[bytes]) -> None:
    splitter = LineSplitter()
    pieces = [piece for chunk in chunks for piece in splitter.feed(chunk)] + splitter.flush()
    data = b"".join(chunks)
    assert b"".join(piece for piece, _ in pieces) == data
    assert all(piece.endswith(b"\n") and piece.count(b"\n") == 1 for piece, partial in pieces if not partial)
    assert all(b"\n" not in piece for piece, partial in pieces if partial)
    assert all(len(piece) <= PIECE_MAX + 1 for piece, _ in pieces)


def read_all(directory: pathlib.Path) -> list[Piece]:
    reader = LogReader(str(directory))
    pieces = []
    while some := reader.read():
        pieces += some
    reader.close()
    return pieces


def test_time_stamps_of_a_log_grow_though_the_clock_does_not(tmp_path: pathlib.Path) -> None:
    writer = LogWriter(str(tmp_path / "t"), 1000, 3)
    writer.write(50, STDOUT, [(b"a\n", False), (b"b", True)])
    writer.write(40, STDERR, [(b"c\n", False)])
    writer.end(0)
    assert read_all(tmp_path / "t") == [
        Piece(50, STDOUT, b"a\n", False),
        Piece(51, STDOUT, b"b", True),
        Piece(52, STDERR, b"c\n", False),
    ]


@pytest.mark.parametrize("burst", [1, 7, 100])
def test_rotation_keeps_the_newest_files_within_their_size(tmp_path: pathlib.Path, burst: int) -> None:
    writer = LogWriter(str(tmp_path), 200, 3)
    for first in range(0, 100, burst):
        numbers = range(first, min(first + burst, 100))
        writer.write(first, STDOUT, [(b"line %03d\n" % number, False) for number in numbers])
    assert len(file_numbers(str(tmp_path))) == 3
    assert all(path.stat().st_size <= 200 + 20 for path in tmp_path.iterdir())
    lines = [piece.data for piece in read_all(tmp_path)]
    assert lines == [b"line %03d\n" % number for number in range(100 - len(lines), 100)]
    assert len(lines) > 20


@pytest.mark.parametrize("step", [1, 7, 50])
def test_a_reader_that_follows_through_rotations_misses_nothing_while_it_keeps_up(
    tmp_path: pathlib.Path, step: int
) -> None:
    writer = LogWriter(str(tmp_path), 600, 3)
    reader = LogReader(str(tmp_path))
    seen: list[bytes] = []
    for number in range(200):
        writer.write(number, STDOUT, [(b"%d\n" % number, False)])
        if number % step == 0:
            while pieces := reader.read():
                seen += [piece.data for piece in pieces]
            assert reader.position == writer.position
    writer.end(0)
    while pieces := reader.read():
        seen += [piece.data for piece in pieces]
    assert seen == [b"%d\n" % number for number in range(200)]
    assert reader.ended


def test_a_reader_overtaken_by_rotation_goes_on_with_the_oldest_left(tmp_path: pathlib.Path) -> None:
    writer = LogWriter(str(tmp_path), 100, 2)
    reader = LogReader(str(tmp_path))
    writer.write(0, STDOUT, [(b"first\n", False)])
    assert [piece.data for piece in reader.read()] == [b"first\n"]
    for number in range(100):
        writer.write(number, STDOUT, [(b"%02d\n" % number, False)])
    seen = []
    while pieces := reader.read():
        seen += [piece.data for piece in pieces]
    assert seen[-1] == b"99\n"
    numbers = [int(data) for data in seen]
    assert numbers == sorted(set(numbers))


def test_lines_lost_to_a_full_disk_are_counted_and_told_once_there_is_room(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LogWriter(str(tmp_path), 10_000, 3)
    writer.write(1, STDOUT, [(b"before\n", False)])
    real = os.write
    half = iter([True])

    def full(fd: int, data: bytes) -> int:
        if next(half, False):
            return real(fd, bytes(data)[:4])  # a torn record has to be cut off again
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        writer.write(2, STDOUT, [(b"lost\n", False), (b"lost\n", False)])
        writer.write(3, STDOUT, [(b"lost\n", False)])
    assert writer.dropped == 3
    writer.write(4, STDOUT, [(b"after\n", False)])
    assert [piece.data for piece in read_all(tmp_path)] == [
        b"before\n",
        b"swarmlet: 3 lines of this log were lost: No space left on device\n",
        b"after\n",
    ]
    assert writer.dropped == 0


def test_a_record_torn_by_a_crash_is_not_read(tmp_path: pathlib.Path) -> None:
    writer = LogWriter(str(tmp_path), 1000, 3)
    writer.write(1, STDOUT, [(b"whole\n", False), (b"torn\n", False)])
    path = tmp_path / "1.log"
    path.write_bytes(path.read_bytes()[:-2])
    assert [piece.data for piece in read_all(tmp_path)] == [b"whole\n"]
