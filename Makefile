# deepskip: `make` lists the targets. Everything runs in .venv, made once from the lock.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench pictures lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(INSTALLED) ## make .venv from the lock

$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the lock into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED) ## the main job on real data: plain and residual nets at several depths, with a report
	@$(BIN)/deepskip study depth digits

test: $(INSTALLED) ## run the tests
	@$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(INSTALLED) ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(INSTALLED) ## put the code into its style
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

bench: $(INSTALLED) ## measure; results go to results/
	@for script in $(wildcard benchmarks/*.py); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

pictures: demo ## redraw the pictures of the README from the demo's study, and the gallery's
	@cp runs/study-depth-digits/figures/*.svg docs/pictures/
	@$(BIN)/python docs/gallery.py

lock: ## refresh constraints.txt from the newest releases (torch stays)
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@build/lock/bin/pip install --quiet "$$(grep '^torch==' constraints.txt)" '.[dev]'
	@{ head -1 constraints.txt; build/lock/bin/pip freeze --exclude deepskip | sed 's/+cpu$$//'; } > build/constraints.txt
	@mv build/constraints.txt constraints.txt

clean: ## remove .venv, caches and build leftovers
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
