# Everything a newcomer needs. Each target sets up what it stands on; a second call costs nothing.
# The first of those that LevelDB's binding has wheels for.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: venv run run-once test test-slow test-root interop lint proto proto-check simulate conformance mutants bench clean

venv: $(STAMP)

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m compileall -q actors runtime swarmlet  # as pip does for what is not editable: a third of a start
	touch $(STAMP)

run: venv
	$(BIN)/swarmlet up examples/hello.yml

run-once: venv
	$(BIN)/swarmlet up examples/hello.yml --for 20

test: venv lint proto-check
	$(BIN)/python -m pytest -n auto -m 'not slow and not root'

test-slow: venv
	$(BIN)/python -m pytest -n auto -m 'slow and not root'

test-root: venv
	$(BIN)/python -m pytest -m 'root and not slow'

interop: venv
	$(BIN)/python -m pytest tests/interop

lint: venv
	$(BIN)/ruff check .
	$(BIN)/mypy

proto: venv
	$(BIN)/python runtime/wire/proto/generate.py

proto-check: venv
	$(BIN)/python runtime/wire/proto/generate.py --check

SEEDS ?= 1000
SWARM_SEEDS ?= 100
simulate: venv
	$(BIN)/python -m tests.simulation.simulate raft $(SEEDS)
	$(BIN)/python -m tests.simulation.simulate swarm $(SWARM_SEEDS)

conformance: venv
	$(BIN)/python -m pytest tests/conformance -q

# Plants bugs in the consensus core, one at a time: which of them does no test notice? Two minutes.
mutants: venv
	$(BIN)/python -m tests.mutation.run

bench: venv
	$(BIN)/python bench/bench_stage.py
	$(BIN)/python bench/bench_introspection.py
	$(BIN)/python bench/bench_store.py
	$(BIN)/python bench/bench_raft_core.py
	$(BIN)/python bench/bench_writes.py
	$(BIN)/python bench/bench_managers.py
	$(BIN)/python bench/bench_scheduler.py
	$(BIN)/python bench/bench_daemon.py
	$(BIN)/python bench/bench_joins.py
	$(BIN)/python bench/bench_state.py

clean:
	rm -rf $(VENV) build *.egg-info
