"""A swarm that is ill in every way: each question about it has an answer by one command within ten seconds, and a page
of the console that shows it."""

from __future__ import annotations

import html
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("textual")

EXAMPLE = Path(__file__).parents[3] / "examples" / "sick_cluster.py"
ON_PAGES = {
    "tree": ("stuck", "str "),
    "crashes": ("ZeroDivisionError", "/crashes"),
    "raft": ("leader", "replicate", "MEMBER"),
    "waiting": ("picky.1", "scheduler", "no suitable node"),
    "waits": ("/waits", "/stuck"),
    "beliefs": ("of different minds",),
    "nodes": ("m1", "m3"),
    "services": ("picky", "0/2"),
    "tasks": ("picky.2", "pending"),
}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_each_question_is_answered_by_one_command_and_shown_by_the_console(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--pictures", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("$ swarmlet ") == 9
    assert "a connection failed" not in done.stderr
    for page, texts in ON_PAGES.items():
        picture = html.unescape((tmp_path / f"{page}.svg").read_text(encoding="utf-8")).replace("\xa0", " ")
        for text in texts:
            assert text in picture, f"{text!r} is not on the page {page}"
