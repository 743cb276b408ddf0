# Both commands set up $(VENV) by themselves; the second time they start at once.
SCALE ?= small
DATA ?= data
VENV ?= .venv
ARGS ?=
ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := $(VENV)/Scripts
else
PYTHON ?= python3
BIN := $(VENV)/bin
endif

# An installation starts by emptying this folder, so that it never builds on a broken one.
ifneq ($(filter-out .venv%,$(notdir $(VENV))),)
$(error VENV=$(VENV) will be emptied: let its name begin with .venv, without spaces)
endif

# Where VENV is a link: what it leads to, which would be emptied in its place.
PLAIN := $(patsubst %/,%,$(VENV))
LINKED = $(filter-out $(realpath $(dir $(PLAIN)))/$(notdir $(PLAIN)),$(realpath $(PLAIN)))

# Compiled programs are kept from one command to the next.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax

.PHONY: help install reproduce test lint
help:
	@echo "make install     sets up VENV=$(VENV)"
	@echo "make reproduce   runs the experiments at SCALE=$(SCALE) on DATA=$(DATA) and writes a page of figures;"
	@echo "                 ARGS=mnist for one experiment, SCALE=paper for its full size"
	@echo "make test        runs the tests; ARGS='-m \"not slow\"' for the fast half, ARGS=tests/test_norm.py for a file"
	@echo "make lint        checks style, types, and the length and links of the documents"
	@echo "Each first installs what it needs with PYTHON=$(PYTHON) (3.11 or newer) into VENV=$(VENV), 1.3 GB, a minute or more."

install: $(VENV)/installed

reproduce: $(VENV)/installed
	$(BIN)/python -m scripts.reproduce --scale=$(SCALE) --data_dir=$(DATA) $(ARGS)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -q $(ARGS)

lint: $(VENV)/installed
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -q tests/test_documents.py

$(VENV)/installed: requirements.lock
	$(if $(LINKED),$(error VENV=$(VENV) is a link, and $(LINKED) would be emptied: remove the link or give another VENV))
	$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or newer is needed: make PYTHON=...')"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -c "open('$@', 'w')"
