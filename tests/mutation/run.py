"""Plants bugs (``mutations``, ``edges``), each in a copy of the core, and runs its tests: which of them nobody notices.

    python -m tests.mutation.run            # all of them; exit code 1 if one survives that should not
    python -m tests.mutation.run leader     # those of one file

The tests are the unit tests of the consensus and the recorded scenarios, as they are: a run of the copies without any
bug comes first, and must pass. A bug that makes the tests hang is noticed too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutation.edges import EDGES
from tests.mutation.mutations import MUTATIONS, Mutation
from tests.mutation.same import SAME

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("tests/unit/raft", "tests/conformance")
TIME_LIMIT = 90.0


def plant(source: str, mutation: Mutation) -> str:
    """The text with the bug; ValueError when its place is not found exactly once."""
    if source.count(mutation.before) != 1:
        raise ValueError(f"{mutation.file}: {mutation.before!r} occurs {source.count(mutation.before)} times")
    return source.replace(mutation.before, mutation.after)


def copy_tree(where: Path) -> Path:
    """A copy of what the tests need, with the recorded scenarios beside it as they are beside the repository."""
    tree = where / "tree"
    ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
    for name in ("runtime", *TESTS):
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for package in ("tests", "tests/unit"):
        shutil.copy(ROOT / package / "__init__.py", tree / package / "__init__.py")
    scenarios = ROOT.parent / "shared"
    if scenarios.is_dir():
        (where / "shared").symlink_to(scenarios.resolve())
    return tree


def passes(tree: Path) -> bool:
    """Whether the tests of the copy are green. One that does not end counts as red."""
    environ = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(tree), *TESTS]
    try:
        done = subprocess.run(command, cwd=tree, env=environ, capture_output=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1, 2):
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout.decode()}{done.stderr.decode()}")
    return done.returncode == 0


def survives(mutation: Mutation) -> bool:
    """Whether nobody notices this bug."""
    with tempfile.TemporaryDirectory(prefix="swarmlet-mutant-") as name:
        tree = copy_tree(Path(name))
        file = tree / "runtime" / "raft" / f"{mutation.file}.py"
        file.write_text(plant(file.read_text(encoding="utf-8"), mutation))
        return passes(tree)


def sound() -> bool:
    """Whether the copies are green without a bug, and are what is tested."""
    with tempfile.TemporaryDirectory(prefix="swarmlet-mutant-") as name:
        tree = copy_tree(Path(name))
        asked = "import runtime.raft.core as core; print(core.__file__)"
        environ = {**os.environ, "PYTHONPATH": str(tree)}
        where = subprocess.run(
            [sys.executable, "-c", asked], cwd=tree, env=environ, capture_output=True, text=True, check=True
        )
        return where.stdout.startswith(str(tree)) and passes(tree)


def main(names: list[str]) -> int:
    chosen = [each for each in (*MUTATIONS, *EDGES, *SAME) if not names or each.file in names]
    for each in chosen:  # whether all have their places is said before time is spent on any
        plant((ROOT / "runtime" / "raft" / f"{each.file}.py").read_text(encoding="utf-8"), each)
    if not sound():
        print("the tests do not pass without any bug: nothing can be said", file=sys.stderr)
        return 2
    begun = time.monotonic()
    survived, wrong = 0, 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for each, lives in zip(chosen, pool.map(survives, chosen), strict=True):
            survived += lives
            complaint = complaint_about(each, lives)
            if complaint:
                wrong += 1
                print(complaint, flush=True)
    print(
        f"{len(chosen)} bugs planted, {len(chosen) - survived} noticed, {survived} survived; {wrong} otherwise than "
        f"expected ({time.monotonic() - begun:.0f} s)"
    )
    return 1 if wrong else 0


def complaint_about(mutation: Mutation, lives: bool) -> str:
    """What is wrong with this outcome; empty if it is as expected."""
    change = f"{mutation.file}: {mutation.before.strip()!r} -> {mutation.after.strip()!r} ({mutation.rule})"
    if lives and mutation not in SAME:
        return f"nobody noticed: {change}"
    if not lives and mutation in SAME:
        return f"said to change nothing, but a test turned red: {change}"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
