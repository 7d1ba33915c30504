# make run: install and open the demo. make test: everything that CI runs. make bench: the figures.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run install dev test test-all test-gpu test-faults lint bench bench-gpu clean

# The demo's home is ./demo; a second `make run` opens it again, where it was.
run: install
	@$(BIN)/trainctl demo demo

install: $(VENV)/.installed
dev: $(VENV)/.installed-dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is older than 3.11: make PYTHON=python3.11 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) (torch is large: minutes, the first time)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) (torch is large: minutes, the first time)"
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.installed

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not gpu and not slow and not faults"

# Also those that take minutes (a kill at every point), and those for a GPU where there is one.
test-all: lint
	$(BIN)/python -m pytest -m "not gpu"
	$(BIN)/python -m pytest -m gpu

# What only an NVIDIA card shows (skipped where there is none): a minute, on a card with no other
# work, because some look at its memory as NVML tells it.
test-gpu: dev
	$(BIN)/python -m pytest -m gpu

# Faults put in everywhere: kills, power cuts, full and broken disks, planted mutants. Some of it
# needs root, strace or loop devices, and says so where it is skipped.
test-faults: dev
	$(BIN)/python -m pytest tests/faults tests/test_engine_kills.py

bench: dev
	$(BIN)/python -m benchmarks

# On an NVIDIA card (exit 2 where there is none): minutes for a shape, an hour for all of them.
bench-gpu: dev
	$(BIN)/python -m benchmarks.gpu

clean:
	rm -rf $(VENV)
