# Every command of the project. They need Python 3.11 or newer, gcc, make (and Node 20 for the web front
# end); all else they install into .venv from requirements/ (pinned and hashed), so that `make up` works
# on a fresh machine. Nothing is installed twice: .venv/stamps says what is done.
#
#   make up          run the whole exchange here          make down     stop it
#   make test        every test but the long campaigns    make test-long  those
#   make sim         one simulated world with faults, by its seed: make sim SEED=8412 (or SEED=1-500)
#   make lint        style, security, types, layers       make proto    regenerate from proto/
#   make bench       benchmarks, into perf.log and perf.json
#   make coverage    make test with the coverage gate     make lock     refresh requirements/
#   make install     only install                         make clean    remove what was built
#
# ARGS is passed on to pytest or pincex: make test ARGS="tests/unit -x".

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# Images are built with this set, so that layers stay small. Here it would have every process of ours, and tests start hundreds,
# compile its modules anew: a third of a second each.
export PYTHONDONTWRITEBYTECODE :=

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/stamps
ARGS   ?=

# Per cent of the branches that the tests must take (`make coverage`): of the trading engine, and of the services that decide
# who may do what ("above 90").
COVERAGE_GATE ?= 90
AUTH_COVERAGE_GATE ?= 90.1

CORE_SOURCES := $(wildcard services/exchange/trading/core/*.py services/exchange/domain/*.py)
PACKAGES := $(wildcard services/*/__init__.py clients/python/*/__init__.py)
PYTEST := $(BIN)/python -m pytest
# As many as the cores that CI has: with more, exchanges of several workers take each other's time. Which files go together says
# tests/distribution.py.
WORKERS ?= 2
PARALLEL := -n $(WORKERS) --dist loadfile

# pytest exits with 5 where it finds no test: no failure for a selection that may be empty.
MAY_BE_EMPTY := || [ $$? -eq 5 ]

.PHONY: help install up down status test test-core test-long sim coverage lint proto proto-check bench lock clean

help:
	@sed -n '/^#   make/s/^#   //p' Makefile

# --- install ---------------------------------------------------------------------------------------------

install: $(STAMPS)/core
	@:

$(STAMPS)/dependencies: requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@echo "installing what the exchange needs into $(VENV): a minute or two, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m scripts.install
	@mkdir -p $(STAMPS) && touch $@

# A new top-level package must be made known, so their __init__.py files count.
$(STAMPS)/project: pyproject.toml setup.py $(PACKAGES) $(STAMPS)/dependencies
	PINCEX_SKIP_COMPILE=1 PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --root-user-action=ignore --no-deps --no-build-isolation --editable .
	$(BIN)/python -m scripts.proto --link
	@touch $@

# The compiled core is optional: setup.py says why where it cannot be built, and the .py files run.
$(STAMPS)/core: $(CORE_SOURCES) setup.py services/exchange/trading/core_loader.py $(STAMPS)/project
	@mkdir -p build
	$(BIN)/python setup.py --quiet build_ext --inplace >build/core.log 2>&1 \
	  || { tail -30 build/core.log; [ "$$PINCEX_REQUIRE_COMPILED" != 1 ]; }
	@grep -E '^(core compiled|the core stays)' build/core.log || true
	@touch $@

# --- run -------------------------------------------------------------------------------------------------

up: install
	$(BIN)/pincex up --detach $(ARGS)

down: install
	$(BIN)/pincex down $(ARGS)

status: install
	$(BIN)/pincex status $(ARGS)

# --- test ------------------------------------------------------------------------------------------------

# The suites of the core run twice, compiled and interpreted. The large run comes last: its closing line
# is the one that counts.
test: test-core
	$(PYTEST) $(PARALLEL) -m "not long and not bench" $(ARGS)

test-core: install
	PINCEX_PURE=1 $(PYTEST) $(PARALLEL) -m "core and not long and not bench" $(ARGS) $(MAY_BE_EMPTY)

test-long: install
	$(PYTEST) -m "long" --timeout=3600 $(ARGS)

# The line that a failing simulation prints.
SEED  ?= 1-20
STEPS ?= 12000

sim: install
	$(BIN)/python -m tests.simulation $(SEED) $(STEPS) $(ARGS)

# Compiled code cannot be traced, so the core's coverage comes from its interpreted run.
coverage: install
	@rm -f .coverage .coverage.*
	PINCEX_PURE=1 $(PYTEST) $(PARALLEL) -m "core and not long and not bench" --cov --cov-report= $(ARGS) $(MAY_BE_EMPTY)
	$(PYTEST) $(PARALLEL) -m "not long and not bench" --cov --cov-append --cov-report= $(ARGS)
	$(BIN)/python -m scripts.coverage_gate services/exchange/trading=$(COVERAGE_GATE) \
	  services/exchange/auth=$(AUTH_COVERAGE_GATE) services/exchange/admin=$(AUTH_COVERAGE_GATE) \
	  services/exchange/settlement=$(AUTH_COVERAGE_GATE) services/exchange/kyc=$(AUTH_COVERAGE_GATE) \
	  services/exchange/wallet=$(AUTH_COVERAGE_GATE)

bench: install
	$(PYTEST) tests/bench -m bench --capture=no --timeout=1800 $(ARGS)

# --- check -----------------------------------------------------------------------------------------------

# ruff's rules are all on, those of its security linter (S, from bandit) among them; the last line looks the locked versions
# up among known vulnerabilities, and says 'not run' where it cannot.
lint: $(STAMPS)/project
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m scripts.proto --link
	$(BIN)/buf lint
	$(BIN)/python -m scripts.check_breaking
	$(BIN)/python -m scripts.audit

proto: install
	$(BIN)/python -m scripts.proto

proto-check: $(STAMPS)/project
	$(BIN)/python -m scripts.proto --check

lock: $(STAMPS)/dependencies
	$(BIN)/python -m scripts.lock $(ARGS)

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f .coverage .coverage.* $(STAMPS)/core
	rm -f services/exchange/trading/core/*.so services/exchange/trading/core/_core.build.json
	find services clients/python scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
