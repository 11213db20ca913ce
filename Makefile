# `make demo` and `make test` each do everything on a bare Debian or Ubuntu: system packages, a virtual
# environment in .venv, installation, then the job.

.DEFAULT_GOAL := help
.PHONY: help setup demo test torture lint docs format clean

BIN := .venv/bin
PYTEST_ARGS ?= -n 4 --dist loadfile --no-loadscope-reorder

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

setup: ## system packages, virtual environment and installation; quick when they are there
	@sh scripts/setup.sh

demo: ## train RRL on Adroit's door from pixels (gin/quickstart.gin), 5 to 10 minutes; installs what that needs
	@sh scripts/setup.sh offline,cpu
	$(BIN)/rrl run gin/quickstart.gin

test: lint docs ## ruff, mypy, the site and the fast tests
	$(BIN)/pytest $(PYTEST_ARGS)

torture: setup ## kill runs and workers, fill disks; resume and compare (scripts/torture.py)
	$(BIN)/python scripts/torture.py

lint: setup ## ruff and mypy alone
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: setup ## the site of docs/, into site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

format: setup ## let ruff rewrite the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove the virtual environment and the caches, keep the runs
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache site
