# make demo: virtual environment, dependencies with those of the probe, every claim reproduced into runs/demo
# make test: the same environment with the test tools, then all tests
# make lint: format, style and types, as continuous integration checks them
# make format: rewrite the code in the style that make lint asks for

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint format clean

demo: $(VENV)/.demo
	$(BIN)/mimlab reproduce --out runs/demo --overwrite

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) runs/demo

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mimlab needs Python 3.11 or newer, not " + sys.version.split()[0] + ": name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# Stamps: an install is repeated only when what it depends on has changed.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[probe]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.demo
