# make setup | demo | test | test-faults | lint | clean. Each does all of its own set-up; a second run installs nothing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SYSTEM_PACKAGES := slurm-wlm munge iproute2 shellcheck
SYSTEM_COMMANDS := slurmctld slurmd munged ip shellcheck

.PHONY: setup demo test test-faults lint clean system
.DEFAULT_GOAL := help

help:
	@echo "make setup   install everything into $(VENV) (and, as root with apt, Slurm for the real-Slurm tests)"
	@echo "make demo    videos -> shards -> training on 2 ranks -> scaling report, into demo-out/"
	@echo "make test    ruff, mypy and the tests"
	@echo "make test-faults  the slow tests: kills of real jobs, checks that take minutes"
	@echo "make clean   remove $(VENV), demo-out and caches"

setup: system $(STAMP)

# The tests run a real Slurm. Where it cannot be installed they are skipped, and pytest's summary says why.
system:
	@missing=""; for command in $(SYSTEM_COMMANDS); do \
	    PATH="$$PATH:/usr/sbin:/sbin" command -v $$command >/dev/null || missing="$$missing $$command"; done; \
	if [ -n "$$missing" ]; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "installing $(SYSTEM_PACKAGES) (missing:$$missing)"; \
	        apt-get update -qq && \
	        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null; \
	    else \
	        echo "not installed:$$missing; as root: apt-get install $(SYSTEM_PACKAGES); tests that need them are skipped"; \
	    fi; \
	fi

# Debian keeps venv's pip in a package of its own.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "hpcvideo needs Python 3.11 or newer; set PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	    && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; } \
	    || { echo "Python's venv module is missing; as root: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,export]'
	@touch $@

demo: setup
	$(BIN)/hpcvideo demo --out demo-out

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

# One file a core; tests that copy the test process have it to themselves, since pytest-xdist's has threads, and a copy of
# those may hang. Both run whatever the other does.
WORKERS ?= 2
test: lint
	@status=0; \
	$(BIN)/pytest -m "not faults and forks" || status=$$?; \
	$(BIN)/pytest -m "not faults and not forks" -n $(WORKERS) --dist loadfile --no-loadscope-reorder || status=$$?; \
	exit $$status

test-faults: setup
	$(BIN)/pytest -m faults

clean:
	rm -rf $(VENV) demo-out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
