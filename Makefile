# make run PROMPT="a red armchair"   an asset in outputs/
# make test                          the tests
# make test-faults                   runs cut off, disks that fail, damage: every case; writes docs/reliability.md
# make check                         lint, types, layers, tests
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

.PHONY: run test test-faults check lint types layers venv clean

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

# torch first: it is the largest, and the rest must not choose another.
$(VENV)/.torch:
	@test -n "$(PYTHON)" || { echo 'no Python 3.11, 3.12 or 3.13 with venv on the PATH (Debian, Ubuntu: apt install python3-venv)' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.lock)
	@touch $@

$(VENV)/.installed: $(VENV)/.torch requirements.lock pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@test -e .git || $(BIN)/dvc config --local core.no_scm true
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
