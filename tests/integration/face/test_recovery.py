"""Backup, restore and recover as an operator types them, over real daemons' data roots, and that the result serves."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from runtime.disk.data_root import RAFT_DATABASE
from runtime.wire.pb import control_pb2
from swarmlet import Node
from swarmlet.cli import main
from tests.integration.face.worlds import Machine, node, service
from tests.waiting import until

Said = pytest.CaptureFixture[str]


def until_managed(made: Node) -> None:
    until(lambda: made.info().control_available, "it manages its swarm", tell=lambda: made.info().error)


def services(made: Node) -> list[str]:
    answer = made.control("ListServices", control_pb2.ListServicesRequest(), control_pb2.ListServicesResponse)
    return [each.spec.annotations.name for each in answer.services]


def backed_up(tmp_path: Path, said: Said) -> tuple[str, str]:
    """A node with one service in the backup ``saved`` and two later; its id and a join token."""
    with node(tmp_path) as made:
        node_id = made.init()
        made.wait_ready(60)
        made.control("CreateService", service("kept", 1), control_pb2.CreateServiceResponse)
        socket = str(tmp_path / "n1" / "run" / "introspection.sock")
        assert main(["backup", str(tmp_path / "saved"), "--socket", socket]) == 0
        assert "read back and sound" in said.readouterr().out
        assert stat.S_IMODE((tmp_path / "saved").stat().st_mode) == 0o600
        assert sorted(os.listdir(tmp_path)) == ["n1", "saved"]
        assert main(["backup", str(tmp_path / "saved"), "--socket", socket]) == 1
        assert "File exists" in said.readouterr().err
        made.control("CreateService", service("later", 1), control_pb2.CreateServiceResponse)
        assert main(["recover", str(tmp_path / "n1" / "state")]) == 1
        assert "stop it first" in said.readouterr().err
        return node_id, made.join_token("worker")


def test_a_backup_of_a_running_node_is_restored_and_serves(tmp_path: Path, capsys: Said) -> None:
    node_id, token = backed_up(tmp_path, capsys)
    shutil.rmtree(tmp_path / "n1")
    (tmp_path / "n1").mkdir()
    assert main(["restore", str(tmp_path / "saved"), "--data-root", str(tmp_path / "n1" / "state")]) == 0
    assert node_id in capsys.readouterr().out
    with node(tmp_path, machine=Machine()) as again:
        until_managed(again)
        assert (again.info().node_id, again.join_token("worker")) == (node_id, token)
        assert services(again) == ["kept"]
        again.control("CreateService", service("new", 1), control_pb2.CreateServiceResponse)
        assert sorted(services(again)) == ["kept", "new"]


def test_recover_shows_then_does_and_the_manager_starts_with_everything(tmp_path: Path, capsys: Said) -> None:
    node_id, token = backed_up(tmp_path, capsys)
    root = str(tmp_path / "n1" / "state")
    assert main(["recover", root]) == 0
    shown = capsys.readouterr().out
    assert node_id in shown
    assert "Nothing was changed" in shown
    assert main(["recover", root, "--yes"]) == 0
    assert "Done" in capsys.readouterr().out
    with node(tmp_path, machine=Machine()) as again:
        until_managed(again)
        assert (again.info().node_id, again.join_token("worker")) == (node_id, token)
        assert sorted(services(again)) == ["kept", "later"]


def test_what_is_wrong_with_files_and_places_is_one_sentence(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "text").write_text("not a backup")
    (tmp_path / "worker").mkdir()
    for arguments, sentence in (
        (["restore", str(tmp_path / "text"), "--data-root", str(tmp_path / "new")], "no backup of swarmlet"),
        (["restore", str(tmp_path / "none"), "--data-root", str(tmp_path / "new")], "No such file"),
        (["recover", str(tmp_path / "none")], "is no directory"),
        (["recover", str(tmp_path / "worker")], "restore a backup"),
        (["backup", str(tmp_path / "b"), "--socket", str(tmp_path / "none.sock")], "none.sock"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
    assert main(["recover", str(tmp_path), str(tmp_path)]) == 2
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "worker" / RAFT_DATABASE).exists()
