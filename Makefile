# Each target sets up what it needs: a venv, and editable installs of the core and all plugins.
# On a bare machine it takes Python 3.11 or later, and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Tests wait more than they compute, so there are more workers than the smallest machine has cores.
WORKERS ?= 3

PLUGINS := $(sort $(wildcard plugins/*))
EDITABLE := -e './core[cli]' $(PLUGINS:%=-e ./%)
PROJECTS := pyproject.toml constraints.txt core/pyproject.toml $(wildcard plugins/*/pyproject.toml)

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.installed ## the main job on real resources
	@$(BIN)/probate demo

# make test WORKERS=0 runs all of it in one process. Bytecode is written, wherever it is not to be:
# each process imports all tests, and most of that time is for what pytest makes of their asserts.
.PHONY: test
test: $(VENV)/.rewritten ## the whole test suite
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

.PHONY: lint
lint: $(VENV)/.installed-dev ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory types

.PHONY: types
types: $(VENV)/.installed-dev ## mypy --strict alone
	@$(BIN)/mypy --config-file pyproject.toml core/src $(addsuffix /src,$(PLUGINS)) tests examples benchmarks docs

# make chaos N=10000 kills more. Both parts say how far they have come, and in a line what came of it.
# Ctrl-C ends them at any time, and leaves nothing.
CHAOS = PROBATE_CHAOS=1 N=$(or $(N),1000) $(BIN)/python -m pytest -q

.PHONY: chaos chaos-hosts chaos-runs
chaos: $(VENV)/.installed-dev ## hosts and runs killed at random, with all kinds; N=1000 of each
	@$(MAKE) --no-print-directory -j2 chaos-hosts chaos-runs

chaos-hosts: $(VENV)/.installed-dev
	@$(CHAOS) tests/scenarios/test_crash_chaos.py

chaos-runs: $(VENV)/.installed-dev
	@$(CHAOS) tests/core/run/test_random_deaths.py

# make soak TESTS=tests/plugins/processes runs some of it.
TESTS ?= tests/plugins/processes tests/scenarios tests/core/journal tests/core/run tests/core/termination
.PHONY: soak
soak: $(VENV)/.installed-soak ## more kills, more hostility, more rounds; takes hours
	@PROBATE_CHAOS=1 $(BIN)/python -m pytest -v --tb short --timeout 600 $(TESTS)

# make bench JSON=file also writes the rows there.
.PHONY: bench
bench: $(VENV)/.installed-bench ## what it costs, beside its peers; renews docs/performance.md
	@$(BIN)/python benchmarks/run.py $(if $(JSON),--json '$(JSON)') --plot docs/complexity.png --document docs/performance.md

# That the pages agree with the code is for the tests: pytest tests/docs.
.PHONY: docs
docs: $(VENV)/.installed-docs ## build the site into build/docs; a warning is an error
	@$(BIN)/python -m sphinx -q -E -W --keep-going -n -b html docs build/docs
	@echo "build/docs/index.html"

# make litter CELLS='probate run:ac,sh -c' runs some of it.
.PHONY: litter
litter: $(VENV)/.installed ## what is left of a program by who has run it; renews docs/comparison.md
	@$(BIN)/python tests/support/litter_table.py $(if $(CELLS),--cells '$(CELLS)')

# A constraint per wheel: what `probate[all]` names of ours comes from dist/, whatever an index has
# by that name, and everything else as it would for a user.
.PHONY: adoption
adoption: $(VENV)/.installed-adoption ## try all that can be adopted; renews docs/adoption.md
	@$(BIN)/python tests/support/adoption_table.py

.PHONY: dist
dist: $(VENV)/.installed-dist ## build all distributions, check them, try them in a clean venv
	@rm -rf dist build
	@for project in core $(PLUGINS); do \
		$(BIN)/python -m build -qq --no-isolation --outdir dist ./$$project || exit 1; done
	@$(BIN)/twine check --strict dist/*
	@$(PYTHON) -m venv build/clean
	@build/clean/bin/python -m pip --disable-pip-version-check install -q 'pip>=25.1'
	@for wheel in dist/*.whl; do \
		name=$${wheel##*/}; echo "$${name%%-*} @ file://$(CURDIR)/$$wheel"; done >build/ours.txt
	@build/clean/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt -c build/ours.txt 'probate[all]'
	@build/clean/bin/probate plugins
	@test "$$(build/clean/bin/probate plugins --json | grep -c '"status": "loaded"')" = $(words $(PLUGINS)) \
		|| { echo "not every one of these is loaded: $(notdir $(PLUGINS))" >&2; exit 1; }
	@build/clean/bin/probate demo

.PHONY: clean
clean: ## remove the venv, what was built, and caches
	rm -rf $(VENV) .nox dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
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

# What pytest makes of all asserts is kept as bytecode. It takes longer than to collect the tests,
# and workers that start at once would each do it for themselves. Errors are for the run to tell.
$(VENV)/.rewritten: $(VENV)/.installed-dev
	@echo "compiling the tests"
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q --collect-only >/dev/null 2>&1 || true
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@echo "installing the tools for the site"
	@$(PIP) install -q -c constraints.txt --group docs
	@touch $@

$(VENV)/.installed-dist: $(VENV)/.installed
	@echo "installing the tools for building"
	@$(PIP) install -q -c constraints.txt --group dist
	@touch $@

$(VENV)/.installed-adoption: $(VENV)/.installed-dev
	@echo "installing the libraries whose objects are tried"
	@$(PIP) install -q -c constraints.txt --group adoption
	@touch $@

$(VENV)/.installed-soak: $(VENV)/.installed-dev
	@echo "installing the programs that are killed"
	@$(PIP) install -q -c constraints.txt --group soak
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@echo "installing the tools for measuring"
	@$(PIP) install -q -c constraints.txt --group bench
	@touch $@
