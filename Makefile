# make run PROMPT="a red armchair"   an asset in outputs/
# make test                          the tests
# make test-faults                   runs cut off, disks that fail, damage: every case; writes docs/reliability.md
# make check                         lint, types, layers, tests
# make lock, make bill               exact versions with hashes; the list of what this is made of
# The newest Python of those that can make an environment; or name one: make PYTHON=/path/to/python3.12
PYTHON ?= $(shell for each in python3.13 python3.12 python3.11 python3; do \
	"$$each" -c "$(SUITS)" 2>/dev/null && command -v "$$each" && break; done)
SUITS := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
VENV ?= .venv
BIN := $(VENV)/bin
PRESET ?= home
export PROMPT

# torch's OpenMP threads spin at barriers and starve any neighbour.
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 0

.PHONY: run test test-faults check lint types layers venv lock bill clean

run: venv
	@test -n "$$PROMPT" || { echo 'say what you want: make run PROMPT="a red armchair"' >&2; exit 2; }
	@$(BIN)/dreampolish run --preset $(PRESET) -- "$$PROMPT"

test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

test-faults: venv
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/all_faults.py --document docs/reliability.md

check: lint types layers test

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/mypy

layers: venv
	$(BIN)/lint-imports --no-cache

venv: $(VENV)/.installed

# Exact packages, every file by its hash. torch first and alone: its CPU build where pip finds one, else the registry's, which on Linux
# is a CUDA build and needs requirements-cuda.lock as well.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes

$(VENV)/.torch:
	@test -n "$(PYTHON)" || { echo 'no Python 3.11, 3.12 or 3.13 with venv on the PATH (Debian, Ubuntu: apt install python3-venv)' >&2; exit 2; }
	@echo "installing packages into $(VENV), once: some minutes, 2.4 GB"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --no-deps -r requirements-cpu.lock 2>/dev/null || { \
		sed -n '/^torch==/,/[^\\]$$/p' requirements.lock > $(VENV)/torch.lock && $(INSTALL) --no-deps -r $(VENV)/torch.lock; }
	@touch $@

$(VENV)/.installed: $(VENV)/.torch requirements.lock requirements-cuda.lock pyproject.toml
	@$(INSTALL) -r requirements.lock $$(ls $(VENV)/lib/python3*/site-packages/torch/lib/libtorch_cuda.so >/dev/null 2>&1 \
		&& echo -r requirements-cuda.lock)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@test -e .git || $(BIN)/dvc config --local core.no_scm true
	@touch $@

# Versions and hashes anew; versions stay where pyproject.toml allows them (make lock NEWER="prefect mlflow" takes the newest of those).
lock: $(VENV)/tools
	PATH="$(CURDIR)/$(VENV)/tools/bin:$$PATH" $(BIN)/python supply/lock.py --newer $(NEWER)

# What this project is made of, as CycloneDX.
bill: venv $(VENV)/tools
	PYTHONPATH=$(VENV)/tools $(BIN)/python -W ignore supply/bill.py

$(VENV)/tools: $(VENV)/.torch
	$(BIN)/pip install --quiet --disable-pip-version-check --target $@ uv==0.13.9 cyclonedx-python-lib==11.12.0

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
