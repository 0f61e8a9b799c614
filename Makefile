# Two commands matter: `make demo` shows the main job, `make test` checks everything.
# Everything is installed into .venv; Python is chosen with `make PYTHON=python3.12 ...`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
LOCKED := pyproject.toml constraints.txt
DATA ?= ../shared/data
TORCH := torch==2.13.0
TRAIN := $(BIN)/python -m models.training --data $(DATA) models/recipes

# What the wire, journey and fault tests drive for real.
PROGRAMS := orthanc orthanc-dicomweb dcmtk dicom3tools redis-server strace \
            libpixelmed-java default-jre-headless postgresql

.PHONY: help demo test lint format bench soak lock train-ct-lungs programs clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

demo: $(VENV)/.base ## the main job on this machine: CT in, SEG and SR out, overlay and table
	$(BIN)/segnode demo --output demo-output

test: $(VENV)/.full programs lint ## every check and every test
	$(BIN)/python -m pytest

lint: $(VENV)/.full ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.full ## puts the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.full programs ## measures beside the peers
	PYTHONPATH=. $(BIN)/python -m tests.bench

soak: $(VENV)/.full programs ## hundreds of kills at every stage
	$(BIN)/python -m pytest -m soak --timeout=0 tests/faults

train-ct-lungs: $(VENV)/.full ## trains the shipped model package anew, in its three stages (about an hour)
	$(TRAIN)/ct-lungs.toml --output training-output/1
	$(TRAIN)/ct-lungs-refine.toml --start training-output/1/checkpoint.pt --output training-output/2
	$(TRAIN)/ct-lungs-refine-2.toml --start training-output/2/checkpoint.pt --output training-output/3
	$(BIN)/python -m models.training.package training-output/3/checkpoint.pt \
	    --manifest models/recipes/ct-lungs.model.toml --output training-output/ct-lungs

lock: ## refreshes constraints.txt: newest versions that pyproject.toml allows, from a clean environment
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet $(TORCH)
	build/lock/bin/python -m pip install --quiet -e '.[dev,train,postgres]'
	(echo '# Versions that were tested together. Refresh: make lock'; \
	    build/lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//') > constraints.txt
	rm -rf build/lock

programs: # Debian packages, only as root, only the missing ones, no service started
	@missing=$$(for name in $(PROGRAMS); do \
	    dpkg-query -W -f='$${Status}' $$name 2>/dev/null | grep -q 'ok installed' || echo $$name; done | xargs); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then \
	    echo "Not installed, so their tests skip by name: $$missing"; exit 0; fi; \
	echo "Installing $$missing"; \
	if [ ! -e /usr/sbin/policy-rc.d ]; then \
	    trap 'rm -f /usr/sbin/policy-rc.d' EXIT; \
	    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing > /dev/null \
	    || echo "apt-get did not install $$missing; their tests skip by name"

clean: ## removes everything that can be made again
	rm -rf $(VENV) build dist demo-output bench-output .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "segnode needs Python 3.11 or later, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV) \
	    || { rm -rf $(VENV); echo "No virtual environment; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.base: $(LOCKED) | $(VENV)/bin/python
	@echo "Installing segnode into $(VENV); this takes a minute or two."
	@$(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/.full: $(LOCKED) | $(VENV)/bin/python
	@echo "Installing segnode with everything for its tests into $(VENV); this takes some minutes."
	@$(PIP) -c constraints.txt $(TORCH)
	@$(PIP) -c constraints.txt -e '.[dev,train,postgres]'
	@touch $(VENV)/.base $@
