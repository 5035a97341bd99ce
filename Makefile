# Every command prepares the machine first (vm/bootstrap.sh), which takes no time when all is in place.
VENV := $(or $(PROBEKIT_VENV),.venv)
PYTHON := $(VENV)/bin/python
# Options for one run, such as: make test PYTEST='-k fbt -x', make bench BENCH=--quick
PYTEST :=
BENCH :=
FAULTS := 300

.PHONY: help demo check test faults lint bench

help:
	@echo 'make demo    boot a guest, count its system calls for ten seconds, print them, stop it'
	@echo 'make check   lint, types, layers and every test that needs no guest; a few minutes'
	@echo 'make test    every check of the project: that of make check, and live guests'
	@echo 'make faults  probekit killed or refused a system call at 300 points of its life (FAULTS=300)'
	@echo 'make lint    only ruff, mypy and import-linter'
	@echo 'make bench   what a probe costs, beside bpftrace and gdb'

demo:
	@sh vm/bootstrap.sh
	@$(PYTHON) -m vm.demo

check: lint
	@sh vm/bootstrap.sh tests
	$(PYTHON) -m pytest -n 2 -m 'not guest' $(PYTEST)

# Three processes, each with guests of its own (tests/conftest.py); much of a live test is waiting.
test: lint
	@sh vm/bootstrap.sh tests
	$(PYTHON) -m pytest -n 3 --dist loadscope --no-loadscope-reorder $(PYTEST)

# Of these, make test has 20.
faults:
	@sh vm/bootstrap.sh tests
	$(PYTHON) -m pytest -n 2 --dist loadscope -rP tests/live/test_faults.py --faults $(FAULTS) $(PYTEST)

lint:
	@sh vm/bootstrap.sh
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	$(VENV)/bin/lint-imports

bench:
	@sh vm/bootstrap.sh tests
	$(PYTHON) -m tests.bench $(BENCH)
