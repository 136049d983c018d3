# SPDX-License-Identifier: LGPL-2.1-or-later
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml build_ffi.py $(wildcard include/*.h csrc/*.c)

export PYTHON
# where tools/install-packages unpacks what cannot be installed beside what is there
export PATH := $(CURDIR)/.cache/bin:$(PATH)

.PHONY: help all demo test lint faults soak bench clean
.DEFAULT_GOAL := all

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{ printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

all: $(VENV)/built ## build the package into .venv

demo: $(VENV)/built ## run one command in a throwaway copy of a container, on a tmpfs
	@tools/install-packages run
	@$(BIN)/python -m lxccopy_ffi --version | sed -n '1s/^/liblxc /p;2p'
	@sh examples/demo.sh $(BIN)/lxccopy

test: $(VENV)/built ## run every test, as root with real containers
	@tools/install-packages run test
	$(BIN)/pytest $(ARGS)

lint: $(VENV)/built ## ruff, mypy --strict and stubtest
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/stubtest lxccopy_ffi._liblxc

faults: $(VENV)/built ## kill it at each of its steps, and look at what is left
	@tools/install-packages run test
	$(BIN)/pytest tests/live/test_faults.py $(ARGS)

soak: $(VENV)/built ## 1000 copies, while what runs them is killed at random
	@tools/install-packages run test
	timeout 900 $(BIN)/python tests/soak.py $(ARGS)

bench: $(VENV)/built ## time it against lxc-copy
	@tools/install-packages run test
	@$(BIN)/python -m compileall -q lxccopy_ffi  # as pip does when it installs
	$(BIN)/python bench/oneshot.py $(ARGS)

# One tool after the other, as each needs the one before: packages, virtual environment, extension.
$(VENV)/built: $(SOURCES)
	@tools/install-packages build
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'setuptools>=77' 'cffi>=1.15'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
		--config-settings editable_mode=compat --editable '.[dev]'
	@touch $@

clean: ## remove what was built
	rm -rf $(VENV) build dist .cache .mypy_cache .pytest_cache .ruff_cache ./*.egg-info lxccopy_ffi/*.so
	find . -name __pycache__ -prune -exec rm -rf {} +
