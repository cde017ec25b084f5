# Every target sets up what it needs. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Most tests wait for processes and leases: three at a time, file by file, each third on a server of its own.
PARALLEL ?= -n 3 --dist loadfile --no-loadscope-reorder
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup browser demo test test-slow check format bench bench-long bench-peers bench-guard coverage clean docs

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-13s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Kairos needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

setup: $(STAMP) ## Make a virtual environment in .venv and install Kairos with its tools

browser: ## Install Debian's Chromium for the tests of the debugger, if no Chromium or Chrome is there
	@command -v chromium || command -v chromium-browser || command -v google-chrome || { \
	  command -v apt-get >/dev/null && test "$$(id -u)" = 0 || { \
    echo "no Chromium, and no right to install one: the tests of the debugger in a browser are left out"; exit 0; }; \
	  apt-get install -qq -y --no-install-recommends chromium >/dev/null 2>&1 || \
	  { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; }; }

demo: $(STAMP) ## Run the main job on the embedded Postgres: census, a crash, the recovery
	@$(BIN)/kairos demo

test: $(STAMP) browser ## Run the tests (real Postgres, real processes killed)
	@$(BIN)/python -m pytest -q $(PARALLEL) $(TEST_FLAGS)

test-slow: $(STAMP) ## The long versions of the randomized fault tests
	@$(BIN)/python -m pytest -q -m slow $(TEST_FLAGS)

coverage: $(STAMP) browser ## Run the tests and show what they do not reach
	@$(BIN)/python -m pytest -q $(PARALLEL) --cov=kairos --cov-report=term-missing:skip-covered $(TEST_FLAGS)

check: $(STAMP) ## Lint, types, layers: what a commit must pass
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	@$(BIN)/python -m pytest -q -p no:cacheprovider tests/architecture

format: $(STAMP) ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure W1-W5 and the machine's limits (BENCH_FLAGS="--only w1 --reps 5")
	@$(BIN)/python -m bench $(BENCH_FLAGS)

bench-long: $(STAMP) ## Measure W6-W9: payloads, long runs, many processes, a soak
	@$(BIN)/python -m bench --only w6,w7,w8,w9 --reps 1 $(BENCH_FLAGS)

bench-peers: $(STAMP) ## As bench, with DBOS, Absurd, Procrastinate, PgQueuer and Restate (PyPI, npm)
	@$(BIN)/python -m bench --peers $(BENCH_FLAGS)

bench-guard: $(STAMP) ## Fail if the engine is far slower than this machine allows
	@$(BIN)/python -m bench.guard

clean: ## Remove what the targets made (not .kairos, which holds data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis htmlcov .coverage*

docs: $(STAMP) ## Write the generated documents anew
	@$(BIN)/python -c 'from kairos.domain.diagram import document; print(document(), end="")' > docs/states.md
