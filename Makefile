# Each target sets up what it needs: a venv, and editable installs of the core and all plugins.
# On a bare machine it takes Python 3.11 or later, and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

PLUGINS := $(sort $(wildcard plugins/*))
EDITABLE := -e './core[cli]' $(foreach plugin,$(filter-out plugins/rings,$(PLUGINS)),-e ./$(plugin)) -e './plugins/rings[iouring]'
PROJECTS := pyproject.toml constraints.txt core/pyproject.toml $(wildcard plugins/*/pyproject.toml)

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.installed ## the main job on real resources
	@$(BIN)/probate demo

.PHONY: test
test: $(VENV)/.installed-dev ## the whole test suite
	@$(BIN)/python -m pytest -q

.PHONY: lint
lint: $(VENV)/.installed-dev ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --config-file pyproject.toml core/src $(addsuffix /src,$(PLUGINS)) tests examples benchmarks

.PHONY: chaos
chaos: $(VENV)/.installed-dev ## more kills, more hostility, more rounds
	@PROBATE_CHAOS=1 $(BIN)/python -m pytest -q --timeout 600 tests/plugins/processes tests/scenarios

# make bench JSON=file also writes the rows there.
.PHONY: bench
bench: $(VENV)/.installed-bench ## what it costs, beside its peers; renews docs/performance.md
	@$(BIN)/python benchmarks/run.py $(if $(JSON),--json '$(JSON)') --plot docs/complexity.png --document docs/performance.md

.PHONY: docs
docs: $(VENV)/.installed-dev ## check that the documents agree with the code
	@$(BIN)/python -m pytest -q tests/docs

.PHONY: clean
clean: ## remove the venv and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find core plugins -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Probate needs Python 3.11 or later, and {sys.executable} is {sys.version.split()[0]}; use make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV) || { echo "could not make a venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

# Without build isolation, so that the build backend too is the pinned one. pip compiles what it
# installs, but nothing editable: where PYTHONDONTWRITEBYTECODE is set, each start would.
$(VENV)/.installed: $(VENV)/.created $(PROJECTS)
	@echo "installing Probate into $(VENV)"
	@$(PIP) install -q 'pip>=25.1'
	@$(PIP) install -q -c constraints.txt hatchling editables
	@$(PIP) install -q -c constraints.txt --no-build-isolation $(EDITABLE)
	@$(BIN)/python -m compileall -q core/src $(addsuffix /src,$(PLUGINS))
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the tools for development"
	@$(PIP) install -q -c constraints.txt --group dev
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@echo "installing the tools for measuring"
	@$(PIP) install -q -c constraints.txt --group bench
	@touch $@
