# The two commands of the README are `make run` and `make test`; both set up what they need in .venv and .cache.
# What a target needs of the machine: Python 3.11 or newer (PYTHON=...), git, make, node and package registries.

OLD_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(OLD_ENOUGH)' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
COVERED = $(BIN)/python -m coverage report --skip-covered
.DEFAULT_GOAL := help
.PHONY: help run test lint wheel bench docs constraints clean venv-run venv-test

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1	/p' $(MAKEFILE_LIST)

run: venv-run ## the demo application with four workers, until Ctrl-C
	@exec $(BIN)/python -m acceptance_tests.run

test: venv-test ## everything that must hold: linters, types, layers, tests with real servers, the built wheel
	$(BIN)/python -m tests.provision.servers
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m coverage erase
	$(BIN)/python -m tests.provision.suite
	$(BIN)/python -m coverage combine --quiet
	$(COVERED)
	$(MAKE) --no-print-directory wheel

lint: venv-test ## its first minute: ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: venv-test ## build, install in a clean environment, use it there
	$(BIN)/python tests/provision/wheel.py

bench: venv-test ## what a request costs with each peer, and whether that meets the goals
	$(BIN)/python -m tests.benchmarks

docs: venv-test ## generate docs/settings.md and the table of settings in README.md
	$(BIN)/python tests/provision/docs.py

constraints: ## resolve the development environment afresh into constraints.txt
	$(PYTHON) tests/provision/venv.py constraints

clean: ## remove what the other targets have made
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv-run venv-test: venv-%:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer on PATH; install one or say make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) tests/provision/venv.py $*
