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
    "tree": ("stuck", "str ", "suspended"),
    "crashes": ("ZeroDivisionError", "/crashes"),
    "waiting": ("picky.1", "scheduler", "no suitable node"),
    "explain": ("picky.2", "no node has the label rack"),
    "raft": ("leader", "replicate", "MEMBER"),
    "trace": ("Write ", "Propose ", "Commits "),
    "beliefs": ("of different minds",),
    "waits": ("/waits", "/stuck"),
    "plan": ("if node m2 were removed",),
    "actor": ("RaftLogActor", "Append"),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_question_is_answered_by_one_command_and_shown_by_the_console(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--pictures", str(tmp_path), "--within", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("$ swarmlet ") == 11
    assert "a connection failed" not in done.stderr
    for page, texts in ON_PAGES.items():
        picture = html.unescape((tmp_path / f"console-{page}.svg").read_text(encoding="utf-8")).replace("\xa0", " ")
        for text in texts:
            assert text in picture, f"{text!r} is not on the page {page}"
