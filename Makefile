# The commands of this house. Each one makes and fills its own virtual environment; GNU make 3.81 will do.
#
#   PYTHON=python3.13   picks the interpreter; all but the default get an environment of their own
#   VENV=.venv          picks the directory of the environment
#   ARGS="-x -k lock"   goes to pytest, the benchmarks or the mutants
#   WORKERS=4           so many processes share the tests, which wait a lot; 0 for a debugger

PYTHON ?= python3
PORT ?= 8000
ARGS ?=
WORKERS ?= 4

# What the interpreter is: "cpython-3.11.7", or empty if it is too old or not there at all.
NAME_IT := import platform as p, sys; sys.version_info >= (3, 11) and \
	print(p.python_implementation().lower() + "-" + p.python_version())
PYTHON_NAME := $(shell $(PYTHON) -c '$(NAME_IT)' 2>/dev/null)

# Another interpreter must never find the packages of the default one.
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(PYTHON_NAME))
BIN := $(VENV)/bin
MADE := $(VENV)/.made-for-$(PYTHON_NAME)

# No look at the network for a newer version: the one that is installed is the one that counts.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The tests start a hundred Pythons: each would compile all modules anew where the shell forbids `__pycache__`.
unexport PYTHONDONTWRITEBYTECODE

# Tests that wait for a real server leave the processor to others.
PARALLEL := --numprocesses $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help demo test check docs faults soak bench measure browser screenshot mutants clean format \
	check-format check-lint check-mypy check-pyright check-docs check-tests

help: ## show this list
	@echo 'make <target> [PYTHON=python3] [VENV=.venv] [ARGS=…]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.has-core ## serve the demo page: [PORT=8000] [DRIVER=redis]
	$(BIN)/trio-session demo --port $(PORT) $(if $(DRIVER),--driver $(DRIVER))

test: $(VENV)/.has-test ## run the tests: [ARGS="-x -k lock"]
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

check: check-format check-lint check-mypy check-pyright check-docs check-tests ## everything a change must pass

format: $(VENV)/.has-dev ## put the code into shape, and repair what ruff can repair
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/.has-dev ## make a book of docs/, in build/docs
	$(BUILD_DOCS)
	@echo 'read it: build/docs/index.html'

# A limit per test that a busy machine does not reach either; the short forms have the one of pyproject.toml.
faults: $(VENV)/.has-test ## the long forms of the fault tests, on real Redis servers: [ARGS="-s -k cut"]
	TRIO_SESSION_FAULTS=full $(BIN)/python -m pytest tests/faults tests/integration/test_workers.py tests/test_benchmarks.py --timeout=900 -o faulthandler_timeout=890 $(ARGS)

soak: $(VENV)/.has-test ## 10 000 locks for ten minutes, ten minutes of faults of all kinds, a million nasty inputs: [ARGS=-s]
	TRIO_SESSION_FAULTS=soak $(BIN)/python -m pytest tests/faults/test_soak.py tests/faults/test_chaos.py tests/fuzz --timeout=1800 -o faulthandler_timeout=1790 $(ARGS)

# The libraries to compare with have an environment of their own, so that no test depends on them.
bench: ## measure side by side, write docs/benchmarks.md: [ARGS="--quick"]
	@$(MAKE) --no-print-directory VENV=$(VENV)-bench measure

measure: $(VENV)/.has-bench
	$(BIN)/python -m tests.benchmarks $(ARGS)

# Not among `testpaths` by their names, `check_*.py`: not every machine has a Chromium.
BROWSER := $(BIN)/python -m pytest tests/browser -o 'python_files=check_*.py' --timeout=300 -o faulthandler_timeout=290

browser: $(VENV)/.has-dev ## the tests in a real browser; Chromium has to be on PATH: [ARGS="-k cookie"]
	$(BROWSER) $(ARGS)

screenshot: $(VENV)/.has-dev ## the picture of a contended run for docs and README, anew
	TRIO_SESSION_PICTURES=docs/_static $(BROWSER) -k 'drawn or killed'

