# Every command prepares the machine first (vm/bootstrap.sh), which takes no time when all is in place.
VENV := $(or $(PROBEKIT_VENV),.venv)
PYTHON := $(VENV)/bin/python
# Options for one run, such as: make test PYTEST='-k fbt -x', make bench BENCH=--quick
PYTEST :=
BENCH :=

.PHONY: help demo test lint bench

help:
	@echo 'make demo    boot a guest, count its system calls for ten seconds, print them, stop it'
	@echo 'make test    every check of the project: lint, types, layers, tests, live guests'
	@echo 'make lint    only ruff, mypy and import-linter'
	@echo 'make bench   what a probe costs, beside bpftrace and gdb'

demo:
	@sh vm/bootstrap.sh
	@$(PYTHON) -m vm.demo

# pytest runs in one process: guests are slow without KVM, and two at a time on two cores are slower still.
test: lint
	@sh vm/bootstrap.sh tests
	$(PYTHON) -m pytest $(PYTEST)

lint:
	@sh vm/bootstrap.sh
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	$(VENV)/bin/lint-imports

bench:
	@sh vm/bootstrap.sh tests
	$(PYTHON) -m tests.bench $(BENCH)
