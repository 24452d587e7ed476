# `make learn` and `make test` need python3 (3.11 or newer) with venv, and nothing done before.
# Overridable: VENV=folder of the environment, PYTHON=interpreter it is made with.

VENV = .venv
PYTHON =
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
LESSON = notebooks/00_start_here.ipynb

.DEFAULT_GOAL = help
.PHONY: help learn test lint format sync peers test-lower-bounds clean

help: ## say what can be made
	@sed -nE 's/^([a-z-]+):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 28

# A browser opens only where there is a screen to show it.
headless = $(if $(DISPLAY)$(WAYLAND_DISPLAY),,$(if $(filter Linux,$(shell uname -s)),--no-browser))

learn: $(INSTALLED) ## open the first lesson in JupyterLab, installing what is missing
	$(BIN)/jupyter lab --ip=localhost --allow-root --LabApp.default_url=/lab/tree/$(LESSON) $(headless)

test: $(INSTALLED) ## run every test, lessons and exercises included
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(INSTALLED) ## check style
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(INSTALLED) ## correct style where that is safe
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

sync: $(INSTALLED) ## make everything generated: badges, README table, learners' exercises, environment.yml
	$(BIN)/python -m refattn.authoring sync

peers: $(INSTALLED) ## install the packages people use for the same work, and time ours against them
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[peers]'
	$(BIN)/python -m refattn bench --peers

test-lower-bounds: ## run the quick tests with the oldest versions that pyproject.toml allows, on Python 3.11
	rm -rf .venv-lower
	python3.11 -m venv .venv-lower
	.venv-lower/bin/python -m refattn.authoring lower-bounds > .venv-lower/constraints.txt
	.venv-lower/bin/pip install --quiet -c .venv-lower/constraints.txt -e '.[dev]'
	.venv-lower/bin/python -m pytest -n 2 --ignore=tests/test_lessons.py --ignore=tests/test_packaging.py

clean: ## remove caches and builds; the environment stays
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .venv-lower
	find refattn tests notebooks exercises -name __pycache__ -prune -exec rm -rf {} +

# The environment: made with the first Python that will do, renewed when what it is made from changes.
# Exit codes of the probe: 3 too old, 4 without venv; an environment that works is kept (it may hold a CPU-only torch).
probe = import sys; sys.version_info >= (3, 11) or sys.exit(3); import importlib.util as i; sys.exit(0 if i.find_spec("ensurepip") and i.find_spec("venv") else 4)

$(INSTALLED): pyproject.toml constraints.txt
	@$(BIN)/python -c '$(probe)' 2>/dev/null || { \
	    problem='no Python 3.11 or newer found: install one, or name it (make PYTHON=/path/to/python3)'; \
	    for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	        $$python -c '$(probe)' 2>/dev/null && exec $$python -m venv $(if $(wildcard $(VENV)/pyvenv.cfg),--clear) $(VENV); \
	        test $$? -ne 4 || problem="$$python has no venv module: install it (Debian, Ubuntu: apt install python3-venv)"; \
	    done; \
	    echo "make: $$problem" >&2; exit 1; \
	}
	@echo 'Installing into $(VENV): some minutes the first time, PyTorch is large'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
