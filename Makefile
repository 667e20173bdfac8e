# Needs bash and GNU make 3.81 or later; everything else is set up by the targets themselves.
SHELL := /bin/bash

# Processes that `make test` runs at once: `make test WORKERS=4`.
WORKERS ?= 2
# Further arguments: `make test ARGS="-k unread -x"`, `make demo ARGS="--help"`.
ARGS ?=

# How long each fuzzer runs: `make fuzz SECONDS=60`.
SECONDS ?= 300

.PHONY: help demo test fuzz soak mutants bench choices soak-load check format lock services clean

help:
	@echo "make demo    everything on this machine: sign in and talk to agents"
	@echo "make test    all tests, with real PostgreSQL, Redis and Chromium (installed where missing)"
	@echo "make fuzz    look for bytes that break the event-stream parser, for twice SECONDS ($(SECONDS))"
	@echo "make soak    the long proof: random faults over 20 seeds, and 1,000 races (about half an hour)"
	@echo "make mutants break each promise on purpose and see that its tests fail (ARGS=part of a name)"
	@echo "make bench   what the portal costs beside other proxies: about an hour (ARGS=--quick: minutes)"
	@echo "make choices measure again what docs/decisions chose between (ARGS=name: one of them)"
	@echo "make soak-load  ten minutes of load with people who come and go: is memory flat, is nothing lost?"
	@echo "make check   formatting, types, import rules, templates, migrations, deployment settings"
	@echo "make format  let ruff and djade put the code in order"
	@echo "make lock    write requirements*.txt anew from pyproject.toml (ARGS=--upgrade for newer versions)"
	@echo "make clean   remove what the other targets made, .venv and var included"

.venv/.app: requirements.txt
	@scripts/setup app

.venv/.dev: requirements-dev.txt
	@scripts/setup dev

demo: .venv/.app
	@.venv/bin/python manage.py demo $(ARGS)

services: .venv/.dev
	@scripts/services

test: services
	.venv/bin/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

fuzz: .venv/.dev
	.venv/bin/python -m tests.fuzz --seconds $(SECONDS)

soak: services
	RACES=500 .venv/bin/python -m pytest tests/faults/test_open_and_arrive.py tests/faults/test_kill.py
	.venv/bin/python -m tests.faults.laboratory --seeds 20 --steps 500 $(ARGS)

mutants: services
	.venv/bin/python -m tests.mutations --at-once $(WORKERS) $(ARGS)

bench: .venv/.dev
	@scripts/services postgresql redis nginx
	.venv/bin/python -m benchmarks --output $(if $(ARGS),var/benchmarks $(ARGS),docs/benchmarks)
	$(if $(ARGS),@echo "not the whole list: see var/benchmarks",.venv/bin/python -m benchmarks.growth --write)

choices: .venv/.dev
	@scripts/services postgresql
	.venv/bin/python -m benchmarks.choices $(ARGS)

soak-load: .venv/.dev
	@scripts/services postgresql
	.venv/bin/python -m benchmarks.soak $(ARGS)

check: .venv/.dev
	@mkdir -p var
	@scripts/check

format: .venv/.dev
	.venv/bin/ruff check --fix-only --quiet .
	.venv/bin/ruff format .
	git ls-files --cached --others --exclude-standard -z -- 'templates/*.html' | xargs -0 .venv/bin/djade --target-version 6.1 || true

lock: .venv/.dev
	scripts/lock $(ARGS)

clean:
	rm -rf .venv var build staticfiles .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
