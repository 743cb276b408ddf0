# Every command sets up $(VENV) by itself; the second time it starts at once.
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

# The hardware that jax is installed for. CUDA 13 needs NVIDIA's driver 580, CUDA 12 needs 525.
DEVICES := cpu cuda12 cuda13 tpu
ifndef DEVICE
DEVICE := $(shell driver=$$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1 | cut -d. -f1); \
    if [ "$${driver:-0}" -ge 580 ]; then echo cuda13; elif [ "$${driver:-0}" -ge 525 ]; then echo cuda12; \
    elif [ -e /dev/accel0 ]; then echo tpu; else echo cpu; fi)
endif
ifeq ($(filter $(DEVICE),$(DEVICES)),)
$(error DEVICE=$(DEVICE) is unknown: choose one of $(DEVICES))
endif
LOCKS := requirements.lock $(if $(filter-out cpu,$(DEVICE)),requirements-$(DEVICE).lock)
INSTALLED := $(VENV)/installed-$(DEVICE)
DEVELOP := $(INSTALLED)-dev
PIP = $(BIN)/python -m pip install --disable-pip-version-check --require-hashes

# Compiled programs are kept from one command to the next.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax

.PHONY: help install reproduce test test-all lint locks
help:
	@echo "make install     sets up VENV=$(VENV)"
	@echo "make reproduce   runs the experiments at SCALE=$(SCALE) on DATA=$(DATA) and writes a page of figures;"
	@echo "                 ARGS=mnist for one experiment, SCALE=paper for its full size"
	@echo "make test        runs the tests; ARGS='-m \"not slow\"' for the fast half, ARGS=tests/test_norm.py for a file"
	@echo "make test-all    runs the exhaustive tests, too, which need the network"
	@echo "make lint        checks style, types, plain English, and the length and links of the documents"
	@echo "make locks       chooses versions again, with uv, after a change of requirements.txt"
	@echo "Each first installs what it needs with PYTHON=$(PYTHON) (3.11 or newer) into VENV=$(VENV), 1.3 GB, a minute or more,"
	@echo "with jax for DEVICE=$(DEVICE): one of $(DEVICES); by default this machine's hardware."

install: $(INSTALLED)

reproduce: $(INSTALLED)
	$(BIN)/python -m scripts.reproduce --scale=$(SCALE) --data_dir=$(DATA) $(ARGS)

test test-all: export JAX_PLATFORMS := cpu
test: $(DEVELOP)
	$(BIN)/python -m pytest -n 2 --dist=loadfile -q $(ARGS)

test-all: $(DEVELOP)
	$(BIN)/python -m pytest -n 2 --dist=loadfile -q -m "" $(ARGS)

lint: $(DEVELOP)
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --site-dir .cache/site
	$(BIN)/python -m pytest -q tests/test_documents.py tests/test_prose.py

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make locks"
locks:
	$(COMPILE) requirements.txt -o requirements.lock
	$(COMPILE) -c requirements.lock requirements-dev.txt -o requirements-dev.lock
	for device in $(filter-out cpu,$(DEVICES)); do \
	    echo "jax[$$device]" | $(COMPILE) --no-annotate -c requirements.lock -o requirements-$$device.lock - || exit; done

$(INSTALLED): $(LOCKS)
	$(if $(LINKED),$(error VENV=$(VENV) is a link, and $(LINKED) would be emptied: remove the link or give another VENV))
	@echo "Installing jax for DEVICE=$(DEVICE) into $(VENV); DEVICE=... chooses among $(DEVICES)."
	$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or newer is needed: make PYTHON=...')"
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) $(addprefix -r ,$(LOCKS))
	$(BIN)/python -c "open('$@', 'w')"

$(DEVELOP): $(INSTALLED) requirements-dev.lock
	$(PIP) -r requirements-dev.lock
	$(BIN)/python -c "open('$@', 'w')"
