# Everything a newcomer needs: `make run`, `make test`. Each target sets up what it stands on.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: venv run run-once test lint proto proto-check conformance simulate bench clean

venv: $(STAMP)

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(STAMP)

run: venv
	$(BIN)/swarmlet up examples/hello.yml

run-once: venv
	$(BIN)/swarmlet up examples/hello.yml --for 20

test: venv lint proto-check
	$(BIN)/python -m pytest -m 'not slow and not root'

lint: venv
	$(BIN)/ruff check .
	$(BIN)/mypy

proto: venv
	$(BIN)/python runtime/wire/proto/generate.py

proto-check: venv
	$(BIN)/python runtime/wire/proto/generate.py --check

conformance: venv
	$(BIN)/python -m pytest tests/conformance

clean:
	rm -rf $(VENV) build *.egg-info
