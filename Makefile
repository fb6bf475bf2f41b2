# hotlap: two commands do everything on an empty clone: make train, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
FOREIGN := $(patsubst tests/foreign/%.txt,.foreign/%/installed,$(wildcard tests/foreign/*.txt))

.PHONY: help install train test foreign slow check format coverage bench bench-learning docs lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# All modules are compiled here, on all cores, where pip would take one: each start would parse them
# where PYTHONDONTWRITEBYTECODE is set. Some packages hold files that are no Python of today.
install: $(VENV)/installed ## create .venv from the lock file, and compile the kernels

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "hotlap needs Python 3.11 or newer: make install PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(BIN)/python -m compileall -q src
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	$(BIN)/hotlap doctor
	@touch $@

train: install ## train the quick start and show the result
	$(BIN)/hotlap train configs/quickstart.toml

test: install ## run the tests, without those that learn for long
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

foreign: $(FOREIGN) ## install the programs that read our files, for the tests that ask them

.foreign/%/installed: tests/foreign/%.txt
	$(PYTHON) -m venv .foreign/$*
	.foreign/$*/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

slow: install ## run the tests that learn for tens of seconds
	$(BIN)/pytest -m "slow or sb3"

check: install ## format, lint, types, imports: what a change has to pass besides the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## put the code into the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: install ## run the tests and say which lines they miss
	$(BIN)/pytest -n 2 --cov --cov-report=term-missing:skip-covered

bench: install ## measure this machine beside other simulators, and keep the result
	$(BIN)/hotlap bench --out benchmarks/results/bench.jsonl

bench-learning: install ## measure the time to the first clean laps, three seeds each
	$(BIN)/python benchmarks/first_laps.py state --seeds 0 1 2
	$(BIN)/python benchmarks/first_laps.py camera --seeds 0 1 2
	$(BIN)/python benchmarks/first_laps.py deepracer --seeds 0 1 2

docs: install ## build the pages into docs/_build
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build

lock: install ## resolve the lock file anew
	echo "torch==2.13.0" > $(VENV)/constraints.txt
	$(BIN)/pip-compile --quiet --strip-extras --no-emit-options --no-header --no-annotate \
	    --constraint $(VENV)/constraints.txt --output-file requirements.lock \
	    --extra train --extra video --extra limit --extra export --extra distributed --extra storage \
	    --extra dev --extra docs pyproject.toml
	sed -i 's/+cpu$$//' requirements.lock

clean: ## remove what is built
	rm -rf $(VENV) .foreign docs/_build .pytest_cache .mypy_cache .ruff_cache .coverage