mutants: $(VENV)/.has-test ## break the code on purpose, see the tests go red: [ARGS="--list"]
	$(BIN)/python -m tests.mutants $(ARGS)

clean: ## remove whatever these commands have made
	rm -rf build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find trio_session tests examples -type d -name __pycache__ -prune -exec rm -rf {} +
	for venv in .venv .venv-* $(VENV); do \
		for stamp in $$venv/.made-for-*; do if [ -f "$$stamp" ]; then rm -rf "$$venv"; fi; done; done

# --- the steps of `make check`: each says how to repair what it found -------------------------------------

# $(call or_else,what is wrong,how to repair it) ends a command
or_else = || { status=$$?; printf '\nmake check: %s\n  repair: %s\n' '$(1)' '$(2)' >&2; exit $$status; }

check-format: $(VENV)/.has-dev
	@$(BIN)/ruff format --check . $(call or_else,the format is not ours.,make format)

check-lint: $(VENV)/.has-dev
	@$(BIN)/ruff check . $(call or_else,ruff has found something.,make format repairs a part; \
	the rest by hand$(comma) a rule that is wrong here gets a `noqa` with its reason)

check-mypy: $(VENV)/.has-dev
	@$(BIN)/mypy $(call or_else,mypy is not content.,by hand; then$(comma) for this step alone: make check-mypy)

check-pyright: $(VENV)/.has-dev
	@$(BIN)/pyright --pythonpath $(BIN)/python $(call or_else,pyright is not \
	content.,by hand; then$(comma) for this step alone: make check-pyright)

# A warning is an error, a reference that leads nowhere a warning. Everything is read anew: a page that was not changed can be wrong by now.
BUILD_DOCS = $(BIN)/python -m sphinx -W --keep-going -E -q docs build/docs

check-docs: $(VENV)/.has-dev
	@$(BUILD_DOCS) $(call or_else,the docs cannot be built.,by hand; then$(comma) for this step alone: make docs)

check-tests: $(VENV)/.has-dev
	@$(BIN)/coverage erase
	@HYPOTHESIS_PROFILE=ci $(BIN)/coverage run -m pytest $(PARALLEL) $(ARGS) $(call or_else,a test has \
	failed.,run it alone: make test ARGS="<its name> -p no:randomly"; the same order: \
	ARGS="--randomly-seed=<the seed printed above>")
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report $(call or_else,lines or branches without a test.,a test for what is \
	missing above; or a `pragma: no cover` with its reason)

comma := ,

# --- the environment ---------------------------------------------------------------------------------------

# The stamps say what has been installed since pyproject.toml changed last. `core` is what users get.
$(VENV)/.has-core: EXTRA :=
$(VENV)/.has-test: EXTRA := [test]
$(VENV)/.has-bench: EXTRA := [bench]
$(VENV)/.has-dev: EXTRA := [dev]

$(VENV)/.has-core $(VENV)/.has-test $(VENV)/.has-bench $(VENV)/.has-dev: pyproject.toml $(MADE)
	@echo 'filling $(VENV) …'
	@$(BIN)/python -m pip install --quiet --editable '.$(EXTRA)'
	@touch $@

# Made anew only when its interpreter is another one. A directory that is no environment stays untouched.
$(MADE):
	@if [ -z '$(PYTHON_NAME)' ]; then \
		echo '$(PYTHON) is not a Python of version 3.11 or newer: name one with make PYTHON=…' >&2; exit 1; fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo '$(PYTHON) cannot make virtual environments: install its venv module (Debian: python3-venv).' >&2; \
		exit 1; fi
	@if [ -e '$(VENV)' ] && [ ! -e '$(VENV)/pyvenv.cfg' ]; then \
		echo '$(VENV) is there, but is no virtual environment: name another directory with make VENV=…' >&2; \
		exit 1; fi
	@if ! '$(BIN)/python' -c '$(NAME_IT)' 2>/dev/null | grep -qxF '$(PYTHON_NAME)'; then \
		echo 'making $(VENV) with $(PYTHON_NAME) …'; $(PYTHON) -m venv --clear '$(VENV)'; fi
	@echo '*' > '$(VENV)/.gitignore'
	@touch $@
