"""The examples of docs/testing.md and the test in README.md run."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


EXAMPLES = [*examples("docs/testing.md"), *(each for each in examples("README.md") if "def test_" in each)]


def run(directory: pathlib.Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_example.py").write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "swarmlet.testing.plugin"]
    command += [part for name in ("cacheprovider", "schemathesis", "hypothesispytest") for part in ("-p", f"no:{name}")]
    return subprocess.run(
        [*command, *options, "test_example.py"], cwd=directory, capture_output=True, text=True, timeout=280, check=False
    )


def test_the_examples_of_the_documentation_run(tmp_path: pathlib.Path) -> None:
    assert len(EXAMPLES) == 6
    for number, example in enumerate(EXAMPLES):
        (tmp_path / f"test_{number}.py").write_text(example, encoding="utf-8")
    ran = run(tmp_path, "", *(f"test_{number}.py" for number in range(len(EXAMPLES))))
    assert ran.returncode == 0, ran.stdout
    assert "7 passed" in ran.stdout
