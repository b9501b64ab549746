# Everything runs in a virtual environment inside the project; it needs python3 (3.11 or newer) with venv, and make.

PYTHON ?= python3
VENV ?= .venv
# As many as CI has processors. Each has servers of its own.
WORKERS ?= 2
ROUNDS ?= 200
SECONDS ?= 60
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The suite starts hundreds of Pythons, each of which would compile everything anew, as images of containers like to tell them.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1\t\2/' | expand -t 18

demo: $(VENV)/.demo ## see it work on a PostgreSQL server of its own, in ten seconds
	@$(BIN)/pgpubsub demo

test: $(VENV)/.test ## run all tests, or those that ARGS="..." names to pytest
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest tests/unit --cov --cov-report=term-missing:skip-covered
	$(BIN)/python -m pytest tests src --ignore=tests/unit --durations=10 -n $(WORKERS) --dist loadfile
else
	$(BIN)/python -m pytest $(ARGS)
endif

check: $(VENV)/.check ## formatting, lint, types and layering
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.check ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.bench ## measure against other clients and print the ratios, for an hour
	$(BIN)/python -m bench $(ARGS)

performance: $(VENV)/.bench ## make docs/performance.md of what was measured, and of the runs in ARGS="FILE ..."
	$(BIN)/python -m bench.performance $(ARGS)

docs: $(VENV)/.docs ## build the manual's site in site/, with warnings as errors
	$(BIN)/python docs/build.py
	$(BIN)/zensical build --clean --strict

chaos: $(VENV)/.test ## faults at random, for an hour; ARGS="--faults 60" is two minutes of them
	$(BIN)/python -m tests.chaos $(ARGS)
ifeq ($(strip $(ARGS)),)
	PGPUBSUB_GROUPS_ROUNDS=$(ROUNDS) PGPUBSUB_GROUPS_ENTRIES=500 $(BIN)/python -m pytest -s \
	  tests/system/test_groups_faults.py -k 'whatever or takes_over'
endif

sim: $(VENV)/.test ## simulate the core: 100,000 random schedules of each simulation, on all processors
	$(BIN)/python -m tests.sim $(ARGS)

states: $(VENV)/.test ## draw docs/states.md from the code
	$(BIN)/python -m tests.sim.states

fuzz: $(VENV)/.fuzz ## try for long what others may send: a minute for each target, SECONDS=600 for more
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

soak: $(VENV)/.bench ## everything at once for 30 minutes, and what grows; ARGS="--hours 8"
	$(BIN)/python -m tests.soak $(ARGS)

clean: ## remove what the commands above have made
	rm -rf $(VENV) .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache build site

$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pgpubsub needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install 'pip>=25.1'
	@touch $@

$(VENV)/.demo: $(VENV)/.pip pyproject.toml
	$(PIP) install -e '.[binary,demo]'
	@touch $@

# PyGreSQL is compiled here, which needs a compiler and libpq's headers. Its tests are skipped where it fails.
$(VENV)/.test: $(VENV)/.pip pyproject.toml
	$(PIP) install -e '.[binary,demo,typed,web,opentelemetry]' --group test --group docs
	@$(PIP) install --group pygresql 2>$(VENV)/pygresql.log || \
	  echo 'PyGreSQL cannot be built here (Debian: apt-get install gcc libpq-dev): its tests will be skipped'
	@touch $@

$(VENV)/.check: $(VENV)/.test
	$(PIP) install --group check --group bench
	@touch $@

$(VENV)/.docs: $(VENV)/.pip pyproject.toml
	$(PIP) install -e '.[binary,django,channels,sqlalchemy,alembic,starlette,litestar,flask,web]' pytest --group docs
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	$(PIP) install --group bench
	@touch $@

# There are no wheels of atheris for every Python and system. Without it the values are made by chance.
$(VENV)/.fuzz: $(VENV)/.test
	@$(PIP) install --group fuzz 2>$(VENV)/fuzz.log || echo 'atheris cannot be installed here'
	@touch $@

.PHONY: help demo test check format bench performance docs chaos soak sim states fuzz clean
