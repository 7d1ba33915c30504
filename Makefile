# make run: install and open the demo. make test: everything that CI runs. make bench: the figures.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run install dev test test-all lint bench clean

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
	$(BIN)/python -m pytest -m "not gpu and not slow"

# Also those that take minutes (a kill at every point), and those for a GPU where there is one.
test-all: lint
	$(BIN)/python -m pytest

bench: dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV)
